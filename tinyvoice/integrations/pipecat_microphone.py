"""The machine's own microphone and loudspeaker as a transport of Pipecat, by sounddevice.

Pipecat's own local transport needs PyAudio, which has no wheels for Linux. Echo is not cancelled:
with loudspeakers an agent hears itself, so that headphones are the better choice, or
``half_duplex``, which lets the agent finish.

Written against pipecat-ai 1.14.
"""

from __future__ import annotations

import asyncio
import time

from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    StartFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import BaseTransport, TransportParams

from tinyvoice.audio.loudspeaker import (
    HELD_MS,
    Loudspeaker,
    LoudspeakerError,
    OutputDevice,
    find_loudspeaker,
)
from tinyvoice.audio.microphone import InputDevice, Microphone, MicrophoneError, find_device

ECHO_S = 0.3 + 2 * HELD_MS / 1000
"""How long a room goes on sounding after the agent's last sound was handed on, in seconds."""


class _MicrophoneInput(BaseInputTransport):
    def __init__(self, transport: MicrophoneTransport, params: TransportParams) -> None:
        super().__init__(params)
        self._transport = transport
        self._reader: asyncio.Task[None] | None = None
        self._deaf_until = 0.0

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)
        self._reader = self.create_task(self._read(), name="microphone")
        await self._transport.connected()

    async def cleanup(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await self.cancel_task(reader)
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, BotStartedSpeakingFrame):
            self._deaf_until = float("inf")
        elif isinstance(frame, BotStoppedSpeakingFrame):
            self._deaf_until = time.monotonic() + ECHO_S
        await super().process_frame(frame, direction)

    async def _read(self) -> None:
        try:
            async with Microphone(self._transport.device) as microphone:
                form = microphone.format
                async for packet in microphone:
                    if self._transport.half_duplex and time.monotonic() < self._deaf_until:
                        continue
                    await self.push_audio_frame(
                        InputAudioRawFrame(
                            audio=packet.tobytes(),
                            sample_rate=form.sample_rate,
                            num_channels=form.channels,
                        )
                    )
        except MicrophoneError as error:
            await self.push_error(str(error), exception=error)
            await self._transport.lost(error)


class _LoudspeakerOutput(BaseOutputTransport):
    def __init__(self, transport: MicrophoneTransport, params: TransportParams) -> None:
        super().__init__(params)
        self._transport = transport
        self._loudspeaker: Loudspeaker | None = None

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        loudspeaker = Loudspeaker(self._transport.loudspeaker, self.sample_rate)
        try:
            await loudspeaker.__aenter__()
        except MicrophoneError as error:
            await self._lose(error)
        else:
            self._loudspeaker = loudspeaker
        await self.set_transport_ready(frame)

    async def cleanup(self) -> None:
        await super().cleanup()
        loudspeaker, self._loudspeaker = self._loudspeaker, None
        if loudspeaker is not None:
            await loudspeaker.close()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, InterruptionFrame) and self._loudspeaker is not None:
            self._loudspeaker.clear()
        await super().process_frame(frame, direction)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        """Play; returns when the device has room again, which paces the agent."""
        if self._loudspeaker is None:
            return False
        try:
            await self._loudspeaker.play(frame.audio)
        except LoudspeakerError as error:
            await self._lose(error)
            return False
        return True

    async def _lose(self, error: MicrophoneError) -> None:
        await self.push_error(str(error), exception=error)
        await self._transport.lost(error)


class MicrophoneTransport(BaseTransport):
    """Talk to a pipeline through the machine it runs on.

    Events: ``on_client_connected(transport, device)`` when the microphone is being opened,
    ``on_client_disconnected(transport, error)`` when it or the loudspeaker is lost, or cannot be
    opened; :attr:`error` says why.

    Args:
        device: number or part of the name of a microphone; the system's default unless said.
        loudspeaker: the same of a loudspeaker.
        half_duplex: whether the agent is deaf while it speaks, for rooms with loudspeakers.

    Raises:
        MicrophoneError: there is no such microphone, no loudspeaker, or PortAudio is missing.
        MissingExtraError: the extra ``mic`` is not installed.
    """

    def __init__(
        self,
        device: str | int | None = None,
        loudspeaker: str | int | None = None,
        *,
        half_duplex: bool = False,
    ) -> None:
        super().__init__()
        self.device: InputDevice = find_device(device)
        self.loudspeaker: OutputDevice = find_loudspeaker(loudspeaker)
        self.half_duplex = half_duplex
        self.error: MicrophoneError | None = None
        params = TransportParams(
            audio_in_enabled=True, audio_out_enabled=True, audio_out_end_silence_secs=0
        )
        self._input = _MicrophoneInput(self, params)
        self._output = _LoudspeakerOutput(self, params)
        self._register_event_handler("on_client_connected")
        self._register_event_handler("on_client_disconnected")

    def input(self) -> BaseInputTransport:
        """Sound from the microphone."""
        return self._input

    def output(self) -> BaseOutputTransport:
        """Sound to the loudspeaker."""
        return self._output

    async def connected(self) -> None:
        """The conversation begins."""
        await self._call_event_handler("on_client_connected", self.device)

    async def lost(self, error: MicrophoneError) -> None:
        """The microphone or the loudspeaker is gone; the first of them ends the conversation."""
        if self.error is not None:
            return
        self.error = error
        await self._call_event_handler("on_client_disconnected", error)

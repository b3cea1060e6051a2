"""Sound to a loudspeaker, for asyncio: what is to be heard goes in, at the pace of its playing.

PortAudio's thread takes what it needs from a short buffer and plays silence where there is none, so
that pauses between answers are no underruns and what is still waiting can be taken back at once.

It does not resample, mix, or set the volume.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np

from tinyvoice.audio.microphone import MicrophoneError, portaudio

HELD_MS = 100
"""Sound that may wait for the device, which has as much again: together they bridge a busy machine.
"""

LONGEST_STALL_S = 3.0
"""A device that takes nothing for this long is gone."""


class LoudspeakerError(MicrophoneError):
    """No sound can be played."""


@dataclass(frozen=True)
class OutputDevice:
    """A device to play to; ``index`` is its number in lists and choices."""

    index: int
    name: str


def find_loudspeaker(choice: str | int | None = None) -> OutputDevice:
    """The device with a number, or whose name contains a text; the system's default for None.

    Raises:
        LoudspeakerError: there is no device, or none or several that fit.
        MicrophoneError: the PortAudio library is missing.
        MissingExtraError: the extra ``mic`` is not installed.
    """
    sounddevice = portaudio()
    try:
        found = sounddevice.query_devices()
        default = sounddevice.default.device[1]
    except sounddevice.PortAudioError:
        found, default = (), -1
    devices = [
        OutputDevice(device["index"], device["name"])
        for device in found
        if device["max_output_channels"] > 0
    ]
    if not devices:
        raise LoudspeakerError("There is no loudspeaker: plug one in.")
    if choice is None:
        return next((device for device in devices if device.index == default), devices[0])
    text = str(choice).strip().lower()
    if text.isdecimal():
        fitting = [device for device in devices if device.index == int(text)]
    else:
        fitting = [device for device in devices if device.name.lower() == text]
        fitting = fitting or [device for device in devices if text in device.name.lower()]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(f"{device.index} ({device.name})" for device in fitting or devices)
    raise LoudspeakerError(
        f"{str(choice)!r} fits several loudspeakers; give one of the numbers {listed}."
        if fitting
        else f"There is no loudspeaker {str(choice)!r}; choose from {listed}."
    )


class Loudspeaker:
    """An open device: ``async with`` opens it, `play` is awaited until there is room for more.

    Args:
        device: what to play to.
        sample_rate: of the sound, in Hz; int16, mono.

    Raises (on opening and by `play`):
        LoudspeakerError: the device cannot be opened, or was lost.
    """

    def __init__(self, device: OutputDevice, sample_rate: int) -> None:
        self.device = device
        self.sample_rate = sample_rate
        self._stream: Any = None
        self._held = bytearray()
        self._lock = Lock()  # the device's thread takes, the loop's gives
        self._taken = asyncio.Event()
        self._lost = self._closed = False

    async def __aenter__(self) -> Loudspeaker:
        loop = asyncio.get_running_loop()

        def taken() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(self._taken.set)

        def ended() -> None:
            self._lost = not self._closed
            taken()

        # Opening may take a second, and the sound server may take its time.
        self._stream = await asyncio.to_thread(self._open, taken, ended)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop playing; what still waits is not played. Twice does no harm."""
        self._closed = True
        self.clear()
        stream, self._stream = self._stream, None
        if stream is not None:
            await asyncio.to_thread(stream.abort, ignore_errors=True)
            await asyncio.to_thread(stream.close, ignore_errors=True)

    async def play(self, pcm16: bytes) -> None:
        """Hand on sound, and wait until no more than `HELD_MS` of it is yet to be played."""
        with self._lock:
            self._held += pcm16
        most = 2 * (self.sample_rate * HELD_MS // 1000)
        while not self._closed and len(self._held) > most:
            self._taken.clear()
            try:
                await asyncio.wait_for(self._taken.wait(), LONGEST_STALL_S)
            except TimeoutError:
                self._lost = True
            if self._lost:
                self.clear()
                raise LoudspeakerError(
                    f"The loudspeaker {self.device.name} is gone: plug it in again, or choose "
                    "another one."
                )

    def clear(self) -> None:
        """Take back what has not been played yet."""
        with self._lock:
            self._held.clear()

    def _open(self, taken: Any, ended: Any) -> Any:
        """Open and start the device, in stereo if it has no mono."""
        sounddevice = portaudio()
        reasons = []
        for channels in (1, 2):
            stream = None
            try:
                stream = sounddevice.RawOutputStream(
                    device=self.device.index,
                    samplerate=self.sample_rate,
                    channels=channels,
                    dtype="int16",
                    latency=HELD_MS / 1000,
                    callback=self._callback(channels, taken),
                    finished_callback=ended,
                )
                stream.start()
            except (sounddevice.PortAudioError, ValueError) as error:
                if stream is not None:
                    stream.close(ignore_errors=True)
                # PortAudio's own words, on one line and without its number.
                reasons.append(" ".join(str(error).split()).partition(" [PaErrorCode")[0])
                continue
            return stream
        raise LoudspeakerError(
            f"The loudspeaker {self.device.name} cannot be opened ({reasons[0]}): close other "
            "programs that play to it, or choose another one."
        )

    def _callback(self, channels: int, taken: Any) -> Any:
        """What PortAudio's thread calls for each buffer that it wants filled."""

        def callback(buffer: Any, frames: int, _time: Any, _status: Any) -> None:
            with self._lock:
                sound = bytes(self._held[: 2 * frames])
                del self._held[: 2 * frames]
            if sound:
                taken()
            sound += bytes(2 * frames - len(sound))
            samples = np.frombuffer(sound, dtype=np.int16)
            buffer[:] = np.repeat(samples, channels).tobytes()

        return callback

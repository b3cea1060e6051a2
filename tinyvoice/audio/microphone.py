"""Sound from a microphone as packets of samples, for asyncio.

PortAudio's thread hands each buffer to the event loop, which never waits for the device. Devices
are found by number or by part of a name. On Linux PortAudio speaks ALSA: where PulseAudio or
PipeWire owns the microphone, ALSA reaches it through the device ``pulse`` of the Debian package
libasound2-plugins.

It does not resample, cancel echo, or set the recording level.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.errors import AudioError, MissingExtraError

PACKET_MS = 20
"""Sound in a packet, in milliseconds."""

LONGEST_SILENCE_OF_DEVICE_S = 3.0
"""A device that sends nothing for this long is gone; silence is also sound."""

MOST_WAITING_S = 60.0
"""Sound that may wait for its reader; what comes on top is lost, and counted."""


class MicrophoneError(AudioError):
    """No sound can be had from a microphone.

    ``install`` is the command that brings what is missing, if something is.
    """

    def __init__(self, message: str, *, install: str | None = None) -> None:
        super().__init__(message)
        self.install = install


@dataclass(frozen=True)
class InputDevice:
    """A device to record from; ``index`` is its number in lists and choices."""

    index: int
    name: str
    channels: int
    sample_rate: int
    """What the device prefers, in Hz."""
    default: bool


@dataclass(frozen=True)
class MicrophoneFormat:
    """How the packets of an open microphone are to be read: int16 at a rate in Hz."""

    sample_rate: int
    channels: int


def input_devices() -> list[InputDevice]:
    """All devices that can be recorded from, in PortAudio's order; the list may be empty.

    Raises:
        MissingExtraError: the extra ``mic`` is not installed.
        MicrophoneError: the PortAudio library is missing, or fails.
    """
    sounddevice = portaudio()
    try:
        devices = sounddevice.query_devices()
        default = sounddevice.default.device[0]
    except sounddevice.PortAudioError as error:
        raise MicrophoneError(f"The sound system cannot list devices ({_reason(error)}).") from None
    found = [device for device in devices if device["max_input_channels"] > 0]
    if default not in (device["index"] for device in found):
        default = found[0]["index"] if found else -1
    return [
        InputDevice(
            index=device["index"],
            name=device["name"],
            channels=device["max_input_channels"],
            sample_rate=round(device["default_samplerate"]),
            default=device["index"] == default,
        )
        for device in found
    ]


def find_device(choice: str | int | None = None) -> InputDevice:
    """The device with a number, or whose name contains a text; the system's default for None.

    Raises:
        MicrophoneError: there is no device, or none or several that fit.
        MissingExtraError: the extra ``mic`` is not installed.
    """
    devices = input_devices()
    if not devices:
        raise MicrophoneError(_nothing_to_record_from(), install=_pulse_command())
    if choice is None:
        return next(device for device in devices if device.default)
    text = str(choice).strip()
    if text.isdecimal():
        fitting = [device for device in devices if device.index == int(text)]
    else:
        fitting = [device for device in devices if device.name.lower() == text.lower()]
        fitting = fitting or [device for device in devices if text.lower() in device.name.lower()]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(f"{device.index} ({device.name})" for device in fitting or devices)
    raise MicrophoneError(
        f"{text!r} fits several microphones; give one of the numbers {listed}."
        if fitting
        else f"There is no microphone {text!r}; choose from {listed}."
    )


class Microphone:
    """An open device: ``async with`` opens it, ``async for`` gives packets until it is closed.

    Packets are int16 arrays ``(samples, channels)`` in the order of recording, as :attr:`format`
    says once it is open. Leaving the block closes the device.

    Attributes:
        device: what is recorded from.
        overruns: times that sound was lost since it opened, because the machine or the reader was
            too slow.

    Raises (on opening and while iterating):
        MicrophoneError: the device cannot be opened, or was lost.
    """

    def __init__(self, device: InputDevice) -> None:
        self.device = device
        self.overruns = 0
        self._format: MicrophoneFormat | None = None
        self._stream: Any = None
        self._waiting: deque[NDArray[np.int16]] = deque()
        self._news = asyncio.Event()
        self._closed = self._lost = False

    @property
    def format(self) -> MicrophoneFormat:
        """Rate and channels of the packets."""
        if self._format is None:
            raise MicrophoneError("The microphone is not open yet: use it in an async with block.")
        return self._format

    async def __aenter__(self) -> Microphone:
        loop = asyncio.get_running_loop()

        def receive(packet: NDArray[np.int16], overflowed: bool) -> None:
            _call(loop, self._receive, packet, overflowed)

        def ended() -> None:
            _call(loop, self._end)

        # Opening may take a second, and the sound server may take its time.
        self._stream, self._format = await asyncio.to_thread(_open, self.device, receive, ended)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop recording; iteration ends after the packets that have come. Twice does no harm."""
        self._closed = True
        self._news.set()
        stream, self._stream = self._stream, None
        if stream is not None:
            await asyncio.to_thread(stream.close, ignore_errors=True)

    async def __aiter__(self) -> AsyncIterator[NDArray[np.int16]]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._closed:
                return
            if self._lost:
                raise MicrophoneError(
                    f"The microphone {self.device.name} is gone: plug it in again, or choose "
                    "another one."
                )
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), LONGEST_SILENCE_OF_DEVICE_S)
            except TimeoutError:
                self._lost = True

    def _receive(self, packet: NDArray[np.int16], overflowed: bool) -> None:
        """Take a packet. Runs in the event loop."""
        self.overruns += overflowed
        if len(self._waiting) * PACKET_MS >= MOST_WAITING_S * 1000:
            self.overruns += 1
        else:
            self._waiting.append(packet)
        self._news.set()

    def _end(self) -> None:
        self._lost = not self._closed
        self._news.set()


def _call(loop: asyncio.AbstractEventLoop, function: Any, *arguments: Any) -> None:
    """Run something in the loop, from another thread, unless the loop has been closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)


def _open(device: InputDevice, receive: Any, ended: Any) -> tuple[Any, MicrophoneFormat]:
    """Open and start the device in the first format that it takes."""
    sounddevice = portaudio()
    reasons = []
    for form in _formats(device):
        stream = None
        try:
            stream = sounddevice.RawInputStream(
                device=device.index,
                samplerate=form.sample_rate,
                channels=form.channels,
                dtype="int16",
                blocksize=form.sample_rate * PACKET_MS // 1000,
                callback=_callback(receive, form.channels),
                finished_callback=ended,
            )
            stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            if stream is not None:
                stream.close(ignore_errors=True)
            reasons.append(_reason(error))
            continue
        return stream, form
    raise MicrophoneError(
        f"The microphone {device.name} cannot be opened ({reasons[0]}): close other programs that "
        "record from it, allow access to it, or choose another one."
    )


def _callback(receive: Any, channels: int) -> Any:
    """What PortAudio's thread calls with each buffer, which is used again: it is copied."""

    def callback(buffer: Any, _frames: int, _time: Any, status: Any) -> None:
        packet = np.frombuffer(bytes(buffer), dtype=np.int16).reshape(-1, channels)
        receive(packet, bool(status.input_overflow))

    return callback


def _formats(device: InputDevice) -> list[MicrophoneFormat]:
    """What to try: 16 kHz mono needs no conversion here, the rest is what the hardware has."""
    rates = dict.fromkeys((SAMPLE_RATE, device.sample_rate, 48_000, 44_100))
    return [
        MicrophoneFormat(rate, channels)
        for rate in rates
        for channels in (1, 2)
        if channels <= device.channels
    ]


def portaudio() -> ModuleType:
    """Import sounddevice, which loads PortAudio."""
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtraError("mic", "Recording from a microphone") from error
    except OSError:
        command = (
            "brew install portaudio"
            if platform.system() == "Darwin"
            else "sudo apt-get install libportaudio2"
        )
        raise MicrophoneError(
            f"The PortAudio library, which records from microphones, is missing: {command}",
            install=command,
        ) from None
    return sounddevice


def _nothing_to_record_from() -> str:
    command = _pulse_command()
    if command is None:
        return "There is no microphone: plug one in, or allow this program to use it."
    return (
        "There is no microphone: plug one in, or, where PulseAudio or PipeWire owns it, install "
        f"ALSA's way to them: {command}"
    )


def _pulse_command() -> str | None:
    return "sudo apt-get install libasound2-plugins" if platform.system() == "Linux" else None


def _reason(error: BaseException) -> str:
    """PortAudio's own words, on one line and without its number."""
    return " ".join(str(error).split()).partition(" [PaErrorCode")[0]

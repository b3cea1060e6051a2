"""Microphones: devices and choices, packets from PortAudio's thread, and what can go wrong.

PortAudio is replaced at its boundary, the module ``sounddevice``, by a sound card that the test
plays; a real recording from a virtual microphone is in ``tests/cli/test_listen.py``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinyvoice.audio import microphone
from tinyvoice.audio.microphone import (
    InputDevice,
    Microphone,
    MicrophoneError,
    MicrophoneFormat,
    find_device,
    input_devices,
)
from tinyvoice.errors import MissingExtraError

Callback = Callable[[Any, int, Any, Any], None]


class PortAudioError(Exception):
    """As the library's: a message with a number at its end."""


class SoundCard(ModuleType):
    """Stands in for ``sounddevice``: devices as listed, formats that the hardware takes."""

    PortAudioError = PortAudioError

    def __init__(self, devices: list[tuple[str, int]], default: int = -1) -> None:
        super().__init__("sounddevice")
        self.devices = [
            {
                "index": index,
                "name": name,
                "max_input_channels": channels,
                "default_samplerate": 44100.0,
            }
            for index, (name, channels) in enumerate(devices)
        ]
        self.default = SimpleNamespace(device=(default, -1))
        self.takes: Callable[[int, int], bool] = lambda rate, channels: True
        self.asked: list[tuple[int, int]] = []
        self.closed = 0
        self.callback: Callback | None = None
        self.finished: Callable[[], None] | None = None
        self.RawInputStream = lambda **options: Recording(self, **options)

    def query_devices(self) -> list[dict[str, Any]]:
        return self.devices

    def send(self, *packets: np.ndarray, overflow: bool = False) -> None:
        """Deliver packets from a thread of its own, the last of them with the overflow flag."""
        callback = self.callback
        assert callback is not None

        def deliver() -> None:
            for number, packet in enumerate(packets, start=1):
                buffer = bytearray(packet.tobytes())
                status = SimpleNamespace(input_overflow=overflow and number == len(packets))
                callback(buffer, len(packet), None, status)
                buffer[:] = bytes(len(buffer))  # the card records the next packet into it

        thread = threading.Thread(target=deliver)
        thread.start()
        thread.join()


class Recording:
    """An open stream of the card."""

    def __init__(self, card: SoundCard, **options: Any) -> None:
        self.card = card
        form = int(options["samplerate"]), int(options["channels"])
        card.asked.append(form)
        if not card.takes(*form):
            raise PortAudioError("Error opening RawInputStream: Invalid rate [PaErrorCode -9997]")
        assert options["dtype"] == "int16"
        assert options["blocksize"] == form[0] // 50
        card.callback, card.finished = options["callback"], options["finished_callback"]

    def start(self) -> None:
        pass

    def close(self, ignore_errors: bool = True) -> None:
        self.card.closed += 1
        assert self.card.finished is not None
        self.card.finished()


def plug_in(
    monkeypatch: pytest.MonkeyPatch, *devices: tuple[str, int], default: int = -1
) -> SoundCard:
    card = SoundCard(list(devices), default)
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    return card


def ramp(start: int, channels: int = 1) -> np.ndarray:
    return np.arange(start, start + 320 * channels, dtype=np.int16).reshape(320, channels)


HEADSET = InputDevice(0, "Headset", channels=2, sample_rate=44100, default=True)


# --- devices -------------------------------------------------------------------------------------


def test_only_devices_with_inputs_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, ("Speakers", 0), ("Headset", 1), ("Webcam", 2), default=2)
    assert input_devices() == [
        InputDevice(1, "Headset", 1, 44100, default=False),
        InputDevice(2, "Webcam", 2, 44100, default=True),
    ]


def test_without_a_choice_the_default_is_taken_or_else_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plug_in(monkeypatch, ("Speakers", 0), ("Headset", 1), ("Webcam", 2), default=2)
    assert find_device().name == "Webcam"
    plug_in(monkeypatch, ("Speakers", 0), ("Headset", 1), ("Webcam", 2), default=-1)
    assert find_device().name == "Headset"


@pytest.mark.parametrize(
    ("choice", "name"),
    [(1, "USB Webcam"), ("1", "USB Webcam"), ("head", "Headset"), ("usb", "USB"), ("CAM", None)],
)
def test_devices_are_chosen_by_number_or_name(
    choice: str | int, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole name goes before parts of names."""
    plug_in(monkeypatch, ("Headset", 1), ("USB Webcam", 2), ("USB", 1), ("Camera", 1))
    if name is not None:
        assert find_device(choice).name == name
        return
    with pytest.raises(MicrophoneError, match=r"fits several .* 1 \(USB Webcam\), 3 \(Camera\)"):
        find_device(choice)


@pytest.mark.parametrize("choice", ["7", "laptop", 0])
def test_an_unknown_choice_names_what_there_is(
    choice: str | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(monkeypatch, ("Speakers", 0), ("Headset", 1))
    with pytest.raises(MicrophoneError, match=r"no microphone '.*'; choose from 1 \(Headset\)"):
        find_device(choice)


def test_without_devices_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, ("Speakers", 0))
    monkeypatch.setattr(microphone.platform, "system", lambda: "Linux")
    with pytest.raises(MicrophoneError, match="apt-get install libasound2-plugins") as raised:
        find_device()
    assert raised.value.install == "sudo apt-get install libasound2-plugins"
    monkeypatch.setattr(microphone.platform, "system", lambda: "Windows")
    with pytest.raises(MicrophoneError, match="plug one in, or allow this program") as raised:
        find_device("headset")
    assert raised.value.install is None


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tinyvoice\[mic\]'"):
        input_devices()


def test_a_sound_system_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    card = plug_in(monkeypatch, ("Headset", 1))

    def fail() -> list[dict[str, Any]]:
        raise PortAudioError("Error querying device -1 [PaErrorCode -9996]")

    monkeypatch.setattr(card, "query_devices", fail)
    with pytest.raises(MicrophoneError, match=r"cannot list devices \(Error querying device -1\)"):
        input_devices()


# --- recording -----------------------------------------------------------------------------------


async def test_packets_arrive_in_order_and_as_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    card = plug_in(monkeypatch, ("Headset", 2))
    async with Microphone(HEADSET) as source:
        assert source.format == MicrophoneFormat(16000, 1)
        packets = [ramp(0), ramp(1000), ramp(2000)]
        card.send(*packets)
        await source.close()
        received = [packet async for packet in source]
    np.testing.assert_array_equal(received, packets)
    assert received[0].dtype == np.int16
    assert source.overruns == 0
    assert card.closed == 1


async def test_a_reader_that_waits_gets_the_next_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    card = plug_in(monkeypatch, ("Headset", 2))
    async with Microphone(HEADSET) as source:
        packets = aiter(source)
        for start in (0, 500):
            card.send(ramp(start))
            np.testing.assert_array_equal(await anext(packets), ramp(start))


@pytest.mark.parametrize(
    ("takes", "form"),
    [
        (lambda rate, channels: channels == 2, (16000, 2)),
        (lambda rate, channels: rate == 44100, (44100, 1)),
        (lambda rate, channels: (rate, channels) == (48000, 2), (48000, 2)),
    ],
)
async def test_the_first_format_that_the_hardware_takes_is_used(
    takes: Callable[[int, int], bool],
    form: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = plug_in(monkeypatch, ("Headset", 2))
    card.takes = takes
    async with Microphone(HEADSET) as source:
        assert source.format == MicrophoneFormat(*form)
        packet = ramp(0, channels=form[1])
        card.send(packet)
        np.testing.assert_array_equal(await anext(aiter(source)), packet)
    assert card.asked[0] == (16000, 1)


async def test_a_device_that_takes_nothing_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = plug_in(monkeypatch, ("Headset", 2))
    card.takes = lambda rate, channels: False
    message = (
        r"Headset cannot be opened \(Error opening RawInputStream: Invalid rate\): close other"
    )
    with pytest.raises(MicrophoneError, match=message):
        await Microphone(HEADSET).__aenter__()


async def test_sound_that_the_card_lost_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    card = plug_in(monkeypatch, ("Headset", 2))
    async with Microphone(HEADSET) as source:
        card.send(ramp(0), ramp(320), overflow=True)
        card.send(ramp(640))
        await source.close()
        assert len([packet async for packet in source]) == 3
    assert source.overruns == 1


async def test_what_a_slow_reader_leaves_is_bounded_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(microphone, "MOST_WAITING_S", 0.1)
    card = plug_in(monkeypatch, ("Headset", 2))
    async with Microphone(HEADSET) as source:
        card.send(*[ramp(number) for number in range(8)])
        await source.close()
        received = [int(packet[0, 0]) async for packet in source]
    assert received == [0, 1, 2, 3, 4]
    assert source.overruns == 3


async def test_a_device_that_is_unplugged_is_an_error_after_what_it_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = plug_in(monkeypatch, ("Headset", 2))
    async with Microphone(HEADSET) as source:
        card.send(ramp(7))
        assert card.finished is not None
        card.finished()
        packets = aiter(source)
        assert int((await anext(packets))[0, 0]) == 7
        with pytest.raises(MicrophoneError, match="Headset is gone: plug it in again"):
            await anext(packets)


async def test_a_device_that_falls_silent_for_good_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "LONGEST_SILENCE_OF_DEVICE_S", 0.05)
    plug_in(monkeypatch, ("Headset", 2))
    async with Microphone(HEADSET) as source:
        with pytest.raises(MicrophoneError, match="Headset is gone"):
            await anext(aiter(source))


async def test_before_it_is_open_there_is_no_format() -> None:
    with pytest.raises(MicrophoneError, match="async with"):
        _ = Microphone(HEADSET).format

"""eSpeak NG through ctypes, with word and phoneme times from its synthesis events.

The library and its data come from the pip package ``espeakng-loader``; it is GPL, so it is an extra
that is loaded at run time. The C interface is that of ``speak_lib.h`` (eSpeak NG 1.52).
The library keeps global state: one process, one thread.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from tinyvoice.errors import ConfigurationError, MissingExtraError
from training.synthesis.phonemes import SILENCE, from_espeak
from training.synthesis.speech import Spoken

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_PHONEME_EVENTS = 1
_CHARS_UTF8 = 1
_PARAMETER_RATE = 1
_PARAMETER_PITCH = 3
_EVENT_WORD = 1
_EVENT_PHONEME = 7

_NORMAL_RATE_WPM = 175
"""eSpeak's own speaking rate, words a minute."""
_NORMAL_PITCH = 50
"""Middle of eSpeak's pitch scale of 0 to 99."""


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Library:
    """The loaded library and what its callback collects during one synthesis."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise MissingExtraError("synthesis", "speaking with eSpeak NG") from error
        self.functions: Any = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        self.pcm: list[bytes] = []
        self.events: list[tuple[int, int, int, bytes]] = []
        self.sample_rate = int(
            self.functions.espeak_Initialize(
                _AUDIO_OUTPUT_SYNCHRONOUS,
                0,
                str(espeakng_loader.get_data_path()).encode(),
                _INITIALIZE_PHONEME_EVENTS,
            )
        )
        if self.sample_rate <= 0:
            raise ConfigurationError(
                "eSpeak NG could not be started from the package espeakng-loader: reinstall it."
            )
        self._callback = _Callback(self._collect)  # kept: ctypes does not hold a reference
        self.functions.espeak_SetSynthCallback(self._callback)
        self._voice = ""

    def _collect(self, wave: Any, samples: int, events: Any) -> int:
        if wave and samples > 0:
            self.pcm.append(ctypes.string_at(wave, samples * 2))
        index = 0
        while events[index].type:
            event = events[index]
            mnemonic = event.id.string if event.type == _EVENT_PHONEME else b""
            self.events.append((event.type, event.text_position, event.sample, mnemonic))
            index += 1
        return 0

    def choose_voice(self, name: str) -> None:
        if name == self._voice:
            return
        if self.functions.espeak_SetVoiceByName(name.encode()) != 0:
            raise ConfigurationError(
                f"eSpeak NG has no voice {name!r}: see `tinyvoice synth --list-voices`."
            )
        self._voice = name


@cache
def _library() -> _Library:
    return _Library()


def check_voice(name: str) -> None:
    """Raise ConfigurationError unless eSpeak NG has the voice ``name`` (``en-us+f2``)."""
    _library().choose_voice(name)


def speak(text: str, voice: str, *, rate: float = 1.0, pitch: float = 1.0) -> Spoken:
    """Speak ``text``; ``rate`` and ``pitch`` are factors of the voice's own."""
    library = _library()
    library.choose_voice(voice)
    functions = library.functions
    functions.espeak_SetParameter(_PARAMETER_RATE, round(_NORMAL_RATE_WPM * rate), 0)
    functions.espeak_SetParameter(
        _PARAMETER_PITCH, max(0, min(99, round(_NORMAL_PITCH * pitch))), 0
    )
    library.pcm.clear()
    library.events.clear()
    encoded = text.encode()
    functions.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
    functions.espeak_Synchronize()
    samples = np.frombuffer(b"".join(library.pcm), dtype=np.int16).astype(np.float32) / 32768.0
    seconds = len(samples) / library.sample_rate
    phonemes = _phonemes(library)
    return Spoken(samples, library.sample_rate, _words(text, library, phonemes, seconds), phonemes)


def _phonemes(library: _Library) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for kind, _, sample, mnemonic in library.events:
        if kind != _EVENT_PHONEME:
            continue
        name = from_espeak(mnemonic.decode(errors="replace"))
        if name is not None and (name != SILENCE or not found or found[-1][0] != SILENCE):
            found.append((name, sample / library.sample_rate))
    return found


def _words(
    text: str, library: _Library, phonemes: list[tuple[str, float]], seconds: float
) -> list[tuple[str, float, float]]:
    """Word times. A word ends where the next begins, or where a pause begins before that.

    eSpeak speaks some pairs as one ("of the") and reports one event for both: their time is then
    shared out by their numbers of letters.
    """
    starts = {
        position - 1: sample / library.sample_rate
        for kind, position, sample, _ in library.events
        if kind == _EVENT_WORD
    }
    groups: list[tuple[list[str], float]] = []
    position = 0
    for word in text.split(" "):
        if word:
            if position in starts or not groups:
                groups.append(([word], starts.get(position, 0.0)))
            else:
                groups[-1][0].append(word)
        position += len(word) + 1
    pauses = [start for name, start in phonemes if name == SILENCE]
    words: list[tuple[str, float, float]] = []
    for index, (names, start) in enumerate(groups):
        end = groups[index + 1][1] if index + 1 < len(groups) else seconds
        end = min([end, *(pause for pause in pauses if pause > start)])
        letters = sum(map(len, names))
        for name in names:
            stop = start + (end - start) * len(name) / letters
            words.append((name, round(start, 4), round(stop, 4)))
            start, letters = stop, letters - len(name)
    return words

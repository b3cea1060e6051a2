"""eSpeak NG through ctypes: samples, and when each word and phoneme begins.

The library and its data come from the pip package ``espeakng-loader``; it is GPL, so it is an extra
that is loaded at run time. The C interface is that of ``speak_lib.h`` (eSpeak NG 1.52).
The library keeps global state: one process, one thread; and what it says next depends a little on
what it said before, down to the samples. ``espeak_process.py`` is for those who cannot live with
either.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tinyvoice.errors import ConfigurationError, MissingExtraError

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


@dataclass(frozen=True)
class Synthesis:
    """One text, spoken."""

    pcm16: bytes
    """Mono, in the machine's byte order."""
    sample_rate: int
    words: list[tuple[int, int]] = field(default_factory=list)
    """(character of the text at which it begins, first sample). Of words spoken as one ("of the")
    there is one entry; a number read as several words has several, not all at rising characters."""
    phonemes: list[tuple[str, int]] = field(default_factory=list)
    """(eSpeak's mnemonic, first sample); pauses begin with ``_``."""


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
        self.words: list[tuple[int, int]] = []
        self.phonemes: list[tuple[str, int]] = []
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
            if event.type == _EVENT_WORD:
                self.words.append((event.text_position - 1, event.sample))
            elif event.type == _EVENT_PHONEME:
                mnemonic = event.id.string.decode(errors="replace")
                self.phonemes.append((mnemonic, event.sample))
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


def initialise(seed: int | None = None) -> int:
    """Load the library, if that has not been done; return its sample rate in Hz.

    ``seed`` fixes the random part of its sounds (breath), which it takes from the clock otherwise.

    Raises:
        MissingExtraError: the package espeakng-loader is not installed.
        ConfigurationError: its library cannot be started.
    """
    library = _library()
    if seed is not None:
        library.functions.espeak_ng_SetRandSeed(ctypes.c_long(seed))
    return library.sample_rate


def check_voice(name: str) -> None:
    """Raise ConfigurationError unless eSpeak NG has the voice ``name`` (``en-us+f2``)."""
    _library().choose_voice(name)


def speak(text: str, voice: str, *, rate: float = 1.0, pitch: float = 1.0) -> Synthesis:
    """Speak ``text``; ``rate`` and ``pitch`` are factors of the voice's own.

    Raises:
        MissingExtraError, ConfigurationError: as :func:`initialise`, or there is no such voice.
    """
    library = _library()
    library.choose_voice(voice)
    functions = library.functions
    functions.espeak_SetParameter(_PARAMETER_RATE, round(_NORMAL_RATE_WPM * rate), 0)
    functions.espeak_SetParameter(
        _PARAMETER_PITCH, max(0, min(99, round(_NORMAL_PITCH * pitch))), 0
    )
    for collected in (library.pcm, library.words, library.phonemes):
        collected.clear()
    encoded = text.encode(errors="replace")
    functions.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
    functions.espeak_Synchronize()
    return Synthesis(
        b"".join(library.pcm), library.sample_rate, list(library.words), list(library.phonemes)
    )

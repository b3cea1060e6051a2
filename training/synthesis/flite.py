"""CMU Flite through ctypes, with word and phoneme times from its utterance structure.

Needs the shared libraries of the Debian package ``flite`` (libflite1); without them the voices are
simply not available. One process, one thread.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from tinyvoice.errors import ConfigurationError
from training.synthesis.phonemes import SILENCE, from_flite
from training.synthesis.speech import Spoken

_REGISTER = {
    "kal": "cmu_us_kal16",
    "awb": "cmu_us_awb",
    "rms": "cmu_us_rms",
    "slt": "cmu_us_slt",
}
_NORMAL_PITCH_HZ = {"kal": 100.0, "awb": 120.0, "rms": 95.0, "slt": 172.0}
"""Mean fundamental frequency each voice speaks at when left alone, about."""


class _Wave(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


class _VoiceHead(ctypes.Structure):
    """The first members of ``cst_voice``: enough to reach its features."""

    _fields_ = [("name", ctypes.c_char_p), ("features", ctypes.c_void_p)]


@cache
def _library() -> Any:
    try:
        # The language libraries refer to symbols of the core, so it is loaded globally.
        library = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
        for name in ("libflite_cmulex.so.1", "libflite_usenglish.so.1"):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise ConfigurationError(
            "Flite is not installed: its voices need the Debian package flite "
            "(apt-get install flite)."
        ) from error
    pointer = ctypes.c_void_p
    for name, result, arguments in (
        ("flite_synth_text", pointer, [ctypes.c_char_p, pointer]),
        ("utt_relation", pointer, [pointer, ctypes.c_char_p]),
        ("utt_wave", ctypes.POINTER(_Wave), [pointer]),
        ("relation_head", pointer, [pointer]),
        ("item_next", pointer, [pointer]),
        ("item_feat_float", ctypes.c_float, [pointer, ctypes.c_char_p]),
        ("item_feat_string", ctypes.c_char_p, [pointer, ctypes.c_char_p]),
        ("path_to_item", pointer, [pointer, ctypes.c_char_p]),
        ("ffeature_string", ctypes.c_char_p, [pointer, ctypes.c_char_p]),
        ("feat_set_float", None, [pointer, ctypes.c_char_p, ctypes.c_float]),
        ("delete_utterance", None, [pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.flite_init()
    return library


def available() -> bool:
    """Whether Flite's libraries are on this machine."""
    try:
        _library()
    except ConfigurationError:
        return False
    return True


@cache
def _voice(name: str) -> int:
    _library()
    if name not in _REGISTER:
        raise ConfigurationError(
            f"Flite has no voice {name!r} here: use one of {', '.join(_REGISTER)}."
        )
    voice_library: Any = ctypes.CDLL(f"libflite_{_REGISTER[name]}.so.1", mode=ctypes.RTLD_GLOBAL)
    register = getattr(voice_library, f"register_{_REGISTER[name]}")
    register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    return int(register(None))


def check_voice(name: str) -> None:
    """Raise ConfigurationError unless Flite and its voice ``name`` are installed."""
    _voice(name)


def speak(text: str, voice: str, *, rate: float = 1.0, pitch: float = 1.0) -> Spoken:
    """Speak ``text``; ``rate`` and ``pitch`` are factors of the voice's own."""
    library, handle = _library(), _voice(voice)
    features = _VoiceHead.from_address(handle).features
    library.feat_set_float(features, b"duration_stretch", 1.0 / rate)
    library.feat_set_float(features, b"int_f0_target_mean", _NORMAL_PITCH_HZ[voice] * pitch)
    utterance = library.flite_synth_text(text.encode(), handle)
    try:
        wave = library.utt_wave(utterance).contents
        samples = (
            np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).astype(np.float32) / 32768.0
        )
        phonemes, words = _segments(library, utterance, text.split())
        return Spoken(samples, wave.sample_rate, words, phonemes)
    finally:
        library.delete_utterance(utterance)


def _segments(
    library: Any, utterance: int, names: list[str]
) -> tuple[list[tuple[str, float]], list[tuple[str, float, float]]]:
    """Walk the Segment relation; a word of the text is a Token there, which may hold several
    Words."""
    phonemes: list[tuple[str, float]] = []
    spans: list[tuple[int, float, float]] = []
    start = 0.0
    item = library.relation_head(library.utt_relation(utterance, b"Segment"))
    while item:
        end = float(library.item_feat_float(item, b"end"))
        name = from_flite(library.item_feat_string(item, b"name").decode())
        if name is not None and not (name == SILENCE and phonemes and phonemes[-1][0] == SILENCE):
            phonemes.append((name, start))
        if name != SILENCE:
            token = library.path_to_item(item, b"R:SylStructure.parent.parent.R:Token.parent") or 0
            if spans and spans[-1][0] == token:
                spans[-1] = (token, spans[-1][1], end)
            else:
                spans.append((token, start, end))
        start = end
        item = library.item_next(item)
    if len(spans) != len(names):
        raise ConfigurationError(
            f"Flite split {' '.join(names)!r} into {len(spans)} spoken words, not {len(names)}: "
            "normalise the text first (training.text.normalise)."
        )
    words = [
        (name, round(first, 4), round(last, 4))
        for name, (_, first, last) in zip(names, spans, strict=True)
    ]
    return phonemes, words

"""One phoneme inventory for all synthesisers.

eSpeak NG and Flite name their phonemes differently, and eSpeak's inventory changes with the accent.
Encoder pretraining needs one label set, so both are mapped to the ARPAbet-like classes below;
vowels before /r/ keep a class of their own where eSpeak has one, because they sound different in
every accent. Stress is dropped. This is a label set for training, not a phonology.
"""

from __future__ import annotations

SILENCE = "sil"

PHONEMES: tuple[str, ...] = (
    SILENCE,
    *"aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng".split(),
    *"ow oy p r s sh t th uh uw v w y z zh".split(),
    *"aar aor ehr ihr uhr ayr el dx".split(),
)
"""Class names; the index is the class id, 0 is silence."""

PHONEME_IDS: dict[str, int] = {name: index for index, name in enumerate(PHONEMES)}

_ESPEAK: dict[str, str] = {
    "0": "aa", "3": "er", "3:": "er", "?": "t", "@": "ax", "@-": "ax", "@2": "ax", "@5": "ax",
    "@L": "el", "A:": "aa", "A@": "aar", "D": "dh", "E": "eh", "I": "ih", "I#": "ih", "I2":
    "ih", "IR": "er", "N": "ng", "O": "ao", "O2": "ao", "O:": "ao", "O@": "aor", "OI": "oy",
    "S": "sh", "T": "th", "U": "uh", "U@": "uhr", "V": "ah", "VR": "er", "Z": "zh", "a": "ae",
    "a#": "ax", "aI": "ay", "aI2": "ay", "aI3": "ay", "aI@": "ayr", "aU": "aw", "aU@": "aw",
    "aa": "ae", "b": "b", "d": "d", "dZ": "jh", "e@": "ehr", "eI": "ey", "e": "eh", "f": "f",
    "g": "g", "h": "hh", "i": "iy", "i:": "iy", "i@": "ihr", "i@3": "ihr", "j": "y", "k": "k",
    "l": "l", "l-": "el", "m": "m", "m-": "m", "n": "n", "n-": "n", "o@": "aor", "oU": "ow",
    "o": "ow", "p": "p", "r": "r", "r-": "r", "s": "s", "t": "t", "t#": "dx", "t2": "t", "t[":
    "t", "tS": "ch", "u": "uw", "u:": "uw", "v": "v", "w": "w", "w#": "w", "x": "k", "z": "z",
    ";": "y",
}  # fmt: skip


def from_espeak(mnemonic: str) -> str | None:
    """Class name of an eSpeak NG phoneme mnemonic, e.g. ``"'eI"`` → ``"ey"``.

    Returns ``None`` for marks that are no sound of their own (palatalisation ``;``, unknown
    mnemonics): the preceding phoneme then simply goes on.
    """
    name = mnemonic.lstrip("',%=")
    if name.startswith("_"):
        return SILENCE
    if name == ";":
        return None
    return _ESPEAK.get(name)


def from_flite(name: str) -> str | None:
    """Class name of a Flite (CMU ARPAbet) phone, e.g. ``"hh"`` → ``"hh"``, ``"pau"`` → silence."""
    if name in ("pau", "brth", "ssil"):
        return SILENCE
    return name if name in PHONEME_IDS else None

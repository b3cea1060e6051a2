"""The voices of the corpus: which are trained on, which are kept out for measuring.

A voice is named ``engine/accent[+variant]``: ``espeak/en-us+f2`` is eSpeak NG's American English
with the timbre variant ``f2``; ``flite/slt`` is Flite's voice ``slt``. The names are stable:
manifests, test sets and the model card use them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyvoice.errors import ConfigurationError

_TRAINING = {
    "en-us": "- f1 f2 f3 f5 m1 m2 m3 m7 Annie Alex Michael linda klatt2 Andrea edward "
    "Gene Lee Mike Reed Storm antonio benjamin boris caleb gustave ian iven marcelo max miguel "
    "norbert pablo quincy travis zac klatt aunty grandma grandpa",
    "en": "- f2 f5 m1 m6 m7 steph paul belinda robert Denis ed iven3 michel rob sandro shelby "
    "steph2 victor Jacky Mario mike2",
    "en-gb-x-rp": "- m3 f1 david Hugo Diogo pedro",
    "en-gb-scotland": "m4 f3 john Marco",
    "en-029": "m1 f2 Henrique",
    "en-us-nyc": "m7 f5 klatt3",
    "en-gb-x-gbclan": "m2 f1",
    "en-gb-x-gbcwmd": "m3 f3",
}
_HELD_OUT = {
    "en-us": "f4 m5 Andy adam",
    "en": "m8 Alicia",
    "en-gb-x-rp": "anika",
    "en-gb-scotland": "steph3",
}


@dataclass(frozen=True)
class Voice:
    """A speaking voice: ``engine`` ("espeak" or "flite") and the engine's own voice ``name``."""

    engine: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Voice:
        """Read ``"engine/name"``. Raises ConfigurationError for anything else."""
        engine, separator, name = text.partition("/")
        if engine not in ("espeak", "flite") or not separator or not name:
            raise ConfigurationError(
                f"{text!r} is not a voice: write espeak/ACCENT[+VARIANT] or flite/NAME, "
                "for example espeak/en-us+f2 or flite/slt."
            )
        return cls(engine, name)

    def __str__(self) -> str:
        return f"{self.engine}/{self.name}"


def _espeak(table: dict[str, str]) -> tuple[str, ...]:
    return tuple(
        f"espeak/{accent}" if variant == "-" else f"espeak/{accent}+{variant}"
        for accent, variants in table.items()
        for variant in variants.split()
    )


FLITE_VOICES: tuple[str, ...] = ("flite/kal", "flite/awb", "flite/rms", "flite/slt")
"""Flite's built-in voices; they need the Debian package ``flite``."""

TRAINING_VOICES: tuple[str, ...] = _espeak(_TRAINING) + FLITE_VOICES
"""Voices the embedded checkpoint is trained on."""

HELD_OUT_VOICES: tuple[str, ...] = _espeak(_HELD_OUT)
"""Voices never trained on: timbres the model has not heard, in accents it has."""

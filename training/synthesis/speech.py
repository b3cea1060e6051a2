"""Speaking a text: one utterance of audio with its word and phoneme times.

``Synthesiser`` hides which engine speaks. It is not thread-safe and an engine lives once per
process (both are C libraries with global state): use processes for parallel work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.audio.resample import resample
from training.synthesis.voices import Voice
from training.text import speakable

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Utterance:
    """Synthesised speech, 16 kHz mono float32 in [-1, 1], with times in seconds.

    ``words`` are ``(text, start, end)``, one for each blank-separated word of the input, in order.
    ``phonemes`` are ``(class name, start)``; each lasts until the next one starts, the last until
    the end.
    """

    samples: NDArray[np.float32]
    words: list[tuple[str, float, float]]
    phonemes: list[tuple[str, float]]
    voice: str

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE


class Synthesiser:
    """Speaks texts with one voice, given as ``"espeak/en-us+f2"`` or ``"flite/slt"``."""

    def __init__(self, voice: str) -> None:
        self.voice = Voice.parse(voice)
        if self.voice.engine == "espeak":
            from training.synthesis import espeak

            espeak.check_voice(self.voice.name)
        else:
            from training.synthesis import flite

            flite.check_voice(self.voice.name)

    def speak(self, text: str, *, rate: float = 1.0, pitch: float = 1.0) -> Utterance:
        """Speak ``text`` (blank-separated words) at ``rate`` and ``pitch`` relative to the voice's
        own.

        The text should be normalised (``training.text.normalise``): a digit or a symbol that the
        engine expands by itself would be spoken as words that the label does not hold.
        """
        if self.voice.engine == "espeak":
            from training.synthesis import espeak

            spoken = espeak.speak(speakable(text), self.voice.name, rate=rate, pitch=pitch)
        else:
            from training.synthesis import flite

            spoken = flite.speak(speakable(text), self.voice.name, rate=rate, pitch=pitch)
        samples = resample(spoken.samples, spoken.sample_rate, SAMPLE_RATE)
        peak = float(np.abs(samples).max(initial=0.0))
        # A resampled full-scale signal can overshoot; PCM would clip it audibly.
        if peak > 0.99:
            samples = samples * np.float32(0.99 / peak)
        # The engines were given a respelling, word for word; the label keeps the text as it is.
        words = [
            (word, start, end)
            for word, (_, start, end) in zip(text.split(), spoken.words, strict=True)
        ]
        return Utterance(samples, words, spoken.phonemes, str(self.voice))


@dataclass(frozen=True)
class Spoken:
    """What an engine returns: samples at its own rate, times in seconds."""

    samples: NDArray[np.float32]
    sample_rate: int
    words: list[tuple[str, float, float]]
    phonemes: list[tuple[str, float]]

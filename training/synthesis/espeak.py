"""eSpeak NG as an engine of the synthesiser: word and phoneme times in the corpus's terms.

The library itself is driven in :mod:`tinyvoice.voices.espeak`: one process, one thread.
"""

from __future__ import annotations

import numpy as np

from tinyvoice.voices import espeak
from tinyvoice.voices.espeak import Synthesis
from training.synthesis.phonemes import SILENCE, from_espeak
from training.synthesis.speech import Spoken

check_voice = espeak.check_voice


def speak(text: str, voice: str, *, rate: float = 1.0, pitch: float = 1.0) -> Spoken:
    """Speak ``text``; ``rate`` and ``pitch`` are factors of the voice's own."""
    spoken = espeak.speak(text, voice, rate=rate, pitch=pitch)
    samples = np.frombuffer(spoken.pcm16, dtype=np.int16).astype(np.float32) / 32768.0
    seconds = len(samples) / spoken.sample_rate
    phonemes = _phonemes(spoken)
    return Spoken(samples, spoken.sample_rate, _words(text, spoken, phonemes, seconds), phonemes)


def _phonemes(spoken: Synthesis) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for mnemonic, sample in spoken.phonemes:
        name = from_espeak(mnemonic)
        if name is not None and (name != SILENCE or not found or found[-1][0] != SILENCE):
            found.append((name, sample / spoken.sample_rate))
    return found


def _words(
    text: str, spoken: Synthesis, phonemes: list[tuple[str, float]], seconds: float
) -> list[tuple[str, float, float]]:
    """Word times. A word ends where the next begins, or where a pause begins before that.

    eSpeak speaks some pairs as one ("of the") and reports one event for both: their time is then
    shared out by their numbers of letters.
    """
    starts = {position: sample / spoken.sample_rate for position, sample in spoken.words}
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

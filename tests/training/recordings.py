"""Corpora in memory for tests of training: tones whose pitch says which word they are.

A miniature model learns them in seconds, and word times are exact.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from training.data.augmentation import Clip
from training.data.corpora import Dropped
from training.data.manifest import Utterance, write_manifest

WORDS = {"on": 300.0, "music": 700.0, "light": 1500.0, "the": 3000.0}
WORD_S = 0.3
RATE = 16_000


def tone_clip(words: list[str]) -> Clip:
    """A clip in which each word is its own tone, with a short gap behind it."""
    time = np.arange(int(WORD_S * RATE)) / RATE
    envelope = np.minimum(1.0, 20 * np.minimum(time, WORD_S - time))
    gap = np.zeros(RATE // 20)
    parts = [np.concatenate([np.sin(2 * np.pi * WORDS[w] * time) * envelope, gap]) for w in words]
    step = WORD_S + 0.05
    times = tuple((w, i * step, i * step + WORD_S) for i, w in enumerate(words))
    samples = (0.3 * np.concatenate(parts)).astype(np.float32)
    return Clip(samples, " ".join(words), times, "tone")


class Recordings:
    """Clips of one to four tone words, the same for the same seed."""

    def __init__(self, count: int, seed: int = 0, name: str = "tones") -> None:
        random = np.random.default_rng(seed)
        vocabulary = list(WORDS)
        self.name = name
        self.dropped = Dropped()
        self.clips = [
            tone_clip([str(random.choice(vocabulary)) for _ in range(random.integers(1, 5))])
            for _ in range(count)
        ]
        self.durations = np.array([clip.duration for clip in self.clips])

    def __len__(self) -> int:
        return len(self.clips)

    def clip(self, index: int) -> Clip:
        return self.clips[index]


def write_recordings(folder: Path, count: int, seed: int = 0, name: str = "m.jsonl") -> Path:
    """The same clips as a manifest with one file; returns the manifest's path."""
    recordings = Recordings(count, seed)
    audio = folder / f"{Path(name).stem}.wav"
    utterances, offset = [], 0
    for clip in recordings.clips:
        utterances.append(
            Utterance(audio, clip.duration, clip.text, offset / RATE, clip.voice, clip.words)
        )
        offset += len(clip.samples)
    soundfile.write(audio, np.concatenate([clip.samples for clip in recordings.clips]), RATE)
    write_manifest(folder / name, utterances)
    return folder / name

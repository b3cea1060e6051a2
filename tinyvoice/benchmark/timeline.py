"""Which utterance is said when: each stream's own order of the clips, with pauses between them.

A :class:`Timeline` is a plan; :func:`render` makes any stretch of its audio, so that hundreds of
streams need no more memory than the clips.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.speech import Clip

LEAD_IN_S = 0.4
"""Silence in front of a stream's first clip: more than the pre-roll of an utterance."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A clip, by its number, and the sample of the stream at which it begins."""

    clip: int
    start: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """A stream's clips in order, and its length in samples."""

    placed: tuple[Placed, ...]
    samples: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / SAMPLE_RATE


def make_timeline(
    clips: Sequence[Clip], seconds: float, *, pause_s: float, draw: random.Random
) -> Timeline:
    """Clips in shuffled order, again and again, until ``seconds`` are full.

    Only clips that end, with the pause behind them, before that are placed, but one is in any case.
    """
    pause, end = round(pause_s * SAMPLE_RATE), round(seconds * SAMPLE_RATE)
    placed: list[Placed] = []
    position = round(LEAD_IN_S * SAMPLE_RATE)
    while True:
        order = list(range(len(clips)))
        draw.shuffle(order)
        for clip in order:
            behind = position + len(clips[clip].samples) + pause
            if placed and behind > end:
                return Timeline(tuple(placed), end)
            placed.append(Placed(clip, position))
            position, end = behind, max(end, behind)


def make_timelines(
    clips: Sequence[Clip], streams: int, seconds: float, *, pause_s: float, seed: int = 0
) -> list[Timeline]:
    """One timeline for each stream, each in an order of its own; the same for the same seed."""
    return [
        make_timeline(clips, seconds, pause_s=pause_s, draw=random.Random(f"{seed}/{stream}"))
        for stream in range(streams)
    ]


def render(
    timeline: Timeline, sounds: Sequence[NDArray[np.int16]], begin: int, end: int
) -> NDArray[np.int16]:
    """The stream's samples from ``begin`` to ``end``; ``sounds`` are the clips' samples."""
    audio = np.zeros(end - begin, dtype=np.int16)
    for placed in timeline.placed:
        sound = sounds[placed.clip]
        first, last = max(begin, placed.start), min(end, placed.start + len(sound))
        if first < last:
            audio[first - begin : last - begin] = sound[first - placed.start : last - placed.start]
    return audio

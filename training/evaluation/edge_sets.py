"""Test sets of the edges of utterances: their beginnings, their ends, where long ones are cut, and
streams in which none should begin.

They are made of the speech that comes with the package and of made sound, so that they need no
data, and are meant for `tinyvoice eval --stream`. A clip that was cut or padded knows the whole
one, whose offline transcript must come out of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.speech import BUNDLED, MANIFEST
from training.data.manifest import read_manifest
from training.evaluation.test_sets import (
    NON_SPEECH_KINDS,
    Example,
    ManifestLine,
    NonSpeech,
    Request,
    Samples,
    Source,
    TestSet,
    WordTimes,
    draw_examples,
)

STEP_S = 0.02
"""Utterances are padded and cut in steps of this size, less than a window of voice activity."""
MOST_PADDING_S = 0.48
"""Fifteen windows of voice activity: begins at every phase of them, several times over."""

LONG_SECONDS = 90.0
LONG_UTTERANCES = 8

NO_SPEECH_S = 600.0
NO_SPEECH_PART_S = 30.0
"""Level and character change this often within a stream without speech."""


@dataclass(frozen=True)
class CutAndPadded:
    """A clip with ``before_s`` of silence in front, and ``cut_s`` of its end taken away."""

    source: Source
    before_s: float
    cut_s: float

    def load(self) -> tuple[Samples, WordTimes | None]:
        """Load the clip and change it."""
        samples, words = self.source.load()
        before, cut = round(self.before_s * SAMPLE_RATE), round(self.cut_s * SAMPLE_RATE)
        changed = np.pad(samples[: len(samples) - cut], (before, 0))
        return changed, shifted(words, self.before_s) if words is not None else None


@dataclass(frozen=True)
class Strung:
    """Clips one after the other, without the silence around their words."""

    sources: tuple[Source, ...]

    def load(self) -> tuple[Samples, WordTimes | None]:
        """Load the clips and string them together; all of them need word times."""
        pieces: list[Samples] = []
        times: list[tuple[str, float, float]] = []
        length = 0
        for source in self.sources:
            samples, words = source.load()
            assert words
            begin, end = (round(at * SAMPLE_RATE) for at in (words[0][1], words[-1][2]))
            times += shifted(words, (length - begin) / SAMPLE_RATE)
            pieces.append(samples[begin:end])
            length += len(pieces[-1])
        return np.concatenate(pieces), tuple(times)


@dataclass(frozen=True)
class OneAfterTheOther:
    """Sounds without speech, without a gap between them."""

    sources: tuple[NonSpeech, ...]

    def load(self) -> tuple[Samples, WordTimes | None]:
        """Make the sounds and put them together."""
        return np.concatenate([source.load()[0] for source in self.sources]), ()


def shifted(words: WordTimes, seconds: float) -> WordTimes:
    """Word times, so much later."""
    return tuple((word, start + seconds, end + seconds) for word, start, end in words)


def cut_and_pad(request: Request) -> TestSet:
    """Each clip behind 0 to 480 ms of silence, and cut up to its last word, in steps of 20 ms."""
    examples = []
    for name, line in _spoken_lines():
        source = ManifestLine(line)
        for step in range(round(MOST_PADDING_S / STEP_S) + 1):
            padded = CutAndPadded(source, step * STEP_S, 0.0)
            examples.append(Example(f"{name}+{step * 20}", line.text, "padded", padded, source))
        silence = line.duration - line.words[-1][2]
        for step in range(1, int(silence / STEP_S) + 1):
            cut = CutAndPadded(source, 0.0, step * STEP_S)
            examples.append(Example(f"{name}-{step * 20}", line.text, "cut", cut, source))
    title = "Utterances cut and padded at every 20 ms"
    return TestSet("cut-and-pad", title, draw_examples(examples, request))


def long_speech(request: Request) -> TestSet:
    """Utterances of 90 s without a pause: clips strung together in an order that is drawn."""
    generator = random.Random(request.seed)
    lines = [line for _, line in _spoken_lines()]
    examples = []
    for index in range(LONG_UTTERANCES):
        chosen = _until_long(lines, generator)
        source = Strung(tuple(ManifestLine(line) for line in chosen))
        text = " ".join(line.text for line in chosen)
        examples.append(Example(f"long-{index}", text, "", source))
    title = f"Utterances of {LONG_SECONDS:.0f} s without a pause"
    return TestSet("long-speech", title, examples[: request.count])


def long_no_speech(request: Request) -> TestSet:
    """One stream of ten minutes of each kind of sound without speech."""
    draw = random.Random(request.seed)
    examples = []
    for kind in NON_SPEECH_KINDS:
        parts = tuple(
            NonSpeech(kind, NO_SPEECH_PART_S, draw.randrange(2**32))
            for _ in range(round(NO_SPEECH_S / NO_SPEECH_PART_S))
        )
        examples.append(Example(kind.replace(" ", "-"), "", kind, OneAfterTheOther(parts)))
    title = f"Sound without speech, {NO_SPEECH_S:.0f} s of each kind in one stream"
    return TestSet("long-no-speech", title, draw_examples(examples, request))


def _until_long(lines: Sequence[Any], generator: random.Random) -> list[Any]:
    chosen: list[Any] = []
    seconds = 0.0
    while seconds < LONG_SECONDS:
        for line in generator.sample(lines, len(lines)):
            if seconds < LONG_SECONDS:
                chosen.append(line)
                seconds += line.words[-1][2] - line.words[0][1]
    return chosen


def _spoken_lines() -> list[tuple[str, Any]]:
    """The utterances that come with the package, all of which have word times."""
    utterances = read_manifest(BUNDLED / MANIFEST).utterances
    return [(f"clip{index:02d}", line) for index, line in enumerate(utterances)]


EDGE_SETS: dict[str, Callable[[Request], TestSet]] = {
    "cut-and-pad": cut_and_pad,
    "long-speech": long_speech,
    "long-no-speech": long_no_speech,
}

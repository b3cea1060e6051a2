"""Makes the speech that `tinyvoice bench` plays: run it to make those files again.

Sentences of the repository's grammar, spoken by voices of the training set and by voices kept out
of it, each without a pause inside: 20 short ones of about 3 s, and 4 long ones of about 10 s, in
which sentences are joined by "and". Written as 16 kHz FLAC files with a manifest of texts and word
times; the same seed gives the same files.

    python -m training.benchmark_speech

With ``--texts`` it makes a larger set that does not come along: utterances of 2 to 10 s, each of
other lines of a text file, spoken by voices kept out of training. ``docs/benchmark.md`` says which.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path

import numpy as np
import soundfile
from rich.progress import track

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.speech import BUNDLED
from training.synthesis.grammar import sentences
from training.synthesis.speech import Synthesiser, Utterance
from training.synthesis.voices import HELD_OUT_VOICES
from training.text import normalise

VOICES = (
    "espeak/en-us",
    "espeak/en-us+f4",
    "flite/slt",
    "espeak/en+f2",
    "espeak/en-us+Andy",
    "flite/rms",
    "espeak/en-gb-x-rp+anika",
    "espeak/en-us+m3",
    "espeak/en+m8",
    "flite/awb",
    "espeak/en-gb-scotland+steph3",
    "espeak/en-gb-x-rp",
)
"""Spoken in turn; f4, Andy, anika, m8 and steph3 are voices kept out of training."""

# Corpora are drawn with small seeds: these sentences are none of theirs, but of the same grammar.
SEED = 771_203
SHORT, SHORT_SECONDS = 20, (2.0, 3.4)
LONG, LONG_SECONDS = 4, (8.8, 10.5)
MIXED_SECONDS = ((2.0, 4.0), (2.0, 4.0), (4.0, 7.0), (7.0, 10.0))
"""Lengths of utterances made of other texts, in turn: half of them are short, as requests are."""
PEAK = 0.25
"""Loudest sample: speech into a microphone is seldom louder, and FLAC is smaller for it."""


@dataclass(frozen=True)
class Clip:
    """An utterance and the text it was made from."""

    text: str
    spoken: Utterance


def main() -> None:
    """Write the set into the package, or where the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=BUNDLED, help="folder to write")
    parser.add_argument("--texts", type=Path, help="say lines of this file, by voices kept out")
    parser.add_argument("--count", type=int, default=204, help="utterances made of --texts")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    if given.texts is None:
        texts = (normalise(text) for text in sentences(4000, SEED))
        bounds = [SHORT_SECONDS] * SHORT + [LONG_SECONDS] * LONG
        make(given.output, texts, list(zip(cycle(VOICES), bounds, strict=False)))
    else:
        wanted = islice(cycle(product(HELD_OUT_VOICES, MIXED_SECONDS)), given.count)
        make(given.output, lines_of(given.texts), list(wanted))


def lines_of(path: Path) -> Iterator[str]:
    """The different lines of a text file in an order that is always the same, normalised."""
    lines = sorted({normalise(line) for line in path.read_text(encoding="utf-8").splitlines()})
    random.Random(SEED).shuffle(lines)
    return iter(line for line in lines if line)


def make(
    folder: Path, texts: Iterator[str], wanted: Sequence[tuple[str, tuple[float, float]]]
) -> None:
    """Write an utterance for each voice and its bounds in seconds, and the manifest."""
    lines: list[str] = []
    seconds = 0.0
    for number, (voice, bounds) in enumerate(track(wanted, description="Speaking")):
        try:
            clip = speak_within(voice, texts, bounds)
        except StopIteration:
            raise SystemExit(
                f"The texts are used up after {number} utterances: give more lines, or --count."
            ) from None
        seconds += clip.spoken.duration
        lines.append(json.dumps(write(folder, number, clip)) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{len(lines)} utterances, {seconds:.0f} s, {size / 1e6:.2f} MB in {folder}")


def speak_within(voice: str, texts: Iterator[str], bounds: tuple[float, float]) -> Clip:
    """The first text that this voice speaks within the bounds, in seconds.

    Sentences are joined until they are long enough, and dropped when they are too long.
    """
    shortest, longest = bounds
    synthesiser = Synthesiser(voice)
    text = ""
    while True:
        text = f"{text} and {next(texts)}" if text else next(texts)
        spoken = synthesiser.speak(text)
        if shortest <= spoken.duration <= longest:
            return Clip(text, spoken)
        if spoken.duration > longest:
            text = ""


def write(folder: Path, number: int, clip: Clip) -> dict[str, object]:
    """Write a clip; returns its line of the manifest."""
    name = f"{number:02d}.flac"
    loudest = float(np.abs(clip.spoken.samples).max())
    samples = clip.spoken.samples * np.float32(PEAK / loudest)
    soundfile.write(folder / name, samples, SAMPLE_RATE, subtype="PCM_16", compression_level=1.0)
    return {
        "audio_filepath": name,
        "duration": round(clip.spoken.duration, 3),
        "text": clip.text,
        "voice": clip.spoken.voice,
        "words": [[w, round(start, 3), round(end, 3)] for w, start, end in clip.spoken.words],
    }


if __name__ == "__main__":
    main()

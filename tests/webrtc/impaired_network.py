"""What loss, jitter and reordering cost in words: the figures of docs/webrtc.md.

    python -m tests.webrtc.impaired_network [SEEDS]

The bundled utterances are encoded by aiortc's Opus encoder, go through a network that loses packets
and delays each by a random time, and are heard by `IncomingAudio`. The embedded model transcribes
what comes out, offline. No time passes: arrivals are computed, so that the figures can be repeated.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.webrtc.test_incoming import OPUS, encoded
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.speech import Clip, bundled_speech
from tinyvoice.model.modeling import ASRModel
from tinyvoice.webrtc.incoming import IncomingAudio
from tinyvoice.webrtc.jitter_buffer import Packet

NETWORKS = [(0.0, 0.0), (0.0, 0.06), (0.01, 0.06), (0.05, 0.0), (0.05, 0.06), (0.1, 0.06)]
"""Part of the packets that is lost, and greatest delay in seconds."""

SILENCE = 4_800
"""Samples of 48 kHz before and behind an utterance."""


@dataclass
class Outcome:
    """What came of some utterances."""

    errors: int
    words: int
    filled_ms: float

    @property
    def rate(self) -> float:
        """Errors per word."""
        return self.errors / self.words


def spoken(clip: Clip) -> list[Packet]:
    """The packets of an utterance."""
    return encoded(OPUS, np.pad(resample(clip.samples, 16_000, 48_000), SILENCE).astype(np.float64))


def heard(
    packets: Sequence[Packet], loss: float, jitter_s: float, chance: random.Random
) -> tuple[NDArray[np.float32], float]:
    """Samples at 16 kHz of what comes through, and how many ms of them were filled in."""
    arrivals = sorted(
        (n * 0.02 + chance.uniform(0, jitter_s), n)
        for n in range(len(packets))
        if chance.random() >= loss
    )
    incoming = IncomingAudio([OPUS])
    pcm = b"".join(incoming.receive(packets[n], at) for at, n in arrivals)
    pcm += incoming.elapse(arrivals[-1][0] + 0.1)
    samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32) / np.float32(32768)
    return resample(samples, 24_000, 16_000), incoming.statistics.filled_ms


def words(text: str) -> list[str]:
    """Words as they are compared."""
    return re.findall(r"[a-z']+", text.lower())


def edits(spoken_words: Sequence[str], understood: Sequence[str]) -> int:
    """Fewest substitutions, deletions and insertions between two word lists."""
    row = list(range(len(understood) + 1))
    for i, word in enumerate(spoken_words, start=1):
        before, row = row, [i]
        for j, other in enumerate(understood, start=1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (word != other)))
    return row[-1]


def measure(
    model: ASRModel, clips: Sequence[Clip], loss: float, jitter_s: float, seeds: int
) -> Outcome:
    """Word errors over a network, with several draws of its dice."""
    outcome = Outcome(0, 0, 0.0)
    packets = [spoken(clip) for clip in clips]
    for seed in range(seeds):
        chance = random.Random(seed)
        sounds = []
        for each in packets:
            samples, filled_ms = heard(each, loss, jitter_s, chance)
            sounds.append(samples)
            outcome.filled_ms += filled_ms
        for clip, transcript in zip(clips, model.transcribe(sounds), strict=True):
            assert clip.text is not None
            outcome.errors += edits(words(clip.text), words(transcript.text))
            outcome.words += len(words(clip.text))
    return outcome


def main() -> None:
    """Print the table."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    model = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    clips = bundled_speech()
    print("| packets lost | greatest delay | word errors | of | rate |")
    print("| --- | --- | --- | --- | --- |")
    for loss, jitter_s in NETWORKS:
        outcome = measure(model, clips, loss, jitter_s, seeds if loss else 1)
        print(
            f"| {loss:.0%} | {1000 * jitter_s:.0f} ms | {outcome.errors} | {outcome.words} "
            f"| {outcome.rate:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

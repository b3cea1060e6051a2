"""What loss, jitter and reordering cost in words: the figures of docs/webrtc.md.

    python -m tests.webrtc.impaired_network [SEEDS]

The bundled utterances are encoded by aiortc's Opus encoder, go through a network that loses
packets, delays each by a random time and lets some overtake others, and are heard by
`IncomingAudio`: as they are, and with a copy of each in the next one, as browsers send them
(RFC 2198). The embedded model transcribes what comes out, offline. No time passes: arrivals are
computed, so that the figures can be repeated.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from numpy.typing import NDArray

from tests.webrtc.test_incoming import OPUS, encoded
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.speech import Clip, bundled_speech
from tinyvoice.model.modeling import ASRModel
from tinyvoice.webrtc.incoming import IncomingAudio
from tinyvoice.webrtc.jitter_buffer import Packet

OVERTAKEN_S = 0.05
"""How much later a packet comes that others overtake: behind the two after it."""

RED = RTCRtpCodecParameters("audio/red", 48_000, 2, 63, [], {"96/96": None})


@dataclass(frozen=True)
class Conditions:
    """What a network does to packets."""

    loss: float = 0.0
    """Part of them that is lost."""
    jitter_s: float = 0.0
    """Greatest delay; they overtake each other where it is longer than 20 ms."""
    overtaken: float = 0.0
    """Part of them that comes behind the two after it."""


WORST_EXPECTED = Conditions(loss=0.05, jitter_s=0.06, overtaken=0.05)

NETWORKS = [
    Conditions(),
    Conditions(overtaken=0.2),
    Conditions(jitter_s=0.06),
    Conditions(loss=0.01, jitter_s=0.06),
    Conditions(loss=0.05),
    Conditions(loss=0.05, jitter_s=0.06),
    WORST_EXPECTED,
    Conditions(loss=0.1, jitter_s=0.06),
]

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


def with_copies(packets: Sequence[Packet]) -> list[Packet]:
    """The packets, each with a copy of the one before it."""
    kind = OPUS.payloadType or 0
    carrying = []
    for n, packet in enumerate(packets):
        payload = bytes([kind]) + packet.payload
        if n:
            copy = packets[n - 1]
            offset = (packet.timestamp - copy.timestamp) % 2**32
            header = 1 << 31 | kind << 24 | offset << 10 | len(copy.payload)
            payload = header.to_bytes(4, "big") + bytes([kind]) + copy.payload + packet.payload
        carrying.append(replace(packet, payload_type=RED.payloadType or 0, payload=payload))
    return carrying


def heard(
    packets: Sequence[Packet], network: Conditions, chance: random.Random
) -> tuple[NDArray[np.float32], float]:
    """Samples at 16 kHz of what comes through, and how many ms of them were filled in."""
    arrivals = sorted(
        (
            n * 0.02
            + chance.uniform(0, network.jitter_s)
            # The first is left where it is: nothing can be put before it.
            + OVERTAKEN_S * (n > 0 and chance.random() < network.overtaken),
            n,
        )
        for n in range(len(packets))
        if chance.random() >= network.loss
    )
    incoming = IncomingAudio([OPUS, RED])
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
    model: ASRModel,
    clips: Sequence[Clip],
    network: Conditions,
    seeds: int,
    copies: bool = False,
) -> Outcome:
    """Word errors over a network, with several draws of its dice."""
    outcome = Outcome(0, 0, 0.0)
    packets = [with_copies(spoken(clip)) if copies else spoken(clip) for clip in clips]
    for seed in range(seeds):
        chance = random.Random(seed)
        sounds = []
        for each in packets:
            samples, filled_ms = heard(each, network, chance)
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
    print("| packets lost | greatest delay | overtaken | words | wrong | wrong, with copies |")
    print("| --- | --- | --- | --- | --- | --- |")
    for network in NETWORKS:
        plain, copied = (measure(model, clips, network, seeds, copies) for copies in (False, True))
        print(
            f"| {network.loss:.0%} | {1000 * network.jitter_s:.0f} ms | {network.overtaken:.0%} "
            f"| {plain.words} | {plain.errors} ({plain.rate:.1%}) "
            f"| {copied.errors} ({copied.rate:.1%}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()

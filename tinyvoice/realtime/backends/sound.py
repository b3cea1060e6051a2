"""The sound of an answer: from a voice's samples to deltas in the client's encoding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinyvoice.audio.g711 import encode_alaw, encode_mulaw
from tinyvoice.audio.resample import Resampler
from tinyvoice.realtime.backends.interface import AudioDelta

SAMPLE_RATES = {"pcm16": 24_000, "mulaw": 8_000, "alaw": 8_000}
"""Of the encodings that clients know, in Hz."""

FIRST_DELTA_MS = 100
DELTA_MS = 200
"""Length of the first delta, which is to leave early, and of the others."""


class SpeechEncoder:
    """Converts one stretch of a voice's speech; a new one begins each stretch.

    Args:
        sample_rate: the voice's, in Hz.
        encoding: what comes out, of `SAMPLE_RATES`.
    """

    def __init__(self, sample_rate: int, encoding: str) -> None:
        self._encoding = encoding
        self._resampler = Resampler(sample_rate, SAMPLE_RATES[encoding])
        self._plain = encoding == "pcm16" and sample_rate == SAMPLE_RATES["pcm16"]
        self._carried = b""

    def encode(self, pcm16: bytes, last: bool = False) -> bytes:
        """Take more s16le samples, which may end inside one; return what is ready of them."""
        pcm16 = self._carried + pcm16
        whole = len(pcm16) - len(pcm16) % 2
        self._carried = pcm16[whole:]
        if self._plain:
            return pcm16[:whole]
        integers = np.frombuffer(pcm16, dtype="<i2", count=whole // 2)
        floats = integers.astype(np.float32) / np.float32(32768)
        samples = self._resampler.process(floats, last=last)
        if self._encoding == "mulaw":
            return encode_mulaw(samples).tobytes()
        if self._encoding == "alaw":
            return encode_alaw(samples).tobytes()
        return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes()


class DeltaCutter:
    """Cuts the sound of one answer into deltas of whole samples."""

    def __init__(self, encoding: str) -> None:
        self._bytes_per_ms = SAMPLE_RATES[encoding] // 1000 * (2 if encoding == "pcm16" else 1)
        self._sound = bytearray()
        self._next = FIRST_DELTA_MS * self._bytes_per_ms
        self.cut_ms = 0.0
        """Length of all deltas so far."""
        self.taken_ms = 0.0
        """Length of all sound taken so far."""

    def feed(self, sound: bytes) -> Iterator[AudioDelta]:
        """Take more sound; give the deltas that are full."""
        self._sound += sound
        self.taken_ms += self.duration_ms(sound)
        while len(self._sound) >= self._next:
            yield self._cut(self._next)

    def flush(self) -> Iterator[AudioDelta]:
        """Give the rest, so that nothing waits for the next stretch."""
        if self._sound:
            yield self._cut(len(self._sound))

    def duration_ms(self, sound: bytes) -> float:
        """Length of encoded sound."""
        return len(sound) / self._bytes_per_ms

    def _cut(self, size: int) -> AudioDelta:
        delta, self._sound = bytes(self._sound[:size]), self._sound[size:]
        self._next = DELTA_MS * self._bytes_per_ms
        self.cut_ms += self.duration_ms(delta)
        return AudioDelta(delta, self.duration_ms(delta))

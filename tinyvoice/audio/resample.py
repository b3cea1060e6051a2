"""Sample-rate conversion of mono signals by soxr, at once or piece by piece.

Both ways run the same filter with the same state, so a signal cut into any pieces gives the samples
that it gives as a whole. Channels are mixed before this point.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from tinyvoice.errors import AudioError

LOWEST_RATE = 1_000
HIGHEST_RATE = 1_000_000
"""Rates in Hz outside of which a header is taken to be wrong."""

_BLOCK_SAMPLES = 1 << 18  # soxr copies its input: blocks bound that copy to a megabyte


def check_rate(rate: float) -> int:
    """Return ``rate`` as an integer number of Hz.

    Raises:
        AudioError: it is not a whole number between 1 kHz and 1 MHz.
    """
    if rate != rate or int(rate) != rate or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"A sample rate of {rate} Hz cannot be used: give a whole number between "
            f"{LOWEST_RATE} and {HIGHEST_RATE}."
        )
    return int(rate)


class Resampler:
    """Converts one mono stream; create one per stream and feed it in order.

    Equal rates pass the samples through untouched.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        self.source_rate = check_rate(source_rate)
        self.target_rate = check_rate(target_rate)
        self._stream: soxr.ResampleStream | None = None
        if self.source_rate != self.target_rate:
            self._stream = soxr.ResampleStream(
                self.source_rate, self.target_rate, num_channels=1, dtype="float32", quality="HQ"
            )

    def process(self, samples: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        """Take the next samples ``(n,)``, return those that are ready ``(m,)``, m ≥ 0.

        The filter keeps some milliseconds back; ``last=True`` flushes them and ends the stream.
        """
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        if self._stream is None:
            return samples
        return self._stream.resample_chunk(samples, last=last)


def resample(
    samples: NDArray[np.float32], source_rate: int, target_rate: int
) -> NDArray[np.float32]:
    """Convert a whole mono signal ``(n,)`` from one rate in Hz to another.

    Raises:
        AudioError: a rate that is not a whole number between 1 kHz and 1 MHz.
    """
    resampler = Resampler(source_rate, target_rate)
    if resampler.source_rate == resampler.target_rate:
        return np.asarray(samples, dtype=np.float32)
    pieces = [
        resampler.process(samples[start : start + _BLOCK_SAMPLES])
        for start in range(0, len(samples), _BLOCK_SAMPLES)
    ]
    pieces.append(resampler.process(np.zeros(0, dtype=np.float32), last=True))
    return np.concatenate(pieces)

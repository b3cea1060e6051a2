"""Sample-rate conversion of mono signals, at once or piece by piece.

Both ways run the same filter with the same state, so a signal cut into any pieces gives the samples
that it gives as a whole, and live sound those of its recording. Between usual rates the filter is
that of ``polyphase.py``, which gives live sound without delay; rates without a small common
multiple are soxr's. Channels are mixed before this point.
"""

from __future__ import annotations

import math

import numpy as np
import soxr
from numpy.typing import NDArray

from tinyvoice.audio.polyphase import PolyphaseResampler, convertible
from tinyvoice.audio.rates import HIGHEST_RATE, LOWEST_RATE, check_rate

__all__ = ["HIGHEST_RATE", "LOWEST_RATE", "Resampler", "check_rate", "resample"]

_BLOCK_SAMPLES = 1 << 15  # bounds what is copied on the way to some tens of megabytes

_NOTHING = np.zeros(0, dtype=np.float32)


class Resampler:
    """Converts one mono stream; create one per stream and feed it in order.

    Equal rates pass the samples through untouched.

    Args:
        source_rate: in Hz, of what goes in.
        target_rate: in Hz, of what comes out.
        ahead: None for a recording, whose sound stays where it is. For live sound, which must not
            wait for its filter, how many samples of the target rate came out so far beyond those
            that were due (0 at the beginning): whatever is due is given at once, and the sound is
            late by `delay_samples`, or by ``ahead`` where that is more.
    """

    def __init__(self, source_rate: int, target_rate: int, ahead: int | None = None) -> None:
        self.source_rate = check_rate(source_rate)
        self.target_rate = check_rate(target_rate)
        self._live: PolyphaseResampler | None = None
        self._blocks: soxr.ResampleStream | None = None
        self._taken = self._given = 0
        self._late = ahead or 0
        if self.source_rate == self.target_rate:
            return
        if convertible(self.source_rate, self.target_rate):
            self._live = PolyphaseResampler(self.source_rate, self.target_rate, leave_out=ahead)
            if ahead is not None:
                self._late = max(ahead, math.ceil(self._live.delay_s * self.target_rate))
                self._given = ahead
        else:
            self._blocks = soxr.ResampleStream(
                self.source_rate, self.target_rate, num_channels=1, dtype="float32", quality="HQ"
            )

    @property
    def delay_samples(self) -> int:
        """How much later the sound comes out than it went in, in samples of the target rate."""
        return self._late

    def process(self, samples: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        """Take the next samples ``(n,)``, return those that are ready ``(m,)``, m ≥ 0.

        Where the sound stays where it is, the filter keeps a millisecond or three back (soxr's some
        tens, live sound too); ``last=True`` flushes them, or those by which the sound is late, and
        ends the stream.
        """
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        if self._blocks is not None:
            return self._blocks.resample_chunk(samples, last=last)
        if self._live is None:
            return samples
        ready = self._live.process(samples)
        self._taken += len(samples)
        if last:
            behind = math.ceil(self._live.delay_s * self.source_rate) + 1
            tail = self._live.process(np.zeros(behind, dtype=np.float32))
            due = -(-self._taken * self.target_rate // self.source_rate) + self._late
            tail = tail[: max(due - self._given - len(ready), 0)]
            ready = np.concatenate([ready, tail])
        self._given += len(ready)
        return ready


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
    pieces.append(resampler.process(_NOTHING, last=True))
    return np.concatenate(pieces)

"""Sample-rate conversion of live mono sound with a delay below a millisecond or two.

The converter of ``resample.py`` works in blocks and gives its samples up to 40 ms late, which does
not matter to a file. Here each sample that can be known is given at once, by a short windowed-sinc
filter in polyphase form (Crochiere and Rabiner, *Multirate Digital Signal Processing*, 1983); the
stopband is 70 dB down. It converts between any two rates with a small common multiple.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.resample import check_rate
from tinyvoice.errors import AudioError

_CROSSINGS = 24
"""Zero crossings of the sinc on each side, at the lower of both rates: 1 ms at 24 kHz."""

_KAISER_BETA = 7.0
_PASSBAND = 0.92
"""Cut-off as a part of the lower rate's Nyquist frequency."""

_MOST_PHASES = 1_000


class PolyphaseResampler:
    """Converts one mono stream; create one per stream and feed it in order.

    Equal rates pass the samples through untouched.

    Raises:
        AudioError: a rate is no whole number between 1 kHz and 1 MHz, or the two have too large a
            common multiple.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        self.source_rate = check_rate(source_rate)
        self.target_rate = check_rate(target_rate)
        common = math.gcd(self.source_rate, self.target_rate)
        self._up, self._down = self.target_rate // common, self.source_rate // common
        if max(self._up, self._down) > _MOST_PHASES:
            raise AudioError(
                f"{source_rate} Hz cannot be converted to {target_rate} Hz piece by piece: their "
                "common multiple is too large."
            )
        self._filter = _phases(self._up, self._down)  # (phases, taps), newest sample first
        taps = self._filter.shape[1]
        self._history = np.zeros(taps - 1, dtype=np.float32)
        self._begin = 0  # place of the next output on the common clock, from the next input on

    @property
    def delay_s(self) -> float:
        """By how much the output lags behind the input."""
        if self._up == self._down:
            return 0.0
        return _CROSSINGS / min(self.source_rate, self.target_rate)

    def process(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next samples ``(n,)``, return those that are known by them ``(m,)``, m ≥ 0."""
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        if self._up == self._down or not len(samples):
            return samples
        places = np.arange(self._begin, len(samples) * self._up, self._down)
        self._begin = self._begin + len(places) * self._down - len(samples) * self._up
        known = np.concatenate([self._history, samples])
        taps = self._filter.shape[1]
        self._history = known[len(known) - (taps - 1) :]
        windows = np.lib.stride_tricks.sliding_window_view(known, taps)[places // self._up]
        return np.einsum("nt,nt->n", windows[:, ::-1], self._filter[places % self._up])


def _phases(up: int, down: int) -> NDArray[np.float32]:
    """The low-pass filter on the common clock, cut into ``up`` phases: ``(up, taps)``."""
    ratio = max(up, down)
    half = _CROSSINGS * ratio
    places = np.arange(-half, half + 1)
    impulse = np.sinc(_PASSBAND * places / ratio) * np.kaiser(2 * half + 1, _KAISER_BETA)
    impulse *= up / impulse.sum()
    padded = np.pad(impulse, (0, -len(impulse) % up))
    return np.ascontiguousarray(padded.reshape(-1, up).T, dtype=np.float32)

"""Sample-rate conversion of live mono sound with a delay of a millisecond or three.

Converters made for files work in blocks and give their samples up to 40 ms late, and at telephone
rates later still. Here each sample that can be known is given at once, by a short windowed-sinc
filter in polyphase form (Crochiere and Rabiner, *Multirate Digital Signal Processing*, 1983); the
stopband is 70 dB down. It converts between any two rates with a small common multiple.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.rates import check_rate
from tinyvoice.errors import AudioError

_CROSSINGS = 24
"""Zero crossings of the sinc on each side, at the lower of both rates: 1 ms at 24 kHz."""

_KAISER_BETA = 7.0
_PASSBAND = 0.92
"""Cut-off as a part of the lower rate's Nyquist frequency."""

_MOST_PHASES = 1_000

_FEW_PHASES = 8
"""Up to here a phase at a time is quicker than gathering a window for each sample."""


class PolyphaseResampler:
    """Converts one mono stream; create one per stream and feed it in order.

    Equal rates pass the samples through untouched. The sound comes out `delay_s` late, with silence
    before it, so that the samples that are due are always there.

    Args:
        source_rate: in Hz, of what goes in.
        target_rate: in Hz, of what comes out.
        leave_out: how many samples of that silence are not given; with ``None`` all of them: output
            stands where its input stood, and the end of a signal comes out when `delay_s` of
            silence has been fed behind it.

    Raises:
        AudioError: a rate is no whole number between 1 kHz and 1 MHz, or the two have too large a
            common multiple.
    """

    def __init__(self, source_rate: int, target_rate: int, *, leave_out: int | None = 0) -> None:
        self.source_rate = check_rate(source_rate)
        self.target_rate = check_rate(target_rate)
        common = math.gcd(self.source_rate, self.target_rate)
        self._up, self._down = self.target_rate // common, self.source_rate // common
        if not convertible(self.source_rate, self.target_rate):
            raise AudioError(
                f"{source_rate} Hz cannot be converted to {target_rate} Hz piece by piece: their "
                "common multiple is too large."
            )
        self._filter = _phases(self._up, self._down)  # (phases, taps), newest sample first
        taps = self._filter.shape[1]
        self._history = np.zeros(taps - 1, dtype=np.float32)
        # Place of the next output on the common clock, from the next input on.
        silence = _CROSSINGS * max(self._up, self._down)
        self._begin = silence if leave_out is None else min(leave_out * self._down, silence)

    @property
    def delay_s(self) -> float:
        """How long after a moment of the input its output is known."""
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
        if not len(places):
            return np.zeros(0, dtype=np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(known, taps)[:, ::-1]
        if self._up > _FEW_PHASES:
            gathered = windows[places // self._up]
            return np.einsum("nt,nt->n", gathered, self._filter[places % self._up])
        converted = np.empty(len(places), dtype=np.float32)
        for first in range(min(self._up, len(places))):
            # Every `up`-th output has the same phase, `down` inputs after the one before.
            place, phase = divmod(int(places[first]), self._up)
            count = len(places[first :: self._up])
            picked = windows[place :: self._down][:count]
            converted[first :: self._up] = np.einsum("nt,t->n", picked, self._filter[phase])
        return converted


def convertible(source_rate: int, target_rate: int) -> bool:
    """Whether the common multiple of two rates is small enough for the filter."""
    return max(source_rate, target_rate) // math.gcd(source_rate, target_rate) <= _MOST_PHASES


def _phases(up: int, down: int) -> NDArray[np.float32]:
    """The low-pass filter on the common clock, cut into ``up`` phases: ``(up, taps)``."""
    ratio = max(up, down)
    half = _CROSSINGS * ratio
    places = np.arange(-half, half + 1)
    impulse = np.sinc(_PASSBAND * places / ratio) * np.kaiser(2 * half + 1, _KAISER_BETA)
    impulse *= up / impulse.sum()
    padded = np.pad(impulse, (0, -len(impulse) % up))
    return np.ascontiguousarray(padded.reshape(-1, up).T, dtype=np.float32)

"""Fills in for lost packets: goes on with the sound before the gap, and fades it out.

The last pitch period is repeated, as in ITU-T G.711, appendix I, and fades within two packets'
time; what is longer is silence. A recogniser trained on whole sound is led astray less by this than
by holes in the middle of words. It does not look at what comes after the gap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FADE_S = 0.04
_WINDOW_S = 0.02
_SHORTEST_PERIOD_S, _LONGEST_PERIOD_S = 0.0025, 0.0167
"""Pitch of 400 to 60 Hz."""

_STEP_S = 1 / 12_000
"""How finely the period is searched for."""


class Concealment:
    """What was heard last of one stream, at ``sample_rate`` Hz, and how it would have gone on."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._window = round(_WINDOW_S * sample_rate)
        self._longest = round(_LONGEST_PERIOD_S * sample_rate)
        self._recent = np.zeros(0, dtype=np.float32)

    def hear(self, samples: NDArray[np.float32]) -> None:
        """Remember sound ``(n,)``, and what was put in for sound."""
        keep = self._window + self._longest
        self._recent = np.concatenate([self._recent, samples[-keep:]])[-keep:]

    def extend(self, count: int) -> NDArray[np.float32]:
        """So many samples in place of sound that is lost, ``(count,)``."""
        filled = np.zeros(count, dtype=np.float32)
        if not count or len(self._recent) < self._window + self._longest:
            return filled
        fade = round(_FADE_S * self.sample_rate)
        sounding = min(count, fade)
        gain = 1 - np.arange(sounding, dtype=np.float32) / fade
        filled[:sounding] = np.resize(self._recent[-self._period() :], sounding) * gain
        return filled

    def _period(self) -> int:
        """Lag, in samples, at which the last window is most like what was before it."""
        shortest = round(_SHORTEST_PERIOD_S * self.sample_rate)
        step = max(1, round(_STEP_S * self.sample_rate))
        lags = np.arange(shortest, self._longest, step)
        windows = np.lib.stride_tricks.sliding_window_view(self._recent, self._window)
        earlier = windows[len(windows) - 1 - lags]  # (lags, window)
        likeness = earlier @ self._recent[-self._window :]
        loudness = np.sqrt(np.einsum("lw,lw->l", earlier, earlier)) + 1e-6
        return int(lags[np.argmax(likeness / loudness)])

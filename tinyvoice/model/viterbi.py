"""The most probable path through a left-to-right model, over a whole clip at once.

The textbook Viterbi algorithm for models whose states are passed in order: each state may last, and
some may be skipped. It knows neither audio nor words: ``timestamps.py`` builds a model of a
transcript's letters, ``attention_alignment.py`` one of its tokens. There is no beam: the path is
exact, and 30 seconds of 100 words take some milliseconds, because every frame costs three array
operations whatever the number of states.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LeftToRight:
    """A left-to-right model: which class each state emits, and what steps between states cost.

    ``costs[k, s]`` is the cost, in natural log-probability, of coming to state ``s`` from state
    ``s - k`` (``k = 0``: of staying); it is infinite where that is not possible. ``start`` and
    ``end`` say the same for beginning and ending in a state.
    """

    classes: np.ndarray  # (states,) int
    costs: np.ndarray  # (steps, states) float32
    start: np.ndarray  # (states,) float32
    end: np.ndarray  # (states,) float32

    def best_path(self, scores: np.ndarray) -> np.ndarray | None:
        """The best state for each frame of ``scores (frames, classes)``.

        Scores are natural log-probabilities. Of two equally good ways the one that moved less wins.
        ``None`` where no path leads through all the frames.
        """
        steps, states = self.costs.shape
        frames = len(scores)
        emitted = scores[:, self.classes].astype(np.float32)
        # Row t holds the best score of every state at frame t, behind padding that no path reaches,
        # so that `windows[t, steps - 1 - k]` is the row shifted by k states: one addition and one
        # maximum a frame.
        best = np.full((frames, steps - 1 + states), -np.inf, dtype=np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(best, states, axis=1)
        gains = -self.costs[::-1]
        arrivals = np.empty_like(gains)
        rows = best[:, steps - 1 :]
        rows[0] = emitted[0] - self.start
        for row, before, emission in zip(rows[1:], windows, emitted[1:], strict=False):
            np.add(before, gains, out=arrivals)
            np.maximum.reduce(arrivals, axis=0, out=row)
            np.add(row, emission, out=row)
        final = rows[-1] - self.end
        state = int(final.argmax())
        if not np.isfinite(final[state]):
            return None
        path = np.empty(frames, dtype=np.int64)
        path[-1] = state
        for frame in range(frames - 1, 0, -1):
            ways = windows[frame - 1, ::-1, state] - self.costs[:, state]
            state -= int(ways.argmax())
            path[frame - 1] = state
        return path

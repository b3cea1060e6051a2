"""The path found is the best of all paths."""

from itertools import product

import numpy as np
import pytest

from tinyvoice.model.viterbi import LeftToRight


def by_trying_all(model: LeftToRight, scores: np.ndarray) -> tuple[float, tuple[int, ...] | None]:
    """Score and states of the best path, of every path there is."""
    steps, states = model.costs.shape
    best: tuple[float, tuple[int, ...] | None] = (-np.inf, None)
    for path in product(range(states), repeat=len(scores)):
        score = -model.start[path[0]] - model.end[path[-1]]
        for frame, state in enumerate(path):
            score += scores[frame, model.classes[state]]
            if frame:
                step = state - path[frame - 1]
                score -= model.costs[step, state] if 0 <= step < steps else np.inf
        if score > best[0]:
            best = (float(score), path)
    return best


@pytest.mark.parametrize("seed", range(20))
def test_equals_trying_all_paths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    states, steps, frames = 4, 3, 6
    costs = rng.uniform(0, 1, (steps, states)).astype(np.float32)
    costs[rng.random(costs.shape) < 0.3] = np.inf
    edges = [rng.choice([0.0, 0.5, np.inf], states).astype(np.float32) for _ in range(2)]
    model = LeftToRight(rng.integers(0, 3, states), costs, edges[0], edges[1])
    scores = rng.normal(0, 1, (frames, 3))
    _, expected = by_trying_all(model, scores)
    found = model.best_path(scores)
    assert (None if found is None else tuple(found.tolist())) == expected


def test_of_equal_paths_the_one_that_moves_late_wins() -> None:
    costs = np.array([[0, 0], [np.inf, 0]], dtype=np.float32)
    free = np.zeros(2, dtype=np.float32)
    path = LeftToRight(np.array([0, 0]), costs, free, free).best_path(np.zeros((3, 1)))
    assert path is not None
    assert path.tolist() == [0, 0, 0]

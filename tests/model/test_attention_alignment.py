"""Attention that follows the audio is found among heads that do not, and read as times."""

import numpy as np
import pytest

from tinyvoice.model.attention_alignment import best_heads, token_edges, word_edges

# Three rows for tokens and one for the end, over ten audio tokens.
STRETCHES = [(1, 3), (3, 4), (6, 9), (9, 10)]


def diagonal(stretches: list[tuple[int, int]], audio: int, share: float = 0.9) -> np.ndarray:
    """A head that looks at its token's stretch evenly."""
    weights = np.full((len(stretches), audio), 1e-3)
    for row, (begin, end) in zip(weights, stretches, strict=True):
        row[begin:end] = share / (end - begin)
    return weights


def test_heads_that_move_forward_are_preferred() -> None:
    rng = np.random.default_rng(0)
    audio = 10
    wandering = rng.dirichlet(np.ones(audio) * 0.1, size=(6, 4)) * 0.9
    even = np.full((4, 4, audio), 0.09)
    elsewhere = np.full((4, 4, audio), 1e-6)
    good = diagonal(STRETCHES, audio)
    layers = [wandering, np.concatenate([even, good[None]]), elsewhere]
    weights = best_heads(iter(layers), count=2)
    assert weights.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-6)
    for row, (begin, end) in zip(weights, STRETCHES, strict=True):
        assert row[begin:end].sum() > 0.5


def test_heads_that_never_move_forward_count_the_same() -> None:
    backwards = diagonal([(8, 10), (4, 6), (0, 2)], 10)[None]
    assert best_heads(iter([backwards])).shape == (3, 10)


def test_edges_of_tokens_and_words() -> None:
    weights = diagonal(STRETCHES, 10)
    edges = token_edges(weights)
    assert edges[1:].tolist()[:1] == [3]
    assert edges[-1] == 10
    words = [word_edges(weights, edges, 0, 2), word_edges(weights, edges, 2, 3)]
    assert words == [(1, 4), (6, 9)]


def test_more_tokens_than_audio_share_columns() -> None:
    weights = diagonal([(0, 1)] * 5 + [(1, 2)] * 5, 2)
    edges = token_edges(weights)
    assert edges.tolist() == sorted(edges.tolist())
    for row in range(9):
        begin, end = word_edges(weights, edges, row, row + 1)
        assert 0 <= begin < end <= 3

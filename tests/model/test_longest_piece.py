"""The length from which on a checkpoint wants its clips cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyvoice.errors import ConfigurationError
from tinyvoice.model.configuration import ASRConfig
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.transcription import cut, longest_piece_s

RATE = 16_000


@pytest.fixture
def model() -> ASRModel:
    loaded = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    loaded.eval()
    return loaded


def noise(seconds: float) -> np.ndarray:
    drawn = np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE))
    return drawn.astype(np.float32)


def test_the_embedded_one_says_how_long_its_pieces_are(model: ASRModel) -> None:
    assert longest_piece_s(model) == model.config.longest_piece_s == 12.0
    pieces = cut(model, 0, noise(50))
    assert sum(len(piece.samples) for piece in pieces) == 50 * RATE
    assert all(len(piece.samples) <= 12 * RATE for piece in pieces)


def test_a_shorter_limit_of_the_engine_holds_and_a_longer_one_does_not(model: ASRModel) -> None:
    assert max(len(piece.samples) for piece in cut(model, 0, noise(50), 8.0)) <= 8 * RATE
    assert max(len(piece.samples) for piece in cut(model, 0, noise(50), 30.0)) <= 12 * RATE


def test_it_is_never_more_than_the_encoder_takes(model: ASRModel) -> None:
    model.config.longest_piece_s = 30.0
    assert longest_piece_s(model) == 30.0 - 2 * model.config.silence_padding_s


def test_checkpoints_that_do_not_say_are_given_all_that_the_encoder_takes(model: ASRModel) -> None:
    assert ASRConfig().longest_piece_s is None
    model.config.longest_piece_s, model.config.silence_padding_s = None, 0.0
    assert longest_piece_s(model) == 30.0


@pytest.mark.parametrize("value", [3.9, 30.5, 0, "long", True, float("nan")])
def test_other_lengths_are_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="longest_piece_s"):
        ASRConfig(longest_piece_s=value)

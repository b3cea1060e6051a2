"""The silence that a checkpoint wants around its clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyvoice.benchmark.speech import bundled_speech
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


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), dtype=np.float32)


def test_it_is_what_silence_put_there_by_hand_would_be(model: ASRModel) -> None:
    sound = bundled_speech()[0].samples[800:-800]
    model.config.silence_padding_s = 0.4
    padded = model.transcribe(sound, sample_rate=RATE, word_timestamps=True)
    model.config.silence_padding_s = 0.0
    around = np.concatenate([silence(0.4), sound, silence(0.4)])
    by_hand = model.transcribe(around, sample_rate=RATE, word_timestamps=True)
    assert padded.text == by_hand.text
    assert padded.confidence == by_hand.confidence
    assert padded.duration == pytest.approx(len(sound) / RATE)
    for word, other in zip(padded.words, by_hand.words, strict=True):
        assert word.start == pytest.approx(max(other.start - 0.4, 0.0), abs=1e-6)
        assert 0.0 <= word.start <= word.end <= padded.duration


def test_the_encoder_is_never_given_more_than_it_takes(model: ASRModel) -> None:
    model.config.silence_padding_s, model.config.longest_piece_s = 1.5, None
    assert longest_piece_s(model) == 27.0
    noise = np.random.default_rng(0).normal(0, 0.1, 60 * RATE).astype(np.float32)
    pieces = cut(model, 0, noise)
    assert sum(len(piece.samples) for piece in pieces) == len(noise)
    assert all(len(piece.heard(RATE)) <= 30 * RATE for piece in pieces)
    model.transcribe(noise, sample_rate=RATE, segment="fixed")


def test_the_text_comes_by_the_token_as_it_comes_at_once(model: ASRModel) -> None:
    sound = bundled_speech()[1].samples
    assert model.config.silence_padding_s > 0, "the embedded checkpoint wants some"
    at_once = model.transcribe(sound, sample_rate=RATE).text
    assert "".join(model.generate_streaming(sound, sample_rate=RATE)) == at_once


@pytest.mark.parametrize("value", [-0.1, 2.5, "long", float("nan")])
def test_other_lengths_are_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="silence_padding_s"):
        ASRConfig(silence_padding_s=value)


def test_checkpoints_that_do_not_say_want_none() -> None:
    assert ASRConfig().silence_padding_s == 0.0

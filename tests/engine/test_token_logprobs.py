"""What tokens spell, piece by piece."""

from __future__ import annotations

import pytest

from tinyvoice.engine.events import TokenLogprob
from tinyvoice.engine.token_logprobs import cut_to, join_tokens, token_logprobs
from tinyvoice.model.modeling import ASRModel


def pieces(*texts: str) -> list[TokenLogprob]:
    return [TokenLogprob(text, -0.5 * index) for index, text in enumerate(texts, start=1)]


def texts(tokens: tuple[TokenLogprob, ...]) -> list[str]:
    return [token.text for token in tokens]


@pytest.mark.parametrize(
    "text", ["a café für naïve Leute", "日本語 and 😀", "plain words only", ""]
)
def test_no_piece_is_half_a_character(model: ASRModel, text: str) -> None:
    ids = model.tokenizer(text, add_special_tokens=False).input_ids
    logprobs = [-0.1 * (at + 1) for at in range(len(ids))]
    spelt = model.tokenizer.decode(ids)
    tokens = token_logprobs(model.tokenizer, ids, logprobs, spelt)
    assert "".join(texts(tokens)) == spelt
    assert spelt.strip() == text
    assert not any("\ufffd" in piece for piece in texts(tokens))
    assert sum(token.logprob for token in tokens) == pytest.approx(sum(logprobs))
    if text.isascii():
        assert len(tokens) == len(ids)


def test_bytes_that_are_no_character_stay_as_they_are_shown(model: ASRModel) -> None:
    half = model.tokenizer("é", add_special_tokens=False).input_ids[:-1]
    spelt = model.tokenizer.decode(half)
    tokens = token_logprobs(model.tokenizer, half, [-1.0] * len(half), spelt.strip())
    assert "".join(texts(tokens)) == spelt.strip()


def test_a_loop_that_was_cut_is_cut_here_too() -> None:
    tokens = cut_to(pieces(" go", " on", " on", " on"), "go on")
    assert tokens == (TokenLogprob("go", -0.5), TokenLogprob(" on", -1.0))


def test_thinking_that_was_taken_away_is_left_out() -> None:
    assert texts(cut_to(pieces("<think>", "go", "</think>", " to", " go"), "to go")) == [
        "to",
        " go",
    ]


def test_other_white_space_is_kept_as_the_text_has_it() -> None:
    assert texts(cut_to(pieces("a", "\n\n", "b ", " c"), "a b c")) == ["a", " b ", "c"]


def test_transcripts_are_joined_by_blanks() -> None:
    joined = join_tokens([pieces("go", " on"), [], pieces("then", " stop")])
    assert "".join(texts(joined)) == "go on then stop"
    assert [token.logprob for token in joined] == [-0.5, -1.0, -0.5, -1.0]

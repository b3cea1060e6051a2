"""What is stable: it only grows, ends with a word, and stays the beginning of the final."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from importlib.resources import files

import pytest
import torch

from tinyvoice import ASRModel
from tinyvoice.audio.files import load_audio
from tinyvoice.engine.decoding import Decoded, DecodeJob, FinalJob, RollingDecoder
from tinyvoice.engine.encoders import build_encoder
from tinyvoice.engine.stability import (
    DISAGREEMENTS,
    StabilityRule,
    StablePrefix,
    align_prefix,
    may_become_loop,
)
from tinyvoice.model.text import clean_transcript

SURE, UNSURE = 9.0, 0.5


@functools.cache
def embedded() -> ASRModel:
    return ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")


def decoded(text: str, unsure: tuple[str, ...] = (), end: float = UNSURE) -> Decoded:
    """A hypothesis whose words are sure, but for some; its end is unsure unless said."""
    ids: list[int] = []
    margins: list[float] = []
    for at, word in enumerate(text.split(" ") if text else []):
        tokens = embedded().need_processor().text_ids(f" {word}" if at else word)
        ids += tokens
        margins += [UNSURE if word in unsure else SURE] * len(tokens)
    return Decoded(ids, [0.0] * len(ids), [*margins, end], stop_logprob=0.0)


def follow(
    hypotheses: Sequence[str | Decoded],
    rule: StabilityRule | None = None,
    step: float = 0.32,
    certain_s: float = math.inf,
) -> list[tuple[str, str]]:
    """Stable part and tail after each of the hypotheses, which come every ``step`` seconds."""
    prefix, seen = StablePrefix(embedded().tokenizer, rule, certain_s), []
    for at, hypothesis in enumerate(hypotheses, 1):
        taken = decoded(hypothesis) if isinstance(hypothesis, str) else hypothesis
        prefix.update(taken, at * step)
        seen.append((prefix.stable, prefix.tail))
    return seen


def test_words_that_two_hypotheses_agree_on_become_stable_but_for_the_last() -> None:
    assert follow(["turn the", "turn the light", "turn the lights on", "turn the lights on"]) == [
        ("", "turn the"),
        ("turn the", " light"),
        ("turn the", " lights on"),
        ("turn the lights", " on"),
    ]


def test_the_last_word_is_stable_where_the_end_is_sure() -> None:
    end = decoded("stop", end=SURE)
    assert follow([end, end]) == [("", "stop"), ("stop", "")]
    bounded = Decoded(end.ids, end.logprobs, end.margins[:-1])
    assert follow([bounded, bounded])[-1] == ("", "stop")


def test_words_that_may_lie_behind_a_cut_are_not_stable() -> None:
    # "light" first comes up after 0.64 s, "now" after 0.96 s.
    said = ["turn the", "turn the light", *["turn the light now please"] * 3]
    assert follow(said, certain_s=0.64)[-1] == ("turn the light", " now please")
    assert follow(said)[-1] == ("turn the light now", " please")


def test_an_unsure_word_keeps_all_behind_it_in_the_tail() -> None:
    unsure = decoded("turn the lights on now", unsure=("lights",))
    assert follow([unsure] * 4)[-1] == ("turn", " the lights on now")
    # Surer in later hypotheses: the newest counts for half.
    sure = "turn the lights on now"
    assert follow([unsure, sure])[-1] == ("turn the lights on", " now")


def test_a_word_waits_while_the_next_one_is_unsure() -> None:
    # It may turn out to be the beginning of that one.
    unsure = decoded("some mit the form", unsure=("mit",))
    assert follow([unsure] * 3)[-1] == ("", "some mit the form")


def test_hypotheses_in_quick_succession_are_not_enough() -> None:
    quick = follow(["turn the lights on"] * 5, step=0.1)
    assert [stable for stable, _ in quick] == ["", "", "", "turn the lights", "turn the lights"]


def test_the_rule_can_be_changed() -> None:
    rule = StabilityRule(agreements=3, age_s=0.0, margin=0.0, words_behind=2)
    assert follow([decoded("a b c", unsure=("a",), end=-1.0)] * 3, rule) == [
        ("", "a b c"),
        ("", "a b c"),
        ("a", " b c"),
    ]


def test_a_slip_leaves_the_stable_part_and_shows_the_rest_once() -> None:
    said = "turn the lights on"
    seen = follow([said, said, "tern the lights on in", "turn on the lights on in", "the lights"])
    assert seen[2:] == [
        ("turn the lights", " on in"),
        ("turn the lights", " on in"),
        ("turn the lights", ""),
    ]


def test_after_lasting_disagreement_the_stable_part_grows_on() -> None:
    said, other = "turn the lights on", "turn the light on in the kitchen"
    seen = follow([said, said] + [other] * (DISAGREEMENTS + 1))
    assert [stable for stable, _ in seen[2:-2]] == ["turn the lights"] * (DISAGREEMENTS - 1)
    assert seen[-2] == ("turn the lights on in the", " kitchen")
    assert follow([said, said] + [other] * 3 + [f"{other} now"] * 2)[-1] == (
        "turn the lights on in the kitchen",
        " now",
    )


def test_text_that_shares_nothing_follows_behind_a_space() -> None:
    assert follow(["yes yes no", "yes no", "yes no", "maybe"])[-2:] == [
        ("yes", " no"),
        ("yes", ""),
    ]
    seen = follow(["go on", "go on", "", "stop it"])
    assert seen[1:] == [("go", " on"), ("go", ""), ("go", " it")]


def test_an_empty_hypothesis_has_no_text() -> None:
    assert follow(["", ""]) == [("", ""), ("", "")]


def test_a_loop_does_not_become_stable() -> None:
    # Three in a row are cut to one, the first; two may become three.
    seen = follow(["well no", "well no no", "well no no no", "well no no no", "well no no no no"])
    assert [stable for stable, _ in seen] == ["", *["well no"] * 4]
    assert seen[-1] == ("well no", "")
    seen = follow(["i think i think i", "i think i think i think"] * 3)
    assert {stable for stable, _ in seen} <= {"", "i", "i think"}


def test_a_repetition_that_ends_is_no_loop() -> None:
    said = "well no no thank you"
    assert follow([said, said])[-1] == ("well no no thank", " you")


def test_loops_are_seen_at_any_length() -> None:
    words = "a b c a b c d".split()
    assert [may_become_loop(words[:6], count) for count in range(1, 7)] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]
    assert not any(may_become_loop(words, count) for count in range(1, 8))
    assert may_become_loop(["No", "no"], 2)


@pytest.mark.parametrize(
    ("stable", "words", "count"),
    [
        ("", "a b", 0),
        ("a b", "a b c", 2),
        ("a b", "a x c", 2),
        ("a b", "a c", 2),
        ("a b c", "b c d", 2),
        ("a b", "x a b c", 3),
        ("a b c", "a c d", 2),
        ("a b", "", 0),
    ],
)
def test_hypotheses_are_aligned_to_what_is_stable(stable: str, words: str, count: int) -> None:
    assert align_prefix(stable.split(), words.split()) == count


def test_stable_text_of_real_speech_grows_into_the_final() -> None:
    model = embedded()
    decoder, encoder = RollingDecoder(model), build_encoder(model)
    samples = load_audio(str(files("tinyvoice.cli") / "demo.flac")).samples[: 16_000 * 6]
    slot, state, prefix = decoder.open(), encoder.new_state(), StablePrefix(model.tokenizer)
    draft, before, grown = [0], "", 0
    with torch.inference_mode():
        for start in range(0, len(samples), 5120):
            [audio] = encoder.advance([state], [samples[start : start + 5120]])
            [out] = decoder.update([DecodeJob(slot, audio.frozen, audio.tail, draft)])
            prefix.update(out, (start + 5120) / 16_000)
            assert prefix.stable.startswith(before)
            grown += prefix.stable != before
            draft, before = out.ids, prefix.stable
        features, mask = model.need_processor().features([samples])
        embeds, counts = model.project(*model.encode(features, mask))
        [final] = decoder.decode_finals([FinalJob(embeds[0, : int(counts[0])], draft)])
    words = clean_transcript(str(model.tokenizer.decode(final.ids))).split()
    stable = prefix.stable.split()
    assert grown >= 3
    assert len(stable) >= 3
    assert words[: len(stable)] == stable

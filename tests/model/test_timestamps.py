"""Word times: the aligner's targets, and alignments of known posteriors."""

import numpy as np
import pytest
import torch

from tests import miniature
from tinyvoice.model.attention_alignment import transcript_attention
from tinyvoice.model.generation import GeneratedTokens
from tinyvoice.model.timestamps import (
    ALPHABET,
    IGNORED_TARGET,
    align_words,
    confidence,
    frame_letter_targets,
    time_words,
    token_ranges,
    word_letters,
)

FRAME = 0.04


def initial(letter: str) -> int:
    return 1 + ALPHABET.index(letter)


def inside(letter: str) -> int:
    return 1 + len(ALPHABET) + ALPHABET.index(letter)


class TestWordLetters:
    def test_case_accents_and_apostrophes(self) -> None:
        assert word_letters("Café") == [ALPHABET.index(c) for c in "cafe"]
        assert word_letters("don\u2019t") == [ALPHABET.index(c) for c in "don't"]

    def test_other_characters_are_skipped(self) -> None:
        assert word_letters("mp3,") == [ALPHABET.index(c) for c in "mp"]
        assert word_letters("42") == []


class TestFrameLetterTargets:
    def test_letters_are_spread_evenly_over_the_word(self) -> None:
        targets = frame_letter_targets([("hi", 0.08, 0.24)], 8, FRAME)
        h, i = initial("h"), inside("i")
        assert targets.tolist() == [0, 0, h, h, i, i, 0, 0]
        assert targets.dtype == np.int64

    def test_a_word_with_fewer_frames_than_letters_skips_letters(self) -> None:
        targets = frame_letter_targets([("through", 0.0, 0.16)], 4, FRAME)
        assert targets.tolist() == [initial("t"), inside("h"), inside("o"), inside("g")]

    def test_neighbours_without_a_pause_touch(self) -> None:
        targets = frame_letter_targets([("a", 0.0, 0.08), ("a", 0.08, 0.16)], 4, FRAME)
        assert targets.tolist() == [initial("a")] * 4

    def test_edges_are_rounded_to_the_nearest_frame(self) -> None:
        targets = frame_letter_targets([("a", 0.059, 0.101)], 4, FRAME)
        assert targets.tolist() == [0, initial("a"), initial("a"), 0]

    def test_a_very_short_word_keeps_one_frame(self) -> None:
        targets = frame_letter_targets([("a", 0.05, 0.051), ("b", 0.051, 0.12)], 4, FRAME)
        assert targets.tolist() == [0, initial("a"), initial("b"), 0]

    def test_a_word_past_the_end_of_the_clip_is_cut(self) -> None:
        targets = frame_letter_targets([("no", 0.08, 0.4), ("so", 0.4, 0.6)], 4, FRAME)
        assert targets.tolist() == [0, 0, initial("n"), inside("o")]

    def test_a_word_without_letters_is_not_taught(self) -> None:
        targets = frame_letter_targets([("7", 0.04, 0.08)], 3, FRAME)
        assert targets.tolist() == [0, IGNORED_TARGET, 0]

    def test_no_words_is_silence(self) -> None:
        assert frame_letter_targets([], 3, FRAME).tolist() == [0, 0, 0]


Spans = list[tuple[int, int]]


def posteriors(
    words: list[str], spans: Spans, frames: int, sureness: float = 0.8, seed: int | None = None
) -> np.ndarray:
    """Log-posteriors of an aligner that has learnt its targets; noisy where ``seed`` is given.

    Words without a letter of the alphabet sound like random letters.
    """
    timed = [(w, a * FRAME, b * FRAME) for w, (a, b) in zip(words, spans, strict=True)]
    targets = frame_letter_targets(timed, frames, FRAME)
    rng = np.random.default_rng(seed or 0)
    strange = targets == IGNORED_TARGET
    targets[strange] = rng.integers(1, 1 + 2 * len(ALPHABET), strange.sum())
    classes = 1 + 2 * len(ALPHABET)
    logits = np.full((frames, classes), np.log((1 - sureness) / (classes - 1)))
    logits[np.arange(frames), targets] = np.log(sureness)
    if seed is not None:
        logits += rng.normal(0.0, 0.5, logits.shape)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


class TestAlignWords:
    @pytest.mark.parametrize(
        ("words", "spans", "frames"),
        [
            pytest.param(["hi"], [(3, 7)], 12, id="silence on both sides"),
            pytest.param(["hi"], [(0, 12)], 12, id="no silence at all"),
            pytest.param(["a", "b"], [(0, 1), (1, 2)], 2, id="one frame a word"),
            pytest.param(["one", "two"], [(2, 6), (6, 11)], 14, id="words that touch"),
            pytest.param(["no", "no", "no"], [(1, 5), (5, 9), (12, 15)], 16, id="the same word"),
            pytest.param(["a", "aa", "aa"], [(1, 3), (4, 8), (8, 12)], 12, id="the same letter"),
            pytest.param(["strengths"], [(4, 8)], 10, id="nine letters in four frames"),
            pytest.param(["through", "it"], [(2, 4), (4, 6)], 8, id="seven letters in two frames"),
            pytest.param(["don't", "o'clock"], [(2, 8), (9, 16)], 18, id="apostrophes"),
            pytest.param(["Hello,", "World!"], [(2, 8), (9, 16)], 18, id="case and punctuation"),
            pytest.param(["route", "66", "now"], [(1, 6), (7, 12), (13, 17)], 20, id="digits"),
            pytest.param(["東京", "42"], [(2, 6), (9, 12)], 15, id="no letter of the alphabet"),
        ],
    )
    def test_edges_are_exact(self, words: list[str], spans: Spans, frames: int) -> None:
        assert align_words(posteriors(words, spans, frames), words) == spans

    def test_a_long_noisy_clip_keeps_its_edges(self) -> None:
        rng = np.random.default_rng(5)
        vocabulary = ["the", "weather", "is", "what", "a", "tomorrow", "through", "it's", "forty"]
        words = [vocabulary[i] for i in rng.integers(0, len(vocabulary), 100)]
        spans, frame = [], 3
        for word in words:
            length = max(1, round(len(word) * rng.uniform(0.6, 1.5)))
            spans.append((frame, frame + length))
            frame += length + (int(rng.integers(2, 9)) if rng.random() < 0.2 else 0)
        found = align_words(posteriors(words, spans, frame + 4, sureness=0.7, seed=1), words)
        assert found == spans

    def test_a_word_faster_than_its_letters_may_be_skipped(self) -> None:
        words = ["internationalisation", "a"]
        assert align_words(posteriors(words, [(0, 1), (1, 2)], 2), words) == [(0, 1), (1, 2)]

    def test_more_words_than_frames_are_spread_evenly(self) -> None:
        spans = align_words(posteriors(["a"], [(0, 3)], 3), ["a"] * 6)
        assert spans == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)]

    def test_no_words(self) -> None:
        assert align_words(posteriors([], [], 5), []) == []

    def test_words_that_were_not_said_still_get_frames_in_order(self) -> None:
        found = align_words(posteriors([], [], 30, sureness=0.999), ["never", "said"])
        assert all(0 <= first < end <= 30 for first, end in found)
        assert found[0][1] <= found[1][0]

    def test_another_alphabet(self) -> None:
        # Classes: silence, a and b beginning a word, a and b inside one.
        log_posteriors = np.log(np.eye(5)[[0, 1, 4, 4, 2, 0]] * 0.9 + 0.02)
        assert align_words(log_posteriors, ["ab", "b"], "ab") == [(1, 4), (4, 5)]


class Letters:
    """A tokenizer whose tokens are the pieces of a list."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(self.pieces[i] for i in ids)


class TestTokenRanges:
    def find(self, words: list[str], *pieces: str) -> list[tuple[int, int]]:
        tokenizer = Letters(*pieces)
        return token_ranges(tokenizer, range(len(pieces)), words)  # type: ignore[arg-type]

    def test_words_of_one_and_of_several_tokens(self) -> None:
        assert self.find(["hello", "big", "world"], "hel", "lo", " big", " wor", "ld") == [
            (0, 2),
            (2, 3),
            (3, 5),
        ]

    def test_a_token_that_is_only_a_space_belongs_to_no_word(self) -> None:
        assert self.find(["a", "b"], "a", " ", "b") == [(0, 1), (2, 3)]

    def test_a_token_with_two_words_belongs_to_both(self) -> None:
        assert self.find(["a", "b", "c"], "a b", " c") == [(0, 1), (0, 1), (1, 2)]

    def test_text_cut_away_before_and_after(self) -> None:
        pieces = ("<think>", "</think>", "yes", " no", " no", " no")
        assert self.find(["yes", "no"], *pieces) == [(2, 3), (3, 4)]

    def test_a_word_that_is_not_there(self) -> None:
        assert self.find(["yes", "maybe", "no"], "yes", " no") == [(0, 1), (1, 1), (1, 2)]


def test_confidence_is_the_geometric_mean() -> None:
    assert confidence([np.log(0.5), np.log(0.125)]) == pytest.approx(0.25)
    assert confidence([]) == 1.0


class TestTimeWords:
    """Random weights: the times mean nothing, but must be whole."""

    @pytest.mark.parametrize("alphabet", [None, "abc'"])
    def test_every_word_has_times_within_the_clip(self, alphabet: str | None) -> None:
        model = miniature.random_model(aligner_alphabet=alphabet)
        processor = model.need_processor()
        text = "turn the lights on"
        ids = processor.text_ids(text)
        tokens = GeneratedTokens(ids, [-0.5] * len(ids))
        hidden, _ = model.encode(*processor.features([miniature.clip(1.5)]))
        words = time_words(model, text, tokens, hidden[0], processor.hop_seconds)
        assert [word.text for word in words] == text.split()
        assert [word.confidence for word in words] == pytest.approx([np.exp(-0.5)] * 4)
        starts, ends = [word.start for word in words], [word.end for word in words]
        assert starts == sorted(starts)
        assert ends == sorted(ends)
        assert all(0 <= start < end <= 1.5 for start, end in zip(starts, ends, strict=True))

    @torch.inference_mode()
    def test_attention_is_what_the_model_computes(self) -> None:
        model = miniature.random_model()
        model.language_model.config._attn_implementation = "eager"
        features, mask = model.need_processor().features([miniature.clip(1.0)])
        audio, counts = model.project(*model.encode(features, mask))
        ids = model.decode(audio, counts)[0].ids
        layers = list(transcript_attention(model, audio, counts, ids))
        prompt, _ = model.embed_prompts(audio, counts)
        answer = model.get_input_embeddings()(torch.tensor([ids]))
        output = model.language_model(
            inputs_embeds=torch.cat([prompt, answer], dim=1), output_attentions=True
        )
        before = len(model.prompt_template.prefix)
        for found, expected in zip(layers, output.attentions, strict=True):
            rows = expected[0, :, -len(ids) - 1 :, before : before + int(counts[0])]
            np.testing.assert_allclose(found, rows.numpy(), atol=1e-5)

    def test_no_text_has_no_words(self) -> None:
        model = miniature.random_model()
        assert time_words(model, "", GeneratedTokens(), torch.zeros(10, 32), 0.01) == ()

"""Word times: the aligner's targets, and alignments of known posteriors."""

import numpy as np

from tinyvoice.model.timestamps import (
    ALPHABET,
    IGNORED_TARGET,
    frame_letter_targets,
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

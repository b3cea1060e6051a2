"""Tests of training.evaluation.edge_sets."""

import pickle
from itertools import pairwise

import numpy as np
import pytest

from training.evaluation.edge_sets import LONG_SECONDS, CutAndPadded, Strung
from training.evaluation.test_sets import NON_SPEECH_KINDS, Example, Request, load_test_set


def source(example: Example) -> CutAndPadded:
    assert isinstance(example.source, CutAndPadded)
    return example.source


class TestCutAndPad:
    examples = load_test_set("cut-and-pad", Request()).examples

    def test_every_clip_stands_behind_every_20_ms_of_silence(self) -> None:
        padded = [example for example in self.examples if example.group == "padded"]
        assert len(padded) == 24 * 25
        steps = [round(source(example).before_s * 1000) for example in padded[:25]]
        assert steps == list(range(0, 500, 20))

    def test_padding_is_silence_before_the_same_samples(self) -> None:
        example = next(e for e in self.examples if e.name == "clip03+140")
        assert example.whole is not None
        clip, words = example.whole.load()
        samples, moved = example.source.load()
        np.testing.assert_array_equal(samples[:2240], np.zeros(2240, dtype=np.float32))
        np.testing.assert_array_equal(samples[2240:], clip)
        assert words is not None
        assert moved is not None
        assert moved[0][1] == pytest.approx(words[0][1] + 0.14)

    def test_cuts_go_up_to_the_last_word_and_no_further(self) -> None:
        cut = [example for example in self.examples if example.group == "cut"]
        assert len(cut) > 24
        for example in cut:
            samples, words = example.source.load()
            assert words is not None
            assert len(samples) / 16_000 >= words[-1][2] - 1e-3
        assert {round(source(example).cut_s * 1000) % 20 for example in cut} == {0}

    def test_count_draws_and_examples_travel(self) -> None:
        some = load_test_set("cut-and-pad", Request(count=5)).examples
        assert len(some) == 5
        assert pickle.loads(pickle.dumps(some)) == some


class TestLongSpeech:
    def test_clips_follow_each_other_without_their_silence(self) -> None:
        example = load_test_set("long-speech", Request(count=1)).examples[0]
        samples, words = example.source.load()
        assert words is not None
        assert len(samples) / 16_000 == pytest.approx(words[-1][2], abs=1e-3)
        assert LONG_SECONDS <= len(samples) / 16_000 < LONG_SECONDS + 11
        assert words[0][1] == pytest.approx(0.0, abs=1e-3)
        assert [word for word, _, _ in words] == example.text.split()
        assert all(later[1] >= word[1] for word, later in pairwise(words))

    def test_the_seed_draws_the_order(self) -> None:
        first, again, other = (
            load_test_set("long-speech", Request(seed=seed)).examples for seed in (0, 0, 1)
        )
        assert first == again
        assert first != other
        assert len({example.text for example in first}) == len(first)
        assert isinstance(first[0].source, Strung)

    def test_what_is_lost_shows_against_what_was_spoken_and_no_transcript(self) -> None:
        example = load_test_set("long-speech", Request(count=1)).examples[0]
        assert example.whole is None


class TestLongNoSpeech:
    examples = load_test_set("long-no-speech", Request()).examples

    def test_each_kind_is_one_stream_of_ten_minutes(self) -> None:
        assert [example.group for example in self.examples] == list(NON_SPEECH_KINDS)
        assert all(example.text == "" for example in self.examples)
        samples, words = next(e for e in self.examples if e.group == "hum").source.load()
        assert len(samples) == 600 * 16_000
        assert words == ()

    def test_its_level_changes_every_half_minute(self) -> None:
        samples, _ = next(e for e in self.examples if e.group == "white noise").source.load()
        parts = samples.reshape(20, -1)
        assert np.abs(parts).max() <= 1.0
        levels = 20 * np.log10(np.abs(parts).max(axis=1))
        assert levels.max() - levels.min() > 20
        assert len(set(levels.round(3).tolist())) == 20

    def test_the_seed_draws_it_and_examples_travel(self) -> None:
        assert load_test_set("long-no-speech", Request()).examples == self.examples
        assert load_test_set("long-no-speech", Request(seed=1)).examples != self.examples
        assert pickle.loads(pickle.dumps(self.examples)) == self.examples


def test_sound_without_speech_lasts_as_long_as_asked() -> None:
    examples = load_test_set("no-speech", Request(seconds=20.0)).examples
    seconds = [len(e.source.load()[0]) / 16_000 for e in examples if e.group == "hum"]
    assert sum(seconds) == pytest.approx(20.0, abs=0.01)

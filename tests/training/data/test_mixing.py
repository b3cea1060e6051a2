"""Mixtures hold what is wanted of each corpus, the same for the same seed."""

from collections import Counter

import numpy as np
import pytest

from tests.training.recordings import Recordings
from tinyvoice.errors import ConfigurationError
from training.data.mixing import Mixture, choose_samples


def chosen(size: int, target: int | None, seed: int = 0) -> list[int]:
    return choose_samples(size, target, np.random.default_rng(seed)).tolist()


def test_without_a_target_every_sample_is_there_once() -> None:
    assert chosen(4, None) == [0, 1, 2, 3]


def test_a_smaller_target_caps_without_repeats() -> None:
    samples = chosen(100, 30)
    assert len(set(samples)) == len(samples) == 30
    assert samples == chosen(100, 30)
    assert samples != chosen(100, 30, seed=1)


def test_a_larger_target_repeats_evenly() -> None:
    counts = Counter(chosen(10, 34))
    assert sum(counts.values()) == 34
    assert sorted(counts.values()) == [3] * 6 + [4] * 4


def test_a_mixture_reads_the_clips_of_its_corpora() -> None:
    mixture = Mixture([Recordings(5, 0, "few"), Recordings(50, 1, "many")], [12, 20], seed=3)
    assert mixture.counts() == {"few": 12, "many": 20}
    assert len(mixture) == len(mixture.durations) == 32
    for index in (0, 11, 12, 31):
        clip = mixture.clip(index)
        assert clip.duration == pytest.approx(mixture.durations[index])
        corpus, place = mixture.places[index]
        assert clip is mixture.corpora[corpus].clip(place)


def test_a_bound_holds_over_all_corpora() -> None:
    corpora = [Recordings(30, 0, "a"), Recordings(30, 1, "b")]
    mixture = Mixture(corpora, [None, None], most=20, seed=3)
    assert len(mixture) == 20
    assert all(count > 0 for count in mixture.counts().values())
    again = Mixture(corpora, [None, None], most=20, seed=3)
    np.testing.assert_array_equal(mixture.places, again.places)
    assert len(Mixture(corpora, [None, None], most=1000)) == 60


def test_targets_that_cannot_be_met_are_named() -> None:
    with pytest.raises(ConfigurationError, match="tones is 0"):
        Mixture([Recordings(3)], [0])
    with pytest.raises(ConfigurationError, match="tones has no usable clip"):
        Mixture([Recordings(0)], [10])
    assert len(Mixture([Recordings(0)], [None])) == 0

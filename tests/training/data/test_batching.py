"""Batches are bounded, complete, reproducible, and the same for one process and for many."""

from itertools import islice

import numpy as np
import pytest

from tinyvoice.errors import ConfigurationError
from training.data.batching import BatchSettings, ClipKey, GlobalBatches, MicroBatches

DURATIONS = np.random.default_rng(7).uniform(0.5, 12.0, size=500)
SETTINGS = BatchSettings(seconds=40.0, max_clips=16, pool=100, seed=3)


def test_every_clip_is_in_exactly_one_batch_of_an_epoch() -> None:
    batches = GlobalBatches(DURATIONS, SETTINGS)
    for epoch in (0, 1):
        clips = np.concatenate(batches.epoch(epoch))
        assert sorted(clips) == list(range(500))


def test_batches_keep_to_their_limits() -> None:
    for clips in GlobalBatches(DURATIONS, SETTINGS).epoch(0):
        assert len(clips) <= 16
        assert len(clips) * DURATIONS[clips].max() <= 40.0


def test_a_batch_holds_clips_of_similar_length() -> None:
    batches = GlobalBatches(DURATIONS, SETTINGS).epoch(0)
    padded = sum(len(clips) * DURATIONS[clips].max() for clips in batches)
    assert padded < 1.1 * DURATIONS.sum()


def test_a_clip_longer_than_a_batch_is_alone() -> None:
    batches = GlobalBatches(np.array([100.0, 1.0, 1.0]), SETTINGS).epoch(0)
    assert sorted(len(clips) for clips in batches) == [1, 2]


def test_the_seed_and_the_epoch_make_the_order() -> None:
    def first(seed: int, epoch: int) -> list[int]:
        settings = BatchSettings(seconds=40.0, pool=100, seed=seed)
        return GlobalBatches(DURATIONS, settings).epoch(epoch)[0].tolist()

    assert first(1, 0) == first(1, 0)
    assert first(1, 0) != first(2, 0)
    assert first(1, 0) != first(1, 1)


def test_without_shuffling_clips_come_by_length_within_pools() -> None:
    settings = BatchSettings(seconds=40.0, pool=500, shuffle=False)
    clips = np.concatenate(GlobalBatches(DURATIONS, settings).epoch(5))
    assert (np.diff(DURATIONS[clips]) >= 0).all()


@pytest.mark.parametrize("step", [0, 1, 99, 200, 345])
def test_resuming_at_a_step_continues_the_sequence(step: int) -> None:
    whole = list(islice(GlobalBatches(DURATIONS, SETTINGS).from_step(0), 400))
    resumed = list(islice(GlobalBatches(DURATIONS, SETTINGS).from_step(step), 400 - step))
    assert [(e, c.tolist()) for e, c in resumed] == [(e, c.tolist()) for e, c in whole[step:]]


def test_two_processes_see_what_one_sees_with_the_doubled_batch() -> None:
    double = BatchSettings(seconds=80.0, max_clips=32, pool=100, seed=3)
    one = MicroBatches(GlobalBatches(DURATIONS, double))
    two = [MicroBatches(GlobalBatches(DURATIONS, SETTINGS, 2), rank=rank) for rank in (0, 1)]
    for whole, first, second in islice(zip(one, *two, strict=False), 150):
        assert {key.index for key in whole} == {key.index for key in first + second}
        assert abs(len(first) - len(second)) <= 1


def test_accumulation_cuts_a_step_into_micro_batches() -> None:
    settings = BatchSettings(seconds=40.0, max_clips=16, accumulation=2, pool=100, seed=3)
    whole = GlobalBatches(DURATIONS, settings).epoch(0)[0]
    micro = list(islice(MicroBatches(GlobalBatches(DURATIONS, settings)), 2))
    assert sorted(key.index for part in micro for key in part) == sorted(whole)


def test_a_process_without_a_clip_gets_one_that_does_not_count() -> None:
    batches = GlobalBatches(np.array([1.0, 1.0, 1.0]), SETTINGS, processes=4)
    parts = [next(iter(MicroBatches(batches, rank=rank))) for rank in range(4)]
    assert [len(part) for part in parts] == [1, 1, 1, 1]
    assert [part[0].counts for part in parts] == [True, True, True, False]
    assert parts[3][0].index == parts[0][0].index


def test_keys_carry_the_epoch() -> None:
    sampler = MicroBatches(GlobalBatches(np.array([1.0]), SETTINGS))
    assert list(islice(sampler, 3)) == [[ClipKey(0, 0)], [ClipKey(1, 0)], [ClipKey(2, 0)]]


def test_no_clips_and_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no clip"):
        GlobalBatches(np.array([]), SETTINGS)
    with pytest.raises(ConfigurationError, match=r"batch\.seconds"):
        GlobalBatches(DURATIONS, BatchSettings(seconds=0))

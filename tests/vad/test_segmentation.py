"""Long clips are cut in pauses, and nothing is lost or repeated."""

import numpy as np
import pytest

from tinyvoice.vad.segmentation import (
    KEPT_SECONDS,
    MIN_SECONDS,
    UNSURE_SECONDS,
    audible_part,
    earliest_cut,
    earliest_cut_s,
    split_at_quietest,
)

RATE = 16000


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * RATE)) * 0.1
    return samples.astype(np.float32)


def assert_whole(samples: np.ndarray, pieces: list[tuple[int, int]], max_seconds: float) -> None:
    joined = np.concatenate([samples[begin:end] for begin, end in pieces])
    assert np.array_equal(joined, samples)
    assert max(end - begin for begin, end in pieces) <= max_seconds * RATE


@pytest.mark.parametrize("seconds", [0, 0.001, 12, 30])
def test_a_short_clip_stays_whole(seconds: float) -> None:
    samples = noise(seconds)
    assert split_at_quietest(samples, RATE) == [(0, len(samples))]


@pytest.mark.parametrize("seconds", [30.0001, 30.5, 31.0, 45.3, 59.99, 90.0, 301.7])
def test_an_utterance_without_a_pause_loses_and_repeats_nothing(seconds: float) -> None:
    samples = noise(seconds)
    pieces = split_at_quietest(samples, RATE)
    assert len(pieces) > 1
    assert_whole(samples, pieces, 30)
    assert min(end - begin for begin, end in pieces) >= MIN_SECONDS * RATE


def test_the_cut_falls_into_the_pause() -> None:
    samples = noise(70)
    for pause in (24.0, 49.5):
        samples[int(pause * RATE) : int((pause + 0.3) * RATE)] *= 0.001
    (_, first), (_, second), _ = split_at_quietest(samples, RATE)
    assert 24.0 < first / RATE < 24.3
    assert 49.5 < second / RATE < 49.8


def test_of_equal_silences_the_last_is_taken() -> None:
    samples = noise(40)
    for pause in (21.0, 28.0):
        samples[int(pause * RATE) : int((pause + 1) * RATE)] = 0
    (_, cut), _ = split_at_quietest(samples, RATE)
    assert 28.0 < cut / RATE < 29.0


def test_a_closed_stop_in_a_word_is_not_a_pause() -> None:
    samples = noise(40)
    samples[int(28.0 * RATE) : int(28.05 * RATE)] = 0
    samples[int(23.0 * RATE) : int(23.4 * RATE)] *= 0.01
    (_, cut), _ = split_at_quietest(samples, RATE)
    assert 23.0 < cut / RATE < 23.4


@pytest.mark.parametrize("max_seconds", [4.0, 10.0])
def test_another_limit_and_silence(max_seconds: float) -> None:
    samples = np.zeros(33 * RATE, dtype=np.float32)
    assert_whole(samples, split_at_quietest(samples, RATE, max_seconds), max_seconds)


@pytest.mark.parametrize("max_seconds", [4.0, 12.0, 30.0])
def test_no_cut_is_earlier_than_is_said(max_seconds: float) -> None:
    samples = noise(max_seconds + 1.5)
    earliest = earliest_cut_s(max_seconds)
    samples[: round((earliest + 0.2) * RATE)] = 0.0
    (_, cut), *_ = split_at_quietest(samples, RATE, max_seconds)
    assert cut / RATE == pytest.approx(earliest + 0.1)


@pytest.mark.parametrize("max_seconds", [4.0, 12.0, 30.0])
def test_the_earliest_cut_moves_on_with_the_quietest_point(max_seconds: float) -> None:
    samples = noise(max_seconds + 1.5) * (2 + np.sin(np.arange(round((max_seconds + 1.5) * RATE))))
    (_, cut), *_ = split_at_quietest(samples, RATE, max_seconds)
    known = [
        earliest_cut(samples[: round(seconds * RATE)], RATE, max_seconds)
        for seconds in np.arange(0.0, max_seconds + 1.5, 0.16)
    ]
    assert known[0] == earliest_cut_s(max_seconds)
    assert known == sorted(known)
    assert known[-1] == pytest.approx(max(known[0], cut / RATE - UNSURE_SECONDS))


def test_a_limit_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        split_at_quietest(noise(5), RATE, max_seconds=2)


@pytest.mark.parametrize("background", [0.0, 1e-4, 1e-3])
@pytest.mark.parametrize(("lead", "tail"), [(4.0, 0.2), (0.2, 4.0), (8.0, 8.0)])
def test_long_quiet_at_the_edges_is_left_out(background: float, lead: float, tail: float) -> None:
    samples = np.concatenate(
        [np.zeros(round(lead * RATE)), noise(2.0), np.zeros(round(tail * RATE))]
    )
    samples += background * noise(lead + 2.0 + tail, seed=1) / 0.1
    begin, end = audible_part(samples, RATE)
    assert begin / RATE == pytest.approx(lead - KEPT_SECONDS if lead > 1 else 0, abs=0.02)
    last = lead + 2.0 + (KEPT_SECONDS if tail > 1 else tail)
    assert end / RATE == pytest.approx(last, abs=0.02)


@pytest.mark.parametrize(
    "parts",
    [
        [0.0, 3.0],  # silence
        [1.0, 3.0],  # noise throughout
        [1.0, 1.0, 0.0, 1.4],  # the end is not long enough
        [100.0, 0.1, 0.0, 1.4, 1.0, 5.0],  # soft speech behind a click
        [1.0, 2.0, 0.2, 3.0],  # a sentence that is spoken lower
    ],
)
def test_what_may_be_heard_stays(parts: list[float]) -> None:
    samples = np.concatenate(
        [
            level * noise(seconds, seed=at)
            for at, (level, seconds) in enumerate(zip(parts[::2], parts[1::2], strict=True))
        ]
    )
    assert audible_part(samples, RATE) == (0, len(samples))


def test_less_than_a_frame_stays() -> None:
    assert audible_part(np.zeros(0, dtype=np.float32), RATE) == (0, 0)
    assert audible_part(noise(0.01), RATE) == (0, 160)

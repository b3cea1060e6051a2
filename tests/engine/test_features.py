"""Incremental log-mel against the processor's features of the whole clip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.miniature import clip, feature_extractor, tokenizer
from tinyvoice.engine.features import LEAST_MAXIMUM, IncrementalLogMel, LogMelFrames, normalise
from tinyvoice.model.processing import DYNAMIC_RANGE, ASRProcessor


@pytest.fixture(scope="module", params=[160, 320], ids=["hop160", "hop320"])
def processor(request: pytest.FixtureRequest) -> ASRProcessor:
    extractor = feature_extractor()
    extractor.hop_length = request.param
    return ASRProcessor(extractor, tokenizer())


def loud_first(samples: np.ndarray) -> np.ndarray:
    """The clip with a click at its start, so that its first frame is its loudest."""
    samples = samples.copy()
    samples[:40] = 0.9
    return samples


def feed(log_mel: IncrementalLogMel, packets: Iterable[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Normalised final frames of all packets, and the last provisional ones."""
    state = log_mel.new_state()
    final = []
    for packet in packets:
        (state,), (frames,) = log_mel.advance([state], [packet])
        final.append(frames.normalised()[: frames.final])
        tail = frames.normalised()[frames.final :]
    return torch.cat(final), tail


def whole(log_mel: IncrementalLogMel, samples: np.ndarray) -> LogMelFrames:
    return log_mel.advance([log_mel.new_state()], [samples])[1][0]


def cut(samples: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    return np.split(samples, np.cumsum(sizes))


def test_frames_are_the_offline_ones_when_the_loudest_comes_first(processor: ASRProcessor) -> None:
    samples = loud_first(clip(3.0))
    expected, _ = processor.features([samples])
    packets = cut(samples, [3, 1, 296, 600, 1, 4099, 25000, 17990])
    final, tail = feed(IncrementalLogMel(processor), packets)
    torch.testing.assert_close(torch.cat((final, tail)).T, expected[0], atol=3e-5, rtol=0)


@pytest.mark.parametrize("length", [1, 199, 200, 201, 319, 320, 359, 360, 399, 400, 401, 521, 800])
def test_a_clip_of_any_length_has_its_offline_frames(processor: ASRProcessor, length: int) -> None:
    samples = clip(0.1)[:length]
    expected, _ = processor.features([samples])
    frames = whole(IncrementalLogMel(processor), samples)
    given = normalise(frames.log_mel, float(frames.log_mel.max()))
    torch.testing.assert_close(given.T, expected[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_final_frames_do_not_depend_on_the_packets(processor: ASRProcessor, seed: int) -> None:
    random = np.random.default_rng(seed)
    samples = clip(2.0, seed) * np.linspace(0.01, 1, 32000, dtype=np.float32)
    log_mel = IncrementalLogMel(processor)
    expected = whole(log_mel, samples)
    sizes = random.choice([0, 1, 7, 160, 320, 401, 5000], size=60)
    final, tail = feed(log_mel, cut(samples, sizes.tolist()))
    assert len(final) == expected.final
    torch.testing.assert_close(torch.cat((final, tail)), expected.normalised(), atol=1e-5, rtol=0)


def test_the_tail_is_that_of_a_clip_ending_here(processor: ASRProcessor) -> None:
    samples = loud_first(clip(0.5))
    log_mel = IncrementalLogMel(processor)
    state, final, heard = log_mel.new_state(), [], 0
    for packet in cut(samples, [500] * 15):
        heard += len(packet)
        (state,), (frames,) = log_mel.advance([state], [packet])
        final.append(frames.normalised()[: frames.final])
        expected, _ = processor.features([samples[:heard]])
        given = torch.cat((*final, frames.normalised()[frames.final :]))
        torch.testing.assert_close(given.T, expected[0], atol=1e-5, rtol=0)


def test_streams_of_different_age_are_independent(processor: ASRProcessor) -> None:
    log_mel = IncrementalLogMel(processor)
    clips = [clip(seconds, seed) for seed, seconds in enumerate((0.01, 0.3, 1.0))]
    clips.append(np.zeros(0, np.float32))
    states = [log_mel.new_state() for _ in clips]
    states[2:3], first = log_mel.advance([states[2]], [clips[2][:9000]])
    rests = [clips[0], clips[1], clips[2][9000:], clips[3]]
    _, together = log_mel.advance(states, rests)
    for index, frames in enumerate(together):
        alone = whole(log_mel, clips[index])
        mine = frames.normalised()
        if index == 2:
            mine = torch.cat((first[0].normalised()[: first[0].final], mine))
        torch.testing.assert_close(mine, alone.normalised(), atol=1e-5, rtol=0)
    assert len(together[3].log_mel) == 0


def test_a_frame_is_clamped_to_the_loudest_bin_so_far(processor: ASRProcessor) -> None:
    samples = clip(1.0)
    samples[:8000] *= 1e-4
    frames = whole(IncrementalLogMel(processor), samples)
    loudest = frames.log_mel.amax(dim=1).cummax(dim=0).values.clamp_min(LEAST_MAXIMUM)
    assert loudest[0] == LEAST_MAXIMUM < loudest[-1]
    lowest = (loudest - DYNAMIC_RANGE + 4) / 4
    assert bool((frames.normalised() >= lowest[:, None] - 1e-6).all())
    expected, _ = processor.features([samples])
    at = int(frames.log_mel.amax(dim=1).argmax())
    torch.testing.assert_close(frames.normalised()[at:].T, expected[0, :, at:], atol=1e-5, rtol=0)


def test_a_state_holds_less_than_a_window_and_a_hop_at_any_age(processor: ASRProcessor) -> None:
    log_mel = IncrementalLogMel(processor)
    state, held = log_mel.new_state(), []
    for packet in cut(clip(5.0), [777] * 102):
        (state,), _ = log_mel.advance([state], [packet])
        held.append(len(state.pending))
    extractor = processor.feature_extractor
    assert max(held) < extractor.n_fft + extractor.hop_length
    assert state.samples == 80_000

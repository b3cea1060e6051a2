"""Incremental encoders against the offline encoder over the whole clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import tinyvoice
from tests.miniature import clip, random_model
from tinyvoice.engine.encoders import (
    BlockCacheEncoder,
    FrozenWindowEncoder,
    IncrementalEncoder,
    build_encoder,
)
from tinyvoice.engine.features import IncrementalLogMel
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.modeling import ASRModel

RATE = 16_000
# The embedded encoder's frame and the projector's group of three.
FRAME = 640
GROUP = 3

Packets = Sequence[np.ndarray]


@pytest.fixture(scope="module")
def model() -> ASRModel:
    return ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    path = Path(tinyvoice.__file__).parent / "cli" / "demo.flac"
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    return samples


def stream(encoder: IncrementalEncoder, clips: Sequence[Packets]) -> list[tuple[Tensor, Tensor]]:
    """Frozen embeddings and last tail of clips whose packets are fed together, turn by turn."""
    states = [encoder.new_state() for _ in clips]
    frozen: list[list[Tensor]] = [[] for _ in clips]
    tails: dict[int, Tensor] = {}
    for turn in range(max(map(len, clips))):
        present = [i for i, packets in enumerate(clips) if turn < len(packets)]
        results = encoder.advance([states[i] for i in present], [clips[i][turn] for i in present])
        for i, result in zip(present, results, strict=True):
            frozen[i].append(result.frozen)
            tails[i] = result.tail
            assert states[i].tokens == sum(map(len, frozen[i]))
    return [(torch.cat(frozen[i]), tails[i]) for i in range(len(clips))]


def cut(samples: np.ndarray, size: int) -> Packets:
    return np.split(samples, range(size, len(samples), size))


def cut_at_random(samples: np.ndarray, seed: int) -> Packets:
    random = np.random.default_rng(seed)
    sizes = random.choice([0, 1, 500, 1600, 5120, 23000], size=200).cumsum()
    return np.split(samples, sizes[sizes < len(samples)])


@torch.inference_mode()
def offline(model: ASRModel, samples: np.ndarray, block_frames: int | None) -> Tensor:
    """The embeddings of a whole clip, from the features that a stream of it has."""
    log_mel = IncrementalLogMel(model.need_processor())
    _, (frames,) = log_mel.advance([log_mel.new_state()], [samples])
    hidden, lengths = model.encode(frames.normalised().T[None], None, block_frames)
    embeds, counts = model.project(hidden, lengths)
    return embeds[0, : int(counts[0])]


def assert_same(given: tuple[Tensor, Tensor] | Tensor, expected: Tensor) -> None:
    together = given if isinstance(given, Tensor) else torch.cat(given)
    torch.testing.assert_close(together, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("block_frames", [24, 12, 8, 7, 1])
def test_blocks_give_what_the_chunk_mask_gives(
    model: ASRModel, speech: np.ndarray, block_frames: int
) -> None:
    encoder = BlockCacheEncoder(model, block_frames)
    (given,) = stream(encoder, [cut(speech, 5120)])
    assert_same(given, offline(model, speech, block_frames))
    blocks = len(speech) // FRAME // block_frames
    assert len(given[0]) >= (blocks - 1) * block_frames // GROUP


@pytest.mark.parametrize("seed", range(3))
def test_blocks_do_not_depend_on_packets_nor_on_other_streams(
    model: ASRModel, speech: np.ndarray, seed: int
) -> None:
    twice = np.concatenate((speech, speech))
    clips = [speech, speech[20_000:], twice[30_000:], speech[:333]]
    encoder = BlockCacheEncoder(model, block_frames=8)
    given = stream(encoder, [cut_at_random(c, seed + i) for i, c in enumerate(clips)])
    for result, samples in zip(given, clips, strict=True):
        assert_same(result, offline(model, samples, 8))


def test_an_utterance_outgrows_the_first_cache(model: ASRModel, speech: np.ndarray) -> None:
    long = np.tile(speech, 4)[: 14 * RATE]
    encoder = BlockCacheEncoder(model, block_frames=12)
    packets = [long[: 4 * RATE], long[4 * RATE : 6 * RATE], long[6 * RATE :]]
    (given,) = stream(encoder, [packets])
    assert_same(given, offline(model, long, 12))


@pytest.mark.parametrize(
    ("kind", "hop"), [("mlp", 160), ("mlp", 320), ("mosa", 160), ("moe", 160), ("qformer", 160)]
)
def test_every_tail_of_blocks_is_that_of_a_clip_ending_here(kind: str, hop: int) -> None:
    model = random_model(kind)
    model.need_processor().feature_extractor.hop_length = hop
    samples = clip(0.9)
    encoder = BlockCacheEncoder(model, block_frames=5)
    state, heard = encoder.new_state(), 0
    frozen = encoder.advance([state], [samples[:0]])[0].frozen
    for packet in cut(samples, 1777):
        heard += len(packet)
        (result,) = encoder.advance([state], [packet])
        frozen = torch.cat((frozen, result.frozen))
        assert_same((frozen, result.tail), offline(model, samples[:heard], 5))
    assert len(frozen) > 0


@pytest.mark.parametrize("hop", [160, 320])
def test_every_tail_of_a_window_reaches_the_live_edge(hop: int) -> None:
    model = random_model()
    model.need_processor().feature_extractor.hop_length = hop
    samples = clip(0.9)
    encoder = FrozenWindowEncoder(model, left_s=1, right_s=0.2)
    state, heard = encoder.new_state(), 0
    for packet in cut(samples, 1111):
        heard += len(packet)
        (result,) = encoder.advance([state], [packet])
        assert state.tokens + len(result.tail) == len(offline(model, samples[:heard], None))
    assert state.tokens > 0


def test_a_window_that_holds_all_of_it_gives_the_offline_embeddings(
    model: ASRModel, speech: np.ndarray
) -> None:
    encoder = FrozenWindowEncoder(model, left_s=1, right_s=60)
    (given,) = stream(encoder, [cut(speech, 5120)])
    features, _ = model.need_processor().features([speech])
    with torch.inference_mode():
        embeds, _ = model.project(*model.encode(features))
    assert len(given[0]) == 0
    assert_same(given, embeds[0])


def test_a_window_freezes_what_has_its_right_context(model: ASRModel, speech: np.ndarray) -> None:
    encoder = FrozenWindowEncoder(model, left_s=1.0, right_s=0.4)
    state, heard = encoder.new_state(), 0
    for packet in cut(speech, 7777):
        heard += len(packet)
        encoder.advance([state], [packet])
        frames = heard // FRAME
        assert max(0, frames - 10) <= state.frames <= max(0, frames - 9)
        assert len(state.mel) <= 2 * (25 + 16 + 10 + 2)


def test_windows_are_the_encoder_over_those_seconds(model: ASRModel, speech: np.ndarray) -> None:
    """Frame by frame what the window's part of the clip gives when it is encoded alone."""
    encoder = FrozenWindowEncoder(model, left_s=1.0, right_s=0.4)
    state = encoder.new_state()
    start, end = 40 * FRAME, (40 + 25 + 16 + 10) * FRAME
    encoder.advance([state], [speech[: end - 15 * FRAME]])
    before = state.frames
    (result,) = encoder.advance([state], [speech[end - 15 * FRAME : end]])
    features, _ = model.need_processor().features([speech[:end]])
    with torch.inference_mode():
        hidden, _ = model.encode(features[:, :, start // 320 :])
        first = -(-before // GROUP) * GROUP
        expected, _ = model.project(hidden[:, first - 40 :], torch.tensor([91 - first]))
    tokens = torch.cat((result.frozen, result.tail))
    assert_same(tokens[-expected.shape[1] :], expected[0])


@pytest.mark.parametrize("seed", range(2))
def test_windows_do_not_depend_on_other_streams(
    model: ASRModel, speech: np.ndarray, seed: int
) -> None:
    twice = np.concatenate((speech, speech))
    chosen = (speech[:50_000], speech[40_000:], twice[-90_000:], speech[:333])
    clips = [cut_at_random(samples, seed) for samples in chosen]
    encoder = FrozenWindowEncoder(model, left_s=1.0, right_s=0.4)
    for together, packets in zip(stream(encoder, clips), clips, strict=True):
        (alone,) = stream(encoder, [packets])
        assert len(together[0]) == len(alone[0])
        assert_same(together, torch.cat(alone))


@pytest.mark.parametrize("form", ["block", "window"])
def test_less_than_a_frame_changes_nothing(model: ASRModel, speech: np.ndarray, form: str) -> None:
    encoder = build_encoder(model, form)  # type: ignore[arg-type]
    state = encoder.new_state()
    (before,) = encoder.advance([state], [speech[:32_000]])
    for packet in (speech[:0], speech[32_000:32_100]):
        (after,) = encoder.advance([state], [packet])
        assert len(after.frozen) == 0
        assert torch.equal(after.tail, before.tail)
    assert state.samples == 32_100


@pytest.mark.parametrize("form", ["block", "window"])
def test_a_failed_update_can_be_made_again(model: ASRModel, speech: np.ndarray, form: str) -> None:
    encoder = build_encoder(model, form)  # type: ignore[arg-type]
    states = [encoder.new_state(), encoder.new_state()]
    encoder.advance(states, [speech[:20_000], speech[5_000:30_000]])
    broken = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="dimension"):
        encoder.advance(states, [speech[20_000:40_000], broken])
    again = encoder.advance(states, [speech[20_000:40_000], speech[:0]])
    alone = encoder.new_state()
    encoder.advance([alone], [speech[:20_000]])
    (expected,) = encoder.advance([alone], [speech[20_000:40_000]])
    assert_same((again[0].frozen, again[0].tail), torch.cat((expected.frozen, expected.tail)))


@pytest.mark.parametrize("form", ["block", "window"])
def test_embeddings_have_the_models_precision(speech: np.ndarray, form: str) -> None:
    model = random_model().double()
    encoder = build_encoder(model, form)  # type: ignore[arg-type]
    (result,) = encoder.advance([encoder.new_state()], [speech[:20_000]])
    assert result.frozen.dtype == result.tail.dtype == torch.float64
    assert len(result.frozen) > 0


def test_the_checkpoint_says_which_form_it_takes(model: ASRModel) -> None:
    assert isinstance(build_encoder(model), BlockCacheEncoder)
    assert isinstance(build_encoder(random_model()), FrozenWindowEncoder)
    assert isinstance(build_encoder(model, "window"), FrozenWindowEncoder)
    assert isinstance(build_encoder(random_model(), "block"), BlockCacheEncoder)


def test_settings_that_cannot_work_are_refused(model: ASRModel) -> None:
    with pytest.raises(ConfigurationError, match="block_frames is 0"):
        BlockCacheEncoder(model, block_frames=0)
    with pytest.raises(ConfigurationError, match="left_s is -1"):
        FrozenWindowEncoder(model, left_s=-1)
    with pytest.raises(ConfigurationError, match="right_s is nan"):
        FrozenWindowEncoder(model, right_s=float("nan"))
    with pytest.raises(ConfigurationError, match="choose auto, block or window"):
        build_encoder(model, "both")  # type: ignore[arg-type]

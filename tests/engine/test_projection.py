"""Incremental projection against the projector over the whole clip, for every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.miniature import ENCODER_DIM, LLM_DIM, PROJECTOR_TYPES, random_model
from tinyvoice.engine.projection import IncrementalProjection
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.modeling import ASRModel


def frames(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, ENCODER_DIM, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def whole(model: ASRModel, hidden: Tensor) -> Tensor:
    embeds, counts = model.project(hidden[None], torch.tensor([len(hidden)]))
    return embeds[0, : int(counts[0])]


@pytest.mark.parametrize("kind", PROJECTOR_TYPES)
@torch.inference_mode()
def test_every_update_gives_what_the_whole_clip_so_far_gives(kind: str) -> None:
    model = random_model(kind)
    projection = IncrementalProjection(model)
    random = np.random.default_rng(3)
    clips = [frames(70, seed) for seed in range(3)]
    states = [projection.new_state() for _ in clips]
    final, frozen = [0, 0, 0], [projection.no_embeddings() for _ in clips]
    while min(final) < 60:
        steps = random.choice([0, 1, 2, 5, 17], size=3)
        ends = [min(at + int(step), 65) for at, step in zip(final, steps, strict=True)]
        edges = [min(end + int(random.integers(0, 20)), 70) for end in ends]
        states, results = projection.advance(
            states,
            [hidden[at:end] for hidden, at, end in zip(clips, final, ends, strict=True)],
            [hidden[end:edge] for hidden, end, edge in zip(clips, ends, edges, strict=True)],
        )
        final = ends
        for index, result in enumerate(results):
            frozen[index] = torch.cat((frozen[index], result.frozen))
            given = torch.cat((frozen[index], result.tail))
            expected = whole(model, clips[index][: edges[index]])
            torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)
    assert min(map(len, frozen)) >= 12


@pytest.mark.parametrize("kind", PROJECTOR_TYPES)
@torch.inference_mode()
def test_nothing_gives_nothing(kind: str) -> None:
    projection = IncrementalProjection(random_model(kind))
    (state,), (result,) = projection.advance([projection.new_state()], [frames(0)], [frames(0)])
    assert result.frozen.shape == result.tail.shape == (0, LLM_DIM)
    assert len(state.frames) == 0


@pytest.mark.parametrize("kind", PROJECTOR_TYPES)
@torch.inference_mode()
def test_a_state_holds_less_than_its_groups(kind: str) -> None:
    model = random_model(kind)
    projection = IncrementalProjection(model)
    state = projection.new_state()
    for _ in range(40):
        (state,), _ = projection.advance([state], [frames(5)], [frames(3)])
        groups = 1 + model.projector.context_groups
        assert len(state.frames) < groups * (model.projector.group_frames or 0)


def test_a_projector_of_whole_clips_is_refused() -> None:
    model = random_model()
    model.projector = nn.Linear(ENCODER_DIM, LLM_DIM)  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="group_frames"):
        IncrementalProjection(model)

"""The direct decoder against transformers' forward: same hidden states, same cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from tests.miniature import LLM_DIM, qwen3_config, scatter_weights
from tinyvoice.model.decoder import Decoder, new_cache, runs_directly


def language_model(**changes: Any) -> Any:
    config = qwen3_config(100)
    for key, value in changes.items():
        setattr(config, key, value)
    config._attn_implementation = "sdpa"
    built = Qwen3ForCausalLM(config)
    scatter_weights(built, seed=3)
    return built.eval()


def embeds(batch: int, tokens: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, tokens, LLM_DIM, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("steps", [(12,), (12, 1, 1), (12, 4), (1, 1), (3, 5, 1)])
def test_hidden_states_and_scores_are_those_of_transformers(
    steps: tuple[int, ...], packed: bool
) -> None:
    model = language_model()
    decoder = Decoder(model, 64, packed=packed)
    ours: Any = new_cache(model)
    theirs: Any = new_cache(model)
    past = 0
    for tokens in steps:
        inputs = embeds(2, tokens, seed=past)
        positions = torch.arange(past, past + tokens)[None]
        expected = model.model(
            inputs_embeds=inputs, past_key_values=theirs, use_cache=True
        ).last_hidden_state
        hidden = decoder(inputs, positions, ours)
        torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-4)
        scores = decoder.logits(hidden)
        torch.testing.assert_close(scores, model.lm_head(expected), atol=1e-5, rtol=1e-4)
        past += tokens
    assert ours.get_seq_length() == theirs.get_seq_length() == past
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        torch.testing.assert_close(mine.keys, other.keys, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(mine.values, other.values, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_left_padded_rows_are_what_they_are_alone() -> None:
    model = language_model()
    decoder, cache = Decoder(model, 64), new_cache(model)
    inputs, padding = embeds(3, 10), [0, 3, 7]
    visible = torch.ones(3, 10, dtype=torch.bool)
    for row, count in enumerate(padding):
        visible[row, :count] = False
    positions = (visible.cumsum(-1) - 1).clamp_min(0)
    together = [decoder(inputs, positions, cache, visible)]
    step = embeds(3, 1, seed=9)
    visible = torch.cat([visible, torch.ones(3, 1, dtype=torch.bool)], dim=1)
    together.append(decoder(step, positions[:, -1:] + 1, cache, visible))
    for row, count in enumerate(padding):
        own = new_cache(model)
        alone = decoder(inputs[row : row + 1, count:], torch.arange(10 - count)[None], own)
        torch.testing.assert_close(together[0][row, count:], alone[0], atol=1e-5, rtol=1e-4)
        alone = decoder(step[row : row + 1], torch.tensor([[10 - count]]), own)
        torch.testing.assert_close(together[1][row], alone[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_cropped_cache_goes_on_from_there() -> None:
    model = language_model()
    decoder, cache = Decoder(model, 64), new_cache(model)
    inputs = embeds(1, 9)
    whole = decoder(inputs, torch.arange(9)[None], cache)
    cache.crop(-4)
    again = decoder(inputs[:, 5:], torch.arange(5, 9)[None], cache)
    torch.testing.assert_close(again, whole[:, 5:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close(dtype: torch.dtype) -> None:
    model = language_model().to(dtype)
    inputs = embeds(1, 8).to(dtype)
    ours = Decoder(model, 16)(inputs, torch.arange(8)[None], new_cache(model))
    expected = model.model(inputs_embeds=inputs).last_hidden_state
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, expected, atol=0.1, rtol=0.05)


@torch.no_grad()
def test_rescaled_rotary_angles_go_through_transformers() -> None:
    rope = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
    model = language_model(rope_parameters=rope)
    assert not runs_directly(model)
    assert runs_directly(language_model())
    inputs = embeds(1, 6)
    ours = Decoder(model, 16)(inputs, torch.arange(6)[None], new_cache(model))
    torch.testing.assert_close(ours, model.model(inputs_embeds=inputs).last_hidden_state)


def test_sliding_windows_go_through_transformers() -> None:
    assert not runs_directly(language_model(layer_types=["full_attention", "sliding_attention"]))

"""Greedy decoding against transformers' generate, alone and in padded batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, Qwen3ForCausalLM

from tests.miniature import LLM_DIM, qwen3_config, scatter_weights
from tinyvoice.model.generation import (
    GeneratedTokens,
    PromptTemplate,
    greedy_decode,
    greedy_steps,
    score,
    search_decode,
)

VOCABULARY = 60


@pytest.fixture(scope="module")
def language_model() -> Any:
    built = Qwen3ForCausalLM(qwen3_config(VOCABULARY))
    scatter_weights(built, seed=11)
    return built.eval()


def prompts(*lengths: int) -> tuple[Tensor, Tensor]:
    """Left-padded prompt embeddings and their mask."""
    generator = torch.Generator().manual_seed(2)
    embeds = torch.randn(len(lengths), max(lengths), LLM_DIM, generator=generator)
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, max(lengths) - length :] = 1
    return embeds * mask[..., None], mask


def by_transformers(language_model: Any, prompt: Tensor, stops: list[int], count: int) -> list[int]:
    config = GenerationConfig(
        max_new_tokens=count, do_sample=False, eos_token_id=stops or None, pad_token_id=0
    )
    ids = language_model.generate(
        inputs_embeds=prompt,
        attention_mask=torch.ones(prompt.shape[:2], dtype=torch.long),
        generation_config=config,
    )[0].tolist()
    return ids[:-1] if stops and ids[-1] in stops else ids


@pytest.mark.parametrize("stops", [(), (7,), (3, 7, 20, 33, 41)])
def test_tokens_are_those_of_generate(language_model: Any, stops: tuple[int, ...]) -> None:
    embeds, mask = prompts(20, 13, 5, 1)
    outputs = greedy_decode(language_model, embeds, mask, stop_token_ids=stops, max_new_tokens=15)
    for row, output in enumerate(outputs):
        alone = embeds[row : row + 1, -int(mask[row].sum()) :]
        assert output.ids == by_transformers(language_model, alone, list(stops), 15)


def test_a_row_that_stops_early_leaves_the_others_alone(language_model: Any) -> None:
    embeds, mask = prompts(12, 12, 9, 4)
    free = greedy_decode(language_model, embeds, mask, stop_token_ids=(), max_new_tokens=10)
    # Stop at what the first row says third: the rows then end at different steps.
    stop = free[0].ids[2]
    stopped = greedy_decode(language_model, embeds, mask, stop_token_ids=(stop,), max_new_tokens=10)
    for output, whole in zip(stopped, free, strict=True):
        end = whole.ids.index(stop) if stop in whole.ids else len(whole.ids)
        assert output.ids == whole.ids[:end]
        torch.testing.assert_close(
            torch.tensor(output.logprobs), torch.tensor(whole.logprobs[:end]), atol=1e-5, rtol=1e-4
        )
    assert len({len(output.ids) for output in stopped}) > 1


def test_log_probabilities_are_the_models(language_model: Any) -> None:
    embeds, mask = prompts(9)
    (output,) = greedy_decode(language_model, embeds, mask, stop_token_ids=(), max_new_tokens=8)
    assert len(output.logprobs) == 8
    assert output.logprobs == pytest.approx(score(language_model, embeds, output.ids), abs=1e-4)
    assert all(logprob <= 0 for logprob in output.logprobs)


def test_steps_come_one_by_one(language_model: Any) -> None:
    embeds, mask = prompts(9)
    steps = greedy_steps(language_model, embeds, mask, stop_token_ids=(), max_new_tokens=5)
    with torch.inference_mode():
        rows, ids, logprobs = next(steps)
    assert (rows, len(ids), len(logprobs)) == ([0], 1, 1)


def test_beams_are_those_of_generate(language_model: Any) -> None:
    embeds, mask = prompts(9, 6)
    ids = torch.full(mask.shape, 5)
    outputs = search_decode(
        language_model, embeds, mask, ids, stop_token_ids=(7,), max_new_tokens=6, num_beams=3
    )
    config = GenerationConfig(max_new_tokens=6, num_beams=3, eos_token_id=[7], pad_token_id=7)
    expected = language_model.generate(
        inputs_embeds=embeds[1:, -6:],
        attention_mask=mask[1:, -6:],
        generation_config=config,
    )[0].tolist()
    assert outputs[1].ids == expected[: expected.index(7) if 7 in expected else None]
    assert len(outputs[1].logprobs) == len(outputs[1].ids)


def test_penalties_count_the_prompts_tokens(language_model: Any) -> None:
    embeds, mask = prompts(9)
    plain = greedy_decode(language_model, embeds, mask, stop_token_ids=(), max_new_tokens=1)
    first = plain[0].ids[0]
    settings: dict[str, Any] = {
        "stop_token_ids": (),
        "max_new_tokens": 1,
        "repetition_penalty": 1000.0,
    }
    spoken = torch.full(mask.shape, first)
    unspoken = torch.full(mask.shape, (first + 1) % VOCABULARY)
    assert search_decode(language_model, embeds, mask, unspoken, **settings)[0].ids == [first]
    assert search_decode(language_model, embeds, mask, spoken, **settings)[0].ids != [first]


def test_nothing_is_scored_for_nothing(language_model: Any) -> None:
    assert score(language_model, prompts(4)[0], []) == []


def test_prompt_template_splits_around_the_audio() -> None:
    assert PromptTemplate.around(9, [1, 2, 9, 3]) == PromptTemplate((1, 2), (3,))
    assert GeneratedTokens() == GeneratedTokens([], [])

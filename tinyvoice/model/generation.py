"""Greedy decoding over prompt embeddings, for one clip or a left-padded batch.

The loop is written here rather than taken from ``generate`` of transformers because a transcript
of a few words is dominated by that method's set-up. It knows tokens and caches only: no audio, no
text clean-up, no sampling and no beams.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRANSCRIBE_PROMPT = "Transcribe the speech to text"


@dataclass
class GeneratedTokens:
    """One transcript: token ids without the stop token, and each one's natural log-probability."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class PromptTemplate:
    """Token ids before and after the audio tokens; they do not depend on the clip."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    @classmethod
    def from_tokenizer(
        cls, tokenizer: PreTrainedTokenizerBase, system_prompt: str = ""
    ) -> PromptTemplate:
        """Split the chat template's output around a single ``<audio>`` token."""
        messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
        messages.append({"role": "user", "content": f"<audio> {TRANSCRIBE_PROMPT}"})
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        at = ids.index(tokenizer.get_vocab()["<audio>"])
        return cls(tuple(ids[:at]), tuple(ids[at + 1 :]))


@torch.inference_mode()
def greedy_decode(
    language_model: Any,
    prompts: Tensor,
    mask: Tensor,
    *,
    stop_token_ids: tuple[int, ...],
    max_new_tokens: int,
) -> list[GeneratedTokens]:
    """Decode (batch, tokens, M) prompt embeddings, left-padded as (batch, tokens) ``mask`` says.

    Rows that have stopped are carried along but no longer recorded; the loop ends when all have.
    """
    cache = DynamicCache(config=language_model.config)
    decoder, head = language_model.get_decoder(), language_model.get_output_embeddings()
    outputs = [GeneratedTokens() for _ in range(prompts.shape[0])]
    running = list(range(len(outputs)))
    padded = not bool(mask.all())
    lengths = mask.sum(-1)
    inputs: dict[str, Any] = {"inputs_embeds": prompts}
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    for step in range(max_new_tokens):
        state = decoder(
            **inputs,
            attention_mask=mask if padded else None,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        scores = torch.log_softmax(head(state).float(), dim=-1)
        best, tokens = scores.max(dim=-1)
        ids, logprobs = tokens.tolist(), best.tolist()
        for row in list(running):
            if ids[row] in stop_token_ids:
                running.remove(row)
                continue
            outputs[row].ids.append(ids[row])
            outputs[row].logprobs.append(logprobs[row])
        if not running:
            break
        inputs = {"input_ids": tokens[:, None]}
        positions = (lengths + step)[:, None]
        if padded:
            mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], dim=-1)
    return outputs

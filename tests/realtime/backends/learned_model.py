"""A miniature Qwen3 that has learned three conversations by heart, saved as a checkpoint.

Random weights write noise, in which no function call is ever found; a minute part of training
makes the whole path real: template, prompt, generation, tags.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

TEMPLATE = (
    "{%- if tools %}<|im_start|>tools{% for t in tools %}\n{{ t.function.name }}{% endfor %}"
    "<|im_end|>\n{%- endif %}"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{%- for c in m.tool_calls or [] %}\n<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments }}}\n</tool_call>'
    "{%- endfor %}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"
    "{%- if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
"""Like Qwen3's own in form, short enough to learn quickly."""

TOOLS = [{"type": "function", "function": {"name": "get_weather"}}]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
USER = {"role": "user", "content": "hello"}
WEATHER = {"role": "user", "content": "weather in Paris"}
ASKED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}],
}
GREETING = "Hello, größe 🎉 to you."
SUNNY = "It is sunny in Paris."
LEARNED: list[tuple[list[Any], list[Any] | None, str]] = [
    ([USER], None, GREETING),
    ([WEATHER], TOOLS, CALL),
    ([WEATHER, ASKED, {"role": "tool", "content": "sunny"}], TOOLS, SUNNY),
]
STEPS = 220


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with Qwen3's special tokens; like there, those of calls are plain ones."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([CALL, SUNNY, "user assistant tool tools"], trainer)
    bpe.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = TEMPLATE
    return fast


def write_model(folder: Path) -> Path:
    """Teach the conversations and save the checkpoint; a few seconds."""
    torch.manual_seed(0)
    words = tokenizer()
    config = Qwen3Config(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=words.eos_token_id,
    )
    model = Qwen3ForCausalLM(config)
    rows = [_row(words, *lesson) for lesson in LEARNED]
    length = max(len(ids) for ids, _ in rows)
    inputs = torch.full((len(rows), length), words.pad_token_id)
    labels = torch.full((len(rows), length), -100)
    for row, (ids, prompt) in enumerate(rows):
        inputs[row, : len(ids)] = torch.tensor(ids)
        labels[row, prompt : len(ids)] = torch.tensor(ids[prompt:])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(STEPS):
        loss = model(input_ids=inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.03:
            break
    assert loss < 0.1
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _row(
    words: PreTrainedTokenizerFast, messages: list[Any], tools: list[Any] | None, answer: str
) -> tuple[list[int], int]:
    """Token ids, and how many of them are the prompt's."""
    prompt = words.apply_chat_template(
        messages, tools=tools, add_generation_prompt=True, enable_thinking=False, tokenize=False
    )
    prompt_ids = words(prompt, add_special_tokens=False)["input_ids"]
    answer_ids = words(answer + "<|im_end|>", add_special_tokens=False)["input_ids"]
    return prompt_ids + answer_ids, len(prompt_ids)

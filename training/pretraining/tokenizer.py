"""The small byte-level BPE tokenizer of miniature language models.

Every word starts with a blank, the first one too, so that a word has one spelling in tokens
wherever it stands. The chat template is as short as a template can be: on a miniature model the
prompt would otherwise cost more than the speech.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tinyvoice.model.processing import AUDIO_TOKEN, END_OF_TURN, INSTRUCTION

END_OF_TEXT = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message.content + '<|im_end|>' }}"
    "{%- endfor -%}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int = 1500) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE of ``vocabulary`` tokens, special tokens included, from normalised
    texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = [END_OF_TEXT, START_OF_TURN, END_OF_TURN, AUDIO_TOKEN]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The instruction stands in every prompt: repeated here, its words become single tokens.
    texts = [*texts, *[INSTRUCTION] * 2000]
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        additional_special_tokens=special,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast

"""Partial and final transcripts by one decoder pass: draft and verify, batched over streams.

While a person speaks, each update has a little new audio and a hypothesis that mostly stands. So
the keys and values of ``[prompt prefix | frozen audio]`` stay in a slot, and an update runs one
pass over ``[new frozen audio | tail | prompt suffix | draft]``, where the draft is the previous
hypothesis. Greedy decoding's own choice is known at every draft token from that one pass: the
longest prefix it agrees with is accepted, and decoding goes on from there. Nothing behind the
frozen audio is kept. Rows of a batch have different lengths and do not see each other.

(Verifying a draft in parallel: Leviathan et al. 2023, "Fast inference from transformers via
speculative decoding", with the previous hypothesis in the place of a draft model; the result is
greedy decoding's, whatever the draft.)

This module knows embeddings and token ids: no audio, no text, no stability.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tinyvoice.engine.slots import Slot, SlotCache
from tinyvoice.errors import TinyvoiceError
from tinyvoice.model.decoder import Decoder
from tinyvoice.model.encoder import encoder_lengths
from tinyvoice.model.modeling import MAX_NEW_TOKENS, ASRModel

# Longest audio that an encoder of this family takes.
MAX_AUDIO_SECONDS = 30.0

# A partial may have this many tokens, and this many more for each audio embedding (80 to 120 ms of
# audio: 17 to 25 tokens a second, where fast speech has 10). It bounds a loop on noise; finals are
# bounded as offline transcripts are.
PARTIAL_TOKENS = 8
PARTIAL_TOKENS_PER_EMBEDDING = 2

# How far ahead in an old hypothesis the token that replaced another is looked for.
RESYNC_WINDOW = 8


class UtteranceTooLongError(TinyvoiceError):
    """More audio than the decoder has positions for."""


@dataclass
class DecodeJob:
    """One stream's update.

    ``frozen`` (a, M) are embeddings that join the slot for good, ``tail`` (b, M) provisional ones
    behind them. ``draft`` is the hypothesis so far; any token ids do.
    """

    slot: Slot
    frozen: Tensor
    tail: Tensor
    draft: Sequence[int] = ()
    max_new_tokens: int | None = None


@dataclass
class FinalJob:
    """One utterance's final pass: all its embeddings (n, M) and a draft."""

    embeds: Tensor
    draft: Sequence[int] = ()
    max_new_tokens: int | None = None


@dataclass
class Decoded:
    """A greedy transcript.

    ``margins`` are natural log-probability distances of each token to the best other one. Where
    decoding ended with a stop token (and not at the bound), there is one more margin than tokens.
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    stop_logprob: float | None = None
    """Of the stop token; None where the bound ended decoding."""
    accepted: int = 0
    """Tokens that a draft had right."""
    steps: int = 0
    """Decoder passes after the first one."""
    failed: bool = False
    """The model's scores were not numbers. There are no tokens; the slot wants ``reset``."""


class Draft:
    """What is left of an old hypothesis to propose, as the new one departs from it.

    After a token that the draft does not have in its place, the same token is looked for a little
    further on (words dropped) and from the place of departure (words added); else one word is
    taken to have replaced another. A wrong guess costs its place in a pass and no correctness.
    """

    def __init__(self, ids: Sequence[int], stops: Collection[int]) -> None:
        end = next((at for at, token in enumerate(ids) if token in stops), len(ids))
        self.ids = list(ids[:end])
        self._next = 0
        self._departed = 0
        self._proposing = True

    def proposal(self, most: int) -> list[int]:
        """Up to ``most`` tokens that may come next."""
        return self.ids[self._next : self._next + max(0, most)] if self._proposing else []

    def said(self, token: int) -> bool:
        """Take note of the next true token; whether it was the one proposed."""
        proposed = self._proposing and self._next < len(self.ids) and self.ids[self._next] == token
        if proposed:
            self._next += 1
            self._departed = self._next
            return True
        window = self.ids[self._departed : self._departed + RESYNC_WINDOW]
        if token in window:
            self._next = self._departed = self._departed + window.index(token) + 1
            self._proposing = True
        elif self._proposing and self._departed == self._next:
            self._next += 1  # taken for a replacement, once
        else:
            self._proposing = False
        return False


class Row:
    """A transcript in the making."""

    def __init__(self, slot: Slot, start: int, draft: Draft, limit: int) -> None:
        self.slot = slot
        self.at = start
        """The position of the row's next input."""
        self.draft = draft
        self.limit = limit
        self.inputs: list[int] = []
        """Tokens of the next pass: the last one decoded, if any, and what the draft proposes."""
        self.proposed = 0
        self.decoded = Decoded()
        self.running = True
        self.propose()

    def propose(self, last: int | None = None) -> None:
        """Set the next pass's inputs."""
        # The bound's last token needs no input of its own.
        proposal = self.draft.proposal(self.limit - len(self.decoded.ids) - 1)
        self.inputs = proposal if last is None else [last, *proposal]
        self.proposed = len(proposal)

    def take(self, fed: int, choices: Sequence[Choice], stops: Collection[int]) -> None:
        """Accept what a pass over ``fed`` inputs chose after each of the proposed tokens."""
        out = self.decoded
        accepted, token = 0, -1
        for choice in choices:
            if math.isnan(choice.margin):
                self.decoded, self.running = Decoded(failed=True), False
                return
            token = choice.token
            out.margins.append(choice.margin)
            if token in stops:
                out.stop_logprob = choice.logprob
                self.running = False
                break
            out.ids.append(token)
            out.logprobs.append(choice.logprob)
            if len(out.ids) >= self.limit:
                self.running = False
                break
            if not self.draft.said(token) or accepted == self.proposed:
                break
            accepted += 1
        out.accepted += accepted
        self.at += fed - self.proposed + accepted
        if self.running:
            self.propose(token)


@dataclass(frozen=True, slots=True)
class Choice:
    """Greedy decoding's choice after some token."""

    token: int
    logprob: float
    margin: float


class RollingDecoder:
    """Decodes growing utterances of many streams; see the module docstring.

    Args:
        model: an :class:`ASRModel` with its processor; its weights must not change afterwards.
        max_positions: prompt, audio and transcript together; None is enough for 30 s of audio and
            the transcript that the configuration allows.
        max_slots: bound on streams. A slot takes ``slot_bytes``.

    A slot belongs to one stream; jobs of a batch must be of different slots. Where an update
    raises, the slots are as they were before.
    """

    def __init__(
        self, model: ASRModel, max_positions: int | None = None, max_slots: int = 1024
    ) -> None:
        self.model = model
        self.stops = frozenset(model.stop_token_ids)
        self.max_new_tokens = model.config.max_new_tokens or MAX_NEW_TOKENS
        template = model.prompt_template
        device = model.device
        embed = model.get_input_embeddings()
        with torch.inference_mode():
            prefix = embed(torch.tensor(template.prefix, dtype=torch.long, device=device))
            self.suffix = embed(torch.tensor(template.suffix, dtype=torch.long, device=device))
        self.prefix_tokens = prefix.shape[0]
        overhead = self.prefix_tokens + self.suffix.shape[0] + self.max_new_tokens
        if max_positions is None:
            max_positions = overhead + longest_audio(model)
        self.max_audio = max_positions - overhead
        """Audio embeddings that an utterance may have."""
        self.decoder = Decoder(model.language_model, max_positions + 1)
        config = model.language_model.config
        shape: dict[str, Any] = {
            "layers": config.num_hidden_layers,
            "kv_heads": config.num_key_value_heads,
            "head_dim": getattr(config, "head_dim", None)
            or config.hidden_size // config.num_attention_heads,
            "positions": max_positions,
            "device": device,
            "dtype": self.suffix.dtype,
        }
        self.cache = SlotCache(max_slots=max_slots, **shape)
        # Finals run beside the streams' slots: their keys are needed for one call only.
        self.workspace = SlotCache(max_slots=max_slots, **shape)
        self._prefix_keys, self._prefix_values = self._encode_prefix(prefix)

    @property
    def slot_bytes(self) -> int:
        """Memory of one slot."""
        return 2 * self.cache.keys[:, 0].numel() * self.cache.keys.element_size()

    def open(self) -> Slot:
        """A slot for a stream, ready for an utterance; raises ``NoFreeSlotError``."""
        return self._open_in(self.cache)

    def reset(self, slot: Slot) -> None:
        """Forget the slot's audio: a new utterance begins."""
        slot.length = self.prefix_tokens
        self.cache.wipe(slot)

    def close(self, slot: Slot) -> None:
        """Give a slot back; closing twice does nothing."""
        self.cache.close(slot)

    def frozen(self, slot: Slot) -> int:
        """Audio embeddings that the slot holds."""
        return slot.length - self.prefix_tokens

    @torch.inference_mode()
    def update(self, jobs: Sequence[DecodeJob]) -> list[Decoded]:
        """Hypotheses of the jobs' streams after their new audio, in the jobs' order.

        Raises :class:`UtteranceTooLongError` before anything is run.
        """
        rows, audio = [], []
        for job in jobs:
            length = self.frozen(job.slot) + job.frozen.shape[0] + job.tail.shape[0]
            self._check(length)
            limit = min(
                job.max_new_tokens or self.max_new_tokens,
                self.max_new_tokens,
                PARTIAL_TOKENS + PARTIAL_TOKENS_PER_EMBEDDING * length,
            )
            rows.append(Row(job.slot, job.slot.length, Draft(job.draft, self.stops), limit))
            audio.append((job.frozen, job.tail))
        heard = [at for at, row in enumerate(rows) if self._length(row, audio[at])]
        self._run(self.cache, [rows[at] for at in heard], [audio[at] for at in heard])
        for job, row in zip(jobs, rows, strict=True):
            job.slot.length += job.frozen.shape[0]
            if row.decoded.failed:
                self.cache.wipe(job.slot)
        return [row.decoded for row in rows]

    @torch.inference_mode()
    def decode_finals(self, jobs: Sequence[FinalJob]) -> list[Decoded]:
        """Transcripts of whole utterances: the tokens of ``model.decode``, whatever the draft.

        Raises :class:`UtteranceTooLongError` before anything is run.
        """
        for job in jobs:
            self._check(job.embeds.shape[0])
        slots = [self._open_in(self.workspace) for _ in jobs]
        try:
            rows = [
                Row(
                    slot,
                    slot.length,
                    Draft(job.draft, self.stops),
                    min(job.max_new_tokens or self.max_new_tokens, self.max_new_tokens),
                )
                for slot, job in zip(slots, jobs, strict=True)
            ]
            heard = [at for at, job in enumerate(jobs) if job.embeds.shape[0]]
            self._run(
                self.workspace, [rows[at] for at in heard], [(jobs[at].embeds,) for at in heard]
            )
        finally:
            for slot in reversed(slots):
                self.workspace.close(slot)
        return [row.decoded for row in rows]

    def _run(
        self, cache: SlotCache, rows: Sequence[Row], audio: Sequence[tuple[Tensor, ...]]
    ) -> None:
        """Decode the rows: a pass over audio, suffix and drafts, then until all have ended."""
        first = True
        while rows:
            tokens = self._embed([row.inputs for row in rows])
            inputs = (
                [
                    torch.cat([*(part.to(self.suffix) for part in parts), self.suffix, *ids])
                    for parts, ids in zip(audio, tokens, strict=True)
                ]
                if first
                else [ids[0] for ids in tokens]
            )
            self._pass(cache, rows, inputs)
            if not first:
                for row in rows:
                    row.decoded.steps += 1
            first = False
            rows = [row for row in rows if row.running]

    def _embed(self, tokens: Sequence[Sequence[int]]) -> list[tuple[Tensor, ...]]:
        """Embeddings of each row's tokens, looked up together; nothing for a row without any."""
        flat = [token for row in tokens for token in row]
        if not flat:
            return [() for _ in tokens]
        embeds = self.decoder.embed(torch.tensor(flat, device=self.suffix.device))
        return [
            (part,) if part.shape[0] else () for part in embeds.split([len(row) for row in tokens])
        ]

    def _pass(self, cache: SlotCache, rows: Sequence[Row], inputs: Sequence[Tensor]) -> None:
        """One decoder pass over each row's (tokens, M) inputs, right-padded."""
        fed = [part.shape[0] for part in inputs]
        longest = max(fed)
        batch = cache.rows([row.slot for row in rows], [row.at for row in rows], longest)
        embeds = inputs[0][None] if len(inputs) == 1 else pad(inputs, longest)
        hidden = self.decoder.attend(embeds, batch.positions, batch, batch.mask)
        # Only what follows the prompt and the proposed tokens is scored, never audio.
        places = [
            index * longest + count - 1 - row.proposed + offset
            for index, (row, count) in enumerate(zip(rows, fed, strict=True))
            for offset in range(row.proposed + 1)
        ]
        scored = hidden.flatten(0, 1)
        if len(places) < scored.shape[0]:
            scored = scored[torch.tensor(places, device=scored.device)]
        choices = choose(self.decoder.logits(scored))
        at = 0
        for row, count in zip(rows, fed, strict=True):
            scores = row.proposed + 1
            row.take(count, choices[at : at + scores], self.stops)
            at += scores

    def _encode_prefix(self, prefix: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (layers, kv heads, tokens, head_dim) of the prompt before the audio."""
        slot = self.workspace.open()
        tokens = prefix.shape[0]
        with torch.inference_mode():
            if tokens:
                rows = self.workspace.rows([slot], [0], tokens)
                self.decoder.attend(prefix[None], rows.positions, rows, rows.mask)
            keys = self.workspace.keys[:, slot.index, :, :tokens].clone()
            values = self.workspace.values[:, slot.index, :, :tokens].clone()
        self.workspace.close(slot)
        return keys, values

    def _open_in(self, cache: SlotCache) -> Slot:
        slot = cache.open()
        tokens = self.prefix_tokens
        cache.keys[:, slot.index, :, :tokens] = self._prefix_keys
        cache.values[:, slot.index, :, :tokens] = self._prefix_values
        slot.length = slot.written = tokens
        return slot

    def _length(self, row: Row, audio: tuple[Tensor, ...]) -> int:
        return self.frozen(row.slot) + sum(part.shape[0] for part in audio)

    def _check(self, embeddings: int) -> None:
        if embeddings > self.max_audio:
            raise UtteranceTooLongError(
                f"an utterance has {embeddings} audio embeddings and the decoder takes "
                f"{self.max_audio}; split it, or allow more positions"
            )


def longest_audio(model: ASRModel) -> int:
    """Audio embeddings of :data:`MAX_AUDIO_SECONDS` of audio."""
    frames = int(MAX_AUDIO_SECONDS / model.need_processor().hop_seconds) + 1
    lengths = encoder_lengths(model.audio_tower, torch.tensor([frames]))
    return int(model.projector.output_length(lengths)[0])


def pad(rows: Sequence[Tensor], longest: int) -> Tensor:
    """(tokens, M) rows as (batch, longest, M), zeros behind their ends."""
    padded = rows[0].new_zeros(len(rows), longest, rows[0].shape[-1])
    for index, row in enumerate(rows):
        padded[index, : row.shape[0]] = row
    return padded


def choose(logits: Tensor) -> list[Choice]:
    """Greedy choices at (places, vocabulary) scores."""
    best, tokens = logits.topk(2)
    total = logits.logsumexp(-1)
    # One copy to the host. Ids are exact: a vocabulary has fewer than 2**24 tokens.
    table = torch.stack([tokens[:, 0].float(), best[:, 0] - total, best[:, 0] - best[:, 1]], 1)
    return [Choice(int(token), logprob, margin) for token, logprob, margin in table.tolist()]

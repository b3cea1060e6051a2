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
from typing import Any, Protocol

import torch
from torch import Tensor

from tinyvoice.engine.draft import Draft
from tinyvoice.engine.slots import NoFreeSlotError, Slot, SlotCache
from tinyvoice.errors import ConfigurationError, TinyvoiceError
from tinyvoice.model.decoder import Decoder, runs_directly
from tinyvoice.model.encoder import encoder_lengths
from tinyvoice.model.modeling import MAX_NEW_TOKENS, ASRModel

# An utterance is cut when it is a second longer than the 30 s that an encoder takes, and the
# audio that came in with that second is heard first.
MAX_AUDIO_SECONDS = 33.0

# A partial may have this many tokens, and this many more for each audio embedding (80 to 120 ms of
# audio: 17 to 25 tokens a second, where fast speech has 10). It bounds a loop on noise; finals are
# bounded as offline transcripts are.
PARTIAL_TOKENS = 8
PARTIAL_TOKENS_PER_EMBEDDING = 2

# Padding that a pass may carry before it is worth a pass of its own, in tokens. On a CPU a pass
# costs as much as a few tokens; on a GPU the passes cost, not the tokens.
PADDING_TOKENS = {"cpu": 16}
PADDING_TOKENS_ELSEWHERE = 8192


# Passes of an update after its first one. The audio of an update brings a few words; one that wants
# more is in a loop, or understands the whole utterance otherwise: it goes on in the next update, so
# that no stream holds up the others.
PARTIAL_STEPS = 12


# Memory of the streams' slots, and as much of the finals', that is taken when the decoder is built,
# so that no stream waits for it later. A CPU's is not really taken before it is written to.
ALLOCATED_BYTES = 512 * 2**20

# The weights of a language model up to this size are copied in a faster order on a CPU. A larger
# one's passes take long whatever their order, and its copy would take memory that is missed.
PACKED_BYTES = 512 * 2**20


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

    Raises:
        ConfigurationError: the model cannot be decoded this way; see :func:`can_roll`.
    """

    def __init__(
        self, model: ASRModel, max_positions: int | None = None, max_slots: int = 1024
    ) -> None:
        if not can_roll(model):
            raise ConfigurationError(
                "This model's language model or generation settings need transformers' own "
                "decoding: use build_decoder, which finds a decoder for any model.",
                key="text_config",
            )
        self.model = model
        self.stops = frozenset(model.stop_token_ids)
        self.max_new_tokens = model.config.max_new_tokens or MAX_NEW_TOKENS
        template = model.prompt_template
        device = model.device
        embed = model.get_input_embeddings()
        with torch.inference_mode():
            prefix = embed(torch.tensor(template.prefix, dtype=torch.long, device=device))
            self.suffix = embed(torch.tensor(template.suffix, dtype=torch.long, device=device))
        self.padding_tokens = PADDING_TOKENS.get(device.type, PADDING_TOKENS_ELSEWHERE)
        self.prefix_tokens = prefix.shape[0]
        overhead = self.prefix_tokens + self.suffix.shape[0] + self.max_new_tokens
        if max_positions is None:
            max_positions = overhead + longest_audio(model)
        self.max_audio = max_positions - overhead
        """Audio embeddings that an utterance may have."""
        size = sum(p.numel() * p.element_size() for p in model.language_model.parameters())
        self.decoder = Decoder(model.language_model, max_positions + 1, packed=size <= PACKED_BYTES)
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
        position_bytes = 2 * shape["layers"] * shape["kv_heads"] * shape["head_dim"]
        slot_bytes = position_bytes * (max_positions + 1) * self.suffix.element_size()
        shape["allocated"] = ALLOCATED_BYTES // slot_bytes
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
            limit = partial_bound(length, job.max_new_tokens, self.max_new_tokens)
            rows.append(Row(job.slot, job.slot.length, Draft(job.draft, self.stops), limit))
            audio.append((job.frozen, job.tail))
        heard = [at for at, row in enumerate(rows) if self._length(row, audio[at])]
        self._run(
            self.cache, [rows[at] for at in heard], [audio[at] for at in heard], PARTIAL_STEPS
        )
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
        most = self.workspace.max_slots
        return [
            decoded
            for first in range(0, len(jobs), most)
            for decoded in self._decode_whole(jobs[first : first + most])
        ]

    def _decode_whole(self, jobs: Sequence[FinalJob]) -> list[Decoded]:
        """Finals of at most as many jobs as the workspace has slots."""
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
        self,
        cache: SlotCache,
        rows: Sequence[Row],
        audio: Sequence[tuple[Tensor, ...]],
        most_steps: float = math.inf,
    ) -> None:
        """Decode the rows: a pass over audio, suffix and drafts, then until all have ended.

        After ``most_steps`` further passes the rest is left undecoded.
        """
        first, steps = True, -1
        while rows and steps < most_steps:
            tokens = self._embed([row.inputs for row in rows])
            inputs = (
                [
                    torch.cat([*(part.to(self.suffix) for part in parts), self.suffix, *ids])
                    for parts, ids in zip(audio, tokens, strict=True)
                ]
                if first
                else [ids[0] for ids in tokens]
            )
            for group in group_by_length([part.shape[0] for part in inputs], self.padding_tokens):
                self._pass(cache, [rows[at] for at in group], [inputs[at] for at in group])
            if not first:
                for row in rows:
                    row.decoded.steps += 1
            first, steps = False, steps + 1
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


class RepeatingDecoder:
    """Decodes the whole utterance anew at every update: slow, and right for every model.

    For generation settings such as beams and penalties, and for language models that only their own
    forward can run. Drafts are not used; margins come from one more pass over the transcript, and
    are negative where the settings prefer another token than the plain model.
    """

    def __init__(self, model: ASRModel, max_slots: int = 1024) -> None:
        self.model = model
        self.max_slots = max_slots
        self.max_new_tokens = model.config.max_new_tokens or MAX_NEW_TOKENS
        self._audio: dict[Slot, Tensor | None] = {}

    def open(self) -> Slot:
        """A slot for a stream, ready for an utterance; raises ``NoFreeSlotError``."""
        if len(self._audio) >= self.max_slots:
            raise NoFreeSlotError(
                f"all {self.max_slots} decoder slots are in use; close a stream first or allow "
                "more of them"
            )
        slot = Slot(len(self._audio))
        self._audio[slot] = None
        return slot

    def reset(self, slot: Slot) -> None:
        """Forget the slot's audio: a new utterance begins."""
        self._audio[slot] = None
        slot.length = 0

    def close(self, slot: Slot) -> None:
        """Give a slot back; closing twice does nothing."""
        self._audio.pop(slot, None)
        slot.is_open = False

    def frozen(self, slot: Slot) -> int:
        """Audio embeddings that the slot holds."""
        return slot.length

    @torch.inference_mode()
    def update(self, jobs: Sequence[DecodeJob]) -> list[Decoded]:
        """Hypotheses of the jobs' streams after their new audio, in the jobs' order."""
        kept, outputs = [], []
        for job in jobs:
            before = self._audio[job.slot]
            frozen = job.frozen if before is None else torch.cat([before, job.frozen])
            whole = torch.cat([frozen, job.tail])
            bound = partial_bound(whole.shape[0], job.max_new_tokens, self.max_new_tokens)
            outputs.append(self._decode(whole, bound))
            kept.append(frozen)
        for job, frozen in zip(jobs, kept, strict=True):
            self._audio[job.slot], job.slot.length = frozen, frozen.shape[0]
        return outputs

    @torch.inference_mode()
    def decode_finals(self, jobs: Sequence[FinalJob]) -> list[Decoded]:
        """Transcripts of whole utterances, by ``model.decode``."""
        return [self._decode(job.embeds, job.max_new_tokens or self.max_new_tokens) for job in jobs]

    def _decode(self, embeds: Tensor, bound: int) -> Decoded:
        counts = torch.tensor([embeds.shape[0]], device=embeds.device)
        tokens = self.model.decode(embeds[None], counts, bound)[0]
        if not embeds.shape[0]:
            return Decoded()
        ended = len(tokens.ids) < bound
        prompt, _ = self.model.embed_prompts(embeds[None], counts)
        margins, stop = score_margins(
            self.model.language_model, prompt, tokens.ids, self.model.stop_token_ids, ended
        )
        return Decoded(tokens.ids, tokens.logprobs, margins, stop)


class StreamDecoder(Protocol):
    """What both decoders offer; for one thread at a time."""

    def open(self) -> Slot:
        """A slot for a stream, ready for an utterance; raises ``NoFreeSlotError``."""

    def reset(self, slot: Slot) -> None:
        """Forget the slot's audio: a new utterance begins."""

    def close(self, slot: Slot) -> None:
        """Give a slot back; closing twice does nothing."""

    def update(self, jobs: Sequence[DecodeJob]) -> list[Decoded]:
        """Hypotheses of the jobs' streams after their new audio, in the jobs' order."""

    def decode_finals(self, jobs: Sequence[FinalJob]) -> list[Decoded]:
        """Transcripts of whole utterances: the tokens of ``model.decode``, whatever the draft."""


def can_roll(model: ASRModel) -> bool:
    """Whether :class:`RollingDecoder` decodes as the model does: greedily, layer by layer."""
    return runs_directly(model.language_model) and not model.search_settings({})


def build_decoder(model: ASRModel, max_slots: int = 1024) -> StreamDecoder:
    """The fastest decoder that is right for a model."""
    if can_roll(model):
        return RollingDecoder(model, max_slots=max_slots)
    return RepeatingDecoder(model, max_slots=max_slots)


def partial_bound(embeddings: int, asked: int | None, most: int) -> int:
    """Tokens that a partial over this many audio embeddings may have."""
    by_audio = PARTIAL_TOKENS + PARTIAL_TOKENS_PER_EMBEDDING * embeddings
    return min(asked or most, most, by_audio)


def score_margins(
    language_model: Any, prompt: Tensor, ids: Sequence[int], stops: Collection[int], ended: bool
) -> tuple[list[float], float | None]:
    """Margins of ``ids`` after a (1, tokens, M) prompt, and the stop token's log-probability.

    With ``ended`` the margin of the likeliest stop token comes last; else there is neither.
    """
    tokens = torch.tensor([list(ids)], dtype=torch.long, device=prompt.device)
    embeds = torch.cat([prompt, language_model.get_input_embeddings()(tokens).to(prompt)], dim=1)
    logits = language_model(inputs_embeds=embeds, logits_to_keep=len(ids) + 1).logits
    scores = torch.log_softmax(logits[0].float(), dim=-1)
    last = max(stops, key=lambda token: float(scores[-1, token]))
    chosen = torch.tensor([*ids, last], device=prompt.device)[:, None]
    own = scores.gather(-1, chosen)
    margins = (own - scores.scatter(-1, chosen, -torch.inf).amax(-1, keepdim=True))[:, 0].tolist()
    return (margins, float(own[-1])) if ended else (margins[:-1], None)


def longest_audio(model: ASRModel) -> int:
    """Audio embeddings of :data:`MAX_AUDIO_SECONDS` of audio."""
    frames = int(MAX_AUDIO_SECONDS / model.need_processor().hop_seconds) + 1
    lengths = encoder_lengths(model.audio_tower, torch.tensor([frames]))
    return int(model.projector.output_length(lengths)[0])


def group_by_length(lengths: Sequence[int], padding: int) -> list[list[int]]:
    """Rows to be run together: no group has more than ``padding`` tokens of padding."""
    groups: list[list[int]] = []
    longest = waste = 0
    for at in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        waste += longest - lengths[at]
        if not groups or waste > padding:
            groups.append([])
            longest, waste = lengths[at], 0
        groups[-1].append(at)
    return groups


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

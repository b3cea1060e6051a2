"""Audio-token embeddings of encoder frames that are still arriving, for many streams at once.

Frames that are final are projected in whole groups, once; what is left of them waits for the rest
of its group. The provisional frames behind them give provisional embeddings. Both together are what
the projector gives for the whole clip.

What a group is, and how many groups before it a projector looks back, the projector says itself
(:class:`~tinyvoice.model.projectors.Projector`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyvoice.errors import ConfigurationError
from tinyvoice.model.modeling import ASRModel


@dataclass(frozen=True)
class AudioEmbeddings:
    """One stream's audio-token embeddings after an update."""

    frozen: Tensor
    """``(tokens, M)``: newly final since the last update, to be appended to the earlier ones."""
    tail: Tensor
    """``(tokens, M)``: provisional, behind all frozen ones, up to the live edge."""


@dataclass(frozen=True)
class ProjectionState:
    """The final frames that a stream's next embeddings need."""

    frames: Tensor
    """``(frames, D)``: those of the groups looked back at, then those of a group begun."""
    context: int = 0
    """How many groups are looked back at."""


class IncrementalProjection:
    """A model's projector, group by group.

    Raises:
        ConfigurationError: the projector can only take whole clips.
    """

    def __init__(self, model: ASRModel) -> None:
        projector = model.projector
        group: int | None = getattr(projector, "group_frames", None)
        if group is None:
            raise ConfigurationError(
                f"The projector {model.config.projector_type!r} does not say which frames make up "
                "a token, so it cannot be streamed: set group_frames on its class.",
                key="projector_type",
            )
        self._model = model
        self._group = group
        self._context: int = projector.context_groups
        self._group_tokens: int = projector.output_length(group)

    def new_state(self) -> ProjectionState:
        """The state of an utterance without frames."""
        encoder = self._model.audio_tower.conv1.weight
        return ProjectionState(encoder.new_empty(0, self._model.config.encoder_dim or 0))

    def no_embeddings(self) -> Tensor:
        """Embeddings of nothing, ``(0, M)``."""
        weight = next(self._model.projector.parameters())
        return weight.new_empty(0, self._model.config.llm_dim or 0)

    def advance(
        self, states: Sequence[ProjectionState], final: Sequence[Tensor], tails: Sequence[Tensor]
    ) -> tuple[list[ProjectionState], list[AudioEmbeddings]]:
        """Embeddings of several streams' new frames.

        ``final`` holds each stream's newly final encoder frames ``(frames, D)``, ``tails`` the
        provisional ones behind them. Returns the next states and the embeddings.
        """
        rows = [
            torch.cat((state.frames, new, tail))
            for state, new, tail in zip(states, final, tails, strict=True)
        ]
        embeds, counts = self._project(rows)
        following, results = [], []
        for index, (state, new) in enumerate(zip(states, final, strict=True)):
            known = len(state.frames) + len(new)
            groups = known // self._group
            context = min(self._context, groups)
            keep = slice((groups - context) * self._group, known)
            following.append(ProjectionState(rows[index][keep].clone(), context))
            skip, end = state.context * self._group_tokens, groups * self._group_tokens
            results.append(
                AudioEmbeddings(embeds[index, skip:end], embeds[index, end : counts[index]])
            )
        return following, results

    def _project(self, rows: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """The projector over rows of different length, ``(streams, tokens, M)``, and counts."""
        lengths = [len(row) for row in rows]
        longest = max(lengths)
        if not longest:
            return self.no_embeddings().expand(len(rows), 0, -1), lengths
        if min(lengths) == longest:
            hidden = torch.stack(list(rows))
        else:
            hidden = rows[0].new_zeros(len(rows), longest, rows[0].shape[-1])
            for index, row in enumerate(rows):
                hidden[index, : len(row)] = row
        embeds, _ = self._model.project(hidden, torch.tensor(lengths, device=hidden.device))
        return embeds, [self._model.projector.output_length(length) for length in lengths]

"""What the incremental encoders share: from new audio through features and projector.

An encoder knows utterances, not streams: where one begins and ends is decided elsewhere, and the
final text of an utterance comes from the offline path, not from these embeddings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinyvoice.engine.encoder_state import EncoderState
from tinyvoice.engine.features import IncrementalLogMel, LogMelFrames
from tinyvoice.engine.projection import AudioEmbeddings, IncrementalProjection
from tinyvoice.model.modeling import ASRModel

# The encoder's second convolution halves the rate.
MEL_PER_FRAME = 2


@dataclass(frozen=True)
class EncodedFrames:
    """One stream's encoder output at an update."""

    final: Tensor
    """``(frames, D)``: behind those that were final before."""
    tail: Tensor
    """``(frames, D)``: provisional, up to the live edge."""
    mel: Tensor
    """``(frames, mels)``: the final feature frames that the next update needs."""


class IncrementalEncoder(ABC):
    """New audio of many utterances in, audio-token embeddings out; for one thread at a time.

    Args:
        model: a model with its processor. It must keep its device and its weights.

    Raises:
        ConfigurationError: the projector takes whole clips only.
    """

    def __init__(self, model: ASRModel) -> None:
        processor = model.need_processor()
        self._tower: Any = model.audio_tower
        self._weight: Tensor = self._tower.conv1.weight
        self._frame_s = processor.hop_seconds * MEL_PER_FRAME
        self._log_mel = IncrementalLogMel(processor, self._weight.device)
        self._projection = IncrementalProjection(model)

    def new_state(self) -> EncoderState:
        """The state of a new utterance; it holds all memory used for it."""
        return EncoderState(
            self._log_mel.new_state(),
            self._projection.new_state(),
            self._weight.new_empty(0, self._log_mel.mels),
            self._projection.no_embeddings(),
        )

    @torch.inference_mode()
    def advance(
        self, states: Sequence[EncoderState], samples: Sequence[NDArray[np.float32]]
    ) -> list[AudioEmbeddings]:
        """Move several utterances, of any age, on by their new audio.

        ``samples`` holds each one's new samples at the model's sample rate, ``(samples,)`` float32
        in [-1, 1], any number of them. Returns each one's newly frozen embeddings and the
        provisional ones behind all its frozen ones. The states change only when all of it has
        succeeded, so after an exception the same call may be made again.
        """
        log_mels, frames = self._log_mel.advance([s.log_mel for s in states], samples)
        nothing = self._projection.no_embeddings()
        results = [AudioEmbeddings(nothing, state.tail) for state in states]
        active = [i for i, new in enumerate(frames) if len(samples[i]) and len(new.log_mel)]
        if active:
            chosen = [states[i] for i in active]
            encoded = self._encode(chosen, [frames[i] for i in active])
            projections, embeddings = self._projection.advance(
                [state.projection for state in chosen],
                [new.final for new in encoded],
                [new.tail for new in encoded],
            )
            for i, new, projection, embedded in zip(
                active, encoded, projections, embeddings, strict=True
            ):
                state, results[i] = states[i], embedded
                state.mel, state.projection, state.tail = new.mel, projection, embedded.tail
                state.frames += len(new.final)
                state.tokens += len(embedded.frozen)
        for state, log_mel in zip(states, log_mels, strict=True):
            state.log_mel = log_mel
        return results

    @abstractmethod
    def _encode(
        self, states: Sequence[EncoderState], frames: Sequence[LogMelFrames]
    ) -> list[EncodedFrames]:
        """Encode new feature frames, at least one for each stream, and leave the states alone."""

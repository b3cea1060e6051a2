"""Incremental encoders: new audio of many utterances in, audio-token embeddings out.

Two forms behind one interface. :class:`BlockCacheEncoder` encodes every block of frames once and
needs a checkpoint trained with chunk masks; :class:`FrozenWindowEncoder` re-encodes a bounded
window and serves any checkpoint. :func:`build_encoder` chooses.

An encoder knows utterances, not streams: where one begins and ends is decided elsewhere, and the
final text of an utterance comes from the offline path, not from these embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tinyvoice.engine.block_cache import BlockCacheEncoder
from tinyvoice.engine.encoder_state import EncoderState
from tinyvoice.engine.frozen_window import FrozenWindowEncoder
from tinyvoice.engine.projection import AudioEmbeddings
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.modeling import ASRModel

__all__ = [
    "AudioEmbeddings",
    "BlockCacheEncoder",
    "EncoderForm",
    "EncoderState",
    "FrozenWindowEncoder",
    "IncrementalEncoder",
    "build_encoder",
]

EncoderForm = Literal["auto", "block", "window"]


class IncrementalEncoder(Protocol):
    """What both forms offer. Their methods are for one thread at a time."""

    def new_state(self) -> EncoderState:
        """The state of a new utterance; it holds all memory used for it."""

    def advance(
        self, states: Sequence[EncoderState], samples: Sequence[NDArray[np.float32]]
    ) -> list[AudioEmbeddings]:
        """Move several utterances, of any age, on by their new audio.

        ``samples`` holds each one's new samples at the model's sample rate, ``(samples,)`` float32
        in [-1, 1], any number of them. Returns each one's newly frozen embeddings and the
        provisional ones behind all its frozen ones. The states change only when all of it has
        succeeded, so after an exception the same call may be made again.
        """


def build_encoder(model: ASRModel, form: EncoderForm = "auto") -> IncrementalEncoder:
    """The incremental encoder for a model.

    ``auto`` takes the block cache where the checkpoint brings an encoder of its own, which this
    project trains with chunk masks, and the window for GLM-ASR's.

    Raises:
        ConfigurationError: ``form`` is none of the three, or the projector takes whole clips only.
    """
    if form == "auto":
        form = "block" if model.config.embedded_backbones else "window"
    if form == "block":
        return BlockCacheEncoder(model)
    if form == "window":
        return FrozenWindowEncoder(model)
    raise ConfigurationError(
        f"encoder form {form!r} is unknown; choose auto, block or window.", key="encoder"
    )

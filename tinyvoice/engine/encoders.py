"""The two forms of incremental encoder, and the choice between them.

:class:`BlockCacheEncoder` encodes every block of frames once and needs a checkpoint trained with
chunk masks; :class:`FrozenWindowEncoder` re-encodes a bounded window and serves any checkpoint.
What both offer is :class:`IncrementalEncoder`.
"""

from __future__ import annotations

from typing import Literal

from tinyvoice.engine.block_cache import BlockCacheEncoder
from tinyvoice.engine.encoder_state import EncoderState
from tinyvoice.engine.frozen_window import FrozenWindowEncoder
from tinyvoice.engine.incremental_encoder import IncrementalEncoder
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

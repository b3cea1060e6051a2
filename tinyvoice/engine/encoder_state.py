"""What an incremental encoder keeps of one utterance, whichever its form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tinyvoice.engine.features import LogMelState
from tinyvoice.engine.projection import ProjectionState


@dataclass
class EncoderState:
    """One utterance's place in an encoder; made by ``new_state``, moved on by ``advance``.

    It holds all memory the encoder uses for the utterance, so dropping it is all it takes to free
    that.
    """

    log_mel: LogMelState
    projection: ProjectionState
    mel: Tensor
    """``(frames, mels)``: final feature frames that are still needed, in the encoder's form."""
    tail: Tensor
    """``(tokens, M)``: the latest provisional embeddings."""
    frames: int = 0
    """Encoder frames that are final."""
    tokens: int = 0
    """Embeddings that are final."""
    cache: KeyValueCache | None = None
    """Keys and values of the final frames, where the encoder caches them."""

    @property
    def samples(self) -> int:
        """Samples of the utterance heard so far, at the model's sample rate."""
        return self.log_mel.samples


class KeyValueCache:
    """Attention keys and values of one utterance, all layers in one growing tensor.

    Rows behind the final frames are overwritten freely: provisional frames put theirs there.
    """

    FIRST_FRAMES = 128

    def __init__(
        self, layers: int, heads: int, head_dim: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (layers, 2, heads, self.FIRST_FRAMES, head_dim)
        self.storage = torch.empty(shape, device=device, dtype=dtype)

    def reserve(self, frames: int) -> None:
        """Make room for that many frames, at least doubling what is there."""
        capacity = self.storage.shape[3]
        if frames <= capacity:
            return
        layers, pair, heads, _, head_dim = self.storage.shape
        larger = self.storage.new_empty(layers, pair, heads, max(frames, 2 * capacity), head_dim)
        larger[:, :, :, :capacity] = self.storage
        self.storage = larger

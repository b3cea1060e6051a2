"""The incremental encoder for checkpoints trained with chunk masks: each block is encoded once.

A frame attends to its own block of ``block_frames`` encoder frames and to all earlier ones, whose
keys and values are cached. A block is final when its last frame has its right context of two
feature frames; the unfinished block behind it is encoded provisionally, anew at each update. The
final frames are those of ``encode_features(..., chunk_frames=block_frames)`` over the whole clip,
however the audio was cut.

Streams of any age run together: their frames lie one behind the other in one (frames, width)
matrix, without padding, and only attention is done stream by stream, on views of each one's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tinyvoice.engine.encoder_state import EncoderState
from tinyvoice.engine.features import IncrementalLogMel
from tinyvoice.engine.packed_layers import PackedLayers, Segment, Span
from tinyvoice.engine.projection import AudioEmbeddings, IncrementalProjection
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.encoder import convolve_features, encoder_lengths
from tinyvoice.model.modeling import ASRModel

DEFAULT_BLOCK_FRAMES = 12

# The second convolution halves the rate; both together reach two feature frames to either side.
MEL_PER_FRAME = 2
CONTEXT_MEL = 2


class BlockCacheEncoder:
    """Streaming encoder with cached blocks; see the module's description.

    Args:
        model: a model with its processor. Its attention implementation is not used: attention here
            is always torch's own.
        block_frames: encoder frames in a block. More gives the encoder more right context, and
            embeddings are frozen later.

    Raises:
        ConfigurationError: ``block_frames`` is below 1, or the projector takes whole clips only.
    """

    def __init__(self, model: ASRModel, block_frames: int = DEFAULT_BLOCK_FRAMES) -> None:
        if block_frames < 1:
            raise ConfigurationError(
                f"block_frames is {block_frames}; a block needs at least one frame.",
                key="block_frames",
            )
        self.block_frames = block_frames
        self._tower: Any = model.audio_tower
        self._weight: Tensor = self._tower.conv1.weight
        self._log_mel = IncrementalLogMel(model.need_processor(), self._weight.device)
        self._projection = IncrementalProjection(model)
        self._layers = PackedLayers(self._tower)

    def new_state(self) -> EncoderState:
        """The state of a new utterance."""
        return EncoderState(
            self._log_mel.new_state(),
            self._projection.new_state(),
            self._weight.new_empty(0, self._log_mel.mels),
            self._projection.no_embeddings(),
            cache=self._layers.new_cache(),
        )

    @torch.inference_mode()
    def advance(
        self, states: Sequence[EncoderState], samples: Sequence[NDArray[np.float32]]
    ) -> list[AudioEmbeddings]:
        """Move several utterances on by their new audio.

        ``samples`` holds each one's new samples at the model's sample rate, ``(samples,)`` float32
        in [-1, 1], of any length. Returns each one's newly frozen embeddings and its provisional
        tail. The states change only when all of it has succeeded.
        """
        log_mels, frames = self._log_mel.advance([s.log_mel for s in states], samples)
        mels = [
            torch.cat((state.mel, new.normalised().to(state.mel.dtype)))
            for state, new in zip(states, frames, strict=True)
        ]
        results = [
            AudioEmbeddings(self._projection.no_embeddings(), state.tail) for state in states
        ]
        active = [i for i, new in enumerate(frames) if len(new.log_mel) and len(samples[i])]
        if active:
            chosen = [states[i] for i in active]
            finals = [self._final_frames(log_mels[i].frames) for i in active]
            hidden = self._encode(chosen, [mels[i] for i in active])
            projections, embeddings = self._projection.advance(
                [state.projection for state in chosen],
                [
                    rows[: end - s.frames]
                    for rows, end, s in zip(hidden, finals, chosen, strict=True)
                ],
                [
                    rows[end - s.frames :]
                    for rows, end, s in zip(hidden, finals, chosen, strict=True)
                ],
            )
            for at, index in enumerate(active):
                state, embedded = states[index], embeddings[at]
                keep = self._first_mel(finals[at]) - self._first_mel(state.frames)
                known = len(mels[index]) - (len(frames[index].log_mel) - frames[index].final)
                state.mel = mels[index][keep:known].clone()
                state.frames, state.projection = finals[at], projections[at]
                state.tokens += len(embedded.frozen)
                state.tail = embedded.tail
                results[index] = embedded
        for state, log_mel in zip(states, log_mels, strict=True):
            state.log_mel = log_mel
        return results

    def _final_frames(self, mel_frames: int) -> int:
        """Encoder frames in whole blocks, all of their right context there."""
        frames = max(0, mel_frames - CONTEXT_MEL + 1) // MEL_PER_FRAME
        return frames // self.block_frames * self.block_frames

    @staticmethod
    def _first_mel(frames: int) -> int:
        """The first feature frame that encoder frames from ``frames`` on depend on."""
        return max(0, frames * MEL_PER_FRAME - CONTEXT_MEL)

    def _encode(self, states: Sequence[EncoderState], mels: Sequence[Tensor]) -> list[Tensor]:
        """Each stream's encoder frames from its first that is not final, ``(frames, width)``."""
        hidden, spans = self._convolve(states, mels)
        caches = [state.cache for state in states if state.cache is not None]
        hidden = self._layers(hidden, spans, self._segments(spans), caches)
        return [hidden[span.start : span.end] for span in spans]

    def _convolve(
        self, states: Sequence[EncoderState], mels: Sequence[Tensor]
    ) -> tuple[Tensor, list[Span]]:
        """The convolutions over each stream's frames that are not final, packed."""
        lengths = [len(mel) for mel in mels]
        features = nn.utils.rnn.pad_sequence(list(mels), batch_first=True).transpose(1, 2)
        uneven = min(lengths) < max(lengths)
        counted = torch.tensor(lengths, device=features.device) if uneven else None
        hidden, _, _ = convolve_features(self._tower, features, counted)
        rows, spans, at = [], [], 0
        for index, (state, length) in enumerate(zip(states, lengths, strict=True)):
            # Where there is left context, the first frame is one that is final already.
            row = hidden[index, int(state.frames > 0) : encoder_lengths(self._tower, length)]
            rows.append(row)
            spans.append(Span(at, at + len(row), state.frames))
            at += len(row)
        return torch.cat(rows), spans

    def _segments(self, spans: Sequence[Span]) -> list[Segment]:
        """The packed rows block by block; each stream begins at the start of a block."""
        segments = []
        for stream, span in enumerate(spans):
            for first in range(span.first, span.last, self.block_frames):
                keys = min(first + self.block_frames, span.last)
                segments.append(Segment(stream, keys - first, keys))
        return segments

"""The incremental encoder for bidirectional checkpoints: a bounded window, encoded anew each time.

At every update the last seconds of an utterance are encoded with full attention. A frame's output
is frozen once ``right_s`` of audio behind it is there, from a window that also holds ``left_s``
before it; what lies behind the frozen frames is the provisional tail. A window's length does not
depend on the utterance's age, so all but the youngest streams run in one batch without padding.

Frozen frames are close to, not equal to, those of the whole clip, and depend a little on where
updates fell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tinyvoice.engine.encoder_state import EncoderState
from tinyvoice.engine.features import IncrementalLogMel, LogMelFrames, normalise
from tinyvoice.engine.projection import AudioEmbeddings, IncrementalProjection
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.encoder import encode_features, encoder_lengths
from tinyvoice.model.modeling import ASRModel

DEFAULT_LEFT_S = 4.0
DEFAULT_RIGHT_S = 0.64

# New audio that one window takes beside its context; more at once is taken in several windows.
STEP_S = 0.64

# The second convolution halves the rate.
MEL_PER_FRAME = 2


@dataclass(frozen=True)
class Window:
    """A stretch of one utterance to encode; encoder frames counted from the utterance's start."""

    stream: int
    start: int
    mel_end: int
    """The first feature frame behind the window."""
    frozen: int
    """Frames that were final before; those up to ``freeze`` become so."""
    freeze: int


class FrozenWindowEncoder:
    """Streaming encoder over a sliding window; see the module's description.

    Args:
        model: a model with its processor.
        left_s: audio before a frame, at least, when it is frozen.
        right_s: audio behind a frame, at least, when it is frozen.

    Raises:
        ConfigurationError: ``left_s`` or ``right_s`` is negative, or the projector takes whole
            clips only.
    """

    def __init__(
        self, model: ASRModel, left_s: float = DEFAULT_LEFT_S, right_s: float = DEFAULT_RIGHT_S
    ) -> None:
        for key, seconds in (("left_s", left_s), ("right_s", right_s)):
            if not seconds >= 0:
                raise ConfigurationError(
                    f"{key} is {seconds}; context is zero seconds or more.", key=key
                )
        processor = model.need_processor()
        self._tower: Any = model.audio_tower
        self._weight: Tensor = self._tower.conv1.weight
        self._log_mel = IncrementalLogMel(processor, self._weight.device)
        self._projection = IncrementalProjection(model)
        frame_s = processor.hop_seconds * MEL_PER_FRAME
        # The convolutions look one frame ahead, so the frame at the edge is never frozen.
        self._right = max(1, round(right_s / frame_s))
        step = max(1, round(STEP_S / frame_s))
        self._window = round(left_s / frame_s) + step + self._right
        self._step = step

    def new_state(self) -> EncoderState:
        """The state of a new utterance."""
        return EncoderState(
            self._log_mel.new_state(),
            self._projection.new_state(),
            torch.empty(0, self._log_mel.mels, device=self._weight.device),
            self._projection.no_embeddings(),
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
        results = [
            AudioEmbeddings(self._projection.no_embeddings(), state.tail) for state in states
        ]
        active = [i for i, new in enumerate(frames) if len(new.log_mel) and len(samples[i])]
        if active:
            chosen = [states[i] for i in active]
            final, tails = self._encode(chosen, [frames[i] for i in active])
            projections, embeddings = self._projection.advance(
                [state.projection for state in chosen], final, tails
            )
            for at, index in enumerate(active):
                state, embedded = states[index], embeddings[at]
                state.mel = self._kept(state, frames[index])
                state.frames += len(final[at])
                state.projection = projections[at]
                state.tokens += len(embedded.frozen)
                state.tail = embedded.tail
                results[index] = embedded
        for state, log_mel in zip(states, log_mels, strict=True):
            state.log_mel = log_mel
        return results

    def _encode(
        self, states: Sequence[EncoderState], frames: Sequence[LogMelFrames]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Each stream's newly final and its provisional encoder frames, (frames, width)."""
        windows = [
            window
            for stream, (state, new) in enumerate(zip(states, frames, strict=True))
            for window in self._windows(stream, state, new)
        ]
        features = []
        for window in windows:
            state, new = states[window.stream], frames[window.stream]
            mel = torch.cat((state.mel, new.log_mel)) if len(state.mel) else new.log_mel
            first = state.log_mel.frames - len(state.mel)
            cut = mel[window.start * MEL_PER_FRAME - first : window.mel_end - first]
            features.append(normalise(cut, new.maxima[-1:]).to(self._weight.dtype))
        final: list[list[Tensor]] = [[] for _ in states]
        tails: list[Tensor] = [self._weight.new_empty(0) for _ in states]
        for window, hidden in zip(windows, self._encode_windows(features), strict=True):
            frozen = slice(window.frozen - window.start, window.freeze - window.start)
            final[window.stream].append(hidden[frozen])
            tails[window.stream] = hidden[frozen.stop :]
        return [torch.cat(rows) for rows in final], tails

    def _windows(self, stream: int, state: EncoderState, new: LogMelFrames) -> list[Window]:
        """The windows of one update; the last one reaches the live edge."""
        mel_frames = state.log_mel.frames + len(new.log_mel)
        edge: int = encoder_lengths(self._tower, mel_frames)
        windows, frozen = [], state.frames
        while edge - frozen > self._step + self._right:
            end = frozen + self._step + self._right
            windows.append(
                Window(
                    stream,
                    max(0, end - self._window),
                    end * MEL_PER_FRAME,
                    frozen,
                    end - self._right,
                )
            )
            frozen += self._step
        if edge > self._window:
            # Half a frame at the edge waits, so that all full windows are equally long.
            edge = mel_frames // MEL_PER_FRAME
            mel_frames = edge * MEL_PER_FRAME
        freeze = max(frozen, edge - self._right)
        windows.append(Window(stream, max(0, edge - self._window), mel_frames, frozen, freeze))
        return windows

    def _encode_windows(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Encoder frames of each window: full ones in one batch, shorter ones in another."""
        full = self._window * MEL_PER_FRAME
        encoded: list[Tensor] = [features[0]] * len(features)
        for equal in (True, False):
            chosen = [i for i, rows in enumerate(features) if (len(rows) == full) is equal]
            if not chosen:
                continue
            rows = [features[i] for i in chosen]
            batch = nn.utils.rnn.pad_sequence(rows, batch_first=True).transpose(1, 2)
            counts = [len(row) for row in rows]
            uneven = min(counts) < max(counts)
            lengths = torch.tensor(counts, device=batch.device) if uneven else None
            hidden, _ = encode_features(self._tower, batch, lengths)
            for at, index in enumerate(chosen):
                encoded[index] = hidden[at, : encoder_lengths(self._tower, counts[at])]
        return encoded

    def _kept(self, state: EncoderState, new: LogMelFrames) -> Tensor:
        """The final feature frames that later windows may hold."""
        mel = torch.cat((state.mel, new.log_mel[: new.final]))
        first = state.log_mel.frames - len(state.mel)
        edge: int = encoder_lengths(self._tower, state.log_mel.frames + len(new.log_mel))
        start = max(0, edge - 1 - self._window) * MEL_PER_FRAME
        return mel[max(0, start - first) :].clone()

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

import torch
from torch import Tensor, nn

from tinyvoice.engine.encoder_state import EncoderState
from tinyvoice.engine.features import LogMelFrames, normalise
from tinyvoice.engine.incremental_encoder import (
    MEL_PER_FRAME,
    EncodedFrames,
    IncrementalEncoder,
)
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.encoder import encode_features, encoder_lengths
from tinyvoice.model.modeling import ASRModel

DEFAULT_LEFT_S = 4.0
DEFAULT_RIGHT_S = 0.64

# New audio that one window takes beside its context; more at once is taken in several windows.
STEP_S = 0.64


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


class FrozenWindowEncoder(IncrementalEncoder):
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
        super().__init__(model)
        # The convolutions look one frame ahead, so the frame at the edge is never frozen.
        self._right = max(1, round(right_s / self._frame_s))
        self._step = max(1, round(STEP_S / self._frame_s))
        self._window = round(left_s / self._frame_s) + self._step + self._right

    def _encode(
        self, states: Sequence[EncoderState], frames: Sequence[LogMelFrames]
    ) -> list[EncodedFrames]:
        """Encode the windows of all streams; each stream's last one gives its tail.

        ``state.mel`` holds frames before the clamp: a window is clamped to the loudest bin heard.
        """
        mels = [
            torch.cat((state.mel, new.log_mel)) for state, new in zip(states, frames, strict=True)
        ]
        firsts = [state.log_mel.frames - len(state.mel) for state in states]
        windows = [
            window
            for stream, (state, new) in enumerate(zip(states, frames, strict=True))
            for window in self._windows(stream, state, new)
        ]
        features = []
        for window in windows:
            first = firsts[window.stream]
            cut = mels[window.stream][window.start * MEL_PER_FRAME - first : window.mel_end - first]
            maximum = frames[window.stream].maxima[-1:]
            features.append(normalise(cut, maximum).to(self._weight.dtype))
        final: list[list[Tensor]] = [[] for _ in states]
        tails: dict[int, Tensor] = {}
        for window, hidden in zip(windows, self._encode_windows(features), strict=True):
            edge = window.freeze - window.start
            final[window.stream].append(hidden[window.frozen - window.start : edge])
            tails[window.stream] = hidden[edge:]
        return [
            EncodedFrames(torch.cat(final[i]), tails[i], self._kept(mels[i], firsts[i], frames[i]))
            for i in range(len(states))
        ]

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

    def _kept(self, mel: Tensor, first: int, new: LogMelFrames) -> Tensor:
        """The final ones of feature frames from ``first`` on that later windows may hold."""
        final = len(mel) - len(new.log_mel) + new.final
        edge: int = encoder_lengths(self._tower, first + len(mel))
        start = max(0, edge - 1 - self._window) * MEL_PER_FRAME
        return mel[max(0, start - first) : final].clone()

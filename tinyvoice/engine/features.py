"""Log-mel features of audio that is still arriving, for many streams at once.

A frame is computed once, as soon as all samples it needs are there; frames at the live edge that
still lack some are given provisionally, as they would be if the clip ended here. Before the last
step of Whisper's features, the clamp, both are those of
:meth:`~tinyvoice.model.processing.ASRProcessor.features`.

The clamp needs a rule of its own. Offline, nothing may lie further than 8 (in log10 of power) below
the clip's loudest bin; here the loudest bin up to and with the frame takes that place, and never
less than :data:`LEAST_MAXIMUM`. Frames from the loudest one on are therefore the offline ones, and
a frame does not depend on how the audio was cut into packets.

This module keeps no list of streams: a state is a value, and :meth:`IncrementalLogMel.advance`
returns the next one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinyvoice.model.processing import DYNAMIC_RANGE, POWER_FLOOR, ASRProcessor

# Loudest bin (log10 of power) assumed until a louder one is heard. Without it the quiet before the
# first word would keep details that the clamp of the whole clip hides.
LEAST_MAXIMUM = 0.0


@dataclass(frozen=True)
class LogMelState:
    """What an utterance's next frames need: less than a window and a hop of samples, at any age."""

    pending: NDArray[np.float32]
    """Samples from the start of the next frame's window on."""
    samples: int = 0
    """Samples heard."""
    frames: int = 0
    """Frames computed for good."""
    maximum: float = LEAST_MAXIMUM
    """Loudest bin of those frames, log10 of power."""


@dataclass(frozen=True)
class LogMelFrames:
    """New frames of one stream, before the clamp."""

    log_mel: Tensor
    """``(frames, mels)``, log10 of power: first the final frames, then the provisional ones."""
    maxima: Tensor
    """``(frames, 1)``: the loudest bin up to and with each frame."""
    final: int
    """How many of the frames are final."""

    def normalised(self) -> Tensor:
        """The frames as the encoder takes them, ``(frames, mels)``."""
        return normalise(self.log_mel, self.maxima)


def normalise(log_mel: Tensor, maximum: Tensor | float) -> Tensor:
    """Whisper's clamp and scaling of log10 power, given the loudest bin."""
    floor = maximum - DYNAMIC_RANGE
    clamped = log_mel.clamp_min(floor) if isinstance(floor, float) else log_mel.maximum(floor)
    return (clamped + 4.0) / 4.0


def tapered_fourier(window: int) -> Tensor:
    """A Hann window and the discrete Fourier transform as one matrix, ``(window, 2 * bins)``.

    Real parts come first, then imaginary ones. For the few frames of an update the product takes a
    fraction of the time in which an FFT library plans its work for another number of frames.
    """
    taper = torch.hann_window(window, dtype=torch.float64)
    times, bins = torch.arange(window), torch.arange(window // 2 + 1)
    # Reduced before it becomes an angle: large angles lose digits.
    angles = (times[:, None] * bins[None] % window).double() * (2 * math.pi / window)
    matrix = torch.cat((angles.cos(), -angles.sin()), dim=1)
    return (taper[:, None] * matrix).float()


class IncrementalLogMel:
    """The front end of a model's processor, frame by frame.

    Args:
        processor: says window, hop and mel bands.
        device: where features are computed, and where they lie.
    """

    def __init__(self, processor: ASRProcessor, device: torch.device | str = "cpu") -> None:
        extractor = processor.feature_extractor
        self.hop: int = extractor.hop_length
        self.window: int = extractor.n_fft
        self.mels: int = extractor.feature_size
        self.device = torch.device(device)
        self._fourier = tapered_fourier(self.window).to(self.device)
        filters = torch.from_numpy(extractor.mel_filters).to(self.device, torch.float32)
        self._filters = filters.contiguous()
        self._offsets = np.arange(self.window)

    def new_state(self) -> LogMelState:
        """The state of an utterance of which nothing has been heard."""
        return LogMelState(np.zeros(0, np.float32))

    def advance(
        self, states: Sequence[LogMelState], samples: Sequence[NDArray[np.float32]]
    ) -> tuple[list[LogMelState], list[LogMelFrames]]:
        """New frames of several streams.

        ``samples`` holds each stream's new audio, ``(samples,)`` in [-1, 1]; any may be empty.
        Returns the next states and, for each stream, its frames behind ``state.frames``.
        """
        heard = [
            np.concatenate((state.pending, new)) if len(new) else state.pending
            for state, new in zip(states, samples, strict=True)
        ]
        totals = [state.samples + len(new) for state, new in zip(states, samples, strict=True)]
        finals = [max(s.frames, self._final(n)) for s, n in zip(states, totals, strict=True)]
        counts = [self._frames(n) - s.frames for s, n in zip(states, totals, strict=True)]
        log_mel, peaks = self._log_mel(states, heard, totals, counts)

        following, frames, at = [], [], 0
        maxima = np.empty_like(peaks)
        for state, signal, total, final, count in zip(
            states, heard, totals, finals, counts, strict=True
        ):
            new, end = final - state.frames, at + count
            np.maximum.accumulate(peaks[at:end], out=maxima[at:end])
            np.maximum(maxima[at:end], state.maximum, out=maxima[at:end])
            maximum = float(maxima[at + new - 1]) if new else state.maximum
            cut = self._window_start(final) - self._window_start(state.frames)
            following.append(LogMelState(signal[cut:].copy(), total, final, maximum))
            at = end
        tops = torch.from_numpy(maxima).to(self.device)[:, None]
        at = 0
        for state, final, count in zip(states, finals, counts, strict=True):
            rows = slice(at, at + count)
            frames.append(LogMelFrames(log_mel[rows], tops[rows], final - state.frames))
            at += count
        return following, frames

    def _window_start(self, frame: int) -> int:
        """The first sample a frame's window has of the clip itself."""
        return max(0, frame * self.hop - self.window // 2)

    def _frames(self, samples: int) -> int:
        """Frames of a clip of that length; one at least, once anything was heard."""
        return max(samples, self.window, self.hop) // self.hop if samples else 0

    def _final(self, samples: int) -> int:
        """Frames that later samples cannot change, and that a clip ending here would have."""
        half = self.window // 2
        if samples <= half:
            return 0
        return min(samples // self.hop, (samples - half) // self.hop + 1)

    def _log_mel(
        self,
        states: Sequence[LogMelState],
        heard: Sequence[NDArray[np.float32]],
        totals: Sequence[int],
        counts: Sequence[int],
    ) -> tuple[Tensor, NDArray[np.float32]]:
        """Frames of all streams one behind the other, log10 of power, and each one's loudest."""
        signals, starts, at = [], [], 0
        for state, signal, total, count in zip(states, heard, totals, counts, strict=True):
            if count:
                padded = self._padded(signal, state.frames, total, count)
                signals.append(padded)
                starts.append(at + self.hop * np.arange(count))
                at += len(padded)
        if not signals:
            empty = torch.zeros(0, self.mels, device=self.device)
            return empty, np.zeros(0, np.float32)
        places = np.concatenate(starts)[:, None] + self._offsets
        windows = torch.from_numpy(np.concatenate(signals)[places]).to(self.device)
        power = (windows @ self._fourier).square_().unflatten(-1, (2, -1)).sum(dim=-2)
        log_mel = (power @ self._filters).clamp_(min=POWER_FLOOR).log10_()
        return log_mel, log_mel.amax(dim=-1).cpu().numpy()

    def _padded(
        self, signal: NDArray[np.float32], first: int, total: int, count: int
    ) -> NDArray[np.float32]:
        """The samples under ``count`` windows from frame ``first`` on, mirrored at open ends."""
        half = self.window // 2
        shortest = max(self.window, self.hop)
        if total < shortest:  # too short for one window: silence makes up the rest
            signal = np.pad(signal, (0, shortest - total))
            total = shortest
        parts = [signal]
        before = half - first * self.hop
        if before > 0:
            parts.insert(0, signal[before:0:-1])
        behind = (first + count - 1) * self.hop + half - total
        if behind > 0:
            parts.append(signal[-2 : -2 - behind : -1])
        return np.concatenate(parts) if len(parts) > 1 else signal

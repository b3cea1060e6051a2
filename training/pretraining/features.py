"""Whisper log-mel features of a padded batch in one go, for training.

The values are those of ``ASRProcessor.features`` but for a clip's last frame, whose window reaches
into the padding here instead of a mirror image of the clip. One transform for the batch is several
times faster than one a clip.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import WhisperFeatureExtractor

from tinyvoice.model.processing import DYNAMIC_RANGE, POWER_FLOOR


class LogMel:
    """Log-mel features with the settings of a feature extractor."""

    def __init__(self, extractor: WhisperFeatureExtractor) -> None:
        self.n_fft, self.hop = extractor.n_fft, extractor.hop_length
        self._window = torch.hann_window(self.n_fft)
        self._filters = torch.from_numpy(extractor.mel_filters).to(torch.float32).T

    def __call__(self, clips: list[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
        """Clips (samples,) at 16 kHz → features (batch, mels, frames), zero behind each end, and
        lengths."""
        lengths = torch.tensor([max(1, len(clip) // self.hop) for clip in clips])
        longest = max(self.n_fft, *(len(clip) for clip in clips))
        waves = torch.zeros(len(clips), longest)
        for row, clip in zip(waves, clips, strict=True):
            row[: len(clip)] = torch.from_numpy(np.ascontiguousarray(clip, dtype=np.float32))
        spectrum = torch.stft(waves, self.n_fft, self.hop, window=self._window, return_complex=True)
        power = spectrum[..., :-1].abs().square()
        log_mel = (self._filters @ power).clamp(min=POWER_FLOOR).log10()
        loudest = log_mel.amax(dim=(1, 2), keepdim=True)
        log_mel = (torch.maximum(log_mel, loudest - DYNAMIC_RANGE) + 4.0) / 4.0
        inside = torch.arange(log_mel.shape[-1])[None] < lengths[:, None]
        frames = int(lengths.max())
        return (log_mel * inside[:, None])[..., :frames], lengths

"""Semantic turn detection: whether what was said sounds finished, by smart-turn v3.

The network (https://github.com/pipecat-ai/smart-turn, BSD 2-Clause) hears the last 8 s of a turn
and judges words and melody, not the length of the pause. Its ONNX file is part of the package
``pipecat-ai``; that package is located but not imported. Features are those of Whisper at 80 mels.

It gives a probability each time it is asked. When to ask, and what follows, is endpointing.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.errors import CheckpointError, MissingExtraError

WINDOW_SECONDS = 8
"""What the network hears: the end of the turn, silence in front of a shorter one."""

_MELS = 80
_FFT_SAMPLES = 400
_HOP_SAMPLES = 160
_FOLDER = ("audio", "turn", "smart_turn", "data")
_FILES = "smart-turn-v3*-cpu.onnx"
_EXTRA, _PURPOSE = "semantic", "Turn detection by what was said"


class SmartTurn:
    """The network; without state, one serves any number of streams, one call at a time."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._filters = _mel_filters()
        self._input: str = session.get_inputs()[0].name

    @classmethod
    def load(cls) -> SmartTurn:
        """Read the network that comes with ``pipecat-ai``; nothing is downloaded.

        Raises:
            MissingExtraError: pipecat-ai or onnxruntime is not installed.
            CheckpointError: the package no longer holds the file, or it cannot be read.
        """
        path = _network_path()
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(_EXTRA, _PURPOSE) from error

        options = onnxruntime.SessionOptions()
        # One thread, as for the small models: several wait for each other longer than they work.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own classes have no common base but this
            raise CheckpointError(
                f"{path.name} cannot be read ({' '.join(str(error).split())}): "
                "pip install --force-reinstall pipecat-ai",
                key=path.name,
            ) from error
        return cls(session)

    def complete_probability(self, samples: NDArray[np.float32]) -> float:
        """How likely the turn is over at the end of ``samples``.

        Args:
            samples: ``(n,)`` float32 at 16 kHz, the turn so far with the pause at its end. The last
                8 s count.

        Returns:
            A probability: above 0.5 the network takes the turn for complete.
        """
        length = WINDOW_SECONDS * SAMPLE_RATE
        window = np.zeros(length, dtype=np.float32)
        samples = samples[-length:]
        if len(samples):
            window[-len(samples) :] = samples
        outputs = self._session.run(None, {self._input: self._log_mel(window)[None]})
        return float(outputs[0].reshape(-1)[0])

    def _log_mel(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Whisper's features (80, 800) of 8 s of loudness-normalised sound.

        In double precision as pipecat computes them: the network is quantised, and rounds
        differences in single precision into ones that show.
        """
        normalised = (window - window.mean()) / np.sqrt(window.var() + 1e-7)
        padded = np.pad(normalised.astype(np.float64), _FFT_SAMPLES // 2, mode="reflect")
        # The frame behind the last whole hop is not used.
        frames = sliding_window_view(padded, _FFT_SAMPLES)[:-1:_HOP_SAMPLES]
        spectrum = np.fft.rfft(frames * np.hanning(_FFT_SAMPLES + 1)[:-1])
        mel = np.maximum(1e-10, np.square(np.abs(spectrum)) @ self._filters)
        log_mel = np.log10(mel)
        log_mel = np.maximum(log_mel, log_mel.max() - 8.0)
        return ((log_mel.T + 4.0) / 4.0).astype(np.float32)


def _mel_filters() -> NDArray[np.float64]:
    """Whisper's filter bank (201, 80)."""
    from transformers.audio_utils import mel_filter_bank

    return mel_filter_bank(
        num_frequency_bins=_FFT_SAMPLES // 2 + 1,
        num_mel_filters=_MELS,
        min_frequency=0.0,
        max_frequency=SAMPLE_RATE / 2,
        sampling_rate=SAMPLE_RATE,
        norm="slaney",
        mel_scale="slaney",
    )


def _network_path() -> Path:
    found = importlib.util.find_spec("pipecat")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(_EXTRA, _PURPOSE)
    folder = Path(found.submodule_search_locations[0], *_FOLDER)
    files = sorted(folder.glob(_FILES))
    if not files:
        raise CheckpointError(
            f"The installed pipecat-ai has no {_FILES} in {folder}: "
            "pip install 'pipecat-ai>=1.14,<2'",
            key=_FILES,
        )
    return files[-1]

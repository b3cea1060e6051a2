"""Recordings for the browser's microphone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.speech import Clip

BROWSER_RATE = 48_000


def microphone_file(path: Path, parts: Sequence[Clip | float]) -> Path:
    """Write what a microphone hears: clips, and pauses in seconds."""
    sounds = [
        np.zeros(int(part * BROWSER_RATE), dtype=np.float32)
        if isinstance(part, int | float)
        else resample(part.samples, SAMPLE_RATE, BROWSER_RATE)
        for part in parts
    ]
    soundfile.write(path, np.concatenate(sounds), BROWSER_RATE, subtype="PCM_16")
    return path

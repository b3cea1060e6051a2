"""Sound in which nobody speaks: whatever text comes of it has been made up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE

MAINS_HZ = 50.0


def quiet_sounds(seconds: float, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """By name, each ``(seconds x 16 kHz,)`` in [-1, 1]; the same seed gives the same samples.

    White noise is at 50 and 26 dB below full scale; the hum has five harmonics, the clicks come
    four times a second with 2 ms of decay.
    """
    random = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    noise = random.standard_normal(count)
    times = np.arange(count) / SAMPLE_RATE
    hum = sum(np.sin(2 * np.pi * MAINS_HZ * order * times) / order for order in range(1, 6))
    clicks = np.zeros(count)
    decay = np.exp(-np.arange(160) / 32)
    for begin in range(SAMPLE_RATE // 8, count - len(decay), SAMPLE_RATE // 4):
        clicks[begin : begin + len(decay)] = decay * random.choice([-0.5, 0.5])
    sounds = {
        "silence": np.zeros(count),
        "faint noise": 0.003 * noise,
        "white noise": 0.05 * noise,
        "hum": 0.05 * np.asarray(hum),
        "clicks": clicks,
    }
    return {name: np.clip(sound, -1, 1).astype(np.float32) for name, sound in sounds.items()}

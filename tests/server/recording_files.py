"""One recording in every container that clients upload, for tests."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from tinyvoice.audio.resample import resample

RATE = 16_000
Samples = NDArray[np.float32]


def wav(samples: Samples) -> bytes:
    """16-bit WAV at 16 kHz mono."""
    return _by_soundfile(samples, RATE, "WAV", "PCM_16")


def _by_soundfile(samples: Samples, rate: int, form: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def _stereo_44k(samples: Samples) -> bytes:
    wide = resample(samples, RATE, 44_100)
    return _by_soundfile(np.stack([wide, wide], axis=1), 44_100, "WAV", "PCM_24")


def _telephone(samples: Samples) -> bytes:
    return _by_soundfile(resample(samples, RATE, 8_000), 8_000, "WAV", "ULAW")


def _by_av(samples: Samples, container: str, codec: str, rate: int) -> bytes:
    file = io.BytesIO()
    with cast(Any, av).open(file, "w", format=container) as output:
        track = output.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(format=track.format, layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(
            (np.clip(samples, -1, 1) * 32767).astype("<i2")[np.newaxis], "s16", "mono"
        )
        frame.sample_rate = RATE
        for one in [*resampler.resample(frame), *resampler.resample(None), None]:
            for packet in track.encode(one):
                output.mux(packet)
    return file.getvalue()


CONTAINERS: Mapping[str, Any] = MappingProxyType(
    {
        "wav": wav,
        "wav-44k-stereo-24": _stereo_44k,
        "wav-8k-ulaw": _telephone,
        "flac": lambda samples: _by_soundfile(samples, RATE, "FLAC", "PCM_16"),
        "mp3": lambda samples: _by_av(samples, "mp3", "libmp3lame", 24_000),
        "ogg-vorbis": lambda samples: _by_soundfile(samples, RATE, "OGG", "VORBIS"),
        "ogg-opus": lambda samples: _by_av(samples, "ogg", "libopus", 48_000),
        "webm-opus": lambda samples: _by_av(samples, "webm", "libopus", 48_000),
        "m4a": lambda samples: _by_av(samples, "ipod", "aac", 44_100),
        "mp4": lambda samples: _by_av(samples, "mp4", "aac", 48_000),
        "aac": lambda samples: _by_av(samples, "adts", "aac", 24_000),
    }
)
"""What clients upload: a name, and how it is made of 16 kHz mono samples."""

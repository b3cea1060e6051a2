"""Speech as bytes of a file, while it is still being spoken.

MP3, Ogg Opus, AAC (ADTS) and raw PCM are made to be streamed. WAV is streamed with the length that
means "to the end". A FLAC file without its length is refused by common readers, so that one comes
as a whole. Encoders are those of PyAV, the extra ``media``; sound is 24 kHz mono.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

SAMPLE_RATE = 24_000

CONTENT_TYPES = MappingProxyType(
    {
        "mp3": "audio/mpeg",
        "opus": "audio/ogg",
        "aac": "audio/aac",
        "flac": "audio/flac",
        "wav": "audio/wav",
        "pcm": "audio/pcm",
    }
)
"""The formats, by their names in OpenAI's API."""


class SoundFormat(Protocol):
    """Encodes one speech."""

    def encode(self, pcm16: bytes) -> bytes:
        """Take s16le mono at 24 kHz, whole samples; return what of the file is ready."""
        ...

    def finish(self) -> bytes:
        """The rest of the file."""
        ...


def build_format(name: str) -> SoundFormat:
    """An encoder of one of `CONTENT_TYPES`."""
    if name == "pcm":
        return Raw()
    if name == "wav":
        return Wave()
    return Flac() if name == "flac" else Compressed(_CODECS[name])


class Raw:
    """Samples and nothing else."""

    def encode(self, pcm16: bytes) -> bytes:
        """The same bytes."""
        return pcm16

    def finish(self) -> bytes:
        """Nothing."""
        return b""


class Wave:
    """WAV of unknown length: both length fields have all bits set."""

    def __init__(self) -> None:
        form = struct.pack("<IHHIIHH", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
        unknown = b"\xff\xff\xff\xff"
        self._header = b"RIFF" + unknown + b"WAVEfmt " + form + b"data" + unknown

    def encode(self, pcm16: bytes) -> bytes:
        """The samples, behind the header."""
        header, self._header = self._header, b""
        return header + pcm16

    def finish(self) -> bytes:
        """The header, if nothing was said."""
        return self.encode(b"")


class Flac:
    """FLAC, at the end."""

    def __init__(self) -> None:
        self._pcm16 = bytearray()

    def encode(self, pcm16: bytes) -> bytes:
        """Nothing yet."""
        self._pcm16 += pcm16
        return b""

    def finish(self) -> bytes:
        """The whole file."""
        import soundfile

        file = io.BytesIO()
        samples = np.frombuffer(self._pcm16, "<i2")
        soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        return file.getvalue()


class Codec(NamedTuple):
    """How PyAV is to make a format."""

    container: str
    encoder: str
    rate: int
    bit_rate: int
    container_options: Mapping[str, str] = MappingProxyType({})
    encoder_options: Mapping[str, str] = MappingProxyType({})


_CODECS = {
    # Without the header that is written last, which cannot be changed once it is sent, and without
    # the reservoir of bits, so that each frame can be decoded by itself.
    "mp3": Codec("mp3", "libmp3lame", SAMPLE_RATE, 64_000, {"write_xing": "0"}, {"reservoir": "0"}),
    # Pages of 100 ms, so that sound leaves before a second of it is there.
    "opus": Codec("ogg", "libopus", 48_000, 32_000, {"page_duration": "100000"}),
    "aac": Codec("adts", "aac", SAMPLE_RATE, 64_000),
}


class _Sink:
    """A file that cannot be sought in."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        self._bytes += data
        return len(data)

    def take(self) -> bytes:
        taken, self._bytes = bytes(self._bytes), bytearray()
        return taken


class Compressed:
    """A format of PyAV's."""

    def __init__(self, codec: Codec) -> None:
        import av

        self._av = cast(Any, av)
        self._sink = _Sink()
        self._container = self._av.open(
            self._sink,
            "w",
            format=codec.container,
            container_options=dict(codec.container_options),
        )
        self._track = self._container.add_stream(
            codec.encoder, rate=codec.rate, layout="mono", options=dict(codec.encoder_options)
        )
        self._track.bit_rate = codec.bit_rate
        self._resampler = self._av.AudioResampler(
            format=self._track.format, layout="mono", rate=codec.rate
        )

    def encode(self, pcm16: bytes) -> bytes:
        """What is ready."""
        if pcm16:
            samples = np.frombuffer(pcm16, "<i2")[np.newaxis]
            frame = self._av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            self._write(frame)
        return self._sink.take()

    def finish(self) -> bytes:
        """What the encoder held back."""
        self._write(None)
        for packet in self._track.encode(None):
            self._container.mux(packet)
        self._container.close()
        return self._sink.take()

    def _write(self, frame: Any) -> None:
        for converted in self._resampler.resample(frame):
            for packet in self._track.encode(converted):
                self._container.mux(packet)

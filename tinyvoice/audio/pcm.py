"""Live sound in packets of any size, made into 16 kHz mono samples.

A :class:`PCMStream` takes what a microphone, a telephone line or a client sends: samples as bytes
or arrays, one or two channels, linear or G.711, at any usual rate. How a sender cuts its sound into
packets makes no difference to the samples that come out, down to the last bit.

It refuses what is not sound, packet by packet; it does not repair, and knows nothing of files.
"""

from __future__ import annotations

import operator
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.audio.g711 import decode_alaw, decode_mulaw
from tinyvoice.audio.resample import Resampler
from tinyvoice.errors import AudioError

LOWEST_STREAM_RATE = 8_000
HIGHEST_STREAM_RATE = 192_000
"""Rates in Hz that live sound comes in; those of files may be further apart."""

Encoding = Literal["pcm16", "float32", "mulaw", "alaw"]
"""How bytes hold samples: little-endian 16-bit integers or 32-bit floats, or G.711."""

_SAMPLE_BYTES = {"pcm16": 2, "float32": 4, "mulaw": 1, "alaw": 1}

_LOUDEST = 8.0
"""Floats beyond it are integers by mistake; those between 1 and it are clipped."""

_FILE_MARKS = {
    b"RIFF": "a WAV file",
    b"OggS": "an Ogg file",
    b"fLaC": "a FLAC file",
    b"ID3": "an MP3 file",
    b"\x1aE\xdf\xa3": "a WebM recording",
}


class AudioFormatError(AudioError):
    """A stream's rate, channels or encoding cannot be used."""


class AudioPacketError(AudioError):
    """A packet holds no usable sound; it is dropped, and the stream takes the next one."""


class PCMStream:
    """One live source's sound, in order; create one for each source.

    Args:
        sample_rate: whole number of Hz between 8,000 and 192,000.
        channels: 1, or 2 which are averaged.
        encoding: how the bytes of packets hold samples (`Encoding`); the channels alternate.
        after: the finished stream of the same source whose place this one takes.

    Raises:
        AudioFormatError: something else was given.
    """

    def __init__(
        self,
        sample_rate: int,
        channels: int = 1,
        encoding: str = "pcm16",
        after: PCMStream | None = None,
    ) -> None:
        self.sample_rate = _check_rate(sample_rate)
        if isinstance(channels, bool) or channels not in (1, 2):
            raise AudioFormatError(
                f"A stream has one or two channels, not {channels!r}: send 1 or 2, mixed down if "
                "there are more."
            )
        if encoding not in get_args(Encoding):
            raise AudioFormatError(
                f"{encoding!r} is not an encoding of a stream: choose one of "
                f"{', '.join(get_args(Encoding))}."
            )
        self.channels = int(channels)
        self.encoding = encoding
        self._frame_bytes = _SAMPLE_BYTES[encoding] * self.channels
        self._carried = b""
        ahead = 0 if after is None else after.delay_samples
        self._resampler = Resampler(self.sample_rate, SAMPLE_RATE, ahead)
        self._begun = self._finished = False

    @property
    def delay_samples(self) -> int:
        """How much later than it was spoken sound comes out, in samples at 16 kHz."""
        return self._resampler.delay_samples

    def decode(self, packet: bytes | bytearray | memoryview | NDArray[Any]) -> NDArray[np.float32]:
        """Take the next packet; return the samples that are ready, ``(n,)`` at 16 kHz, n ≥ 0.

        Bytes may end anywhere: what is left of a sample, or of a pair of channels, waits for the
        next packet. An array, ``(samples,)`` or ``(samples, channels)``, holds whole samples as
        int16 or floats in [-1, 1] (or, in a G.711 stream, uint8 codes), whatever the encoding of
        bytes. At another rate than 16 kHz sound is a millisecond or three late, but all samples
        that are due are there: nobody waits for the filter.

        Raises:
            AudioPacketError: the packet is empty, not sound, or comes after :meth:`finish`. All of
                it is dropped, nothing of what came before is, and the stream goes on.
        """
        return self.resample(self.read(packet))

    def read(self, packet: bytes | bytearray | memoryview | NDArray[Any]) -> NDArray[np.float32]:
        """The first half of :meth:`decode`: the packet's samples, ``(n,)`` at the stream's rate.

        For packets that are read in pieces and are to be left out whole where one of them is no
        sound: only what is given to :meth:`resample` has come in. Raises as :meth:`decode` does.
        """
        if self._finished:
            raise AudioPacketError("The stream has ended: open another one for more sound.")
        samples = (
            self._from_array(packet) if isinstance(packet, np.ndarray) else self._from_bytes(packet)
        )
        self._begun = True
        return _mixed(samples)

    def resample(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The second half of :meth:`decode`, for samples that :meth:`read` gave."""
        return self._resampler.process(samples)

    def finish(self) -> NDArray[np.float32]:
        """End the stream; return the samples that the resampling filter held back, ``(n,)``.

        Bytes of an incomplete sample are no sound and go. A second call returns nothing.
        """
        if self._finished:
            return np.zeros(0, dtype=np.float32)
        self._finished = True
        self._carried = b""
        return self._resampler.process(np.zeros(0, dtype=np.float32), last=True)

    def _from_bytes(self, packet: bytes | bytearray | memoryview) -> NDArray[np.float32]:
        """Whole frames (n, channels) of what was carried over and the packet."""
        try:
            content = memoryview(packet).tobytes()
        except TypeError:
            raise AudioPacketError(
                f"A packet is bytes or a NumPy array, not {type(packet).__name__}."
            ) from None
        if not content:
            raise AudioPacketError("The packet is empty: send samples, or nothing.")
        if not self._begun and not self._carried:
            _check_mark(content)
        content = self._carried + content
        whole = len(content) - len(content) % self._frame_bytes
        # Kept even where the packet is refused: the samples behind it stay aligned.
        self._carried = content[whole:]
        if self.encoding == "pcm16":
            samples = _from_int16(np.frombuffer(content, dtype="<i2", count=whole // 2))
        elif self.encoding == "float32":
            samples = _from_float(np.frombuffer(content, dtype="<f4", count=whole // 4))
        else:
            samples = self._from_codes(np.frombuffer(content, dtype=np.uint8, count=whole))
        return samples.reshape(-1, self.channels)

    def _from_array(self, packet: NDArray[Any]) -> NDArray[np.float32]:
        """The frames (n, channels) of an array."""
        if packet.ndim == 1 and self.channels == 1:
            packet = packet[:, None]
        if packet.ndim != 2 or packet.shape[1] != self.channels:
            shape = "(samples,)" if self.channels == 1 else f"(samples, {self.channels})"
            raise AudioPacketError(
                f"An array of shape {packet.shape} does not fit a stream of {self.channels} "
                f"channel{'s' if self.channels > 1 else ''}: send {shape}."
            )
        if not packet.size:
            raise AudioPacketError("The packet is empty: send samples, or nothing.")
        if self._carried:
            raise AudioPacketError(
                "An array cannot follow bytes that end within a sample: send the rest of it first."
            )
        if packet.dtype == np.int16:
            return _from_int16(packet)
        if np.issubdtype(packet.dtype, np.floating):
            return _from_float(packet)
        if packet.dtype == np.uint8 and self.encoding in ("mulaw", "alaw"):
            return self._from_codes(packet)
        raise AudioPacketError(
            f"An array of {packet.dtype} is not taken: send int16, or float32 in [-1, 1]."
        )

    def _from_codes(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        return decode_mulaw(codes) if self.encoding == "mulaw" else decode_alaw(codes)


def _check_rate(rate: Any) -> int:
    try:
        usable = not isinstance(rate, bool) and (
            LOWEST_STREAM_RATE <= operator.index(rate) <= HIGHEST_STREAM_RATE
        )
    except TypeError:
        usable = False
    if not usable:
        raise AudioFormatError(
            f"A sample rate of {rate!r} Hz cannot be used for a stream: give a whole number "
            f"between {LOWEST_STREAM_RATE} and {HIGHEST_STREAM_RATE}."
        )
    return operator.index(rate)


def _check_mark(content: bytes) -> None:
    """Refuse the beginning of a file: its header and compressed sound would be noise."""
    for mark, kind in _FILE_MARKS.items():
        if content.startswith(mark):
            raise AudioPacketError(
                f"The packet is the beginning of {kind}: send the samples alone, decoded and "
                "without a header."
            )


def _from_int16(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    return samples.astype(np.float32) / np.float32(32768)


def _from_float(samples: NDArray[Any]) -> NDArray[np.float32]:
    """A copy as float32 within [-1, 1]."""
    loudest = float(np.abs(samples).max(initial=0.0))  # NaN where there is one
    if not np.isfinite(loudest):
        raise AudioPacketError(
            "The packet holds values that are not numbers (NaN or infinity): send samples in "
            "[-1, 1]."
        )
    if loudest > _LOUDEST:
        raise AudioPacketError(
            f"The packet holds floats up to {loudest:.6g}, where samples lie in [-1, 1]: divide "
            "integers by their full scale, or check the encoding and the byte order."
        )
    return np.clip(samples, -1.0, 1.0).astype(np.float32)


def _mixed(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """The average of the channels, (n, channels) to (n,)."""
    if frames.shape[1] == 1:
        return frames[:, 0]
    return (frames[:, 0] + frames[:, 1]) * np.float32(0.5)

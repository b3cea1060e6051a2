"""Audio tracks of containers that libsndfile does not know (MP4, M4A, WebM, AVI…), through PyAV.

PyAV is the extra ``media``. The first audio track is decoded; pictures are skipped unread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tinyvoice.errors import AudioError, MissingExtraError

logger = logging.getLogger(__name__)

Blocks = Iterator[NDArray[np.floating[Any]]]


def container_name(head: bytes) -> str | None:
    """Name the container that begins with these bytes, or None if it is none that PyAV reads."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "MP4"
    if head[:4] == b"RIFF":
        if head[8:12] == b"AVI ":
            return "AVI"
        # A whole WAVE that libsndfile refuses has a codec it does not know, such as AC-3.
        return "WAV" if head[8:12] == b"WAVE" and b"data" in head else None
    if head[:4] == b"OggS" and (b"OpusHead" in head or b"\x01vorbis" in head):
        return None  # libsndfile knows these: if it refuses one, the file is cut off
    if head[:1] == b"\x47" and head[188:189] == b"\x47":
        return "MPEG transport stream"
    if head[:2] in (b"\xff\xf1", b"\xff\xf9"):
        return "AAC"
    for magic, name in (
        (b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
        (b"OggS", "Ogg"),
        (b"FLV\x01", "Flash video"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media"),
        (b"\x00\x00\x01\xba", "MPEG"),
        (b"\x00\x00\x01\xb3", "MPEG"),
        (b"#!AMR", "AMR"),
        (b"MAC ", "Monkey's Audio"),
        (b"wvpk", "WavPack"),
        (b"\x0b\x77", "AC-3"),
    ):
        if head.startswith(magic):
            return name
    return None


@contextmanager
def open_container(file: BinaryIO, name: str, kind: str) -> Iterator[tuple[int, int, Blocks]]:
    """Open the first audio track: its rate in Hz, its channels, its blocks ``(frames, channels)``.

    Raises:
        MissingExtraError: PyAV is not installed.
        AudioError: there is no audio track, or it cannot be decoded.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("media", f"{name}: reading {kind} files") from error
    try:
        container = av.open(file, mode="r")
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(
            f"{name}: is a damaged {kind} file ({_reason(error)}); export or download it again.",
            path=name,
        ) from error
    with container:
        if not container.streams.audio:
            raise AudioError(f"{name}: has no audio track; give a file with sound.", path=name)
        track = container.streams.audio[0]
        rate, channels = track.codec_context.sample_rate, track.codec_context.channels
        yield rate, channels, _blocks(av, container, track, name)


def _blocks(av: Any, container: Any, track: Any, name: str) -> Blocks:
    # The container may change rate or layout midway; the converter keeps to the first ones.
    converter = av.AudioResampler(
        format="flt", layout=track.codec_context.layout, rate=track.codec_context.sample_rate
    )
    channels = track.codec_context.channels
    done = 0
    try:
        for frame in container.decode(track):
            for converted in converter.resample(frame):
                block = converted.to_ndarray().reshape(-1, channels)
                done += len(block)
                yield block
    except av.FFmpegError as error:
        if not done:
            raise AudioError(
                f"{name}: its audio track cannot be decoded ({_reason(error)}); convert it to WAV.",
                path=name,
            ) from error
        seconds = done / track.codec_context.sample_rate
        logger.warning(
            "%s: is damaged after %.1f s (%s); what comes before is used.",
            name,
            seconds,
            _reason(error),
        )


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")

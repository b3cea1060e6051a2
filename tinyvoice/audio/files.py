"""Reading audio from files, bytes, streams, URLs and arrays as mono float32 at 16 kHz.

WAV, FLAC, Ogg (Vorbis, Opus), MP3, AIFF and what else libsndfile knows are read by it; MP4, WebM,
M4A and other containers by PyAV, the extra ``media``. Sound is decoded, mixed and resampled block
by block, so an hour of 48 kHz stereo costs the memory of its 16 kHz mono result and little more.

It does not cut, trim, normalise the loudness of, or enhance what it reads.
"""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from tinyvoice.audio.resample import HIGHEST_RATE, LOWEST_RATE, Resampler
from tinyvoice.errors import AudioError, AudioTooLongError

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16_000
"""Rate in Hz of everything behind this module."""

_BLOCK_FRAMES = 1 << 14  # what is lost, at most, in front of a damaged place
_MOST_CHANNELS = 64
_SNIFFED_BYTES = 4096
_URL_SCHEMES = ("http://", "https://")


@dataclass(frozen=True)
class AudioLimits:
    """What is refused for its size, before it fills the memory.

    Attributes:
        max_seconds: longest clip; four hours of result take 920 MB.
        max_bytes: largest file, download or standard input, as stored.
        fetch_seconds: longest time that fetching a URL may take.
    """

    max_seconds: float = 4 * 3600.0
    max_bytes: int = 2 << 30
    fetch_seconds: float = 120.0


DEFAULT_LIMITS = AudioLimits()


@dataclass(frozen=True, eq=False)
class Audio:
    """A clip that the models can take.

    Attributes:
        samples: ``(n,)`` float32, mono, 16 kHz, within [-1, 1], n ≥ 1.
        source: name of where it came from, for messages.
        source_rate: sample rate in Hz before conversion.
        channels: number of channels before mixing.
    """

    samples: NDArray[np.float32]
    source: str
    source_rate: int = SAMPLE_RATE
    channels: int = 1

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE


def load_audio(
    source: str | Path | bytes | BinaryIO | NDArray[Any] | Audio | Any,
    *,
    sample_rate: int | None = None,
    name: str | None = None,
    limits: AudioLimits = DEFAULT_LIMITS,
) -> Audio:
    """Read audio from anywhere.

    Channels are averaged. Samples that are not numbers become silence, with a warning in the log;
    floating-point sound that goes beyond [-1, 1] is scaled down as a whole.

    Args:
        source: a path; a URL (``http://``, ``https://``: never pass on one that a stranger chose);
            the bytes of a file; an open binary file; or an array ``(samples,)``,
            ``(samples, channels)`` or ``(channels, samples)``, integer or floating, of NumPy,
            torch or anything that turns into NumPy. An ``Audio`` is returned as it is.
        sample_rate: rate in Hz of an array, 16 kHz unless said. Files carry their own.
        name: what messages call the source; its own name unless said.
        limits: longest clip and largest file accepted.

    Raises:
        AudioError: missing, unreadable, not audio, empty, too long or too large.
        MissingExtraError: a container that takes the extra ``media``, which is not installed.
    """
    if isinstance(source, Audio):
        return source
    if isinstance(source, str) and not source:
        raise AudioError(
            "A file name is empty; give the name of a recording (is a variable of the shell not "
            "set?).",
            path="",
        )
    if isinstance(source, str) and source.lower().startswith(_URL_SCHEMES):
        from tinyvoice.audio.download import fetch

        content = fetch(source, max_bytes=limits.max_bytes, timeout_s=limits.fetch_seconds)
        return _load_stream(io.BytesIO(content), name or source, limits)
    if isinstance(source, str) and "://" in source and not Path(source).exists():
        raise AudioError(
            f"{name or source}: addresses of this kind are not fetched; give an http or https "
            "address, or a file.",
            path=name or source,
        )
    if isinstance(source, str | os.PathLike):
        return _load_path(Path(source), name or str(source), limits)
    if isinstance(source, bytes | bytearray | memoryview):
        return _load_stream(io.BytesIO(source), name or "audio data", limits)
    if hasattr(source, "read"):
        shown = name or str(getattr(source, "name", "audio stream"))
        return _load_stream(_seekable(source, shown, limits), shown, limits)
    rate = SAMPLE_RATE if sample_rate is None else sample_rate
    return _load_array(source, rate, name or "audio array", limits)


def _load_path(path: Path, name: str, limits: AudioLimits) -> Audio:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(
                f"{name}: is a folder; name the files in it, for example {path / '*.wav'}.",
                path=name,
            )
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise AudioError(f"{name}: is a device; give a file with audio.", path=name)
        with path.open("rb") as file:
            return _load_stream(_seekable(file, name, limits), name, limits)
    except FileNotFoundError:
        raise AudioError(
            f"{name}: no such file; check the name and the folder.", path=name
        ) from None
    except PermissionError:
        raise AudioError(
            f"{name}: you may not read this file; change its permissions or ask its owner.",
            path=name,
        ) from None
    except (OSError, ValueError) as error:  # names too long or with a zero byte, broken disks
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(
            f"{name}: cannot be read ({reason}); check the file.", path=name
        ) from error


def _seekable(file: Any, name: str, limits: AudioLimits) -> BinaryIO:
    """Return the file itself if one can seek in it, otherwise what it holds, up to the limit."""
    too_large = AudioError(
        f"{name}: is larger than the {_size(limits.max_bytes)} allowed; split it or raise the "
        "limit on file size.",
        path=name,
    )
    if hasattr(file, "seekable") and file.seekable():
        if file.seek(0, io.SEEK_END) > limits.max_bytes:
            raise too_large
        file.seek(0)
        return file
    content = io.BytesIO()
    while block := file.read(1 << 20):
        if isinstance(block, str):
            raise AudioError(f"{name}: was opened as text; open it as binary.", path=name)
        content.write(block)
        if content.tell() > limits.max_bytes:
            raise too_large
    content.seek(0)
    return content


def _load_stream(file: BinaryIO, name: str, limits: AudioLimits) -> Audio:
    head = file.read(_SNIFFED_BYTES)
    file.seek(0)
    if not head:
        raise AudioError(f"{name}: is empty (0 bytes); record or export it again.", path=name)
    try:
        opened = soundfile.SoundFile(_Unnamed(file))
    except soundfile.LibsndfileError:
        file.seek(0)
        return _load_container(file, head, name, limits)
    with opened as sound:
        if sound.frames == 0 and head[:4] == b"RIFF":
            repaired = _with_open_length(file)
            if repaired is not None:
                return _load_stream(repaired, name, limits)
        assembly = _Assembly(name, sound.samplerate, sound.channels, limits)
        # A stream's header may promise any length, so it only serves to refuse what must be.
        if 0 < sound.frames < 1 << 40:
            assembly.expect(sound.frames)
        for block in _sound_blocks(sound, name):
            assembly.add(block)
        return assembly.finish()


class _Unnamed:
    """A binary file without its name: soundfile would trust a suffix more than the content."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self.seek = file.seek
        self.tell = file.tell


def _sound_blocks(sound: soundfile.SoundFile, name: str) -> Iterator[NDArray[np.float32]]:
    done = 0
    while True:
        try:
            block = sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            if not done:
                raise AudioError(
                    f"{name}: is damaged ({_reason(error)}); export or download it again.",
                    path=name,
                ) from error
            logger.warning(
                "%s: is damaged after %.1f s (%s); what comes before is used.",
                name,
                done / sound.samplerate,
                _reason(error),
            )
            return
        if not len(block):
            return
        done += len(block)
        yield block


def _reason(error: soundfile.LibsndfileError) -> str:
    return error.error_string.removeprefix("Error : ").rstrip(".")


def _load_container(file: BinaryIO, head: bytes, name: str, limits: AudioLimits) -> Audio:
    from tinyvoice.audio.containers import container_name, open_container

    kind = container_name(head)
    if kind is None:
        raise AudioError(
            f"{name}: is not audio ({_impression(head)}); give a WAV, FLAC, Ogg, MP3, AIFF, MP4 "
            "or WebM file.",
            path=name,
        )
    with open_container(file, name, kind) as (rate, channels, blocks):
        assembly = _Assembly(name, rate, channels, limits)
        for block in blocks:
            assembly.add(block)
        return assembly.finish()


def _impression(head: bytes) -> str:
    """Say in a few words what bytes that are not audio look like."""
    if head[:4] in (b"RIFF", b"FORM", b"fLaC", b"OggS", b"ID3\x03", b"ID3\x04"):
        return "its header is damaged or cut off"
    for magic, words in (
        (b"%PDF", "it is a PDF"),
        (b"PK\x03\x04", "it is a ZIP archive"),
        (b"\x1f\x8b", "it is a gzip archive"),
        (b"\x89PNG", "it is a picture"),
        (b"\xff\xd8\xff", "it is a picture"),
        (b"GIF8", "it is a picture"),
    ):
        if head.startswith(magic):
            return words
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character cut by the end of what was sniffed is still text.
        text = head[: error.start].decode("utf-8") if error.start > len(head) - 4 else "\0"
    if all(character.isprintable() or character.isspace() for character in text):
        return "it looks like text"
    return "its format is unknown"


def _with_open_length(file: BinaryIO) -> BinaryIO | None:
    """Repair a WAV whose writer never came to fill in the length of the data.

    Returns the content with the length that means "to the end", or None if it is whole as it is.
    """
    file.seek(0)
    content = bytearray(file.read())
    at = 12
    while at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        if content[at : at + 4] == b"data":
            if size or at + 8 == len(content):
                return None
            content[at + 4 : at + 8] = b"\xff\xff\xff\xff"
            return io.BytesIO(content)
        at += 8 + size + size % 2
    return None


def _load_array(source: Any, rate: int, name: str, limits: AudioLimits) -> Audio:
    if hasattr(source, "detach"):  # a torch tensor, wherever it lies, in bfloat16 too
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()
    try:
        samples = np.asarray(source)
    except ValueError as error:
        raise AudioError(
            f"{name}: rows of different lengths are not one clip; give an array of samples.",
            path=name,
        ) from error
    if samples.dtype.kind not in "iuf":
        raise AudioError(
            f"{name}: holds {samples.dtype} values; give integer or floating-point samples, "
            "a path, bytes or an open file.",
            path=name,
        )
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    if samples.ndim == 1:
        samples = samples[:, np.newaxis]
    if samples.ndim != 2 or samples.shape[1] > _MOST_CHANNELS:
        raise AudioError(
            f"{name}: has the shape {np.shape(source)}; give (samples,) or (samples, channels), "
            "one clip at a time.",
            path=name,
        )
    assembly = _Assembly(name, rate, max(samples.shape[1], 1), limits)
    assembly.expect(len(samples))
    for start in range(0, samples.size and len(samples), _BLOCK_FRAMES):
        assembly.add(_to_float(samples[start : start + _BLOCK_FRAMES]))
    return assembly.finish()


def _to_float(block: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Scale integers to [-1, 1); leave floating-point values as they are."""
    if block.dtype.kind == "f":
        return block
    bits = 8 * block.dtype.itemsize
    centre = 2.0 ** (bits - 1) if block.dtype.kind == "u" else 0.0
    scaled = (block.astype(np.float64) - centre) / 2.0 ** (bits - 1)
    return scaled.astype(np.float32)


class _Assembly:
    """Takes blocks ``(frames, channels)`` and builds the mono 16 kHz clip from them."""

    def __init__(self, name: str, rate: int, channels: int, limits: AudioLimits) -> None:
        if not LOWEST_RATE <= rate <= HIGHEST_RATE or int(rate) != rate:
            raise AudioError(
                f"{name}: has a sample rate of {rate} Hz, which cannot be right; "
                f"give audio between {LOWEST_RATE} and {HIGHEST_RATE} Hz.",
                path=name,
            )
        self.name = name
        self.rate = int(rate)
        self.channels = channels
        self.limits = limits
        self._resampler = Resampler(self.rate, SAMPLE_RATE)
        self._samples = np.empty(SAMPLE_RATE, dtype=np.float32)
        self._length = 0
        self._frames = 0
        self._not_finite = 0
        self._values = 0
        self._peak = 0.0

    def expect(self, frames: int) -> None:
        """Refuse at once what a header says is too long, and make room for the rest."""
        self._check_length(frames)
        room = frames * SAMPLE_RATE // self.rate + SAMPLE_RATE
        # Memory that is never written to is never taken, so a header that lies costs nothing.
        self._samples = np.empty(room, dtype=np.float32)

    def add(self, block: NDArray[np.floating[Any]]) -> None:
        self._frames += len(block)
        self._check_length(self._frames)
        with np.errstate(over="ignore"):
            block = block.astype(np.float32, copy=False)
        finite = np.isfinite(block)
        if not finite.all():
            self._not_finite += int(finite.size - np.count_nonzero(finite))
            block = np.where(finite, block, 0)
        self._values += block.size
        mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        if len(mono):
            self._peak = max(self._peak, float(np.max(np.abs(mono))))
        self._append(self._resampler.process(mono))

    def finish(self) -> Audio:
        if not self._frames:
            raise AudioError(
                f"{self.name}: has no samples; record or export it again.", path=self.name
            )
        if self._not_finite == self._values:
            raise AudioError(
                f"{self.name}: every sample is NaN or infinite; export it again.", path=self.name
            )
        if self._not_finite:
            logger.warning(
                "%s: %d of %d samples are NaN or infinite and were replaced by silence.",
                self.name,
                self._not_finite,
                self._values,
            )
        self._append(self._resampler.process(np.zeros(0, dtype=np.float32), last=True))
        samples = self._samples[: self._length]
        if not len(samples):
            raise AudioError(
                f"{self.name}: is shorter than one sample at 16 kHz; give a longer clip.",
                path=self.name,
            )
        if self._peak > 1.0:
            samples /= self._peak
        np.clip(samples, -1.0, 1.0, out=samples)  # the filter of the resampler overshoots a little
        return Audio(samples, self.name, self.rate, self.channels)

    def _append(self, samples: NDArray[np.float32]) -> None:
        end = self._length + len(samples)
        if end > len(self._samples):
            grown = np.empty(max(end, 2 * len(self._samples)), dtype=np.float32)
            grown[: self._length] = self._samples[: self._length]
            self._samples = grown
        self._samples[self._length : end] = samples
        self._length = end

    def _check_length(self, frames: int) -> None:
        if frames > self.limits.max_seconds * self.rate:
            raise AudioTooLongError(
                f"{self.name}: is longer than the {_length(self.limits.max_seconds)} allowed; "
                "split it or raise the limit on duration.",
                path=self.name,
            )


def _size(count: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024  # type: ignore[assignment]
    return f"{count:.1f} GB"


def _length(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min" if seconds < 7200 else f"{seconds / 3600:g} h"

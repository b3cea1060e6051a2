"""Manifests of utterances: JSON lines that say where speech lies and what is said in it.

One line is one utterance::

    {"audio_filepath": "shard-00003.wav", "offset": 12.5, "duration": 2.31, "text": "call mom",
     "voice": "en-us+f2", "words": [["call", 0.1, 0.42], ["mom", 0.42, 0.8]], "phonemes": [...]}

``audio_filepath`` is relative to the manifest; ``offset`` (0), ``voice``, ``words`` and
``phonemes`` are optional, and keys of other tools are ignored. Times are seconds; those of words
and phonemes count from the start of the utterance. Many utterances may share a file, so reading
one seeks into it and reads no more than it needs.

Labels are taken as they are: normalising and dropping them is the corpus's work
(`training.data.corpora`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
import soundfile
from numpy.typing import NDArray

from tinyvoice.audio.resample import resample
from tinyvoice.errors import AudioError, ManifestError

SAMPLE_RATE = 16_000

OnError = Literal["raise", "skip"]
ADVICE: dict[OnError, str] = {
    "raise": "correct the line or {skip_with}",
    "skip": "the line is left out until it is corrected",
}
"""What the error of a broken line tells to do; ``skip_with`` is how that is said to the program."""

WordTimes = tuple[tuple[str, float, float], ...]
"""Words in order: text, start and end in seconds from the start of the utterance."""

PhonemeTimes = tuple[tuple[str, float], ...]
"""Phonemes in order: symbol and start in seconds from the start of the utterance."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One line of a manifest; ``path`` is absolute or relative to the working directory."""

    path: Path
    duration: float
    """Seconds."""
    text: str
    offset: float = 0.0
    """Where the utterance starts in the file, in seconds."""
    voice: str | None = None
    words: WordTimes | None = None
    phonemes: PhonemeTimes | None = None


@dataclass(frozen=True)
class Manifest:
    """The usable lines of a manifest, in order, and what was wrong with the others."""

    path: Path
    utterances: list[Utterance]
    errors: list[ManifestError]

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def duration(self) -> float:
        """Seconds of speech in all utterances."""
        return sum(utterance.duration for utterance in self.utterances)


def read_manifest(
    path: str | Path,
    *,
    on_error: OnError = "raise",
    phonemes: bool = False,
    skip_with: str = "set data.on_error=skip",
) -> Manifest:
    """Read a manifest; ``phonemes=False`` leaves phonemes out, which saves much of the memory.

    ``skip_with`` is what errors tell the user to do in order to leave broken lines out.

    Audio is not opened here: a file that is missing shows when it is read.

    Raises:
        ManifestError: the manifest is missing or not text, or, with ``on_error="raise"``, one of
            its lines is broken; the message names file and line. With ``"skip"`` broken lines are
            collected in `Manifest.errors`.
    """
    path = Path(path)
    utterances: list[Utterance] = []
    errors: list[ManifestError] = []
    advice = ADVICE[on_error].format(skip_with=skip_with)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    utterances.append(_parse_line(line, path, number, phonemes, advice))
                except ManifestError as error:
                    if on_error == "raise":
                        raise
                    errors.append(error)
    except OSError as error:
        raise ManifestError(
            f"The manifest {path} cannot be read ({error.strerror or error}): give the path of a "
            "JSON-lines file.",
            path=str(path),
        ) from error
    return Manifest(path, utterances, errors)


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> int:
    """Write a manifest and return its number of lines; audio paths become relative if they can."""
    path = Path(path)
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for utterance in utterances:
            count += 1
            json.dump(_to_record(utterance, path.parent), file, ensure_ascii=False)
            file.write("\n")
    return count


def read_samples(utterance: Utterance) -> NDArray[np.float32]:
    """Return the utterance's audio: mono, 16 kHz, float32 ``(samples,)``, read by seeking.

    Raises:
        AudioError: the file is missing, is not audio, or ends before the utterance does.
    """
    try:
        with soundfile.SoundFile(str(utterance.path)) as file:
            rate = file.samplerate
            start = round(utterance.offset * rate)
            count = round(utterance.duration * rate)
            # A duration written with two decimals may reach past the end by a rounding.
            if start >= file.frames or start + count > file.frames + rate // 20:
                raise AudioError(
                    f"{utterance.path} ends at {file.frames / rate:.2f} s, before the utterance at "
                    f"{utterance.offset:.2f} to {utterance.offset + utterance.duration:.2f} s: "
                    "correct offset and duration in the manifest.",
                    path=str(utterance.path),
                )
            file.seek(start)
            channels = file.read(count, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise AudioError(
            f"{utterance.path} cannot be read as audio ({error}): correct the manifest or "
            "remove its line.",
            path=str(utterance.path),
        ) from error
    samples = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
    if not np.isfinite(samples).all():
        raise AudioError(
            f"{utterance.path} holds samples that are not numbers at {utterance.offset:.2f} s: "
            "remove its line from the manifest.",
            path=str(utterance.path),
        )
    return resample(np.ascontiguousarray(samples), rate, SAMPLE_RATE)


def _parse_line(line: bytes, path: Path, number: int, phonemes: bool, advice: str) -> Utterance:
    """Parse one line, or raise `ManifestError` naming ``path:number`` and what to do."""

    def broken(reason: str) -> ManifestError:
        return ManifestError(
            f"{path}:{number}: {reason}; {advice}.",
            path=str(path),
            line=number,
        )

    try:
        record = json.loads(line.strip())
    except json.JSONDecodeError as error:
        # The error's own line number would be that inside the line.
        raise broken(f"not a line of JSON ({error.msg}, character {error.pos + 1})") from error
    except (ValueError, RecursionError) as error:
        raise broken(f"not a line of JSON ({error})") from error
    if not isinstance(record, dict):
        raise broken("not a JSON object")
    audio, text = record.get("audio_filepath"), record.get("text")
    if not isinstance(audio, str) or not audio:
        raise broken("'audio_filepath' is missing or not a string")
    if not isinstance(text, str):
        raise broken("'text' is missing or not a string")
    duration, offset = record.get("duration"), record.get("offset", 0.0)
    if not _is_time(duration) or duration == 0:
        raise broken("'duration' is missing or not a positive number of seconds")
    if not _is_time(offset):
        raise broken("'offset' is not a number of seconds of 0 or more")
    voice = record.get("voice")
    try:
        words = _parse_words(record.get("words"))
        phones = _parse_phonemes(record.get("phonemes")) if phonemes else None
    except (TypeError, ValueError) as error:
        raise broken(str(error)) from error
    return Utterance(
        path=path.parent / audio,
        duration=float(duration),
        text=text,
        offset=float(offset),
        voice=None if voice is None else str(voice),
        words=words,
        phonemes=phones,
    )


def _is_time(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a finite number of seconds, not negative."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value >= 0
    )


def _parse_words(value: Any) -> WordTimes | None:
    """Check ``[[text, start, end], …]``, each word starting no earlier than the last."""
    if value is None:
        return None
    words: list[tuple[str, float, float]] = []
    previous = 0.0
    for entry in _entries(value, "words"):
        if len(entry) != 3 or not isinstance(entry[0], str):
            raise ValueError("'words' is not a list of [text, start, end]")
        text, start, end = entry
        if not _is_time(start) or not _is_time(end) or not previous <= start <= end:
            raise ValueError(f"'words' has times out of order at {text!r}")
        words.append((text, float(start), float(end)))
        previous = start
    return tuple(words)


def _parse_phonemes(value: Any) -> PhonemeTimes | None:
    """Check ``[[symbol, start], …]``."""
    if value is None:
        return None
    phones: list[tuple[str, float]] = []
    for entry in _entries(value, "phonemes"):
        if len(entry) != 2 or not isinstance(entry[0], str) or not _is_time(entry[1]):
            raise ValueError("'phonemes' is not a list of [symbol, start]")
        phones.append((entry[0], float(entry[1])))
    return tuple(phones)


def _entries(value: Any, key: str) -> Sequence[Sequence[Any]]:
    """Return ``value`` if it is a list of lists."""
    if not isinstance(value, list) or not all(isinstance(entry, list) for entry in value):
        raise ValueError(f"'{key}' is not a list of lists")
    return value


def _to_record(utterance: Utterance, folder: Path) -> dict[str, Any]:
    """Return the JSON object of an utterance, without the keys that hold their defaults."""
    path = utterance.path
    if path.is_relative_to(folder):
        path = path.relative_to(folder)
    record: dict[str, Any] = {"audio_filepath": path.as_posix()}
    if utterance.offset:
        record["offset"] = utterance.offset
    record |= {"duration": utterance.duration, "text": utterance.text}
    if utterance.voice is not None:
        record["voice"] = utterance.voice
    if utterance.words is not None:
        record["words"] = [list(word) for word in utterance.words]
    if utterance.phonemes is not None:
        record["phonemes"] = [list(phone) for phone in utterance.phonemes]
    return record

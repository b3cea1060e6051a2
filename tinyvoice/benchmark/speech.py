"""What the benchmark plays: utterances with their texts and, where known, the times of their words.

A set comes from the package (:data:`BUNDLED`, synthetic speech), from a folder of recordings with
``manifest.jsonl`` or ``transcripts.tsv`` beside them, or from a manifest. How utterances are strung
together is in ``timeline.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE, load_audio
from tinyvoice.errors import ManifestError

BUNDLED = Path(__file__).with_name("speech")
MANIFEST = "manifest.jsonl"
TRANSCRIPTS = "transcripts.tsv"
SOUND_SUFFIXES = (".flac", ".wav", ".ogg", ".mp3", ".opus", ".m4a")

_AUDIBLE = 0.01
"""Part of a clip's peak above which it counts as sounding, where no word times are known."""


@dataclass(frozen=True)
class Clip:
    """One utterance to play."""

    name: str
    samples: NDArray[np.float32]
    """16 kHz mono in [-1, 1]."""
    text: str | None
    """What is said; None where that is not known."""
    onset: float
    """Seconds from the clip's beginning to the first sound of speech."""
    first_word_end: float | None
    """Seconds to the end of the first word; None where that is not known."""

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE

    def pcm16(self) -> NDArray[np.int16]:
        """The samples as 16-bit integers."""
        return np.round(np.clip(self.samples, -1.0, 1.0) * 32767.0).astype(np.int16)


def bundled_speech() -> list[Clip]:
    """The utterances that come with the package, 16 kHz synthetic speech."""
    return load_speech(BUNDLED)


def load_speech(source: Path) -> list[Clip]:
    """Utterances of a folder or a manifest.

    Raises:
        ManifestError: there is none, or a line of the manifest cannot be used.
        AudioError: a recording cannot be read.
    """
    if source.is_file():
        clips = list(_from_manifest(source))
    elif (source / MANIFEST).is_file():
        clips = list(_from_manifest(source / MANIFEST))
    elif source.is_dir():
        clips = list(_from_folder(source))
    else:
        raise ManifestError(
            f"{source} is neither a folder nor a manifest: give one of them.", path=str(source)
        )
    if not clips:
        raise ManifestError(
            f"{source} holds no recordings: put {', '.join(SOUND_SUFFIXES)} files there, or "
            f"name them in {MANIFEST}.",
            path=str(source),
        )
    return clips


def of_length(clips: Sequence[Clip], shortest: float, longest: float) -> list[Clip]:
    """The clips whose length in seconds lies within the bounds."""
    return [clip for clip in clips if shortest <= clip.duration <= longest]


def _from_manifest(path: Path) -> Iterator[Clip]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ManifestError(
            f"{path} cannot be read ({error}): give a JSON lines file.", path=str(path)
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            file = path.parent / str(entry["audio_filepath"])
            text = entry.get("text")
            words = [(str(w), float(start), float(end)) for w, start, end in entry.get("words", ())]
            begin = round(float(entry.get("offset", 0.0)) * SAMPLE_RATE)
            length = float(entry["duration"]) if "duration" in entry else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ManifestError(
                f"{path}, line {number} is no utterance ({error!r}): it needs audio_filepath and "
                "text.",
                path=str(path),
                line=number,
            ) from error
        end = None if length is None else begin + round(length * SAMPLE_RATE)
        samples = load_audio(file).samples[begin:end]
        yield make_clip(str(entry["audio_filepath"]), samples, text, words)


def _from_folder(folder: Path) -> Iterator[Clip]:
    texts: dict[str, str] = {}
    if (folder / TRANSCRIPTS).is_file():
        for line in (folder / TRANSCRIPTS).read_text(encoding="utf-8").splitlines():
            name, _, text = line.partition("\t")
            texts[name.strip()] = text.strip()
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in SOUND_SUFFIXES:
            spoken = texts.get(file.name, texts.get(file.stem))
            yield make_clip(file.name, load_audio(file).samples, spoken)


def make_clip(
    name: str,
    samples: NDArray[np.float32],
    text: str | None,
    words: Sequence[tuple[str, float, float]] = (),
) -> Clip:
    """A clip; without word times, speech begins where the sound does."""
    if words:
        return Clip(name, samples, text, words[0][1], words[0][2])
    loud = np.abs(samples) > _AUDIBLE * float(np.abs(samples).max(initial=0.0))
    onset = int(np.argmax(loud)) / SAMPLE_RATE if loud.any() else 0.0
    return Clip(name, samples, text, onset, None)

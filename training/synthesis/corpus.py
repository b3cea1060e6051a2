"""Makes a corpus: texts spoken by many voices, packed into shards with a manifest.

A corpus is planned first (which text, voice, rate and pitch each utterance has, all from one seed)
and then spoken shard by shard, in parallel. A shard is a 16 kHz PCM_16 WAV of many utterances and a
JSON lines file of their labels, named after a digest of its plan: a second run finds finished
shards and makes only what is missing, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.errors import ConfigurationError, TinyvoiceError
from training.synthesis.speech import Synthesiser, Utterance
from training.text import normalise

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Line:
    """One utterance of the plan: what is said, by whom, how fast and how high (factors of
    normal)."""

    text: str
    voice: str
    rate: float
    pitch: float


@dataclass(frozen=True)
class CorpusSettings:
    """How texts become utterances.

    ``renditions``: how often each text is spoken, each time by another voice. ``rate`` and
    ``pitch`` are ranges of factors drawn for each utterance. ``utterances_per_shard`` bounds what
    an interruption loses.
    """

    renditions: int = 1
    rate: tuple[float, float] = (0.85, 1.25)
    pitch: tuple[float, float] = (0.8, 1.25)
    seed: int = 0
    utterances_per_shard: int = 400

    def __post_init__(self) -> None:
        if self.renditions < 1 or self.utterances_per_shard < 1:
            raise ConfigurationError("renditions and utterances_per_shard must be at least 1.")
        for name in ("rate", "pitch"):
            low, high = getattr(self, name)
            if not 0.4 <= low <= high <= 2.5:
                raise ConfigurationError(
                    f"{name} must be a rising range within 0.4 to 2.5, got {low} to {high}."
                )


def plan(texts: Iterable[str], voices: Sequence[str], settings: CorpusSettings) -> list[Line]:
    """Decide every utterance of a corpus. Texts are normalised; those that hold no word are left
    out."""
    if not voices:
        raise ConfigurationError("A corpus needs at least one voice.")
    draw = random.Random(settings.seed)
    lines: list[Line] = []
    for text in texts:
        words = normalise(text)
        if not words:
            continue
        order = draw.sample(list(voices), min(settings.renditions, len(voices)))
        for index in range(settings.renditions):
            rate, pitch = draw.uniform(*settings.rate), draw.uniform(*settings.pitch)
            lines.append(Line(words, order[index % len(order)], round(rate, 3), round(pitch, 3)))
    draw.shuffle(lines)
    return lines


def make_corpus(
    lines: Sequence[Line], folder: Path, *, settings: CorpusSettings, workers: int = 1
) -> Path:
    """Speak ``lines`` into ``folder`` and return the path of its manifest.

    Utterances an engine cannot speak (a word it splits in a way that has no label) are left out,
    and their number is printed at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = settings.utterances_per_shard
    shards = [lines[start : start + size] for start in range(0, len(lines), size)]
    stems = [f"shard-{index:05d}-{_digest(shard)}" for index, shard in enumerate(shards)]
    missing = [
        (shard, folder / stem)
        for shard, stem in zip(shards, stems, strict=True)
        if not (folder / f"{stem}.jsonl").exists()
    ]
    if missing:
        _speak_shards(missing, workers)
    return _write_manifest(folder, stems, len(lines))


def _digest(shard: Sequence[Line]) -> str:
    text = json.dumps([asdict(line) for line in shard], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _speak_shards(missing: list[tuple[Sequence[Line], Path]], workers: int) -> None:
    columns = (
        TextColumn("speaking"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("shards"),
        TimeRemainingColumn(),
    )
    # A new process for each shard: the engines carry state from one utterance to the next, and a
    # shard is to be the same whatever was spoken before it.
    pool_settings: dict[str, Any] = {"mp_context": get_context("spawn"), "max_tasks_per_child": 1}
    with (
        Progress(*columns) as progress,
        ProcessPoolExecutor(max_workers=workers, **pool_settings) as pool,
    ):
        bar = progress.add_task("", total=len(missing))
        jobs = [pool.submit(_speak_shard, list(shard), stem) for shard, stem in missing]
        for job in as_completed(jobs):
            job.result()
            progress.advance(bar)


def _speak_shard(shard: list[Line], stem: Path) -> None:
    """Write ``stem.wav`` and then ``stem.jsonl``; the second, renamed into place, marks the shard
    complete."""
    synthesisers: dict[str, Synthesiser] = {}
    labels: list[str] = []
    offset = 0
    partial = stem.with_suffix(".part.wav")
    with soundfile.SoundFile(partial, "w", SAMPLE_RATE, 1, subtype="PCM_16") as file:
        for line in shard:
            if line.voice not in synthesisers:
                synthesisers[line.voice] = Synthesiser(line.voice)
            try:
                utterance = synthesisers[line.voice].speak(
                    line.text, rate=line.rate, pitch=line.pitch
                )
            except TinyvoiceError:
                continue
            if not _usable(utterance):
                continue
            file.write(utterance.samples)
            labels.append(json.dumps(_label(utterance, line, f"{stem.name}.wav", offset)))
            offset += len(utterance.samples)
    partial.replace(stem.with_suffix(".wav"))
    text = stem.with_suffix(".part.jsonl")
    text.write_text("".join(label + "\n" for label in labels))
    text.replace(stem.with_suffix(".jsonl"))


def _usable(utterance: Utterance) -> bool:
    """An engine that fails quietly gives nothing, silence, or words of no length."""
    return (
        0.1 <= utterance.duration <= 30.0
        and float(np.abs(utterance.samples).max(initial=0.0)) > 0.01
        and all(end > start for _, start, end in utterance.words)
    )


def _label(utterance: Utterance, line: Line, file: str, offset: int) -> dict[str, object]:
    return {
        "audio_filepath": file,
        "offset": offset / SAMPLE_RATE,
        "duration": len(utterance.samples) / SAMPLE_RATE,
        "text": line.text,
        "voice": line.voice,
        "words": [[word, round(start, 3), round(end, 3)] for word, start, end in utterance.words],
        "phonemes": [[name, round(start, 3)] for name, start in utterance.phonemes],
    }


def _write_manifest(folder: Path, stems: list[str], planned: int) -> Path:
    manifest = folder / MANIFEST
    spoken = 0
    with manifest.open("w") as file:
        for stem in stems:
            for label in (folder / f"{stem}.jsonl").open():
                file.write(label)
                spoken += 1
    if spoken < planned:
        print(f"{planned - spoken} of {planned} utterances could not be spoken and were left out.")
    return manifest

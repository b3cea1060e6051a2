"""Plays a test set to a model and keeps what it wrote.

The work is split into chunks that worker processes take one after another; each worker loads the
model once, and gets the audio of its examples itself. What comes out does not depend on the number
of workers. Figures are made of the results by `training.evaluation.report`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Protocol

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.errors import TinyvoiceError
from tinyvoice.model.transcript import Transcript
from training.evaluation.test_sets import Example, Samples, WordTimes
from training.evaluation.wer import WordErrors, word_errors
from training.evaluation.word_times import MatchedWord, match_words
from training.text import normalise

CHUNK = 64
"""Examples handed to a worker at a time: a few full batches, so that lengths can be sorted."""


class Transcriber(Protocol):
    """What is measured: clips in, one transcript for each, in order."""

    def __call__(self, clips: Sequence[Samples], /) -> Sequence[Transcript]:
        """Transcribe clips of 16 kHz mono samples."""


@dataclass(frozen=True)
class Result:
    """What became of one example. ``error`` says why it could not be measured, if so."""

    name: str
    group: str
    reference: str
    """Normalised."""
    hypothesis: str
    """As the model wrote it."""
    errors: WordErrors
    duration: float
    """Seconds of audio."""
    processing: float
    """Seconds of its batch's transcription, shared out by duration."""
    confidence: float
    matched_words: tuple[MatchedWord, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class ModelTranscriber:
    """Loads a model by name; picklable, so that each worker process can load its own."""

    model: str = "embedded"
    device: str = "auto"
    batch_size: int = 16
    word_timestamps: bool = False
    dtype: str = "auto"
    load_in_8bit: bool = False

    def load(self) -> Transcriber:
        """Load the model and return a function of clips."""
        from tinyvoice.model.modeling import ASRModel

        model: Any = ASRModel.from_pretrained(
            self.model, device=self.device, dtype=self.dtype, load_in_8bit=self.load_in_8bit
        )

        def transcribe(clips: Sequence[Samples], /) -> Sequence[Transcript]:
            transcripts: Sequence[Transcript] = model.transcribe(
                list(clips),
                sample_rate=SAMPLE_RATE,
                word_timestamps=self.word_timestamps,
                batch_size=self.batch_size,
            )
            return transcripts

        return transcribe


def evaluate(
    examples: Sequence[Example],
    transcriber: ModelTranscriber | Transcriber,
    *,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[Result]:
    """Transcribe ``examples`` and return one result for each, in their order.

    An example whose audio cannot be had becomes a result with ``error`` set; what the model raises
    is not caught. ``progress`` is called with the number of examples finished since its last call.
    More than one worker needs a `ModelTranscriber`, which each of them loads for itself.
    """
    chunks = [examples[start : start + CHUNK] for start in range(0, len(examples), CHUNK)]
    if workers <= 1 or len(chunks) <= 1 or not isinstance(transcriber, ModelTranscriber):
        loaded = transcriber.load() if isinstance(transcriber, ModelTranscriber) else transcriber
        results = []
        for chunk in chunks:
            results += evaluate_chunk(chunk, loaded)
            if progress is not None:
                progress(len(chunk))
        return results
    by_chunk: dict[int, list[Result]] = {}
    for index, done in _in_workers(chunks, transcriber, min(workers, len(chunks))):
        by_chunk[index] = done
        if progress is not None:
            progress(len(done))
    return [result for index in range(len(chunks)) for result in by_chunk[index]]


def _in_workers(
    chunks: list[Sequence[Example]], transcriber: ModelTranscriber, workers: int
) -> Iterator[tuple[int, list[Result]]]:
    threads = max(1, (os.cpu_count() or 1) // workers)
    # Spawned: neither torch's threads nor the synthesiser's state survive a fork.
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_start_worker, initargs=(transcriber, threads)
    ) as pool:
        jobs = {pool.submit(_work, list(chunk)): index for index, chunk in enumerate(chunks)}
        for job in as_completed(jobs):
            yield jobs[job], job.result()


_worker_transcriber: Transcriber | None = None


def _start_worker(transcriber: ModelTranscriber, threads: int) -> None:
    import torch

    global _worker_transcriber
    torch.set_num_threads(threads)
    _worker_transcriber = transcriber.load()


def _work(chunk: list[Example]) -> list[Result]:
    assert _worker_transcriber is not None  # set by the initializer, before any work arrives
    return evaluate_chunk(chunk, _worker_transcriber)


def evaluate_chunk(chunk: Sequence[Example], transcriber: Transcriber) -> list[Result]:
    """Load, transcribe and compare a few examples at once."""
    results: list[Result | None] = [None] * len(chunk)
    clips: list[tuple[int, Samples, WordTimes | None]] = []
    for index, example in enumerate(chunk):
        try:
            clips.append((index, *example.source.load()))
        except TinyvoiceError as error:
            results[index] = _failed(example, str(error))
    # Clips of like length share a batch: less padding.
    clips.sort(key=lambda clip: len(clip[1]))
    started = time.perf_counter()
    transcripts = transcriber([samples for _, samples, _ in clips]) if clips else []
    elapsed = time.perf_counter() - started
    total = sum(len(samples) for _, samples, _ in clips)
    for (index, samples, times), transcript in zip(clips, transcripts, strict=True):
        share = elapsed * len(samples) / total
        results[index] = compare(chunk[index], transcript, times, len(samples), share)
    return [result for result in results if result is not None]


def compare(
    example: Example,
    transcript: Transcript,
    times: WordTimes | None,
    samples: int,
    processing: float,
) -> Result:
    """Count the errors of one transcript and pair its words' times with the known ones."""
    heard = transcript.words
    return Result(
        name=example.name,
        group=example.group,
        reference=normalise(example.text),
        hypothesis=transcript.text,
        errors=word_errors(example.text, transcript.text),
        duration=samples / SAMPLE_RATE,
        processing=processing,
        confidence=transcript.confidence,
        matched_words=match_words(times, heard) if times and heard else (),
    )


def _failed(example: Example, reason: str) -> Result:
    reference = normalise(example.text)
    return Result(
        example.name, example.group, reference, "", WordErrors(), 0.0, 0.0, 0.0, error=reason
    )

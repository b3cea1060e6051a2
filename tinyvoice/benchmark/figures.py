"""Figures of a run, in the words of :mod:`tinyvoice.metrics`, ready for JSON.

Everything is a dataclass of plain values: ``dataclasses.asdict`` of it is the benchmark's record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.harness import Pauses, Run
from tinyvoice.benchmark.load import Lateness
from tinyvoice.benchmark.observation import texts_by_place
from tinyvoice.benchmark.speech import Clip
from tinyvoice.benchmark.timeline import render
from tinyvoice.benchmark.usage import Usage
from tinyvoice.metrics import (
    Distribution,
    PairedDifference,
    WordErrors,
    delta_wer,
    distribution,
    first_partial,
    first_stable_word,
    partial_intervals,
    partial_lags,
    revision_rate,
    stable_prefix_rate,
    streams_held,
    time_to_final,
    ttfs,
    word_error_rate,
    word_errors,
)

LATENCIES = (
    "time_to_final",
    "ttfs",
    "first_partial",
    "first_stable_word",
    "partial_lag",
    "partial_interval",
)
"""Names of the metrics that have a distribution."""

Transcribe = Callable[[Sequence[np.ndarray]], list[str]]
"""Offline transcripts of 16 kHz mono float32 clips."""

Listen = Callable[[int, float, float], np.ndarray]
"""What was heard of a run's stream, by its number, between two times in seconds: 16 kHz float32."""


@dataclass(frozen=True)
class TextFigures:
    """How right the texts are; None where nothing is known of what was said."""

    wer_streamed: float | None
    wer_offline: float | None
    """Of the recordings, each transcribed whole."""
    delta_wer: PairedDifference | None
    same_as_offline: float | None
    """Share of finals that are, by characters, the offline transcript of the same audio."""
    wer_stretches: float | None = None
    """Of the offline transcripts of the stretches of audio that the finals stand for."""
    delta_wer_stretches: PairedDifference | None = None


@dataclass(frozen=True)
class Figures:
    """What one run showed."""

    streams: int
    seconds: float
    """From the first packet to the end."""
    utterances: int
    latencies: dict[str, Distribution | None]
    """By the names of :data:`LATENCIES`."""
    first_final: float | None
    """Time to final of the first utterance after the engine was opened."""
    compute: float | None
    """None where it is not known."""
    harness: float
    """What the harness itself computes per second of audio, where it was taken off; beside a
    server, all that the measuring process took."""
    loop_blocked: float | None
    revision_rate: float | None
    stable_prefix_rate: float | None
    held: bool
    reason: str
    """Why the streams were not held."""
    refused: int
    failures: list[str] = field(default_factory=list)
    lost: int = 0
    lateness: Lateness | None = None
    text: TextFigures | None = None
    interrupted: bool = False
    pauses: Pauses | None = None
    """Of the event loop; the greatest of them is ``loop_blocked``."""
    memory: int | None = None
    """What a server's process held after the run, where it says."""


def figures_of(
    run: Run, silence_s: float | None, *, with_text: bool = True, harness: float = 0.0
) -> Figures:
    """Figures of a run whose endpointing waits for ``silence_s`` of silence.

    None is an endpointing that waits as long as it finds right: TTFS then counts from the end of
    the voice as the final tells it.

    ``harness`` is what the harness itself computes per second of audio; it is taken off.

    Without ``with_text`` the figures that depend on the words are left out: random weights write
    words that mean nothing.
    """
    records = [item.record for stream in run.heard for item in stream]
    spread = {
        "time_to_final": distribution(map(time_to_final, records)),
        "ttfs": distribution(
            record.received - record.voice_end if silence_s is None else ttfs(record, silence_s)
            for record in records
        ),
        "first_partial": distribution(map(first_partial, records)),
        "first_stable_word": distribution(map(first_stable_word, records)),
        "partial_lag": distribution(chain.from_iterable(map(partial_lags, records))),
        "partial_interval": distribution(chain.from_iterable(map(partial_intervals, records))),
    }
    verdict = streams_held(
        spread["time_to_final"],
        spread["partial_interval"],
        refused=run.refused,
        failed=len(run.failures),
        lost=run.lost,
    )
    first = min(records, key=lambda record: record.received, default=None)
    return Figures(
        streams=len(run.plan.timelines),
        seconds=run.wall_s,
        utterances=len(records),
        latencies=spread,
        first_final=None if first is None else time_to_final(first),
        compute=max(0.0, run.cpu_s / run.audio_s - harness) if run.audio_s else 0.0,
        harness=harness,
        loop_blocked=None if run.pauses is None else run.pauses.greatest,
        pauses=run.pauses,
        revision_rate=revision_rate(records) if with_text else None,
        stable_prefix_rate=stable_prefix_rate(records) if with_text else None,
        held=verdict.held,
        reason=verdict.reason,
        refused=run.refused,
        failures=run.failures[:3],
        lost=run.lost,
        lateness=run.lateness,
        interrupted=run.interrupted,
    )


def seen_from_outside(figures: Figures, run: Run, usage: Usage) -> Figures:
    """Figures of a run through a server: what it took is what it says, not what we took."""
    per_second = (lambda cpu_s: cpu_s / run.audio_s) if run.audio_s else (lambda _: 0.0)
    return replace(
        figures,
        compute=None if usage.cpu_s is None else per_second(usage.cpu_s),
        harness=per_second(run.cpu_s),
        memory=usage.memory_bytes,
    )


def streamed_word_error_rate(run: Run, clips: Sequence[Clip]) -> float | None:
    """Word error rate of a run's finals; None where nothing is known of what was said."""
    errors = _streamed_errors(run, clips).values()
    return word_error_rate(chain.from_iterable(errors))


def _streamed_errors(run: Run, clips: Sequence[Clip]) -> dict[str, list[WordErrors]]:
    """By the names of the clips, one for each time that they were heard."""
    found: dict[str, list[WordErrors]] = {}
    for timeline, heard in zip(run.plan.timelines, run.heard, strict=True):
        for place, text in texts_by_place(heard).items():
            clip = clips[timeline.placed[place].clip]
            if clip.text is not None:
                found.setdefault(clip.name, []).append(word_errors(clip.text, text))
    return found


def text_figures(
    run: Run, clips: Sequence[Clip], transcribe: Transcribe, listen: Listen | None = None
) -> TextFigures:
    """Word error rates of a run, beside offline ones of the same clips and of the same stretches.

    The clips are transcribed whole, and of each stream the stretches that its finals stand for:
    what the endpointing has cut shows in the first, what streaming itself does in the second.
    ``listen`` says what was heard, where that was not what was played.
    """
    streamed_errors = _streamed_errors(run, clips)
    said = [clip for clip in clips if clip.name in streamed_errors]
    texts = transcribe([clip.samples for clip in said])
    # A clip that was played several times counts as one when utterances are drawn: its repetitions
    # are no further evidence.
    streamed, whole = [], []
    for clip, text in zip(said, texts, strict=True):
        found = streamed_errors[clip.name]
        one = word_errors(clip.text or "", text)
        streamed.append(_sum(found))
        whole.append(WordErrors(one.edits * len(found), one.words * len(found)))
    figures = TextFigures(
        word_error_rate(streamed),
        word_error_rate(whole),
        delta_wer(streamed, whole),
        None,
    )
    offline = offline_run(run, transcribe, listen or played(run))
    if offline is None:
        return figures
    cut_errors = _streamed_errors(offline, clips)
    stretches = [_sum(cut_errors[clip.name]) for clip in said]
    return replace(
        figures,
        same_as_offline=_same(run, offline),
        wer_stretches=word_error_rate(stretches),
        delta_wer_stretches=delta_wer(streamed, stretches),
    )


def offline_run(run: Run, transcribe: Transcribe, listen: Listen) -> Run | None:
    """The run with offline transcripts, of the audio they say they stand for, in its finals.

    None where there are no finals, or one of them does not say.
    """
    finals = [(stream, item.final) for stream, heard in enumerate(run.heard) for item in heard]
    if not finals or any(math.isnan(final.audio_end) for _, final in finals):
        return None
    pieces = [listen(stream, final.audio_start, final.audio_end) for stream, final in finals]
    texts = iter(transcribe(pieces))
    return replace(
        run,
        heard=[
            [replace(item, final=replace(item.final, text=next(texts))) for item in heard]
            for heard in run.heard
        ],
    )


def played(run: Run) -> Listen:
    """What was played is what was heard."""

    def listen(stream: int, begin: float, end: float) -> np.ndarray:
        bounds = round(begin * SAMPLE_RATE), round(end * SAMPLE_RATE)
        audio = render(run.plan.timelines[stream], run.plan.sounds, *bounds)
        return audio.astype(np.float32) / 32768.0

    return listen


def _same(run: Run, offline: Run) -> float:
    """Share of finals with the same characters."""
    pairs = [
        (ours.final.text, theirs.final.text)
        for heard, other in zip(run.heard, offline.heard, strict=True)
        for ours, theirs in zip(heard, other, strict=True)
    ]
    return sum(a == b for a, b in pairs) / len(pairs)


def _sum(errors: Sequence[WordErrors]) -> WordErrors:
    return WordErrors(sum(e.edits for e in errors), sum(e.words for e in errors))

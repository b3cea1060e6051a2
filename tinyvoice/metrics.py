"""The words in which speed and quality of streaming are told, each defined once.

The benchmark, the server's metrics and the documents take names, titles and units from
:data:`METRICS`, and figures from the functions here. They work on an :class:`UtteranceRecord`,
what one utterance's reader saw and when; how events become such records is the caller's business,
and nothing here reads a clock.

All times are seconds. *Wall time* is one monotonic clock for everything in a record; *audio time*
counts the samples of a stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

HELD_TIME_TO_FINAL_S = 0.3
"""A stream is held while 95 % of its finals come within this time."""
HELD_PARTIAL_INTERVAL_S = 0.5
"""A stream is held while 95 % of its partials follow the one before within this time."""
PIPECAT_STOP_S = 0.2
"""Silence after which Pipecat's voice activity detection says that the speaker has stopped."""
LONG_PAUSE_S = 0.02
"""An event loop is not to be late by more."""
BOOTSTRAP_SAMPLES = 2000
"""Resamplings of the utterances behind an interval."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A name for programs, a title for people, a unit, and what is counted."""

    name: str
    title: str
    unit: str
    definition: str


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "time_to_final",
            "time to final",
            "s",
            "From the moment the packet was due whose audio let the end of speech be decided, to "
            "the final event.",
        ),
        Metric(
            "ttfs",
            "TTFS",
            "s",
            "Time to final speech, as Pipecat counts it: from the end of the voice itself (the "
            "decision minus the silence it waits for, 0.2 s) to the final event. Its floor is that "
            "silence.",
        ),
        Metric(
            "first_partial",
            "first partial",
            "s",
            "From the onset of speech to the first event with text.",
        ),
        Metric(
            "first_stable_word",
            "first stable word",
            "s",
            "From the end of an utterance's first word in the audio to the first event with stable "
            "text.",
        ),
        Metric(
            "partial_lag",
            "partial lag",
            "s",
            "Audio fed minus audio covered, when a partial is received.",
        ),
        Metric(
            "partial_interval",
            "partial interval",
            "s",
            "While there is something to tell, the time from one event with text to the next: from "
            "the end of the first word to the first partial, between partials, and from the last "
            "one to the end of the voice.",
        ),
        Metric(
            "revision_rate",
            "revision rate",
            "words per word",
            "Words of tails that the next event took back or changed, per word of the finals.",
        ),
        Metric(
            "stable_prefix_rate",
            "stable is a prefix",
            "share",
            "Share of utterances whose stable texts were all prefixes of the final.",
        ),
        Metric("wer_streamed", "WER streamed", "share", "Word error rate of the finals."),
        Metric(
            "wer_offline",
            "WER offline",
            "share",
            "Word error rate of the same recordings transcribed whole.",
        ),
        Metric(
            "delta_wer",
            "ΔWER",
            "share",
            "Streamed minus offline word error rate, paired by utterance, with the 95 % interval "
            "of a bootstrap.",
        ),
        Metric(
            "wer_stretches",
            "WER offline of the same stretches",
            "share",
            "Word error rate of offline transcripts of the stretches of audio that the finals "
            "stand for.",
        ),
        Metric(
            "delta_wer_stretches",
            "ΔWER of the same stretches",
            "share",
            "Streamed minus offline word error rate of the same stretches, paired by utterance, "
            "with the 95 % interval of a bootstrap.",
        ),
        Metric(
            "compute",
            "compute",
            "CPU s per s",
            "Processor seconds of the engine's process per second of audio, all streams together; "
            "with one stream, what the measuring itself takes is taken off.",
        ),
        Metric(
            "peak_memory", "peak memory", "bytes", "The most memory the engine's process has held."
        ),
        Metric(
            "loop_blocked",
            "event loop blocked",
            "s",
            "The longest time by which the event loop was late for a timer.",
        ),
        Metric(
            "streams_held",
            "streams held",
            "streams",
            "Real-time streams at which p95 of time to final is at most 300 ms and p95 of partial "
            "interval at most 500 ms, with no stream refused and no utterance lost.",
        ),
    )
}


# What a reader saw ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Update:
    """A partial, when it was received (wall time), and the audio behind it (audio time)."""

    received: float
    stable: str
    tail: str
    fed: float
    """Audio that was due when the partial was received."""
    covered: float
    """Audio that the partial accounts for."""

    @property
    def text(self) -> str:
        """Stable part and tail."""
        return join_text(self.stable, self.tail)


@dataclass(frozen=True, slots=True)
class UtteranceRecord:
    """One utterance as its reader saw it; all times are wall times."""

    onset: float
    """When its first sound was spoken."""
    voice_end: float
    """When its last sound was spoken."""
    decided: float | None
    """When the packet was due that let the end of speech be decided; None where it went on."""
    updates: tuple[Update, ...]
    final: str
    received: float
    """When the final was received."""
    first_word_end: float | None = None
    """When the first word had been spoken; None where that is not known."""


def join_text(stable: str, tail: str) -> str:
    """Stable part and tail as one text, whichever of them carries the blank between."""
    if stable and tail and not stable[-1].isspace() and not tail[0].isspace():
        return f"{stable} {tail}"
    return stable + tail


# Latency -------------------------------------------------------------------------------------


def time_to_final(record: UtteranceRecord) -> float | None:
    """See ``METRICS["time_to_final"]``; None where the end of speech was not decided."""
    return None if record.decided is None else record.received - record.decided


def ttfs(record: UtteranceRecord, silence_s: float = PIPECAT_STOP_S) -> float | None:
    """See ``METRICS["ttfs"]``; ``silence_s`` is what the endpointing in use waits for."""
    waited = time_to_final(record)
    return None if waited is None else waited + silence_s


def first_partial(record: UtteranceRecord) -> float:
    """See ``METRICS["first_partial"]``; the final counts where there was no partial."""
    times = [update.received for update in record.updates if update.text.strip()]
    return (times[0] if times else record.received) - record.onset


def first_stable_word(record: UtteranceRecord) -> float | None:
    """See ``METRICS["first_stable_word"]``; a final is stable. None where the word is not known."""
    if record.first_word_end is None:
        return None
    times = [update.received for update in record.updates if update.stable.strip()]
    return (times[0] if times else record.received) - record.first_word_end


def partial_lags(record: UtteranceRecord) -> list[float]:
    """See ``METRICS["partial_lag"]``: one for each partial."""
    return [max(0.0, update.fed - update.covered) for update in record.updates]


def partial_intervals(record: UtteranceRecord) -> list[float]:
    """See ``METRICS["partial_interval"]``."""
    times = [update.received for update in record.updates if update.text.strip()]
    begin = record.onset if record.first_word_end is None else record.first_word_end
    if not times or begin < times[0]:
        times.insert(0, begin)
    if times[-1] < record.voice_end:
        times.append(record.voice_end)
    return [later - earlier for earlier, later in pairwise(times)]


# Text ----------------------------------------------------------------------------------------


def normal_words(text: str) -> list[str]:
    """Lower-case words of letters, digits and inner apostrophes; punctuation is left out.

    Numbers stay as they are written: a reference with digits wants a model that writes digits.
    """
    return re.findall(r"\w+(?:'\w+)*", text.lower().replace("’", "'"))


def revised_words(record: UtteranceRecord) -> int:
    """Words of tails that the next partial, or the final, took back or changed.

    Words are compared by place: of an earlier hypothesis, what follows the longest common beginning
    with the later one was revised.
    """
    texts = [normal_words(update.text) for update in record.updates] + [normal_words(record.final)]
    return sum(len(early) - common_prefix(early, late) for early, late in pairwise(texts))


def common_prefix(first: Sequence[str], second: Sequence[str]) -> int:
    """How many words two texts begin with alike."""
    shared = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        shared += 1
    return shared


def revision_rate(records: Iterable[UtteranceRecord]) -> float | None:
    """See ``METRICS["revision_rate"]``; None where no word was heard."""
    known = list(records)
    spoken = sum(len(normal_words(record.final)) for record in known)
    return sum(map(revised_words, known)) / spoken if spoken else None


def stable_is_prefix(record: UtteranceRecord) -> bool:
    """Whether every stable text shown was a prefix of the final, by characters."""
    final = record.final.strip()
    return all(final.startswith(update.stable.strip()) for update in record.updates)


def stable_prefix_rate(records: Iterable[UtteranceRecord]) -> float | None:
    """See ``METRICS["stable_prefix_rate"]``; None without utterances."""
    held = [stable_is_prefix(record) for record in records]
    return sum(held) / len(held) if held else None


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Substitutions, insertions and deletions together, and the number of reference words."""

    edits: int = 0
    words: int = 0


def word_errors(reference: str, hypothesis: str) -> WordErrors:
    """Least number of edits between the :func:`normal_words` of two texts (Levenshtein)."""
    wanted, heard = normal_words(reference), normal_words(hypothesis)
    row = list(range(len(heard) + 1))
    for count, word in enumerate(wanted, start=1):
        diagonal, row[0] = row[0], count
        for at, other in enumerate(heard, start=1):
            substituted = diagonal + (word != other)
            diagonal = row[at]
            row[at] = min(substituted, row[at] + 1, row[at - 1] + 1)
    return WordErrors(row[-1], len(wanted))


def word_error_rate(errors: Iterable[WordErrors]) -> float | None:
    """Edits over reference words of a whole set; None without reference words."""
    known = list(errors)
    words = sum(one.words for one in known)
    return sum(one.edits for one in known) / words if words else None


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Difference of two word error rates over the same utterances, with its interval."""

    value: float
    low: float
    high: float


def delta_wer(
    streamed: Sequence[WordErrors],
    offline: Sequence[WordErrors],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference | None:
    """See ``METRICS["delta_wer"]``; both sequences hold the same utterances in the same order.

    The percentile bootstrap of Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR
    performance evaluation" (ICASSP 2004): each resampling draws the same utterances on both sides,
    so that what is hard for both cancels out. None without reference words.
    """
    edits = np.array([a.edits - b.edits for a, b in zip(streamed, offline, strict=True)], float)
    words = np.array([one.words for one in streamed], float)
    if not words.sum():
        return None
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(words), size=(BOOTSTRAP_SAMPLES, len(words)))
    rates = edits[drawn].sum(axis=1) / np.maximum(words[drawn].sum(axis=1), 1.0)
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return PairedDifference(float(edits.sum() / words.sum()), float(low), float(high))


# Distributions and streams held --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Distribution:
    """How values spread; the percentiles interpolate between neighbours."""

    count: int
    p50: float
    p95: float
    p99: float
    greatest: float


def distribution(values: Iterable[float | None]) -> Distribution | None:
    """Spread of the values that are known; None where none is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    p50, p95, p99 = np.percentile(known, [50, 95, 99])
    return Distribution(len(known), float(p50), float(p95), float(p99), float(max(known)))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a number of streams is held; ``reason`` says what failed, empty where nothing did."""

    held: bool
    reason: str


def streams_held(
    time_to_final: Distribution | None,
    partial_interval: Distribution | None,
    *,
    refused: int = 0,
    failed: int = 0,
    lost: int = 0,
) -> Verdict:
    """See ``METRICS["streams_held"]``.

    ``refused`` and ``failed`` count streams, ``lost`` utterances that were played and never came
    out as a final.
    """
    if refused:
        return Verdict(False, f"{refused} streams refused")
    if failed:
        return Verdict(False, f"{failed} streams failed")
    if lost:
        return Verdict(False, f"{lost} utterances lost")
    if time_to_final is None or partial_interval is None:
        return Verdict(False, "no finals")
    if time_to_final.p95 > HELD_TIME_TO_FINAL_S:
        return Verdict(False, f"finals after {time_to_final.p95 * 1000:.0f} ms")
    if partial_interval.p95 > HELD_PARTIAL_INTERVAL_S:
        return Verdict(False, f"partials every {partial_interval.p95 * 1000:.0f} ms")
    return Verdict(True, "")

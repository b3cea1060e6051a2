"""Plays a test set into the streaming engine and holds what comes out against offline transcripts.

Each utterance is a stream of its own, cut into packets of random sizes; several run at once. With
manual endpointing an utterance's audio is exactly the clip, so that the streamed text must equal
the clip's offline transcript. With voice activity detection silence stands around the clip, and
each utterance must equal the offline transcript of the stretch of audio that its finals name.

Times are on the audio clock: what the machine takes for its work is not in them. Figures are made
of the results by `training.evaluation.streamed_report`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.engine import (
    EngineSettings,
    Event,
    Failed,
    Final,
    Partial,
    SpeechStarted,
    StreamingEngine,
    UtteranceFailed,
)
from tinyvoice.engine.decoding import FinalJob, StreamDecoder, build_decoder
from tinyvoice.engine.settings import EncoderForm
from tinyvoice.errors import TinyvoiceError
from tinyvoice.metrics import Update, UtteranceRecord
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.transcription import Piece, cut, encode_pieces
from training.evaluation.splits import SplitErrors, split_errors
from training.evaluation.test_sets import Example, Samples, WordTimes
from training.evaluation.wer import WordErrors, align_words, word_errors
from training.text import normalise

TIE = 1e-4
"""Log-probability distance below which the two best tokens count as equally good: the order of
sums, which depends on the batch, decides between them."""

LARGEST_PACKET_S = 0.2
"""Packets are of random length up to this; a partial is due at most every so often."""

SILENCE_BEFORE_S = 0.5
SILENCE_AFTER_S = 1.0
"""Around clips, where voice activity detection is to find them."""

LARGEST_BURST = 12
"""Packets that come together, where they come in bursts: about a second of audio."""
LONGEST_WAIT_S = 0.2
"""Wall-clock time between bursts, random up to this: audio comes several times faster than
people speak, so that it waits, and partials skip some of it and thin out."""

NEVER_S = 3_600.0
"""Audio comes faster than people speak: no stream is to be refused because partials are late."""

CHUNK = 128
"""Clips that are held in memory at a time."""

Verdict = Literal["equal", "tie", "different"]

Arrival = Literal["steady", "bursts"]
"""``steady``: a packet comes when what came before has been processed. ``bursts``: several come
together, at random times, whether the engine keeps up or not."""


@dataclass(frozen=True)
class StreamingPlan:
    """How a test set is played."""

    streams: int = 8
    """At once."""
    encoder: EncoderForm = "auto"
    endpointing: Literal["manual", "vad"] = "manual"
    seed: int = 0
    """Draws the sizes of packets."""
    batch_size: int = 16
    """Clips that are transcribed together offline."""
    arrival: Arrival = "steady"


@dataclass(frozen=True)
class Edges:
    """What became of the words of a clip that was cut or padded, against its own transcript."""

    lost_at_beginning: int
    lost_at_end: int
    changed: int
    """Words that differ elsewhere or otherwise: another word stands in their place, or more do."""


@dataclass(frozen=True)
class StreamedResult:
    """What became of one example. ``error`` says why it could not be measured, if so."""

    name: str
    group: str
    reference: str
    """Normalised."""
    streamed: str
    offline: str
    """The offline transcript that the streamed text is to equal."""
    verdict: Verdict
    margin: float | None
    """How much better, in log-probability, the offline transcript's token is than the next best one
    where the two first differ; None where they do not, or where the audio differs."""
    errors: WordErrors
    offline_errors: WordErrors
    """Of the clip's own offline transcript."""
    duration: float
    """Seconds of audio played, silence around it included."""
    speech_starts: int
    partials: int
    records: tuple[UtteranceRecord, ...]
    edges: Edges | None = None
    offline_edges: Edges | None = None
    """Of the offline transcript of the cut or padded clip: the model's share, not the engine's."""
    splits: SplitErrors | None = None
    """What was lost and added where the clip was cut for its length; None where it was not, or
    where the times of its words are not known."""
    error: str | None = None


@dataclass
class Played:
    """A clip, what was played of it, and the events that came back."""

    example: Example
    clip: Samples
    words: WordTimes | None
    samples: Samples
    before_s: float
    events: list[Event] = field(default_factory=list)

    @property
    def finals(self) -> list[Final]:
        """The finals among the events."""
        return [event for event in self.events if isinstance(event, Final)]


@dataclass(frozen=True)
class Evaluation:
    """Results, and the processor time the process took to stream them."""

    results: list[StreamedResult]
    processor_seconds: float


async def evaluate_streamed(
    examples: Sequence[Example],
    model: ASRModel,
    plan: StreamingPlan,
    *,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Stream ``examples`` and return one result for each, in their order.

    An example whose audio cannot be had, or whose stream fails, becomes a result with ``error``
    set. ``progress`` is called with the number of examples finished since its last call.
    """
    results: list[StreamedResult] = []
    seconds = 0.0
    settings = EngineSettings(
        encoder=plan.encoder, max_streams=plan.streams + 1, refuse_partial_gap_s=NEVER_S
    )
    judge = Judge(model, plan)
    async with StreamingEngine(model, settings) as engine:
        for start in range(0, len(examples), CHUNK):
            chunk = list(enumerate(examples[start : start + CHUNK], start))
            loaded = [_load(example, plan) for _, example in chunk]
            began = time.process_time()
            played = [item for item in loaded if isinstance(item, Played)]
            await _play_all(engine, played, plan, start)
            seconds += time.process_time() - began
            compared = iter(judge.results(played))
            results += [next(compared) if isinstance(i, Played) else i for i in loaded]
            if progress is not None:
                progress(len(chunk))
    return Evaluation(results, seconds)


# Playing -------------------------------------------------------------------------------------


def _load(example: Example, plan: StreamingPlan) -> Played | StreamedResult:
    try:
        clip, words = example.source.load()
    except TinyvoiceError as error:
        return _failed(example, str(error))
    if plan.endpointing == "manual":
        return Played(example, clip, words, clip, 0.0)
    # A clip that brings its own silence is meant to begin where it does.
    before = 0.0 if example.whole is not None else SILENCE_BEFORE_S
    padding = (round(before * SAMPLE_RATE), round(SILENCE_AFTER_S * SAMPLE_RATE))
    return Played(example, clip, words, np.pad(clip, padding), before)


async def _play_all(
    engine: StreamingEngine, played: Sequence[Played], plan: StreamingPlan, start: int
) -> None:
    places = asyncio.Semaphore(plan.streams)

    async def play(index: int, item: Played) -> None:
        async with places:
            random = np.random.default_rng((plan.seed, start + index))
            await _play(engine, item, plan, random)

    await asyncio.gather(*(play(index, item) for index, item in enumerate(played)))


async def _play(
    engine: StreamingEngine, item: Played, plan: StreamingPlan, random: np.random.Generator
) -> None:
    """Feed a clip in random packets, cut between any two bytes, and gather the events.

    The packets are the same however they arrive.
    """
    data = item.samples.astype("<f4").tobytes()
    most = round(LARGEST_PACKET_S * SAMPLE_RATE) * 4
    (times,) = random.spawn(1)
    stream = engine.stream(encoding="float32", endpointing=plan.endpointing, word_times=False)
    try:
        async with stream:
            at, waiting = 0, 0
            while at < len(data):
                size = int(random.integers(1, most))
                await stream.feed(data[at : at + size])
                at += size
                if plan.arrival == "steady":
                    await stream.flush()
                elif waiting:
                    waiting -= 1
                else:
                    waiting = int(times.integers(0, LARGEST_BURST))
                    await asyncio.sleep(times.uniform(0.0, LONGEST_WAIT_S))
                item.events += stream.read()
            if plan.endpointing == "manual":
                await stream.commit()
    except TinyvoiceError as error:
        item.events.append(Failed(error, 0.0))
    item.events += stream.read()


# Judging -------------------------------------------------------------------------------------


class Judge:
    """Transcribes offline what was played, and compares."""

    def __init__(self, model: ASRModel, plan: StreamingPlan) -> None:
        self.model, self.plan = model, plan
        self._decoder: StreamDecoder | None = None

    def results(self, played: Sequence[Played]) -> list[StreamedResult]:
        """Results of clips that have been played, in order."""
        clips = self._offline([item.clip for item in played])
        wholes = self._offline(
            [item.example.whole.load()[0] for item in played if item.example.whole is not None]
        )
        stretches = [self._stretches(item) for item in played]
        texts = iter(self._offline([samples for every in stretches for samples in every]))
        whole = iter(wholes)
        return [
            self._result(
                item,
                offline,
                [next(texts) for _ in every],
                next(whole) if item.example.whole is not None else None,
            )
            for item, offline, every in zip(played, clips, stretches, strict=True)
        ]

    def _offline(self, clips: Sequence[Samples]) -> list[str]:
        if not clips:
            return []
        # Cut as the engine cuts an utterance, whatever pauses it has.
        found = self.model.transcribe(
            list(clips),
            sample_rate=SAMPLE_RATE,
            batch_size=self.plan.batch_size,
            segment="fixed",
        )
        return [transcript.text for transcript in found]

    def _stretches(self, item: Played) -> list[Samples]:
        """The audio that each utterance's offline transcript is made of.

        With manual endpointing that is the clip, whatever the finals say.
        """
        if self.plan.endpointing == "manual":
            return []
        return [
            item.samples[in_samples(group[0].audio_start) : in_samples(group[-1].audio_end)]
            for group in whole_utterances(item.finals)
        ]

    def _result(
        self, item: Played, offline: str, stretches: list[str], whole: str | None
    ) -> StreamedResult:
        example, finals = item.example, item.finals
        failures = [e.error for e in item.events if isinstance(e, Failed | UtteranceFailed)]
        if failures:
            return _failed(example, str(failures[0]))
        streamed = " ".join(final.text for final in finals if final.text)
        expected = offline if self.plan.endpointing == "manual" else _join(stretches)
        verdict, margin = self._verdict(item, streamed, expected)
        return StreamedResult(
            name=example.name,
            group=example.group,
            reference=normalise(example.text),
            streamed=streamed,
            offline=expected,
            verdict=verdict,
            margin=margin,
            errors=word_errors(example.text, streamed),
            offline_errors=word_errors(example.text, offline),
            duration=len(item.samples) / SAMPLE_RATE,
            speech_starts=sum(isinstance(event, SpeechStarted) for event in item.events),
            partials=sum(isinstance(event, Partial) for event in item.events),
            records=tuple(utterance_records(item.events, item.words, item.before_s)),
            edges=None if whole is None else compare_edges(whole, streamed),
            offline_edges=None if whole is None else compare_edges(whole, offline),
            splits=self._split_errors(item, streamed),
        )

    def _split_errors(self, item: Played, streamed: str) -> SplitErrors | None:
        if not item.words:
            return None
        splits: list[float] = []
        for group in whole_utterances(item.finals):
            begins = [
                final.audio_start + piece.start - item.before_s
                for final in group
                for piece in self._pieces(item, final)
            ]
            splits += begins[1:]
        return split_errors(item.words, streamed, splits) if splits else None

    def _pieces(self, item: Played, final: Final) -> list[Piece]:
        """The pieces that a final's audio is given to the model in."""
        samples = item.samples[in_samples(final.audio_start) : in_samples(final.audio_end)]
        return cut(self.model, 0, samples)

    def _verdict(self, item: Played, streamed: str, expected: str) -> tuple[Verdict, float | None]:
        if streamed == expected:
            return "equal", None
        margins = [self._margin(item, final) for final in item.finals]
        known = [margin for margin in margins if margin is not None]
        if not known:
            return "different", None
        return ("tie" if max(known) < TIE else "different"), max(known)

    @torch.inference_mode()
    def _margin(self, item: Played, final: Final) -> float | None:
        """How sure offline decoding is where a final's text first departs from it."""
        samples = item.samples[in_samples(final.audio_start) : in_samples(final.audio_end)]
        if self._offline([samples])[0] == final.text:
            return None
        model = self.model
        encoded = encode_pieces(model, self._pieces(item, final)[:1])
        if self._decoder is None:
            self._decoder = build_decoder(model, 1)
        job = FinalJob(encoded.embeds[0, : int(encoded.counts[0])], ())
        decoded = self._decoder.decode_finals([job])[0]
        for at in range(len(decoded.ids)):
            said = str(model.tokenizer.decode(decoded.ids[: at + 1], skip_special_tokens=True))
            if not final.text.startswith(said.strip()):
                return float(decoded.margins[at])
        return float(decoded.margins[-1])


def in_samples(seconds: float) -> int:
    """The sample at a time of the audio clock."""
    return round(seconds * SAMPLE_RATE)


def whole_utterances(finals: Iterable[Final]) -> list[list[Final]]:
    """Finals grouped by speech: those that were cut apart for length belong together."""
    groups: list[list[Final]] = []
    going_on = False
    for final in finals:
        if going_on:
            groups[-1].append(final)
        else:
            groups.append([final])
        going_on = final.continues
    return groups


def utterance_records(
    events: Sequence[Event], words: WordTimes | None, before_s: float
) -> list[UtteranceRecord]:
    """What a reader saw of each utterance, on the audio clock.

    The first one begins with the clip's first word, where its time is known.
    """
    records = []
    for final in (event for event in events if isinstance(event, Final)):
        first = bool(words) and final.utterance == 0
        updates = tuple(
            Update(event.at, event.stable, event.tail, event.at, event.at)
            for event in events
            if isinstance(event, Partial) and event.utterance == final.utterance
        )
        records.append(
            UtteranceRecord(
                onset=words[0][1] + before_s if words and first else final.start,
                voice_end=final.end,
                decided=None,
                updates=updates,
                final=final.text,
                received=final.at,
                first_word_end=words[0][2] + before_s if words and first else None,
            )
        )
    return records


def compare_edges(whole: str, streamed: str) -> Edges:
    """Words of the clip's transcript that the streamed text lost at its edges."""
    steps = align_words(normalise(whole).split(), normalise(streamed).split())
    kinds = [step.kind for step in steps]
    beginning = _leading_deletions(kinds)
    end = _leading_deletions(kinds[beginning:][::-1])
    inner = kinds[beginning : len(kinds) - end]
    return Edges(beginning, end, sum(kind != "equal" for kind in inner))


def _leading_deletions(kinds: Sequence[str]) -> int:
    return next((at for at, kind in enumerate(kinds) if kind != "delete"), len(kinds))


def _join(texts: Iterable[str]) -> str:
    return " ".join(text for text in texts if text)


def _failed(example: Example, reason: str) -> StreamedResult:
    return StreamedResult(
        name=example.name,
        group=example.group,
        reference=normalise(example.text),
        streamed="",
        offline="",
        verdict="different",
        margin=None,
        errors=WordErrors(),
        offline_errors=WordErrors(),
        duration=0.0,
        speech_starts=0,
        partials=0,
        records=(),
        error=reason,
    )

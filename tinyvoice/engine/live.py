"""The worker's side of a stream: what has come in, what is known, what is to be done.

A `LiveStream` is state only. It cuts packets into windows, keeps commands in their place between
them, and turns the detector's decisions into events and into work that it waits for: it hears
nothing further until that work is done, so that what a stream says does not depend on how fast its
audio came. The scheduler decides when the work is done and with which other streams together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.engine.events import (
    Cleared,
    EndOfTurnLikely,
    Event,
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    TokenLogprob,
    UtteranceFailed,
)
from tinyvoice.engine.load import Pace
from tinyvoice.engine.settings import StreamSettings
from tinyvoice.engine.stability import StablePrefix
from tinyvoice.errors import TinyvoiceError
from tinyvoice.model.transcript import Transcript
from tinyvoice.vad.silero import WINDOW_SAMPLES, VADState
from tinyvoice.vad.utterance import (
    Decision,
    Ended,
    EndExpected,
    Extent,
    Resumed,
    Samples,
    Started,
    TurnInQuestion,
    UtteranceDetector,
    in_samples,
)

SHARED = ("inbox", "fed", "pace", "events", "replies", "checkpoint")
"""Fields of a `LiveStream` that others fill too, or that hold what is to be told: going back to a
checkpoint treats each in its own way."""


@dataclass(frozen=True)
class Command:
    """Something to be done between two samples; ``done`` is told its outcome."""

    kind: str
    """``begin``, ``commit``, ``clear``, ``flush``, ``settings`` or ``close``."""
    done: Callable[[Any], None]
    """Called with the outcome outside the worker, after the events that came before it."""
    settings: StreamSettings | None = None
    back: int | None = None
    """Samples that an utterance to begin reaches back; None for the padding of the settings."""


@dataclass
class Hypothesis:
    """What is understood of the utterance that is going on, and how far."""

    utterance: int
    encoder: Any
    """State of the incremental encoder."""
    stable: StablePrefix
    heard: int
    """Position up to which the audio has gone into the encoder."""
    ids: Sequence[int] = ()
    """The latest token ids, the draft of the next pass."""


@dataclass
class FinalPass:
    """The final pass over an utterance, before or after its end is certain."""

    extent: Extent
    samples: Samples
    draft: Sequence[int]
    transcript: Transcript | None = None
    """The outcome; times count from the beginning of ``samples``."""
    tokens: tuple[TokenLogprob, ...] = ()
    """What the transcript's tokens spell."""
    error: TinyvoiceError | None = None
    """Why there is no outcome and will be none."""
    ended: Ended | None = None
    """Set when the end is certain."""
    at: float = 0.0
    due_since: float | None = None
    """When the scheduler first saw that the end is certain and the outcome is not there."""

    @property
    def done(self) -> bool:
        """Whether nothing is left to be computed."""
        return self.transcript is not None or self.error is not None


@dataclass(frozen=True)
class Checkpoint:
    """A stream before a step in which it hears: where to go back to if the step breaks off."""

    fields: dict[str, Any]
    """All that hearing changes, apart from the following."""
    events: int
    replies: int
    """How many there were."""
    taken: list[Samples | Command] = field(default_factory=list)
    """What has been taken from the inbox since."""


@dataclass
class LiveStream:
    """One stream, as the worker sees it.

    A worker may break off anywhere. What a stream hears, and decides, between `save` and `commit`
    is therefore undone by `recover`, to be heard again, so that no sample, event or command is lost
    or doubled; what the model did for it is lost, and with it the utterances in hand.
    """

    settings: StreamSettings
    detector: UtteranceDetector
    vad: VADState
    slot: Any
    """The stream's place in the decoder's cache."""
    inbox: deque[Samples | Command] = field(default_factory=deque)
    """Filled from outside; audio at the engine's rate."""
    fed: int = 0
    """Samples that have gone into the inbox."""
    pace: Pace = field(default_factory=Pace)
    """How they came in."""
    windows: deque[Samples] = field(default_factory=deque)
    """Whole windows, not heard yet."""
    probabilities: deque[float | None] = field(default_factory=deque)
    """Of the first of the windows; None with manual endpointing."""
    rest: Samples = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    """Less than a window."""
    hypothesis: Hypothesis | None = None
    final_pass: FinalPass | None = None
    ending: deque[FinalPass] = field(default_factory=deque)
    """Utterances that are over, in order, whose finals are due."""
    turn_in_question: bool = False
    turn_answer: Future[float] | None = None
    """The turn model's answer, in the making: the probability that the turn is over."""
    passed_over: bool = False
    """Whether a partial was due and others had their turn: hearing goes on meanwhile."""
    next_partial: int = 0
    """Position from which on a partial is due."""
    muted: int | None = None
    """Number of an utterance that gets no more partials: one of them failed."""
    spoilt: tuple[int, TinyvoiceError] | None = None
    """Number of an utterance that gets no final, although it goes on, and why."""
    closing: Command | None = None
    """The command to close, from when it was carried out to when the last final has come."""
    checkpoint: Checkpoint | None = None
    events: list[Event] = field(default_factory=list)
    replies: list[tuple[Command, Any]] = field(default_factory=list)
    """Commands that have been carried out, with their outcome."""
    failed: bool = False
    closed: bool = False

    @property
    def at(self) -> float:
        """Seconds heard so far."""
        return self.detector.position / SAMPLE_RATE

    @property
    def pending(self) -> int:
        """Samples that came in and have not been heard."""
        return self.fed - self.detector.position

    def lateness(self, now: float, since: int | None = None) -> float | None:
        """Seconds that a live source has waited for what follows ``since``, a position.

        Without it, for being heard. None where the stream is no live source.
        """
        if self.settings.background or self.failed:
            return None
        behind = self.fed - (self.detector.position if since is None else since)
        return self.pace.lateness(behind / SAMPLE_RATE, now)

    # --- coming in -------------------------------------------------------------------------------

    def receive(self, samples: Samples, now: float) -> None:
        """Add audio that has come in; ``now`` is the time of a clock that only goes on."""
        caught_up = self.pending < WINDOW_SAMPLES
        self.pace.fed(len(samples) / SAMPLE_RATE, now, caught_up=caught_up)
        self.fed += len(samples)
        self.inbox.append(samples)

    def cut_windows(self, most: int) -> None:
        """Turn packets up to the next command into windows, ``most`` of them waiting at most."""
        if not self.inbox or isinstance(self.inbox[0], Command) or len(self.windows) >= most:
            return
        pieces, room = [self.rest], most * WINDOW_SAMPLES
        gathered = len(self.rest)
        while self.inbox and not isinstance(self.inbox[0], Command) and gathered < room:
            packet = self._take()
            assert not isinstance(packet, Command)
            pieces.append(packet)
            gathered += len(packet)
        samples = np.concatenate(pieces)
        count = len(samples) // WINDOW_SAMPLES
        self.windows.extend(samples[: count * WINDOW_SAMPLES].reshape(count, WINDOW_SAMPLES))
        self.rest = samples[count * WINDOW_SAMPLES :]

    def _take(self) -> Samples | Command:
        """The next entry of the inbox, remembered until the step is over."""
        entry = self.inbox[0]
        if self.checkpoint is not None:
            self.checkpoint.taken.append(entry)
        self.inbox.popleft()
        return entry

    def unjudged(self) -> Samples:
        """The windows without a probability, (count, window)."""
        if self.settings.endpointing == "manual":
            missing = len(self.windows) - len(self.probabilities)
            self.probabilities.extend([None] * missing)
        rows = list(self.windows)[len(self.probabilities) :]
        return np.stack(rows) if rows else np.zeros((0, WINDOW_SAMPLES), dtype=np.float32)

    # --- going on --------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether work has to be done before the stream hears on."""
        return bool(self.ending or self.turn_in_question or self.partial_due or self.final_pass_due)

    @property
    def final_pass_due(self) -> bool:
        """Whether a final pass has begun early and has no outcome yet."""
        return self.final_pass is not None and not self.final_pass.done

    @property
    def has_work(self) -> bool:
        """Whether a step could do something for this stream now."""
        if self.failed or (self.turn_answer is not None and not self.turn_answer.done()):
            return False
        return bool(self.waiting or self.hears)

    @property
    def hears(self) -> bool:
        """Whether there is audio or a command to be taken."""
        return bool(self.windows or self.inbox or (self.closing and not self.closed))

    @property
    def partial_due(self) -> bool:
        """Whether a partial is due and nothing better is on its way."""
        return (
            self.settings.partials
            and self.detector.active
            and self.final_pass is None
            and self.muted != self.detector.utterance
            and self.detector.position >= self.next_partial
        )

    @property
    def next_command(self) -> Command | None:
        """The command whose turn it is: all audio before it has been heard."""
        if self.windows or not self.inbox:
            return None
        first = self.inbox[0]
        return first if isinstance(first, Command) else None

    def advance(self, coalescing: bool) -> None:
        """Hear windows and carry out commands until there is work to wait for, or nothing left.

        ``coalescing`` lets partials wait for the newest audio.
        """
        while not self.failed and not self.closed:
            if self.waiting and not (coalescing and self._only_partial_due and self.probabilities):
                return
            if self.probabilities:
                decisions = self.detector.hear(self.windows.popleft(), self.probabilities.popleft())
                self.follow(decisions)
            elif self.closing is not None:
                self.closed = True
                self.replies.append((self.closing, None))
            elif self.next_command is not None:
                command = self._take()
                assert isinstance(command, Command)
                self._carry_out(command)
            else:
                return

    @property
    def _only_partial_due(self) -> bool:
        return not (self.ending or self.turn_in_question or self.final_pass_due)

    def _carry_out(self, command: Command) -> None:
        if command.kind == "settings" and command.settings is not None:
            self.settings = self.detector.settings = command.settings
            self.replies.append((command, None))
        elif command.kind == "begin":
            self._hear_rest()
            self.follow(self.detector.begin(command.back))
            self.replies.append((command, self.detector.utterance))
        elif command.kind == "clear":
            self._hear_rest()
            if self.detector.active:
                self.events.append(Cleared(self.detector.utterance, self.at))
            self.detector.clear()
            self.final_pass = None
            self.replies.append((command, None))
        elif command.kind in ("commit", "close"):
            self._hear_rest()
            decisions = self.detector.commit()
            self.follow(decisions)
            if command.kind == "commit":
                ended = [d.extent.utterance for d in decisions if isinstance(d, Ended)]
                self.replies.append((command, ended[-1] if ended else None))
            else:
                self.closing = command
        else:
            self.replies.append((command, None))

    def _hear_rest(self) -> None:
        """Hear less than a window: a command does not wait for the window to fill."""
        if len(self.rest):
            rest, self.rest = self.rest, self.rest[:0]
            self.follow(self.detector.hear(rest, None))

    def follow(self, decisions: list[Decision]) -> None:
        """Turn decisions into events and work."""
        for decision in decisions:
            if isinstance(decision, Started):
                time = decision.position / SAMPLE_RATE
                self.events.append(SpeechStarted(decision.utterance, time, self.at))
                self._await_partial(self.detector.audio_start)
            elif isinstance(decision, EndExpected):
                if self.settings.end_likely:
                    time = decision.extent.speech_end / SAMPLE_RATE
                    self.events.append(EndOfTurnLikely(decision.extent.utterance, time, self.at))
                if self._spoilt_by(decision.extent) is not None:
                    continue
                self.final_pass = self._final_pass(decision.extent)
            elif isinstance(decision, Resumed):
                self.final_pass = None
            elif isinstance(decision, TurnInQuestion):
                self.turn_in_question = True
            else:
                self._end(decision)

    def _spoilt_by(self, extent: Extent) -> TinyvoiceError | None:
        """Why an utterance can have no final; None where it can."""
        if self.spoilt is not None and self.spoilt[0] == extent.utterance:
            return self.spoilt[1]
        return None

    def _final_pass(self, extent: Extent) -> FinalPass:
        draft = self.hypothesis.ids if self.hypothesis is not None else ()
        return FinalPass(extent, self.detector.audio(extent), draft)

    def _end(self, ended: Ended) -> None:
        final_pass = self.final_pass
        if final_pass is None or final_pass.extent != ended.extent:
            final_pass = self._final_pass(ended.extent)
        if not final_pass.done:
            final_pass.error = self._spoilt_by(ended.extent)
        final_pass.ended, final_pass.at = ended, self.at
        if self.settings.endpointing != "manual" and not ended.continues:
            time = ended.extent.speech_end / SAMPLE_RATE
            self.events.append(SpeechEnded(ended.extent.utterance, time, self.at))
        self.ending.append(final_pass)
        self.final_pass = None
        # Where the final pass began early, its outcome is there already.
        self.tell_finals()
        self._await_partial(
            self.detector.audio_start if ended.continues else self.detector.position
        )

    def _await_partial(self, start: int) -> None:
        self.next_partial = max(start, self.detector.position)
        self.next_partial += in_samples(self.settings.partial_interval_ms)

    # --- what the model said ---------------------------------------------------------------------

    def tell_partial(self, utterance: int, stable: str, tail: str) -> None:
        """A pass over the newest audio has given this."""
        self.next_partial = self.detector.position + in_samples(self.settings.partial_interval_ms)
        if stable or tail:
            self.events.append(Partial(utterance, stable, tail, self.at))

    def tell_finals(self) -> None:
        """Give the finals of the utterances that are over and transcribed, in order."""
        while self.ending and self.ending[0].done:
            self.events.append(last_event(self.ending[0]))
            self.ending.popleft()

    def take(self) -> tuple[list[Event], list[tuple[Command, Any]]]:
        """What there is to tell: events, and outcomes of commands behind them. No step runs."""
        events, replies = self.events, self.replies
        self.events, self.replies = [], []
        return events, replies

    # --- a worker that breaks off ----------------------------------------------------------------

    def save(self) -> None:
        """Remember the stream as it is: a step begins in which it hears."""
        fields = dict(vars(self))
        for name in SHARED:
            del fields[name]
        fields["detector"] = self.detector.copy()
        for name in ("windows", "probabilities", "ending"):
            fields[name] = fields[name].copy()
        self.checkpoint = Checkpoint(fields, len(self.events), len(self.replies))

    def commit(self) -> None:
        """What has been heard since `save` stands."""
        self.checkpoint = None

    def recover(self, error: TinyvoiceError) -> None:
        """Go on after a step that broke off; no step runs meanwhile.

        Utterances that have begun, and have no outcome yet, fail with ``error`` when they end.
        """
        if self.checkpoint is not None:
            self._roll_back(self.checkpoint)
        told = {e.utterance for e in self.events if isinstance(e, Final | UtteranceFailed)}
        while self.ending and self.ending[0].extent.utterance in told:
            self.ending.popleft()
        for final_pass in self.ending:
            if not final_pass.done:
                final_pass.error = error
        if self.detector.active:
            self.spoilt = self.detector.utterance, error
            self.muted = self.detector.utterance
            if self.final_pass_due:
                self.final_pass = None
        self.slot = self.hypothesis = self.turn_answer = None
        self.tell_finals()

    def _roll_back(self, checkpoint: Checkpoint) -> None:
        taken = checkpoint.taken
        if taken and self.inbox and self.inbox[0] is taken[-1]:
            taken = taken[:-1]  # it broke off before the entry was out
        self.inbox.extendleft(reversed(taken))
        vars(self).update(checkpoint.fields)
        del self.events[checkpoint.events :]
        del self.replies[checkpoint.replies :]
        self.checkpoint = None


def last_event(final_pass: FinalPass) -> Final | UtteranceFailed:
    """The event of an utterance that is over and transcribed, or cannot be."""
    transcript, ended, extent = final_pass.transcript, final_pass.ended, final_pass.extent
    assert ended is not None
    if final_pass.error is not None:
        return UtteranceFailed(extent.utterance, final_pass.error, final_pass.at, ended.continues)
    assert transcript is not None
    begin = extent.audio_start / SAMPLE_RATE
    return Final(
        extent.utterance,
        transcript.text,
        tuple(word.shifted(begin) for word in transcript.words),
        extent.speech_start / SAMPLE_RATE,
        extent.speech_end / SAMPLE_RATE,
        transcript.confidence,
        begin,
        extent.audio_end / SAMPLE_RATE,
        final_pass.at,
        ended.continues,
        final_pass.tokens,
    )

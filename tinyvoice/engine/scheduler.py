"""Decides what the model does next, for all streams.

`Scheduler.step` is the engine's loop, and reads like the algorithm: hear what has come in, run the
final passes, run partials, tell. One step is at most one batch of each kind, so that a final never
waits for more than one batch of partials, and a stream has at most one partial in flight; audio
that comes in meanwhile is understood together, next time. That is how partials thin out under load
while finals do not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.engine.errors import StreamFailedError, UtteranceFailedError
from tinyvoice.engine.events import Failed, Final, UtteranceFailed
from tinyvoice.engine.live import FinalPass, LiveStream
from tinyvoice.engine.load import Lateness
from tinyvoice.engine.observer import SafeObserver
from tinyvoice.engine.runner import ModelRunner
from tinyvoice.engine.settings import EngineSettings
from tinyvoice.errors import TinyvoiceError
from tinyvoice.vad.silero import WINDOW_SAMPLES

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

WINDOWS_A_STEP = 32
"""A second of audio: what a stream hears in one step at most, so that none holds up the others."""

COALESCE_S = 0.5
"""Audio that waits behind a partial that is due, from which on the partial waits for it."""

PARTIALS_S = 0.1
"""How long a batch of partials may take before fewer streams are taken at once: a final that comes
up meanwhile waits for it."""

BACKGROUND_S = 1.0
"""A stream in the background gets a step after so long, however much the others have to do."""


class Scheduler:
    """All streams of an engine, and what is to be done for them.

    Streams are added and removed from any thread; `step` runs in the worker. ``wake`` is called,
    from any thread, when there is something to do that no step knows of yet. ``clock`` gives
    seconds, the same that tell when audio came in.
    """

    def __init__(
        self,
        runner: ModelRunner,
        settings: EngineSettings,
        wake: Callable[[], None] = lambda: None,
        observer: SafeObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runner, self.settings, self._wake = runner, settings, wake
        self._clock = clock
        self._observer = observer or SafeObserver(None)
        self._lock = threading.Lock()
        self._streams: list[LiveStream] = []
        self._removed: list[LiveStream] = []
        self._served: dict[int, float] = {}
        """When streams in the background had their last step."""
        self._partial_batch = settings.max_batch
        self._lateness = Lateness()

    @property
    def streams(self) -> list[LiveStream]:
        """The open streams."""
        with self._lock:
            return list(self._streams)

    def add(self, stream: LiveStream) -> None:
        """Serve a stream from the next step on."""
        with self._lock:
            self._streams.append(stream)

    def remove(self, stream: LiveStream) -> None:
        """Serve a stream no more; the next step gives back what it holds."""
        with self._lock:
            if stream in self._streams:
                self._streams.remove(stream)
                self._served.pop(id(stream), None)
                self._removed.append(stream)

    def step(self) -> None:
        """Do the most urgent work once; the streams have then something to tell."""
        self.give_back()
        streams = self.streams
        self._tell_queue(streams)
        streams = self.take_turns(streams)
        self.hear(streams)
        self.run_finals(streams)
        self.ask_turns(streams)
        self.run_partials(streams)

    @property
    def busy(self) -> bool:
        """Whether another step has something to do already."""
        with self._lock:
            return bool(self._removed) or any(stream.has_work for stream in self._streams)

    def take_turns(self, streams: list[LiveStream]) -> list[LiveStream]:
        """Whom this step is for: all who are in the foreground, or one who is in the background.

        Work that has begun cannot be interrupted, so that streams in the background get theirs in
        the smallest pieces: one stream, one pass.
        """
        live = [stream for stream in streams if not stream.settings.background]
        waiting = [s for s in streams if s.settings.background and s.has_work]
        if not waiting:
            return live
        now, busy = self._clock(), any(stream.has_work for stream in live)
        with self._lock:
            if busy and now - max(self._served.values(), default=0.0) < BACKGROUND_S:
                return live
            turn = min(waiting, key=lambda stream: self._served.get(id(stream), 0.0))
            if turn in self._streams:
                self._served[id(turn)] = now
        return [turn]

    def hear(self, streams: Sequence[LiveStream]) -> None:
        """Voice activity of all new audio, in one batch, and what follows from it."""
        busy = [stream for stream in streams if stream.hears]
        for stream in busy:
            stream.save()
            stream.cut_windows(WINDOWS_A_STEP)
        self._run(self.runner.judge, busy, self._fail)
        for stream in busy:
            self._advance(stream)
        for stream in busy:
            stream.commit()
            self._note_finals(stream)
        for stream in streams:
            hypothesis = stream.hypothesis
            if hypothesis is not None and hypothesis.utterance != stream.detector.utterance:
                self.runner.forget_hypothesis(stream)

    def run_finals(self, streams: Sequence[LiveStream]) -> None:
        """Final passes; those of utterances that are over come first."""
        over = [(s, p) for s in streams for p in s.ending if not p.done]
        for _, final_pass in over:
            if final_pass.due_since is None:
                final_pass.due_since = self._clock()
        early = [(s, s.final_pass) for s in streams if s.final_pass and s.final_pass_due]
        batch: list[tuple[LiveStream, FinalPass]] = [*over, *early][: self.settings.max_batch]

        def run(items: Sequence[tuple[LiveStream, FinalPass]]) -> None:
            word_times = any(stream.settings.word_times for stream, _ in items)
            self.runner.run_finals([final_pass for _, final_pass in items], word_times=word_times)

        began = self._clock()
        self._run(run, batch, lambda item, error: self._fail_utterance(item[1], error))
        if batch:
            self._observer.batch("final", len(batch), self._clock() - began)
        for stream, final_pass in batch:
            self._note_final(stream, final_pass)
        for stream in {id(s): s for s, _ in batch}.values():
            stream.tell_finals()

    def ask_turns(self, streams: Sequence[LiveStream]) -> None:
        """Turn detection of streams whose pause may be the end of a turn."""
        for stream in streams:
            if not stream.turn_in_question:
                continue
            if stream.turn_answer is None:
                self._run(
                    lambda items: self.runner.ask_turn(items[0], self._wake),
                    [stream],
                    self._fail_turn,
                )
            elif stream.turn_answer.done():
                stream.save()
                self._run(lambda items: self.runner.take_turn(items[0]), [stream], self._fail_turn)
                stream.commit()
                self._note_finals(stream)

    def run_partials(self, streams: Sequence[LiveStream]) -> None:
        """One batch of partials, those first that have waited longest."""
        due = [s for s in streams if s.partial_due and not s.ending and not s.failed]
        due.sort(key=lambda s: s.next_partial - s.detector.position)
        batch = due[: self._partial_batch]
        for stream in due:
            stream.passed_over = True
        for stream in batch:
            stream.passed_over = False
            self._note_gap(stream)
        began = self._clock()
        self._run(self.runner.run_partials, batch, self._fail_partial, self.runner.rewind)
        seconds = self._clock() - began
        self._fit_batch(len(batch), seconds)
        if batch:
            self._observer.batch("partial", len(batch), seconds)

    def _fit_batch(self, streams: int, seconds: float) -> None:
        """Take fewer streams at once where a batch keeps finals waiting, and more where not."""
        if seconds > PARTIALS_S:
            self._partial_batch = max(1, streams // 2)
        elif streams == self._partial_batch:
            self._partial_batch = min(self._partial_batch + 1, self.settings.max_batch)

    def _tell_queue(self, streams: Sequence[LiveStream]) -> None:
        if self._observer.observer is not None:
            waiting = sum(stream.has_work for stream in streams)
            pending = sum(stream.pending for stream in streams)
            self._observer.queue(waiting, pending / SAMPLE_RATE)

    # --- load ------------------------------------------------------------------------------------

    @property
    def lateness_s(self) -> float:
        """How long people wait for the engine beyond what they asked for.

        The largest of three medians: of the partials and of the finals of the last seconds, and of
        the audio that waits to be heard now; 0 where nobody speaks.
        """
        now = self._clock()
        with self._lock:
            waiting = [s.lateness(now) for s in self._streams if s.pending >= WINDOW_SAMPLES]
            return self._lateness.typical(waiting, now)

    def _note_gap(self, stream: LiveStream) -> None:
        """Remember by how much a partial comes late, counted in audio that has come in."""
        now = self._clock()
        with self._lock:
            self._lateness.note("partial", stream.lateness(now, stream.next_partial), now)

    def _note_final(self, stream: LiveStream, final_pass: FinalPass) -> None:
        """Remember how long an utterance that was over waited for its text.

        On the clock too, for who ends an utterance may send nothing while the text is waited for.
        """
        now = self._clock()
        late = stream.lateness(now, round(final_pass.at * SAMPLE_RATE))
        if final_pass.due_since is not None and late is not None:
            with self._lock:
                self._lateness.note("final", max(late, now - final_pass.due_since), now)

    def _note_finals(self, stream: LiveStream) -> None:
        """Remember finals whose text was there when the end was decided: that may have been late.

        An early final pass that takes long keeps the stream from hearing on.
        """
        now = self._clock()
        with self._lock:
            for event in stream.events:
                if isinstance(event, Final | UtteranceFailed):
                    late = stream.lateness(now, round(event.at * SAMPLE_RATE))
                    self._lateness.note("final", late, now)

    # --- faults ----------------------------------------------------------------------------------

    def _advance(self, stream: LiveStream) -> None:
        try:
            behind = len(stream.probabilities) * 512 / SAMPLE_RATE
            stream.advance(coalescing=stream.passed_over or behind > COALESCE_S)
        except Exception as error:
            self._fail(stream, error)

    def _run(
        self,
        work: Callable[[Sequence[Item]], None],
        items: Sequence[Item],
        fail: Callable[[Item, Exception], None],
        recover: Callable[[Item], None] | None = None,
    ) -> None:
        """Run a batch. If it raises, run its items one by one: only the culprits fail."""
        if not items:
            return
        try:
            work(items)
            return
        except Exception as error:
            if len(items) == 1:
                fail(items[0], error)
                return
            logger.warning("a batch of %d failed (%r); running it singly", len(items), error)
        for item in items:
            if recover is not None:
                recover(item)
            self._run(work, [item], fail)

    def _fail(self, stream: LiveStream, error: Exception) -> None:
        """End a stream: where its utterances begin and end cannot be known any more."""
        logger.error("a stream failed", exc_info=error)
        failure = StreamFailedError(
            f"The model failed for this stream with {type(error).__name__}: {error}; open a new "
            "stream to go on."
        )
        failure.__cause__ = error
        stream.failed = True
        stream.events.append(Failed(failure, stream.at))

    def _fail_utterance(self, final_pass: FinalPass, error: Exception) -> None:
        """The final pass of an utterance has raised: there is none, and the stream goes on."""
        logger.error("the final pass of an utterance failed", exc_info=error)
        final_pass.error = UtteranceFailedError(
            f"The model failed for this utterance with {type(error).__name__}: {error}; the stream "
            "goes on with what is said next."
        )
        final_pass.error.__cause__ = error

    def _fail_partial(self, stream: LiveStream, error: Exception) -> None:
        """A partial has raised: the utterance goes without; its final may still be had."""
        logger.error("a partial failed; its utterance goes on without", exc_info=error)
        stream.muted = stream.detector.utterance
        self.runner.forget_hypothesis(stream)

    def _fail_turn(self, stream: LiveStream, error: Exception) -> None:
        """The turn model has raised: the longest pause decides."""
        logger.error("turn detection failed; the longest pause ends this turn", exc_info=error)
        stream.turn_in_question, stream.turn_answer = False, None

    def recover(self, error: TinyvoiceError) -> None:
        """Go on with all streams after a step that broke off; nothing of the runner's is there.

        Runs outside the worker, of which there is none meanwhile.
        """
        # The step may have ended where it held the lock.
        self._lock = threading.Lock()
        self._removed = []
        for stream in self._streams:
            stream.recover(error)
        self._lateness.clear()
        self._partial_batch = self.settings.max_batch

    def give_back(self) -> None:
        """Free what streams hold that were removed; runs in the worker, as `step` does."""
        with self._lock:
            removed, self._removed = self._removed, []
        for stream in removed:
            self.runner.close(stream)

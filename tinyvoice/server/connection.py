"""Carries out what a Realtime session wants: the asyncio shell around `RealtimeSession`.

It owns the session's stream in the engine, its timers, the tasks that make answers, and a queue
before each client that is attached. What it does not know is the protocol, which is the session's,
and what a client is connected by: a WebSocket and a WebRTC call both use it.

Everything that happens reaches the session in one order: an input, then all outputs that it caused.
A fault in any of the tasks ends this session, with an ``error`` event and close code 1011, and no
other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, Protocol

from tinyvoice.engine import (
    Failed,
    Final,
    SpeechEnded,
    Stream,
    StreamClosedError,
    StreamingEngine,
    UtteranceFailed,
)
from tinyvoice.engine.events import Event
from tinyvoice.errors import AudioError, ConfigurationError, MissingExtraError, TinyvoiceError
from tinyvoice.realtime import outputs
from tinyvoice.realtime.backends.interface import (
    AudioDelta,
    BackendEvent,
    BackendFailed,
    Begun,
    Finished,
    Responder,
    ResponseRequest,
    Waiting,
)
from tinyvoice.realtime.session import RealtimeSession
from tinyvoice.server import logs
from tinyvoice.server.metrics import ServerMetrics
from tinyvoice.server.outbox import Outbox, Transport
from tinyvoice.server.settings import ServerSettings

logger = logging.getLogger(__name__)

NORMAL, GOING_AWAY, ABNORMAL, SERVER_ERROR = 1000, 1001, 1006, 1011
"""WebSocket close codes (RFC 6455 §7.4.1)."""

CLOSE_CODES = (NORMAL, GOING_AWAY, 1005, ABNORMAL, 1007, 1008, 1009, SERVER_ERROR, 1012, 1013)
"""Codes that are counted each for itself; a client may close with thousands of others."""

UNHEARD_BYTES = 4 << 20
"""Audio that may wait for the engine before a client is no longer read: 87 s at 24 kHz."""

RESUMED_BYTES = 96_000
"""So much has to be heard before a client that was not read is read again: 2 s at 24 kHz. Its pings
wait in what is not read."""

_INPUTS_AT_A_TIME = 16
"""Inputs in a row after which other tasks get their turn."""

_BYTES_PER_SECOND = {"pcm16": 2, "mulaw": 1, "alaw": 1}
_SILENCE = {"pcm16": b"\0", "mulaw": b"\xff", "alaw": b"\xd5"}

_LONGEST_LOGGED = 1_000
"""Characters of a client's event in the log, where content is logged at all."""

_OUR_FAULT = "The server had an error, and the session cannot go on."

EngineWork = (
    outputs.Feed
    | outputs.SetFormat
    | outputs.SetStream
    | outputs.Commit
    | outputs.Clear
    | outputs.Flush
)


class Player(Protocol):
    """Plays answers where the client has an audio track. It tells the connection what happens by
    `RealtimeConnection.playback_started` and `playback_finished`."""

    def play(self, response_id: str, item_id: str, pcm: bytes) -> None:
        """Queue pcm16 mono at 24 kHz behind what waits."""

    def finish(self, response_id: str) -> None:
        """Nothing more comes of this answer; what waits of it is still played."""

    def stop(self, response_id: str) -> float:
        """Throw away what waits of this answer; the milliseconds of it that were played."""


class RealtimeConnection:
    """One session with everything around it.

    ``transport`` is the client that the session lives and dies with; `attach` lets others listen
    in and take part. Use: `open`, then `run`, and feed it with what the client sends.
    """

    def __init__(
        self,
        session: RealtimeSession,
        engine: StreamingEngine,
        responder: Responder,
        transport: Transport,
        settings: ServerSettings,
        metrics: ServerMetrics,
        *,
        player: Player | None = None,
        label: str = "websocket",
    ) -> None:
        self.session = session
        self.id = session.id
        self.player = player
        self.close_code: int | None = None
        """Set when the session is over."""
        self._engine, self._responder = engine, responder
        self._settings, self._metrics, self._label = settings, metrics, label
        self._main = self._outbox(transport)
        self._outboxes = [self._main]
        self._stream: Stream | None = None
        self._work: deque[EngineWork] = deque()
        self._work_bytes = 0
        self._has_work = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._caught_up.set()
        self._encoding, self._rate = "pcm16", 24_000
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._answers: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._ended = asyncio.Event()
        self._close_reason = ""
        self._carrying = False
        self._inputs = 0
        self._heard_from = 0.0

    # --- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take a place in the engine.

        Raises:
            EngineFullError, EngineOverloadedError, EngineClosedError: there is none.
        """
        self._stream = await self._engine.stream(self._rate, encoding=self._encoding).open()

    async def run(self) -> None:
        """Serve until the session is over; everything is given back then. Call once."""
        loop = asyncio.get_running_loop()
        started = self._heard_from = loop.time()
        labels = {"kind": self.session.kind, "transport": self._label}
        self._metrics.sessions.labels(**labels).inc()
        self._metrics.sessions_opened.labels(**labels).inc()
        with logs.about(self.id):
            logger.info("session opened", extra=labels)
            try:
                self._begin()
                await self._over.wait()
            finally:
                await self._end()
                self._metrics.sessions.labels(**labels).dec()
                self._metrics.session_seconds.observe(loop.time() - started)
                known = self.close_code in CLOSE_CODES
                self._metrics.sessions_closed.labels(self.close_code if known else "other").inc()
                logger.info(
                    "session closed",
                    extra={"code": self.close_code, "seconds": round(loop.time() - started, 1)},
                )

    def _begin(self) -> None:
        self._spawn(self._work_for_engine(), "engine")
        self._spawn(self._listen(), "events")
        self._write(self._main)
        self._watch_idleness()
        self._tell(self.session.open)

    async def _end(self) -> None:
        """Give everything back. Runs once, however the session ended."""
        if self.close_code is None:
            self.close(GOING_AWAY, "the server stops")
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._stream is not None:
            self._stream.drop()
        tasks = [*self._tasks, *self._answers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._answers.clear()
        self._work.clear()
        for outbox in self._outboxes:
            outbox.finish(self.close_code or NORMAL, self._close_reason)
        await asyncio.gather(*(outbox.over.wait() for outbox in self._outboxes))
        self._ended.set()

    def release(self) -> None:
        """Give everything back where `run` was never called; otherwise it has done so."""
        if self._stream is not None:
            self._stream.drop()
        self._ended.set()

    def close(self, code: int, reason: str = "") -> None:
        """End the session: what is queued is sent, then the connection is closed."""
        if self.close_code is None:
            self.close_code, self._close_reason = code, reason
            self._over.set()
            self._caught_up.set()

    async def drain(self) -> None:
        """Finish the turns in hand, then close with 1001 (see `RealtimeSession.drain`)."""
        self._tell(self.session.drain)

    async def stop(self) -> None:
        """Close with 1001 now."""
        self.close(GOING_AWAY, "the server stops")

    async def wait_closed(self) -> None:
        """Return when the session is over and everything has been given back."""
        await self._ended.wait()

    # --- clients ---------------------------------------------------------------------------------

    def attach(self, transport: Transport) -> Outbox:
        """Let a further client hear every event from now on, beginning with ``session.created``.

        Its own events are handed to `receive_text`. The outbox's ``over`` says when it is gone.
        """
        outbox = self._outbox(transport)
        self._outboxes.append(outbox)
        self._write(outbox)
        outbox.put(_encoded(self.session.greeting()))
        if self.close_code is not None:
            outbox.finish(self.close_code, self._close_reason)
        return outbox

    def detach(self, outbox: Outbox) -> None:
        """Forget a client that was attached; the session goes on."""
        if outbox in self._outboxes and outbox is not self._main:
            self._outboxes.remove(outbox)
            outbox.finish(NORMAL, "")

    def lost(self, code: int = ABNORMAL) -> None:
        """The main client is gone, with this close code: the session is over."""
        self.close(code)

    def _outbox(self, transport: Transport) -> Outbox:
        settings = self._settings
        return Outbox(transport, settings.send_queue_bytes, settings.send_timeout_seconds)

    def _write(self, outbox: Outbox) -> None:
        async def write() -> None:
            await outbox.run()
            if outbox.fault is not None:
                logger.warning("a client does not read and is dropped: %s", outbox.fault)
                self._metrics.client_errors.labels(outbox.fault).inc()
            if outbox is self._main:
                self.lost()
            elif outbox in self._outboxes:
                self._outboxes.remove(outbox)

        # Not among the session's tasks: it sends what is left when they are over.
        task = asyncio.create_task(write(), name=f"{self.id} writer")
        self._writers.add(task)
        task.add_done_callback(self._writers.discard)

    # --- what comes from the client --------------------------------------------------------------

    async def receive_text(self, text: str) -> None:
        """An event of a client; returns when the next one may be read."""
        if self._settings.log_content:
            logger.info("received", extra={"text": text[:_LONGEST_LOGGED]})
        self._tell(self.session.receive_text, text)
        await self._ready()

    async def receive_binary(self, data: bytes) -> None:
        """A binary frame of a client; returns when the next one may be read."""
        self._tell(self.session.receive_binary, data)
        await self._ready()

    async def receive_oversized(self, size: int, limit: int) -> None:
        """An event of a client that was too long for its transport, in bytes."""
        self._tell(self.session.receive_oversized, size, limit)
        await self._ready()

    async def receive_audio(self, audio: bytes) -> None:
        """Audio of an audio track; returns when more may follow."""
        self._tell(self.session.receive_audio, audio)
        await self._ready()

    def playback_started(self, response_id: str) -> None:
        """The player has begun to play this answer."""
        self._tell(self.session.playback_started, response_id)

    def playback_finished(self, response_id: str) -> None:
        """The player has played everything it was given of this answer."""
        self._tell(self.session.playback_finished, response_id)

    async def _ready(self) -> None:
        """Wait where a client sends faster than it is heard, or does not read what it is sent."""
        self._heard_from = asyncio.get_running_loop().time()
        await self._caught_up.wait()
        await self._main.room()
        self._inputs += 1
        if self._inputs % _INPUTS_AT_A_TIME == 0:
            await asyncio.sleep(0)

    # --- the session -----------------------------------------------------------------------------

    def _tell(self, inform: Callable[..., None], *arguments: Any) -> None:
        """Give the session an input and carry out what it wants."""
        if self.close_code is not None:
            return
        try:
            inform(*arguments)
            self._carry_out()
        except Exception as error:
            self._break(error)

    def _carry_out(self) -> None:
        if self._carrying:  # an output caused an input: its outputs follow in their turn
            return
        self._carrying = True
        try:
            while outs := self.session.take():
                for output in outs:
                    self._do(output)
        finally:
            self._carrying = False

    def _break(self, error: BaseException) -> None:
        """A fault of ours: log it, say so, and end this session."""
        logger.error("session failed", exc_info=error)
        self._metrics.errors.labels("session").inc()
        if self.close_code is not None:
            return
        try:
            told = error if isinstance(error, TinyvoiceError) else RuntimeError(_OUR_FAULT)
            self.session.fail(told)
            self._carry_out()
        except Exception:
            logger.exception("the session cannot even fail")
        self.close(SERVER_ERROR, "server error")

    def _do(self, output: outputs.Output) -> None:
        match output:
            case outputs.Send(event):
                self._send(event)
            case outputs.Generate(response_id, request):
                self._generate(response_id, request)
            case outputs.CancelGeneration(response_id):
                if answer := self._answers.pop(response_id, None):
                    answer.cancel()
                    self._tasks.add(answer)
                    answer.add_done_callback(self._tasks.discard)
            case outputs.Play(response_id, item_id, audio):
                if self.player is not None:
                    self.player.play(response_id, item_id, audio)
            case outputs.StopPlayback(response_id):
                played = self.player.stop(response_id) if self.player is not None else 0.0
                self._tell(self.session.playback_cleared, response_id, played)
            case outputs.SetTimer(name, seconds):
                self._set_timer(name, seconds)
            case outputs.CancelTimer(name):
                if timer := self._timers.pop(name, None):
                    timer.cancel()
            case outputs.Disconnect(code, reason):
                self.close(code, reason)
            case _:
                self._queue(output)

    def _send(self, event: Any) -> None:
        if self.close_code is not None:
            return
        if self._settings.log_content:
            logger.info("sent", extra={"event": without_audio(event)})
        text = _encoded(event)
        for outbox in self._outboxes:
            outbox.put(text)
        self._count(event)

    def _count(self, event: Any) -> None:
        kind = event["type"]
        if kind == "error":
            self._metrics.client_errors.labels(str(event["error"].get("code"))).inc()
        elif kind == "response.done":
            self._metrics.responses.labels(event["response"]["status"]).inc()

    def _set_timer(self, name: str, seconds: float) -> None:
        if earlier := self._timers.pop(name, None):
            earlier.cancel()

        def due() -> None:
            self._timers.pop(name, None)
            self._tell(self.session.timer, name)

        self._timers[name] = asyncio.get_running_loop().call_later(seconds, due)

    def _watch_idleness(self) -> None:
        """Close where the client has sent nothing for too long; else look again in time."""
        loop = asyncio.get_running_loop()
        left = self._heard_from + self._settings.idle_seconds - loop.time()
        if left <= 0:
            logger.info("session idle")
            self.close(GOING_AWAY, "idle")
            return
        self._timers["tinyvoice.idle"] = loop.call_later(left, self._watch_idleness)

    # --- the engine ------------------------------------------------------------------------------

    def _queue(self, work: EngineWork) -> None:
        self._work.append(work)
        if isinstance(work, outputs.Feed):
            self._work_bytes += len(work.audio)
            if self._work_bytes > UNHEARD_BYTES:
                self._caught_up.clear()
        self._has_work.set()

    async def _work_for_engine(self) -> None:
        """Do for the engine's stream what the session asked for, in its order."""
        assert self._stream is not None
        while True:
            while self._work:
                work = self._work.popleft()
                try:
                    await self._do_for_engine(self._stream, work)
                except StreamClosedError:
                    return  # its last event says why
            self._has_work.clear()
            await self._has_work.wait()

    async def _do_for_engine(self, stream: Stream, work: EngineWork) -> None:
        match work:
            case outputs.Feed(audio):
                await self._feed(stream, audio)
            case outputs.SetFormat(encoding, sample_rate):
                stream.change_format(sample_rate, encoding=encoding)
                self._encoding, self._rate = encoding, sample_rate
            case outputs.SetStream(changes):
                await self._set(stream, changes)
            case outputs.Clear():
                await stream.clear()
            case outputs.Commit(item_id):
                number = await stream.commit()
                # The answer stands where it belongs: behind what was said, before its end.
                behind = self._hand_over(stream.read(), before_end_of=number)
                self._tell(self.session.committed, item_id, number)
                self._hand_over(behind)
            case outputs.Flush(name):
                await stream.flush()
                self._hand_over(stream.read())
                self._tell(self.session.flushed, name)

    async def _set(self, stream: Stream, changes: Mapping[str, Any]) -> None:
        try:
            await stream.update(**changes)
        except MissingExtraError as error:
            # Clients ask for semantic turn detection by default: a plainer one is better than none.
            logger.warning("silence alone ends turns: %s", error)
            await stream.update(**{**changes, "endpointing": "vad"})
        except ConfigurationError as error:
            self._metrics.errors.labels("settings").inc()
            logger.error("the stream keeps its settings: %s", error)

    async def _feed(self, stream: Stream, audio: bytes) -> None:
        try:
            await stream.feed(audio)
        except AudioError as error:
            logger.warning("audio that cannot be used is taken as silence: %s", error)
            await stream.feed(_SILENCE[self._encoding] * len(audio))
        self._work_bytes -= len(audio)
        if self._work_bytes <= UNHEARD_BYTES - RESUMED_BYTES:
            self._caught_up.set()
        seconds = len(audio) / (_BYTES_PER_SECOND[self._encoding] * self._rate)
        self._metrics.audio_seconds.labels(self._label).inc(seconds)

    async def _listen(self) -> None:
        """Hand over the engine's events until its stream is closed."""
        assert self._stream is not None
        async for event in self._stream:
            self._hand_over([event])

    def _hand_over(self, events: list[Event], before_end_of: int | None = None) -> list[Event]:
        """Tell the session; returns the events from the end of this utterance on, if asked for."""
        for at, event in enumerate(events):
            if (
                before_end_of is not None
                and isinstance(event, SpeechEnded | Final | UtteranceFailed)
                and event.utterance == before_end_of
            ):
                return events[at:]
            self._observe(event)
            self._tell(self.session.receive_engine, event)
        return []

    def _observe(self, event: Event) -> None:
        match event:
            case Final():
                self._metrics.turns.labels("completed").inc()
            case UtteranceFailed():
                self._metrics.turns.labels("failed").inc()
            case Failed():
                self._metrics.errors.labels("stream").inc()

    # --- answers ---------------------------------------------------------------------------------

    def _generate(self, response_id: str, request: ResponseRequest) -> None:
        answer = asyncio.create_task(
            self._answer(response_id, request), name=f"{self.id} {response_id}"
        )
        self._answers[response_id] = answer
        answer.add_done_callback(lambda _: self._answered(response_id))

    def _answered(self, response_id: str) -> None:
        self._answers.pop(response_id, None)
        if self.player is not None:
            self.player.finish(response_id)

    async def _answer(self, response_id: str, request: ResponseRequest) -> None:
        """Hand the events of an answer to the session, no faster than the client reads them."""
        try:
            async with contextlib.aclosing(self._events(request)) as events:
                async for event in events:
                    self._tell(self.session.receive_backend, response_id, event)
                    if isinstance(event, Finished | BackendFailed):
                        return
                    if not self._main.has_room:
                        self._tell(self.session.receive_backend, response_id, Waiting())
                        await self._main.room()
                        self._tell(self.session.receive_backend, response_id, Begun())
                    await asyncio.sleep(0)
        except Exception as error:
            self._metrics.errors.labels("answer").inc()
            logger.error("answer failed", exc_info=error)
            said = str(error) if isinstance(error, TinyvoiceError) else "The answer failed."
            failed = BackendFailed("server_error", said)
        else:
            failed = BackendFailed("server_error", "The answer broke off.")
        self._tell(self.session.receive_backend, response_id, failed)

    async def _events(self, request: ResponseRequest) -> AsyncGenerator[BackendEvent, None]:
        """The responder's events; closed with whoever reads them."""
        started = asyncio.get_running_loop().time()
        silent = True
        events = self._responder.respond(request)
        try:
            async for event in events:
                if silent and isinstance(event, AudioDelta):
                    silent = False
                    waited = asyncio.get_running_loop().time() - started
                    self._metrics.first_audio.observe(waited)
                yield event
        finally:
            if (close := getattr(events, "aclose", None)) is not None:
                await close()

    # --- tasks -----------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                self._break(error)

        task = asyncio.create_task(guarded(), name=f"{self.id} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _encoded(event: Any) -> str:
    """An event as ASCII: lone surrogates, which a client may have sent, pass as escapes."""
    return json.dumps(event, separators=(",", ":"), allow_nan=False)


def without_audio(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event as it is logged: sound is told by its length."""
    shown = dict(event)
    if "audio.delta" in event["type"]:
        shown["delta"] = f"{len(event['delta'])} characters"
    return shown

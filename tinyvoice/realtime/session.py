"""One Realtime session: client events, engine events and answers in; outputs to be carried out.

`RealtimeSession` is the protocol and nothing else. It does no I/O, owns no task and reads no clock:
a shell (WebSocket, WebRTC) feeds it what arrives and carries out `take()` in order after each
input. It neither hears nor speaks: the engine's stream and the responder are the shell's.

Two state machines do the work: `turns` for what comes in, `responses` for what goes out. This one
reads client events, and joins the two: speech interrupts an answer, and a turn begets one.
"""

from __future__ import annotations

import base64
import binascii
import copy
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal

from tinyvoice.engine.events import Event, Failed
from tinyvoice.realtime.backends.interface import BackendEvent
from tinyvoice.realtime.configuration import (
    DEFAULT_MODEL,
    Kind,
    default_configuration,
    has_mcp_tools,
    input_format,
    response_parameters,
    stream_changes,
    updated,
)
from tinyvoice.realtime.conversation import Conversation, Entry
from tinyvoice.realtime.dialect import Dialect, is_beta, nested_response, nested_session
from tinyvoice.realtime.errors import ProtocolError, unsupported, wrong_value
from tinyvoice.realtime.fields import (
    LONGEST_NAME,
    a_string,
    an_identifier,
    an_integer,
    an_object,
    check_values,
    nesting,
    one_of,
    parse_event,
    required,
)
from tinyvoice.realtime.identifiers import random_identifier
from tinyvoice.realtime.items import client_item
from tinyvoice.realtime.limits import SessionLimits
from tinyvoice.realtime.outbox import Outbox
from tinyvoice.realtime.outputs import (
    Disconnect,
    Output,
    SetFormat,
    SetStream,
    SetTimer,
)
from tinyvoice.realtime.responses import TIMER as RESPONSE_TIMER
from tinyvoice.realtime.responses import Responses, Transport
from tinyvoice.realtime.state import State
from tinyvoice.realtime.turns import IDLE, STALL, InputTurns, Turn

__all__ = ["ProtocolError", "RealtimeSession", "SessionLimits", "session_configuration"]

logger = logging.getLogger(__name__)

SESSION_TIMER = "session"
DRAIN_TIMER = "drain"
TRACK_FORMAT = ("pcm16", 24_000)
"""Of an audio track, whatever the configuration says: the transport negotiates its own coding."""
LEFT_OUT = (
    "Tools of type mcp are left out: this server calls none. Give them as functions, and call them "
    "in the client."
)
TOLERATED = ("ping", "transcription_session.updated", "session.updated")
"""Sent by clients now and then, and harmless."""


class RealtimeSession:
    """The state of one session.

    ``configuration`` is what `session_configuration` returned, for a session that begins with the
    configuration of a client secret. ``ids`` makes an identifier from its prefix, ``now`` is the
    time in unix seconds from which ``expires_at`` counts. No input raises on what a client sent.

    Raises:
        ProtocolError: ``configuration`` cannot be used.
    """

    def __init__(
        self,
        kind: Kind = "realtime",
        *,
        model: str = DEFAULT_MODEL,
        dialect: Dialect = "ga",
        transport: Transport = "websocket",
        configuration: Mapping[str, Any] | None = None,
        limits: SessionLimits | None = None,
        ids: Callable[[str], str] | None = None,
        now: float,
    ) -> None:
        self.kind: Kind = kind
        self.transport = transport
        self.closed = False
        """Whether `Disconnect` has been put out; further inputs do nothing."""
        limits = limits or SessionLimits()
        ids = ids or random_identifier
        self._outbox = Outbox(ids, dialect)
        self.id = ids("sess")
        self.expires_at = int(now + limits.session_seconds)
        begin = default_configuration(kind, model)
        if configuration is not None:
            begin = updated(begin, dict(configuration), limits)
            if kind == "realtime" and configuration.get("model"):
                begin["model"] = str(configuration["model"])
        conversation = Conversation(ids("conv"), limits.items, limits.conversation_bytes)
        self._state = State(kind, begin, conversation, self._outbox, limits)
        self._turns = InputTurns(self._state, self)
        self._responses = Responses(self._state, transport, self)
        self._dialect_known = dialect == "beta"
        self._tools_noticed = False
        """Whether it has been logged that tools are left out."""
        self._events_received = 0
        self._response_due = False
        """Whether a turn waits for its answer."""
        self._draining = False
        self._format: tuple[str, int] | None = None
        self._stream: dict[str, Any] | None = None

    @property
    def dialect(self) -> Dialect:
        """What the connection speaks; a client's first events may show that it is the older one."""
        return self._outbox.dialect

    # --- what the shell tells --------------------------------------------------------------------

    def open(self) -> None:
        """The connection stands: format and settings of the stream, ``session.created``."""
        self._set_stream()
        self._outbox.put(SetTimer(SESSION_TIMER, self._state.limits.session_seconds))
        self._outbox.emit("session.created", session=self.describe())

    def receive_text(self, text: str) -> None:
        """A text frame or data channel message of the client: one event."""
        if self.closed:
            return
        event_id: str | None = None
        try:
            event = parse_event(text, self._state.limits.event_bytes)
            event_id = self._event_id(event)
            if nesting(event) > self._state.limits.json_depth:
                raise ProtocolError(
                    "invalid_json",
                    f"The event is nested more than {self._state.limits.json_depth} levels deep.",
                )
            check_values(event)
            self._follow(event)
        except ProtocolError as error:
            self._outbox.emit("error", error=error.describe(event_id))
        except Exception:
            # A mistake of ours must not take the session with it.
            logger.exception("a client's event could not be followed")
            ours = ProtocolError(
                "internal_error", "The server could not process this event.", kind="server_error"
            )
            self._outbox.emit("error", error=ours.describe(event_id))
        self._after()

    def receive_binary(self, data: bytes) -> None:
        """A binary frame, which the protocol does not have."""
        if self.closed:
            return
        error = ProtocolError(
            "invalid_event",
            f"A binary frame of {len(data)} bytes: send events as text frames, audio as base64 in "
            "'input_audio_buffer.append'.",
        )
        self._outbox.emit("error", error=error.describe(None))

    def receive_oversized(self, size: int, limit: int) -> None:
        """An event of the client that the transport did not take, in bytes."""
        if self.closed:
            return
        error = ProtocolError(
            "event_too_large",
            f"An event of {size} bytes came: at most {limit} are taken over a data channel.",
        )
        self._outbox.emit("error", error=error.describe(None))

    def receive_audio(self, audio: bytes) -> None:
        """Audio of an audio track, in the format of the last `SetFormat`."""
        if not self.closed:
            self._turns.append_unasked(audio)
            self._after()

    def receive_engine(self, event: Event) -> None:
        """An event of the engine's stream."""
        if self.closed:
            return
        if isinstance(event, Failed):
            self._turns.fail(event)
            self.fail(event.error)
            return
        self._turns.receive(event)
        self._after()

    def committed(self, item_id: str, utterance: int | None) -> None:
        """The answer to `Commit`: the utterance that was ended, None if there was none."""
        if not self.closed:
            self._turns.committed(item_id, utterance)
            self._after()

    def flushed(self, name: str) -> None:
        """The answer to `Flush`."""
        if not self.closed and name == IDLE:
            self._turns.flushed()
            self._after()

    def receive_backend(self, response_id: str, event: BackendEvent) -> None:
        """An event of the answer that `Generate` asked for."""
        if not self.closed:
            self._responses.clock_ms = self._turns.clock_ms
            self._responses.receive(response_id, event)
            self._after()

    def timer(self, name: str) -> None:
        """A timer set by `SetTimer` is due."""
        if self.closed:
            return
        if name == SESSION_TIMER:
            self.expire()
        elif name == DRAIN_TIMER:
            self._disconnect(1001, "server shutting down")
        elif name == STALL:
            self._turns.stalled()
        elif name.startswith(RESPONSE_TIMER):
            self._responses.stalled(name.removeprefix(RESPONSE_TIMER))
        self._after()

    def playback_started(self, response_id: str) -> None:
        """The first audio of an answer leaves (WebRTC)."""
        if not self.closed:
            self._responses.playback_started(response_id)

    def playback_finished(self, response_id: str) -> None:
        """All audio of an answer that was put out has left (WebRTC)."""
        if not self.closed:
            self._responses.playback_finished(response_id)
            self._after()

    def playback_cleared(self, response_id: str, played_ms: float) -> None:
        """The answer to `StopPlayback`: how much of the answer's audio has left (WebRTC)."""
        if not self.closed:
            self._responses.playback_cleared(response_id, played_ms)
            self._after()

    def drain(self) -> None:
        """The server shuts down: finish turns and answers, then close with 1001."""
        if self.closed or self._draining:
            return
        self._draining = True
        self._outbox.put(SetTimer(DRAIN_TIMER, self._state.limits.drain_seconds))
        self._after()

    def expire(self) -> None:
        """The session's time is over: say so and close with 1001."""
        if self.closed:
            return
        minutes = self._state.limits.session_seconds / 60
        error = ProtocolError(
            "session_expired",
            f"Your session hit the maximum duration of {minutes:g} minutes.",
        )
        self._outbox.emit("error", error=error.describe(None))
        self._disconnect(1001, "session expired")

    def fail(self, error: Exception) -> None:
        """The shell cannot go on: say so and close with 1011."""
        if self.closed:
            return
        self._response_due = False
        self._responses.fail_all("The session has failed.")
        told = ProtocolError(
            "server_error", str(error) or "The session failed.", kind="server_error"
        )
        self._outbox.emit("error", error=told.describe(None))
        self._disconnect(1011, "server error")

    def take(self) -> list[Output]:
        """What is to be done since the last call, in order."""
        return self._outbox.take()

    # --- what it is ------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """The effective session in GA form, as ``session.created`` carries it."""
        return described(self._state.configuration, self.id, self.expires_at)

    def greeting(self) -> dict[str, Any]:
        """``session.created`` for a client that joins, as the session is now and as it speaks."""
        event = self._outbox.event("session.created", session=self.describe())
        assert event is not None
        return event

    @property
    def configuration(self) -> dict[str, Any]:
        """The effective configuration: `describe` without identifier and expiry."""
        return copy.deepcopy(self._state.configuration)

    # --- client events ---------------------------------------------------------------------------

    def _event_id(self, event: Mapping[str, Any]) -> str | None:
        if event.get("event_id") is None:
            return None
        event_id = a_string(event["event_id"], "event_id")
        check_values(event_id)
        return an_identifier(event_id, "event_id")

    def _follow(self, event: Mapping[str, Any]) -> None:
        kind = a_string(required(event, "type", "type"), "type")
        self._notice_dialect(event)
        if kind in TOLERATED:
            return
        if kind == "session.close":
            self._disconnect(1000, "closed by the client")
            return
        handlers = self._handlers
        if kind not in handlers:
            raise unsupported("type", kind, sorted(handlers))
        self._responses.clock_ms = self._turns.clock_ms
        handlers[kind](event)

    @functools.cached_property
    def _handlers(self) -> dict[str, Callable[[Mapping[str, Any]], None]]:
        handlers: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "session.update": self._session_update,
            "transcription_session.update": self._session_update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "output_audio_buffer.clear": self._output_clear,
            "conversation.item.create": self._item_create,
            "conversation.item.retrieve": self._item_retrieve,
            "conversation.item.truncate": self._item_truncate,
            "conversation.item.delete": self._item_delete,
            "response.create": self._response_create,
            "response.cancel": self._response_cancel,
        }
        if self.kind == "transcription":
            del handlers["response.create"]
        return handlers

    def _notice_dialect(self, event: Mapping[str, Any]) -> None:
        """The first event, or the first ``session.update``, may show the older dialect."""
        if self._dialect_known:
            return
        self._events_received += 1
        update = event["type"] == "session.update"
        legacy = event["type"] == "transcription_session.update" and self._events_received == 1
        if update or legacy:
            self._dialect_known = True
            if is_beta(event):
                self._outbox.dialect = "beta"

    def _session_update(self, event: Mapping[str, Any]) -> None:
        change = nested_session(required(event, "session", "session"))
        if event["type"] == "transcription_session.update" and isinstance(change, dict):
            change = change | {"type": "transcription"}
        new = updated(self._state.configuration, change, self._state.limits)
        self._notice_tools(change)
        self._check_voice(new)
        self._state.configuration = new
        self._set_stream()
        self._outbox.emit("session.updated", session=self.describe())

    def _notice_tools(self, given: Any) -> None:
        """Somebody may wonder why a tool is never called; an error would end some clients."""
        if not self._tools_noticed and has_mcp_tools(given):
            self._tools_noticed = True
            logger.warning(LEFT_OUT)

    def _check_voice(self, new: Mapping[str, Any]) -> None:
        if self.kind == "transcription" or not self._state.conversation.has_answer_audio:
            return
        before = self._state.configuration["audio"]["output"]["voice"]
        if new["audio"]["output"]["voice"] != before:
            raise ProtocolError(
                "cannot_update_voice",
                "Cannot update a conversation's voice if assistant audio is present.",
                "session.audio.output.voice",
            )

    def _set_stream(self) -> None:
        """Tell the stream what has changed for it."""
        wanted = input_format(self._state.configuration)
        wanted = TRACK_FORMAT if self.transport == "webrtc" else wanted
        if wanted != self._format:
            self._format = wanted
            self._turns.set_format(*wanted)
            self._outbox.put(SetFormat(*wanted))
        changes = stream_changes(self._state.configuration)
        if changes != self._stream:
            self._stream = changes
            self._outbox.put(SetStream(changes))

    def _append(self, event: Mapping[str, Any]) -> None:
        text = a_string(required(event, "audio", "audio"), "audio")
        most = self._state.limits.append_bytes
        if len(text) > (most + 2) // 3 * 4:
            raise wrong_value(
                "audio", f"Invalid 'audio': more than {most} bytes in one event; append less."
            )
        try:
            audio = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise wrong_value(
                "audio", "Invalid 'audio'. Expected base64-encoded audio bytes."
            ) from error
        self._turns.append(audio)

    def _commit(self, event: Mapping[str, Any]) -> None:
        self._turns.commit(event.get("event_id"))

    def _clear(self, _event: Mapping[str, Any]) -> None:
        self._turns.clear()

    def _output_clear(self, _event: Mapping[str, Any]) -> None:
        self._responses.stop_playback()

    def _item_create(self, event: Mapping[str, Any]) -> None:
        item = client_item(required(event, "item", "item"), "item", self._outbox.ids)
        previous = event.get("previous_item_id")
        if previous is not None:
            previous = an_identifier(previous, "previous_item_id")
        if item["id"] in self._state.conversation or self._turns.reserved(item["id"]):
            raise ProtocolError(
                "item_create_duplicate_item_id",
                f"Error adding item: an item with id '{item['id']}' already exists.",
                "item.id",
            )
        self._state.add_item(item, self._state.conversation.place(previous))

    def _item_retrieve(self, event: Mapping[str, Any]) -> None:
        entry = self._entry(event, "retrieve")
        self._outbox.emit("conversation.item.retrieved", item=entry.view())

    def _item_delete(self, event: Mapping[str, Any]) -> None:
        item_id = self._entry(event, "delete").item["id"]
        self._state.conversation.remove(item_id)
        self._outbox.emit("conversation.item.deleted", item_id=item_id)

    def _entry(self, event: Mapping[str, Any], what: str) -> Entry:
        item_id = an_identifier(required(event, "item_id", "item_id"), "item_id")
        entry = self._state.conversation.get(item_id)
        if entry is None:
            raise ProtocolError(
                f"item_{what}_invalid_item_id",
                f"Error with {what} of item: the item with id '{item_id}' does not exist.",
                "item_id",
            )
        return entry

    def _item_truncate(self, event: Mapping[str, Any]) -> None:
        item_id = an_identifier(required(event, "item_id", "item_id"), "item_id")
        index = an_integer(required(event, "content_index", "content_index"), "content_index")
        end = required(event, "audio_end_ms", "audio_end_ms")
        end_ms = an_integer(end, "audio_end_ms")
        heard_ms = self._state.conversation.truncate(item_id, index, end_ms)
        self._outbox.emit(
            "conversation.item.truncated",
            item_id=item_id,
            content_index=index,
            audio_end_ms=heard_ms,
        )

    def _response_create(self, event: Mapping[str, Any]) -> None:
        request = nested_response(event.get("response"))
        parameters = response_parameters(self._state.configuration, request, self._state.limits)
        self._notice_tools(request)
        self._responses.create(parameters, self._turns.awaited)
        self._turns.forget_idle()
        if not parameters.out_of_band:
            self._response_due = False

    def _response_cancel(self, event: Mapping[str, Any]) -> None:
        response = self._responses.active
        if event.get("response_id") is not None:
            named = an_identifier(event["response_id"], "response_id")
            response = self._responses.find(named)
        if response is not None:
            self._responses.cancel(response, "client_cancelled")
        elif self.transport != "webrtc" or not self._responses.any_made:
            # On an audio track an answer is still heard when it is done: no error for that.
            raise ProtocolError(
                "response_cancel_not_active", "Cancellation failed: no active response found"
            )

    # --- turns and responses meet ----------------------------------------------------------------

    def speech_started(self) -> None:
        """Somebody speaks: an answer that goes on, or is still heard, is interrupted."""
        detection = self._state.detection or {}
        if detection.get("interrupt_response"):
            self._responses.stop_playback()
            if self._responses.active is not None:
                self._responses.cancel(self._responses.active, "turn_detected")

    def turn_settled(self, turn: Turn) -> None:
        """A turn is over, its words are known: it may want an answer."""
        self._responses.transcript_ready(turn.item_id)
        detection = self._state.detection or {}
        answers = self.kind == "realtime" and detection.get("create_response")
        said = bool(turn.text) and turn.failure is None
        if answers and not turn.by_client and (said or turn.timed_out):
            self._response_due = True
        self._answer_if_due()
        if self._responses.any_made and not self._responses.busy:
            # A sound without words is no answer to an answer: silence goes on.
            self._watch_silence(self._turns.clock_ms)

    def turn_dropped(self) -> None:
        """The turn that an answer waited for is gone."""
        self._answer_if_due()

    def response_over(self, heard_until_ms: float | None) -> None:
        """An answer is done: the next turn's may begin, or silence is counted."""
        self._answer_if_due()
        if heard_until_ms is not None and self._responses.active is None:
            self._watch_silence(heard_until_ms)

    def playback_over(self) -> None:
        """An answer has been heard to its end."""
        if not self._responses.busy:
            self._watch_silence(self._turns.clock_ms)

    def _watch_silence(self, from_ms: float) -> None:
        if not self._turns.busy:
            self._turns.watch_idle(from_ms)

    def _answer_if_due(self) -> None:
        """Answer when nobody speaks and nothing else is being answered."""
        if not self._response_due or self.closed:
            return
        if self._responses.active is not None or self._turns.busy:
            return
        self._response_due = False
        self._turns.forget_idle()
        parameters = response_parameters(self._state.configuration, None, self._state.limits)
        self._responses.create(parameters, set())

    # --- the end ---------------------------------------------------------------------------------

    def _after(self) -> None:
        """After every input: has what a shutdown waits for come?"""
        idle = not (self._turns.busy or self._responses.busy or self._response_due)
        if self._draining and idle and not self.closed:
            self._disconnect(1001, "server shutting down")

    def _disconnect(self, code: int, reason: str) -> None:
        if not self.closed:
            self._outbox.put(Disconnect(code, reason))
            self.closed = True


def session_configuration(
    kind: Literal["realtime", "transcription"] | None,
    payload: Any,
    limits: SessionLimits | None = None,
) -> dict[str, Any]:
    """Check the ``session`` of a client secret or of a call, in either dialect.

    ``kind`` None takes the payload's ``type``, a conversation where there is none. The outcome is
    a complete configuration with its ``type``, for `RealtimeSession`'s ``configuration``.

    Raises:
        ProtocolError: a value in it cannot be used; ``param`` says which.
    """
    limits = limits or SessionLimits()
    given = an_object({} if payload is None else payload, "session")
    if nesting(given) > limits.json_depth:
        raise ProtocolError("invalid_json", "The session is nested too deeply.", "session")
    check_values(given)
    if kind is None:
        named = given.get("type")
        kind = "realtime"
        if named is not None:
            chosen = one_of(named, "session.type", ("realtime", "transcription"))
            kind = "transcription" if chosen == "transcription" else "realtime"
    model = DEFAULT_MODEL
    if kind == "realtime" and given.get("model") is not None:
        model = a_string(given["model"], "session.model", LONGEST_NAME)
    configuration = updated(default_configuration(kind, model), nested_session(given), limits)
    if has_mcp_tools(given):
        logger.warning(LEFT_OUT)
    return configuration


def described(configuration: Mapping[str, Any], identifier: str, expires_at: int) -> dict[str, Any]:
    """A configuration as the session object that is sent: keys in the original's order."""
    given = copy.deepcopy(dict(configuration))
    kind = given.pop("type")
    name = "realtime.session" if kind == "realtime" else "realtime.transcription_session"
    audio, include = given.pop("audio"), given.pop("include")
    session = {"type": kind, "object": name, "id": identifier, **given}
    return session | {"expires_at": expires_at, "audio": audio, "include": include}

"""Responses: from a request to the events of text, speech and function calls, and their end.

A response has at most one message, which stays open until the end (its audio may still be on its
way when the model already calls a function), and any number of function calls. Whatever ends it,
everything that was opened is closed and ``response.done`` comes last, exactly once.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tinyvoice.realtime.backends.interface import (
    AudioDelta,
    BackendEvent,
    BackendFailed,
    Finished,
    ResponseRequest,
    SpokenMark,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
    Waiting,
)
from tinyvoice.realtime.configuration import FORMATS, PARTIALS, ResponseParameters, wants
from tinyvoice.realtime.conversation import Entry, Speech, model_view
from tinyvoice.realtime.errors import ProtocolError, missing, wrong_value
from tinyvoice.realtime.fields import an_identifier
from tinyvoice.realtime.items import Item, client_item
from tinyvoice.realtime.outputs import (
    CancelGeneration,
    CancelTimer,
    Generate,
    Play,
    SetTimer,
    StopPlayback,
)
from tinyvoice.realtime.state import State

Transport = Literal["websocket", "webrtc"]
Status = Literal["completed", "cancelled", "failed", "incomplete"]

MOST_AUDIO_BYTES = 48_000
"""Of one delta: a second of pcm16, 64000 characters in base64. Clients bound their frames."""
MOST_TEXT = 16_000
"""Characters of one delta."""
LONGEST_CALL_ID = 32
TIMER = "response:"
"""A timer's name begins with this; the response's id follows."""


@dataclass
class Output:
    """An item that a response is making."""

    index: int
    item: Item
    entry: Entry | None
    """Its place in the conversation; None out of band."""
    speech: Speech = field(default_factory=Speech)
    arguments: str = ""
    done: bool = False


@dataclass
class Response:
    """A response that is being made."""

    id: str
    parameters: ResponseParameters
    context: list[Item | str] | None
    """What it answers, where that is not the conversation: items, and ids of items in it."""
    awaits: set[str] = field(default_factory=set)
    """Items whose transcript has to be there first."""
    outputs: list[Output] = field(default_factory=list)
    message: Output | None = None
    calls: dict[str, Output] = field(default_factory=dict)
    """By the backend's name of the call."""
    odd: bytes = b""
    begun: bool = False
    """Whether `Generate` has been put out."""
    begun_ms: float | None = None
    """The input's clock at the first audio."""
    progress: bool = True
    """Whether anything has come since the timer was set."""
    waits: bool = False
    """Whether it waits for its turn, or for its client; that time is not counted."""

    @property
    def out_of_band(self) -> bool:
        """Whether it leaves the conversation alone."""
        return self.parameters.out_of_band

    @property
    def modality(self) -> Literal["audio", "text"]:
        """What it is made of."""
        return "audio" if self.parameters.output_modalities == ["audio"] else "text"


@dataclass
class Playback:
    """An answer's audio on its way to a listener (WebRTC)."""

    outputs: list[Output]
    announced: bool = False
    over: bool = False
    """Whether no more audio will be added."""
    drained: bool = False


class ResponseListener(Protocol):
    """Who wants to know about responses."""

    def response_over(self, heard_until_ms: float | None) -> None:
        """The conversation's response is done, and its audio played up to there on the input's
        clock; None where it is still playing."""

    def playback_over(self) -> None:
        """Nothing is played any more."""


class Responses:
    """The responses of one session. Methods put what is to be done into the state's outbox."""

    def __init__(self, state: State, transport: Transport, listener: ResponseListener) -> None:
        self._state, self._transport, self._listener = state, transport, listener
        self._outbox = state.outbox
        self.active: Response | None = None
        """The response of the conversation."""
        self._others: dict[str, Response] = {}
        self._playing: dict[str, Playback] = {}
        self._stopping: dict[str, Playback] = {}
        self._call_ids: set[str] = set()
        self.any_made = False
        """Whether there has been a response in this session."""
        self.clock_ms = 0.0
        """The input's clock, kept up to date by the session."""

    # --- what is known ---------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether an answer is being made or played."""
        return bool(self.active or self._others or self._playing)

    @property
    def playing(self) -> bool:
        """Whether audio is on its way to a listener."""
        return bool(self._playing)

    def find(self, response_id: str) -> Response | None:
        """A response that is being made."""
        if self.active is not None and self.active.id == response_id:
            return self.active
        return self._others.get(response_id)

    # --- beginning -------------------------------------------------------------------------------

    def create(self, parameters: ResponseParameters, awaits: set[str]) -> None:
        """Begin a response when the transcripts of the items in ``awaits`` are there.

        Raises:
            ProtocolError: there is one already, or its input cannot be used.
        """
        if not parameters.out_of_band and self.active is not None:
            raise ProtocolError(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {self.active.id}. Wait "
                "until the response is finished before creating a new one.",
            )
        if len(self._others) >= self._state.limits.out_of_band_responses:
            raise ProtocolError(
                "too_many_responses",
                f"There are {len(self._others)} responses out of band already: wait for one of "
                "them to finish.",
            )
        context = None if parameters.input is None else self._read_input(parameters.input)
        if context is not None:
            awaits = awaits & {entry for entry in context if isinstance(entry, str)}
        response = Response(self._outbox.ids("resp"), parameters, context, set(awaits))
        if response.out_of_band:
            self._others[response.id] = response
        else:
            self.active = response
        self.any_made = True
        self._outbox.emit(
            "response.created", response=self._describe(response, "in_progress", None, None)
        )
        self._begin(response)

    def _read_input(self, given: Sequence[Any]) -> list[Item | str]:
        """Items, or ids of items of the conversation.

        Raises:
            ProtocolError: something in it is no item, or there is no such item.
        """
        context: list[Item | str] = []
        for index, value in enumerate(given):
            path = f"response.input[{index}]"
            if not isinstance(value, dict) or value.get("type") != "item_reference":
                if isinstance(value, dict) and "type" not in value and "role" in value:
                    value = value | {"type": "message"}
                context.append(client_item(value, path, self._outbox.ids))
                continue
            if "id" not in value:
                raise missing(f"{path}.id")
            item_id = an_identifier(value["id"], f"{path}.id")
            if item_id not in self._state.conversation:
                raise wrong_value(f"{path}.id", f"Item with id '{item_id}' does not exist.")
            context.append(item_id)
        return context

    def transcript_ready(self, item_id: str) -> None:
        """The text of an item is known, or will never be."""
        for response in [self.active, *self._others.values()]:
            if response is not None and item_id in response.awaits:
                response.awaits.discard(item_id)
                self._begin(response)

    def _begin(self, response: Response) -> None:
        if response.awaits or response.begun:
            return
        response.begun = True
        self._outbox.put(Generate(response.id, self._request(response)))
        self._arm(response)

    def _request(self, response: Response) -> ResponseRequest:
        given = response.parameters
        most = given.max_output_tokens
        return ResponseRequest(
            items=self._context(response),
            instructions=given.instructions,
            tools=copy.deepcopy(given.tools),
            tool_choice=copy.deepcopy(given.tool_choice),
            parallel_tool_calls=given.parallel_tool_calls,
            modality=response.modality,
            max_output_tokens=most if isinstance(most, int) else None,
            voice=given.voice,
            speed=given.speed,
            encoding=self._encoding(response),  # type: ignore[arg-type]
            model=self._state.configuration["model"],
            metadata=dict(given.metadata or {}),
        )

    def _encoding(self, response: Response) -> str:
        """On an audio track the transport chooses its own."""
        return (
            "pcm16" if self._transport == "webrtc" else FORMATS[response.parameters.format["type"]]
        )

    def _context(self, response: Response) -> list[Item]:
        conversation = self._state.conversation
        if response.context is None:
            return conversation.context(leave_out=response.id)
        items = []
        for given in response.context:
            if isinstance(given, str):
                entry = conversation.get(given)
                if entry is not None:
                    items.append(model_view(entry))
            else:
                items.append(copy.deepcopy(given))
        return items

    # --- what the backend says -------------------------------------------------------------------

    def receive(self, response_id: str, event: BackendEvent) -> None:
        """Take an event of an answer; ignored where the response is over."""
        response = self.find(response_id)
        if response is None:
            return
        if isinstance(event, Waiting):
            response.waits = True
            self._outbox.put(CancelTimer(TIMER + response.id))
            return
        if response.waits:
            response.waits = False
            self._arm(response)
        response.progress = True
        if isinstance(event, TextDelta):
            self._text(response, event.text)
        elif isinstance(event, AudioDelta):
            self._audio(response, event)
        elif isinstance(event, SpokenMark):
            self._mark(response, event)
        elif isinstance(event, ToolCallStarted):
            self._call(response, event.call_id, event.name)
        elif isinstance(event, ToolCallDelta):
            call = response.calls.get(event.call_id)
            if call is not None and not call.done:
                self._arguments(response, call, event.arguments)
        elif isinstance(event, ToolCallDone):
            self._call_done(response, event)
        elif isinstance(event, Finished):
            self._finished(response, event)
        elif isinstance(event, BackendFailed):
            self._failed(response, event.code, event.message, Usage())

    def _text(self, response: Response, text: str) -> None:
        if not text:
            return
        message = self._message(response)
        message.speech.text += text
        kind = "output_text" if response.modality == "text" else "output_audio_transcript"
        for start in range(0, len(text), MOST_TEXT):
            self._emit_part(
                response, message, f"response.{kind}.delta", delta=text[start : start + MOST_TEXT]
            )

    def _mark(self, response: Response, event: SpokenMark) -> None:
        """Keep what is spoken when, for truncation; tell it to those who want to show it."""
        if response.message is None:
            return
        response.message.speech.mark(event.audio_ms, event.characters)
        if wants(self._state.configuration, PARTIALS):
            self._emit_part(
                response,
                response.message,
                "tinyvoice.response.spoken",
                audio_ms=round(event.audio_ms),
                characters=event.characters,
            )

    def _audio(self, response: Response, event: AudioDelta) -> None:
        if response.modality == "text" or not event.audio:
            return
        message = self._message(response)
        audio = response.odd + event.audio
        if self._encoding(response) == "pcm16":
            # Some clients fail on half a sample.
            whole = len(audio) - len(audio) % 2
            audio, response.odd = audio[:whole], audio[whole:]
        if response.begun_ms is None:
            response.begun_ms = self.clock_ms
        message.speech.audio_ms += max(event.duration_ms, 0.0)
        for start in range(0, len(audio), MOST_AUDIO_BYTES):
            chunk = audio[start : start + MOST_AUDIO_BYTES]
            if self._transport == "webrtc":
                playback = self._playing.setdefault(response.id, Playback(response.outputs))
                playback.drained = False
                self._outbox.put(Play(response.id, message.item["id"], chunk))
            else:
                self._emit_part(
                    response,
                    message,
                    "response.output_audio.delta",
                    delta=base64.b64encode(chunk).decode(),
                )

    def _message(self, response: Response) -> Output:
        if response.message is None:
            item: Item = {
                "id": self._outbox.ids("item"),
                "object": "realtime.item",
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
            response.message = self._open(response, item)
            part = {"type": "text", "text": ""}
            if response.modality == "audio":
                part = {"type": "audio", "transcript": ""}
                if response.message.entry is not None:
                    response.message.entry.speech = response.message.speech
            self._emit_part(response, response.message, "response.content_part.added", part=part)
        return response.message

    def _open(self, response: Response, item: Item) -> Output:
        output = Output(len(response.outputs), item, None)
        response.outputs.append(output)
        self._outbox.emit(
            "response.output_item.added",
            response_id=response.id,
            output_index=output.index,
            item=copy.deepcopy(item),
        )
        if not response.out_of_band:
            output.entry = self._state.add_item(item, done=False, response_id=response.id)
        return output

    def _call(self, response: Response, call_id: str, name: str) -> Output:
        if call_id in response.calls:
            return response.calls[call_id]
        item: Item = {
            "id": self._outbox.ids("item"),
            "object": "realtime.item",
            "type": "function_call",
            "status": "in_progress",
            "name": name,
            "call_id": self._call_id(call_id),
            "arguments": "",
        }
        response.calls[call_id] = self._open(response, item)
        return response.calls[call_id]

    def _call_id(self, wanted: str) -> str:
        """The backend's name of a call, or another one where that is too long or used already."""
        if not wanted or len(wanted) > LONGEST_CALL_ID or wanted in self._call_ids:
            wanted = self._outbox.ids("call")[:LONGEST_CALL_ID]
        self._call_ids.add(wanted)
        return wanted

    def _arguments(self, response: Response, call: Output, text: str) -> None:
        if text:
            call.arguments += text
            self._outbox.emit(
                "response.function_call_arguments.delta",
                response_id=response.id,
                item_id=call.item["id"],
                output_index=call.index,
                call_id=call.item["call_id"],
                delta=text,
            )

    def _call_done(self, response: Response, event: ToolCallDone) -> None:
        call = self._call(response, event.call_id, event.name)
        if call.done:
            return
        if event.arguments.startswith(call.arguments):
            self._arguments(response, call, event.arguments[len(call.arguments) :])
        else:
            call.arguments = event.arguments
        self._close_call(response, call, complete=True)

    # --- ending ----------------------------------------------------------------------------------

    def _finished(self, response: Response, event: Finished) -> None:
        if event.reason == "completed":
            self._end(response, "completed", None, event.usage)
        else:
            details = {"type": "incomplete", "reason": event.reason}
            self._end(response, "incomplete", details, event.usage)

    def _failed(self, response: Response, code: str, message: str, usage: Usage) -> None:
        error = {"type": "server_error", "code": code, "message": message}
        self._end(response, "failed", {"type": "failed", "error": error}, usage)

    def cancel(
        self, response: Response, reason: Literal["turn_detected", "client_cancelled"]
    ) -> None:
        """Stop a response: close what is open, then ``response.done``."""
        if response.begun:
            self._outbox.put(CancelGeneration(response.id))
        self._end(response, "cancelled", {"type": "cancelled", "reason": reason}, Usage())

    def stalled(self, response_id: str) -> None:
        """The response's timer is due: fail it if nothing has come since."""
        response = self.find(response_id)
        if response is None:
            return
        if response.progress:
            self._arm(response)
            return
        self._outbox.put(CancelGeneration(response.id))
        seconds = self._state.limits.response_seconds
        message = f"The language model or the voice has said nothing for {seconds:g} seconds."
        self._failed(response, "response_timeout", message, Usage())

    def _arm(self, response: Response) -> None:
        response.progress = False
        self._outbox.put(SetTimer(TIMER + response.id, self._state.limits.response_seconds))

    def fail_all(self, message: str) -> None:
        """End every response as failed: nothing will come any more."""
        for response in [self.active, *self._others.values()]:
            if response is not None:
                if response.begun:
                    self._outbox.put(CancelGeneration(response.id))
                self._failed(response, "server_error", message, Usage())

    def _end(
        self, response: Response, status: Status, details: dict[str, Any] | None, usage: Usage
    ) -> None:
        complete = status == "completed"
        if response.message is not None:
            self._close_message(response, response.message, complete)
        for call in response.calls.values():
            if not call.done:
                self._close_call(response, call, complete)
        if self.active is response:
            self.active = None
        self._others.pop(response.id, None)
        if response.begun:
            self._outbox.put(CancelTimer(TIMER + response.id))
        self._outbox.emit(
            "response.done", response=self._describe(response, status, details, usage)
        )
        playback = self._playing.get(response.id)
        if playback is not None:
            playback.over = True
            if playback.drained:
                self._stopped(response.id, playback)
        if not response.out_of_band:
            self._listener.response_over(self._heard_until_ms(response))
        elif not self.busy:
            self._listener.playback_over()

    def _heard_until_ms(self, response: Response) -> float | None:
        """Where on the input's clock the answer's audio ends, as far as can be told from here."""
        if response.id in self._playing:
            return None
        if self._transport == "webrtc" or response.begun_ms is None or response.message is None:
            return self.clock_ms
        return max(self.clock_ms, response.begun_ms + response.message.speech.audio_ms)

    def _close_message(self, response: Response, message: Output, complete: bool) -> None:
        text = message.speech.text
        if response.modality == "audio":
            message.speech.complete = complete
            if not complete:
                # Nobody can have heard what was not spoken.
                message.speech.cut(message.speech.audio_ms)
            content = {"type": "output_audio", "transcript": text}
            part = {"type": "audio", "transcript": text}
            self._emit_part(response, message, "response.output_audio.done")
            self._emit_part(
                response, message, "response.output_audio_transcript.done", transcript=text
            )
        else:
            content = {"type": "output_text", "text": text}
            part = {"type": "text", "text": text}
            self._emit_part(response, message, "response.output_text.done", text=text)
        self._emit_part(response, message, "response.content_part.done", part=part)
        message.item["content"] = [content]
        self._close(response, message, complete)

    def _close_call(self, response: Response, call: Output, complete: bool) -> None:
        call.item["arguments"] = call.arguments
        if complete:
            # Without this event no client runs the function: half of its arguments must not do.
            self._outbox.emit(
                "response.function_call_arguments.done",
                response_id=response.id,
                item_id=call.item["id"],
                output_index=call.index,
                call_id=call.item["call_id"],
                name=call.item["name"],
                arguments=call.arguments,
            )
        self._close(response, call, complete)

    def _close(self, response: Response, output: Output, complete: bool) -> None:
        output.done = True
        output.item["status"] = "completed" if complete else "incomplete"
        if output.entry is not None:
            grown = len(output.speech.text) + len(output.arguments)
            self._state.conversation.grow(output.entry, grown)
            self._state.tell_item("done", output.entry)
        self._outbox.emit(
            "response.output_item.done",
            response_id=response.id,
            output_index=output.index,
            item=copy.deepcopy(output.item),
        )
        if output.entry is not None:
            self._apply_cut(output)

    def _apply_cut(self, output: Output) -> None:
        """A client may have truncated the item while it was being made."""
        speech = output.speech
        if speech.heard_ms is not None and speech.heard_ms < speech.audio_ms:
            for part in output.item["content"]:
                part["transcript"] = speech.heard_text

    def _emit_part(self, response: Response, output: Output, kind: str, **fields: Any) -> None:
        self._outbox.emit(
            kind,
            response_id=response.id,
            item_id=output.item["id"],
            output_index=output.index,
            content_index=0,
            **fields,
        )

    def _describe(
        self, response: Response, status: str, details: dict[str, Any] | None, usage: Usage | None
    ) -> dict[str, Any]:
        given = response.parameters
        conversation = None if response.out_of_band else self._state.conversation.identifier
        over = status != "in_progress"
        return {
            "object": "realtime.response",
            "id": response.id,
            "status": status,
            "status_details": details,
            "output": [copy.deepcopy(output.item) for output in response.outputs] if over else [],
            "conversation_id": conversation,
            "output_modalities": list(given.output_modalities),
            "max_output_tokens": given.max_output_tokens,
            "audio": {"output": {"format": dict(given.format), "voice": given.voice}},
            "usage": None if usage is None else describe_usage(usage),
            "metadata": given.metadata,
        }

    # --- audio on its way (WebRTC) ---------------------------------------------------------------

    def playback_started(self, response_id: str) -> None:
        """The first audio of an answer leaves."""
        playback = self._playing.get(response_id)
        if playback is not None and not playback.announced:
            playback.announced = True
            self._outbox.emit("output_audio_buffer.started", response_id=response_id)

    def playback_finished(self, response_id: str) -> None:
        """What was put out has left; more may come while the response is being made."""
        playback = self._playing.get(response_id)
        if playback is None:
            return
        playback.drained = True
        if playback.over:
            self._stopped(response_id, playback)
            self._listener.playback_over()

    def _stopped(self, response_id: str, playback: Playback) -> None:
        del self._playing[response_id]
        if playback.announced:
            self._outbox.emit("output_audio_buffer.stopped", response_id=response_id)

    def stop_playback(self) -> None:
        """Play nothing more of what waits; what was heard comes with `playback_cleared`."""
        for response_id, playback in list(self._playing.items()):
            del self._playing[response_id]
            self._stopping[response_id] = playback
            self._outbox.put(StopPlayback(response_id))
            self._outbox.emit("output_audio_buffer.cleared", response_id=response_id)

    def playback_cleared(self, response_id: str, played_ms: float) -> None:
        """So much of an answer was heard: the rest has never been said."""
        playback = self._stopping.pop(response_id, None)
        if playback is None:
            return
        for output in playback.outputs:
            entry = output.entry
            if entry is None or entry.speech is None or played_ms >= entry.speech.audio_ms:
                continue
            if self._state.conversation.get(output.item["id"]) is not entry or not output.done:
                continue
            end = self._state.conversation.truncate(output.item["id"], 0, int(max(played_ms, 0)))
            self._outbox.emit(
                "conversation.item.truncated",
                item_id=output.item["id"],
                content_index=0,
                audio_end_ms=end,
            )


def describe_usage(usage: Usage) -> dict[str, Any]:
    """Tokens in the protocol's form: every key, integers only."""
    cached = {"text_tokens": usage.cached_tokens, "audio_tokens": 0, "image_tokens": 0}
    return {
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_token_details": {
            "text_tokens": usage.input_tokens,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": usage.cached_tokens,
            "cached_tokens_details": cached,
        },
        "output_token_details": {"text_tokens": usage.output_tokens, "audio_tokens": 0},
    }

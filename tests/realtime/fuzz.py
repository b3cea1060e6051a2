"""Hostile clients against a session, with an engine, a backend and timers that answer in disorder.

    python -m tests.realtime.fuzz --events 100000 --seed 1

Each session gets a few hundred client events, most of them broken in some way, among the events of
an engine and of a responder that keep their own contracts but are slow, early or late as chance has
it. After each client event it is checked that nothing raised, that there was one error at most, and
the right one, with the client's ``event_id``; at the end of each session that the properties hold.
The engine and the responder are made by hand: a session does no I/O, so that what they may say is
all that matters, and a real engine says only a little of it.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.realtime.properties import check_session
from tests.realtime.validation import validate
from tinyvoice.engine.errors import EngineError
from tinyvoice.engine.events import (
    Event,
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    TokenLogprob,
    UtteranceFailed,
)
from tinyvoice.model.transcript import Word
from tinyvoice.realtime.backends.interface import (
    AudioDelta,
    BackendEvent,
    BackendFailed,
    Begun,
    Finished,
    SpokenMark,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
    Waiting,
)
from tinyvoice.realtime.limits import SessionLimits
from tinyvoice.realtime.outputs import (
    CancelGeneration,
    CancelTimer,
    Clear,
    Commit,
    Disconnect,
    Feed,
    Flush,
    Generate,
    Output,
    Play,
    Send,
    SetFormat,
    SetStream,
    SetTimer,
    StopPlayback,
)
from tinyvoice.realtime.session import RealtimeSession

WORDS = "the quick brown fox jumps over a lazy dog while it rains".split()


# --- an engine ------------------------------------------------------------------------------------


@dataclass
class Engine:
    """An engine's stream that hears speech by chance, and keeps the contract of `events`."""

    chance: random.Random
    inbox: deque[Any] = field(default_factory=deque)
    events: deque[Event] = field(default_factory=deque)
    answers: deque[tuple[Output, Any]] = field(default_factory=deque)
    endpointing: str = "vad"
    bytes_per_second: int = 48_000
    at: float = 0.0
    utterance: int = 0
    start: float | None = None
    text: list[str] = field(default_factory=list)

    def step(self) -> None:
        """Do the next thing in the inbox."""
        if not self.inbox:
            return
        order = self.inbox.popleft()
        if isinstance(order, Feed):
            self._hear(len(order.audio) / self.bytes_per_second)
        elif isinstance(order, SetFormat):
            width = 2 if order.encoding == "pcm16" else 1
            self.bytes_per_second = order.sample_rate * width
        elif isinstance(order, SetStream):
            self.endpointing = order.changes["endpointing"]
        elif isinstance(order, Clear):
            if self.start is not None:
                self.utterance += 1
            self.start, self.text = None, []
        elif isinstance(order, Commit):
            self.answers.append((order, self._end() if self.start is not None else None))
        else:
            self.answers.append((order, None))

    def _hear(self, seconds: float) -> None:
        chance, before = self.chance, self.at
        self.at += seconds
        if seconds <= 0:
            return
        if self.start is None and self.endpointing == "manual":
            self.start = before
        elif self.start is None and chance.random() < 0.4:
            self.start = before + seconds * chance.random()
            self.events.append(SpeechStarted(self.utterance, self.start, self.at))
        if self.start is None:
            return
        if chance.random() < 0.7:
            self.text.append(chance.choice(WORDS))
            stable = " ".join(self.text[:-1])
            tail = (" " if stable else "") + self.text[-1]
            self.events.append(Partial(self.utterance, stable, tail, self.at))
        if self.at - self.start > 30:
            self._finish(continues=True)
            self.start = self.at
        elif self.endpointing != "manual" and chance.random() < 0.3:
            self._end()

    def _end(self) -> int:
        assert self.start is not None
        number = self.utterance
        if self.endpointing != "manual":
            self.events.append(SpeechEnded(number, self.at, self.at))
        self._finish(continues=False)
        self.start = None
        return number

    def _finish(self, continues: bool) -> None:
        chance, number = self.chance, self.utterance
        assert self.start is not None
        self.utterance += 1
        text, self.text = self.text, []
        if chance.random() < 0.05:
            error = EngineError("The model failed for this utterance; the stream goes on.")
            self.events.append(UtteranceFailed(number, error, self.at, continues))
            return
        if text and chance.random() < 0.05:
            text = text[:-1]
        if text and chance.random() < 0.03:
            text[0] = text[0].upper()
        words = tuple(Word(word, self.start, self.at, 0.9) for word in text)
        tokens = tuple(TokenLogprob(f" {word}", -0.1) for word in text)
        said = " ".join(text)
        bounds = (self.start, self.at)
        self.events.append(
            Final(number, said, words, *bounds, 0.9, *bounds, self.at, continues, tokens)
        )


# --- a responder ----------------------------------------------------------------------------------


def answer(chance: random.Random, modality: str) -> deque[BackendEvent]:
    """What a responder may say."""
    events: list[BackendEvent] = []
    events.extend((Waiting(), Begun())[: chance.choice((0, 0, 1, 2))])
    characters = spoken_ms = 0
    for _ in range(chance.randrange(4)):
        text = " ".join(chance.choices(WORDS, k=3)) + " "
        events.append(TextDelta(text))
        if modality == "audio":
            characters += len(text)
            for _ in range(chance.randrange(1, 3)):
                events.append(AudioDelta(bytes(chance.choice((4800, 4801, 1, 96_000))), 100.0))
                spoken_ms += 100
            events.append(SpokenMark(spoken_ms, characters))
    for index in range(chance.choice((0, 0, 0, 1, 2))):
        call_id = chance.choice((f"call_{index}", "call_same", "x" * 50))
        events += [
            ToolCallStarted(call_id, "look"),
            ToolCallDelta(call_id, '{"a":'),
            ToolCallDone(call_id, "look", '{"a":1}'),
        ]
    reason = chance.choices(("completed", "max_output_tokens", "content_filter"), (8, 1, 1))[0]
    end: BackendEvent = Finished(reason, Usage(5, 7, 1))  # type: ignore[arg-type]
    if chance.random() < 0.1:
        events = events[: chance.randrange(len(events) + 1)]
        end = BackendFailed("backend_error", "The language model does not answer.")
    return deque([*events, end])


# --- clients --------------------------------------------------------------------------------------


def templates(chance: random.Random, known: dict[str, list[str]]) -> dict[str, Any]:
    """A well-formed client event."""
    item_id = chance.choice([*known["item"][-8:], "item_unknown"])
    response_id = chance.choice([*known["resp"][-4:], "resp_unknown"])
    seconds = chance.choice((0.001, 0.02, 0.1, 0.5, 3.0))
    audio = base64.b64encode(bytes(int(seconds * 48_000))).decode()
    item = chance.choice(
        (
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "yes"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_audio"}]},
            {"type": "function_call", "name": "f", "call_id": "c", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "1"},
        )
    )
    if chance.random() < 0.5:
        item = {**item, "id": chance.choice((item_id, f"own_{chance.randrange(10**6)}"))}
    response = chance.choice(
        (
            {},
            {"output_modalities": ["text"], "metadata": {"a": "b"}},
            {"conversation": "none", "input": [item]},
            {"input": [{"type": "item_reference", "id": item_id}]},
            {"instructions": "Be brief.", "tools": [{"type": "function", "name": "f"}]},
            {"modalities": ["text", "audio"], "voice": "echo"},
        )
    )
    appends: list[dict[str, Any]] = [{"type": "input_audio_buffer.append", "audio": audio}] * 8
    return chance.choice(
        [
            *appends,
            {"type": "session.update", "session": session_change(chance)},
            {"type": "session.update", "session": session_change(chance)},
            {"type": "input_audio_buffer.commit"},
            {"type": "input_audio_buffer.commit"},
            {"type": "input_audio_buffer.clear"},
            {"type": "output_audio_buffer.clear"},
            {"type": "conversation.item.create", "item": item},
            {"type": "conversation.item.create", "item": item, "previous_item_id": item_id},
            {"type": "conversation.item.create", "item": item, "previous_item_id": "root"},
            {"type": "conversation.item.retrieve", "item_id": item_id},
            {"type": "conversation.item.delete", "item_id": item_id},
            {
                "type": "conversation.item.truncate",
                "item_id": item_id,
                "content_index": 0,
                "audio_end_ms": chance.randrange(3_000),
            },
            {"type": "response.create", "response": response},
            {"type": "response.create"},
            {"type": "response.cancel"},
            {"type": "response.cancel", "response_id": response_id},
        ]
    )


def session_change(chance: random.Random) -> dict[str, Any]:
    """A ``session`` of an update."""
    detection = chance.choice(
        (
            None,
            {"type": "server_vad"},
            {"type": "server_vad", "idle_timeout_ms": 5_000},
            {"type": "server_vad", "create_response": False, "silence_duration_ms": 200.0},
            {"type": "server_vad", "interrupt_response": False, "threshold": 1},
            {"type": "semantic_vad", "eagerness": "high"},
        )
    )
    heard = chance.choice(
        (
            {"turn_detection": detection},
            {"turn_detection": detection},
            {"transcription": {"model": "whisper-1"}},
            {"transcription": None},
            {"format": {"type": chance.choice(("audio/pcm", "audio/pcmu", "audio/pcma"))}},
            {"noise_reduction": {"type": "near_field"}},
        )
    )
    return chance.choice(
        (
            {"audio": {"input": heard}},
            {"audio": {"input": heard}},
            {"audio": {"input": heard}},
            {"include": ["item.input_audio_transcription.logprobs", "tinyvoice.partials"]},
            {"include": None},
            {"instructions": "", "tools": [], "output_modalities": ["text"]},
            {"audio": {"output": {"voice": chance.choice(("alloy", "echo")), "speed": 1.2}}},
            {"turn_detection": detection, "input_audio_format": "g711_ulaw"},
            {"max_output_tokens": "inf", "tool_choice": "auto", "unheard_of": [1]},
        )
    )


WILD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1e308,
    10**18,
    2**31,
    "",
    "x",
    "\u0000",
    "ü" * 600,
    [],
    [[]],
    [None],
    {},
    {"type": None},
    {"type": "message"},
    {"id": 3},
    ["text"],
)
REQUIRED = {
    "session.update": ("session",),
    "input_audio_buffer.append": ("audio",),
    "conversation.item.create": ("item",),
    "conversation.item.retrieve": ("item_id",),
    "conversation.item.delete": ("item_id",),
    "conversation.item.truncate": ("item_id", "content_index", "audio_end_ms"),
}
Mutation = tuple[str, str | None, str | None]
"""The text to send, and the code and the parameter of the error, as far as they are certain."""


def drop_required(chance: random.Random, event: dict[str, Any]) -> Mutation | None:
    """Without a field that has to be there."""
    names = ("type", *REQUIRED.get(event["type"], ()))
    name = chance.choice(names)
    rest = {key: value for key, value in event.items() if key != name}
    if name != "type" and name != names[1]:
        return json.dumps(rest), None, None
    return json.dumps(rest), "missing_required_parameter", name


def change_type(chance: random.Random, event: dict[str, Any]) -> Mutation | None:
    """With a type that does not exist."""
    name = chance.choice(("", "x", "session.updat", "response.created", "ü", "a" * 10_000))
    return json.dumps(event | {"type": name}), "invalid_value", "type"


def break_json(chance: random.Random, event: dict[str, Any]) -> Mutation | None:
    """Cut off somewhere."""
    text = json.dumps(event)
    return text[: chance.randrange(len(text))], "invalid_json", None


def not_an_object(chance: random.Random, event: dict[str, Any]) -> Mutation | None:
    """JSON, but no object."""
    return json.dumps(chance.choice(([event], "x", 3, None, True, []))), "invalid_json", None


def nest_deeply(chance: random.Random, event: dict[str, Any]) -> Mutation | None:
    """Arrays within arrays."""
    depth = chance.choice((70, 500, 5_000, 100_000))
    text = json.dumps(event)[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}"
    return text, "invalid_json", None


def odd_number(chance: random.Random, event: dict[str, Any]) -> Mutation | None:
    """A number that JSON does not have, or one without end."""
    number = chance.choice(("NaN", "-Infinity", "1e999", "9" * 30, "9" * 5_000))
    return json.dumps(event)[:-1] + f', "number": {number}}}', "invalid_json", None


def half_a_character(chance: random.Random, event: dict[str, Any]) -> Mutation | None:
    """A surrogate without its pair, as a value or as a key."""
    extra = chance.choice((r'"odd": "\ud800"', r'"\udfff": 1', '"odd": "\ud800"'))
    return json.dumps(event)[:-1] + f", {extra}}}", "invalid_json", None


def bad_base64(chance: random.Random, event: dict[str, Any]) -> Mutation | None:
    """Audio that is none."""
    audio = chance.choice(("!!!!", "A", "AAA", "ä", "AAAA=AAA", "=", "AA AA"))
    event = {"type": "input_audio_buffer.append", "audio": audio, "event_id": event["event_id"]}
    return json.dumps(event), "invalid_value", "audio"


def wild_value(chance: random.Random, event: dict[str, Any]) -> Mutation | None:
    """Something else in the place of something, at any depth."""
    copied: dict[str, Any] = json.loads(json.dumps(event))
    target: Any = copied
    while True:
        keys = [key for key in target if key != "event_id"] if isinstance(target, dict) else None
        keys = keys if keys is not None else list(range(len(target)))
        if not keys:
            return None
        key = chance.choice(keys)
        inner = target[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.75:
            target = inner
            continue
        target[key] = chance.choice(WILD)
        return json.dumps(copied), None, None


def flip_characters(chance: random.Random, event: dict[str, Any]) -> Mutation | None:
    """A few characters of the text are others."""
    text = list(json.dumps(event))
    for _ in range(chance.randrange(1, 4)):
        text[chance.randrange(len(text))] = chance.choice('{}[]":,0a\\ü\x00')
    return "".join(text), None, None


def odd_event_id(chance: random.Random, event: dict[str, Any]) -> Mutation | None:
    """An ``event_id`` that is none."""
    wrong: Any = chance.choice((3, [], {}, True, "", "e" * 5_000))
    return json.dumps(event | {"event_id": wrong}), None, "event_id"


def nothing(chance: random.Random, event: dict[str, Any]) -> Mutation | None:
    """As it is."""
    return json.dumps(event), None, None


MUTATIONS: tuple[Callable[[random.Random, dict[str, Any]], Mutation | None], ...] = (
    *(nothing,) * 14,
    *(wild_value,) * 6,
    drop_required,
    change_type,
    break_json,
    not_an_object,
    nest_deeply,
    odd_number,
    half_a_character,
    bad_base64,
    flip_characters,
    odd_event_id,
)


# --- the run --------------------------------------------------------------------------------------


class FuzzError(AssertionError):
    """Something that must not be; says which session and which event."""


@dataclass
class Tally:
    """What happened in a run."""

    sessions: int = 0
    client_events: int = 0
    server_events: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    turns: int = 0
    responses: Counter[str] = field(default_factory=Counter)


class Run:
    """One session and its surroundings."""

    def __init__(self, seed: str, tally: Tally, shapes: set[Any]) -> None:
        self.chance = chance = random.Random(seed)
        self.seed, self.tally, self._shapes = seed, tally, shapes
        limits = SessionLimits(
            append_bytes=200_000,
            uncommitted_seconds=60.0,
            items=40,
            out_of_band_responses=3,
        )
        self._count = 0
        self.known: dict[str, list[str]] = {"item": [], "resp": []}
        self.session = RealtimeSession(
            chance.choice(("realtime", "realtime", "transcription")),
            dialect=chance.choice(("ga", "ga", "beta")),
            transport=chance.choice(("websocket", "websocket", "webrtc")),
            limits=limits,
            ids=self._identifier,
            now=0,
        )
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.engine = Engine(chance)
        self.answers: dict[str, deque[BackendEvent]] = {}
        self.playing: dict[str, float] = {}
        self.stopping: list[tuple[str, float]] = []
        self.timers: set[str] = set()
        self.session.open()
        self.carry_out()

    def _identifier(self, prefix: str) -> str:
        self._count += 1
        made = f"{prefix}_{self._count}"
        self.known.setdefault(prefix, []).append(made)
        return made

    def carry_out(self) -> list[dict[str, Any]]:
        """Do what the session asks for; the events that it sent."""
        sent: list[dict[str, Any]] = []
        for output in self.session.take():
            if isinstance(output, Send):
                sent.append(dict(output.event))
            elif isinstance(output, Feed | SetFormat | SetStream | Commit | Clear | Flush):
                self.engine.inbox.append(output)
            elif isinstance(output, Generate):
                self.answers[output.response_id] = answer(self.chance, output.request.modality)
            elif isinstance(output, CancelGeneration):
                late = self.answers.get(output.response_id, deque())
                while len(late) > 2:
                    late.popleft()
            elif isinstance(output, Play):
                self.playing.setdefault(output.response_id, 0.0)
                self.playing[output.response_id] += len(output.audio) / 48
            elif isinstance(output, StopPlayback):
                total = self.playing.pop(output.response_id, 0.0)
                self.stopping.append((output.response_id, total * self.chance.random()))
            elif isinstance(output, SetTimer):
                self.timers.add(output.name)
            elif isinstance(output, CancelTimer):
                self.timers.discard(output.name)
            else:
                assert isinstance(output, Disconnect)
        for event in sent:
            self.log.append(("server", event))
            self._judge(event)
        return sent

    def _judge(self, event: dict[str, Any]) -> None:
        self.tally.server_events += 1
        if event["type"] == "error":
            self.tally.errors[str(event["error"]["code"])] += 1
            if event["error"]["type"] == "server_error":
                raise FuzzError(f"{self.seed}: {event}")
        elif event["type"] == "input_audio_buffer.committed":
            self.tally.turns += 1
        elif event["type"] == "response.done":
            self.tally.responses[event["response"]["status"]] += 1
        # The models are slow, and events of one shape fare alike.
        shape = (self.session.kind, self.session.dialect, shape_of(event))
        if shape not in self._shapes:
            self._shapes.add(shape)
            try:
                validate(event, self.session.kind, self.session.dialect)
            except Exception as error:
                raise FuzzError(f"{self.seed}: {error}") from error

    def world(self) -> None:
        """Let something happen around the session."""
        chance = self.chance
        happenings: list[Callable[[], None]] = [self.engine.step] * 2
        if self.engine.events:
            happenings += [self._engine_event] * 4
        if self.engine.answers:
            happenings += [self._engine_answer] * 2
        if self.answers:
            happenings += [self._backend_event] * 3
        if self.playing:
            happenings.append(self._playback)
        if self.stopping:
            happenings.append(self._stopped)
        if self.timers and chance.random() < 0.02:
            happenings.append(self._timer)
        chance.choice(happenings)()
        self.carry_out()

    def _engine_event(self) -> None:
        self.session.receive_engine(self.engine.events.popleft())

    def _engine_answer(self) -> None:
        order, outcome = self.engine.answers.popleft()
        if isinstance(order, Flush):
            while self.engine.events:
                self._engine_event()
            self.session.flushed(order.name)
        else:
            assert isinstance(order, Commit)
            self.session.committed(order.item_id, outcome)

    def _backend_event(self) -> None:
        response_id = self.chance.choice(sorted(self.answers))
        self.session.receive_backend(response_id, self.answers[response_id].popleft())
        if not self.answers[response_id]:
            del self.answers[response_id]

    def _playback(self) -> None:
        response_id = self.chance.choice(sorted(self.playing))
        self.session.playback_started(response_id)
        if self.chance.random() < 0.5:
            del self.playing[response_id]
            self.session.playback_finished(response_id)

    def _stopped(self) -> None:
        self.session.playback_cleared(*self.stopping.pop(0))

    def _timer(self) -> None:
        name = self.chance.choice(sorted(self.timers))
        if name not in ("session", "drain"):
            self.timers.discard(name)
            self.session.timer(name)

    def client_event(self) -> None:
        """A client event, most often with something wrong in it."""
        self.tally.client_events += 1
        event_id = f"client_{self.tally.client_events}"
        event = templates(self.chance, self.known) | {"event_id": event_id}
        mutated = None
        while mutated is None:
            mutation = self.chance.choice(MUTATIONS)
            mutated = mutation(self.chance, event)
        text, code, param = mutated
        self.log.append(("client", as_event(text)))
        where = f"{self.seed}, {mutation.__name__}: {text[:300]}"
        try:
            self.session.receive_text(text)
        except Exception as error:
            raise FuzzError(where) from error
        sent = self.carry_out()
        errors = [e["error"] for e in sent if e["type"] == "error"]
        if errors:
            # What was refused has asked for nothing.
            at = len(self.log) - len(sent) - 1
            self.log[at] = ("client", {"event_id": named(text)})
        if len(errors) > 1 or (code and len(errors) != 1):
            raise FuzzError(f"{where}: {errors}")
        if errors and errors[0]["event_id"] != named(text):
            raise FuzzError(f"{where}: the error names {errors[0]['event_id']}")
        if code and (errors[0]["code"] != code or (param and errors[0]["param"] != param)):
            raise FuzzError(f"{where}: {errors[0]}")

    def finish(self) -> None:
        """Let all that was begun come to its end, and judge the whole."""
        while not self.session.closed and (
            self.engine.inbox
            or self.engine.events
            or self.engine.answers
            or self.answers
            or self.playing
            or self.stopping
        ):
            self.world()
        for _ in range(4):
            # Whoever still speaks has stopped sending.
            self.session.timer("stall")
            self.carry_out()
            while self.engine.inbox or self.engine.events or self.engine.answers or self.answers:
                self.world()
        complete = not self.session.closed
        faults = check_session(self.log, complete=complete, immediate=True)
        if faults:
            raise FuzzError(f"{self.seed}: {faults[:5]}")
        self.tally.sessions += 1


def as_event(text: str) -> dict[str, Any]:
    """What a log has of a client's text."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def named(text: str) -> str | None:
    """The ``event_id`` that an error about this text has to have."""
    event_id = as_event(text).get("event_id")
    if not isinstance(event_id, str) or not 0 < len(event_id) <= 512:
        return None
    try:
        event_id.encode()
    except UnicodeEncodeError:
        return None
    return event_id


WORTH_TELLING = ("type", "object", "status", "role", "reason", "eagerness", "tool_choice")


def shape_of(value: Any, name: str = "") -> Any:
    """What a type model sees of a value: its keys and the kinds of what they hold."""
    if isinstance(value, dict):
        return tuple((key, shape_of(inner, key)) for key, inner in sorted(value.items()))
    if isinstance(value, list):
        return tuple(sorted({repr(shape_of(inner, name)) for inner in value}))
    if name in WORTH_TELLING or value is None or isinstance(value, bool):
        return value if isinstance(value, str | bool | None) else type(value)
    return type(value)


def fuzz(events: int, seed: int, session_events: int = 250) -> Tally:
    """So many client events, in sessions of some hundreds.

    Raises:
        FuzzError: something went wrong; its message begins with the seed of the session.
    """
    tally, shapes = Tally(), set[Any]()
    while tally.client_events < events:
        run = Run(f"{seed}/{tally.sessions}", tally, shapes)
        for _ in range(session_events):
            run.client_event()
            for _ in range(run.chance.randrange(6)):
                run.world()
            if run.session.closed or tally.client_events >= events:
                break
        run.finish()
    return tally


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; the exit status is 1 where something was found."""
    parser = argparse.ArgumentParser(description="Mutated client events against a session.")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    begin = time.perf_counter()
    try:
        tally = fuzz(options.events, options.seed)
    except FuzzError as fault:
        print(f"FAULT in {fault}")
        return 1
    seconds = time.perf_counter() - begin
    print(
        f"{tally.client_events} client events in {tally.sessions} sessions, "
        f"{tally.server_events} server events, {seconds:.0f} s: no fault\n"
        f"turns {tally.turns}, responses {dict(tally.responses)}\nerrors {dict(tally.errors)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

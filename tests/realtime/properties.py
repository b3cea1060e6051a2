"""What holds of every session, whoever the client was: nine properties of a recorded event log.

A log is a list of ``(direction, event)`` with the direction ``client`` or ``server``, in the order
in which they were seen at one place. Each property is a function from a log to a list of faults,
one sentence each; `check_session` puts them together. Both dialects are understood.

What the properties do not judge: whether an event's fields have the right types (``validation.py``
does), and what words there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]
Log = Sequence[tuple[str, Event]]

TRANSCRIPTION = "conversation.item.input_audio_transcription."
ENDS = (TRANSCRIPTION + "completed", TRANSCRIPTION + "failed")
CREATED = ("session.created", "transcription_session.created")
SESSIONS = (*CREATED, "session.updated", "transcription_session.updated")
BETA_NAMES = {
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "conversation.item.created": "conversation.item.added",
}
PART_TEXTS = {
    "response.output_text": "text",
    "response.output_audio_transcript": "transcript",
    "response.function_call_arguments": "arguments",
}


def check_session(log: Log, *, complete: bool = False, immediate: bool = False) -> list[str]:
    """All faults of a log.

    ``complete`` says that the session was left to finish what it had begun: nothing may be open at
    the end. ``immediate`` says that the log was taken inside the server, where nothing of a
    response may follow its cancellation but its close-out; on the way, some is still in flight.
    """
    return [
        *opening_faults(log),
        *turn_faults(log, complete),
        *order_faults(log),
        *response_faults(log, complete),
        *cancellation_faults(log, immediate),
        *transcript_faults(log),
        *clock_faults(log),
        *error_faults(log),
        *echo_faults(log),
    ]


def server_events(log: Log) -> Iterator[Event]:
    """The server's events, under their current names."""
    for direction, event in log:
        if direction == "server":
            kind = event.get("type")
            yield {**event, "type": BETA_NAMES.get(str(kind), kind)}


def is_beta(log: Log) -> bool:
    """Whether items are announced by one event instead of two."""
    return any(e.get("type") == "conversation.item.created" for d, e in log if d == "server")


# --- 1: the beginning, identifiers ----------------------------------------------------------------


def opening_faults(log: Log) -> list[str]:
    """``session.created`` comes first and once; every event has an identifier of its own."""
    faults, seen = [], set()
    events = [event for direction, event in log if direction == "server"]
    for index, event in enumerate(events):
        kind, event_id = event.get("type"), event.get("event_id")
        if (kind in CREATED) != (index == 0):
            faults.append(f"event {index} of the server is {kind}")
        if kind == "input_audio_buffer.dtmf_event_received":
            continue
        if not isinstance(event_id, str) or not event_id:
            faults.append(f"{kind} has the event_id {event_id!r}")
        elif event_id in seen:
            faults.append(f"{kind} has the event_id {event_id} of another event")
        else:
            seen.add(event_id)
    return faults


# --- 2: turns -------------------------------------------------------------------------------------


def turn_faults(log: Log, complete: bool = False) -> list[str]:
    """Each turn goes its way: started, stopped, committed, added, done, completed or failed.

    A client's clear ends the way of a turn that is not committed.
    """
    faults: list[str] = []
    # A user's item that a client creates is not one of these.
    stages: dict[str, str] = {}
    # The older dialect announces an item once; a session may change to it.
    last = ("added", "done") if is_beta(log) else ("done",)
    before: dict[str, tuple[str | None, ...]] = {
        "stopped": ("started",),
        "committed": ("stopped", "timed out", None),
        "added": ("committed",),
        "done": ("added",),
        "ended": last,
    }
    told: set[str] = set()
    deleted: set[str] = set()
    transcribes = False
    for event in server_events(log):
        kind = event["type"]
        if kind in SESSIONS:
            transcribes = is_transcribing(event["session"])
        elif kind == "input_audio_buffer.cleared":
            for forgotten in [i for i, stage in stages.items() if stage == "started"]:
                del stages[forgotten]
        elif kind == "conversation.item.deleted":
            deleted.add(event["item_id"])
        stage, item_id = turn_stage(event)
        if stage is None or item_id is None:
            continue
        if stage == "added" and item_id in deleted:
            # A client's own item under the name of one that is gone.
            stages.pop(item_id, None)
            continue
        if stage in ("started", "timed out"):
            if item_id in stages:
                faults.append(f"{kind} for {item_id}, which is {stages[item_id]}")
        elif stage == "committed" or item_id in stages:
            if stages.get(item_id) not in before[stage]:
                faults.append(f"{kind} for {item_id}, which is {stages.get(item_id)}")
        else:
            continue
        stages[item_id] = stage
        if stage == "committed" and transcribes:
            told.add(item_id)
    if complete:
        for item_id, reached in stages.items():
            if reached != "ended" and (reached not in last or item_id in told):
                faults.append(f"the turn {item_id} is {reached} at the end")
    return faults


def turn_stage(event: Event) -> tuple[str | None, str | None]:
    """Where an event puts a turn, and which."""
    kind = event["type"]
    stages = {
        "input_audio_buffer.speech_started": "started",
        "input_audio_buffer.speech_stopped": "stopped",
        "input_audio_buffer.timeout_triggered": "timed out",
        "input_audio_buffer.committed": "committed",
        ENDS[0]: "ended",
        ENDS[1]: "ended",
    }
    if kind in stages:
        return stages[kind], event.get("item_id")
    if kind in ("conversation.item.added", "conversation.item.done"):
        return kind.rpartition(".")[2], event["item"].get("id")
    return None, None


def is_transcribing(session: Mapping[str, Any]) -> bool:
    """Whether a session tells what it hears."""
    if session.get("object") == "realtime.transcription_session":
        return True
    if "audio" in session:
        return session["audio"]["input"]["transcription"] is not None
    return session.get("input_audio_transcription") is not None


# --- 3: the order of items ------------------------------------------------------------------------


def order_faults(log: Log) -> list[str]:
    """Each item is behind the one that ``previous_item_id`` names: the newest, or as asked for."""
    faults: list[str] = []
    order: list[str] = []
    asked: dict[str | None, set[str | None]] = {}
    for direction, event in log:
        if direction == "client":
            remember_place(asked, event)
            continue
        kind = BETA_NAMES.get(event["type"], event["type"])
        if kind == "conversation.item.added":
            item_id, previous = event["item"]["id"], event.get("previous_item_id")
            last = order[-1] if order else None
            if item_id in order:
                faults.append(f"the item {item_id} is added twice")
                continue
            allowed = {last} | asked.get(item_id, set()) | asked.get(None, set())
            if previous not in allowed:
                faults.append(f"{item_id} is behind {previous}, not {last}")
            if previous is not None and previous not in order:
                faults.append(f"{item_id} is behind {previous}, which is not there")
            order.insert(order.index(previous) + 1 if previous in order else 0, item_id)
        elif kind == "conversation.item.deleted":
            if event["item_id"] not in order:
                faults.append(f"{event['item_id']} is deleted, but not there")
            else:
                order.remove(event["item_id"])
        elif kind == "conversation.item.done":
            item_id, previous = event["item"]["id"], event.get("previous_item_id")
            at = order.index(item_id) if item_id in order else None
            if at is None:
                faults.append(f"{item_id} is done, but not there")
            elif previous != (order[at - 1] if at else None):
                faults.append(f"{item_id} is done behind {previous}, in {order}")
        elif kind == "input_audio_buffer.committed":
            last = order[-1] if order else None
            if event.get("previous_item_id") != last:
                faults.append(f"{event['item_id']} is committed behind something else than {last}")
    return faults


def remember_place(asked: dict[str | None, set[str | None]], event: Event) -> None:
    """Where a client wants an item of its own."""
    item = event.get("item")
    if event.get("type") != "conversation.item.create" or not isinstance(item, dict):
        return
    item_id, previous = item.get("id"), event.get("previous_item_id")
    if isinstance(previous, str) and (item_id is None or isinstance(item_id, str)):
        asked.setdefault(item_id, set()).add(None if previous == "root" else previous)


# --- 4 and 5: responses ---------------------------------------------------------------------------


class Follower:
    """Follows one response from event to event."""

    def __init__(self, response_id: str) -> None:
        self.id = response_id
        self.faults: list[str] = []
        self.open_items: dict[str, int] = {}
        self.open_parts: set[tuple[str, int]] = set()
        self.texts: Counter[str] = Counter()
        self.told: dict[tuple[str, str], str] = {}
        self.next_index = 0
        self.over = False

    def follow(self, event: Event) -> None:
        """Take the next event of this response."""
        kind = event["type"]
        if self.over:
            self.faults.append(f"{kind} of {self.id} after its end")
        if kind == "response.output_item.added":
            self._item_added(event)
        elif kind == "response.output_item.done":
            self._item_done(event)
        elif kind == "response.content_part.added":
            self.open_parts.add((event["item_id"], event["content_index"]))
        elif kind == "response.content_part.done":
            part = (event["item_id"], event["content_index"])
            if part not in self.open_parts:
                self.faults.append(f"a part of {event['item_id']} ends that is not open")
            self.open_parts.discard(part)
            self._part_done(event)
        elif kind.endswith(".delta"):
            self._delta(event)
        elif kind.rpartition(".")[0] in PART_TEXTS:
            self._text_done(event)

    def _item_added(self, event: Event) -> None:
        if event["output_index"] != self.next_index:
            self.faults.append(f"output {event['output_index']} follows {self.next_index - 1}")
        self.next_index = event["output_index"] + 1
        self.open_items[event["item"]["id"]] = event["output_index"]

    def _item_done(self, event: Event) -> None:
        item_id = event["item"]["id"]
        if self.open_items.pop(item_id, None) != event["output_index"]:
            self.faults.append(f"the output {item_id} ends that is not open")
        if any(part[0] == item_id for part in self.open_parts):
            self.faults.append(f"the output {item_id} ends before its part")
        if event["item"].get("status") not in ("completed", "incomplete"):
            self.faults.append(f"the output {item_id} ends as {event['item'].get('status')}")

    def _delta(self, event: Event) -> None:
        stem, item_id = event["type"].rpartition(".")[0], event["item_id"]
        if item_id not in self.open_items:
            self.faults.append(f"{event['type']} of {item_id}, which is not open")
        if "arguments" not in stem and (item_id, event["content_index"]) not in self.open_parts:
            self.faults.append(f"{event['type']} of {item_id} without an open part")
        if stem in PART_TEXTS:
            key = (stem, item_id)
            self.told[key] = self.told.get(key, "") + event["delta"]

    def _text_done(self, event: Event) -> None:
        stem = event["type"].rpartition(".")[0]
        said = event[PART_TEXTS[stem]]
        told = self.told.get((stem, event["item_id"]), "")
        if told != said:
            self.faults.append(f"{event['type']} says {said!r}, its deltas {told!r}")

    def _part_done(self, event: Event) -> None:
        part = event["part"]
        stem = "response.output_text" if part["type"] == "text" else None
        stem = stem or "response.output_audio_transcript"
        said = part.get("text" if part["type"] == "text" else "transcript")
        told = self.told.get((stem, event["item_id"]), "")
        if said != told:
            self.faults.append(f"the part of {event['item_id']} is {said!r}, its deltas {told!r}")

    def end(self, event: Event) -> None:
        """Take ``response.done``."""
        if self.over:
            self.faults.append(f"{self.id} is done twice")
        self.over = True
        if self.open_items or self.open_parts:
            self.faults.append(f"{self.id} is done, {sorted(self.open_items)} are open")
        if len(event["response"]["output"]) != self.next_index:
            self.faults.append(f"{self.id} has not all of its {self.next_index} outputs")
        if event["response"]["status"] == "in_progress":
            self.faults.append(f"{self.id} is done in progress")


def response_faults(log: Log, complete: bool = False) -> list[str]:
    """``created`` first, ``done`` last and once; all that opens closes; deltas make the text."""
    followers: dict[str, Follower] = {}
    faults: list[str] = []
    for event in server_events(log):
        kind = event["type"]
        if not kind.startswith("response."):
            continue
        response_id = event.get("response_id") or event.get("response", {}).get("id")
        if kind == "response.created":
            if response_id in followers:
                faults.append(f"{response_id} is created twice")
            followers[response_id] = Follower(response_id)
        elif response_id not in followers:
            faults.append(f"{kind} of {response_id}, which was not created")
        elif kind == "response.done":
            followers[response_id].end(event)
        else:
            followers[response_id].follow(event)
    for follower in followers.values():
        faults += follower.faults
        if complete and not follower.over:
            faults.append(f"{follower.id} is not done at the end")
    return faults


def cancellation_faults(log: Log, immediate: bool = False) -> list[str]:
    """After a cancel there is no delta of that response."""
    faults: list[str] = []
    cancelled: set[str] = set()
    active: set[str] = set()
    out_of_band: set[str] = set()
    refused = {e["error"].get("event_id") for d, e in log if d == "server" and "error" in e}
    for direction, event in log:
        kind = BETA_NAMES.get(str(event.get("type")), event.get("type"))
        if direction == "client":
            event_id = event.get("event_id")
            taken = event_id is None or (isinstance(event_id, str) and event_id not in refused)
            if kind == "response.cancel" and immediate and taken:
                named = event.get("response_id")
                if named is None:
                    cancelled |= active - out_of_band
                elif isinstance(named, str):
                    cancelled |= {named} & active
        elif kind == "response.created":
            response = event["response"]
            active.add(response["id"])
            if response.get("conversation_id") is None:
                out_of_band.add(response["id"])
        elif kind == "response.done":
            active.discard(event["response"]["id"])
            if event["response"]["status"] == "cancelled":
                cancelled.add(event["response"]["id"])
        elif str(kind).endswith(".delta") and event.get("response_id") in cancelled:
            faults.append(f"{kind} of {event['response_id']} after it was cancelled")
    return faults


# --- 6: transcripts -------------------------------------------------------------------------------


def transcript_faults(log: Log) -> list[str]:
    """Deltas are text, of one item at a time, and nothing follows an item's end."""
    faults: list[str] = []
    ended: set[str] = set()
    current: str | None = None
    for event in server_events(log):
        kind = event["type"]
        if kind == "input_audio_buffer.cleared":
            current = None
        elif kind == TRANSCRIPTION + "delta":
            item_id = event["item_id"]
            if not event["delta"]:
                faults.append(f"an empty delta of {item_id}")
            if item_id in ended:
                faults.append(f"a delta of {item_id} after its end")
            if current not in (None, item_id):
                faults.append(f"a delta of {item_id} among those of {current}")
            current = item_id
        elif kind in ENDS:
            item_id = event["item_id"]
            if item_id in ended:
                faults.append(f"{item_id} ends twice")
            ended.add(item_id)
            if current not in (None, item_id):
                faults.append(f"{item_id} ends among the deltas of {current}")
            current = None
    return faults


def agreement(logs: Iterable[Log]) -> tuple[int, int]:
    """How many completed turns say what their deltas said together, and how many there are."""
    equal = total = 0
    for log in logs:
        told: dict[str, str] = {}
        for event in server_events(log):
            if event["type"] == TRANSCRIPTION + "delta":
                told[event["item_id"]] = told.get(event["item_id"], "") + event["delta"]
            elif event["type"] == ENDS[0]:
                total += 1
                equal += told.get(event["item_id"], "") == event["transcript"]
    return equal, total


# --- 7: the clock ---------------------------------------------------------------------------------


def clock_faults(log: Log) -> list[str]:
    """Turns end after they begin, and follow one another; milliseconds are integers."""
    faults: list[str] = []
    begun: dict[str, int] = {}
    latest = 0
    for event in server_events(log):
        for name in ("audio_start_ms", "audio_end_ms"):
            if name in event and (type(event[name]) is not int or event[name] < 0):
                faults.append(f"{event['type']} has the {name} {event[name]!r}")
        if event["type"] == "input_audio_buffer.speech_started":
            begun[event["item_id"]] = start = event["audio_start_ms"]
            if start < latest:
                faults.append(f"speech begins at {start} ms, after speech at {latest} ms")
            latest = max(latest, start)
        elif event["type"] == "input_audio_buffer.speech_stopped":
            end = event["audio_end_ms"]
            if end <= begun.get(event["item_id"], -1) or end < latest:
                faults.append(f"speech ends at {end} ms, with {latest} ms heard before")
            latest = max(latest, end)
    return faults


def outline(log: Log) -> list[tuple[int, int, str]]:
    """(start, end, transcript) of each turn: the same at any feeding speed."""
    bounds: dict[str, list[int]] = {}
    texts: dict[str, str] = {}
    for event in server_events(log):
        kind = event["type"]
        if kind == "input_audio_buffer.speech_started":
            bounds[event["item_id"]] = [event["audio_start_ms"]]
        elif kind == "input_audio_buffer.speech_stopped":
            bounds[event["item_id"]].append(event["audio_end_ms"])
        elif kind == ENDS[0]:
            texts[event["item_id"]] = event["transcript"]
    return [
        (start, end[0], texts.get(item_id, "")) for item_id, (start, *end) in bounds.items() if end
    ]


# --- 8: errors ------------------------------------------------------------------------------------


def error_faults(log: Log) -> list[str]:
    """An error has all its keys, and names an event that was sent, once for each time."""
    faults: list[str] = []
    sent: Counter[str] = Counter()
    for direction, event in log:
        if direction == "client":
            if isinstance(event.get("event_id"), str):
                sent[event["event_id"]] += 1
            continue
        if event.get("type") != "error":
            continue
        error = event["error"]
        if set(error) != {"type", "code", "message", "param", "event_id"}:
            faults.append(f"an error has the keys {sorted(error)}")
        if not error.get("message") or not error.get("type"):
            faults.append(f"an error without message or type: {error}")
        named = error.get("event_id")
        if named is not None:
            sent[named] -= 1
            if sent[named] < 0:
                faults.append(f"an error too many for the event {named}")
    return faults


# --- 9: the echo ----------------------------------------------------------------------------------


def echo_faults(log: Log) -> list[str]:
    """A session that is sent back as it came changes nothing."""
    faults: list[str] = []
    latest: Mapping[str, Any] | None = None
    expected: Mapping[str, Any] | None = None
    updates = 0
    for direction, event in log:
        kind = event.get("type")
        if direction == "client" and kind in ("session.update", "transcription_session.update"):
            updates += 1
            same = updates == 1 and latest is not None and event.get("session") == latest
            expected = latest if same else None
        elif direction == "server" and kind in SESSIONS:
            latest = event["session"]
            updates = max(updates - 1, 0)
            if expected is not None and latest != expected:
                faults.append(f"{expected} sent back became {latest}")
            expected = None
    return faults

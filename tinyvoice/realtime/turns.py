"""The user's turns: from appended audio and the engine's utterances to items with transcripts.

A turn has its item id from the beginning of speech (or, without turn detection, from the first
audio after the last commit), so that text can be told while the person still speaks. It is
*announced* (``speech_started``), *committed* (``speech_stopped``, ``committed``, the item) and
*settled* (``completed`` or ``failed``), once each. Turns settle in their order, and nothing of a
turn's text is told before the turn ahead of it is settled: some clients keep one text for all.

Speech beyond the engine's longest utterance comes as several utterances; they are the pieces of one
turn. All positions are milliseconds of audio appended since the session began; no clock is read.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal, Protocol

from tinyvoice.engine.events import (
    Event,
    Failed,
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    UtteranceFailed,
)
from tinyvoice.errors import TinyvoiceError
from tinyvoice.realtime.configuration import LOGPROBS, PARTIALS, wants
from tinyvoice.realtime.conversation import Entry
from tinyvoice.realtime.errors import ProtocolError
from tinyvoice.realtime.items import user_audio_item
from tinyvoice.realtime.outputs import CancelTimer, Clear, Commit, Feed, Flush, SetTimer
from tinyvoice.realtime.state import State

TICKS = 48
"""Units of the audio clock in a millisecond: every sample rate in use divides 48 kHz."""
STALL = "stall"
IDLE = "idle"
NUMBERS_KEPT = 1_000
"""Utterances whose turn is remembered, for events that come late."""
CLEARS_KEPT = 100
"""Cleared stretches that are remembered, for events that come late."""
SLACK_MS = 0.01
"""By how much the engine's clock and ours may differ for the same place: both are rounded."""
SAME_PLACE_MS = 60.0
"""How far before a commit the engine may say that speech ended because of it: its resampler and
its windows hold some audio back."""

Who = Literal["client", "server"]


@dataclass
class Piece:
    """One utterance of a turn."""

    stable: str = ""
    outcome: Final | UtteranceFailed | None = None
    told: str = ""
    """What has been sent of it."""

    @property
    def text(self) -> str:
        """What is certain."""
        if self.outcome is None:
            return self.stable
        return self.outcome.text if isinstance(self.outcome, Final) else ""


@dataclass
class Turn:
    """One turn of the user."""

    item_id: str
    announced: bool = False
    start_ms: int = 0
    begun_ms: float = 0.0
    """When it was known that somebody speaks."""
    pieces: dict[int, Piece] = field(default_factory=dict)
    """By number of the utterance, ascending."""
    dropped: str = ""
    """What was told of pieces whose audio the buffer no longer has room for."""
    dropped_s: float = 0.0
    """Length of those pieces."""
    entry: Entry | None = None
    """The item, when the turn is committed."""
    boundary_ms: float | None = None
    """Where a client's commit without turn detection has cut the audio."""
    closed: bool = False
    """Whether no piece will be added and none goes on."""
    settled: bool = False
    reported: bool = False
    """Whether the client is told its text."""
    by_client: bool = False
    """Whether the client ended it."""
    timed_out: bool = False
    """Whether it stands for silence after an answer."""
    length_asked: bool = False
    unknown: int = 0
    """How often the engine has said that it knows of no utterance that goes on."""

    @property
    def committed(self) -> bool:
        """Whether its item is there."""
        return self.entry is not None

    @property
    def ready(self) -> bool:
        """Whether all is known that there is to know."""
        return (
            self.committed
            and self.closed
            and (self.lost or all(p.outcome is not None for p in self.pieces.values()))
        )

    @property
    def lost(self) -> bool:
        """Whether its end will never be heard of. Once may be a matter of what comes first."""
        return self.unknown > 1

    @property
    def finals(self) -> list[Final]:
        """The finals of its pieces."""
        return [p.outcome for p in self.pieces.values() if isinstance(p.outcome, Final)]

    @property
    def failure(self) -> TinyvoiceError | None:
        """Why it cannot be transcribed, if so."""
        for piece in self.pieces.values():
            if isinstance(piece.outcome, UtteranceFailed):
                return piece.outcome.error
        return None

    @property
    def text(self) -> str:
        """What is certain of its text."""
        pieces = (piece.text for piece in self.pieces.values())
        return " ".join(text for text in (self.dropped, *pieces) if text)

    @property
    def told(self) -> bool:
        """Whether the client has been sent any of it."""
        return bool(self.dropped) or any(piece.told for piece in self.pieces.values())


@dataclass(frozen=True)
class Ask:
    """A commit under turn detection, whose outcome only the engine knows."""

    item_id: str
    """Of the item that it becomes where no utterance goes on."""
    clock_ms: float
    who: Who
    event_id: str | None = None


@dataclass(frozen=True)
class Cleared:
    """A clear that waits for the commits before it."""


class TurnListener(Protocol):
    """Who wants to know about turns."""

    def speech_started(self) -> None:
        """A turn has been announced."""

    def turn_settled(self, turn: Turn) -> None:
        """A turn's transcript has been told, or that there is none."""

    def turn_dropped(self) -> None:
        """The turn that was going on has been forgotten."""


class InputTurns:
    """The turns of one session. Methods put what is to be done into the state's outbox."""

    def __init__(self, state: State, listener: TurnListener) -> None:
        self._state, self._listener, self._outbox = state, listener, state.outbox
        self._ticks = 0
        self._width, self._ticks_per_sample = 2, 2
        self._odd_bytes = 0
        self._open: Turn | None = None
        self._queue: deque[Turn] = deque()
        """Turns that are not settled, in order; the open one is its last, if there is one."""
        self._turn_of: dict[int, Turn] = {}
        self._dead: set[int] = set()
        self._ended_by_client: set[int] = set()
        self._cleared: deque[tuple[float, float]] = deque(maxlen=CLEARS_KEPT)
        """Stretches of audio that were cleared: (after, up to)."""
        self._asks: deque[Ask | Cleared] = deque()
        self._commit_point_ms = 0.0
        self._last_end_ms = 0
        self._armed_ms = 0.0
        self._idle_from_ms: float | None = None
        self._idle_asked = False
        self._dropped_ms = 0.0
        """Up to where audio has been dropped because the buffer was full."""
        self._full = False
        """Whether the client has been told that it is."""

    # --- what is known ---------------------------------------------------------------------------

    @property
    def clock_ms(self) -> float:
        """Audio appended so far."""
        return self._ticks / TICKS

    @property
    def speaking(self) -> bool:
        """Whether an announced turn goes on."""
        return self._open is not None and self._open.announced

    @property
    def busy(self) -> bool:
        """Whether a turn is announced or committed and not settled."""
        return bool(self._asks) or any(turn.announced or turn.committed for turn in self._queue)

    @property
    def awaited(self) -> set[str]:
        """Items whose transcript is still to come."""
        return {turn.item_id for turn in self._queue if turn.committed}

    def reserved(self, item_id: str) -> bool:
        """Whether a turn will become an item of this id."""
        return any(turn.item_id == item_id for turn in self._queue) or any(
            isinstance(ask, Ask) and ask.item_id == item_id for ask in self._asks
        )

    # --- from the client -------------------------------------------------------------------------

    def set_format(self, encoding: str, sample_rate: int) -> None:
        """Audio that comes from now on has this format."""
        self._width = 2 if encoding == "pcm16" else 1
        self._ticks_per_sample = TICKS * 1000 // sample_rate
        self._odd_bytes = 0

    def append(self, audio: bytes) -> None:
        """Take audio.

        Raises:
            ProtocolError: the buffer is full, and its oldest audio is dropped until there is a
                commit or a clear; raised once, and this audio is taken all the same.
        """
        if not audio:
            return
        samples, odd = divmod(self._odd_bytes + len(audio), self._width)
        ticks = samples * self._ticks_per_sample
        manual = self._state.detection is None
        longest_ms = self._state.limits.uncommitted_seconds * 1000
        self._ticks += ticks
        self._odd_bytes = odd
        self._outbox.put(Feed(audio))
        if manual and self._open is None:
            self._begin(Turn(self._outbox.ids("item")))
        elif self._open is not None and self._open.announced:
            self._watch_length(self._open, longest_ms)
        self._watch_idle()
        if manual:
            self._drop_oldest(longest_ms)

    def _drop_oldest(self, longest_ms: float) -> None:
        """Keep the newest audio that is not committed, and only so much of it.

        What is dropped are whole pieces of the turn: the engine cuts long speech at its quietest
        points, and what it has not transcribed yet is kept until it has. What the client has been
        told of a piece stays in the turn's text, which goes on from there.
        """
        if self._uncommitted_ms <= longest_ms:
            return
        self._dropped_ms = self.clock_ms - longest_ms
        turn = self._open
        if turn is not None and (turn is self._queue[0] or not self._state.transcribes):
            for number, piece in list(turn.pieces.items()):
                final = piece.outcome
                if not isinstance(final, Final) or final.audio_end * 1000 > self._dropped_ms:
                    break
                self._drop_piece(turn, number, final)
        if self._full:
            return
        self._full = True
        raise ProtocolError(
            "input_audio_buffer_full",
            f"The input audio buffer is full: it keeps {longest_ms / 1000:g} s of audio, and drops "
            "the oldest from now on, with its words where they have not been told. Commit or "
            "clear it earlier.",
            "audio",
        )

    def _drop_piece(self, turn: Turn, number: int, final: Final) -> None:
        if self._state.transcribes and final.text:
            turn.dropped = f"{turn.dropped} {final.text}".lstrip()
        turn.dropped_s += max(final.audio_end - final.audio_start, 0.0)
        del turn.pieces[number]
        self._turn_of.pop(number, None)
        self._dead.add(number)

    def append_unasked(self, audio: bytes) -> None:
        """Take audio of a track: no event of a client's is to blame for a full buffer."""
        try:
            self.append(audio)
        except ProtocolError as error:
            self._outbox.emit("error", error=error.describe(None))

    def commit(self, event_id: str | None) -> None:
        """End the turn now.

        Raises:
            ProtocolError: there is too little audio.
        """
        self._need_audio(self._uncommitted_ms)
        self.forget_idle()
        if self._state.detection is not None:
            self._ask(Ask(self._outbox.ids("item"), self.clock_ms, "client", event_id))
            return
        turn = self._open or self._begin(Turn(self._outbox.ids("item")))
        turn.by_client, turn.boundary_ms = True, self.clock_ms
        self._outbox.put(Commit(turn.item_id))
        self._close_out(turn, self.clock_ms)
        self._settle()

    def clear(self) -> None:
        """Forget the audio that is not committed, and the turn that goes on."""
        self._outbox.put(Clear())
        begin = self._commit_boundary_ms
        self._cleared.append((begin, self.clock_ms))
        self._commit_point_ms = self.clock_ms
        self._full = False
        self.forget_idle()
        if not self._asks:
            self._drop_open()
            self._outbox.emit("input_audio_buffer.cleared")
            return
        # The turn that goes on may be what the commit before this was about.
        if self._open is not None and self._open.begun_ms > begin:
            self._drop_open()
        self._asks.append(Cleared())

    def _drop_open(self) -> None:
        turn, self._open = self._open, None
        if turn is None:
            return
        self._queue.remove(turn)
        for number in turn.pieces:
            self._turn_of.pop(number, None)
            self._dead.add(number)
        self._outbox.put(CancelTimer(STALL))
        self._listener.turn_dropped()

    @property
    def _commit_boundary_ms(self) -> float:
        """Up to where audio is committed, or will be when the engine has answered."""
        asked = [ask.clock_ms for ask in self._asks if isinstance(ask, Ask) and ask.who == "client"]
        return max([self._commit_point_ms, *asked])

    @property
    def _uncommitted_ms(self) -> float:
        return self.clock_ms - max(self._commit_boundary_ms, self._dropped_ms)

    def _need_audio(self, buffered_ms: float) -> None:
        least = self._state.limits.minimum_commit_ms
        if buffered_ms < least:
            raise ProtocolError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{least:g}ms of audio, but buffer only has {max(buffered_ms, 0):.2f}ms of audio.",
            )

    # --- commits under turn detection ------------------------------------------------------------

    def _ask(self, ask: Ask) -> None:
        self._asks.append(ask)
        self._outbox.put(Commit(ask.item_id))

    def committed(self, item_id: str, utterance: int | None) -> None:
        """The engine has carried out a commit."""
        for turn in self._queue:
            if turn.item_id == item_id and turn.boundary_ms is not None:
                self._answered(turn, utterance)
                return
        found = next((a for a in self._asks if isinstance(a, Ask) and a.item_id == item_id), None)
        if found is None:
            return
        if utterance is not None:
            self._ended(found, utterance)
        elif found.who == "client":
            self._nothing_ended(found)
        else:
            self._nothing_known(found)
        self._asks.remove(found)
        while self._asks and isinstance(self._asks[0], Cleared):
            self._asks.popleft()
            self._outbox.emit("input_audio_buffer.cleared")
        self._settle()

    def _answered(self, turn: Turn, utterance: int | None) -> None:
        if utterance is None:
            turn.closed = True
        elif utterance not in self._turn_of and utterance not in self._dead:
            self._add_piece(turn, utterance)
        self._settle()

    def _ended(self, ask: Ask, utterance: int) -> None:
        turn = self._turn_of.get(utterance)
        if turn is None and self._open is not None and not self._open.announced:
            turn = self._open
            self._add_piece(turn, utterance)
        if turn is None:
            if utterance in self._dead:
                return
            if self._open is not None:
                # Events that are on their way tell whether it is a piece of this turn.
                if ask.who == "client":
                    self._ended_by_client.add(utterance)
                return
            # Its beginning is not known yet: its events are on their way.
            turn = self._begin(Turn(ask.item_id))
            self._add_piece(turn, utterance)
        if ask.who == "client":
            turn.by_client = True
            self._commit_point_ms = max(self._commit_point_ms, ask.clock_ms)
        if not turn.committed:
            self._close_out(turn, ask.clock_ms)

    def _nothing_ended(self, ask: Ask) -> None:
        """Whoever commits silence gets an item without words, if it is long enough."""
        buffered_ms = ask.clock_ms - min(self._commit_point_ms, ask.clock_ms)
        try:
            self._need_audio(buffered_ms)
        except ProtocolError as error:
            self._outbox.emit("error", error=error.describe(ask.event_id))
            return
        self._commit_point_ms = max(self._commit_point_ms, ask.clock_ms)
        turn = Turn(ask.item_id, closed=True, by_client=True)
        self._queue.append(turn)
        self._commit_item(turn)

    def _nothing_known(self, ask: Ask) -> None:
        """The engine does not know of a turn that we take to go on: it must not do so for ever."""
        turn = self._open
        if turn is None or not turn.announced or turn.begun_ms > ask.clock_ms + SLACK_MS:
            return
        turn.unknown += 1
        if turn.lost:
            turn.closed = True
            self._close_out(turn, ask.clock_ms)

    # --- from the engine -------------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        """Take an event of the engine's stream, except `Failed`."""
        if isinstance(event, SpeechStarted):
            self._speech_started(event)
        elif isinstance(event, Partial):
            self._partial(event)
        elif isinstance(event, SpeechEnded):
            self._speech_ended(event)
        elif isinstance(event, Final | UtteranceFailed):
            self._outcome(event)

    def _speech_started(self, event: SpeechStarted) -> None:
        if self._is_dead(event.utterance, event.at) or event.utterance in self._turn_of:
            return
        if self._open is not None and self._open.pieces:
            # The end of the one before has been lost: it is over in any case.
            last, self._open.closed = self._open, True
            self._close_out(last, event.time * 1000)
        turn = self._open or self._begin(Turn(self._outbox.ids("item")))
        padding = 0 if self._state.detection is None else padding_ms(self._state)
        turn.start_ms = max(whole_ms(event.time) - padding, self._last_end_ms, 0)
        turn.announced, turn.begun_ms = True, event.at * 1000
        self._add_piece(turn, event.utterance)
        self._outbox.emit(
            "input_audio_buffer.speech_started",
            audio_start_ms=turn.start_ms,
            item_id=turn.item_id,
        )
        self._arm()
        self.forget_idle()
        self._listener.speech_started()

    def _partial(self, event: Partial) -> None:
        turn = self._find(event.utterance, event.at)
        if turn is None or turn.settled:
            return
        piece = turn.pieces[event.utterance]
        if piece.outcome is not None:
            return
        if event.stable.startswith(piece.stable):
            piece.stable = event.stable
        self._settle()
        if self._tells_partials(turn):
            # A tail brings its own space unless it begins its utterance.
            begins = bool(turn.text) and not piece.stable
            self._outbox.emit(
                "tinyvoice.transcription.partial",
                item_id=turn.item_id,
                content_index=0,
                stable=turn.text,
                tail=f" {event.tail.lstrip()}" if begins and event.tail else event.tail,
                at_ms=whole_ms(event.at),
            )

    def _tells_partials(self, turn: Turn) -> bool:
        head = self._queue[0] if self._queue else None
        return (
            turn is head and self._state.transcribes and wants(self._state.configuration, PARTIALS)
        )

    def _speech_ended(self, event: SpeechEnded) -> None:
        turn = self._find(event.utterance, event.at)
        if turn is None or turn.committed:
            return
        end_ms = event.at * 1000
        for ask in self._asks:
            if isinstance(ask, Ask) and ask.who == "client":
                turn.by_client |= -SAME_PLACE_MS <= end_ms - ask.clock_ms <= SLACK_MS
        self._commit_point_ms = max(self._commit_point_ms, min(end_ms, self.clock_ms))
        self._close_out(turn, end_ms)
        self._settle()

    def _outcome(self, event: Final | UtteranceFailed) -> None:
        turn = self._find(event.utterance, event.at)
        if turn is None or turn.settled:
            return
        piece = turn.pieces[event.utterance]
        if piece.outcome is not None:
            return
        piece.outcome = event
        if event.continues and event.utterance + 1 not in self._turn_of:
            self._add_piece(turn, event.utterance + 1)
        else:
            turn.closed = True
            if not turn.committed:
                self._close_out(turn, event.at * 1000)
        self._settle()

    def fail(self, event: Failed) -> None:
        """The stream is gone: every turn that is told of ends as failed."""
        for turn in list(self._queue):
            if not turn.announced and not turn.committed:
                continue
            if not turn.committed:
                self._close_out(turn, self.clock_ms)
            turn.closed = True
            if not turn.pieces:
                turn.pieces[-1] = Piece()
            for number, piece in turn.pieces.items():
                if piece.outcome is None:
                    piece.outcome = UtteranceFailed(number, event.error, event.at)
        self._asks.clear()
        self._settle()

    def _find(self, utterance: int, at: float) -> Turn | None:
        """The turn of an utterance; None where it is to be ignored."""
        known = self._turn_of.get(utterance)
        if known is not None:
            return known
        if self._is_dead(utterance, at):
            return None
        for turn in self._queue:
            if (
                turn.boundary_ms is not None
                and not turn.closed
                and at * 1000 <= turn.boundary_ms + SLACK_MS
            ):
                self._add_piece(turn, utterance)
                return turn
        if self._open is not None and not self._open.announced:
            self._add_piece(self._open, utterance)
            return self._open
        return None

    def _is_dead(self, utterance: int, at: float) -> bool:
        """Whether an utterance has been cleared, as far as its first event tells."""
        if utterance in self._turn_of:
            return False
        at_ms = at * 1000 - SLACK_MS
        if any(after < at_ms <= until for after, until in self._cleared):
            self._dead.add(utterance)
        return utterance in self._dead

    def _add_piece(self, turn: Turn, utterance: int) -> None:
        turn.pieces[utterance] = Piece()
        turn.pieces = dict(sorted(turn.pieces.items()))
        self._turn_of[utterance] = turn
        for remembered in (self._turn_of, self._dead, self._ended_by_client):
            if len(remembered) > NUMBERS_KEPT:
                oldest = min(remembered)
                if isinstance(remembered, dict):
                    del remembered[oldest]
                else:
                    remembered.discard(oldest)

    # --- a turn's life ---------------------------------------------------------------------------

    def _begin(self, turn: Turn) -> Turn:
        turn.start_ms = int(self._commit_point_ms)
        self._open = turn
        self._queue.append(turn)
        return turn

    def _close_out(self, turn: Turn, end_ms: float) -> None:
        """The turn is over: make it an item."""
        turn.by_client |= not self._ended_by_client.isdisjoint(turn.pieces)
        if turn.announced:
            end = max(whole(end_ms), turn.start_ms + 1)
            self._last_end_ms = end
            self._outbox.emit(
                "input_audio_buffer.speech_stopped", audio_end_ms=end, item_id=turn.item_id
            )
        if turn.boundary_ms is not None:
            self._commit_point_ms = max(self._commit_point_ms, turn.boundary_ms)
        if self._open is turn:
            self._open = None
            self._outbox.put(CancelTimer(STALL))
        self._full = False
        self._commit_item(turn)

    def _commit_item(self, turn: Turn) -> None:
        self._outbox.emit(
            "input_audio_buffer.committed",
            previous_item_id=self._state.conversation.last,
            item_id=turn.item_id,
        )
        turn.reported = self._state.transcribes or turn.told
        turn.entry = self._state.add_item(user_audio_item(turn.item_id))

    def _settle(self) -> None:
        """Tell what can be told: text of the first turn, its end, then the next one's."""
        while self._queue:
            turn = self._queue[0]
            if turn.reported if turn.committed else self._state.transcribes:
                self._tell_text(turn)
            if not turn.ready:
                return
            self._queue.popleft()
            self._tell_end(turn)

    def _tell_text(self, turn: Turn) -> None:
        """Append-only: what does not go on from what was told is left to ``completed``."""
        told = turn.told
        for piece in turn.pieces.values():
            rest = piece.text[len(piece.told) :] if piece.text.startswith(piece.told) else ""
            if rest:
                delta = f" {rest}" if told and not piece.told else rest
                self._outbox.emit(
                    "conversation.item.input_audio_transcription.delta",
                    item_id=turn.item_id,
                    content_index=0,
                    delta=delta,
                )
                piece.told += rest
                told = True
            if piece.outcome is None:
                return

    def _tell_end(self, turn: Turn) -> None:
        turn.settled = True
        assert turn.entry is not None
        turn.entry.heard = turn.text
        self._state.conversation.grow(turn.entry, len(turn.text))
        if turn.reported and turn.failure is not None:
            self._outbox.emit(
                "conversation.item.input_audio_transcription.failed",
                item_id=turn.item_id,
                content_index=0,
                # No "param": the agents SDK for JavaScript drops the event where it is null.
                error={
                    "type": "server_error",
                    "code": "transcription_failed",
                    "message": str(turn.failure) or "The audio could not be transcribed.",
                },
            )
        elif turn.reported:
            turn.entry.item["content"][0]["transcript"] = turn.text
            self._tell_completed(turn)
        self._listener.turn_settled(turn)

    def _tell_completed(self, turn: Turn) -> None:
        seconds = sum(final.audio_end - final.audio_start for final in turn.finals)
        seconds += turn.dropped_s
        fields = {
            "item_id": turn.item_id,
            "content_index": 0,
            "transcript": turn.text,
            "usage": {"type": "duration", "seconds": round(max(seconds, 0.0), 3)},
        }
        if wants(self._state.configuration, LOGPROBS):
            fields["logprobs"] = logprobs(turn.finals)
        self._outbox.emit("conversation.item.input_audio_transcription.completed", **fields)
        if wants(self._state.configuration, PARTIALS):
            self._outbox.emit(
                "tinyvoice.transcription.words",
                item_id=turn.item_id,
                content_index=0,
                words=[
                    {
                        "word": word.text,
                        "start_ms": whole_ms(word.start),
                        "end_ms": whole_ms(word.end),
                        "confidence": round(word.confidence, 4),
                    }
                    for final in turn.finals
                    for word in final.words
                ],
            )

    # --- turns that do not end by themselves -----------------------------------------------------

    def _arm(self) -> None:
        self._armed_ms = self.clock_ms
        self._outbox.put(SetTimer(STALL, self._state.limits.stall_seconds))

    def stalled(self) -> None:
        """The stall timer is due: without audio no detector ends a turn."""
        if not self.speaking:
            return
        if self.clock_ms <= self._armed_ms and not self._asks:
            self._ask(Ask(self._outbox.ids("item"), self.clock_ms, "server"))
        self._arm()

    def _watch_length(self, turn: Turn, longest_ms: float) -> None:
        if self.clock_ms - turn.start_ms > longest_ms and not turn.length_asked:
            turn.length_asked = True
            self._ask(Ask(self._outbox.ids("item"), self.clock_ms, "server"))

    # --- silence after an answer -----------------------------------------------------------------

    def watch_idle(self, from_ms: float) -> None:
        """An answer has been played up to there: from now on silence is counted."""
        self._idle_from_ms = from_ms

    def forget_idle(self) -> None:
        """Somebody speaks, or is about to."""
        self._idle_from_ms = None

    @property
    def _idle_until_ms(self) -> float | None:
        detection = self._state.detection
        timeout = None if detection is None else detection.get("idle_timeout_ms")
        if timeout is None or self._idle_from_ms is None or self._queue or self._asks:
            return None
        return self._idle_from_ms + float(timeout)

    def _watch_idle(self) -> None:
        until = self._idle_until_ms
        if until is not None and self.clock_ms >= until and not self._idle_asked:
            # There may be speech in what the engine has not heard yet.
            self._idle_asked = True
            self._outbox.put(Flush(IDLE))

    def flushed(self) -> None:
        """All audio up to the end of the idle time has been heard."""
        self._idle_asked = False
        until, begin = self._idle_until_ms, self._idle_from_ms
        if until is None or begin is None or self.clock_ms < until:
            return
        self.forget_idle()
        turn = Turn(self._outbox.ids("item"), closed=True, timed_out=True)
        self._queue.append(turn)
        self._last_end_ms = max(self._last_end_ms, int(until))
        self._commit_point_ms = max(self._commit_point_ms, until)
        self._outbox.emit(
            "input_audio_buffer.timeout_triggered",
            audio_start_ms=int(begin),
            audio_end_ms=int(until),
            item_id=turn.item_id,
        )
        self._commit_item(turn)
        self._settle()


def whole(milliseconds: float) -> int:
    """Milliseconds as the protocol has them."""
    return round(milliseconds) if math.isfinite(milliseconds) else 0


def whole_ms(seconds: float) -> int:
    """Seconds of the engine's clock in milliseconds."""
    return whole(seconds * 1000)


def padding_ms(state: State) -> int:
    """Audio before speech that belongs to a turn."""
    detection = state.detection or {}
    return int(min(detection.get("prefix_padding_ms", 300), 2_000))


def logprobs(finals: list[Final]) -> list[dict[str, object]]:
    """Tokens of a transcript with the logarithms of their probabilities."""
    return [
        {
            "token": token.text,
            "bytes": list(token.text.encode()),
            "logprob": min(token.logprob, 0.0),
        }
        for final in finals
        for token in final.tokens
    ]

"""One stream of audio over as many Realtime sessions as it takes; no I/O.

A session of a `tinyvoice serve` ends when its server or the network does. The audio does not: what
has not been answered by a transcript is kept, and goes to the next session too, so that a short
outage costs time and no words. Server events become the engine's events, with times on the audio
clock of the stream.

Connecting, waiting and sockets are `remote_stream`'s. Audio is pcm16 mono at `RATE`.
"""

from __future__ import annotations

import base64
import json
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tinyvoice.engine.events import (
    Event,
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    TokenLogprob,
    UtteranceFailed,
)
from tinyvoice.errors import TinyvoiceError
from tinyvoice.model.timestamps import confidence
from tinyvoice.model.transcript import Word
from tinyvoice.realtime.configuration import LOGPROBS, PARTIALS

RATE = 16_000
"""Samples a second of what is sent: the model's own, which the server takes as it is."""

QUIET_KEPT_S = 5.0
"""Audio that is kept where nobody seems to speak: the server may be about to hear somebody, and by
how much it is behind it does not tell."""

LARGEST_APPEND_S = 0.5
"""Audio of one event where some waits to be sent; live, each packet goes by itself."""

CLOSING = frozenset({"overloaded", "invalid_api_key", "session_expired", "server_error"})
"""Codes of error events that a close of the connection follows, which says the same."""

INCLUDE = [PARTIALS, LOGPROBS]
"""What the sessions are to tell beyond the protocol."""


class RemoteTranscriptionError(TinyvoiceError):
    """A server could not transcribe an utterance, or did not like what it was sent."""


@dataclass(frozen=True)
class Committed:
    """The answer to a commit: what `RemoteSession.commit` returned, and the utterance it ended."""

    mark: int
    utterance: int | None


@dataclass(frozen=True)
class ServerSays:
    """The server reported an error that ends nothing."""

    error: RemoteTranscriptionError


@dataclass(eq=False)
class _Audio:
    start: int
    """Position in the stream, in samples."""
    pcm: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.pcm) // 2


@dataclass(eq=False)
class _Commit:
    start: int
    mark: int
    answered: bool = False

    @property
    def event_id(self) -> str:
        return f"commit_{self.mark}"


@dataclass(eq=False)
class _Clear:
    start: int


@dataclass
class _Item:
    """An utterance as the server counts it."""

    number: int
    start: int
    end: int = 0
    """Of the speech; the beginning, where the server told of no speech."""
    until: int = 0
    """What was committed up to, silence behind the speech included."""
    committed: bool = False
    hypothesis: str = ""
    completed: Mapping[str, Any] | None = None


@dataclass
class RemoteSession:
    """What has been said and to whom.

    ``session`` is the configuration that sessions get; ``padding_s`` the audio in front of the
    speech that it asks for.
    """

    session: Mapping[str, Any]
    padding_s: float = 0.3
    keep_s: float = 30.0
    """Audio without an answer that is kept for another session; what is older is lost."""
    lost_s: float = 0.0
    """Audio that no session has had and none will, since `take_lost` was last called."""
    _kept: deque[_Audio | _Commit | _Clear] = field(default_factory=deque)
    _kept_samples: int = 0
    _next: int = 0
    """How many of what is kept this session has had."""
    _fed: int = 0
    _marks: int = 0
    _awaited: deque[_Commit | _Clear] = field(default_factory=deque)
    """Sent, and not answered."""
    _items: dict[str, _Item] = field(default_factory=dict)
    """Utterances that have begun and not been told the end of, in their order."""
    _interrupted: list[_Item] = field(default_factory=list)
    """Those of the session before, until this one hears them again."""
    _count: int = 0
    _settled: int = 0
    """Up to this sample everything has been answered."""
    _points: list[tuple[int, int]] = field(default_factory=list)
    """Where the session's clock stood at which sample of the stream; between them both go on."""
    _sent_samples: int = 0
    _open: bool = False
    _configure: bool = False

    # --- from the pipeline -----------------------------------------------------------------------

    def feed(self, pcm: bytes) -> None:
        """Take audio."""
        if not pcm:
            return
        chunk = _Audio(self._fed, pcm)
        self._fed = chunk.end
        self._kept.append(chunk)
        self._kept_samples += len(pcm) // 2
        self._forget_quiet()
        self._forget_oldest()

    def commit(self) -> int:
        """End the utterance here; the mark that `Committed` will bear."""
        self._marks += 1
        self._kept.append(_Commit(self._fed, self._marks))
        return self._marks

    def clear(self) -> None:
        """Forget the utterance that goes on; those that were committed are still answered."""
        while self._kept and not (
            isinstance(self._kept[-1], _Commit) and not self._kept[-1].answered
        ):
            dropped = self._kept.pop()
            if isinstance(dropped, _Audio):
                self._kept_samples -= len(dropped.pcm) // 2
        self._next = min(self._next, len(self._kept))
        self._interrupted = [item for item in self._interrupted if item.committed]
        self._kept.append(_Clear(self._fed))

    def configure(self, session: Mapping[str, Any], padding_s: float) -> None:
        """Other settings from now on."""
        self.session, self.padding_s = session, padding_s
        self._configure = self._open

    @property
    def settled(self) -> bool:
        """Whether everything has been sent and answered."""
        return self._open and self._next == len(self._kept) and not (self._awaited or self._items)

    def take_lost(self) -> float:
        """Seconds of audio that no session will have, since the last call."""
        lost, self.lost_s = self.lost_s, 0.0
        return lost

    def unfinished(self) -> list[Final]:
        """What has been understood of utterances whose end was never told, as far as it came."""
        items = [*self._interrupted, *self._items.values()]
        self._interrupted, self._items = [], {}
        return [
            Final(
                item.number,
                item.hypothesis,
                (),
                start=_seconds(item.start),
                end=_seconds(max(item.end, item.start)),
                confidence=0.0,
                audio_start=_seconds(item.start),
                audio_end=_seconds(max(item.end, item.start)),
                at=_seconds(self._fed),
            )
            for item in items
            if item.hypothesis
        ]

    # --- to the server ---------------------------------------------------------------------------

    def opened(self) -> None:
        """A session has been created: all that is kept goes to it, configuration first."""
        self._open = self._configure = True
        self._points.clear()
        self._sent_samples = 0
        for entry in [entry for entry in self._kept if _answered(entry)]:
            self._kept.remove(entry)

    def lost(self) -> None:
        """The session is over."""
        self._open = self._configure = False
        self._next = 0
        self._awaited.clear()
        self._interrupted += self._items.values()
        self._items = {}

    def to_send(self) -> str | None:
        """The next client event, or None where nothing waits."""
        if not self._open:
            return None
        if self._configure:
            self._configure = False
            return json.dumps({"type": "session.update", "session": self.session})
        if self._next >= len(self._kept):
            return None
        entry = self._kept[self._next]
        self._next += 1
        if isinstance(entry, _Audio):
            return self._append(entry)
        self._awaited.append(entry)
        if isinstance(entry, _Clear):
            return '{"type":"input_audio_buffer.clear"}'
        return json.dumps({"type": "input_audio_buffer.commit", "event_id": entry.event_id})

    def _append(self, first: _Audio) -> str:
        """The audio from here on, up to the next commit."""
        pieces, position = [first.pcm], first.end
        while self._next < len(self._kept) and position - first.start < LARGEST_APPEND_S * RATE:
            more = self._kept[self._next]
            if not isinstance(more, _Audio) or more.start != position:
                break
            pieces.append(more.pcm)
            position = more.end
            self._next += 1
        if not self._points or self._sample(self._sent_samples) != first.start:
            self._points.append((self._sent_samples, first.start))
        self._sent_samples += position - first.start
        audio = base64.b64encode(b"".join(pieces)).decode()
        return f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}'

    # --- from the server -------------------------------------------------------------------------

    def receive(self, event: Mapping[str, Any]) -> list[Event | Committed | ServerSays]:
        """Take a server event.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is none of the protocol.
        """
        kind, name = str(event.get("type")), str(event.get("item_id"))
        match kind.rpartition(".")[2]:
            case "speech_started":
                item = self._item(name, self._sample_at(event["audio_start_ms"]))
                self._interrupted.clear()
                start = _seconds(item.start) + self.padding_s
                return [SpeechStarted(item.number, start, start)]
            case "partial":
                item = self._item(name)
                item.hypothesis = str(event["stable"]) + str(event["tail"])
                at = _seconds(self._sample_at(event["at_ms"]))
                return [Partial(item.number, str(event["stable"]), str(event["tail"]), at)]
            case "speech_stopped":
                item = self._item(name)
                item.end = self._sample_at(event["audio_end_ms"])
                return [SpeechEnded(item.number, _seconds(item.end), _seconds(item.end))]
            case "committed":
                return self._committed(self._item(name))
            case "completed":
                self._item(name).completed = event
            case "words":
                return self._final(name, event["words"])
            case "failed":
                item = self._settle(name)
                failed = RemoteTranscriptionError(str(event["error"].get("message")))
                return [UtteranceFailed(item.number, failed, _seconds(item.end))]
            case "cleared":
                return self._cleared()
            case "error":
                return self._error(event["error"])
        return []

    def _item(self, name: str, start: int | None = None) -> _Item:
        if name not in self._items:
            begin = self._settled if start is None else max(start, self._settled)
            self._items[name] = _Item(self._count, begin)
            self._count += 1
        return self._items[name]

    def _committed(self, item: _Item) -> list[Event | Committed | ServerSays]:
        item.committed = True
        # The server answers in order; what it ends by itself stands before a clear.
        if not self._awaited or not isinstance(self._awaited[0], _Commit):
            return []
        ask = self._awaited.popleft()
        assert isinstance(ask, _Commit)
        ask.answered = True
        item.until = ask.start
        return [Committed(ask.mark, item.number)]

    def _cleared(self) -> list[Event | Committed | ServerSays]:
        answers: list[Event | Committed | ServerSays] = []
        while self._awaited:
            ask = self._awaited.popleft()
            if isinstance(ask, _Clear):
                self._settled = max(self._settled, ask.start)
                break
            ask.answered = True
            answers.append(Committed(ask.mark, None))
        self._items = {name: item for name, item in self._items.items() if item.committed}
        return answers

    def _error(self, error: Mapping[str, Any]) -> list[Event | Committed | ServerSays]:
        for ask in self._awaited:
            if isinstance(ask, _Commit) and ask.event_id == error.get("event_id"):
                self._awaited.remove(ask)
                ask.answered = True
                return [Committed(ask.mark, None)]
        if error.get("code") in CLOSING:
            return []
        return [ServerSays(RemoteTranscriptionError(f"The server says: {error.get('message')}"))]

    def _final(self, name: str, words: Any) -> list[Event | Committed | ServerSays]:
        """Words come right behind the transcript that they belong to."""
        told = self._item(name).completed
        if told is None:
            return []
        item = self._settle(name)
        self._interrupted.clear()
        usage = told.get("usage") or {}
        tokens = tuple(
            TokenLogprob(str(token["token"]), float(token["logprob"]))
            for token in told.get("logprobs") or ()
        )
        timed = tuple(self._word(word) for word in words)
        begin = min(_seconds(item.start) + self.padding_s, _seconds(item.end))
        final = Final(
            item.number,
            str(told["transcript"]),
            timed,
            # The protocol bounds the turn; the speech is bounded by its words.
            start=timed[0].start if timed else begin,
            end=timed[-1].end if timed else _seconds(item.end),
            confidence=confidence([token.logprob for token in tokens]),
            audio_start=_seconds(item.start),
            audio_end=_seconds(item.start) + float(usage.get("seconds") or 0.0),
            at=_seconds(item.end),
            tokens=tokens,
        )
        return [final]

    def _word(self, word: Mapping[str, Any]) -> Word:
        return Word(
            text=str(word["word"]),
            start=_seconds(self._sample_at(word["start_ms"])),
            end=_seconds(self._sample_at(word["end_ms"])),
            confidence=float(word["confidence"]),
        )

    def _settle(self, name: str) -> _Item:
        """Nothing up to the end of this utterance will be asked of another session."""
        item = self._item(name)
        del self._items[name]
        item.end = max(item.end, item.start)
        self._settled = max(self._settled, item.end, item.until)
        self._forget_before(self._settled)
        return item

    # --- what is kept ----------------------------------------------------------------------------

    def _forget_before(self, sample: int) -> None:
        """Let go of what has been sent and lies before this sample."""
        while self._kept and self._next:
            entry = self._kept[0]
            if isinstance(entry, _Audio):
                if entry.end > sample:
                    return
                self._kept_samples -= len(entry.pcm) // 2
            elif entry.start > sample or entry in self._awaited:
                return
            self._kept.popleft()
            self._next -= 1

    def _forget_quiet(self) -> None:
        if self._open and not self._items and not self._awaited:
            self._forget_before(self._fed - round(QUIET_KEPT_S * RATE))

    def _forget_oldest(self) -> None:
        """Keep no more than `keep_s`; commits stay, whatever they stand behind."""
        while self._kept_samples > self.keep_s * RATE:
            index = next(i for i, entry in enumerate(self._kept) if isinstance(entry, _Audio))
            oldest = self._kept[index]
            assert isinstance(oldest, _Audio)
            del self._kept[index]
            self._kept_samples -= len(oldest.pcm) // 2
            if index < self._next:
                self._next -= 1
            else:
                self.lost_s += len(oldest.pcm) / 2 / RATE

    # --- clocks ----------------------------------------------------------------------------------

    def _sample_at(self, milliseconds: float) -> int:
        """The stream's sample at this time of the session."""
        if not math.isfinite(milliseconds):
            raise ValueError("a time that is none")
        return self._sample(round(milliseconds * RATE / 1000))

    def _sample(self, of_session: int) -> int:
        index = bisect_right(self._points, of_session, key=lambda point: point[0]) - 1
        if index < 0:
            return max(of_session, 0)
        begin, sample = self._points[index]
        return sample + of_session - begin


def _answered(entry: _Audio | _Commit | _Clear) -> bool:
    return isinstance(entry, _Commit) and entry.answered


def _seconds(samples: int) -> float:
    return samples / RATE

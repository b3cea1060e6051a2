"""What `tinyvoice listen` shows of a live stream: a changing screen, plain lines, or JSON.

Three views take the same events. :class:`Screen` redraws the bottom of a terminal, where words
still change, and leaves finals above it; :class:`Lines` writes finals only, for files and pipes;
:class:`JsonLines` writes every event. :class:`Latencies` measures, in the words of
`tinyvoice.metrics`, what the screen and the summary tell. None of them touches audio.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tinyvoice.engine.events import (
    Cleared,
    EndOfTurnLikely,
    Event,
    Failed,
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    UtteranceFailed,
)
from tinyvoice.metrics import (
    Distribution,
    Update,
    UtteranceRecord,
    distribution,
    first_partial,
    partial_lags,
    time_to_final,
)

EVENT_NAMES: dict[type, str] = {
    SpeechStarted: "speech_started",
    Partial: "partial",
    EndOfTurnLikely: "end_of_turn_likely",
    SpeechEnded: "speech_ended",
    Final: "final",
    UtteranceFailed: "utterance_failed",
    Cleared: "cleared",
    Failed: "failed",
}
"""What the key ``type`` of a line says."""

_DECIMALS = 4
_QUIETEST_DB = -60.0
_METER_CELLS = 20
_REDRAW_S = 0.1
_REMEMBERED_PACKETS = 8192
_REMEMBERED_UTTERANCES = 1000


def event_record(event: Event) -> dict[str, Any]:
    """An event as what a JSON line holds: its type, then its fields; an error as its sentence."""
    record: dict[str, Any] = {"type": EVENT_NAMES[type(event)]}
    if isinstance(event, Failed):
        return record | {"error": str(event.error), "at": round(event.at, _DECIMALS)}
    if isinstance(event, UtteranceFailed):
        record |= {"utterance": event.utterance, "error": str(event.error)}
        return record | {"at": round(event.at, _DECIMALS), "continues": event.continues}
    entries = asdict(event)
    entries.pop("tokens", None)  # the words say as much to a reader
    return record | _rounded(entries)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DECIMALS)
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value


def time_stamp(seconds: float) -> str:
    """A time in the stream as ``[mm:ss.s]``; an hour is 60 minutes."""
    tenths = round(seconds * 10)
    return f"[{tenths // 600:02d}:{tenths % 600 / 10:04.1f}]"


def final_line(final: Final) -> str:
    """A final with the time at which it begins."""
    return f"{time_stamp(final.start)} {final.text.strip()}"


# Latency -------------------------------------------------------------------------------------


@dataclass
class _Utterance:
    started: float | None = None
    """Audio time at which the speech began; None where nothing told it."""
    decided: float | None = None
    """Audio time at which its end was decided."""
    updates: list[Update] = field(default_factory=list)


class Latencies:
    """Times of a live stream, from the packets fed and the events received, with one wall clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.last: UtteranceRecord | None = None
        self.utterances = 0
        self.speech_s = 0.0
        self.fed_s = 0.0
        self._clock = clock
        self._packets: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED_PACKETS)
        self._open: dict[int, _Utterance] = {}
        self._records: deque[UtteranceRecord] = deque(maxlen=_REMEMBERED_UTTERANCES)

    def fed(self, seconds: float) -> None:
        """Another ``seconds`` of audio were fed just now."""
        self.fed_s += seconds
        self._packets.append((self.fed_s, self._clock()))

    def received(self, event: Event) -> None:
        """An event was read just now."""
        if isinstance(event, Failed | EndOfTurnLikely):
            return
        utterance = self._open.setdefault(event.utterance, _Utterance())
        if isinstance(event, SpeechStarted):
            utterance.started = event.time
        elif isinstance(event, SpeechEnded):
            utterance.decided = event.at
        elif isinstance(event, Partial):
            utterance.updates.append(
                Update(self._clock(), event.stable, event.tail, self.fed_s, event.at)
            )
        else:
            del self._open[event.utterance]
            if isinstance(event, Final):
                self._complete(event, utterance)

    def _complete(self, final: Final, utterance: _Utterance) -> None:
        self.speech_s += final.end - final.start
        if not final.text.strip():
            return
        self.utterances += 1
        started = final.start if utterance.started is None else utterance.started
        self.last = UtteranceRecord(
            onset=self._wall(started),
            voice_end=self._wall(final.end),
            decided=None if utterance.decided is None else self._wall(utterance.decided),
            updates=tuple(utterance.updates),
            final=final.text,
            received=self._clock(),
        )
        self._records.append(self.last)

    def _wall(self, position: float) -> float:
        """When the packet was fed that holds an audio position (seconds)."""
        wall = self._clock()
        for fed, at in reversed(self._packets):
            if fed < position - 1e-6:
                break
            wall = at
        return wall

    def line(self) -> str:
        """The last utterance's times; empty before the first."""
        if self.last is None:
            return ""
        parts = []
        waited = time_to_final(self.last)
        if waited is not None:
            parts.append(f"final after {_milliseconds(waited)}")
        parts.append(f"first partial {_milliseconds(first_partial(self.last))}")
        lag = distribution(partial_lags(self.last))
        if lag is not None:
            parts.append(f"partial lag {_milliseconds(lag.p50)}")
        return ", ".join(parts)

    def summary(self) -> str:
        """The whole stream on one line or a few, for the end."""
        counted = f"{self.utterances} utterance{'' if self.utterances == 1 else 's'}"
        lines = [f"{counted}, {self.speech_s:.1f} s of speech in {self.fed_s:.1f} s of sound"]
        for title, values in (
            ("time to final", [time_to_final(record) for record in self._records]),
            ("first partial", [first_partial(record) for record in self._records]),
            ("partial lag", [lag for record in self._records for lag in partial_lags(record)]),
        ):
            spread = distribution(values)
            if spread is not None:
                lines.append(f"{title}: {_spread(spread)}")
        return "\n".join(lines)


def _spread(spread: Distribution) -> str:
    return f"median {_milliseconds(spread.p50)}, 95 % within {_milliseconds(spread.p95)}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


# Views ---------------------------------------------------------------------------------------


class View(Protocol):
    """Where events go; used as a context."""

    def __enter__(self) -> View: ...

    def __exit__(self, *exception: object) -> None: ...

    def show(self, event: Event) -> None:
        """An event has come."""

    def level(self, peak: float) -> None:
        """A packet whose loudest sample has this magnitude (0 to 1) has been fed."""

    def warn(self, message: str) -> None:
        """Something is not as it should be, and goes on."""


class Lines:
    """Finals on standard output, one a line."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def show(self, event: Event) -> None:
        """Write a final that has text."""
        if isinstance(event, Final) and event.text.strip():
            print(final_line(event), flush=True)

    def level(self, peak: float) -> None:
        """Nothing to show it on."""


class JsonLines(Lines):
    """Every event on standard output, one JSON object a line."""

    def show(self, event: Event) -> None:
        """Write an event."""
        print(json.dumps(event_record(event), ensure_ascii=False), flush=True)


class Screen:
    """A terminal: finals scroll up; the words in flight, a level meter and times stay below."""

    def __init__(self, console: Console, latencies: Latencies, hint: str) -> None:
        self._console = console
        self._latencies = latencies
        self._hint = hint
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._partial: Partial | None = None
        self._speaking = False
        self._peak = 0.0
        self._drawn = -math.inf

    def __enter__(self) -> Screen:
        self._live.__enter__()
        self._draw()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, event: Event) -> None:
        """Draw an event at once."""
        if isinstance(event, SpeechStarted):
            self._speaking = True
        elif isinstance(event, Partial):
            self._partial = event
        elif isinstance(event, SpeechEnded):
            self._speaking = False
        elif isinstance(event, Final | UtteranceFailed):
            self._partial = None
            if isinstance(event, Final) and event.text.strip():
                # Printing draws the bottom again as it was: without the words that move up.
                self._draw()
                self._console.print(finished(event))
        self._draw()

    def level(self, peak: float) -> None:
        """Redraw with the loudest of the last tenth of a second."""
        self._peak = max(self._peak, peak)
        if time.monotonic() - self._drawn >= _REDRAW_S:
            self._draw()
            self._peak = 0.0

    def warn(self, message: str) -> None:
        """Leave a sentence above the words in flight."""
        self._console.print(Text.assemble(("warning: ", "yellow bold"), message))

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._live.update(self._bottom(), refresh=True)

    def _bottom(self) -> Group:
        state = Text.assemble(
            meter(self._peak),
            f"  {time_stamp(self._latencies.fed_s)[1:-1]}",
            ("  speech" if self._speaking else "", "bold green"),
        )
        hint = Text(self._hint, style="dim", no_wrap=True, overflow="ellipsis")
        latency = Text(self._latencies.line(), style="cyan", no_wrap=True, overflow="ellipsis")
        return Group(unfinished(self._partial), state, *([latency] if latency else []), hint)


def finished(final: Final) -> Text:
    """A final with its time stamp."""
    return Text.assemble((time_stamp(final.start) + " ", "cyan"), final.text.strip())


def unfinished(partial: Partial | None) -> Text:
    """The words in flight: those that are stable plain, those that may change dim."""
    if partial is None:
        return Text()
    return Text.assemble(partial.stable.lstrip(), (partial.tail, "dim"))


def meter(peak: float) -> Text:
    """A bar for the magnitude of a sample, 0 to 1, over 60 dB; red where it clips."""
    decibels = 20 * math.log10(peak) if peak > 0 else -math.inf
    share = min(1.0, max(0.0, 1 - decibels / _QUIETEST_DB))
    cells = round(share * _METER_CELLS)
    colour = "red" if decibels > -1 else "yellow" if decibels > -6 else "green"
    shown = f"{max(decibels, _QUIETEST_DB):4.0f} dB"
    return Text.assemble(
        ("━" * cells, colour), ("━" * (_METER_CELLS - cells), "bright_black"), " ", shown
    )

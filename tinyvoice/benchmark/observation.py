"""From a stream's events, and when they came, to records of its utterances.

Wall time meets audio time here: a :class:`StreamClock` knows when each sample was spoken and when
its packet was due. Nothing is measured here, so that every rule can be tried on a list of events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.speech import Clip
from tinyvoice.benchmark.timeline import Timeline
from tinyvoice.engine.events import Event, Final, Partial, SpeechEnded, SpeechStarted
from tinyvoice.metrics import Update, UtteranceRecord


@dataclass(frozen=True, slots=True)
class Received:
    """An event, and the wall time at which its reader had it."""

    event: Event
    wall: float


@dataclass(frozen=True, slots=True)
class StreamClock:
    """Wall times of a stream that began to be recorded at ``start`` and comes in packets."""

    start: float
    packet_samples: int
    samples: int
    """Length of the stream."""

    def spoken(self, at: float) -> float:
        """When the audio position ``at`` (seconds) was spoken."""
        return self.start + at

    def due(self, at: float) -> float:
        """When the packet was due with which the stream reaches ``at`` seconds."""
        packets = -(-round(at * SAMPLE_RATE) // self.packet_samples)
        return self.start + packets * self.packet_samples / SAMPLE_RATE

    def fed(self, wall: float) -> float:
        """Seconds of audio whose packets were due by a wall time."""
        packets = int((wall - self.start) * SAMPLE_RATE / self.packet_samples + 1e-6)
        return min(max(packets, 0) * self.packet_samples, self.samples) / SAMPLE_RATE


@dataclass
class Heard:
    """An utterance as its reader saw it, and what was played."""

    record: UtteranceRecord
    final: Final
    clip: int | None
    """Place in the timeline of the clip it belongs to; None for sound that was no clip."""


@dataclass
class _Utterance:
    started: SpeechStarted | None = None
    ended: SpeechEnded | None = None
    partials: list[Received] = field(default_factory=list)
    final: Received | None = None


def observe(
    received: Iterable[Received], clock: StreamClock, timeline: Timeline, clips: Sequence[Clip]
) -> list[Heard]:
    """Records of all utterances that have a final, in order.

    An utterance belongs to the clip that it overlaps most. The first one of a clip begins where the
    clip says, others where the engine says.
    """
    heard: list[Heard] = []
    seen: set[int] = set()
    for utterance in _utterances(received):
        assert utterance.final is not None
        final = utterance.final.event
        assert isinstance(final, Final)
        place = overlapped(final.start, final.end, timeline, clips)
        first = place is not None and place not in seen
        if place is not None:
            seen.add(place)
        onset, word_end = _spoken(final, place if first else None, timeline, clips)
        record = UtteranceRecord(
            onset=clock.spoken(onset),
            voice_end=clock.spoken(final.end),
            decided=None if utterance.ended is None else clock.due(utterance.ended.at),
            updates=tuple(_update(partial, clock) for partial in utterance.partials),
            final=final.text,
            received=utterance.final.wall,
            first_word_end=None if word_end is None else clock.spoken(word_end),
        )
        heard.append(Heard(record, final, place))
    return heard


def _utterances(received: Iterable[Received]) -> list[_Utterance]:
    """Events sorted by utterance; those without a final are left out."""
    found: dict[int, _Utterance] = {}
    for item in received:
        event = item.event
        if not isinstance(event, SpeechStarted | Partial | SpeechEnded | Final):
            continue
        utterance = found.setdefault(event.utterance, _Utterance())
        if isinstance(event, SpeechStarted):
            utterance.started = event
        elif isinstance(event, SpeechEnded):
            utterance.ended = event
        elif isinstance(event, Partial):
            utterance.partials.append(item)
        else:
            utterance.final = item
    return [utterance for utterance in found.values() if utterance.final is not None]


def _update(item: Received, clock: StreamClock) -> Update:
    event = item.event
    assert isinstance(event, Partial)
    return Update(item.wall, event.stable, event.tail, clock.fed(item.wall), event.at)


def overlapped(start: float, end: float, timeline: Timeline, clips: Sequence[Clip]) -> int | None:
    """Place of the clip that the stretch from ``start`` to ``end`` (seconds) overlaps most."""
    best, place = 0.0, None
    for index, placed in enumerate(timeline.placed):
        begin = placed.start / SAMPLE_RATE
        shared = min(end, begin + clips[placed.clip].duration) - max(start, begin)
        if shared > best:
            best, place = shared, index
    return place


def _spoken(
    final: Final, place: int | None, timeline: Timeline, clips: Sequence[Clip]
) -> tuple[float, float | None]:
    """Onset and end of the first word, in seconds of the stream."""
    if place is None:
        return final.start, final.words[0].end if final.words else None
    placed = timeline.placed[place]
    clip, begin = clips[placed.clip], placed.start / SAMPLE_RATE
    if clip.first_word_end is not None:
        return begin + clip.onset, begin + clip.first_word_end
    return begin + clip.onset, final.words[0].end if final.words else None


def texts_by_place(heard: Iterable[Heard]) -> dict[int, str]:
    """For each place of the timeline that was heard, the finals' texts joined."""
    texts: dict[int, list[str]] = {}
    for item in heard:
        if item.clip is not None:
            texts.setdefault(item.clip, []).append(item.final.text)
    return {place: " ".join(filter(None, parts)) for place, parts in texts.items()}

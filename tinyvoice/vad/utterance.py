"""Where utterances begin and end: the state machine behind every stream.

Audio and its probabilities of speech go in, decisions come out. It does no I/O, computes no
probabilities, reads no clock and starts nothing: time is the number of samples it was given, so a
recording gives the same decisions at any speed and in any packets. What is made of a decision (a
partial, a final pass, an event) is the caller's affair.

The rules are those of Silero's own iterator: sound is speech from `threshold` up, and a pause
begins where the probability falls below the threshold by `HYSTERESIS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.vad.segmentation import MAX_SECONDS, MIN_SECONDS, split_at_quietest
from tinyvoice.vad.settings import LONGEST_PAUSE_S, EndpointingSettings

Samples = NDArray[np.float32]

HYSTERESIS = 0.15
"""How far below the threshold a pause begins, as in Silero's `VADIterator`."""

LOWEST_THRESHOLD = 0.01
"""Below this a pause begins whatever the threshold."""


LONGEST_BACK_S = 5.0
"""How far before the call an utterance may begin that somebody else begins."""


def in_samples(milliseconds: float) -> int:
    """Samples at the engine's rate."""
    return round(milliseconds * SAMPLE_RATE / 1000)


class AudioHistory:
    """The most recent audio of a stream, addressed by position in samples from its beginning."""

    def __init__(self) -> None:
        self._buffer: Samples = np.zeros(SAMPLE_RATE, dtype=np.float32)
        self._filled = 0
        self.begin = 0

    @property
    def end(self) -> int:
        """Position behind the newest sample."""
        return self.begin + self._filled

    def append(self, samples: Samples) -> None:
        """Add samples at the end."""
        needed = self._filled + len(samples)
        if needed > len(self._buffer):
            grown: Samples = np.zeros(max(needed, 2 * len(self._buffer)), dtype=np.float32)
            grown[: self._filled] = self._buffer[: self._filled]
            self._buffer = grown
        self._buffer[self._filled : needed] = samples
        self._filled = needed

    def forget(self, position: int) -> None:
        """Drop what lies before ``position``; memory is given back when much less is needed."""
        dropped = min(max(position - self.begin, 0), self._filled)
        # Moving what is left costs time, so that it is done a second at a time.
        if dropped < SAMPLE_RATE and dropped < self._filled:
            return
        rest = self._buffer[dropped : self._filled]
        # Elsewhere, never in place: a copy of the history shares the samples.
        kept: Samples = np.zeros(max(SAMPLE_RATE, 2 * len(rest)), dtype=np.float32)
        kept[: len(rest)] = rest
        filled = len(rest)
        self._buffer, self._filled = kept, filled
        self.begin += dropped

    def copy(self) -> AudioHistory:
        """The history as it is now; the samples are shared until one of the two appends."""
        copied = AudioHistory.__new__(AudioHistory)
        copied.__dict__.update(self.__dict__)
        return copied

    def between(self, start: int, end: int) -> Samples:
        """A copy of the samples from ``start`` to ``end``."""
        if start < self.begin or end > self.end:
            raise ValueError(f"[{start}, {end}) is not in [{self.begin}, {self.end})")
        return self._buffer[start - self.begin : end - self.begin].copy()


@dataclass(frozen=True)
class Extent:
    """An utterance's place in the stream; all positions in samples."""

    utterance: int
    speech_start: int
    speech_end: int
    audio_start: int
    audio_end: int


@dataclass(frozen=True)
class Started:
    """Speech has begun at ``position``."""

    utterance: int
    position: int


@dataclass(frozen=True)
class EndExpected:
    """The utterance may be over: time for the final pass over its audio."""

    extent: Extent


@dataclass(frozen=True)
class Resumed:
    """Speech goes on after `EndExpected`, whose final pass is void."""

    utterance: int


@dataclass(frozen=True)
class TurnInQuestion:
    """A pause: has the speaker finished? Answer with `UtteranceDetector.answer`."""

    utterance: int


@dataclass(frozen=True)
class Ended:
    """The utterance is over. Its audio is that of the last `EndExpected`, if one is standing."""

    extent: Extent
    continues: bool = False
    """Speech goes on, the utterance was too long: no `Started` comes before the next one."""


Decision = Started | EndExpected | Resumed | TurnInQuestion | Ended


class State(Enum):
    """Where a stream stands."""

    SILENCE = auto()
    SPEECH = auto()
    PAUSE = auto()


class UtteranceDetector:
    """Cuts one stream into utterances.

    ``settings`` may be replaced at any time and hold from the next samples on; utterances are at
    most ``max_utterance_s`` long, and one that is longer is cut where offline transcription cuts.
    """

    def __init__(self, settings: EndpointingSettings, max_utterance_s: float = MAX_SECONDS) -> None:
        self.settings = settings
        self.max_utterance_s = max_utterance_s
        self.state = State.SILENCE
        self.history = AudioHistory()
        self.utterance = 0
        """Number of the current utterance, or of the next one in silence."""
        self.audio_start = 0
        """Where the current utterance's audio begins."""
        self._free_from = 0  # audio before this belongs to an utterance that is over
        self._speech_start = 0
        self._onset: int | None = None
        self._onset_samples = 0
        self._pause_start = 0
        self._expected: Extent | None = None
        self._asked = False

    @property
    def position(self) -> int:
        """Samples heard so far."""
        return self.history.end

    @property
    def active(self) -> bool:
        """Whether an utterance is going on."""
        return self.state is not State.SILENCE

    def new_audio(self, since: int) -> Samples:
        """The current utterance's samples from position ``since`` on."""
        return self.history.between(max(since, self.audio_start), self.position)

    def audio(self, extent: Extent) -> Samples:
        """The samples to transcribe for an utterance that `EndExpected` or `Ended` told of.

        They are there until the next call of another method.
        """
        return self.history.between(extent.audio_start, extent.audio_end)

    def hear(self, samples: Samples, probability: float | None) -> list[Decision]:
        """Take a window of audio with its probability of speech.

        The probability is None where none was computed: with manual endpointing, and for the rest
        of a window before a `commit` or `begin`.
        """
        self._forget()
        begin = self.position
        self.history.append(samples)
        if self.settings.endpointing == "manual":
            decisions = self._hear_manually(begin)
        elif probability is None:
            decisions = []
        else:
            decisions = self._hear_speech(begin, probability)
        return decisions + self._split()

    def commit(self) -> list[Decision]:
        """End the utterance now; nothing if none is going on."""
        waits = self.settings.endpointing in ("vad", "semantic")
        if waits and self.state is State.SILENCE and self._onset is not None:
            decisions: list[Decision] = [self._start(self._onset)]
        else:
            decisions = []
        if self.state is State.SILENCE:
            return decisions
        decisions += self._split()
        speech_end = self._pause_start if self.state is State.PAUSE else self.position
        return [*decisions, self._end(speech_end)]

    def begin(self, back: int | None = None) -> list[Decision]:
        """Begin an utterance because somebody else knows of speech; nothing if one is going on.

        Its audio reaches ``back`` samples before now, or by the padding of the settings, as far as
        it is there and does not belong to the utterance before.
        """
        if self.state is not State.SILENCE:
            return []
        reach = in_samples(self.settings.prefix_padding_ms) if back is None else back
        self.state = State.SPEECH
        self.audio_start = max(self.position - reach, self._free_from, self.history.begin)
        self._speech_start = self.position
        self._onset, self._onset_samples = None, 0
        return [Started(self.utterance, self.position)]

    def clear(self) -> None:
        """Forget the utterance that is going on, and all audio before now."""
        if self.state is not State.SILENCE:
            self.utterance += 1
        self._to_silence(self.position)

    def answer(self, finished: bool) -> list[Decision]:
        """Answer a `TurnInQuestion`: ``finished`` ends the utterance."""
        if finished and self.state is State.PAUSE:
            return [self._end(self._pause_start)]
        return []

    def copy(self) -> UtteranceDetector:
        """The detector as it is now, to go on from when this one breaks off.

        The two share samples, so that only one of them may hear on.
        """
        copied = UtteranceDetector.__new__(UtteranceDetector)
        copied.__dict__.update(self.__dict__)
        copied.history = self.history.copy()
        return copied

    def _hear_manually(self, begin: int) -> list[Decision]:
        if self.state is State.SILENCE and self.position > begin:
            self.state, self.audio_start, self._speech_start = State.SPEECH, begin, begin
        return []

    def _hear_speech(self, begin: int, probability: float) -> list[Decision]:
        threshold = self.settings.threshold
        speech = probability >= threshold
        silence = probability < max(threshold - HYSTERESIS, LOWEST_THRESHOLD)
        if self.settings.endpointing == "external":
            # The end comes from outside and may come at any moment: what may be speech counts.
            speech = not silence
        if self.state is State.SILENCE:
            if self.settings.endpointing == "external":
                self._onset, self._onset_samples = None, 0  # of a time when it was not
                return []
            return self._await_onset(begin, speech, silence)
        if self.state is State.SPEECH and silence:
            self.state, self._pause_start = State.PAUSE, begin
            self._expected, self._asked = None, False
        elif self.state is State.PAUSE and speech:
            expected, self._expected = self._expected, None
            self.state = State.SPEECH
            return [Resumed(self.utterance)] if expected is not None else []
        return self._await_end() if self.state is State.PAUSE else []

    def _await_onset(self, begin: int, speech: bool, silence: bool) -> list[Decision]:
        if speech:
            self._onset = begin if self._onset is None else self._onset
            self._onset_samples += self.position - begin
            if self._onset_samples >= in_samples(self.settings.min_speech_ms):
                return [self._start(self._onset)]
        elif silence:
            self._onset, self._onset_samples = None, 0
        return []

    def _start(self, onset: int) -> Started:
        padded = onset - in_samples(self.settings.prefix_padding_ms)
        self.audio_start = max(padded, self._free_from, self.history.begin)
        self._speech_start = onset
        self.state = State.SPEECH
        self._onset, self._onset_samples = None, 0
        return Started(self.utterance, onset)

    def _await_end(self) -> list[Decision]:
        """In a pause: begin the final pass early, ask about the turn, end."""
        settings, decisions = self.settings, list[Decision]()
        pause = self.position - self._pause_start
        early = settings.early_final_ms
        if settings.endpointing != "external":
            early = min(early, settings.silence_ms)
        if self._expected is None and pause >= in_samples(early):
            self._expected = self._extent(self._pause_start)
            decisions.append(EndExpected(self._expected))
        if settings.endpointing == "external":
            return decisions
        if settings.endpointing == "semantic":
            longest = LONGEST_PAUSE_S[settings.eagerness] * 1000
            if not self._asked and pause >= in_samples(min(settings.silence_ms, longest)):
                self._asked = True
                decisions.append(TurnInQuestion(self.utterance))
        else:
            longest = settings.silence_ms
        if pause >= in_samples(longest):
            decisions = [d for d in decisions if not isinstance(d, TurnInQuestion)]
            decisions.append(self._end(self._pause_start))
        return decisions

    def _extent(self, speech_end: int, audio_end: int | None = None) -> Extent:
        return Extent(
            self.utterance,
            self._speech_start,
            speech_end,
            self.audio_start,
            self.position if audio_end is None else audio_end,
        )

    def _end(self, speech_end: int) -> Ended:
        extent = self._expected or self._extent(speech_end)
        self.utterance += 1
        # What follows the transcribed audio may be the next utterance's pre-roll.
        self._to_silence(extent.audio_end)
        return Ended(extent)

    def _split(self) -> list[Decision]:
        """Cut off the first piece of an utterance that has become too long.

        Offline transcription cuts a clip between its quietest points too, and never in its last
        second. With that much more heard than the longest piece, both choose the same point.
        """
        longest = round((self.max_utterance_s + MIN_SECONDS) * SAMPLE_RATE)
        if self.state is State.SILENCE or self.position - self.audio_start <= longest:
            return []
        audio = self.history.between(self.audio_start, self.position)
        cut = self.audio_start + split_at_quietest(audio, SAMPLE_RATE, self.max_utterance_s)[0][1]
        extent = self._extent(cut, cut)
        self.utterance += 1
        self.audio_start = self._speech_start = cut
        self._pause_start = max(self._pause_start, cut)
        resumed: list[Decision] = [] if self._expected is None else [Resumed(extent.utterance)]
        self._expected = None
        return [*resumed, Ended(extent, continues=True)]

    def _to_silence(self, free_from: int) -> None:
        self.state = State.SILENCE
        self._free_from = free_from
        self._onset, self._onset_samples = None, 0
        self._expected, self._asked = None, False

    def _forget(self) -> None:
        """Keep the utterance, or in silence what the next one may want in front of it."""
        if self.state is not State.SILENCE:
            self.history.forget(self.audio_start)
            return
        kept_from = self.position if self._onset is None else self._onset
        padding = in_samples(self.settings.prefix_padding_ms)
        if self.settings.endpointing == "external":
            padding = max(padding, round(LONGEST_BACK_S * SAMPLE_RATE))
        self.history.forget(min(max(self._free_from, kept_from - padding), self.position))

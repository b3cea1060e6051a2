"""What Pipecat's frames and a stream's events have to do with each other, whoever transcribes.

`PipecatASRService` has a stream of an engine in the process, `PipecatRemoteASRService` one of a
server; both are this service. Audio frames only pass through `run_stt`: they are queued for the
stream, so that the voice activity detection behind the service is never held up. What is understood
comes back through one reader task as interim and final frames.

Two ways to share the work of finding turns, as Pipecat's own services have them:

- ``turn_mode="pipecat"`` (the default): the pipeline's voice activity detection and turn strategies
  decide. Its stop ends the utterance here; the final pass has run by then, in the silence before
  (design: early final), so that the finalized text follows at once.
- ``turn_mode="model"``: the stream's endpointing decides and proposes the turns.

Written against pipecat-ai 1.14. Interims are cumulative for their utterance; finals are one
utterance each. Neither is ever empty.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Literal, Protocol

from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    StartFrame,
    STTMetadataFrame,
    STTMuteFrame,
    TranscriptionFrame,
    UserMuteStartedFrame,
    UserMuteStoppedFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import STTService
from pipecat.transcriptions.language import Language
from pipecat.turns.eager_end_of_turn_mixin import EagerEndOfTurnSTTServiceMixin
from pipecat.utils.errors import ErrorCategory
from pipecat.utils.time import time_now_iso8601
from pipecat.utils.tracing.service_decorators import traced_stt
from pipecat.utils.types import is_given

from tinyvoice.checks import in_range
from tinyvoice.engine import (
    EndOfTurnLikely,
    Failed,
    Final,
    Partial,
    SpeechStarted,
    StreamClosedError,
    UtteranceFailed,
)
from tinyvoice.errors import AudioError, CheckpointError, ConfigurationError, TinyvoiceError
from tinyvoice.integrations.transcript import Beginning, LiveTranscript

REOPEN_AFTER_S = 1.0
"""Audio, in seconds, that passes before a stream that was refused is asked for again."""

BACKSTOP_MS = 1000
"""Silence that ends what Pipecat's own detection has not noticed."""

AUDIO_IDLE_S = 0.5
"""Time without any audio that ends a turn of the stream's: what as much silence would do, and what
other services of Pipecat that find turns themselves wait."""

IDLE_CHECKS = 5
"""How often in that time audio is looked for."""

LANGUAGE = Language.EN
"""What the checkpoints understand."""

TurnMode = Literal["pipecat", "model"]


class AudioStream(Protocol):
    """What the service needs of a stream; `tinyvoice.engine.Stream` says what each means."""

    @property
    def closed(self) -> bool:
        """Whether nothing can be fed any more."""

    def change_format(
        self, sample_rate: int, *, encoding: str = "pcm16", channels: int = 1
    ) -> None:
        """Take audio of another format from now on."""

    async def feed(self, packet: bytes) -> None:
        """Add audio."""

    async def commit(self) -> int | None:
        """End the utterance now; its number, or None if nothing has been said."""

    async def clear(self) -> None:
        """Forget the utterance that is going on."""

    async def close(self) -> None:
        """Finish; the events that are left can still be read."""

    def drop(self) -> None:
        """Stop at once."""

    def __aiter__(self) -> AsyncIterator[Any]:
        """The events, until the stream is closed."""


class PipecatStreamService(EagerEndOfTurnSTTServiceMixin, STTService):
    """A Pipecat service around a stream; how one is come by is the subclass's.

    Raises:
        ConfigurationError: ``turn_mode`` is unknown, the language is not understood, or
            ``audio_idle_timeout`` is out of its range.
    """

    def __init__(
        self,
        *,
        turn_mode: TurnMode,
        should_interrupt: bool,
        settings: STTSettings,
        audio_idle_timeout: float = AUDIO_IDLE_S,
        **kwargs: Any,
    ) -> None:
        """``settings`` are complete; the others count in ``turn_mode="model"``.

        ``should_interrupt`` is whether a proposed turn interrupts the bot; a turn ends where no
        audio has come for ``audio_idle_timeout`` seconds (0 to 60, 0 switches that off).
        """
        in_range("audio_idle_timeout", audio_idle_timeout, 0.0, 60.0)
        settings.language = understood(settings.language)
        super().__init__(settings=settings, **kwargs)
        self._turn_mode = turn_mode
        self._should_interrupt = should_interrupt
        self._stream: AudioStream | None = None
        self._reader: asyncio.Task[None] | None = None
        self._format = (0, 1)  # sample rate and channels that the stream was told
        self._received_s = 0.0  # all audio that was to be transcribed
        self._refused_s = 0.0  # audio since the stream was refused
        self._before = Beginning()  # of the stream
        self._flushes = 0
        self._answer_due: int | None = None  # the utterance that the newest flush ended
        self._speaking: int | None = None  # the utterance that goes on
        self._turn_open = False
        self._audio_idle_timeout = audio_idle_timeout
        self._audio_watch: asyncio.Task[None] | None = None
        self._interim = ""

    # --- what a subclass does --------------------------------------------------------------------

    @abstractmethod
    async def _open(self) -> None:
        """Set `_stream` to an open one by `_begin`, or push an error that says why not."""

    @abstractmethod
    async def _apply(self, changed: dict[str, Any]) -> None:
        """Let the stream follow settings that have changed.

        Raises:
            ConfigurationError, CheckpointError: a value cannot be used; nothing is changed.
        """

    async def _take_other(self, event: Any) -> None:
        """An event that is none of an engine's streams."""

    # --- life ------------------------------------------------------------------------------------

    async def start(self, frame: StartFrame) -> None:
        """Open a stream; where there is none to be had, audio that comes asks again."""
        await super().start(frame)
        await self._open()

    async def stop(self, frame: EndFrame) -> None:
        """Finish what is being said, push it, and give the stream back."""
        await self._close(finish=True)
        await super().stop(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        """Give the stream back at once."""
        await self._close(finish=False)
        await super().cancel(frame)

    async def cleanup(self) -> None:
        """Give the stream back if neither an end nor a cancel frame came."""
        await self._close(finish=False)
        await super().cleanup()

    def can_generate_metrics(self) -> bool:
        """Time to first byte and usage are measured."""
        return True

    @property
    def supports_ttfs(self) -> bool:
        """Not where the turns are the stream's own: text and end of turn come together."""
        return self._turn_mode == "pipecat"

    def service_metadata_frame(self) -> STTMetadataFrame:
        """Ask for strategies that follow our proposals where the turns are ours."""
        frame = super().service_metadata_frame()
        if self._turn_mode == "model":
            frame.user_turn_strategies = self.recommended_user_turn_strategies(
                enable_interruptions=self._should_interrupt
            )
        return frame

    def language_to_service_language(self, language: Language) -> str | None:
        """``en`` for English and its variants; None for a language that is not understood."""
        try:
            return understood(language)
        except ConfigurationError:
            return None

    # --- audio and frames in ---------------------------------------------------------------------

    async def process_audio_frame(
        self, frame: InputAudioRawFrame, direction: FrameDirection
    ) -> None:
        """Follow the transport's format, then go the way of all audio."""
        shape = (frame.sample_rate, frame.num_channels)
        if self._stream is not None and not self._stream.closed and shape != self._format:
            self._format = shape
            try:
                self._stream.change_format(frame.sample_rate, channels=frame.num_channels)
            except AudioError as error:
                await self.push_error(
                    str(error), exception=error, category=ErrorCategory.APPLICATION
                )
        await super().process_audio_frame(frame, direction)

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Queue the audio for the stream; frames come from the reader task."""
        if self._stream is None or self._stream.closed:
            self._refused_s += len(audio) / (2 * max(self.sample_rate, 1))
            if self._refused_s >= REOPEN_AFTER_S:
                await self._close(finish=False)
                await self._open()
        if self._stream is not None:
            try:
                await self._stream.feed(audio)
            except AudioError as error:
                await self.push_error(
                    str(error), exception=error, category=ErrorCategory.APPLICATION
                )
            except StreamClosedError:
                self._stream = None  # the reader has told why
        rate, channels = self._format if self._format[0] else (self.sample_rate, 1)
        self._received_s += len(audio) / (2 * max(rate * channels, 1))
        yield None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Flush where speech stops; forget what was said into a muted microphone."""
        await super().process_frame(frame, direction)
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            if self._turn_mode == "pipecat" and self._stream is not None:
                self.create_task(self._flush(self._stream), name="flush")
            else:
                self._reconnect_if_due()
        elif isinstance(frame, UserMuteStartedFrame | UserMuteStoppedFrame) or (
            isinstance(frame, STTMuteFrame) and frame.mute
        ):
            await self._forget()

    async def _flush(self, stream: AudioStream) -> None:
        """Pipecat says that the speech is over: ask for its final text."""
        self.request_finalize()
        self._flushes += 1
        this, self._answer_due = self._flushes, None
        try:
            number = await stream.commit()
        except TinyvoiceError:
            number = None  # the reader tells why
        if this != self._flushes:
            return
        self._answer_due = number
        if number is None:
            # Nothing was said, so that no text will answer; nobody need wait for it.
            self._finalize_requested = False
            self._reconnect_if_due()

    async def _forget(self) -> None:
        if self._stream is not None and not self._stream.closed:
            self.create_task(self._clear(self._stream), name="clear")

    async def _clear(self, stream: AudioStream) -> None:
        try:
            await stream.clear()
        except TinyvoiceError:
            return
        await asyncio.sleep(0)  # the reader may not have had what was decided before
        await self._cancel_eager_end_of_turn()
        await self._break_off()
        self._reconnect_if_due()

    # --- settings --------------------------------------------------------------------------------

    async def _update_settings(  # type: ignore[override]
        self, delta: STTSettings
    ) -> dict[str, Any]:
        """Apply what has changed to the running stream; a bad value changes nothing."""
        changed: dict[str, Any] = {}
        try:
            if is_given(delta.language):
                delta.language = understood(delta.language)
            changed = await super()._update_settings(delta)
            await self._apply(changed)
        except (ConfigurationError, CheckpointError) as error:
            for name, before in changed.items():
                setattr(self._settings, name, before)
            self._sync_model_name_to_metrics()
            # Of a category that leaves the service usable: the old settings still work.
            await self.push_error(str(error), exception=error, category=ErrorCategory.APPLICATION)
            return {}
        return changed

    async def _request_reconnect(self) -> None:
        """Move to another stream, at once or when what is being said has been transcribed.

        Pipecat's own would wait for the end of a user turn, which nothing tells in a pipeline
        without turn strategies.
        """
        if self._user_speaking or self._speaking is not None:
            self._need_reconnect = True
        else:
            await self._reconnect()

    def _reconnect_if_due(self) -> None:
        """Do what `_request_reconnect` put off. In a task: the reader cannot wait for itself."""
        if self._need_reconnect and not self._user_speaking and self._speaking is None:
            self._need_reconnect = False
            self.create_task(self._reconnect(), name="reconnect")

    async def _do_reconnect(self) -> None:
        """Move to another stream; Pipecat keeps the audio that comes meanwhile."""
        await self._close(finish=True)
        await self._open()

    # --- the stream ------------------------------------------------------------------------------

    async def _begin(self, stream: AudioStream) -> None:
        """Work with a stream that has been opened for the pipeline's sample rate."""
        self._refused_s = 0.0
        self._before = Beginning(self._received_s, self._before.next_utterance)
        self._answer_due = self._speaking = None
        self._format = (self.sample_rate, 1)
        self._stream = stream
        self._reader = self.create_task(self._read(stream), name="transcripts")

    async def _close(self, *, finish: bool) -> None:
        stream, self._stream = self._stream, None
        reader, self._reader = self._reader, None
        if stream is None:
            return
        if finish and not stream.closed:
            try:
                await stream.close()
            except TinyvoiceError:
                stream.drop()
            if reader is not None:
                await reader  # it ends when the last event has been pushed
        else:
            stream.drop()
            if reader is not None:
                await self.cancel_task(reader)
        await self._break_off()
        await self._call_event_handler("on_disconnected")

    # --- events out ------------------------------------------------------------------------------

    async def _read(self, stream: AudioStream) -> None:
        async for event in stream:
            if isinstance(event, SpeechStarted):
                self._interim = ""
                self._speaking = event.utterance
                await self._cancel_eager_end_of_turn()
                await self._start_turn()
            elif isinstance(event, Partial):
                await self._push_interim(event)
            elif isinstance(event, EndOfTurnLikely):
                await self._push_likely()
            elif isinstance(event, Final):
                await self._push_final(event)
            elif isinstance(event, UtteranceFailed):
                await self._tell_failure(event.error)
                await self._finish(event, answered=False)
            elif isinstance(event, Failed):
                self._finalize_requested = False
                await self._tell_failure(event.error)
                await self._break_off()
                self._refused_s = REOPEN_AFTER_S  # the next audio opens another stream
            else:
                await self._take_other(event)

    async def _push_interim(self, event: Partial) -> None:
        text = event.text.strip()
        if not text or text == self._interim:
            return
        self._interim = text
        await self._cancel_eager_end_of_turn()
        await self.push_frame(
            InterimTranscriptionFrame(
                text,
                self._user_id,
                time_now_iso8601(),
                LANGUAGE,
                result=LiveTranscript.of_partial(event, self._before),
            )
        )

    async def _push_likely(self) -> None:
        """The newest hypothesis is what an answer may be begun with; the final confirms it."""
        if self._interim:
            await self._push_eager_end_of_turn(
                self._interim, user_id=self._user_id, language=LANGUAGE
            )

    async def _push_final(self, event: Final) -> None:
        self._interim = ""
        # A commit is answered before the final of what it ended can be read; the task that waits
        # for the answer has it only once it has run.
        await asyncio.sleep(0)
        text = event.text.strip()
        told = bool(text) and self._is_sure(event)
        if told:
            await self.emit_stt_usage_metrics()
            frame = TranscriptionFrame(
                text,
                self._user_id,
                time_now_iso8601(),
                LANGUAGE,
                result=LiveTranscript.of_final(event, self._before),
            )
            if event.utterance == self._answer_due:
                self.confirm_finalize()
            frame.finalized = self._turn_mode == "model" and not event.continues
            await self.push_frame(frame)
            await self._handle_transcription(text, True, LANGUAGE)
        await self._finish(event, answered=told)

    async def _finish(self, event: Final | UtteranceFailed, *, answered: bool) -> None:
        """The utterance is over: so is its turn, and the wait for an answer that it had."""
        if event.utterance == self._answer_due and not answered:
            self._finalize_requested = False
        self._before.saw(event.utterance)
        if event.continues:
            return
        self._clear_eager_end_of_turn()
        await self._stop_turn()
        if self._speaking is not None and self._speaking > event.utterance:
            await self._start_turn()  # somebody began to speak while this was transcribed
        else:
            self._speaking = None
        self._reconnect_if_due()

    def _is_sure(self, event: Final) -> bool:
        least = getattr(self._settings, "min_confidence", None)
        return event.confidence >= float(least or 0.0)

    @traced_stt
    async def _handle_transcription(
        self, transcript: str, is_final: bool, language: Language | None = None
    ) -> None:
        """Where Pipecat's tracing attaches its span."""

    async def _start_turn(self) -> None:
        if self._turn_mode == "model" and not self._turn_open:
            self._turn_open = True
            if self._audio_idle_timeout and self._stream is not None:
                watch = self._watch_audio(self._stream)
                self._audio_watch = self.create_task(watch, name="audio-watch")
            await self.broadcast_frame(ProposedUserStartedSpeakingFrame)

    async def _stop_turn(self) -> None:
        """Close the turn; every start has exactly one stop, also where the text never came."""
        if self._turn_open:
            self._turn_open = False
            watch, self._audio_watch = self._audio_watch, None
            if watch is not None:
                await self.cancel_task(watch)
            await self.broadcast_frame(ProposedUserStoppedSpeakingFrame)

    async def _watch_audio(self, stream: AudioStream) -> None:
        """End the utterance where audio stops: without it no endpointing hears any silence."""
        received, idle, unknown = self._received_s, 0, False
        while True:
            await asyncio.sleep(self._audio_idle_timeout / IDLE_CHECKS)
            # Counted, not timed: an event loop that stood still has not taken audio, either.
            waits = self._received_s == received and not (self._muted or self._reconnecting)
            received, idle = self._received_s, idle + 1 if waits else 0
            if idle < IDLE_CHECKS:
                continue
            if unknown:  # nothing will end a turn whose utterance the stream does not know of
                self._audio_watch = None
                await self._break_off()
                return
            try:
                if await stream.commit() is not None:
                    return  # its final ends the turn
            except TinyvoiceError:
                return  # the reader tells why
            idle, unknown = 0, True

    async def _break_off(self) -> None:
        """Nothing more comes of what is being said."""
        self._interim, self._speaking = "", None
        await self._stop_turn()

    async def _tell_failure(self, error: TinyvoiceError) -> None:
        await self.push_error(str(error), exception=error, category=ErrorCategory.SERVER)


def understood(language: Any) -> str | None:
    """The language as the service keeps it: ``en`` for English and its variants.

    None stays None: the language is to be found out, and is English.

    Raises:
        ConfigurationError: the checkpoints do not understand this one.
    """
    if language is None:
        return None
    base = str(language).replace("_", "-").split("-")[0]
    if base.lower() != LANGUAGE:
        raise ConfigurationError(
            f"language is {str(language)!r}, and the checkpoints understand English: give en, one "
            "of its variants, or None.",
            key="language",
        )
    return str(LANGUAGE)


def check_turn_mode(turn_mode: str) -> None:
    """Raise ConfigurationError unless it is one."""
    if turn_mode not in ("pipecat", "model"):
        raise ConfigurationError(
            f"turn_mode is {turn_mode!r}; choose from pipecat, model.", key="turn_mode"
        )

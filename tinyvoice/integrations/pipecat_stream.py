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
from tinyvoice.integrations.transcript import LiveTranscript

REOPEN_AFTER_S = 1.0
"""Audio, in seconds, that passes before a stream that was refused is asked for again."""

BACKSTOP_MS = 1000
"""Silence that ends what Pipecat's own detection has not noticed."""

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
        ConfigurationError: ``turn_mode`` is unknown, or the language not understood.
    """

    def __init__(
        self,
        *,
        turn_mode: TurnMode,
        should_interrupt: bool,
        settings: STTSettings,
        **kwargs: Any,
    ) -> None:
        """``settings`` are complete; ``should_interrupt`` counts in ``turn_mode="model"``."""
        settings.language = understood(settings.language)
        super().__init__(settings=settings, **kwargs)
        self._turn_mode = turn_mode
        self._should_interrupt = should_interrupt
        self._stream: AudioStream | None = None
        self._reader: asyncio.Task[None] | None = None
        self._format = (0, 1)  # sample rate and channels that the stream was told
        self._refused_s = 0.0  # audio since the stream was refused
        self._flushes = 0
        self._turn_open = False
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
        yield None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Flush where speech stops; forget what was said into a muted microphone."""
        await super().process_frame(frame, direction)
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            if self._turn_mode == "pipecat" and self._stream is not None:
                self.create_task(self._flush(self._stream), name="flush")
        elif isinstance(frame, UserMuteStartedFrame | UserMuteStoppedFrame) or (
            isinstance(frame, STTMuteFrame) and frame.mute
        ):
            await self._forget()

    async def _flush(self, stream: AudioStream) -> None:
        """Pipecat says that the speech is over: ask for its final text."""
        self.request_finalize()
        self._flushes += 1
        this = self._flushes
        try:
            number = await stream.commit()
        except TinyvoiceError:
            number = None  # the reader tells why
        if number is None and this == self._flushes:
            # Nothing was said, so that no text will answer; nobody need wait for it.
            self._finalize_requested = False

    async def _forget(self) -> None:
        if self._stream is not None and not self._stream.closed:
            self.create_task(self._clear(self._stream), name="clear")

    async def _clear(self, stream: AudioStream) -> None:
        try:
            await stream.clear()
        except TinyvoiceError:
            return
        self._interim = ""
        await self._cancel_eager_end_of_turn()
        await self._stop_turn()

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

    async def _do_reconnect(self) -> None:
        """Move to another stream; Pipecat keeps the audio that comes meanwhile."""
        await self._close(finish=True)
        await self._open()

    # --- the stream ------------------------------------------------------------------------------

    async def _begin(self, stream: AudioStream) -> None:
        """Work with a stream that has been opened for the pipeline's sample rate."""
        self._refused_s = 0.0
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
        await self._stop_turn()
        await self._call_event_handler("on_disconnected")

    # --- events out ------------------------------------------------------------------------------

    async def _read(self, stream: AudioStream) -> None:
        async for event in stream:
            if isinstance(event, SpeechStarted):
                self._interim = ""
                await self._cancel_eager_end_of_turn()
                await self._start_turn()
            elif isinstance(event, Partial):
                await self._push_interim(event)
            elif isinstance(event, EndOfTurnLikely):
                await self._push_likely()
            elif isinstance(event, Final):
                await self._push_final(event)
            elif isinstance(event, UtteranceFailed):
                await self._fail(event.error)
                await self._stop_turn()
            elif isinstance(event, Failed):
                await self._fail(event.error)
                await self._stop_turn()
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
                result=LiveTranscript.of_partial(event),
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
        text = event.text.strip()
        if text and self._is_sure(event):
            await self.emit_stt_usage_metrics()
            frame = TranscriptionFrame(
                text,
                self._user_id,
                time_now_iso8601(),
                LANGUAGE,
                result=LiveTranscript.of_final(event),
            )
            if not event.continues:
                self.confirm_finalize()
                frame.finalized = self._turn_mode == "model"
            await self.push_frame(frame)
            await self._handle_transcription(text, True, LANGUAGE)
        elif not event.continues:
            self._finalize_requested = False
        if not event.continues:
            self._clear_eager_end_of_turn()
            await self._stop_turn()

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
            await self.broadcast_frame(ProposedUserStartedSpeakingFrame)

    async def _stop_turn(self) -> None:
        """Close the turn; every start has exactly one stop, also where the text never came."""
        if self._turn_open:
            self._turn_open = False
            await self.broadcast_frame(ProposedUserStoppedSpeakingFrame)

    async def _fail(self, error: TinyvoiceError) -> None:
        self._finalize_requested = False
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

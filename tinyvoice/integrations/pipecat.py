"""Streaming speech recognition inside a Pipecat pipeline, in the pipeline's own process.

Audio frames only pass through `run_stt`: they are queued for the engine, whose worker does the
computing, so that the voice activity detection behind the service is never held up. What the engine
finds comes back through one reader task as interim and final frames.

Two ways to share the work of finding turns, as Pipecat's own services have them:

- ``turn_mode="pipecat"`` (the default): the pipeline's voice activity detection and turn strategies
  decide. Its stop ends the utterance here; the final pass has run by then, in the silence before
  (design: early final), so that the finalized text follows at once.
- ``turn_mode="model"``: the engine's endpointing decides and proposes the turns.

Written against pipecat-ai 1.14. Interims are cumulative for their utterance; finals are one
utterance each. Neither is ever empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import STTService
from pipecat.transcriptions.language import Language, resolve_language
from pipecat.turns.eager_end_of_turn_mixin import EagerEndOfTurnSTTServiceMixin
from pipecat.utils.errors import ErrorCategory
from pipecat.utils.time import time_now_iso8601
from pipecat.utils.tracing.service_decorators import traced_stt
from pipecat.utils.types import NOT_GIVEN, NotGiven

from tinyvoice.engine import (
    EndOfTurnLikely,
    EngineFullError,
    EngineOverloadedError,
    EngineSettings,
    Failed,
    Final,
    Partial,
    SpeechStarted,
    Stream,
    StreamClosedError,
    StreamingEngine,
    StreamSettings,
    UtteranceFailed,
)
from tinyvoice.errors import AudioError, CheckpointError, ConfigurationError, TinyvoiceError
from tinyvoice.integrations.shared_engine import shared_engine
from tinyvoice.integrations.transcript import LiveTranscript

TTFS_P99_S = 0.28
"""What turn strategies are told of the time from the end of speech to the final text, in seconds,
Pipecat's 0.2 s of voice activity stop included: a bound for 99 % with room to spare, since it is
only waited for where no finalized text comes. ``tinyvoice bench --pipecat`` measures it."""

REOPEN_AFTER_S = 1.0
"""Audio, in seconds, that passes before a stream that was refused is asked for again."""

LANGUAGES = {Language.EN: "en"}
"""What the checkpoints understand."""

_STREAM_SETTINGS = (
    "threshold",
    "prefix_padding_ms",
    "silence_ms",
    "min_speech_ms",
    "early_final_ms",
    "eagerness",
    "partials",
    "partial_interval_ms",
)
"""Fields of the service's settings that are settings of the engine's stream by the same name."""

_STREAM_DEFAULTS = StreamSettings(partial_interval_ms=160)
"""Interims come twice as often as the engine's partials do by themselves: they start a turn."""

BACKSTOP_MS = 1000
"""Silence that ends what Pipecat's own detection has not noticed."""


@dataclass
class PipecatASRSettings(STTSettings):
    """What can be changed while the pipeline runs, by ``STTUpdateSettingsFrame(delta=...)``.

    Everything is applied in place; only another ``model`` is loaded first. The names that are those
    of `StreamSettings` have its meanings, units and ranges.
    """

    threshold: float | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    prefix_padding_ms: int | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    silence_ms: int | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    """In ``turn_mode="pipecat"`` only what ends speech that Pipecat's detection has not noticed."""
    min_speech_ms: int | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    early_final_ms: int | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    eagerness: str | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    partials: bool | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    """Whether interim frames are pushed."""
    partial_interval_ms: int | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    min_confidence: float | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    """Finals less sure than this, 0 to 1, are dropped."""


class PipecatASRService(EagerEndOfTurnSTTServiceMixin, STTService):
    """Speech recognition with interims and instant finals, for any number of pipelines.

    Every service of a process that asks for the same ``model`` shares one engine; it is loaded by
    `load` before the pipeline, or else by the first pipeline's set-up.

    Raises:
        ConfigurationError: a setting is out of range, or ``turn_mode`` unknown.
    """

    Settings = PipecatASRSettings
    _settings: PipecatASRSettings

    def __init__(
        self,
        *,
        model: str | Path = "embedded",
        engine: StreamingEngine | None = None,
        engine_settings: EngineSettings | None = None,
        device: str | None = None,
        dtype: str | None = None,
        turn_mode: Literal["pipecat", "model"] = "pipecat",
        endpointing: Literal["vad", "semantic"] = "vad",
        should_interrupt: bool = True,
        ttfs_p99_latency: float | None = TTFS_P99_S,
        settings: PipecatASRSettings | None = None,
        **kwargs: Any,
    ) -> None:
        """``engine`` is an open engine of your own; otherwise one is shared by ``model``.

        ``endpointing`` and ``should_interrupt`` (whether a proposed turn interrupts the bot) count
        in ``turn_mode="model"``. ``kwargs`` are those of Pipecat's services.
        """
        if turn_mode not in ("pipecat", "model"):
            raise ConfigurationError(
                f"turn_mode is {turn_mode!r}; choose from pipecat, model.", key="turn_mode"
            )
        store = self.Settings(
            model=str(model),
            language=Language.EN,
            min_confidence=0.0,
            **{name: getattr(_STREAM_DEFAULTS, name) for name in _STREAM_SETTINGS},
        )
        if turn_mode == "pipecat":
            store.silence_ms = BACKSTOP_MS
        if settings is not None:
            store.apply_update(settings)
        super().__init__(settings=store, ttfs_p99_latency=ttfs_p99_latency, **kwargs)
        self._engine = engine
        self._own_engine = engine
        self._engine_settings = engine_settings
        self._loading = {
            name: value for name, value in (("device", device), ("dtype", dtype)) if value
        }
        self._turn_mode = turn_mode
        self._endpointing = endpointing
        self._should_interrupt = should_interrupt
        self._stream: Stream | None = None
        self._reader: asyncio.Task[None] | None = None
        self._format = (0, 1)  # sample rate and channels that the stream was told
        self._refused_s = 0.0  # audio since the stream was refused
        self._turn_open = False
        self._interim = ""
        self._stream_changes()  # a bad setting is told now, not when the first call comes in

    # --- life ------------------------------------------------------------------------------------

    @classmethod
    async def load(
        cls,
        model: str | Path = "embedded",
        engine_settings: EngineSettings | None = None,
        **loading: Any,
    ) -> StreamingEngine:
        """Load and warm the engine that services with the same arguments share.

        Raises:
            CheckpointError, ConfigurationError: the model cannot be loaded.
        """
        return await shared_engine(model, engine_settings, **loading)

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]
        """Load the model, unless that has been done; a failure ends the pipeline's start."""
        await super().setup(setup)
        await self._need_engine()

    async def start(self, frame: StartFrame) -> None:
        """Take a place in the engine; where there is none, audio that comes asks again."""
        await super().start(frame)
        await self._open()

    async def stop(self, frame: EndFrame) -> None:
        """Finish what is being said, push it, and give the place back."""
        await self._close(finish=True)
        await super().stop(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        """Give the place back at once."""
        await self._close(finish=False)
        await super().cancel(frame)

    async def cleanup(self) -> None:
        """Give the place back if neither an end nor a cancel frame came."""
        await self._close(finish=False)
        await super().cleanup()

    def can_generate_metrics(self) -> bool:
        """Time to first byte and usage are measured."""
        return True

    @property
    def supports_ttfs(self) -> bool:
        """Not where the turns are the engine's own: text and end of turn come together."""
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
        """The code of the language by its base, ``en`` for ``en-GB``; a warning for any other."""
        return resolve_language(language, LANGUAGES, use_base_code=True)

    # --- audio and frames in ---------------------------------------------------------------------

    async def process_audio_frame(
        self, frame: InputAudioRawFrame, direction: FrameDirection
    ) -> None:
        """Follow the transport's format, then go the way of all audio."""
        if self._stream is not None and (frame.sample_rate, frame.num_channels) != self._format:
            self._format = (frame.sample_rate, frame.num_channels)
            self._stream.change_format(frame.sample_rate, channels=frame.num_channels)
        await super().process_audio_frame(frame, direction)

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Queue the audio for the engine; frames come from the reader task."""
        if self._stream is None or self._stream.closed:
            self._refused_s += len(audio) / (2 * max(self.sample_rate, 1))
            if self._refused_s >= REOPEN_AFTER_S:
                await self._open()
        if self._stream is not None:
            try:
                await self._stream.feed(audio)
            except AudioError as error:
                await self.push_error(str(error), exception=error)
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

    async def _flush(self, stream: Stream) -> None:
        """Pipecat says that the speech is over: ask for its final text."""
        self.request_finalize()
        try:
            number = await stream.commit()
        except TinyvoiceError:
            number = None  # the reader tells why
        if number is None:
            # Nothing was said, so that no text will answer; nobody need wait for it.
            self._finalize_requested = False

    async def _forget(self) -> None:
        if self._stream is not None and not self._stream.closed:
            self.create_task(self._clear(self._stream), name="clear")

    async def _clear(self, stream: Stream) -> None:
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
        before = {name: getattr(self._settings, name) for name in self._settings_names()}
        changed = await super()._update_settings(delta)
        try:
            if "model" in changed and self._own_engine is None:
                self._engine = await self._need_engine()
                await self._request_reconnect()
            elif self._stream is not None and changed.keys() & set(_STREAM_SETTINGS):
                await self._stream.update(**self._stream_changes())
        except (ConfigurationError, CheckpointError) as error:
            for name in changed:
                setattr(self._settings, name, before[name])
            # Of a category that leaves the service usable: the old settings still work.
            await self.push_error(str(error), exception=error, category=ErrorCategory.APPLICATION)
            return {}
        return changed

    async def _do_reconnect(self) -> None:
        """Move to the engine of another model; Pipecat keeps the audio that comes meanwhile."""
        await self._close(finish=True)
        await self._open()

    def _settings_names(self) -> list[str]:
        return ["model", "language", "min_confidence", *_STREAM_SETTINGS]

    def _stream_changes(self) -> dict[str, Any]:
        """The stream's settings that follow from the service's."""
        changes = {name: getattr(self._settings, name) for name in _STREAM_SETTINGS}
        changes["endpointing"] = self._endpointing if self._turn_mode == "model" else "vad"
        changes["end_likely"] = self._turn_mode == "model" and self.eager_end_of_turn_enabled
        StreamSettings(**changes)
        return changes

    # --- the engine ------------------------------------------------------------------------------

    async def _need_engine(self) -> StreamingEngine:
        if self._own_engine is not None:
            return self._own_engine
        model = self._settings.model
        self._engine = await shared_engine(str(model), self._engine_settings, **self._loading)
        return self._engine

    async def _open(self) -> None:
        """Take a place in the engine; tell the pipeline if there is none."""
        self._refused_s = 0.0
        try:
            engine = await self._need_engine()
            self._format = (self.sample_rate, 1)
            stream = engine.stream(self.sample_rate, **self._stream_changes())
            await stream.open()
        except (EngineFullError, EngineOverloadedError) as error:
            await self.push_error(str(error), exception=error, category=ErrorCategory.RATE_LIMIT)
            return
        except (ConfigurationError, CheckpointError) as error:
            await self.push_error(
                str(error), exception=error, category=ErrorCategory.INVALID_REQUEST
            )
            return
        except TinyvoiceError as error:
            await self.push_error(str(error), exception=error, category=ErrorCategory.SERVER)
            return
        self._stream = stream
        self._reader = self.create_task(self._read(stream), name="transcripts")
        await self._call_event_handler("on_connected")

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
        await self._call_event_handler("on_disconnected")

    # --- events out ------------------------------------------------------------------------------

    async def _read(self, stream: Stream) -> None:
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
                self._language(),
                result=LiveTranscript.of_partial(event),
            )
        )

    async def _push_likely(self) -> None:
        """The newest hypothesis is what an answer may be begun with; the final confirms it."""
        if self._interim:
            await self._push_eager_end_of_turn(
                self._interim, user_id=self._user_id, language=self._language()
            )

    async def _push_final(self, event: Final) -> None:
        self._interim = ""
        text = event.text.strip()
        sure = event.confidence >= float(self._settings.min_confidence or 0.0)
        if text and sure:
            await self.emit_stt_usage_metrics()
            frame = TranscriptionFrame(
                text,
                self._user_id,
                time_now_iso8601(),
                self._language(),
                result=LiveTranscript.of_final(event),
            )
            if not event.continues:
                self.confirm_finalize()
                frame.finalized = self._turn_mode == "model"
            await self.push_frame(frame)
            await self._handle_transcription(text, True, self._language())
        elif not event.continues:
            self._finalize_requested = False
        if not event.continues:
            self._clear_eager_end_of_turn()
            await self._stop_turn()

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

    def _language(self) -> Language | None:
        language = self._settings.language
        return Language(language) if isinstance(language, str) else None

    # --- without a pipeline ----------------------------------------------------------------------

    async def stream(
        self,
        audio: AsyncIterable[bytes],
        sample_rate: int = 16_000,
        *,
        partials: bool = False,
    ) -> AsyncIterator[LiveTranscript]:
        """Transcribe chunks of pcm16 mono audio, without any pipeline.

        Yields a transcript for each utterance, and with ``partials`` those of unfinished ones, too.

        Raises:
            TinyvoiceError: the model cannot be loaded, or has no place, or failed.
        """
        engine = await self._need_engine()
        changes = self._stream_changes() | {"endpointing": self._endpointing}
        async with engine.stream(sample_rate, **changes) as stream:

            async def feed() -> None:
                async for chunk in audio:
                    await stream.feed(chunk)
                await stream.close()

            feeding = asyncio.create_task(feed(), name="tinyvoice-feed")
            try:
                async for event in stream:
                    if isinstance(event, Partial) and partials and event.text.strip():
                        yield LiveTranscript.of_partial(event)
                    elif isinstance(event, Final) and event.text:
                        yield LiveTranscript.of_final(event)
                    elif isinstance(event, UtteranceFailed | Failed):
                        raise event.error
                await feeding
            finally:
                feeding.cancel()

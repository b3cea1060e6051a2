"""Streaming speech recognition inside a Pipecat pipeline, in the pipeline's own process.

The service is a stream of the engine; what it does with Pipecat's frames is in `pipecat_stream`.
All pipelines of the process that ask for the same model share one engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.services.settings import STTSettings
from pipecat.transcriptions.language import Language
from pipecat.utils.errors import ErrorCategory
from pipecat.utils.types import NOT_GIVEN, NotGiven

from tinyvoice.engine import (
    EngineFullError,
    EngineOverloadedError,
    EngineSettings,
    Failed,
    Final,
    Partial,
    Stream,
    StreamingEngine,
    StreamSettings,
    UtteranceFailed,
)
from tinyvoice.errors import CheckpointError, ConfigurationError, TinyvoiceError
from tinyvoice.integrations.pipecat_stream import (
    AUDIO_IDLE_S,
    BACKSTOP_MS,
    PipecatStreamService,
    TurnMode,
    check_turn_mode,
)
from tinyvoice.integrations.shared_engine import shared_engine
from tinyvoice.integrations.transcript import LiveTranscript

TTFS_P99_S = 0.28
"""What turn strategies are told of the time from the end of speech to the final text, in seconds,
Pipecat's 0.2 s of voice activity stop included. It is a bound that the project holds itself to for
99 % of the utterances, not a measurement; ``tinyvoice bench --pipecat`` shows what a machine does.
It is waited for only where no finalized text comes."""

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

_STREAM_DEFAULTS = StreamSettings(partial_interval_ms=160, early_final_ms=64)
"""Interims come twice as often as the engine's partials do by themselves: they start a turn.
The final pass begins sooner, too: Pipecat's detection says that speech is over some 160 ms after
the engine's hears its end, which is less than the pass takes for a long utterance."""


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


class PipecatASRService(PipecatStreamService):
    """Speech recognition with interims and instant finals, for any number of pipelines.

    Every service of a process that asks for the same ``model`` shares one engine; it is loaded by
    `load` before the pipeline, or else by the first pipeline's set-up.

    Raises:
        ConfigurationError: a setting is out of range, ``turn_mode`` unknown, or what belongs to
            ``turn_mode="model"`` was asked of the other.
    """

    Settings = PipecatASRSettings
    _settings: PipecatASRSettings
    _stream: Stream | None

    def __init__(
        self,
        *,
        model: str | Path = "embedded",
        engine: StreamingEngine | None = None,
        engine_settings: EngineSettings | None = None,
        device: str | None = None,
        dtype: str | None = None,
        turn_mode: TurnMode = "pipecat",
        endpointing: Literal["vad", "semantic"] = "vad",
        should_interrupt: bool = True,
        audio_idle_timeout: float = AUDIO_IDLE_S,
        ttfs_p99_latency: float | None = TTFS_P99_S,
        settings: PipecatASRSettings | None = None,
        **kwargs: Any,
    ) -> None:
        """``engine`` is an open engine of your own; otherwise one is shared by ``model``.

        ``endpointing``, ``should_interrupt`` (whether a proposed turn interrupts the bot) and
        ``audio_idle_timeout`` (seconds without audio that end a turn; 0: none do) count in
        ``turn_mode="model"``, as does ``enable_eager_end_of_turn`` of ``kwargs``, which are those
        of Pipecat's services.
        """
        check_turn_mode(turn_mode)
        if turn_mode == "pipecat" and kwargs.get("enable_eager_end_of_turn"):
            raise ConfigurationError(
                "An end of turn can only be foreseen where the service finds turns: give "
                'turn_mode="model", or leave out enable_eager_end_of_turn.',
                key="enable_eager_end_of_turn",
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
        super().__init__(
            turn_mode=turn_mode,
            should_interrupt=should_interrupt,
            audio_idle_timeout=audio_idle_timeout,
            settings=store,
            ttfs_p99_latency=ttfs_p99_latency,
            **kwargs,
        )
        self._own_engine = engine
        self._engine_settings = engine_settings
        self._loading = {
            name: value for name, value in (("device", device), ("dtype", dtype)) if value
        }
        self._endpointing = endpointing
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

    # --- settings --------------------------------------------------------------------------------

    async def _apply(self, changed: dict[str, Any]) -> None:
        changes = self._stream_changes()
        if "model" in changed:
            if self._own_engine is not None:
                raise ConfigurationError(
                    "The model cannot be changed in an engine of your own: leave model out, or "
                    "make the service without engine=.",
                    key="model",
                )
            await self._need_engine()
        stream = self._stream
        if changed.keys() & set(_STREAM_SETTINGS) and stream is not None and not stream.closed:
            await stream.update(**changes)
        if "model" in changed:
            await self._request_reconnect()

    def _stream_changes(self) -> dict[str, Any]:
        """The stream's settings that follow from the service's."""
        changes = {name: getattr(self._settings, name) for name in _STREAM_SETTINGS}
        changes["endpointing"] = self._endpointing if self._turn_mode == "model" else "vad"
        changes["end_likely"] = self._turn_mode == "model" and self.eager_end_of_turn_enabled
        StreamSettings(**changes)
        if changes["end_likely"] and not changes["partials"]:
            raise ConfigurationError(
                "An answer is begun with an interim text: leave partials on, or leave out "
                "enable_eager_end_of_turn.",
                key="partials",
            )
        return changes

    # --- the engine ------------------------------------------------------------------------------

    async def _need_engine(self) -> StreamingEngine:
        if self._own_engine is not None:
            return self._own_engine
        model = str(self._settings.model)
        return await shared_engine(model, self._engine_settings, **self._loading)

    async def _open(self) -> None:
        """Take a place in the engine; tell the pipeline if there is none."""
        self._refused_s = 0.0
        try:
            engine = await self._need_engine()
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
        await self._begin(stream)
        await self._call_event_handler("on_connected")

    # --- without a pipeline ----------------------------------------------------------------------

    async def stream(
        self,
        audio: AsyncIterable[bytes],
        sample_rate: int = 16_000,
        *,
        partials: bool = False,
    ) -> AsyncGenerator[LiveTranscript, None]:
        """Transcribe chunks of pcm16 mono audio, without any pipeline.

        Yields a transcript for each utterance, and with ``partials`` those of unfinished ones, too;
        finals less sure than ``min_confidence`` are left out. Where ``audio`` raises, what was said
        before is transcribed first.

        Raises:
            TinyvoiceError: the model cannot be loaded, or has no place, or failed.
            Exception: whatever ``audio`` raises.
        """
        engine = await self._need_engine()
        changes = self._stream_changes() | {"endpointing": self._endpointing}
        async with engine.stream(sample_rate, **changes) as stream:

            async def feed() -> None:
                try:
                    async for chunk in audio:
                        await stream.feed(chunk)
                finally:
                    await stream.close()  # or nobody would tell the listener that this is all

            feeding = asyncio.create_task(feed(), name="tinyvoice-feed")
            try:
                async for event in stream:
                    if isinstance(event, Partial) and partials and event.text.strip():
                        yield LiveTranscript.of_partial(event)
                    elif isinstance(event, Final) and event.text and self._is_sure(event):
                        yield LiveTranscript.of_final(event)
                    elif isinstance(event, UtteranceFailed | Failed):
                        raise event.error
                await feeding
            finally:
                stream.drop()  # whoever leaves early waits for nothing
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)

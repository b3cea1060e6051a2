"""Speech recognition in a Pipecat pipeline by a `tinyvoice serve` elsewhere.

Pipelines on many machines can so share one GPU. The service is a stream of the server's Realtime
protocol (`remote_stream`); what it does with Pipecat's frames is in `pipecat_stream`, and is what
`PipecatASRService` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pipecat.services.settings import STTSettings
from pipecat.transcriptions.language import Language
from pipecat.utils.errors import ErrorCategory
from pipecat.utils.types import NOT_GIVEN, NotGiven

from tinyvoice.engine import Partial, StreamSettings
from tinyvoice.errors import ConfigurationError
from tinyvoice.integrations.pipecat_stream import (
    AUDIO_IDLE_S,
    BACKSTOP_MS,
    PipecatStreamService,
    TurnMode,
    check_turn_mode,
)
from tinyvoice.integrations.remote_session import INCLUDE, RATE, ServerSays
from tinyvoice.integrations.remote_stream import (
    AudioLost,
    Connected,
    Disconnected,
    RemoteStream,
    Trouble,
)
from tinyvoice.realtime.address import realtime_url

REMOTE_TTFS_P99_S = 0.35
"""What turn strategies are told to wait for a final text at most, Pipecat's 0.2 s of voice activity
stop included. It is not measured: what the service in the process is told, and 70 ms for the way to
a server of the same network and back. Give ``ttfs_p99_latency`` where yours is further away."""

KEEP_S = 30.0
DRAIN_S = 2.0

CATEGORIES: dict[Trouble, ErrorCategory] = {
    "key": ErrorCategory.AUTHENTICATION,
    "access": ErrorCategory.AUTHORIZATION,
    "address": ErrorCategory.INVALID_REQUEST,
    "full": ErrorCategory.RATE_LIMIT,
    "unreachable": ErrorCategory.CONNECTIVITY,
    "server": ErrorCategory.SERVER,
}
"""Of Pipecat's error frames, by what is wrong; the first three make the service unusable."""

_STREAM_SETTINGS = ("threshold", "prefix_padding_ms", "silence_ms", "eagerness")
"""Fields of the service's settings that have the meaning and range of those of a stream."""


@dataclass
class PipecatRemoteASRSettings(STTSettings):
    """What can be changed while the pipeline runs, by ``STTUpdateSettingsFrame(delta=...)``.

    Everything is applied in place. The names that are those of `StreamSettings` have its meanings,
    units and ranges. ``model`` is a name that the server may log: it has one model.
    """

    threshold: float | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    prefix_padding_ms: int | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    silence_ms: int | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    """In ``turn_mode="pipecat"`` only what ends speech that Pipecat's detection has not noticed."""
    eagerness: str | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    partials: bool | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    """Whether interim frames are pushed."""
    min_confidence: float | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    """Finals less sure than this, 0 to 1, are dropped."""


class PipecatRemoteASRService(PipecatStreamService):
    """Streams a pipeline's audio to a tinyvoice server and pushes what comes back.

    It connects by itself, and again whenever the connection is lost, while audio waits for the
    server: a short outage delays words and loses none. Error frames say what is wrong.

    Raises:
        ConfigurationError: a setting is out of range, ``turn_mode`` unknown, or ``url`` no address.
    """

    Settings = PipecatRemoteASRSettings
    _settings: PipecatRemoteASRSettings
    _stream: RemoteStream | None

    def __init__(
        self,
        *,
        url: str = "ws://127.0.0.1:8000/v1/realtime",
        api_key: str = "",
        turn_mode: TurnMode = "pipecat",
        endpointing: Literal["vad", "semantic"] = "vad",
        should_interrupt: bool = True,
        audio_idle_timeout: float = AUDIO_IDLE_S,
        keep_s: float = KEEP_S,
        drain_s: float = DRAIN_S,
        ttfs_p99_latency: float | None = REMOTE_TTFS_P99_S,
        settings: PipecatRemoteASRSettings | None = None,
        **kwargs: Any,
    ) -> None:
        """``keep_s`` seconds of audio without an answer wait for a server that is away; at the end
        of a pipeline ``drain_s`` are waited for the last text.

        ``endpointing``, ``should_interrupt`` (whether a proposed turn interrupts the bot) and
        ``audio_idle_timeout`` (seconds without audio that end a turn; 0: none do) count in
        ``turn_mode="model"``. ``kwargs`` are those of Pipecat's services.
        """
        check_turn_mode(turn_mode)
        if kwargs.get("enable_eager_end_of_turn"):
            raise ConfigurationError(
                "A server does not tell that a turn is likely to end: leave out "
                "enable_eager_end_of_turn, or take PipecatASRService.",
                key="enable_eager_end_of_turn",
            )
        known = StreamSettings()
        store = self.Settings(
            model="tinyvoice",
            language=Language.EN,
            partials=True,
            min_confidence=0.0,
            **{name: getattr(known, name) for name in _STREAM_SETTINGS},
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
        self._url = realtime_url(url)
        self._api_key = api_key
        self._endpointing = endpointing
        self._keep_s, self._drain_s = keep_s, drain_s
        self._session()  # a bad setting is told now, not when the first call comes in

    # --- settings --------------------------------------------------------------------------------

    async def _apply(self, changed: dict[str, Any]) -> None:
        session = self._session()
        if changed.keys() & set(_STREAM_SETTINGS) and self._stream is not None:
            await self._stream.update(session, self._padding_s)

    @property
    def _padding_s(self) -> float:
        if self._semantic:
            return 0.3  # the protocol has no setting for it
        return float(self._settings.prefix_padding_ms or 0) / 1000

    @property
    def _semantic(self) -> bool:
        return self._turn_mode == "model" and self._endpointing == "semantic"

    def _session(self) -> dict[str, Any]:
        """The session's configuration. In ``pipecat`` mode its endpointing is a backstop."""
        found = StreamSettings(
            endpointing="semantic" if self._semantic else "vad",
            **{name: getattr(self._settings, name) for name in _STREAM_SETTINGS},
        )
        detection: dict[str, Any] = {
            "type": "server_vad",
            "threshold": found.threshold,
            "prefix_padding_ms": found.prefix_padding_ms,
            "silence_duration_ms": found.silence_ms,
        }
        if self._semantic:
            detection = {"type": "semantic_vad", "eagerness": found.eagerness}
        return {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": RATE},
                    "transcription": {"model": str(self._settings.model)},
                    "turn_detection": detection,
                }
            },
            "include": INCLUDE,
        }

    # --- the server ------------------------------------------------------------------------------

    async def _open(self) -> None:
        """Begin to connect: the pipeline does not wait for the server."""
        stream = RemoteStream(
            self._url,
            self._api_key,
            self.sample_rate,
            self._session(),
            padding_s=self._padding_s,
            keep_s=self._keep_s,
            drain_s=self._drain_s,
        )
        stream.open()
        await self._begin(stream)

    async def _take_other(self, event: Any) -> None:
        if isinstance(event, Connected):
            if event.again:  # what was being said is heard anew, as a turn of its own
                await self._break_off()
            await self._call_event_handler("on_connected")
        elif isinstance(event, Disconnected):
            await self._tell(event)
        elif isinstance(event, ServerSays):
            await self.push_error(
                str(event.error), exception=event.error, category=ErrorCategory.SERVER
            )
        elif isinstance(event, AudioLost):
            await self.push_error(
                f"{event.seconds:.1f} s of audio were lost: the server was away for longer than "
                f"the {self._keep_s:g} s of keep_s.",
                category=ErrorCategory.CONNECTIVITY,
            )

    async def _tell(self, event: Disconnected) -> None:
        """Say that there is no server; a turn that it began does not wait for it to come back."""
        await self._break_off()
        error = event.error
        await self._call_event_handler("on_connection_error", str(error))
        await self.push_error(str(error), exception=error, category=CATEGORIES[error.trouble])

    async def _push_interim(self, event: Partial) -> None:
        if self._settings.partials:
            await super()._push_interim(event)

"""Speech recognition in a Pipecat pipeline by a `tinyvoice serve` elsewhere.

Pipelines on many machines can so share one GPU. The service speaks the server's Realtime protocol
(a transcription session) with tinyvoice's own events for unstable text and word times, and gives
the same frames as `PipecatASRService` in ``turn_mode="pipecat"``: the pipeline's voice activity
detection ends the utterance. Written against pipecat-ai 1.14.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from typing import Any

from pipecat.audio.utils import create_stream_resampler
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InterimTranscriptionFrame,
    StartFrame,
    STTMuteFrame,
    TranscriptionFrame,
    UserMuteStartedFrame,
    UserMuteStoppedFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import WebsocketSTTService
from pipecat.transcriptions.language import Language
from pipecat.utils.errors import ErrorCategory
from pipecat.utils.time import time_now_iso8601
from pipecat.utils.tracing.service_decorators import traced_stt
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from tinyvoice.integrations.transcript import LiveTranscript
from tinyvoice.model.transcript import Word

REMOTE_TTFS_P99_S = 0.35
"""As for the service in the process, and a round trip of a local network."""

SESSION_RATE = 24_000
"""The protocol's pcm sample rate, Hz."""

DRAIN_S = 2.0
"""Seconds that the end of a pipeline waits for the last text."""


class PipecatRemoteASRService(WebsocketSTTService):
    """Streams a pipeline's audio to a tinyvoice server and pushes what comes back.

    A lost connection is made again by itself, with growing pauses; what was said meanwhile is lost,
    and an error frame says so.
    """

    _settings: STTSettings

    def __init__(
        self,
        *,
        url: str = "ws://127.0.0.1:8000/v1/realtime",
        api_key: str = "",
        silence_ms: int = 1000,
        partials: bool = True,
        ttfs_p99_latency: float | None = REMOTE_TTFS_P99_S,
        settings: STTSettings | None = None,
        **kwargs: Any,
    ) -> None:
        """``silence_ms`` ends speech that the pipeline's detection has not noticed."""
        store = STTSettings(model="tinyvoice", language=Language.EN)
        if settings is not None:
            store.apply_update(settings)
        super().__init__(settings=store, ttfs_p99_latency=ttfs_p99_latency, **kwargs)
        self._url = url + ("&" if "?" in url else "?") + "intent=transcription"
        self._api_key = api_key
        self._silence_ms = silence_ms
        self._partials = partials
        self._resampler = create_stream_resampler(clear_after_secs=None)
        self._receive_task: asyncio.Task[None] | None = None
        self._flushes = 0
        self._interim = ""
        self._words: dict[str, tuple[Word, ...]] = {}
        self._open_items: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    # --- life ------------------------------------------------------------------------------------

    async def start(self, frame: StartFrame) -> None:
        """Connect."""
        await super().start(frame)
        await self._connect()

    async def stop(self, frame: EndFrame) -> None:
        """Ask for the text of what is being said, wait a little for it, and disconnect."""
        self._flushes += 1
        await self._send(type="input_audio_buffer.commit", event_id=f"flush_{self._flushes}")
        try:
            await asyncio.wait_for(self._idle.wait(), DRAIN_S)
        except TimeoutError:
            await self.push_error("The server did not send the last text in time.")
        await super().stop(frame)

    def can_generate_metrics(self) -> bool:
        """Time to first byte and usage are measured."""
        return True

    async def _connect(self) -> None:
        await self._connect_websocket()
        await super()._connect()
        # Also when there was no connection: the loop makes it again.
        if self._receive_task is None:
            self._receive_task = self.create_task(self._receive_task_handler(self._report_error))

    async def _disconnect(self) -> None:
        await super()._disconnect()
        task, self._receive_task = self._receive_task, None
        if task is not None:
            await self.cancel_task(task)
        await self._disconnect_websocket()

    async def _connect_websocket(self) -> None:
        if self._websocket is not None and self._websocket.state is State.OPEN:
            return
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        try:
            self._websocket = await self._websocket_connect(self._url, additional_headers=headers)
        except Exception as error:  # whatever it is, the loop tries again
            self._websocket = None
            await self.push_error(
                f"No connection to {self._url}: is `tinyvoice serve` running there? ({error})",
                exception=error,
            )
            return
        self._words.clear()
        self._open_items.clear()
        self._idle.set()
        await self._send(type="session.update", session=self._session())
        await self._call_event_handler("on_connected")

    async def _disconnect_websocket(self) -> None:
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            await websocket.close()
            await self._call_event_handler("on_disconnected")

    def _session(self) -> dict[str, Any]:
        """The server's endpointing is a backstop: our commits come first."""
        return {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": SESSION_RATE},
                    "transcription": {"model": str(self._settings.model)},
                    "turn_detection": {
                        "type": "server_vad",
                        "silence_duration_ms": self._silence_ms,
                    },
                }
            },
            "include": ["tinyvoice.partials"],
        }

    # --- in --------------------------------------------------------------------------------------

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Send the audio; frames come from the receiving task."""
        samples = await self._resampler.resample(audio, self.sample_rate, SESSION_RATE)
        if samples:
            encoded = base64.b64encode(samples).decode()
            await self._send(type="input_audio_buffer.append", audio=encoded)
        yield None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Commit where speech stops; forget what was said into a muted microphone."""
        await super().process_frame(frame, direction)
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            self.request_finalize()
            self._flushes += 1
            await self._send(type="input_audio_buffer.commit", event_id=f"flush_{self._flushes}")
        elif isinstance(frame, UserMuteStartedFrame | UserMuteStoppedFrame) or (
            isinstance(frame, STTMuteFrame) and frame.mute
        ):
            self._interim = ""
            await self._send(type="input_audio_buffer.clear")

    async def _send(self, **event: Any) -> None:
        websocket = self._websocket
        if websocket is None or websocket.state is not State.OPEN:
            return  # the receiving task is making the connection again
        try:
            await websocket.send(json.dumps(event))
        except ConnectionClosed:
            return

    # --- out -------------------------------------------------------------------------------------

    async def _receive_messages(self) -> None:
        if self._websocket is None:
            raise ConnectionError(f"no connection to {self._url}")
        async for message in self._websocket:
            await self._receive(json.loads(message))

    async def _receive(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "input_audio_buffer.speech_started":
            self._interim = ""
            self._open_items.add(event["item_id"])
            self._idle.clear()
        elif kind == "input_audio_buffer.committed":
            self._open_items.add(event["item_id"])
            self._idle.clear()
        elif kind == "tinyvoice.transcription.partial":
            await self._push_interim(event)
        elif kind == "tinyvoice.transcription.words":
            self._words[event["item_id"]] = tuple(
                Word(w["word"], w["start_ms"] / 1000, w["end_ms"] / 1000, w["confidence"])
                for w in event["words"]
            )
        elif kind == "conversation.item.input_audio_transcription.completed":
            await self._push_final(event)
            self._settle(event["item_id"])
        elif kind == "conversation.item.input_audio_transcription.failed":
            self._finalize_requested = False
            await self.push_error(event["error"]["message"], category=ErrorCategory.SERVER)
            self._settle(event["item_id"])
        elif kind == "error":
            await self._receive_error(event["error"])

    async def _push_interim(self, event: dict[str, Any]) -> None:
        stable, text = event["stable"], (event["stable"] + event["tail"]).strip()
        if not self._partials or not text or text == self._interim:
            return
        self._interim = text
        result = LiveTranscript(text, final=False, stable=stable.strip(), utterance=-1)
        await self.push_frame(
            InterimTranscriptionFrame(
                text, self._user_id, time_now_iso8601(), self._language(), result=result
            )
        )

    async def _push_final(self, event: dict[str, Any]) -> None:
        self._interim = ""
        words = self._words.pop(event["item_id"], ())
        text = event["transcript"].strip()
        if not text:
            self._finalize_requested = False
            return
        result = LiveTranscript(
            text,
            final=True,
            stable=text,
            utterance=-1,
            words=words,
            start=words[0].start if words else None,
            end=words[-1].end if words else None,
            audio_secs=event["usage"].get("seconds"),
        )
        await self.emit_stt_usage_metrics()
        self.confirm_finalize()
        await self.push_frame(
            TranscriptionFrame(
                text, self._user_id, time_now_iso8601(), self._language(), result=result
            )
        )
        await self._handle_transcription(text, True, self._language())

    async def _receive_error(self, error: dict[str, Any]) -> None:
        if error.get("code") == "input_audio_buffer_commit_empty":
            self._finalize_requested = False  # nothing was said; no text will answer
            return
        await self.push_error(f"The server says: {error['message']}")

    def _settle(self, item_id: str) -> None:
        self._open_items.discard(item_id)
        if not self._open_items:
            self._idle.set()

    @traced_stt
    async def _handle_transcription(
        self, transcript: str, is_final: bool, language: Language | None = None
    ) -> None:
        """Where Pipecat's tracing attaches its span."""

    def _language(self) -> Language | None:
        language = self._settings.language
        return Language(language) if isinstance(language, str) else None

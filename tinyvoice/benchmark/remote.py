"""A server that is measured as the engine is: sessions of its Realtime protocol as streams.

A :class:`RemoteEngine` fits the harness: each of its streams is a transcription session over a
WebSocket of its own. It is fed client events made beforehand (``appends.py``), and tells the
server's events as the engine's, with the times at which they came in.
What cannot be known from outside is left out; processor time and memory are what the server itself
says of them at ``/metrics``.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.appends import PCM_RATE, append_events
from tinyvoice.benchmark.harness import Run, RunSettings, paced_run
from tinyvoice.benchmark.observation import Received
from tinyvoice.benchmark.remote_turns import END_MARK, PADDING_MS, RemoteError, Turns
from tinyvoice.benchmark.speech import Clip
from tinyvoice.benchmark.usage import Usage, read_usage
from tinyvoice.engine.errors import EngineOverloadedError, StreamClosedError
from tinyvoice.engine.events import Failed
from tinyvoice.errors import ConfigurationError, MissingExtraError, TinyvoiceError
from tinyvoice.realtime.address import PATH, realtime_url

try:
    import websockets
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import (
        ConnectionClosed,
        InvalidHandshake,
        InvalidStatus,
        InvalidURI,
    )
except ModuleNotFoundError:
    raise MissingExtraError("serve", "Measuring a server") from None

PARTIALS = "tinyvoice.partials"
OPEN_TIMEOUT_S = 30.0
"""A server that is busy with many sessions may be slow to let the next one in."""
CLOSE_TIMEOUT_S = 5.0
SETTLE_S = 15.0
"""A server that refuses may still be busy with what the run before has left: how long to wait."""

GOING_AWAY, TRY_AGAIN_LATER, INVALID_KEY = 1001, 1013, 3000
"""Close codes of a server that shuts down, that has no place, and that does not take the key."""

_CLEAR = '{"type":"input_audio_buffer.clear"}'
_COMMIT = f'{{"type":"input_audio_buffer.commit","event_id":"{END_MARK}"}}'


class ServerLostError(RemoteError):
    """A server went away while it was measured."""


# Sessions --------------------------------------------------------------------------------------


class RemoteStream:
    """A transcription session; packets are ``input_audio_buffer.append`` events."""

    def __init__(
        self, socket: ClientConnection, silence_ms: int, lost: Callable[[str], None]
    ) -> None:
        self._socket, self._turns, self._lost = socket, Turns(silence_ms), lost
        self._settled = asyncio.Event()
        self._leaving = False
        self._failure: RemoteError | None = None

    async def feed(self, packet: bytes) -> None:
        """Send an event; waits while the server reads more slowly than this."""
        await self._send(packet)

    async def flush(self) -> None:
        """Return when all audio so far has been processed; ends the turn that goes on.

        The protocol has no question for that: a commit ends what is said, and a clear behind it is
        answered when the commit has been.
        """
        self._turns.cleared = False
        self._settled.clear()
        await self._send(_COMMIT.encode())
        await self._send(_CLEAR.encode())
        await self._settled.wait()
        if self._failure is not None:
            raise StreamClosedError(str(self._failure))

    async def close(self) -> None:
        """Wait for all transcripts, then leave."""
        await self.flush()
        await self.leave()

    async def leave(self) -> None:
        """Close the connection."""
        self._leaving = True
        await self._socket.close()

    async def __aiter__(self) -> AsyncIterator[Received]:
        while True:
            try:
                message = await self._socket.recv()
            except ConnectionClosed:
                break
            for received in self._take(message, time.monotonic()):
                yield received
            if self._turns.settled:
                self._settled.set()
        for received in self._turns.rest():
            yield received
        if not self._leaving:
            self._failure = self._closed_by_server()
            self._lost(self._how_lost())
            yield Received(Failed(self._failure, math.nan), time.monotonic())
        self._settled.set()

    def _take(self, message: str | bytes, wall: float) -> list[Received]:
        try:
            return list(self._turns.read(json.loads(message), wall))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            unknown = RemoteError(f"The server sent an event that cannot be read ({error!r}).")
            return [Received(Failed(unknown, math.nan), wall)]

    async def _send(self, event: bytes) -> None:
        try:
            await self._socket.send(event, text=True)
        except ConnectionClosed:
            raise StreamClosedError(str(self._closed_by_server())) from None

    def _how_lost(self) -> str:
        said = f", {self._turns.said}" if self._turns.said else ""
        return _close_of(self._socket) + said

    def _closed_by_server(self) -> RemoteError:
        return RemoteError(f"The server closed a session before its end: {self._how_lost()}.")


class RemoteEngine:
    """Opens sessions of a server.

    Entering it opens one and closes it again: an address or a key that is wrong is told at once.
    """

    def __init__(self, address: str, api_key: str | None = None) -> None:
        self.url = realtime_url(address)
        self.lost: list[str] = []
        """How sessions ended that the server closed unasked, or that broke off."""
        self.on_lost: Callable[[], None] = lambda: None
        self._key = api_key
        self._streams: set[RemoteStream] = set()

    @property
    def shown(self) -> str:
        """The address without what may be a secret in it."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    async def __aenter__(self) -> RemoteEngine:
        give_up = time.monotonic() + SETTLE_S
        while True:
            try:
                async with self.stream(SAMPLE_RATE):
                    return self
            except EngineOverloadedError:
                if time.monotonic() > give_up:
                    return self  # its refusals will be counted
                await asyncio.sleep(0.5)

    async def __aexit__(self, *reason: Any) -> None:
        await asyncio.gather(*(stream.leave() for stream in self._streams), return_exceptions=True)

    @asynccontextmanager
    async def stream(self, sample_rate: int, **settings: Any) -> AsyncIterator[RemoteStream]:
        """A session that ends turns by silence.

        Of the settings of the engine's streams a session has ``silence_ms`` only; ``sample_rate``
        is that of the schedule, what is sent has 24 kHz.

        Raises:
            EngineOverloadedError: the server has no place for it.
            ServerLostError: it is shutting down.
            RemoteError: it cannot be had.
            ConfigurationError: a setting that a session does not have.
        """
        del sample_rate
        silence_ms = settings.pop("silence_ms", 500)
        if settings:
            name = next(iter(settings))
            raise ConfigurationError(
                f"A server's sessions have no setting {name}: leave it out.", key=name
            )
        socket = await self._connect()
        stream = RemoteStream(socket, silence_ms, self._note_lost)
        self._streams.add(stream)
        try:
            await self._configure(socket, silence_ms)
            yield stream
        finally:
            self._streams.discard(stream)
            await stream.leave()

    def _note_lost(self, how: str) -> None:
        self.lost.append(how)
        self.on_lost()

    async def _connect(self) -> ClientConnection:
        join = "&" if urlsplit(self.url).query else "?"
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            return await websockets.connect(
                f"{self.url}{join}intent=transcription",
                additional_headers=headers,
                compression=None,
                proxy=None,  # it would be measured too
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=None,
                max_size=None,
            )
        except (OSError, ValueError, InvalidHandshake, InvalidURI) as error:
            raise self._refusal(error) from error

    async def _configure(self, socket: ClientConnection, silence_ms: int) -> None:
        update = session_update(silence_ms)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._answer(socket, "session.created")
                await socket.send(json.dumps(update))
                updated = await self._answer(socket, "session.updated")
        except TimeoutError:
            raise RemoteError(
                f"The server at {self.shown} does not open sessions: it said nothing for "
                f"{OPEN_TIMEOUT_S:g} s. See its log."
            ) from None
        except ConnectionClosed:
            raise self._turned_away(socket, "") from None
        if PARTIALS not in (updated.get("session", {}).get("include") or ()):
            raise RemoteError(
                f"The server at {self.shown} does not tell {PARTIALS}, by which it is measured: "
                "give the address of a `tinyvoice serve`."
            )

    async def _answer(self, socket: ClientConnection, kind: str) -> dict[str, Any]:
        try:
            event = json.loads(await socket.recv())
            found = event.get("type")
        except (ValueError, AttributeError):
            event, found = {}, None
        if found == "error":
            error = event.get("error") or {}
            with suppress(ConnectionClosed):  # a server that turns somebody away closes then
                await socket.recv()
            raise self._turned_away(socket, str(error.get("message")))
        if found != kind:
            raise RemoteError(
                f"What listens at {self.shown} does not speak the Realtime protocol: give the "
                "address of a `tinyvoice serve`."
            )
        return dict(event)

    def _turned_away(self, socket: ClientConnection, said: str) -> TinyvoiceError:
        if socket.close_code == TRY_AGAIN_LATER:
            return EngineOverloadedError(said or "The server has no place for a session now.")
        if socket.close_code == INVALID_KEY:
            return self._wrong_key()
        if socket.close_code == GOING_AWAY:
            return self.went_away(_close_of(socket))
        why = said or f"it closed the connection, {_close_of(socket)}"
        return RemoteError(f"The server at {self.shown} does not open a session: {why}")

    def _refusal(self, error: Exception) -> TinyvoiceError:
        """In a sentence, why there is no connection."""
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            if status == 401:
                return self._wrong_key()
            if status == 503:
                return EngineOverloadedError("The server has no place for a session now.")
            what = f"answers with HTTP {status}: give the address that its `tinyvoice serve` prints"
        elif isinstance(error, ssl.SSLError):
            why = getattr(error, "verify_message", None) or error.reason or "no TLS"
            what = (
                f"is not trusted ({why}): check wss:// or ws://, or name its certificate in the "
                "variable SSL_CERT_FILE"
            )
        elif isinstance(error, TimeoutError):
            what = f"does not answer within {OPEN_TIMEOUT_S:g} s: check the address"
        elif isinstance(error, OSError):
            what = f"cannot be reached ({_reason(error)}): is the server running?"
        else:
            what = f"does not speak WebSocket ({error}): check the address"
        return RemoteError(f"{self.shown} {what.rstrip('.?')}{'?' if what[-1] == '?' else '.'}")

    def _wrong_key(self) -> RemoteError:
        wants = "does not accept this key" if self._key else "wants a key"
        return RemoteError(f"The server at {self.shown} {wants}: give the right --api-key.")

    def went_away(self, how: str) -> ServerLostError:
        """What to say where the server shuts down, or all connections to it break."""
        return ServerLostError(
            f"The server at {self.shown} went away while it was measured ({how}): see its log, "
            "start it again, and repeat the measurement."
        )

    async def usage(self) -> Usage:
        """What the server says of itself at ``/metrics``."""
        parts = urlsplit(self.url)
        scheme = {"ws": "http", "wss": "https"}[parts.scheme]
        folder = parts.path.rstrip("/").removesuffix(PATH)
        address = urlunsplit((scheme, parts.netloc, f"{folder}/metrics", "", ""))
        return await asyncio.to_thread(read_usage, address)


def session_update(silence_ms: int) -> dict[str, Any]:
    """What a measured session is set to: all of it as the engine's streams are, by default."""
    return {
        "type": "session.update",
        "session": {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": PCM_RATE},
                    "transcription": {"model": "tinyvoice"},
                    "turn_detection": {
                        "type": "server_vad",
                        "threshold": 0.5,
                        "prefix_padding_ms": PADDING_MS,
                        "silence_duration_ms": silence_ms,
                    },
                }
            },
            "include": [PARTIALS],
        },
    }


def _reason(error: OSError) -> str:
    """What the system says; the event loop's own words name the address once more."""
    known = error.errno is not None and error.errno > 0
    return os.strerror(error.errno or 0) if known else error.strerror or str(error)


def _close_of(socket: ClientConnection) -> str:
    """How a connection ended."""
    if socket.close_code in (None, 1006):
        return "the connection broke off"
    reason = f" {socket.close_reason!r}" if socket.close_reason else ""
    return f"close code {socket.close_code}{reason}"


# A run -----------------------------------------------------------------------------------------


async def remote_run(
    engine: RemoteEngine,
    clips: Sequence[Clip],
    settings: RunSettings,
    stop: asyncio.Event,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[Run, Usage]:
    """Play a run to a server; with it the processor time it took, and the memory it holds then.

    Raises:
        ServerLostError: it closed all sessions before their end.
        RemoteError: it cannot be reached.
    """
    gone = asyncio.Event()

    def check() -> None:
        # Who says to one client that it is going away says so to all.
        going = any(str(GOING_AWAY) in reason for reason in engine.lost)
        if (going or len(engine.lost) >= settings.streams) and not stop.is_set():
            gone.set()
            stop.set()

    engine.lost, engine.on_lost = [], check
    before = await engine.usage()
    run = await paced_run(engine, clips, settings, stop, progress, payloads=append_events)
    after = await engine.usage()
    if gone.is_set():
        raise engine.went_away(engine.lost[-1])
    return run, after.since(before)

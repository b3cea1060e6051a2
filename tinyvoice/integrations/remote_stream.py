"""A stream whose engine is a `tinyvoice serve` elsewhere: the asyncio shell of `RemoteSession`.

It is used as a stream of an engine is: audio goes in and never waits, events come out. It connects
by itself, and again for as long as it is open; only what trying again cannot mend ends it. What the
events of a session mean is `remote_session`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from tinyvoice.audio.pcm import PCMStream
from tinyvoice.engine.errors import StreamClosedError
from tinyvoice.engine.events import Event
from tinyvoice.errors import TinyvoiceError
from tinyvoice.integrations.remote_session import (
    PARTIALS,
    Committed,
    RemoteSession,
    ServerSays,
)
from tinyvoice.realtime.address import realtime_url

logger = logging.getLogger(__name__)


OPEN_TIMEOUT_S = 10.0
"""How long a server may take to open a session."""
PING_S = 5.0
PING_TIMEOUT_S = 10.0
"""A network that has died in silence is noticed after both together."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 2.0
"""Between two attempts to connect: twice as long each time."""
STEADY_S = 5.0
"""A connection that held for so long is made again without a pause."""

INVALID_KEY, TRY_AGAIN_LATER = 3000, 1013
"""Close codes of a server that does not take the key, and of one that has no place."""

Trouble = Literal["key", "access", "address", "full", "unreachable", "server"]

PERMANENT: frozenset[Trouble] = frozenset({"key", "access", "address"})
"""What trying again does not mend."""


class RemoteServerError(TinyvoiceError):
    """There is no session with the server; ``trouble`` is one word for why."""

    def __init__(self, message: str, trouble: Trouble) -> None:
        super().__init__(message)
        self.trouble = trouble

    @property
    def permanent(self) -> bool:
        """Whether trying again would not mend it."""
        return self.trouble in PERMANENT


@dataclass(frozen=True)
class Connected:
    """There is a session; ``again`` where there was one before."""

    again: bool


@dataclass(frozen=True)
class Disconnected:
    """There is no session, and the first attempt at another one has failed.

    It is told once, and again where the reason changes. Where ``error`` is permanent, it is the
    stream's last event.
    """

    error: RemoteServerError


@dataclass(frozen=True)
class AudioLost:
    """So many seconds of audio were too old for a session when there was one at last."""

    seconds: float


RemoteEvent = Event | ServerSays | Connected | Disconnected | AudioLost


class RemoteStream:
    """A stream of audio, transcribed by sessions of a server.

    ``session`` is the configuration of the sessions, ``padding_s`` the audio in front of speech
    that it asks for, ``keep_s`` how much audio waits for a server that is away, and ``drain_s`` how
    long `close` waits for the last text.

    Raises:
        ConfigurationError: ``url`` is no address of a server.
        AudioError: there is no such sample rate.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        sample_rate: int,
        session: Mapping[str, Any],
        *,
        padding_s: float,
        keep_s: float,
        drain_s: float,
    ) -> None:
        self.url = realtime_url(url)
        self._key = api_key
        self._decoder = PCMStream(sample_rate)
        self._session = RemoteSession(session, padding_s, keep_s)
        self._drain_s = drain_s
        self._events: deque[RemoteEvent] = deque()
        self._news = asyncio.Event()
        self._to_do = asyncio.Event()
        self._progress = asyncio.Event()
        self._commits: dict[int, asyncio.Future[int | None]] = {}
        self._websocket: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._over = False
        self._told: str | None = None
        self._said = ""
        self._been_connected = False

    # --- life ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to connect. Audio may be fed at once."""
        if self._task is None and not self._over:
            self._task = asyncio.create_task(self._run(), name="tinyvoice-remote")

    @property
    def closed(self) -> bool:
        """Whether nothing can be fed any more."""
        return self._over

    async def close(self) -> None:
        """End the utterance, wait a little for its text, and leave.

        Where it does not come in time, what had been understood of it is among the last events, and
        a `Disconnected` that says so.
        """
        if self._over:
            return
        self._feed(self._decoder.finish())
        self._session.commit()
        self._to_do.set()
        try:
            async with asyncio.timeout(self._drain_s):
                while not (self._session.settled or self._over):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            self._events.extend(self._session.unfinished())
            late = RemoteServerError(
                f"The server at {self.shown} did not send the last text within {self._drain_s:g} "
                "s; what had been understood is all there is.",
                "unreachable",
            )
            self._emit(Disconnected(late))
        finally:
            await self._leave()

    def drop(self) -> None:
        """Stop at once; what is pending is not transcribed. The events there are can be read."""
        self._over = True
        for answer in self._commits.values():
            if not answer.done():
                answer.set_exception(StreamClosedError("The stream was closed: open a new one."))
                answer.exception()  # whoever waits is told; nobody need wait
        self._commits.clear()
        if self._websocket is not None:
            self._websocket.transport.abort()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._news.set()
        self._progress.set()

    async def _leave(self) -> None:
        """Close in good order, as far as the server answers."""
        websocket = self._websocket
        self._over = True
        if websocket is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await websocket.close()
        self.drop()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    # --- audio in --------------------------------------------------------------------------------

    def change_format(
        self, sample_rate: int, *, encoding: str = "pcm16", channels: int = 1
    ) -> None:
        """Take audio of another format from now on.

        Raises:
            AudioError: there is no such format; everything is as it was.
        """
        new = PCMStream(sample_rate, channels=channels, encoding=encoding, after=self._decoder)
        self._feed(self._decoder.finish())
        self._decoder = new

    async def feed(self, packet: bytes) -> None:
        """Add audio; it is sent when there is a session.

        Raises:
            StreamClosedError: the stream is closed.
            AudioError: the packet is not such audio.
        """
        self._need_open()
        self._feed(self._decoder.decode(packet))

    async def commit(self) -> int | None:
        """End the utterance now; its number, or None if nothing has been said.

        It waits for the server's answer, also through an outage.

        Raises:
            StreamClosedError: the stream is closed.
        """
        self._need_open()
        answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._commits[self._session.commit()] = answer
        self._to_do.set()
        return await answer

    async def clear(self) -> None:
        """Forget the utterance that is going on; raises like `commit`."""
        self._need_open()
        self._session.clear()
        self._to_do.set()

    async def update(self, session: Mapping[str, Any], padding_s: float) -> None:
        """Other settings from now on, in this session and those to come."""
        self._session.configure(session, padding_s)
        self._to_do.set()

    def _feed(self, samples: np.ndarray) -> None:
        if len(samples):
            pcm = np.round(np.clip(samples * 32768.0, -32768, 32767)).astype("<i2")
            self._session.feed(pcm.tobytes())
            self._to_do.set()

    def _need_open(self) -> None:
        if self._over:
            raise StreamClosedError("The stream is closed: open a new one.")

    # --- events out ------------------------------------------------------------------------------

    async def __aiter__(self) -> AsyncIterator[RemoteEvent]:
        while True:
            while self._events:
                yield self._events.popleft()
            if self._over:
                return
            self._news.clear()
            await self._news.wait()

    def _emit(self, event: RemoteEvent) -> None:
        self._events.append(event)
        self._news.set()

    # --- connections -----------------------------------------------------------------------------

    @property
    def shown(self) -> str:
        """The address without what may be a secret in it."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    async def _run(self) -> None:
        """Connect, serve, and connect again."""
        pause = 0.0
        loop = asyncio.get_running_loop()
        while True:
            since = loop.time()
            trouble = await self._serve()
            self._websocket = None
            self._session.lost()
            if self._over:
                return
            logger.info("the session with %s is over: %s", self.shown, trouble)
            steady = self._told is None and loop.time() - since >= STEADY_S
            if steady and not trouble.permanent:
                pause = 0.0
                continue
            self._tell(trouble)
            await asyncio.sleep(pause)
            pause = min(max(2 * pause, FIRST_PAUSE_S), LONGEST_PAUSE_S)

    async def _serve(self) -> RemoteServerError:
        """One connection; why it is over, or never was."""
        try:
            async with self._connection() as websocket:
                await self._created(websocket)
                self._begin()
                await self._exchange(websocket)
        except RemoteServerError as error:
            # Behind an address that was right once there will be a server again.
            again = self._been_connected and error.trouble == "address"
            return RemoteServerError(str(error), "server") if again else error
        except Exception as error:
            logger.exception("the session with %s failed", self.shown)
            return RemoteServerError(f"The session with {self.shown} failed: {error}", "server")

    def _begin(self) -> None:
        self._session.opened()
        self._told = None
        self._emit(Connected(again=self._been_connected))
        self._been_connected = True
        if lost := self._session.take_lost():
            self._emit(AudioLost(lost))

    def _tell(self, error: RemoteServerError) -> None:
        if error.trouble != self._told:
            self._told = error.trouble
            self._emit(Disconnected(error))
        if error.permanent:
            self.drop()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[ClientConnection]:
        join = "&" if urlsplit(self.url).query else "?"
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            websocket = await connect(
                f"{self.url}{join}intent=transcription",
                additional_headers=headers,
                compression=None,  # of base64 it would save little and take time
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=1.0,
                ping_interval=PING_S,
                ping_timeout=PING_TIMEOUT_S,
                max_size=None,
            )
        except (OSError, InvalidHandshake, InvalidURI) as error:
            raise self._refusal(error) from error
        self._websocket = websocket
        try:
            yield websocket
        except ConnectionClosed as error:
            raise self._ended(websocket) from error
        finally:
            await websocket.close()

    async def _created(self, websocket: ClientConnection) -> None:
        """Wait until the server has let us in."""
        self._said = ""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                event = _read(await websocket.recv())
        except TimeoutError:
            raise RemoteServerError(
                f"The server at {self.shown} does not open sessions: it said nothing for "
                f"{OPEN_TIMEOUT_S:g} s. See its log.",
                "server",
            ) from None
        except ValueError:
            event = {}
        if event.get("type") == "error":
            self._said = str((event.get("error") or {}).get("message"))
            await websocket.recv()  # who turns somebody away closes, and says why by the code
        if event.get("type") != "session.created":
            raise self._not_ours()

    async def _exchange(self, websocket: ClientConnection) -> NoReturn:
        """Send and receive until the connection ends."""
        sending = asyncio.create_task(self._send(websocket), name="tinyvoice-remote-send")
        try:
            async for message in websocket:
                self._receive(message)
            raise self._ended(websocket)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, websocket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):  # the receiving side tells why
            while True:
                self._to_do.clear()
                while (message := self._session.to_send()) is not None:
                    await websocket.send(message)
                await self._to_do.wait()

    def _receive(self, message: str | bytes) -> None:
        try:
            event = _read(message)
            if event.get("type") == "session.updated":
                if PARTIALS not in (event["session"].get("include") or ()):
                    raise self._not_ours()
                return
            if event.get("type") == "error":
                self._said = str(event["error"].get("message"))
            found = self._session.receive(event)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RemoteServerError(
                f"The server at {self.shown} sent an event that cannot be read ({error!r}).",
                "server",
            ) from error
        for item in found:
            if isinstance(item, Committed):
                answer = self._commits.pop(item.mark, None)
                if answer is not None and not answer.done():
                    answer.set_result(item.utterance)
            else:
                self._emit(item)
        self._progress.set()

    # --- what went wrong -------------------------------------------------------------------------

    def _ended(self, websocket: ClientConnection) -> RemoteServerError:
        """In a sentence, why an open connection is over."""
        code, said = websocket.close_code, f": {self._said}" if self._said else ""
        if code == INVALID_KEY:
            return self._wrong_key()
        if code == TRY_AGAIN_LATER:
            return RemoteServerError(
                f"The server at {self.shown} has no place for a session now{said or '.'}", "full"
            )
        if code in (None, 1006):
            return RemoteServerError(
                f"The connection to {self.shown} broke off; it is made again by itself.",
                "unreachable",
            )
        if code == 1011:
            return RemoteServerError(
                f"The server at {self.shown} had an error and ended the session{said or '.'}",
                "server",
            )
        return RemoteServerError(
            f"The server at {self.shown} ended the session (close code {code}){said or '.'}",
            "unreachable",
        )

    def _refusal(self, error: Exception) -> RemoteServerError:
        """In a sentence, why there is no connection."""
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            if status == 401:
                return self._wrong_key()
            if status == 403:
                what = "does not let this program in (HTTP 403): see its --allowed-origins"
                return RemoteServerError(f"The server at {self.shown} {what}.", "access")
            if status in (429, 503):
                return RemoteServerError(
                    f"The server at {self.shown} has no place for a session now.", "full"
                )
            if status >= 500:
                return RemoteServerError(
                    f"The server at {self.shown} answers with HTTP {status}: see its log.",
                    "server",
                )
            return self._not_ours()
        if isinstance(error, ssl.SSLError):
            why = getattr(error, "verify_message", None) or error.reason or "no TLS"
            what = (
                f"is not trusted ({why}): check wss:// or ws://, or name its certificate in the "
                "variable SSL_CERT_FILE"
            )
        elif isinstance(error, TimeoutError):
            what = f"does not answer within {OPEN_TIMEOUT_S:g} s: check the address"
        elif isinstance(error, OSError):
            what = f"cannot be reached ({error.strerror or error}): is `tinyvoice serve` running"
        else:
            what = f"does not speak WebSocket ({error}): check the address"
        end = "?" if isinstance(error, OSError) and what.endswith("running") else "."
        return RemoteServerError(f"The server at {self.shown} {what}{end}", "unreachable")

    def _wrong_key(self) -> RemoteServerError:
        wants = "does not accept this key" if self._key else "wants a key"
        return RemoteServerError(
            f"The server at {self.shown} {wants}: give the right api_key.", "key"
        )

    def _not_ours(self) -> RemoteServerError:
        return RemoteServerError(
            f"What listens at {self.shown} is no `tinyvoice serve`: give the address that it "
            "prints at its start.",
            "address",
        )


def _read(message: str | bytes) -> dict[str, Any]:
    event = json.loads(message)
    if not isinstance(event, dict):
        raise ValueError("an event is an object")
    return event

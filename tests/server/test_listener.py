"""The listening side: who is taken for gone, and who is not."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.conftest import RunningServer, appends, eventually, pcm24k, running
from tests.server.realtime import connected
from tests.server.test_connection import one_session
from tests.server.test_hostile import frame, raw, read_to_the_end
from tinyvoice.benchmark.speech import Clip
from tinyvoice.model.modeling import ASRModel
from tinyvoice.server import connection as connections
from tinyvoice.server.listener import NEGLIGIBLE_S, WebSocketProtocol
from tinyvoice.server.settings import ServerSettings

COMPLETED = "conversation.item.input_audio_transcription.completed"
PING, PONG = 9, 10


@pytest.fixture(scope="module")
def pinging(asr_model: ASRModel) -> Iterator[RunningServer]:
    """A server that pings all the time, and is patient."""
    settings = ServerSettings(
        port=0,
        ping_interval_seconds=0.05,
        ping_timeout_seconds=3_600,
        refuse_partial_gap_s=3_600,
    )
    with running(settings, asr_model) as found:
        yield found


async def test_a_client_that_answers_no_ping_is_closed(asr_model: ASRModel) -> None:
    settings = ServerSettings(port=0, ping_interval_seconds=0.05, ping_timeout_seconds=0.2)
    with running(settings, asr_model) as server:
        async with raw(server) as connection:
            connection.settimeout(60)
            left = await asyncio.to_thread(read_to_the_end, connection)
        await eventually(server, lambda: len(server.app.state.sessions) == 0)
    assert struct.pack("!H", 1011) + b"keepalive ping timeout" in left


async def test_a_client_that_answers_pings_stays(pinging: RunningServer) -> None:
    """Each ping comes after the one before has been answered."""
    async with raw(pinging) as connection:
        connection.settimeout(60)
        for _ in range(5):
            payload = await asyncio.to_thread(next_ping, connection)
            connection.sendall(frame(payload, PONG))
        connection.sendall(frame(b'{"type": "input_audio_buffer.clear"}'))
        while b"input_audio_buffer.cleared" not in await asyncio.to_thread(connection.recv, 65_536):
            pass


async def test_who_is_not_read_need_not_answer(
    pinging: RunningServer, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine stands still for a while, which it does not by itself."""
    monkeypatch.setattr(connections, "UNHEARD_BYTES", 100_000)
    before = set(pinging.listener.server_state.connections)
    async with connected(pinging.websocket_url) as client:
        protocol: Any
        (protocol,) = set(pinging.listener.server_state.connections) - before
        assert isinstance(protocol, WebSocketProtocol)
        going_on = await asyncio.to_thread(pinging.call, asyncio.Event)
        stream = one_session(pinging, client)._stream
        feed = stream.feed  # type: ignore[union-attr]

        async def waiting(audio: bytes) -> None:
            await going_on.wait()
            await feed(audio)

        monkeypatch.setattr(stream, "feed", waiting)
        sending = asyncio.create_task(client.send(*appends(pcm24k(clips[0]), chunk_ms=200)))

        def unread() -> bool:
            at = protocol._paused_at
            waits = protocol.pong_timer is not None
            return waits and at is not None and protocol.loop.time() - at > 2 * NEGLIGIBLE_S

        await eventually(pinging, unread)
        await asyncio.to_thread(pinging.call, lambda: too_late(protocol))
        await asyncio.to_thread(pinging.call, going_on.set)
        await sending
        await client.until(COMPLETED)


def too_late(protocol: Any) -> None:
    """The time for an answer to the last ping is over."""
    protocol.pong_timer.cancel()
    protocol.keepalive_timeout()


def next_ping(connection: socket.socket) -> bytes:
    """Read up to the next ping; what it holds. A server's frames have no mask."""
    while True:
        head = exactly(connection, 2)
        length = head[1]
        if length == 126:
            length = struct.unpack("!H", exactly(connection, 2))[0]
        payload = exactly(connection, length)
        if head[0] & 15 == PING:
            return payload


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        assert part, "the server has hung up"
        data += part
    return data

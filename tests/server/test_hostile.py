"""Clients that mean harm, or know no better: the server lives, and others do not notice."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx2 as httpx
import pytest
import websockets

from tests.server.conftest import RunningServer, appends, changed, eventually, pcm24k
from tests.server.realtime import connected
from tinyvoice.benchmark.speech import Clip

SILENCE = base64.b64encode(bytes(4_800)).decode()
COMPLETED = "conversation.item.input_audio_transcription.completed"


@pytest.fixture(autouse=True)
async def _nothing_is_left(server: RunningServer) -> AsyncIterator[None]:
    """After each test: no session, no stream, no task, and a server that hears."""
    yield
    await eventually(server, lambda: len(server.app.state.sessions) == 0)
    await eventually(server, lambda: server.app.state.engine.open_streams == 0)
    await eventually(server, lambda: not server.task_names("sess_"))


async def hears(server: RunningServer, clip: Clip) -> None:
    async with connected(server.websocket_url) as client:
        await client.send(*appends(pcm24k(clip)))
        assert (await client.until(COMPLETED))["transcript"]


@asynccontextmanager
async def raw(server: RunningServer) -> AsyncIterator[socket.socket]:
    """A TCP connection that has been upgraded, and speaks for itself from now on."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET /v1/realtime?intent=transcription HTTP/1.1\r\nHost: {host}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    try:
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await asyncio.to_thread(connection.recv, 1)
        assert b" 101 " in answer
        yield connection
    finally:
        connection.close()


def frame(payload: bytes, opcode: int = 1, fin: bool = True) -> bytes:
    """A masked frame of a client (RFC 6455 §5.2), with a mask of zeros."""
    head = bytes([(0x80 if fin else 0) | opcode])
    length = len(payload)
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 65_536:
        head += bytes([0x80 | 126]) + struct.pack("!H", length)
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", length)
    return head + bytes(4) + payload


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("[]", "invalid_json"),
        ("nonsense", "invalid_json"),
        ('{"type": "no.such.thing"}', "invalid_value"),
        ('{"type": ' + "[" * 50_000 + "}", "invalid_json"),
        ('{"type": "session.update", "session": ' + '{"a":' * 500 + "1" + "}" * 501, None),
        ('{"type": "input_audio_buffer.append", "audio": "%%%"}', "invalid_value"),
        ('{"type": "input_audio_buffer.append", "audio": 7}', "invalid_type"),
        ('{"type": "conversation.item.retrieve", "item_id": "\\ud800"}', None),
        (b"\x00\x01", "invalid_event"),
    ],
)
async def test_nonsense_is_an_error_event_and_the_session_goes_on(
    server: RunningServer, message: str | bytes, code: str | None
) -> None:
    async with connected(server.websocket_url) as client:
        await client.socket.send(message)
        error = await client.receive()
        assert error["type"] == "error"
        assert code in (None, error["error"]["code"])
        await client.send({"type": "input_audio_buffer.clear"})
        await client.until("input_audio_buffer.cleared")


async def test_an_oversized_message_closes_its_own_connection(
    server: RunningServer, clips: list[Clip]
) -> None:
    async with connected(server.websocket_url) as other:
        async with connected(server.websocket_url) as client:
            with suppress(websockets.ConnectionClosed):
                await client.socket.send("x" * (server.app.state.settings.max_frame_bytes + 1))
            await client.closed()
            assert client.socket.close_code in (1006, 1009)
        await other.send(*appends(pcm24k(clips[0])))
        await other.until(COMPLETED)


async def test_a_message_of_the_largest_size_is_read(server: RunningServer) -> None:
    """As long as 15 MiB of audio; the last letter is none of base64: the engine is spared."""
    audio = base64.b64encode(bytes(15 << 20)).decode()[:-1] + "%"
    async with connected(server.websocket_url) as client:
        await client.send({"type": "input_audio_buffer.append", "audio": audio, "event_id": "e"})
        error = (await client.receive())["error"]
    assert (error["code"], error["param"], error["event_id"]) == ("invalid_value", "audio", "e")


async def test_text_that_is_none_closes_with_1007(server: RunningServer) -> None:
    async with raw(server) as connection:
        connection.sendall(frame(b'{"type": "\xff\xfe"}'))
        left = await asyncio.to_thread(read_to_the_end, connection)
    assert struct.pack("!H", 1007) in left


async def test_absurdly_many_fragments_close_the_connection(server: RunningServer) -> None:
    async with raw(server) as connection:
        many = frame(b"{", fin=False) + frame(b"", 0, fin=False) * 5_000
        await asyncio.to_thread(connection.sendall, many)
        left = await asyncio.to_thread(read_to_the_end, connection)
    assert struct.pack("!H", 1009) in left


async def test_a_message_in_fragments_is_one_message(server: RunningServer) -> None:
    text = b'{"type": "input_audio_buffer.clear"}'
    async with raw(server) as connection:
        pieces = [text[at : at + 1] for at in range(len(text))]
        connection.sendall(frame(pieces[0], fin=False))
        for piece in pieces[1:-1]:
            connection.sendall(frame(piece, 0, fin=False) + frame(b"ping", 9))
        connection.sendall(frame(pieces[-1], 0))
        answer = b""
        while b"input_audio_buffer.cleared" not in answer:
            answer += await asyncio.to_thread(connection.recv, 65_536)


def read_to_the_end(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except OSError:
        pass
    return b"".join(parts)


async def test_a_reader_that_never_reads_is_dropped_alone(
    server: RunningServer, clips: list[Clip]
) -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text"}]}
    item["content"][0]["text"] = "x" * 200_000  # type: ignore[index]
    flood = frame(json.dumps({"type": "conversation.item.create", "item": item}).encode())
    with changed(server, send_timeout_seconds=0.5, send_queue_bytes=1 << 20):
        async with raw(server) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.settimeout(60)

            def send_without_reading() -> None:
                try:
                    while True:
                        connection.sendall(flood)
                except OSError:  # the server does not read any more, or has hung up
                    pass

            await asyncio.to_thread(send_without_reading)
            await eventually(server, lambda: len(server.app.state.sessions) == 0)
            await hears(server, clips[0])
    page = server.app.state.metrics.page().decode()
    assert 'tinyvoice_client_errors_total{code="stalled"}' in page or 'code="unread"' in page


async def test_a_client_that_floods_with_nonsense_does_not_stop_the_others(
    server: RunningServer, clips: list[Clip]
) -> None:
    async with connected(server.websocket_url) as client:

        async def flood() -> None:
            for _ in range(5_000):
                await client.socket.send("{}")

        async def read() -> int:
            count = 0
            while count < 5_000:
                await client.socket.recv()
                count += 1
            return count

        flooding = asyncio.gather(flood(), read())
        await hears(server, clips[0])
        assert (await flooding)[1] == 5_000


SCRIPT: list[dict[str, Any]] = [
    {"type": "session.update", "session": {"type": "realtime", "instructions": "Be brief."}},
    {"type": "input_audio_buffer.append", "audio": SILENCE},
    {"type": "input_audio_buffer.commit"},
    {
        "type": "conversation.item.create",
        "item": {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "Tell me a story."}],
        },
    },
    {"type": "response.create"},
    {"type": "response.cancel"},
    {"type": "response.create"},
    {"type": "input_audio_buffer.clear"},
]


@pytest.mark.parametrize("rudely", [False, True])
async def test_disconnects_between_any_two_events(server: RunningServer, rudely: bool) -> None:
    for count in range(len(SCRIPT) + 1):
        async with connected(server.websocket_url, "model=m", created=False) as client:
            await client.send(*SCRIPT[:count])
            if rudely:
                client.socket.transport.abort()


async def test_disconnects_between_any_two_events_of_the_server(server: RunningServer) -> None:
    """Leave after the first, the second, … event of an answer."""
    for count in range(1, 14):
        async with connected(server.websocket_url, "model=m", created=False) as client:
            await client.send(*SCRIPT[3:5])
            for _ in range(count):
                await client.receive()
            client.socket.transport.abort()


async def test_frames_at_random(server: RunningServer, clips: list[Clip]) -> None:
    """Some hundred frames of any kind, in pieces of any size, well formed or not."""
    dice = random.Random(7)
    texts = [json.dumps(event).encode() for event in SCRIPT]
    for _ in range(60):
        async with raw(server) as connection:
            data = b"".join(random_frame(dice, texts) for _ in range(dice.randrange(1, 12)))
            if dice.random() < 0.3:
                data = data[: dice.randrange(len(data))]
            try:
                while data:
                    size = dice.randrange(1, 2_000)
                    await asyncio.to_thread(connection.sendall, data[:size])
                    data = data[size:]
            except OSError:
                pass  # hung up in the middle: as it should
    await hears(server, clips[0])


def random_frame(dice: random.Random, texts: list[bytes]) -> bytes:
    payload = dice.choice(
        [
            dice.choice(texts),
            dice.randbytes(dice.randrange(300)),
            b"{" * dice.randrange(300),
            b"",
        ]
    )
    if dice.random() < 0.2:
        payload = payload.replace(b'"', b"\xff", 1)
    whole = bytearray(frame(payload, dice.choice([0, 1, 1, 1, 2, 8, 9, 10, 3, 15])))
    if dice.random() < 0.3:
        whole[dice.randrange(len(whole))] = dice.randrange(256)
    return bytes(whole)


async def test_fifty_sessions_opened_and_dropped(server: RunningServer) -> None:
    async def come_and_go(number: int) -> None:
        async with connected(server.websocket_url, created=number % 2 == 0) as client:
            await client.send({"type": "input_audio_buffer.append", "audio": SILENCE})
            if number % 3 == 0:
                client.socket.transport.abort()

    for start in range(0, 50, 10):
        await asyncio.gather(*(come_and_go(start + number) for number in range(10)))


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket"
        b"\r\n\r\n",
        b"POST /v1/realtime/client_secrets HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_requests_that_are_none(server: RunningServer, request_bytes: bytes) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        await asyncio.to_thread(read_to_the_end, connection)
    async with httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/healthz")).status_code == 200


async def test_methods_that_are_made_up_are_counted_as_one(server: RunningServer) -> None:
    async with httpx.AsyncClient(base_url=server.url) as client:
        for number in range(20):
            answer = await client.request(f"INVENTED{number}", "/healthz")
            assert answer.status_code == 405
    page = server.app.state.metrics.page().decode()
    assert "INVENTED" not in page
    assert 'tinyvoice_http_requests_total{method="other"' in page


async def test_a_body_that_is_too_large_is_refused(server: RunningServer) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield bytes(1 << 20)

    async with httpx.AsyncClient(base_url=server.url) as client:
        for content in (bytes(27 << 20), endless()):
            try:
                answer = await client.post("/v1/realtime/client_secrets", content=content)
            except (httpx.WriteError, httpx.ReadError):
                continue  # the server hung up before everything was sent
            assert answer.status_code == 413
            assert answer.json()["error"]["type"] == "invalid_request_error"

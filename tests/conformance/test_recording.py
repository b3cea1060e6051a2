"""The relay hands on everything and writes it down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.conformance.recording import Recorder


async def answer(connection: ServerConnection) -> None:
    """Say what was requested, then repeat one message and close."""
    assert connection.request is not None
    await connection.send(f'{{"path": "{connection.request.path}"}}')
    await connection.send(await connection.recv())
    await connection.close(4000, "enough")


def refuse_strangers(connection: ServerConnection, request: Request) -> Response | None:
    if request.headers.get("Authorization") == "Bearer friend":
        return None
    return connection.respond(HTTPStatus.UNAUTHORIZED, "who are you?")


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    async with serve(
        answer,
        "127.0.0.1",
        0,
        process_request=refuse_strangers,
        subprotocols=[Subprotocol("realtime")],
    ) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def test_messages_and_the_close_pass_unchanged_and_are_written_down(upstream: str) -> None:
    async with Recorder(upstream) as recorder:
        url = recorder.url.replace("http", "ws") + "/v1/realtime?model=m"
        offered = [Subprotocol("realtime"), Subprotocol("other")]
        headers = {"Authorization": "Bearer friend"}
        async with connect(url, additional_headers=headers, subprotocols=offered) as client:
            assert client.subprotocol == "realtime"
            assert await client.recv() == '{"path": "/v1/realtime?model=m"}'
            await client.send('{"type":"hello",  "n":1}')
            assert await client.recv() == '{"type":"hello",  "n":1}'
            with pytest.raises(ConnectionClosedError) as closed:
                await client.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "enough")
    [connection] = recorder.connections
    assert connection.log() == [
        ("server", {"path": "/v1/realtime?model=m"}),
        ("client", {"type": "hello", "n": 1}),
        ("server", {"type": "hello", "n": 1}),
    ]
    assert (connection.closed_by, connection.close_code) == ("server", 4000)


async def test_a_refusal_reaches_the_client_as_it_was(upstream: str) -> None:
    async with Recorder(upstream) as recorder:
        with pytest.raises(InvalidStatus) as refused:
            await connect(recorder.url.replace("http", "ws"))
    assert refused.value.response.status_code == HTTPStatus.UNAUTHORIZED
    assert refused.value.response.body == b"who are you?"
    assert recorder.connections == []

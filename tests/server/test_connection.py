"""The shell around a session: what it does with faults, limits, order, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import websockets

from tests.server.conftest import RunningServer, appends, changed, eventually, pcm24k
from tests.server.realtime import Client, connected
from tinyvoice.benchmark.speech import Clip
from tinyvoice.realtime.backends.interface import BackendEvent, ResponseRequest, TextDelta
from tinyvoice.server.connection import RealtimeConnection
from tinyvoice.server.outbox import TransportLostError

COMPLETED = "conversation.item.input_audio_transcription.completed"
SAY = {"type": "response.create", "response": {"output_modalities": ["text"]}}


class Broken:
    """A responder with a fault. A real one has it too rarely."""

    def __init__(self, fault: BaseException | None) -> None:
        self.fault = fault

    async def respond(self, request: ResponseRequest) -> AsyncIterator[BackendEvent]:
        yield TextDelta("Well")
        if self.fault is not None:
            raise self.fault


@contextmanager
def answering(server: RunningServer, responder: Any) -> Iterator[None]:
    before = server.app.state.responder
    server.app.state.responder = responder
    try:
        yield
    finally:
        server.app.state.responder = before


@pytest.mark.parametrize("fault", [ValueError("what was said"), None])
async def test_an_answer_that_breaks_is_a_failed_response(
    server: RunningServer, fault: BaseException | None
) -> None:
    with answering(server, Broken(fault)):
        async with connected(server.websocket_url, "model=m") as client:
            await client.send(SAY)
            done = await client.until("response.done")
            assert done["response"]["status"] == "failed"
            assert "what was said" not in str(done)
            await client.send({"type": "input_audio_buffer.clear"})
            await client.until("input_audio_buffer.cleared")


async def test_a_fault_ends_its_session_and_no_other(
    server: RunningServer, clips: list[Clip]
) -> None:
    async with (
        connected(server.websocket_url) as other,
        connected(server.websocket_url) as client,
    ):
        connection = one_session(server, client)

        def fault(text: str) -> None:
            raise KeyError("what was said")

        connection.session.receive_text = fault  # type: ignore[method-assign]
        await client.send({"type": "input_audio_buffer.clear"})
        code, before = await client.closed()
        assert code == 1011
        assert [event["type"] for event in before] == ["error"]
        assert before[0]["error"]["type"] == "server_error"
        assert "what was said" not in str(before)
        await other.send(*appends(pcm24k(clips[0])))
        await other.until(COMPLETED)


async def test_a_session_is_closed_when_its_time_is_over(server: RunningServer) -> None:
    with changed(server, session_seconds=0.3):
        async with connected(server.websocket_url) as client:
            code, before = await client.closed()
    assert code == 1001
    assert before[-1]["error"]["code"] == "session_expired"


async def test_a_session_is_closed_when_its_client_says_nothing(server: RunningServer) -> None:
    with changed(server, idle_seconds=0.3):
        async with connected(server.websocket_url) as client:
            assert (await client.closed()) == (1001, [])
            assert client.socket.close_reason == "idle"


async def test_there_is_no_place_beyond_the_last(server: RunningServer) -> None:
    sessions = server.app.state.sessions
    await eventually(server, lambda: len(sessions) == 0)
    before, sessions.max_sessions = sessions.max_sessions, 1
    try:
        async with connected(server.websocket_url) as client:
            async with connected(server.websocket_url, created=False) as refused:
                code, events = await refused.closed()
            assert code == 1013
            assert [event["error"]["code"] for event in events] == ["overloaded"]
            await client.send({"type": "input_audio_buffer.clear"})
            await client.until("input_audio_buffer.cleared")
        await eventually(server, lambda: len(sessions) == 0)
        async with connected(server.websocket_url):
            pass
    finally:
        sessions.max_sessions = before


async def test_nobody_joins_a_session_by_its_id(server: RunningServer) -> None:
    """Calls alone are joined (``test_calls.py``): a session's id is no secret."""
    async with connected(server.websocket_url, "model=m") as client:
        name = client.events[0]["session"]["id"]
        with pytest.raises(websockets.InvalidStatus) as raised:
            async with connected(server.websocket_url, f"call_id={name}"):
                pass
        assert raised.value.response.status_code == 404
        await client.send({"type": "input_audio_buffer.clear"})
        await client.until("input_audio_buffer.cleared")


async def test_a_sideband_that_is_gone_holds_nothing_up(server: RunningServer) -> None:
    class Gone:
        async def send(self, text: str) -> None:
            raise TransportLostError("gone")

        async def close(self, code: int, reason: str) -> None:
            raise TransportLostError("gone")

        def abort(self) -> None:
            pass

    async with connected(server.websocket_url, "model=m") as client:
        connection = one_session(server, client)
        outbox = await asyncio.to_thread(server.call, lambda: connection.attach(Gone()))
        await eventually(server, outbox.over.is_set)
        await client.send(SAY)
        assert (await client.until("response.done"))["response"]["status"] == "completed"


async def test_a_commit_stands_where_it_belongs(server: RunningServer, clips: list[Clip]) -> None:
    """All audio and the commit at once: nothing overtakes anything."""
    off = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
    for clip in clips[:3]:
        async with connected(server.websocket_url) as client:
            await client.send({"type": "session.update", "session": off})
            await client.send(*appends(pcm24k(clip), chunk_ms=1_000))
            await client.send({"type": "input_audio_buffer.commit", "event_id": "mine"})
            done = await client.until(COMPLETED)
        kinds = [event["type"] for event in client.events if "delta" not in event]
        assert kinds[2:] == [
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            COMPLETED,
        ]
        assert done["transcript"]


async def test_sound_that_looks_like_a_file_is_taken_as_silence(server: RunningServer) -> None:
    import base64

    off = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
    audio = base64.b64encode(b"RIFF" + bytes(9_600)).decode()
    async with connected(server.websocket_url) as client:
        await client.send({"type": "session.update", "session": off})
        await client.send({"type": "input_audio_buffer.append", "audio": audio})
        await client.send({"type": "input_audio_buffer.commit"})
        assert (await client.until(COMPLETED))["transcript"] == ""


async def test_what_happened_is_counted(server: RunningServer, clips: list[Clip]) -> None:
    async with connected(server.websocket_url) as client:
        await client.send(*appends(pcm24k(clips[0])))
        await client.until(COMPLETED)
    await eventually(server, lambda: len(server.app.state.sessions) == 0)
    samples = {
        sample.name: sample.value
        for family in server.app.state.metrics.registry.collect()
        for sample in family.samples
        if not sample.labels or sample.labels.get("transport", "websocket") == "websocket"
    }
    assert samples["tinyvoice_sessions"] == 0
    assert samples["tinyvoice_sessions_opened_total"] >= 1
    assert samples["tinyvoice_audio_seconds_total"] >= clips[0].duration
    assert samples["tinyvoice_first_partial_seconds_count"] >= 1
    assert samples["tinyvoice_time_to_final_seconds_count"] >= 1


def one_session(server: RunningServer, client: Client) -> RealtimeConnection:
    """The server's side of a client."""
    found = server.app.state.sessions.get(client.events[0]["session"]["id"])
    assert isinstance(found, RealtimeConnection)
    return found


@pytest.mark.parametrize("content", [False, True])
async def test_what_is_said_is_logged_on_demand_only(
    server: RunningServer, caplog: pytest.LogCaptureFixture, content: bool
) -> None:
    caplog.set_level("INFO", "tinyvoice.server")
    with changed(server, log_content=content):
        async with connected(server.websocket_url, "model=m") as client:
            await client.send(
                {"type": "session.update", "session": {"instructions": "be as brief as can be"}}
            )
            await client.until("session.updated")
            await client.send({"type": "response.create"})
            await client.until("response.done")
    lines = [str(vars(record)) for record in caplog.records]
    assert any("session opened" in line for line in lines)
    assert any("be as brief as can be" in line for line in lines) is content
    assert not any("AAAAAAAAAAAAAAAA" in line for line in lines)  # sound is never written

"""Thousands of Realtime sessions that come and go: what they held comes back."""

from __future__ import annotations

import asyncio
import base64
import sys

import pytest

from tests.server.conftest import RunningServer, eventually, running
from tests.server.realtime import connected
from tests.soak.test_streams import resident_bytes
from tinyvoice.model.modeling import ASRModel
from tinyvoice.server.settings import ServerSettings

SESSIONS = 1_000
AT_ONCE = 20
MOST_GROWTH = 25 * 2**20

SOUND = base64.b64encode(bytes(9_600)).decode()


async def come_and_go(server: RunningServer, number: int) -> None:
    """A session that hears a little and leaves, politely or not."""
    query = "intent=transcription" if number % 2 else "model=m"
    async with connected(server.websocket_url, query, created=number % 3 == 0) as client:
        await client.send({"type": "input_audio_buffer.append", "audio": SOUND})
        if number % 5 == 0:
            await client.send({"type": "response.create"})
        if number % 4 == 0:
            client.socket.transport.abort()


async def all_come_and_go(server: RunningServer, count: int) -> None:
    for start in range(0, count, AT_ONCE):
        await asyncio.gather(*(come_and_go(server, start + n) for n in range(AT_ONCE)))
    await eventually(server, lambda: len(server.app.state.sessions) == 0)
    await eventually(server, lambda: server.app.state.engine.open_streams == 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_a_thousand_sessions_leave_no_memory_behind() -> None:
    model = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    settings = ServerSettings(port=0, tts="none", refuse_partial_gap_s=3_600)
    with running(settings, model) as server:
        await all_come_and_go(server, SESSIONS // 5)
        before = resident_bytes()
        await all_come_and_go(server, SESSIONS)
        assert resident_bytes() - before < MOST_GROWTH
        assert not await asyncio.to_thread(server.call, lambda: server.task_names("sess_"))

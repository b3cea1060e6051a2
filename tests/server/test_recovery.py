"""The model's worker dies while sessions are open: the turn in hand fails, nothing else does."""

from __future__ import annotations

import httpx2 as httpx

from tests.engine.test_worker import kill
from tests.server.conftest import RunningServer, appends, eventually, pcm24k
from tests.server.realtime import connected
from tinyvoice.benchmark.speech import Clip

TRANSCRIPTION = "conversation.item.input_audio_transcription"


async def test_a_worker_that_dies_costs_the_turn_in_hand(
    server: RunningServer, clips: list[Clip]
) -> None:
    audio = pcm24k(clips[0])
    half = len(audio) // 4 * 2
    async with (
        connected(server.websocket_url) as speaking,
        connected(server.websocket_url) as silent,
    ):
        await speaking.send(*appends(audio[:half]))
        started = await speaking.until("input_audio_buffer.speech_started")
        engine = server.app.state.engine
        kill(engine._worker.thread_id)
        await speaking.send(*appends(audio[half:]))
        failed = await speaking.until(f"{TRANSCRIPTION}.failed")
        assert failed["item_id"] == started["item_id"]
        assert failed["error"]["message"]
        for client in (speaking, silent):
            await client.send(*appends(audio))
            assert (await client.until(f"{TRANSCRIPTION}.completed"))["transcript"]
    await eventually(server, lambda: engine.ready)
    async with httpx.AsyncClient(base_url=server.url) as http:
        assert (await http.get("/readyz")).status_code == 200
        page = (await http.get("/metrics")).text
    assert 'tinyvoice_turns_total{outcome="failed"}' in page

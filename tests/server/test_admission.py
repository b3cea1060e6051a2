"""Who is let in, and how everybody leaves."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from openai import AsyncOpenAI

from tests.server.conftest import RunningServer, appends, pcm24k, running
from tests.server.realtime import connected
from tests.server.recording_files import wav
from tinyvoice.benchmark.speech import Clip
from tinyvoice.model.modeling import ASRModel
from tinyvoice.server.admission import RefusedError, SessionRegistry
from tinyvoice.server.places import RequestPlaces
from tinyvoice.server.settings import ServerSettings


class Guest:
    """A session that leaves when it is asked to, or only when it is thrown out."""

    def __init__(self, stubborn: bool = False) -> None:
        self.stubborn = stubborn
        self.heard: list[str] = []
        self.gone = asyncio.Event()

    async def drain(self) -> None:
        self.heard.append("drain")
        if not self.stubborn:
            self.gone.set()

    async def stop(self) -> None:
        self.heard.append("stop")
        self.gone.set()

    async def wait_closed(self) -> None:
        await self.gone.wait()


async def test_places_are_counted_and_given_back() -> None:
    registry = SessionRegistry(2)
    first, second, third = Guest(), Guest(), Guest()
    registry.add("a", first)
    registry.add("b", second)
    with pytest.raises(RefusedError, match="All 2 sessions are taken") as raised:
        registry.add("c", third)
    assert raised.value.reason == "full"
    registry.remove("a")
    registry.remove("a")
    registry.add("c", third)
    assert (len(registry), list(registry)) == (2, [second, third])
    assert (registry.get("c"), registry.get("a")) == (third, None)


async def test_draining_waits_for_turns_and_then_for_nobody() -> None:
    registry = SessionRegistry(9)
    quick, stubborn = Guest(), Guest(stubborn=True)
    registry.add("a", quick)
    registry.add("b", stubborn)
    await registry.drain(0.01)
    assert (quick.heard[0], stubborn.heard) == ("drain", ["drain", "stop"])
    with pytest.raises(RefusedError, match="shutting down") as raised:
        registry.check()
    assert raised.value.reason == "draining"


async def test_draining_an_empty_house_takes_no_time() -> None:
    registry = SessionRegistry(1)
    await asyncio.wait_for(registry.drain(3_600), 5)
    assert registry.draining


async def test_draining_waits_for_requests_and_then_for_none() -> None:
    places = RequestPlaces(2, 1)
    await asyncio.wait_for(places.drain(3_600), 30)
    with places.take():
        await asyncio.wait_for(places.drain(0.01), 30)
        assert places.taken == 1
        draining = asyncio.create_task(places.drain(3_600))
        await asyncio.sleep(0)
        assert not draining.done()
    await asyncio.wait_for(draining, 30)


async def test_a_transcription_in_hand_is_finished_before_the_end(
    asr_model: ASRModel, clips: list[Clip]
) -> None:
    """No session is open: the request alone is what is waited for."""
    settings = ServerSettings(port=0, drain_seconds=3_600, refuse_partial_gap_s=3_600)
    talk = np.concatenate([np.pad(clip.samples, (0, 8_000)) for clip in clips[:12]])
    with running(settings, asr_model) as server:
        # When all is drained nothing is left, so that none of this is needed.
        server.listener.config.timeout_graceful_shutdown = 0
        async with AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=300
        ) as client:
            events = await client.audio.transcriptions.create(
                file=("talk.wav", wav(talk)), model="m", stream=True
            )
            kinds: list[str] = []
            async for event in events:
                if not kinds:
                    server.loop.call_soon_threadsafe(server.listener.stop)
                kinds.append(event.type)
    assert kinds[-1] == "transcript.text.done"


async def test_a_turn_that_does_not_end_is_cut_off(asr_model: ASRModel, clips: list[Clip]) -> None:
    """The client goes on speaking while the server stops."""
    settings = ServerSettings(port=0, drain_seconds=0.2, refuse_partial_gap_s=3_600)
    audio = pcm24k(clips[0])
    with running(settings, asr_model) as server:
        assert isinstance(server, RunningServer)
        async with connected(server.websocket_url) as client:
            await client.send(*appends(audio[: len(audio) // 4 * 2]))
            await client.until("input_audio_buffer.speech_started")
            server.loop.call_soon_threadsafe(server.listener.stop)
            code, _ = await client.closed()
    assert code == 1001


async def test_a_second_signal_does_not_wait(asr_model: ASRModel, clips: list[Clip]) -> None:
    settings = ServerSettings(port=0, drain_seconds=3_600, refuse_partial_gap_s=3_600)
    audio = pcm24k(clips[0])
    with running(settings, asr_model) as server:
        async with connected(server.websocket_url) as client:
            await client.send(*appends(audio[: len(audio) // 4 * 2]))
            await client.until("input_audio_buffer.speech_started")
            for _ in range(2):
                server.loop.call_soon_threadsafe(server.listener.stop)
            code, _ = await client.closed()
    assert code in (1006, 1012)

"""Who is let in, and how everybody leaves."""

from __future__ import annotations

import asyncio

import pytest

from tests.server.conftest import RunningServer, appends, pcm24k, running
from tests.server.realtime import connected
from tinyvoice.benchmark.speech import Clip
from tinyvoice.model.modeling import ASRModel
from tinyvoice.server.admission import RefusedError, SessionRegistry
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

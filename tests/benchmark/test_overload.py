"""More streams than are held, on the real engine: who comes too late, and what comes afterwards."""

from __future__ import annotations

import asyncio

import pytest

from tinyvoice.benchmark import overload as overloading
from tinyvoice.benchmark.harness import RunSettings
from tinyvoice.benchmark.overload import overload
from tinyvoice.benchmark.speech import bundled_speech
from tinyvoice.engine import EngineSettings, StreamingEngine
from tinyvoice.model.modeling import ASRModel


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overloading, "ALONE_S", 2.0)
    monkeypatch.setattr(overloading, "LOAD_S", 3.0)
    monkeypatch.setattr(overloading, "LONGEST_RECOVERY_S", 300.0)  # a slow machine is none of ours


async def test_a_late_comer_is_refused_while_the_load_is_on_and_let_in_afterwards(
    short: None,
) -> None:
    """The load takes all places: how late a busy engine is, is the machine's affair."""
    model = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    settings = EngineSettings(max_streams=2, refuse_partial_gap_s=3_600)
    run = RunSettings(stream={"silence_ms": 200})
    shares: list[float] = []
    async with StreamingEngine(model, settings) as engine:
        stop = asyncio.Event()
        found = await overload(engine, bundled_speech()[:4], 2, run, 0.2, stop, shares.append)
    assert 1 <= found.refused <= found.asked
    assert found.words.startswith("All 2 streams are taken")
    assert found.refused_after_s is not None
    assert found.recovered_s is not None
    assert found.after is not None
    for part in (found.before, found.during, found.after):
        assert part.utterances >= 1
        assert (part.lost, part.refused, part.failures) == (0, 0, [])
    assert (found.before.streams, found.during.streams, found.after.streams) == (1, 2, 1)
    assert shares[-1] == pytest.approx(1.0)
    assert not found.interrupted


async def test_an_overload_that_is_interrupted(short: None) -> None:
    async with StreamingEngine("embedded", device="cpu", dtype="float32") as engine:
        stop = asyncio.Event()
        stop.set()
        found = await overload(engine, bundled_speech()[:1], 2, RunSettings(), 0.2, stop)
    assert found.interrupted
    assert (found.asked, found.after, found.recovered_s) == (0, None, None)

"""`openai-agents` 0.24.0: speech-to-text of its voice pipeline, and its realtime runner."""

from __future__ import annotations

import pytest

from tests.conformance.checking import same_words
from tests.conformance.conftest import Clients
from tests.conformance.test_openai_realtime import Recording, Speech


@pytest.mark.parametrize("speed", [1.0, 0.0])
async def test_a_speech_to_text_session_to_its_end(
    clients: Clients, recording: Recording, speech: Speech, speed: float
) -> None:
    names = ("01", "17")
    files = [recording(name) for name in names]
    report = await clients.run("openai_agents", "agents_sdk", "speech_to_text", *files, speed=speed)
    assert same_words(" ".join(speech[n].text or "" for n in names), " ".join(report["turns"]))


async def test_an_agent_uses_its_tool(clients: Clients) -> None:
    report = await clients.run("openai_agents", "agents_sdk", "tool")
    start, end = report["tools"]
    assert start[:3] == ["tool_start", "get_weather", '{"city": "Paris"}']
    assert end[:2] == ["tool_end", "get_weather"]
    assert end[3] == "sunny in Paris"
    last = report["history"][-1]
    assert last["role"] == "assistant"
    assert last["content"][0]["transcript"] == "The result is: sunny in Paris."
    assert report["audio_seconds"] > 0.5
    assert report["errors"] == []


async def test_a_user_interrupts_an_agent(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await clients.run(
        "openai_agents", "agents_sdk", "interruption", recording("08"), speed=4.0
    )
    assert "audio_interrupted" in report["types"]
    assert report["errors"] == []
    roles = [item.get("role") for item in report["history"]]
    assert roles == ["user", "assistant", "user", "assistant"]
    spoken = report["history"][2]["content"][0]
    assert same_words(speech["08"].text or "", spoken["transcript"])
    assert report["history"][1]["item_id"] == report["interrupted"]
    [connection] = clients.recorder.connections
    truncated = [e for e in connection.events("client") if e["type"].endswith("truncate")]
    assert [e["item_id"] for e in truncated] == [report["interrupted"]]

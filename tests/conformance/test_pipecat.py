"""Pipecat 1.14.0: its services for the protocol, in its own pipelines."""

from __future__ import annotations

from tests.conformance.checking import same_words
from tests.conformance.conftest import Clients
from tests.conformance.test_openai_realtime import Recording, Speech


async def test_recognition_with_pipecats_voice_activity_detection(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await clients.run(
        "pipecat",
        "pipecat_services",
        "stt_with_local_vad",
        recording("05"),
        recording("11"),
        speed=1.0,
    )
    assert report["errors"] == []
    assert same_words(speech["05"].text or "", report["finals"][0])
    assert same_words(speech["11"].text or "", report["finals"][1])
    assert "".join(report["interims"]) == "".join(report["finals"])
    [connection] = clients.recorder.connections
    commits = [e for e in connection.events("client") if e["type"].endswith("commit")]
    assert len(commits) == 2


async def test_recognition_with_the_servers_voice_activity_detection(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await clients.run(
        "pipecat",
        "pipecat_services",
        "stt_with_server_vad",
        recording("12"),
        recording("18"),
        speed=1.0,
    )
    assert report["errors"] == []
    assert same_words(speech["12"].text or "", report["finals"][0])
    assert same_words(speech["18"].text or "", report["finals"][1])
    assert report["counts"]["ProposedUserStartedSpeakingFrame"] >= 2


async def test_a_conversation_with_a_function(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await clients.run("pipecat", "pipecat_services", "tool", recording("17"), speed=1.0)
    assert report["errors"] == []
    assert report["calls"] == [["get_weather", {"city": "Paris"}]]
    assert "weather sunny" in report["spoken"]
    assert same_words(speech["17"].text or "", report["finals"][0])
    assert report["audio_seconds"] > 2.0


async def test_a_user_interrupts_a_conversation(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await clients.run(
        "pipecat", "pipecat_services", "interruption", recording("08"), speed=1.0
    )
    assert report["errors"] == []
    assert same_words(speech["08"].text or "", report["finals"][0])
    [connection] = clients.recorder.connections
    responses = [e["response"] for e in connection.events("server") if e["type"] == "response.done"]
    assert [r["status"] for r in responses] == ["cancelled", "completed"]
    truncated = [e for e in connection.events("client") if e["type"].endswith("truncate")]
    assert len(truncated) == 1

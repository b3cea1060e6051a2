"""`livekit-agents` and its OpenAI plug-in 1.8.9, without a LiveKit room."""

from __future__ import annotations

from tests.conformance.checking import same_words
from tests.conformance.conftest import Clients
from tests.conformance.test_openai_realtime import Recording, Speech


async def test_streamed_recognition(clients: Clients, recording: Recording, speech: Speech) -> None:
    report = await clients.run(
        "livekit", "livekit_plugins", "stt_realtime", recording("06"), recording("16"), speed=1.0
    )
    for name, heard in zip(("06", "16"), report["heard"], strict=True):
        assert same_words(speech[name].text or "", heard["final"])
        assert heard["interims"], "no interim text"
        assert all(heard["final"].startswith(text.strip()) for text in heard["interims"])
        assert heard["types"][0] == "start_of_speech"
        assert "end_of_speech" in heard["types"]


async def test_recognition_of_files(clients: Clients, recording: Recording, speech: Speech) -> None:
    report = await clients.run("livekit", "livekit_plugins", "stt_http", recording("13"))
    assert all(same_words(speech["13"].text or "", text) for text in report["texts"].values())
    assert set(report["texts"]) == {"whisper-1", "gpt-4o-transcribe"}


async def test_a_realtime_model_calls_a_function(clients: Clients) -> None:
    report = await clients.run("livekit", "livekit_plugins", "tool")
    assert report["errors"] == []
    [[name, arguments, _]] = report["first"]["calls"]
    assert (name, arguments) == ("get_weather", '{"city": "Paris"}')
    assert report["second"]["text"] == "The result is: sunny in Paris."
    assert report["second"]["seconds"] > 0.5


async def test_a_realtime_model_is_interrupted(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await clients.run(
        "livekit", "livekit_plugins", "interruption", recording("08"), speed=1.0
    )
    assert report["errors"] == []
    assert len(report["cut"]["text"]) < 1_500
    assert report["transcripts"][-1][1]
    assert same_words(speech["08"].text or "", report["transcripts"][-1][0])
    assert same_words(f"You said {speech['08'].text}", report["answer"]["text"])
    [connection] = clients.recorder.connections
    responses = [e["response"] for e in connection.events("server") if e["type"] == "response.done"]
    assert [r["status"] for r in responses] == ["cancelled", "completed"]

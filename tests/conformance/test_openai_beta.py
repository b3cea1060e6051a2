"""`openai` Python 3.54.0, beta protocol: checked against the package's beta models."""

from __future__ import annotations

from typing import Any

from tests.conformance.checking import same_words
from tests.conformance.conftest import Clients
from tests.conformance.test_openai_realtime import Recording, Speech

GA_ONLY = ("conversation.item.added", "conversation.item.done", "response.output_")


async def run(clients: Clients, scenario: str, *speech: Any, speed: float = 0.0) -> dict[str, Any]:
    report = await clients.run("openai", "openai_beta", scenario, *speech, speed=speed)
    of_ga = [t for t in report["types"] if t.startswith(GA_ONLY)]
    assert set(of_ga) <= {"response.output_item.added", "response.output_item.done"}
    return report


async def test_a_conversation_with_speech_and_a_function(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await run(clients, "conversation", recording("17"), speed=4.0)
    session = report["session"]
    assert session["input_audio_format"] == "pcm16"
    assert "audio" not in session
    assert report["turn_detection"]["silence_duration_ms"] == 500
    [transcript] = report["transcripts"].values()
    assert same_words(speech["17"].text or "", transcript)
    assert same_words(f"You said {speech['17'].text}", report["answer"])
    assert report["audio_seconds"] > 1.0
    assert report["arguments"] == '{"city": "Paris"}'
    assert report["text"] == "The result is: sunny."
    assert report["content"] == "text"
    # One event announces an item here, where the later protocol has two.
    assert report["types"].count("conversation.item.created") == 6


async def test_an_answer_is_stopped_and_truncated(clients: Clients) -> None:
    report = await run(clients, "cancelled")
    assert report["status"] == "cancelled"
    assert report["audio_end_ms"] == 100


async def test_a_transcription_session(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await run(clients, "transcription", recording("03"), recording("09"), speed=1.0)
    assert report["types"][0] in ("transcription_session.created", "session.created")
    texts = list(report["transcripts"].values())
    assert same_words(speech["03"].text or "", texts[0])
    assert same_words(speech["09"].text or "", texts[1])
    assert report["deltas"] == report["transcripts"]


async def test_an_ephemeral_key_of_the_older_kind(clients: Clients) -> None:
    report = await run(clients, "ephemeral_session")
    assert report["value"].startswith("ek_")
    assert report["instructions"] == "Only for this key."
    assert report["modalities"] == ["text"]

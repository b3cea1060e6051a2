"""The official JavaScript client, which insists on TLS."""

from __future__ import annotations

from tests.conformance.checking import same_words
from tests.conformance.javascript.conftest import API_KEY, Recording
from tests.conformance.javascript.node import run_script
from tests.conformance.javascript.reports import of_type, server_events
from tests.conformance.serving import RunningServer
from tinyvoice.benchmark.speech import Clip

TRANSCRIPTION = "conversation.item.input_audio_transcription"


async def test_transcription(
    secured: RunningServer, played: Recording, speech: dict[str, Clip]
) -> None:
    names = ("01", "06")  # their first words are sure early
    report = await run_script(
        "openai_transcription",
        baseURL=f"{secured.url}/v1",
        apiKey=API_KEY,
        recordings=[played(name, after=1.2) for name in names],
        speed=1,
    )
    assert report["errors"] == []
    events = server_events(report)
    completed = of_type(events, f"{TRANSCRIPTION}.completed")
    assert len(completed) == len(names)
    for name, turn in zip(names, completed, strict=True):
        assert same_words(speech[name].text or "", turn["transcript"])
        deltas = of_type(events, f"{TRANSCRIPTION}.delta")
        said = [event["delta"] for event in deltas if event["item_id"] == turn["item_id"]]
        assert "".join(said) == turn["transcript"]
        assert turn["logprobs"]
    kinds = [event["type"] for event in events]
    first = kinds.index(f"{TRANSCRIPTION}.delta")
    assert first < kinds.index("input_audio_buffer.speech_stopped"), "no words while one speaks"
    assert report["closeCode"] in (1000, 1005)


async def test_conversation(secured: RunningServer, played: Recording) -> None:
    report = await run_script(
        "openai_conversation",
        baseURL=f"{secured.url}/v1",
        apiKey=API_KEY,
        recording=played("17"),  # set a timer for eight hours and twelve minutes
        speed=4,
    )
    events = server_events(report)
    assert report["call"]["name"] == "set_timer"
    assert report["call"]["arguments"] == '{"hours": 8, "minutes": 12}'
    assert report["retrieved"] == report["call"]

    (answer,) = report["spoken"]["response"]["output"]
    assert answer["content"] == [{"type": "output_audio", "transcript": "The result is: it runs."}]
    assert of_type(events, "response.output_audio.delta")

    aside = report["written"]["response"]
    assert aside["output"][0]["content"] == [
        {"type": "output_text", "text": "You said: good morning."}
    ]
    assert (aside["conversation_id"], aside["metadata"]) == (None, {"topic": "aside"})

    (error,) = report["errors"]
    assert (error["code"], error["event_id"]) == ("response_cancel_not_active", "cancel_nothing")


async def test_beta(secured: RunningServer, played: Recording, speech: dict[str, Clip]) -> None:
    report = await run_script(
        "openai_beta",
        baseURL=f"{secured.url}/v1",
        apiKey=API_KEY,
        recording=played("02"),
        speed=4,
    )
    assert report["errors"] == []
    events = server_events(report, beta=True)
    updated = of_type(events, "session.updated")[0]["session"]
    assert updated["input_audio_format"] == "pcm16"
    assert updated["turn_detection"]["silence_duration_ms"] == 500

    (completed,) = of_type(events, f"{TRANSCRIPTION}.completed")
    assert same_words(speech["02"].text or "", completed["transcript"])
    said = [event["delta"] for event in of_type(events, "response.audio_transcript.delta")]
    assert "".join(said) == f"You said: {completed['transcript']}."
    assert of_type(events, "response.audio.delta")
    assert len(of_type(events, "conversation.item.created")) == 2
    (answer,) = report["response"]["output"]
    assert answer["content"] == [{"type": "audio", "transcript": "".join(said)}]

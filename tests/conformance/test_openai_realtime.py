"""`openai` Python 3.54.0 over WebSocket, GA protocol."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conformance.checking import same_words
from tests.conformance.conftest import Clients
from tinyvoice.benchmark.speech import Clip

Recording = Callable[..., Path]
Speech = dict[str, Clip]

STOPPED = "input_audio_buffer.speech_stopped"
COMPLETED = "conversation.item.input_audio_transcription.completed"
INTERIM = "conversation.item.input_audio_transcription.delta"
RESPONSE_OF_TEXT = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]


async def run(clients: Clients, scenario: str, *speech: Path, speed: float = 0.0) -> dict[str, Any]:
    return await clients.run("openai", "openai_realtime", scenario, *speech, speed=speed)


def kinds(types: list[str]) -> list[str]:
    """The types in order, repetitions of deltas left out."""
    return [t for n, t in enumerate(types) if not (n and t.endswith("delta") and types[n - 1] == t)]


async def test_a_typed_question_is_answered_in_writing(clients: Clients) -> None:
    report = await run(clients, "text_answer")
    assert report["session"].startswith("sess_")
    assert report["modalities"] == ["text"]
    assert report["added"] == report["deleted"] == "item_of_mine"
    assert report["text"] == "You said: Hello there, how are you?"
    assert report["status"] == "completed"
    assert report["output"][0]["content"][0]["text"] == report["text"]
    assert report["usage"]["total_tokens"] > 0
    assert report["retrieved"] == "Hello there, how are you?"
    types = kinds(report["types"])
    begin = types.index("response.created")
    assert types[begin : begin + len(RESPONSE_OF_TEXT)] == RESPONSE_OF_TEXT
    assert report["errors"] == []


async def test_a_typed_question_is_answered_in_speech(clients: Clients) -> None:
    report = await run(clients, "audio_answer")
    assert report["transcript"] == "You said: Hello there, how are you?"
    assert report["status"] == "completed"
    with wave.open(str(clients.folder / "answer.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert len(samples) / 24_000 > 1.0
    assert np.abs(samples).max() > 3_000, "the answer is silence"


async def test_speech_is_understood_and_answered(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await run(clients, "spoken_turn", recording("17"), speed=1.0)
    [transcript] = report["transcripts"].values()
    assert same_words(speech["17"].text or "", transcript)
    assert same_words(f"You said {speech['17'].text}", report["answer"])
    assert report["status"] == "completed"
    assert report["audio_seconds"] > 1.0
    types = report["types"]
    assert types.index(COMPLETED) < types.index("response.created")
    assert report["errors"] == []


async def test_a_turn_that_the_client_commits_is_understood_and_answered(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await run(clients, "manual_turn", recording("10"))
    assert report["turn_detection"] is None
    assert list(report["transcripts"]) == [report["committed"]]
    assert same_words(speech["10"].text or "", report["transcripts"][report["committed"]])
    assert same_words(f"You said {speech['10'].text}", report["answer"])
    assert not any("speech_" in kind for kind in report["types"])
    [error] = report["errors"]
    assert error["code"] == "input_audio_buffer_commit_empty"
    assert error["event_id"] == "too_soon"


async def test_a_function_is_called_and_its_output_answered(clients: Clients) -> None:
    report = await run(clients, "tool")
    assert report["tools"] == [report["name"]] == ["get_weather"]
    assert report["arguments"] == '{"city": "Paris"}'
    assert report["item"]["type"] == "function_call"
    assert report["item"]["status"] == "completed"
    assert report["item"]["arguments"] == report["arguments"]
    assert report["answer"] == "The result is: sunny."


async def test_speech_interrupts_an_answer_which_is_cut_to_what_was_heard(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await run(clients, "interrupted_by_speech", recording("05"), speed=4.0)
    assert (report["status"], report["reason"]) == ("cancelled", "turn_detected")
    assert report["audio_end_ms"] == 900
    whole = f"You said: {report['asked']}"
    assert whole.startswith(report["kept"].rstrip())
    assert 0 < len(report["kept"].split()) < 8
    [transcript] = report["transcripts"].values()
    assert same_words(speech["05"].text or "", transcript)


async def test_a_client_stops_an_answer(clients: Clients) -> None:
    report = await run(clients, "cancelled")
    assert (report["status"], report["reason"]) == ("cancelled", "client_cancelled")
    [error] = report["errors"]
    assert error["code"] == "response_cancel_not_active"
    assert error["event_id"] == "nothing_to_cancel"
    assert report["second"] == "completed"
    assert report["answer"] == "You said: Thank you."


async def test_a_response_beside_the_conversation(clients: Clients) -> None:
    report = await run(clients, "out_of_band")
    assert report["conversation"] is None
    assert report["metadata"] == {"purpose": "aside"}
    assert report["answer"] == "You said: Only this counts."
    assert not any(kind.startswith("conversation.") for kind in report["types"])


async def test_mistakes_are_answered_each_by_its_error_and_the_session_goes_on(
    clients: Clients,
) -> None:
    report = await run(clients, "mistakes")
    codes = {error["event_id"]: error["code"] for error in report["errors"]}
    assert set(codes) == {f"wrong_{n}" for n in range(1, 6)}
    assert codes["wrong_1"] == codes["wrong_2"] == "invalid_value"
    assert codes["wrong_3"] == "item_retrieve_invalid_item_id"
    assert report["same"], "the effective session, sent back, became another one"


async def test_an_ephemeral_key_carries_its_session(clients: Clients) -> None:
    report = await run(clients, "with_client_secret")
    assert report["value"].startswith("ek_")
    assert 0 < report["seconds"] <= 60
    assert report["described"] == report["instructions"] == "Only for this key."
    assert report["modalities"] == ["text"]
    assert report["answer"] == "You said: Hello."


async def test_words_come_while_they_are_spoken(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await run(clients, "transcription", recording("06"), recording("20"), speed=1.0)
    assert report["kind"] == "transcription"
    for name, (item, transcript) in zip(("06", "20"), report["transcripts"].items(), strict=True):
        assert same_words(speech[name].text or "", transcript)
        assert report["deltas"][item] == transcript
    assert all(values and max(values) <= 0.0 for values in report["logprobs"])
    assert all(usage["type"] == "duration" for usage in report["usage"])
    [connection] = clients.recorder.connections
    # Stable text is a matter of the model's sureness: these two begin with words it is sure of.
    early: set[str] = set()
    spoken: set[str] = set()
    for event in connection.events("server"):
        if event["type"] == STOPPED:
            spoken.add(event["item_id"])
        elif event["type"] == INTERIM and event["item_id"] not in spoken:
            early.add(event["item_id"])
    assert early == spoken == set(report["transcripts"])


async def test_turns_are_the_same_at_every_feeding_speed(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    names = ("00", "04", "12")
    files = [recording(name) for name in names]
    reports = [await run(clients, "transcription", *files, speed=s) for s in (1.0, 10.0, 0.0)]
    first = reports[0]
    for name, transcript in zip(names, first["transcripts"].values(), strict=True):
        assert same_words(speech[name].text or "", transcript)
    times = [at for _, at, _ in first["marks"]]
    assert len(times) == 2 * len(names)
    assert times == sorted(set(times))
    for other in reports[1:]:
        assert [(kind, at) for kind, at, _ in other["marks"]] == [
            (kind, at) for kind, at, _ in first["marks"]
        ]
        assert list(other["transcripts"].values()) == list(first["transcripts"].values())


async def test_a_conversation_is_the_same_at_every_feeding_speed(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    names = ("02", "04")
    files = [recording(name) for name in names]
    reports = [await run(clients, "conversation", *files, speed=s) for s in (1.0, 10.0, 0.0)]
    outlines = [outline(report) for report in reports]
    assert outlines[0] == outlines[1] == outlines[2]
    for name, transcript, answer in zip(
        names, reports[0]["transcripts"].values(), reports[0]["answers"], strict=True
    ):
        assert same_words(speech[name].text or "", transcript)
        assert answer == ["completed", f"You said: {transcript}."]
    assert all(report["errors"] == [] for report in reports)


def outline(report: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on when it was said; how text and sound are cut into deltas does."""
    return {
        "events": [kind for kind in report["types"] if not kind.endswith(".delta")],
        "marks": [(kind, at) for kind, at, _ in report["marks"]],
        "transcripts": list(report["transcripts"].values()),
        "answers": report["answers"],
        "audio_seconds": report["audio_seconds"],
    }


@pytest.mark.parametrize("speed", [0.0, 10.0])
async def test_turns_committed_one_right_after_the_other_stay_apart(
    clients: Clients, recording: Recording, speech: Speech, speed: float
) -> None:
    names = ("02", "11", "14")
    files = [recording(name) for name in names]
    report = await run(clients, "transcription_committed", *files, speed=speed)
    for name, transcript in zip(names, report["transcripts"].values(), strict=True):
        assert same_words(speech[name].text or "", transcript)
    assert report["deltas"] == report["transcripts"]

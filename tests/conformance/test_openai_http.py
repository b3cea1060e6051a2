"""`openai` Python 3.54.0 over HTTP: files, speech, models, calls."""

from __future__ import annotations

import re

from tests.conformance.checking import same_words, session_faults, word_error
from tests.conformance.conftest import Clients
from tests.conformance.test_openai_realtime import Recording, Speech

MOST_WORD_ERROR = 0.25


async def test_a_recording_in_every_format(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await clients.run("openai", "openai_http", "formats", recording("13"))
    text = speech["13"].text or ""
    assert same_words(text, report["json"])
    assert report["usage"]["type"] in ("duration", "tokens")
    assert report["logprobs"]
    assert max(report["logprobs"]) <= 0.0
    assert report["text"].strip() == report["json"]
    cue = r"00:00:0\d{sep}\d{{3}} --> 00:00:0\d{sep}\d{{3}}\n"
    assert re.match(r"1\n" + cue.format(sep=","), report["srt"])
    assert re.match(r"WEBVTT\n\n" + cue.format(sep=r"\."), report["vtt"])
    spoken = [line for line in report["srt"].splitlines() if re.search("[a-z]", line)]
    assert same_words(text, " ".join(spoken))
    verbose = report["verbose_json"]
    assert same_words(text, verbose["text"])
    assert verbose["language"] == "english"
    assert abs(verbose["duration"] - speech["13"].duration) < 0.1
    assert same_words(text, " ".join(word["word"] for word in verbose["words"]))
    starts = [word["start"] for word in verbose["words"]]
    assert starts == sorted(starts)
    assert same_words(text, " ".join(segment["text"] for segment in verbose["segments"]))
    # Who speaks is not recognised: saying so is better than one speaker made up for all.
    assert "speakers" in report["diarized_json"]


async def test_a_recording_as_a_stream_of_events(
    clients: Clients, recording: Recording, speech: Speech
) -> None:
    report = await clients.run("openai", "openai_http", "stream", recording("16", "11"))
    assert same_words(f"{speech['16'].text} {speech['11'].text}", report["done"])
    assert "".join(report["deltas"]) == report["done"]
    assert len(report["deltas"]) > 1


async def test_speech_in_every_format_is_understood_again(clients: Clients) -> None:
    report = await clients.run("openai", "openai_http", "speech")
    assert report["rate"] == 24_000
    assert report["streamed"] == report["sizes"]["pcm"] > 48_000
    for kind, text in report["again"].items():
        assert word_error(report["said"], text) <= MOST_WORD_ERROR, (kind, text)


async def test_models(clients: Clients) -> None:
    report = await clients.run("openai", "openai_http", "models")
    assert report["one"]["id"] == report["ids"][0]
    assert report["one"]["object"] == "model"
    assert report["missing"] == "model_not_found"


async def test_a_file_that_is_no_recording(clients: Clients) -> None:
    report = await clients.run("openai", "openai_http", "mistakes")
    assert report["status"] == 400
    assert report["type"] == "invalid_request_error"


async def test_a_webrtc_call(clients: Clients, recording: Recording, speech: Speech) -> None:
    report = await clients.run("openai", "openai_calls", "spoken_turn", recording("08"))
    assert report["status"] == 201
    assert report["content_type"].startswith("application/sdp")
    assert re.fullmatch(r"rtc_\w+", report["call_id"])
    assert same_words(speech["08"].text or "", report["transcript"])
    assert same_words(f"You said {report['transcript']}", report["answer"])
    assert report["loudest"] > 3_000, "the answer is silence"
    assert report["first_beside"] == "session.created"
    types = [event["type"] for event in report["events"]]
    assert "response.output_audio.delta" not in types
    # The data channel is no WebSocket that the relay could record: the client kept its events.
    assert session_faults([("server", event) for event in report["events"]]) == []

"""The AI SDK with its OpenAI provider."""

from __future__ import annotations

import base64
import io

from tests.conformance.checking import same_words
from tests.conformance.javascript.conftest import API_KEY, Recording
from tests.conformance.javascript.node import run_script
from tests.conformance.recording import Recorder
from tests.conformance.serving import RunningServer
from tinyvoice.audio.files import load_audio
from tinyvoice.benchmark.speech import Clip

UTTERANCE = "12"


async def test_streaming_transcription(
    recorder: Recorder, played: Recording, speech: dict[str, Clip]
) -> None:
    report = await run_script(
        "ai_sdk",
        scenario="stream",
        baseURL=f"{recorder.url}/v1",
        apiKey=API_KEY,
        recording=played(UTTERANCE),
        speed=4,
    )
    assert report["warnings"] == []
    assert same_words(speech[UTTERANCE].text or "", report["text"])
    deltas = [p["delta"] for p in report["parts"] if p["type"] == "transcript-delta"]
    assert "".join(deltas) == report["text"]
    kinds = [part["rawValue"]["type"] for part in report["parts"] if part["type"] == "raw"]
    first = kinds.index("conversation.item.input_audio_transcription.delta")
    assert first < kinds.index("input_audio_buffer.committed"), "no words before the end"


async def test_file_transcription(
    server: RunningServer, played: Recording, speech: dict[str, Clip]
) -> None:
    report = await run_script(
        "ai_sdk",
        scenario="file",
        baseURL=f"{server.url}/v1",
        apiKey=API_KEY,
        recording=played(UTTERANCE, rate=16_000),
    )
    timed = report["timed"]
    assert report["plain"] == timed["text"]
    assert same_words(speech[UTTERANCE].text or "", timed["text"])
    assert [segment["text"].strip() for segment in timed["segments"]] == timed["text"].split()
    starts = [segment["startSecond"] for segment in timed["segments"]]
    assert starts == sorted(starts)
    assert 2.0 < timed["durationInSeconds"] < 3.5
    assert timed["language"] == "en"


async def test_speech(server: RunningServer) -> None:
    report = await run_script(
        "ai_sdk",
        scenario="speech",
        baseURL=f"{server.url}/v1",
        apiKey=API_KEY,
        text="Good morning, and welcome.",
    )
    assert report["format"] == "wav"
    audio = load_audio(io.BytesIO(base64.b64decode(report["base64"])))
    assert abs(audio.samples).max() > 0.1

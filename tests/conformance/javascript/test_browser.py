"""Clients in headless Chromium: a call over WebRTC, and WebSockets, whose keys are subprotocols."""

from __future__ import annotations

from tests.conformance.checking import validation_faults, word_error
from tests.conformance.javascript.conftest import API_KEY, Recording
from tests.conformance.javascript.node import run_script
from tests.conformance.serving import RunningServer
from tinyvoice.benchmark.speech import Clip

UTTERANCE = "13"
STORY = "There was a server in a little house, and it spoke at length. " * 20
"""Its answer takes a minute to say."""


async def test_agents_call(
    server: RunningServer, browser: str, played: Recording, speech: dict[str, Clip]
) -> None:
    instructions = "Speak like a pirate."
    report = await run_script(
        "browser",
        scenario="call",
        browser=browser,
        baseURL=f"{server.url}/v1",
        apiKey=API_KEY,
        session={"type": "realtime", "model": "gpt-realtime", "instructions": instructions},
        story=STORY,
        # The microphone begins to play when it is opened, which is before there is a connection.
        microphone=played(UTTERANCE, before=4.0, after=1.0, rate=48_000),
    )
    assert report["problems"] == []
    assert report["secret"]["value"].startswith("ek_")
    result = report["result"]
    assert result["errors"] == []
    assert result["callId"].startswith("rtc_")
    assert word_error(speech[UTTERANCE].text or "", result["transcript"]) <= 0.25

    assert result["unrecognised"] == []
    assert validation_faults(result["events"], of_beta=False) == []
    kinds = [event["type"] for event in result["events"]]
    assert "response.output_audio.delta" not in kinds, "audio has a track of its own"
    created = result["events"][kinds.index("session.created")]
    assert created["session"]["instructions"] == instructions, "the key carries its session"

    assert result["silence"] < 0.001, "before anybody says anything"
    question, answer, _, story = [i for i in result["history"] if i["type"] == "message"]
    assert question["content"][0]["transcript"] == result["transcript"]
    assert answer["content"][0]["transcript"] == f"You said: {result['transcript']}."
    heard = story["content"][0]["transcript"]
    assert f"You said: {STORY}".startswith(heard)
    assert len(heard) < len(STORY) / 2, "the history must lack what was not heard"


async def test_agents_call_that_is_interrupted(
    secured: RunningServer, browser: str, played: Recording, speech: dict[str, Clip]
) -> None:
    names = (UTTERANCE, "08")
    report = await run_script(
        "browser",
        scenario="interruptedCall",
        browser=browser,
        baseURL=f"{secured.url}/v1",
        apiKey=API_KEY,
        session={"type": "realtime"},
        recordings=[played(name, rate=48_000) for name in names],
    )
    assert report["problems"] == []
    result = report["result"]
    assert result["errors"] == []
    for name, transcript in zip(names, result["completed"], strict=True):
        assert word_error(speech[name].text or "", transcript) <= 0.25
    first, second, third = [item for item in result["history"] if item["role"] == "assistant"]
    whole = f"You said: {result['completed'][0]}."
    heard = first["content"][0]["transcript"]
    assert whole.startswith(heard)
    assert heard != whole
    assert second["content"][0]["transcript"] == f"You said: {result['completed'][1]}."
    assert third["content"][0]["transcript"]
    assert result["unrecognised"] == []
    assert validation_faults(result["events"], of_beta=False) == []

    # The backend, which was there before anybody spoke, heard what the page heard.
    kinds = [event["type"] for event in result["events"]]
    spoken = result["events"][kinds.index("input_audio_buffer.speech_started") :]
    assert [event for event in spoken if event not in report["overheard"]] == []


async def test_agents_websocket(
    secured: RunningServer, browser: str, played: Recording, speech: dict[str, Clip]
) -> None:
    report = await run_script(
        "browser",
        scenario="socket",
        browser=browser,
        baseURL=f"{secured.url}/v1",
        apiKey=API_KEY,
        session={"type": "realtime"},
        recordings=[played(UTTERANCE, after=6.0)],
    )
    assert report["problems"] == []
    result = report["result"]
    assert result["errors"] == []
    assert result["protocol"] == "realtime"
    assert word_error(speech[UTTERANCE].text or "", result["transcript"]) <= 0.25
    assert result["response"]["status"] == "completed"
    assert result["audioBytes"] > 0
    assert result["unrecognised"] == []
    assert validation_faults(result["events"], of_beta=False) == []


async def test_official_client(
    secured: RunningServer, browser: str, played: Recording, speech: dict[str, Clip]
) -> None:
    turn_detection = {"type": "server_vad", "silence_duration_ms": 700}
    settings = {"transcription": {"model": "whisper-1"}, "turn_detection": turn_detection}
    report = await run_script(
        "browser",
        scenario="officialSocket",
        browser=browser,
        baseURL=f"{secured.url}/v1",
        apiKey=API_KEY,
        session={"type": "transcription", "audio": {"input": settings}},
        recordings=[played(UTTERANCE, after=1.5)],
    )
    assert report["problems"] == []
    result = report["result"]
    assert result["errors"] == []
    created = result["events"][0]["session"]
    assert created["type"] == "transcription"
    assert created["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 700
    assert word_error(speech[UTTERANCE].text or "", result["transcript"]) <= 0.25
    assert validation_faults(result["events"], of_beta=False) == []


async def test_agents_call_with_a_wrong_key(secured: RunningServer, browser: str) -> None:
    report = await run_script(
        "browser",
        scenario="refusal",
        browser=browser,
        baseURL=f"{secured.url}/v1",
        key="ek_wrong",
    )
    # What the page sees of it comes from the body: the refusal, too, may be read across origins.
    assert report["result"].startswith("Realtime call request failed with status 401: ")
    assert "key" in report["result"]

"""Clients in headless Chromium: a call over WebRTC, and WebSockets, whose keys are subprotocols."""

from __future__ import annotations

from typing import Any

from tests.conformance.checking import same_words
from tests.conformance.javascript.conftest import API_KEY, Recording
from tests.conformance.javascript.node import run_script
from tests.conformance.javascript.reports import server_events, spoken
from tests.conformance.serving import RunningServer
from tinyvoice.benchmark.speech import Clip

QUESTION, INTERRUPTION = "13", "08"
STORY = "There was a server in a little house, and it spoke at length. " * 20
"""Its answer takes a minute to say."""
SILENCE = 0.001
"""Of full scale, as in the page."""


async def in_browser(
    scenario: str, browser: str, server: RunningServer, **settings: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the script reports, and of that what the page does; neither saw an error."""
    report = await run_script(
        "browser",
        scenario=scenario,
        browser=browser,
        baseURL=f"{server.url}/v1",
        apiKey=API_KEY,
        **settings,
    )
    assert report["problems"] == []
    assert report["unrecognised"] == []
    assert report["result"]["errors"] == []
    return report, report["result"]


async def test_agents_call(
    server: RunningServer, browser: str, played: Recording, speech: dict[str, Clip]
) -> None:
    instructions = "Speak like a pirate."
    report, page = await in_browser(
        "call",
        browser,
        server,
        session={"type": "realtime", "model": "gpt-realtime", "instructions": instructions},
        story=STORY,
        # The microphone begins to play when it is opened, which is before there is a connection.
        microphone=played(QUESTION, before=4.0, after=1.0, rate=48_000),
    )
    events = server_events(page)
    assert report["secret"]["value"].startswith("ek_")
    assert events[0]["session"]["instructions"] == instructions, "the key carries its session"
    assert page["callId"].startswith("rtc_")
    kinds = {event["type"] for event in events}
    assert "response.output_audio.delta" not in kinds, "audio has a track of its own"

    assert page["silence"] < SILENCE, "before anybody said anything"
    assert same_words(speech[QUESTION].text or "", page["transcript"])
    question, answer, _, story = map(spoken, page["history"])
    assert question == page["transcript"]
    assert answer == f"You said: {question}."
    assert f"You said: {STORY}".startswith(story)
    assert len(story) < len(STORY) / 2, "the history must lack what was not heard"


async def test_agents_call_that_is_talked_over(
    secured: RunningServer, browser: str, played: Recording, speech: dict[str, Clip]
) -> None:
    names = (QUESTION, INTERRUPTION)
    report, page = await in_browser(
        "interruptedCall",
        browser,
        secured,
        session={"type": "realtime"},
        recordings=[played(name, rate=48_000) for name in names],
    )
    events = server_events(page)
    for name, transcript in zip(names, page["transcripts"], strict=True):
        assert same_words(speech[name].text or "", transcript)
    answers = [spoken(item) for item in page["history"] if item["role"] == "assistant"]
    heard, whole, backends = answers
    assert f"You said: {page['transcripts'][0]}".startswith(heard), "not all of it was heard"
    assert whole == f"You said: {page['transcripts'][1]}."
    assert backends

    # The backend, which was there before anybody spoke, heard what the page heard.
    kinds = [event["type"] for event in events]
    since = events[kinds.index("input_audio_buffer.speech_started") :]
    assert [event for event in since if event not in report["overheard"]] == []


async def test_agents_websocket(
    secured: RunningServer, browser: str, played: Recording, speech: dict[str, Clip]
) -> None:
    _, page = await in_browser(
        "socket",
        browser,
        secured,
        session={"type": "realtime"},
        recordings=[played(QUESTION, after=6.0)],
    )
    server_events(page)
    assert page["protocol"] == "realtime"
    assert same_words(speech[QUESTION].text or "", page["transcript"])
    assert page["response"]["status"] == "completed"
    assert page["audioBytes"] > 0


async def test_official_client(
    secured: RunningServer, browser: str, played: Recording, speech: dict[str, Clip]
) -> None:
    turn_detection = {"type": "server_vad", "silence_duration_ms": 700}
    settings = {"transcription": {"model": "whisper-1"}, "turn_detection": turn_detection}
    _, page = await in_browser(
        "officialSocket",
        browser,
        secured,
        session={"type": "transcription", "audio": {"input": settings}},
        recordings=[played(QUESTION, after=1.5)],
    )
    created = server_events(page)[0]["session"]
    assert created["type"] == "transcription"
    assert created["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 700
    assert same_words(speech[QUESTION].text or "", page["transcript"])


async def test_agents_call_with_a_wrong_key(secured: RunningServer, browser: str) -> None:
    _, page = await in_browser("refusedCall", browser, secured, key="ek_wrong")
    # What the page sees of it comes from the body: the refusal, too, may be read across origins.
    assert page["refusal"].startswith("Realtime call request failed with status 401: ")
    assert "key" in page["refusal"]

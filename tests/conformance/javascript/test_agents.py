"""The agents SDK for JavaScript, under Node."""

from __future__ import annotations

from tests.conformance.checking import same_words
from tests.conformance.javascript.conftest import API_KEY, Recording
from tests.conformance.javascript.node import run_script
from tests.conformance.javascript.reports import spoken
from tests.conformance.recording import Recorder
from tinyvoice.benchmark.speech import Clip

GREETING, QUESTION, INTERRUPTION, SUM = "05", "13", "08", "04"
STORY = "There was a server in a little house, and it spoke at length. " * 40
"""Its answer is two minutes of speech, which is still being made when it is interrupted."""


async def test_conversation(recorder: Recorder, played: Recording, speech: dict[str, Clip]) -> None:
    report = await run_script(
        "agents_conversation",
        url=f"{recorder.url.replace('http', 'ws', 1)}/v1/realtime?model=gpt-realtime",
        apiKey=API_KEY,
        greeting=played(GREETING),
        question=played(QUESTION),
        interruption=played(INTERRUPTION, before=1.0),
        sum=played(SUM),
        story=STORY,
        speed=4,
    )
    assert report["errors"] == []
    assert report["unrecognised"] == []
    assert report["audioBytes"] > 0

    history = report["history"]
    said = [spoken(item) for item in history if item.get("role") == "user"]
    assert len(said) == 6
    for name, transcript in zip((GREETING, QUESTION, INTERRUPTION, SUM), said[:4], strict=True):
        assert same_words(speech[name].text or "", transcript)
    assert said[4] == "good night"

    answers = [item for item in history if item.get("role") == "assistant"]
    assert spoken(answers[0]) == f"You said: {said[0]}."
    assert spoken(answers[-2]) == "You said: good night."

    assert report["interruptions"] >= 1
    (cut,) = [item for item in answers if item["itemId"] == report["interrupted"]]
    whole = f"You said: {said[1]}."
    assert whole.startswith(spoken(cut)), "what was not heard must be gone"
    assert 0 < len(spoken(cut)) < len(whole)

    assert report["called"] == [{"a": 29, "b": 7}]
    assert report["results"] == [{"name": "times", "result": "203"}]
    (call,) = [item for item in history if item["type"] == "function_call"]
    assert (call["status"], call["output"]) == ("completed", "203")
    assert "The result is: 203." in map(spoken, answers)

    cancelled = report["cancelled"]
    assert cancelled["status"] == "cancelled"
    assert cancelled["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert cancelled["output"][0]["status"] == "incomplete"
    assert len(spoken(answers[-1])) < len(STORY)

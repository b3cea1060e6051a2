"""Recorded conversations with the assistant: its script, a real endpoint, and all that fails."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from agents import assistant
from agents.assistant import answer
from agents.settings import AgentSettings
from tests.agents.talk import talking
from tests.realtime.backends.model_server import ModelServer, RunningServer
from tinyvoice.integrations.scripted_llm import Call, Result, Turn
from tinyvoice.model.modeling import ASRModel
from tinyvoice.voices.espeak_process import EspeakProcess


@pytest.fixture(scope="module")
def endpoint() -> Iterator[ModelServer]:
    with RunningServer() as server:
        yield server


async def test_the_script_uses_its_tools_and_survives_one_that_raises(
    model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    async with talking(lambda t: assistant.build_pipeline(t, settings), model, mouth) as talk:
        heard = await talk.answer("what is twenty nine times seven", "the answer is")
        assert heard == "the answer is two hundred three"
        await talk.answer("what is seven divided by zero", "that did not work")
        await talk.answer("set a timer for ten minutes", "i have set a timer")


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ("slow", "how are you"),
        ("once-cut-off", "my answer was cut off"),
        ("once-ends-early", "my answer was cut off"),
        ("once-no-key", "check the settings"),
        ("once-busy", "busy please"),
        ("once-broken", "not answer"),
        ("once-silent", "not answer"),
    ],
)
async def test_an_endpoint_answers_or_its_failure_is_told_and_the_talk_goes_on(
    behaviour: str,
    expected: str,
    endpoint: ModelServer,
    model: ASRModel,
    mouth: EspeakProcess,
    settings: AgentSettings,
) -> None:
    endpoint.failed.clear()
    patience = 0.3 if behaviour in ("slow", "once-silent") else 60.0
    silence = 3.0 if behaviour == "once-silent" else 60.0
    settings = replace(
        settings,
        llm_url=endpoint.url,
        llm_model=behaviour,
        llm_silence_s=silence,
        patience_s=patience,
    )
    async with talking(lambda t: assistant.build_pipeline(t, settings), model, mouth) as talk:
        heard = await talk.answer("tell me a joke", expected)
        assert heard.startswith("one moment please") == (patience < 1)
        assert ("hello there" in heard) == (
            behaviour in ("slow", "once-cut-off", "once-ends-early")
        )
        await talk.answer("tell me a story", "hello there how are you")


async def test_an_endpoint_that_is_not_there_is_told(
    model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, and nobody listens
        settings = replace(settings, llm_url=f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
        async with talking(lambda t: assistant.build_pipeline(t, settings), model, mouth) as talk:
            await talk.answer("tell me a joke", "i cannot reach the language")
            await talk.answer("tell me a story", "i cannot reach the language")


async def test_an_endless_answer_stops_when_the_person_speaks(
    endpoint: ModelServer, model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    endpoint.left.clear()
    settings = replace(settings, llm_url=endpoint.url, llm_model="endless", word_times=True)
    async with talking(lambda t: assistant.build_pipeline(t, settings), model, mouth) as talk:
        before = talk.output.interruptions
        await talk.say("tell me a story")
        await talk.say("stop")
        await talk.until(lambda: talk.output.interruptions > before)
    assert endpoint.left.wait(20)  # the endpoint is told as well


@pytest.mark.parametrize(
    ("said", "call"),
    [
        (
            "what's eight divided by two",
            Call("calculate", {"left": 8, "operator": "divided by", "right": 2}),
        ),
        ("set a timer for two hours", Call("set_timer", {"minutes": 120})),
        ("what time is it", Call("current_time")),
    ],
)
def test_what_the_script_makes_of_words(said: str, call: Call) -> None:
    assert answer(Turn(said, (), ())) == call


def test_what_the_script_says_of_results() -> None:
    def after(name: str, output: object) -> object:
        return answer(Turn("", (Result(name, output),), ()))

    assert after("current_time", {"time": "18:20", "day": "Monday 23 November"}) == (
        "It is 18:20 on Monday 23 November."
    )
    assert after("calculate", {"value": 2.5}) == "The answer is 2.5."

"""Whatever fails is said in plain words, and the conversation goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import Any

import numpy as np
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.llm_service import FunctionCallParams
from pipecat.transports.base_transport import BaseTransport

from agents import parrot
from agents.conversation import aggregators, worker_for
from agents.settings import AgentSettings
from tests.agents.talk import RATE, talking
from tinyvoice.engine import EngineSettings
from tinyvoice.integrations import EspeakTTSService, PipecatASRService
from tinyvoice.integrations.scripted_llm import Call, Reply, Script, Turn
from tinyvoice.integrations.spoken_failures import SpokenFailures
from tinyvoice.model.modeling import ASRModel
from tinyvoice.voices.espeak_process import EspeakProcess

PATIENCE_S = 120.0
"""Longer than any answer takes, so that none is excused that a test does not hold up."""


def agent(
    transport: BaseTransport,
    settings: AgentSettings,
    script: Script,
    *tools: Any,
    hearing: PipecatASRService | None = None,
    voice: EspeakTTSService | None = None,
    patience_s: float = PATIENCE_S,
) -> PipelineWorker:
    """An agent as those of the folder are made, of what a test wants to fail."""
    hearing = hearing or settings.hearing()
    llm = settings.language_model(script, "")
    context = aggregators(LLMContext(tools=list(tools)) if tools else LLMContext())
    return worker_for(
        Pipeline(
            [
                transport.input(),
                hearing,
                context.user(),
                llm,
                SpokenFailures(llm, hearing, patience_s=patience_s),
                voice or settings.speech(),
                transport.output(),
                context.assistant(),
            ]
        )
    )


def repeat(turn: Turn) -> Reply:
    return turn.said


def use(name: str) -> Script:
    """Calls a function for the first sentence, and repeats the others."""
    asked = 0

    def script(turn: Turn) -> Reply:
        nonlocal asked
        if turn.results:
            return "That did not work." if turn.results[-1].failed else turn.results[-1].output
        asked += 1
        return Call(name) if asked == 1 else turn.said

    return script


async def test_a_slow_tool_is_excused_and_its_result_told(
    model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    excused = asyncio.Event()

    async def look_up(params: FunctionCallParams) -> None:
        """Look something up."""
        await excused.wait()
        await params.result_callback("what a lovely day")

    def hasty(transport: BaseTransport) -> PipelineWorker:
        return agent(transport, settings, use("look_up"), look_up, patience_s=0.3)

    async with talking(hasty, model, mouth) as talk:
        await talk.answer("tell me a story", "one moment please")
        excused.set()
        await talk.hears("what a lovely day")
        # A machine that is busy makes this answer a slow one, too.
        assert (await talk.answer("tell me a joke", "joke")).endswith("tell me a joke")


async def test_a_tool_that_never_returns_is_given_up(
    model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    async def look_up(params: FunctionCallParams) -> None:
        """Look something up."""
        await asyncio.Event().wait()

    settings = replace(settings, tool_s=1.0)
    async with talking(lambda t: agent(t, settings, use("look_up"), look_up), model, mouth) as talk:
        await talk.answer("tell me a story", "did not work")
        assert await talk.answer("tell me a joke", "joke") == "tell me a joke"


async def test_a_script_that_raises_is_told(
    model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    def script(turn: Turn) -> Reply:
        if "story" in turn.said:
            raise KeyError("story")
        return turn.said

    async with talking(lambda t: agent(t, settings, script), model, mouth) as talk:
        await talk.answer("tell me a story", "something went wrong")
        assert await talk.answer("tell me a joke", "joke") == "tell me a joke"


async def test_an_agent_without_a_place_in_the_engine_says_so_and_asks_again(
    model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    only_one = EngineSettings(max_streams=1)
    engine = await PipecatASRService.load(engine_settings=only_one)
    other = engine.stream(16_000)
    await other.open()
    hearing = PipecatASRService(engine_settings=only_one, turn_mode="model")
    async with talking(lambda t: agent(t, settings, repeat, hearing=hearing), model, mouth) as talk:
        await talk.hears("i cannot hear you")
        other.drop()
        await talk.feed(np.zeros(2 * RATE, dtype=np.float32))  # it asks again once a second
        assert await talk.answer("tell me a joke", "joke") == "tell me a joke"


async def test_a_voice_that_dies_in_the_middle_of_a_text_speaks_it_all_the_same(
    model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    voice = settings.speech()
    killed = False

    def script(turn: Turn) -> Reply:
        nonlocal killed
        if not killed:
            killed = True
            for process in voice._voice._all:
                # Stopped first, so that it takes the text, and ends instead of speaking it.
                os.kill(process._process.pid, signal.SIGSTOP)
                asyncio.get_running_loop().call_later(
                    0.5, os.kill, process._process.pid, signal.SIGKILL
                )
        return turn.said

    async with talking(lambda t: agent(t, settings, script, voice=voice), model, mouth) as talk:
        assert await talk.answer("tell me a story", "story") == "tell me a story"
        assert await talk.answer("tell me a joke", "joke") == "tell me a joke"


async def test_who_says_nothing_is_asked_once(
    model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    settings = replace(settings, idle_s=0.5)
    async with talking(lambda t: parrot.build_pipeline(t, settings), model, mouth) as talk:
        await talk.hears("are you still there")
        spoken = talk.output.stops
        await talk.until(lambda: talk.output.stops >= spoken)
        await asyncio.sleep(3 * settings.idle_s)  # nothing is to come, so that nothing is awaited
        assert talk.heard().count("still there") == 1
        await talk.answer("tell me a joke", "tell me a joke")

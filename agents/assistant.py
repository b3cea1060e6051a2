"""An assistant: any OpenAI-compatible language model, with tools, that can be interrupted.

    tinyvoice agent assistant --llm-url http://127.0.0.1:11434/v1 --llm-model qwen3

Without an endpoint it follows the script below, which can tell the time, calculate and set timers.
A tool is an async function with a docstring; what it hands to ``result_callback`` the language
model reads. One that raises is no harm: the language model is told that it failed.
"""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import Any

from pipecat.frames.frames import TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.llm_service import FunctionCallParams
from pipecat.transports.base_transport import BaseTransport

from tinyvoice.integrations.scripted_llm import Call, Reply, Turn
from tinyvoice.integrations.spoken_failures import SpokenFailures

from .conversation import aggregators, hold, worker_for
from .settings import AgentSettings
from .spoken_numbers import numbers_in

GREETING = "Hello. How can I help you?"
INSTRUCTIONS = """\
You are a voice assistant. Your answers are spoken: one to three short sentences, no lists, no
symbols, no markup. What you read was written down by a speech recogniser and may be misheard: if it
makes no sense, ask. Use the tools for times, calculations and timers. If a tool fails, say so.
"""
MOST_MINUTES = 24 * 60


async def current_time(params: FunctionCallParams) -> None:
    """Tell the current date and time of day."""
    now = datetime.now()
    await params.result_callback({"time": now.strftime("%H:%M"), "day": now.strftime("%A %d %B")})


async def calculate(params: FunctionCallParams, left: float, operator: str, right: float) -> None:
    """Calculate.

    Args:
        left: The first number.
        operator: One of plus, minus, times, divided by.
        right: The second number.
    """
    operations = {
        "plus": lambda: left + right,
        "minus": lambda: left - right,
        "times": lambda: left * right,
        "divided by": lambda: left / right,
    }
    value = round(float(operations[operator]()), 4)
    await params.result_callback({"value": int(value) if value.is_integer() else value})


class Timers:
    """Timers of one conversation; they speak when they are up."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    async def set_timer(self, params: FunctionCallParams, minutes: float) -> None:
        """Set a timer.

        Args:
            minutes: After how many minutes it is up.
        """
        if not 0 < minutes <= MOST_MINUTES:
            raise ValueError(f"A timer runs for up to {MOST_MINUTES} minutes.")
        task = asyncio.create_task(self._ring(params.pipeline_worker, minutes))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await params.result_callback({"minutes": minutes})

    def stop(self) -> None:
        """Forget all of them."""
        for task in self._running:
            task.cancel()

    async def _ring(self, worker: PipelineWorker, minutes: float) -> None:
        await asyncio.sleep(60 * minutes)
        await worker.queue_frame(TTSSpeakFrame("Your timer is up."))


# --- the script that stands in for a language model ---------------------------------------------

_CALCULATION = re.compile(r"(.+?)\b(plus|minus|times|divided by)\b(.+)")
_TIMER = re.compile(r"\btimer\b.*?\b(hour|minute|second)s?\b")
_IN_MINUTES = {"hour": 60.0, "minute": 1.0, "second": 1 / 60}
HELP = "I can tell the time, calculate and set a timer."


def answer(turn: Turn) -> Reply:
    """What the words ask for, if it is one of the three."""
    if turn.results:
        return _after(turn)
    said = turn.said.lower()
    if calculation := _CALCULATION.search(said):
        left, right = numbers_in(calculation[1])[-1:], numbers_in(calculation[3])[:1]
        if left and right:
            arguments = {"left": left[0], "operator": calculation[2], "right": right[0]}
            return Call("calculate", arguments)
    if (timer := _TIMER.search(said)) and numbers_in(said):
        return Call("set_timer", {"minutes": numbers_in(said)[0] * _IN_MINUTES[timer[1]]})
    if re.search(r"\btime\b|\bdate\b|\bday\b", said):
        return Call("current_time")
    if re.search(r"\b(?:hello|hi|good (?:morning|evening|afternoon))\b", said):
        return f"Hello. {HELP}"
    return HELP


def _after(turn: Turn) -> str:
    result = turn.results[-1]
    if result.failed:
        return "Sorry, that did not work."
    output: dict[str, Any] = result.output
    if result.name == "calculate":
        return f"The answer is {output['value']}."
    if result.name == "set_timer":
        return "I have set a timer."
    return f"It is {output['time']} on {output['day']}."


def build_pipeline(transport: BaseTransport, settings: AgentSettings) -> PipelineWorker:
    """Ear, language model or script with the tools, voice."""
    hearing = settings.hearing()
    timers = Timers()
    llm = settings.language_model(answer, INSTRUCTIONS)
    context = aggregators(
        LLMContext(tools=[current_time, calculate, timers.set_timer]), settings.idle_s
    )
    worker = worker_for(
        Pipeline(
            [
                transport.input(),
                hearing,
                context.user(),
                llm,
                SpokenFailures(llm, hearing, patience_s=settings.patience_s),
                settings.speech(),
                transport.output(),
                context.assistant(),
            ]
        )
    )

    @worker.event_handler("on_pipeline_finished")
    async def _finished(_worker: PipelineWorker, _frame: Any) -> None:
        timers.stop()

    return worker


async def run(transport: BaseTransport, settings: AgentSettings) -> None:
    """Hold one conversation."""
    await hold(build_pipeline(transport, settings), transport, GREETING)

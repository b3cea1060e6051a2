"""`ScriptedLLMService` between Pipecat's aggregators: words, function calls, failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMRunFrame,
    LLMTextFrame,
)
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.services.llm_service import FunctionCallParams
from pipecat.tests.utils import run_test
from pipecat.utils.errors import ErrorCategory

from tinyvoice.benchmark.pipecat_stt import pipeline
from tinyvoice.integrations import ScriptedLLMService
from tinyvoice.integrations.scripted_llm import Call, Reply, Result, Script, Turn, turn_of


def asked(*words: str, tools: Any = None) -> LLMContext:
    messages: list[Any] = [{"role": "user", "content": text} for text in words]
    return LLMContext(messages, tools) if tools else LLMContext(messages)


class Listener(BaseObserver):
    """Keeps the frames that processors push, until so many answers are at their end."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.frames: dict[int, Frame] = {}
        self.over = asyncio.Event()
        self._answers = answers

    async def on_push_frame(self, data: FramePushed) -> None:
        self.frames[data.frame.id] = data.frame
        if len(self.of(LLMFullResponseEndFrame)) == self._answers:
            self.over.set()

    def of(self, kind: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames.values() if isinstance(frame, kind)]


async def answers(script: Script, context: LLMContext, count: int = 1) -> Listener:
    """What the service pushes between the aggregators, in so many answers."""
    service, pair = ScriptedLLMService(script), LLMContextAggregatorPair(context)
    listener = Listener(count)
    async with pipeline([pair.user(), service, pair.assistant()], listener) as worker:
        await worker.queue_frame(LLMRunFrame())
        async with asyncio.timeout(120):
            await listener.over.wait()
    return listener


async def test_words_come_in_pieces_between_start_and_end() -> None:
    service = ScriptedLLMService(lambda turn: f"You said: {turn.said}.")
    down, _ = await run_test(
        service, frames_to_send=[LLMContextFrame(asked("good morning"))], start_timeout=20.0
    )
    kinds = [LLMFullResponseStartFrame, LLMTextFrame, LLMFullResponseEndFrame]
    frames = [frame for frame in down if isinstance(frame, tuple(kinds))]
    assert isinstance(frames[0], LLMFullResponseStartFrame)
    assert isinstance(frames[-1], LLMFullResponseEndFrame)
    pieces = [frame.text for frame in frames if isinstance(frame, LLMTextFrame)]
    assert pieces == ["You", " said:", " good", " morning."]


async def test_an_answer_may_be_awaited_or_stream() -> None:
    async def awaited(turn: Turn) -> Reply:
        return "one two"

    async def streamed() -> AsyncIterator[str]:
        yield "one"
        yield " two"

    for script in (awaited, lambda turn: streamed()):
        context = asked("hello")
        await answers(script, context)
        assert context.messages[-1] == {"role": "assistant", "content": "one two"}


async def test_functions_are_called_and_their_results_answered() -> None:
    async def add(params: FunctionCallParams, left: int, right: int) -> None:
        """Add.

        Args:
            left: A number.
            right: Another.
        """
        await params.result_callback({"sum": left + right})

    def script(turn: Turn) -> Reply:
        if turn.results:
            return f"{turn.said}: {turn.results[-1].output['sum']}"
        return Call("add", {"left": 2, "right": 3})

    context = asked("two and three", tools=[add])
    assert not (await answers(script, context, 2)).of(ErrorFrame)
    assert context.messages[-1] == {"role": "assistant", "content": "two and three: 5"}
    assert turn_of(context).results == ()


@pytest.mark.parametrize("name", ["broken", "unknown"])
async def test_a_tool_that_fails_is_a_result_too(name: str) -> None:
    async def broken(params: FunctionCallParams) -> None:
        """Fail."""
        raise OSError("the disk is full")

    turns: list[Turn] = []

    def script(turn: Turn) -> Reply:
        turns.append(turn)
        return "That did not work." if turn.results else Call(name)

    errors = (await answers(script, asked("go", tools=[broken]), 2)).of(ErrorFrame)
    assert turns[-1].results[0].failed
    if name == "broken":
        assert errors[0].category is ErrorCategory.APPLICATION


async def test_a_script_that_raises_ends_its_answer_and_is_told() -> None:
    seen = await answers(lambda turn: str(1 // 0), asked("go"))
    assert "The script failed" in seen.of(ErrorFrame)[0].error
    assert not seen.of(LLMTextFrame)


def test_a_turn_is_the_last_words_and_what_came_since() -> None:
    call: Any = {
        "role": "assistant",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        ],
    }
    history: list[Any] = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "what is"},
        {"role": "user", "content": [{"type": "text", "text": "there"}]},
        call,
        {"role": "tool", "tool_call_id": "a", "content": '{"a": 1}'},
    ]
    turn = turn_of(LLMContext(history))
    assert (turn.said, turn.results) == ("there", (Result("look", {"a": 1}),))
    assert turn_of(LLMContext([*history, {"role": "user", "content": "and now"}])).said == "and now"

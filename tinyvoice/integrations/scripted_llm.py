"""A language model that is a plain Python function, behind Pipecat's interface for such services.

With it an agent runs without a network and without a key, and its tests say the same every time.
A script is called once for each turn, and again when the functions that it called have returned:

    def script(turn: Turn) -> Reply:
        if turn.results:
            return f"It is {turn.results[-1].output} o'clock."
        if "time" in turn.said:
            return Call("current_time")
        return "I only know the time."

Function calls take the same way as those of any other model: the same tools, registered or
advertised in the context, run by Pipecat. Written against pipecat-ai 1.14.
"""

from __future__ import annotations

import inspect
import json
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipecat.frames.frames import (
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.llm_service import FunctionCallFromLLM, LLMService
from pipecat.services.settings import LLMSettings
from pipecat.utils.errors import ErrorCategory

_PIECES = re.compile(r"\s*\S+\s*$|\s*\S+")


@dataclass(frozen=True)
class Call:
    """The wish to have a function called."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a function returned."""

    name: str
    output: Any
    """As the function gave it; where it raised, Pipecat's sentence that it failed."""

    @property
    def failed(self) -> bool:
        """Whether the function raised, is unknown, or was cancelled."""
        return isinstance(self.output, str) and (
            self.output == f"The function `{self.name}` failed and returned no result."
            or self.output == f"The function `{self.name}` is not currently available."
            or self.output == "CANCELLED"
        )


@dataclass(frozen=True)
class Turn:
    """What a script answers."""

    said: str
    """The user's last words; those before were handed to the script before."""
    results: tuple[Result, ...]
    """Of the functions called since; none where the user has just spoken."""
    messages: Sequence[Any]
    """The whole conversation, as Pipecat keeps it."""


Reply = str | Call | Sequence[Call] | AsyncIterator[str]
"""Words, all at once or as they come; or functions to be called. No words are no answer."""

Script = Callable[[Turn], Reply | Awaitable[Reply]]


class ScriptedLLMService(LLMService):
    """Answers as its script says. A script that raises is reported as any model that fails."""

    def __init__(self, script: Script, **kwargs: Any) -> None:
        """``kwargs`` are those of Pipecat's language model services."""
        store = LLMSettings(
            model="script",
            system_instruction=None,
            temperature=None,
            max_tokens=None,
            top_p=None,
            top_k=None,
            frequency_penalty=None,
            presence_penalty=None,
            seed=None,
            filter_incomplete_user_turns=False,
            user_turn_completion_config=None,
        )
        super().__init__(settings=store, **kwargs)
        self._script = script

    def can_generate_metrics(self) -> bool:
        """Times are measured."""
        return True

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answer each context that comes."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await self.push_frame(LLMFullResponseStartFrame())
        await self.start_processing_metrics()
        try:
            await self._answer(frame.context)
        except Exception as error:  # the script's own: the conversation goes on
            await self.push_error(
                f"The script failed: {error}", exception=error, category=ErrorCategory.UNKNOWN
            )
        finally:
            await self.stop_processing_metrics()
            await self.push_frame(LLMFullResponseEndFrame())

    async def _answer(self, context: LLMContext) -> None:
        await self.start_ttfb_metrics()
        reply = self._script(turn_of(context))
        if inspect.isawaitable(reply):
            reply = await reply
        await self.stop_ttfb_metrics()
        if isinstance(reply, Call):
            reply = [reply]
        if isinstance(reply, str):
            for piece in _PIECES.findall(reply):
                await self._push_llm_text(piece)
        elif isinstance(reply, AsyncIterator):
            async for piece in reply:
                await self._push_llm_text(piece)
        else:
            await self.run_function_calls(
                [
                    FunctionCallFromLLM(
                        context=context,
                        tool_call_id=f"call_{secrets.token_hex(8)}",
                        function_name=call.name,
                        arguments=dict(call.arguments),
                    )
                    for call in reply
                ]
            )


def turn_of(context: LLMContext) -> Turn:
    """What of a context is to be answered."""
    messages: list[Any] = [message for message in context.messages if isinstance(message, dict)]
    names: dict[str, str] = {}
    said = ""
    results: list[Result] = []
    for message in messages:
        role = message.get("role")
        if role == "user":
            said, results = _text(message.get("content")), []
        elif role == "assistant" and message.get("tool_calls"):
            for call in message["tool_calls"]:
                names[call["id"]] = call["function"]["name"]
        elif role == "assistant":
            said, results = "", []
        elif role == "tool":
            name = names.get(message.get("tool_call_id", ""), "")
            results.append(Result(name, _output(message.get("content"))))
    return Turn(said, tuple(results), messages)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content.strip()
    parts = content if isinstance(content, list) else []
    return " ".join(part["text"] for part in parts if part.get("type") == "text").strip()


def _output(content: Any) -> Any:
    """Pipecat keeps results as JSON."""
    try:
        return json.loads(content)
    except (TypeError, ValueError):
        return content

"""The language model that is none: it answers what the user said, by rule, without any download.

With it a fresh installation holds a conversation, and a client can be tried to its last event
without a network. Its rules, of which the first that fits is followed:

1. The conversation ends in function outputs: it says them.
2. The tool choice names a function, or is ``required``: it calls that function, or the one that
   fits the user's words best, or else the first.
3. Tools fit the user's words: it calls the one that fits best, and with parallel tool calls allowed
   every one whose name is mentioned. A tool fits if the user says a word of its name or two words
   of its description; words like "get" or "the" do not count, and a plural counts as its singular.
4. The user said something: "You said: …".
5. The user was silent, or sent only an image: it says so. Nobody has said anything: it greets.

Arguments are filled by :mod:`arguments`. A token is a word here. It has no memory and no manners:
instructions change nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from tinyvoice.realtime.backends.arguments import fill_arguments
from tinyvoice.realtime.backends.conversation import (
    chosen_function,
    function_tools,
    message_text,
    parts,
)
from tinyvoice.realtime.backends.interface import (
    Finished,
    Item,
    ModelEvent,
    ResponseRequest,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
)

Tool = Mapping[str, Any]

_MOST_CALLS = 4
_DELTA_CHARACTERS = 16
"""Of a call's arguments, so that clients see several deltas."""
_PIECES = re.compile(r"\s*\S+")
_WORDS = re.compile(r"[^\W_]+")
_COMMON = frozenset(
    "a an and any are as at be by can do does for from function get give has have how i if in is "
    "it its make me my of on or please return returns set so some tell that the their them then "
    "there this to tool use used user using want what when where which who will with you your "
    "current given call".split()
)


class EchoModel:
    """The built-in language model."""

    name = "echo"

    async def open(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to give back."""

    async def reply(self, request: ResponseRequest) -> AsyncIterator[ModelEvent]:
        """Answer by the rules of this module; never fails."""
        budget = _Budget(request)
        said = _said_by_user(request.items)
        outputs = _closing_outputs(request.items)
        tools = [] if outputs else _called(request, said or "")
        if tools:
            for tool in tools:
                async for event in _call(tool, said or "", budget):
                    yield event
        else:
            text = _output_sentence(outputs) if outputs else _answer(request.items, said)
            for piece in _PIECES.findall(text):
                if not budget.take():
                    break
                yield TextDelta(piece)
                await asyncio.sleep(0)  # like any model, it lets others run between tokens
        yield budget.finished()


class _Budget:
    """Counts tokens, that is words, against the request's limit."""

    def __init__(self, request: ResponseRequest) -> None:
        self.limit = request.max_output_tokens
        self.input = sum(len(_PIECES.findall(message_text(item))) for item in request.items)
        self.input += len(_PIECES.findall(request.instructions))
        self.output = 0
        self.exceeded = False

    def take(self) -> bool:
        if self.limit is not None and self.output >= self.limit:
            self.exceeded = True
            return False
        self.output += 1
        return True

    def finished(self) -> Finished:
        usage = Usage(self.input, self.output)
        return Finished("max_output_tokens" if self.exceeded else "completed", usage)


async def _call(tool: Tool, said: str, budget: _Budget) -> AsyncIterator[ModelEvent]:
    if not budget.take():
        return
    call_id = f"call_{secrets.token_hex(10)}"
    arguments = json.dumps(fill_arguments(tool.get("parameters"), said), ensure_ascii=False)
    yield ToolCallStarted(call_id, tool["name"])
    for start in range(0, len(arguments), _DELTA_CHARACTERS):
        yield ToolCallDelta(call_id, arguments[start : start + _DELTA_CHARACTERS])
        await asyncio.sleep(0)
    yield ToolCallDone(call_id, tool["name"], arguments)


def _called(request: ResponseRequest, said: str) -> list[Tool]:
    """The tools to call, in the order in which they were given; [] for an answer in words."""
    tools = function_tools(request)
    name = chosen_function(request)
    if name is not None:
        return [tool for tool in tools if tool["name"] == name][:1]
    spoken = _content_words(said)
    named = [len(spoken & _content_words(tool["name"])) for tool in tools]
    described = [len(spoken & _content_words(str(tool.get("description") or ""))) for tool in tools]
    fits = [2 * n + d if n or d > 1 else 0 for n, d in zip(named, described, strict=True)]
    if tools and (any(fits) or request.tool_choice == "required"):
        mentioned = [tool for tool, count in zip(tools, named, strict=True) if count]
        if request.parallel_tool_calls and len(mentioned) > 1:
            return mentioned[:_MOST_CALLS]
        return [tools[fits.index(max(fits))]]
    return []


def _content_words(text: str) -> set[str]:
    """Lower-case words that say something, without the plural's s; camelCase counts as two."""
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", text).replace("'s", "")
    words = {word.lower() for word in _WORDS.findall(text)} - _COMMON
    return {word.removesuffix("s") if len(word) > 3 else word for word in words if len(word) > 1}


def _said_by_user(items: Sequence[Item]) -> str | None:
    """The words of the last message of the user's; None if there is no such message."""
    for item in reversed(items):
        if item.get("type", "message") == "message" and item.get("role") == "user":
            return message_text(item)
    return None


def _closing_outputs(items: Sequence[Item]) -> list[str]:
    outputs: list[str] = []
    for item in reversed(items):
        if item.get("type") != "function_call_output":
            break
        output = item.get("output")
        outputs.insert(0, output if isinstance(output, str) else json.dumps(output))
    return outputs


def _output_sentence(outputs: Sequence[str]) -> str:
    return " ".join(_sentence("The result is", _spoken_output(output)) for output in outputs)


def _spoken_output(output: str) -> str:
    """A JSON object as "temperature 21, unit celsius"; anything else as it is."""
    try:
        value = json.loads(output)
    except ValueError:
        return output.strip()
    return _spoken_value(value)


def _spoken_value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {_spoken_value(of)}".replace("_", " ") for key, of in value.items()
        )
    if isinstance(value, list):
        return ", ".join(map(_spoken_value, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "nothing"}[value]
    return str(value)


def _answer(items: Sequence[Item], said: str | None) -> str:
    if said is None:
        return "Hello! I am listening. How can I help you?"
    if said:
        return _sentence("You said", said)
    last = [item for item in items if item.get("role") == "user"][-1]
    if any(part.get("type") == "input_image" for part in parts(last)):
        return "I have received an image. I cannot look at it, but I can hear you."
    return "I did not hear any words. Please say that again."


def _sentence(opening: str, text: str) -> str:
    if not text:
        return f"{opening}: nothing."
    return f"{opening}: {text}" + ("" if text[-1] in ".!?…。！？" else ".")

"""A conversation's items as the messages and tools of the chat-completions format.

The format is stricter than a conversation: every call of a function must be followed by its output,
and many servers' templates want the user and the assistant to take turns. So calls and outputs are
brought together, a call without an output gets a placeholder, an output without a call becomes a
message, and neighbouring messages of one speaker become one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tinyvoice.realtime.backends.conversation import (
    chosen_function,
    function_tools,
    message_text,
    part_text,
    parts,
    well_formed,
)
from tinyvoice.realtime.backends.interface import Item, ResponseRequest

Message = dict[str, Any]

NO_OUTPUT = "There is no result yet."
SILENCE = "(The user said nothing.)"


def chat_messages(request: ResponseRequest, *, images: bool = True) -> list[Message]:
    """The request's instructions and items; ``images`` false leaves images out."""
    outputs = _outputs(request.items)
    called = {str(item.get("call_id")) for item in request.items if _is(item, "function_call")}
    messages: list[Message] = []
    if request.instructions:
        messages.append({"role": "system", "content": well_formed(request.instructions)})
    for index, item in enumerate(request.items):
        if _is(item, "function_call"):
            _add_call(messages, item, outputs)
        elif _is(item, "function_call_output"):
            if str(item.get("call_id")) not in called:
                text = f"Result of a function: {_output(item)}"
                _add(messages, {"role": "user", "content": text})
        elif _is(item, "message"):
            last = index + 1 == len(request.items)
            message = _message(item, images, said_nothing=SILENCE if last else "")
            if message is not None:
                _add(messages, message)
    return messages


def chat_tools(request: ResponseRequest) -> dict[str, Any]:
    """The arguments that tell of tools: ``tools``, ``tool_choice`` and the like; {} without any."""
    tools = [{"type": "function", "function": _function(tool)} for tool in function_tools(request)]
    if not tools:
        return {}
    arguments: dict[str, Any] = {"tools": tools}
    name = chosen_function(request)
    if name is not None:
        arguments["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif request.tool_choice == "required":
        arguments["tool_choice"] = "required"
    # The other values are what servers do by themselves; some do not know the argument.
    if not request.parallel_tool_calls:
        arguments["parallel_tool_calls"] = False
    return arguments


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "parameters": tool.get("parameters")}
    if not isinstance(function["parameters"], Mapping):
        function["parameters"] = {"type": "object", "properties": {}}
    if tool.get("description"):
        function["description"] = tool["description"]
    return function


def _is(item: Item, kind: str) -> bool:
    return item.get("type", "message") == kind


def _outputs(items: Sequence[Item]) -> dict[str, str]:
    return {
        str(item.get("call_id")): _output(item)
        for item in items
        if _is(item, "function_call_output")
    }


def _output(item: Item) -> str:
    output = item.get("output")
    return well_formed(output) if isinstance(output, str) else json.dumps(output)


def _add_call(messages: list[Message], item: Item, outputs: Mapping[str, str]) -> None:
    """Add a call and its output, to the calls that the assistant made in the same breath."""
    call_id = str(item.get("call_id"))
    call = {
        "id": call_id,
        "type": "function",
        "function": {"name": str(item.get("name")), "arguments": _arguments(item)},
    }
    output = {
        "role": "tool",
        "tool_call_id": call_id,
        "content": outputs.get(call_id, NO_OUTPUT),
    }
    calling = next((of for of in reversed(messages) if of["role"] != "tool"), None)
    if calling is None or calling["role"] != "assistant":
        calling = {"role": "assistant", "content": None}
        messages.append(calling)
    calling.setdefault("tool_calls", []).append(call)
    messages.append(output)


def _arguments(item: Item) -> str:
    """The call's arguments; "{}" for what is no JSON, which servers refuse."""
    arguments = item.get("arguments")
    try:
        json.loads(str(arguments))
    except ValueError:
        return "{}"
    return str(arguments)


def _message(item: Item, images: bool, said_nothing: str) -> Message | None:
    """The item as a message; None if it says nothing."""
    role = item.get("role")
    if role == "assistant":
        text = message_text(item)
        return {"role": "assistant", "content": text} if text else None
    if role in ("system", "developer"):
        text = message_text(item)
        return {"role": "system", "content": text} if text else None
    content: list[dict[str, Any]] = []
    for part in parts(item):
        if text := part_text(part):
            content.append({"type": "text", "text": text})
        elif images and (image := _image(part)):
            content.append({"type": "image_url", "image_url": image})
    if not content and said_nothing:
        content = [{"type": "text", "text": said_nothing}]
    if all(part["type"] == "text" for part in content):
        text = " ".join(part["text"] for part in content)
        return {"role": "user", "content": text} if text else None
    return {"role": "user", "content": content}


def _image(part: Mapping[str, Any]) -> dict[str, str] | None:
    """An image that the client sent along. What is elsewhere is not fetched on its behalf."""
    url = part.get("image_url")
    if not isinstance(url, str) or not url.startswith("data:image/"):
        return None
    detail = part.get("detail")
    return {"url": url} | ({"detail": detail} if detail in ("low", "high", "auto") else {})


def _add(messages: list[Message], message: Message) -> None:
    """Append, or join with what the same speaker said just before."""
    before = messages[-1] if messages else None
    joins = (
        before is not None
        and before["role"] == message["role"]
        and isinstance(before["content"], str)
        and isinstance(message["content"], str)
    )
    if before is not None and joins:
        before["content"] += "\n" + message["content"]
    else:
        messages.append(message)

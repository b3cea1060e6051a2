"""Items as clients send them, made into items as the server sends them.

An item that goes out has exactly the keys of its type (a null where none belongs loses an event at
some clients), an ``input_audio`` part always has its ``transcript``, and no item carries audio:
none is kept, and frames have to stay small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tinyvoice.realtime.fields import (
    LONGEST_NAME,
    a_boolean,
    a_string,
    an_array,
    an_identifier,
    an_object,
    one_of,
    required,
)

Item = dict[str, Any]

STATUSES = ("in_progress", "completed", "incomplete")
ROLES = ("system", "user", "assistant")
MOST_PARTS = 1_000
PART_ALIASES = {
    "user": {"text": "input_text", "audio": "input_audio"},
    "system": {"text": "input_text"},
    "assistant": {"text": "output_text", "audio": "output_audio", "input_text": "output_text"},
}
"""Names of the older dialect, which many applications still send."""
PARTS = {
    "system": ("input_text",),
    "user": ("input_text", "input_audio", "input_image"),
    "assistant": ("output_text", "output_audio"),
}


def user_audio_item(item_id: str) -> Item:
    """The item that a turn of speech becomes; nothing is known of its words yet."""
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }


def client_item(value: Any, path: str, new_id: Callable[[str], str]) -> Item:
    """A client's item, checked and completed.

    ``new_id`` makes an identifier for an item that has none.

    Raises:
        ProtocolError: it is no item.
    """
    given = an_object(value, path)
    kind = one_of(required(given, "type", f"{path}.type"), f"{path}.type", tuple(READERS))
    identifier = given.get("id")
    item: Item = {
        "id": new_id("item") if identifier is None else an_identifier(identifier, f"{path}.id"),
        "object": "realtime.item",
        "type": kind,
    }
    if kind in ("message", "function_call", "function_call_output"):
        status = given.get("status")
        item["status"] = (
            "completed" if status is None else one_of(status, f"{path}.status", STATUSES)
        )
        if item["status"] == "in_progress":
            item["status"] = "completed"  # nobody will ever finish it
    return item | READERS[kind](given, path, new_id)


def message(given: Mapping[str, Any], path: str) -> Item:
    """The fields of a message."""
    role = one_of(required(given, "role", f"{path}.role"), f"{path}.role", ROLES)
    content = required(given, "content", f"{path}.content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    parts = an_array(content, f"{path}.content", MOST_PARTS)
    return {
        "role": role,
        "content": [
            content_part(part, f"{path}.content[{index}]", role) for index, part in enumerate(parts)
        ],
    }


def content_part(value: Any, path: str, role: str) -> dict[str, Any]:
    """A part of a message, with the names that its role has."""
    given = an_object(value, path)
    kind = a_string(required(given, "type", f"{path}.type"), f"{path}.type", LONGEST_NAME)
    kind = one_of(PART_ALIASES[role].get(kind, kind), f"{path}.type", PARTS[role])
    if kind in ("input_text", "output_text"):
        return {
            "type": kind,
            "text": a_string(required(given, "text", f"{path}.text"), f"{path}.text"),
        }
    if kind == "input_image":
        url = a_string(required(given, "image_url", f"{path}.image_url"), f"{path}.image_url")
        image: dict[str, Any] = {"type": kind, "image_url": url}
        if given.get("detail") is not None:
            image["detail"] = one_of(given["detail"], f"{path}.detail", ("auto", "low", "high"))
        return image
    transcript = given.get("transcript")
    if transcript is not None:
        transcript = a_string(transcript, f"{path}.transcript")
    if given.get("audio") is not None:
        a_string(given["audio"], f"{path}.audio")
    if kind == "output_audio":
        return {"type": kind, "transcript": transcript or ""}
    return {"type": kind, "transcript": transcript}


def function_call(given: Mapping[str, Any], path: str, new_id: Callable[[str], str]) -> Item:
    """The fields of a function call from a history that a client restores."""
    call_id = given.get("call_id")
    return {
        "call_id": new_id("call") if call_id is None else an_identifier(call_id, f"{path}.call_id"),
        "name": an_identifier(required(given, "name", f"{path}.name"), f"{path}.name"),
        "arguments": a_string(
            required(given, "arguments", f"{path}.arguments"), f"{path}.arguments"
        ),
    }


def function_call_output(given: Mapping[str, Any], path: str) -> Item:
    """The fields of a function's result; the call may be unknown (a restored history)."""
    call_id = required(given, "call_id", f"{path}.call_id")
    output = required(given, "output", f"{path}.output")
    return {
        "call_id": an_identifier(call_id, f"{path}.call_id"),
        "output": a_string(output, f"{path}.output"),
    }


def mcp_list_tools(given: Mapping[str, Any], path: str) -> Item:
    """The tools of an MCP server, kept for the client's sake."""
    entries = an_array(required(given, "tools", f"{path}.tools"), f"{path}.tools", MOST_PARTS)
    found = []
    for index, entry in enumerate(entries):
        where = f"{path}.tools[{index}]"
        tool = an_object(entry, where)
        an_identifier(required(tool, "name", f"{where}.name"), f"{where}.name")
        required(tool, "input_schema", f"{where}.input_schema")
        if tool.get("description") is not None:
            a_string(tool["description"], f"{where}.description")
        found.append(
            {name: tool[name] for name in ("name", "description", "input_schema") if name in tool}
        )
    return {"server_label": label(given, path), "tools": found}


def mcp_call(given: Mapping[str, Any], path: str) -> Item:
    """A call of an MCP tool, kept for the client's sake."""
    item = mcp_approval_request(given, path)
    for name in ("output", "approval_request_id"):
        if given.get(name) is not None:
            item[name] = a_string(given[name], f"{path}.{name}")
    return item


def mcp_approval_request(given: Mapping[str, Any], path: str) -> Item:
    """A question whether an MCP tool may be called, kept for the client's sake."""
    arguments = required(given, "arguments", f"{path}.arguments")
    return {
        "server_label": label(given, path),
        "name": an_identifier(required(given, "name", f"{path}.name"), f"{path}.name"),
        "arguments": a_string(arguments, f"{path}.arguments"),
    }


def mcp_approval_response(given: Mapping[str, Any], path: str) -> Item:
    """The answer to such a question, kept for the client's sake."""
    where = f"{path}.approval_request_id"
    item: Item = {
        "approval_request_id": an_identifier(required(given, "approval_request_id", where), where),
        "approve": a_boolean(required(given, "approve", f"{path}.approve"), f"{path}.approve"),
    }
    if given.get("reason") is not None:
        item["reason"] = a_string(given["reason"], f"{path}.reason")
    return item


def label(given: Mapping[str, Any], path: str) -> str:
    """The name of an MCP server."""
    return an_identifier(
        required(given, "server_label", f"{path}.server_label"), f"{path}.server_label"
    )


Reader = Callable[[Mapping[str, Any], str, Callable[[str], str]], Item]


def without_id(read: Callable[[Mapping[str, Any], str], Item]) -> Reader:
    """A reader of items that need no identifier but their own."""
    return lambda given, path, _: read(given, path)


READERS: dict[str, Reader] = {
    "message": without_id(message),
    "function_call": function_call,
    "function_call_output": without_id(function_call_output),
    "mcp_list_tools": without_id(mcp_list_tools),
    "mcp_call": without_id(mcp_call),
    "mcp_approval_request": without_id(mcp_approval_request),
    "mcp_approval_response": without_id(mcp_approval_response),
}

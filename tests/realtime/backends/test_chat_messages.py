"""Items as messages of the chat-completions format."""

from typing import Any

import pytest

from tests.realtime.backends.requests import assistant, call, output, request, tool, user
from tinyvoice.realtime.backends.chat_messages import NO_OUTPUT, SILENCE, chat_messages, chat_tools

IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"}


def calls(*ids: str, content: str | None = None, arguments: str = "{}") -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": arguments}
    listed = [{"id": of, "type": "function", "function": function} for of in ids]
    return {"role": "assistant", "content": content, "tool_calls": listed}


def result(call_id: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_a_conversation_in_words() -> None:
    system = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "S"}]}
    items = [system, user("hello"), assistant("hi"), user("bye")]
    assert chat_messages(request(*items, instructions="I")) == [
        {"role": "system", "content": "I\nS"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "bye"},
    ]


def test_what_nobody_said_is_left_out_unless_it_is_the_last() -> None:
    assert chat_messages(request(user(None), user("a"), assistant(""), user("b"))) == [
        {"role": "user", "content": "a\nb"}
    ]
    assert chat_messages(request(user("a"), assistant("b"), user(None)))[-1] == {
        "role": "user",
        "content": SILENCE,
    }


def test_an_image_goes_along_if_it_was_sent_and_can_be_seen() -> None:
    elsewhere = {"type": "input_image", "image_url": "https://example.com/x.png"}
    content = [{"type": "input_text", "text": "look"}, IMAGE, elsewhere]
    item = {"type": "message", "role": "user", "content": content}
    (message,) = chat_messages(request(item))
    assert message["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": IMAGE["image_url"], "detail": "low"}},
    ]
    assert chat_messages(request(item), images=False) == [{"role": "user", "content": "look"}]


@pytest.mark.parametrize(
    "items",
    [
        [call("a"), output("a", "1"), call("b"), output("b", "2")],
        [call("a"), call("b"), output("b", "2"), output("a", "1")],
    ],
)
def test_calls_made_in_one_breath_are_one_message(items: list[Any]) -> None:
    first, *results = chat_messages(request(*items))
    assert first == calls("a", "b")
    assert sorted(results, key=lambda of: of["content"]) == [result("a", "1"), result("b", "2")]


def test_outputs_stand_behind_their_calls_whenever_they_came() -> None:
    items = [user("q"), assistant("wait"), call("a"), user("hurry"), call("b"), output("a", "1")]
    assert chat_messages(request(*items)) == [
        {"role": "user", "content": "q"},
        calls("a", content="wait"),
        result("a", "1"),
        {"role": "user", "content": "hurry"},
        calls("b"),
        result("b", NO_OUTPUT),
    ]


def test_an_output_without_a_call_is_told_as_a_message() -> None:
    assert chat_messages(request(output("gone", "42"))) == [
        {"role": "user", "content": "Result of a function: 42"}
    ]


@pytest.mark.parametrize("arguments", ["", "{", None])
def test_arguments_that_are_no_json_become_none(arguments: Any) -> None:
    item = {**call("a"), "arguments": arguments}
    assert chat_messages(request(item))[0] == calls("a")


def test_halves_of_characters_do_no_harm() -> None:
    items = [user("a\ud800b"), call("c"), output("c", "\udfff")]
    for message in chat_messages(request(*items, instructions="\ud83d")):
        assert (message["content"] or "").encode() is not None
        assert "\ud800" not in (message["content"] or "")


def test_other_items_are_passed_over() -> None:
    items = [{"type": "mcp_call", "name": "x"}, {"type": "message", "role": "user", "content": 3}]
    assert chat_messages(request(*items, user("a"))) == [{"role": "user", "content": "a"}]


def test_tools_are_nested() -> None:
    flat = tool("f", "does", x={"type": "string"})
    nested = {"name": "f", "description": "does", "parameters": flat["parameters"]}
    mcp = {"type": "mcp", "server_label": "x"}
    tools = [{"type": "function", "function": nested}]
    assert chat_tools(request(tools=[flat, mcp])) == {"tools": tools}
    required = request(tools=[flat], tool_choice="required", parallel_tool_calls=False)
    assert chat_tools(required) == {
        "tools": tools,
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }
    assert chat_tools(request(tools=[flat], tool_choice="none")) == {}
    assert chat_tools(request(tools=[mcp])) == {}
    bare = chat_tools(request(tools=[{"type": "function", "name": "g"}]))["tools"][0]["function"]
    assert bare == {"name": "g", "parameters": {"type": "object", "properties": {}}}

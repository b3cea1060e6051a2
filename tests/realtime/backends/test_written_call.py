"""Function calls in a model's own writing, cut anywhere."""

import json
from typing import Any

import pytest

from tinyvoice.realtime.backends.interface import ToolCallDelta, ToolCallDone, ToolCallStarted
from tinyvoice.realtime.backends.tagged_text import TagSplitter
from tinyvoice.realtime.backends.written_call import WrittenCall

CALL = '\n{"name": "say", "arguments": {"text": "a \\"}{\\\\", "to": [{"x": 1}]}}\n'
ARGUMENTS = '{"text": "a \\"}{\\\\", "to": [{"x": 1}]}'


def told(text: str, size: int) -> list[Any]:
    call = WrittenCall()
    events = [e for at in range(0, len(text), size) for e in call.feed(text[at : at + size])]
    return [*events, *call.close()]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_arguments_are_told_up_to_their_closing_brace(size: int) -> None:
    json.loads(ARGUMENTS)
    started, *deltas, done = told(CALL, size)
    assert isinstance(started, ToolCallStarted)
    assert started.name == "say"
    assert all(isinstance(delta, ToolCallDelta) for delta in deltas)
    assert "".join(delta.arguments for delta in deltas) == ARGUMENTS
    assert done == ToolCallDone(started.call_id, "say", ARGUMENTS)


def test_arguments_are_told_while_they_are_written() -> None:
    call = WrittenCall()
    events = list(call.feed('{"name": "say", "arguments": {"te'))
    assert [type(event) for event in events] == [ToolCallStarted, ToolCallDelta]


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    "text",
    ['{"arguments": {"a": 1}, "name": "say"}', '{"name": "say", "arguments": "{\\"a\\": 1}"}'],
)
def test_another_order_is_told_at_the_end(text: str, size: int) -> None:
    *_, done = told(text, size)
    assert isinstance(done, ToolCallDone)
    assert (done.name, json.loads(done.arguments)) == ("say", {"a": 1})


@pytest.mark.parametrize("text", ["", "nonsense", "[1]", '{"name": 3}', '{"name": "say", "argum'])
def test_what_cannot_be_read_is_no_call(text: str) -> None:
    assert told(text, 4) == []


def test_a_call_that_is_cut_short_is_not_done() -> None:
    events = told('{"name": "say", "arguments": {"a": [1', 5)
    assert isinstance(events[0], ToolCallStarted)
    assert not any(isinstance(event, ToolCallDone) for event in events)


TAGGED = "Hi <b> <think>no <i> </thinks></think>you<tool_call>{}</tool_call><tool_call>x"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 11, 1000])
def test_tags_are_found_wherever_the_text_is_cut(size: int) -> None:
    splitter = TagSplitter(["think", "tool_call"])
    pieces = [
        p for at in range(0, len(TAGGED), size) for p in splitter.feed(TAGGED[at : at + size])
    ]
    pieces += splitter.flush()
    joined: list[tuple[str, str]] = []
    ends_before = True
    for piece in pieces:
        if joined and joined[-1][0] == piece.tag and not ends_before:
            joined[-1] = (piece.tag, joined[-1][1] + piece.text)
        else:
            joined.append((piece.tag, piece.text))
        ends_before = piece.closed
    assert joined == [
        ("", "Hi <b> "),
        ("think", "no <i> </thinks>"),
        ("", "you"),
        ("tool_call", "{}"),
        ("tool_call", "x"),
    ]


def test_text_that_cannot_be_a_tag_does_not_wait() -> None:
    splitter = TagSplitter(["think"])
    assert [piece.text for piece in splitter.feed("1 < 2")] == ["1 < 2"]
    assert [piece.text for piece in splitter.feed(" <th")] == [" "]
    assert [piece.text for piece in splitter.feed("en>")] == ["<then>"]

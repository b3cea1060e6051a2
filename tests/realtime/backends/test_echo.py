"""The built-in language model, rule by rule."""

import json
from typing import Any

import pytest

from tests.realtime.backends.requests import call, collect, output, replies, request, text_of, user
from tests.realtime.backends.requests import tool as make_tool
from tinyvoice.realtime.backends.arguments import fill_arguments
from tinyvoice.realtime.backends.echo import EchoModel
from tinyvoice.realtime.backends.interface import (
    Finished,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
)

WEATHER = make_tool("get_weather", "Current weather of a city", city={"type": "string"})
TIMER = make_tool("set_timer", "Start a countdown", minutes={"type": "integer"})
LIGHTS = make_tool("switchLights", "Turn the lamps in a room on or off", on={"type": "boolean"})
TOOLS = [WEATHER, TIMER, LIGHTS]


async def said(*items: Any, **settings: Any) -> str:
    return text_of(await replies(EchoModel(), *items, **settings))


async def called(text: str, **settings: Any) -> list[tuple[str, Any]]:
    events = await replies(EchoModel(), user(text), **{"tools": TOOLS, **settings})
    done = [event for event in events if isinstance(event, ToolCallDone)]
    return [(event.name, json.loads(event.arguments)) for event in done]


async def test_it_says_what_the_user_said_last() -> None:
    assert await said(user("call mom")) == "You said: call mom."
    assert await said(user("one"), user("Really?")) == "You said: Really?"
    typed = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    assert await said(typed) == "You said: hi."


async def test_it_has_an_answer_to_nothing() -> None:
    system = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "S"}]}
    image = {"type": "message", "role": "user", "content": [{"type": "input_image"}]}
    assert "How can I help" in await said()
    assert "How can I help" in await said(system, instructions="Greet the user.")
    assert "did not hear" in await said(user(None))
    assert "did not hear" in await said(user(" "))
    assert "image" in await said(image)


async def test_it_streams_word_by_word_and_counts_them() -> None:
    events = await replies(EchoModel(), user("call mom"))
    assert [type(event) for event in events] == [TextDelta] * 4 + [Finished]
    assert events[-1].usage.output_tokens == 4


@pytest.mark.parametrize("limit", [1, 3])
async def test_the_limit_of_tokens_holds(limit: int) -> None:
    events = await replies(EchoModel(), user("call mom now"), max_output_tokens=limit)
    assert len(events) == limit + 1
    assert events[-1].reason == "max_output_tokens"


async def test_a_limit_that_is_just_met_is_not_exceeded() -> None:
    events = await replies(EchoModel(), user("call mom"), max_output_tokens=4)
    assert events[-1].reason == "completed"


async def test_words_choose_the_tool_and_fill_it() -> None:
    assert await called("What is the weather in New York?") == [
        ("get_weather", {"city": "New York"})
    ]
    assert await called("start a timer of twenty-five minutes") == [("set_timer", {"minutes": 25})]
    assert await called("turn the lamp off please") == [("switchLights", {"on": False})]
    assert await called("good morning") == []


async def test_the_tool_choice_is_followed() -> None:
    assert await called("weather", tool_choice="none") == []
    assert await called("good morning", tool_choice="required") == [
        ("get_weather", {"city": "good morning"})
    ]
    named = {"type": "function", "name": "set_timer"}
    assert await called("weather", tool_choice=named) == [("set_timer", {"minutes": 0})]


async def test_tools_are_called_together_where_that_is_allowed() -> None:
    text = "the weather in Rome and a timer for 5 minutes"
    names = [name for name, _ in await called(text)]
    assert names == ["get_weather", "set_timer"]
    assert len(await called(text, parallel_tool_calls=False)) == 1


async def test_a_call_has_deltas_and_an_id_of_its_own() -> None:
    asked = request(user("weather in Paris and a timer"), tools=TOOLS)
    events = await collect(EchoModel().reply(asked))
    started = [event for event in events if isinstance(event, ToolCallStarted)]
    assert len({event.call_id for event in started}) == 2
    for start in started:
        assert len(start.call_id) <= 32
        deltas = [e for e in events if isinstance(e, ToolCallDelta) and e.call_id == start.call_id]
        (done,) = [e for e in events if isinstance(e, ToolCallDone) and e.call_id == start.call_id]
        assert "".join(delta.arguments for delta in deltas) == done.arguments


async def test_it_says_what_came_of_a_call() -> None:
    items = [user("weather in Paris"), call("c"), output("c", '{"sky_now": "clear", "t": [1, 2]}')]
    assert await said(*items, tools=TOOLS) == "The result is: sky now clear, t 1, 2."
    assert await said(call("c"), output("c", "It rains!")) == "The result is: It rains!"
    assert await said(call("c"), output("c", "")) == "The result is: nothing."
    assert await said(output("a", "one"), output("b", "true")) == (
        "The result is: one. The result is: yes."
    )


FULL = {
    "type": "object",
    "properties": {
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "place": {"type": "string"},
        "when": {"type": ["string", "null"]},
        "count": {"type": "integer"},
        "ratio": {"anyOf": [{"type": "null"}, {"type": "number"}]},
        "quiet": {"type": "boolean"},
        "names": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object", "properties": {"level": {"type": "number"}}},
    },
    "required": ["unit", "quiet"],
}


def test_arguments_follow_the_schema() -> None:
    sentence = "Set 3 alarms in the old town for Monday with Ann, in Fahrenheit, ratio 2.5 and 7"
    assert fill_arguments(FULL, sentence) == {
        "unit": "fahrenheit",
        "place": "old town",
        "when": "Monday",
        "count": 3,
        "ratio": 2.5,
        "quiet": True,
        "names": ["Ann"],
        "more": {"level": 7},
    }


def test_what_is_not_said_is_left_out_or_taken_from_the_schema() -> None:
    assert fill_arguments(FULL, "do it") == {"unit": "celsius", "quiet": True}
    required = {"type": "object", "required": ["a", "b", "c"]}
    properties = {
        "a": {"type": "string", "default": "x"},
        "b": {"type": "integer", "minimum": 2},
        "c": {"type": "string"},
    }
    assert fill_arguments({**required, "properties": properties}, "do it") == {
        "a": "x",
        "b": 2,
        "c": "do it",
    }


@pytest.mark.parametrize(
    "schema", [None, {}, [], "x", {"properties": {"a": None}}, {"properties": 1}]
)
def test_schemas_that_are_none_do_no_harm(schema: Any) -> None:
    assert set(fill_arguments(schema, "do it")) <= {"a"}


def test_a_schema_that_goes_on_for_ever_ends() -> None:
    schema: dict[str, Any] = {"type": "object"}
    schema["properties"] = {"again": schema}
    schema["required"] = ["again"]
    assert isinstance(fill_arguments(schema, "do it"), dict)


@pytest.mark.parametrize(
    ("words", "number"),
    [("1,250", 1250), ("2,5", 2.5), ("-3", -3), ("ninety nine", 99), ("twelve", 12), ("1.2.3", 1)],
)
def test_numbers_are_read(words: str, number: float) -> None:
    schema = {"properties": {"n": {"type": "number"}}}
    assert fill_arguments(schema, f"take {words} please") == {"n": number}

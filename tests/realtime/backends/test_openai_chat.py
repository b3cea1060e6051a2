"""Language models at a server, driven by the real client over a real connection."""

import asyncio
import socket
from typing import Any

import pytest

from tests.realtime.backends.model_server import ModelServer
from tests.realtime.backends.requests import replies, request, text_of, tool, user
from tinyvoice.errors import ConfigurationError
from tinyvoice.realtime.backends.interface import (
    BackendFailed,
    Finished,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
)
from tinyvoice.realtime.backends.openai_chat import OpenAIChatModel

SENTENCE = "Hello there, how are you?"


def model_at(server: ModelServer, model: str, **settings: Any) -> OpenAIChatModel:
    return OpenAIChatModel(server.url, model, **settings)


async def answer(server: ModelServer, model: str, **settings: Any) -> list[Any]:
    return await replies(model_at(server, model, **settings), user("hi"))


async def test_text_comes_as_it_is_written(model_server: ModelServer) -> None:
    events = await answer(model_server, "plain")
    assert events == [
        TextDelta("Hello "),
        TextDelta("there, "),
        TextDelta("how are"),
        TextDelta(" you?"),
        Finished("completed", Usage(11, 7, 5)),
    ]


async def test_what_the_server_is_asked(model_server: ModelServer) -> None:
    model = model_at(model_server, "plain", temperature=0.5, key="secret")
    settings: dict[str, Any] = {
        "instructions": "Be brief.",
        "max_output_tokens": 50,
        "tools": [tool("get_weather", "Weather of a city.", city={"type": "string"})],
        "tool_choice": {"type": "function", "name": "get_weather"},
        "parallel_tool_calls": False,
    }
    await replies(model, user("hi"), **settings)
    parameters = settings["tools"][0]["parameters"]
    function = {"name": "get_weather", "description": "Weather of a city."}
    assert model_server.requests == [
        {
            "model": "plain",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "hi"},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.5,
            "max_tokens": 50,
            "tools": [{"type": "function", "function": {**function, "parameters": parameters}}],
            "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
            "parallel_tool_calls": False,
        }
    ]
    assert model_server.headers[0]["authorization"] == "Bearer secret"


async def test_the_key_of_openai_goes_to_no_other_server(
    model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-private")
    assert text_of(await answer(model_server, "plain")) == SENTENCE
    assert model_server.headers[0]["authorization"] == "Bearer none"


async def test_without_a_name_the_servers_first_model_answers(model_server: ModelServer) -> None:
    assert text_of(await answer(model_server, "")) == SENTENCE
    assert model_server.requests[0]["model"] == "plain"


async def test_thoughts_are_not_passed_on(model_server: ModelServer) -> None:
    assert text_of(await answer(model_server, "thinks")) == SENTENCE


@pytest.mark.parametrize("model", ["calls", "mixed-calls"])
async def test_parallel_calls_are_told_one_after_the_other(
    model_server: ModelServer, model: str
) -> None:
    events = await answer(model_server, model)
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    assert [event for event in events if not isinstance(event, ToolCallDelta)] == [
        ToolCallStarted("call_a", "get_weather"),
        ToolCallDone("call_a", "get_weather", '{"city": "Paris"}'),
        ToolCallStarted("call_b", "get_time"),
        ToolCallDone("call_b", "get_time", "{}"),
        Finished("completed", Usage(11, 7, 5)),
    ]
    assert "".join(d.arguments for d in deltas if d.call_id == "call_a") == '{"city": "Paris"}'
    assert "".join(d.arguments for d in deltas if d.call_id == "call_b") == "{}"
    between = events[
        events.index(ToolCallStarted("call_a", "get_weather")) : events.index(
            ToolCallStarted("call_b", "get_time")
        )
    ]
    assert all(event.call_id == "call_a" for event in between)


async def test_calls_that_the_server_does_not_number_are_told_apart(
    model_server: ModelServer,
) -> None:
    events = await answer(model_server, "unnumbered-calls")
    assert [event for event in events if isinstance(event, ToolCallDone)] == [
        ToolCallDone("call_x", "x", "{}"),
        ToolCallDone("call_y", "y", "{}"),
    ]


@pytest.mark.parametrize(
    ("model", "reason"), [("long", "max_output_tokens"), ("filtered", "content_filter")]
)
async def test_an_answer_that_is_cut_short_says_why(
    model_server: ModelServer, model: str, reason: str
) -> None:
    events = await answer(model_server, model)
    assert text_of(events) == SENTENCE
    assert events[-1].reason == reason


async def test_a_call_that_is_cut_short_is_never_done(model_server: ModelServer) -> None:
    events = await answer(model_server, "cut-call")
    assert not [event for event in events if isinstance(event, ToolCallDone)]
    assert events[-1] == Finished("max_output_tokens", Usage(11, 7, 5))


async def test_a_server_that_does_not_know_of_usage_is_asked_without(
    model_server: ModelServer,
) -> None:
    events = await answer(model_server, "no-usage")
    assert text_of(events) == SENTENCE
    assert events[-1] == Finished()
    assert "stream_options" not in model_server.requests[-1]


async def test_usage_that_does_not_come_is_not_waited_for(model_server: ModelServer) -> None:
    events = await answer(model_server, "lingers")
    assert events[-1] == Finished()


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("no-key", "language_model_unauthorized", "key"),
        ("busy", "language_model_busy", "too busy"),
        ("missing", "language_model_not_found", "does not exist"),
        ("broken", "language_model_failed", "has a problem"),
        ("too-long", "context_length_exceeded", "too long"),
    ],
)
async def test_a_refusal_is_one_sentence_without_the_servers_words(
    model_server: ModelServer,
    caplog: pytest.LogCaptureFixture,
    model: str,
    code: str,
    words: str,
) -> None:
    (failed,) = await answer(model_server, model)
    assert isinstance(failed, BackendFailed)
    assert failed.code == code
    assert words in failed.message
    assert "private" not in failed.message + caplog.text


@pytest.mark.parametrize(
    ("model", "code", "timeout_s"),
    [
        ("cut-off", "language_model_disconnected", 60.0),
        ("ends-early", "language_model_disconnected", 60.0),
        ("error-midway", "language_model_failed", 60.0),
        ("stalls", "language_model_timeout", 3.0),
    ],
)
async def test_what_came_before_a_fault_is_kept(
    model_server: ModelServer, model: str, code: str, timeout_s: float
) -> None:
    events = await answer(model_server, model, timeout_s=timeout_s)
    assert text_of(events) == SENTENCE
    assert events[-1].code == code
    assert len([event for event in events if isinstance(event, BackendFailed)]) == 1


async def test_a_server_that_does_not_begin_is_given_up(model_server: ModelServer) -> None:
    (failed,) = await answer(model_server, "silent", timeout_s=0.3)
    assert failed.code == "language_model_timeout"


async def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        (failed,) = await replies(OpenAIChatModel(url, "m"), user("hi"))
    assert failed == BackendFailed(
        "language_model_unreachable", "The language model cannot be reached."
    )


async def test_closing_the_answer_closes_the_connection(model_server: ModelServer) -> None:
    model = model_at(model_server, "endless")
    await model.open()
    events = model.reply(request(user("hi")))
    assert await anext(events) == TextDelta("Hello ")
    assert not model_server.left.is_set()
    await events.aclose()  # type: ignore[attr-defined]
    assert await asyncio.to_thread(model_server.left.wait, 30)
    await model.close()


async def test_cancelling_the_reader_closes_the_connection(model_server: ModelServer) -> None:
    model = model_at(model_server, "endless")
    reading = asyncio.create_task(replies(model, user("hi")))
    async with asyncio.timeout(120):
        while not model_server.requests:
            await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await asyncio.to_thread(model_server.left.wait, 30)


@pytest.mark.parametrize(
    ("url", "model", "key"),
    [("", "gpt", "llm_key"), ("", "", "llm_model"), ("localhost:11434", "m", "llm_url")],
)
async def test_settings_that_cannot_work_are_named(
    model_server: ModelServer, url: str, model: str, key: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        await OpenAIChatModel(url, model).open()
    assert raised.value.key == key

"""A language model in this process: a miniature Qwen3 from a folder."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.miniature import write_backbones
from tests.realtime.backends.learned_model import GREETING, SUNNY, write_model
from tests.realtime.backends.requests import call, collect, output, request, text_of, tool, user
from tinyvoice.errors import CheckpointError, ConfigurationError
from tinyvoice.realtime.backends.interface import (
    BackendFailed,
    Begun,
    Finished,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Waiting,
)
from tinyvoice.realtime.backends.local import LocalModel

WEATHER = tool("get_weather", city={"type": "string"})
ARGUMENTS = '{"city": "Paris"}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("qwen3"))


@pytest.fixture
async def model(folder: Path) -> AsyncIterator[LocalModel]:
    local = LocalModel(str(folder), device="cpu")
    await local.open()
    yield local
    await local.close()


async def test_text_comes_token_by_token_in_whole_characters(model: LocalModel) -> None:
    events = await collect(model.reply(request(user("hello"))))
    assert text_of(events) == GREETING
    assert len(events) > 5
    assert not any("\ufffd" in event.text for event in events[:-1])
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.reason == "completed"
    assert last.usage.input_tokens > 0
    assert last.usage.output_tokens >= len(events) - 1


async def test_a_call_is_told_while_it_is_written(model: LocalModel) -> None:
    events = await collect(model.reply(request(user("weather in Paris"), tools=[WEATHER])))
    started, *deltas, done, finished = events
    assert isinstance(started, ToolCallStarted)
    assert all(isinstance(delta, ToolCallDelta) for delta in deltas)
    assert len(deltas) > 2
    assert done == ToolCallDone(started.call_id, "get_weather", ARGUMENTS)
    assert finished.reason == "completed"


async def test_the_output_of_a_call_is_answered(model: LocalModel) -> None:
    items = [user("weather in Paris"), call("c", arguments=ARGUMENTS), output("c", "sunny")]
    assert text_of(await collect(model.reply(request(*items, tools=[WEATHER])))) == SUNNY


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}])
async def test_a_tool_choice_is_enforced(model: LocalModel, choice: object) -> None:
    asked = request(user("hello"), tools=[WEATHER], tool_choice=choice, max_output_tokens=60)
    events = await collect(model.reply(asked))
    assert text_of(events) == ""
    if choice == "required":
        assert any(isinstance(event, ToolCallStarted) for event in events)
    else:
        assert isinstance(events[0], ToolCallStarted)
        assert events[0].name == "get_weather"


async def test_without_parallel_calls_the_first_ends_the_answer(model: LocalModel) -> None:
    asked = request(user("weather in Paris"), tools=[WEATHER], parallel_tool_calls=False)
    events = await collect(model.reply(asked))
    assert [type(event) for event in events[-2:]] == [ToolCallDone, Finished]
    assert json.loads(events[-2].arguments) == {"city": "Paris"}


async def test_the_limit_of_tokens_ends_the_answer(model: LocalModel) -> None:
    events = await collect(model.reply(request(user("hello"), max_output_tokens=3)))
    assert GREETING.startswith(text_of(events))
    assert events[-1].reason == "max_output_tokens"
    assert events[-1].usage.output_tokens == 3


async def test_a_conversation_that_does_not_fit_is_refused(model: LocalModel) -> None:
    (failed,) = await collect(model.reply(request(user("word " * 600))))
    assert isinstance(failed, BackendFailed)
    assert failed.code == "context_length_exceeded"


async def test_closing_an_answer_stops_the_model(model: LocalModel) -> None:
    # Sampling at random weights of the unseen goes on until the limit, were it not stopped.
    events = model.reply(request(user("tell me a story"), max_output_tokens=400))
    assert isinstance(await anext(events), TextDelta)
    await events.aclose()  # type: ignore[attr-defined]
    # The next answer is written by the same thread: it comes when the first has stopped.
    assert text_of(await collect(model.reply(request(user("hello"))))) == GREETING


async def test_answers_at_the_same_time_do_not_mix(model: LocalModel) -> None:
    texts = await asyncio.gather(
        *(collect(model.reply(request(user("hello")))) for _ in range(3)),
        collect(model.reply(request(user("weather in Paris"), tools=[WEATHER]))),
    )
    assert [text_of(events) for events in texts] == [GREETING] * 3 + [""]


async def test_an_answer_that_waits_for_its_turn_says_so(model: LocalModel) -> None:
    first = model.reply(request(user("tell me a story"), max_output_tokens=400))
    assert isinstance(await anext(first), TextDelta)
    second = model.reply(request(user("hello")))
    assert await anext(second) == Waiting()
    await first.aclose()  # type: ignore[attr-defined]
    assert await anext(second) == Begun()
    assert text_of(await collect(second)) == GREETING
    alone = await collect(model.reply(request(user("hello"))))
    assert not any(isinstance(event, Waiting | Begun) for event in alone)


async def test_sampling_differs_from_answer_to_answer(folder: Path) -> None:
    local = LocalModel(str(folder), device="cpu", temperature=2.0)
    await local.open()
    asked = request(user("something unheard of"), max_output_tokens=30)
    answers = {text_of(await collect(local.reply(asked))) for _ in range(4)}
    await local.close()
    assert len(answers) > 1


async def test_folders_that_cannot_answer_are_refused(tmp_path: Path) -> None:
    asr, plain = write_backbones(tmp_path)
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    config = plain / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    settings.pop("chat_template", None)
    config.write_text(json.dumps(settings))
    for place, words in ((asr, "cannot be loaded"), (plain, "no chat template")):
        with pytest.raises(CheckpointError, match=words):
            await LocalModel(str(place), device="cpu").open()
    with pytest.raises(CheckpointError):
        await LocalModel(str(tmp_path / "nowhere"), device="cpu").open()


async def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError):
        await LocalModel(str(folder), device="cuda:99").open()

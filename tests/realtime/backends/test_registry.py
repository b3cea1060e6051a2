"""From settings to backends."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.realtime.backends.model_server import ModelServer
from tests.realtime.backends.requests import collect, request, text_of, user
from tinyvoice.errors import ConfigurationError
from tinyvoice.realtime.backends.interface import AudioDelta, Finished
from tinyvoice.realtime.backends.registry import (
    BackendSettings,
    build_language_model,
    build_responder,
    build_voice,
)


@pytest.mark.parametrize("name", ["echo", "openai", "local"])
def test_every_language_model_can_be_chosen(name: Any) -> None:
    assert build_language_model(BackendSettings(llm=name)).name == name


@pytest.mark.parametrize("name", ["espeak", "openai", "piper", "none"])
def test_every_voice_can_be_chosen(name: Any, tmp_path: Path) -> None:
    voice = build_voice(BackendSettings(tts=name, tts_model=str(tmp_path)))
    assert (voice.name if voice else "none") == name


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"llm": "gpt"}, "echo, openai, local"),
        ({"tts": "festival"}, "espeak, openai, piper, none"),
        ({"llm_timeout_s": 0}, "llm_timeout_s"),
        ({"tts_timeout_s": -1}, "tts_timeout_s"),
        ({"connect_timeout_s": 1e9}, "connect_timeout_s"),
        ({"llm_temperature": 3}, "llm_temperature"),
        ({"llm_max_tokens": 0}, "llm_max_tokens"),
        ({"espeak_processes": 0}, "espeak_processes"),
    ],
)
def test_a_value_that_cannot_work_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as raised:
        BackendSettings(**settings)
    assert raised.value.key == next(iter(settings))


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(BackendSettings(llm_key="secret", tts_key="secret"))


async def test_the_default_answers_without_anything() -> None:
    responder = build_responder()
    await responder.open()
    events = await collect(responder.respond(request(user("hello"))))
    await responder.close()
    assert text_of(events) == "You said: hello."
    assert sum(e.duration_ms for e in events if isinstance(e, AudioDelta)) > 500
    assert isinstance(events[-1], Finished)


async def test_servers_for_both(model_server: ModelServer) -> None:
    settings = BackendSettings(
        llm="openai",
        llm_url=model_server.url,
        llm_model="plain",
        tts="openai",
        tts_url=model_server.url,
        tts_model="tone",
        tts_voice="mine",
    )
    responder = build_responder(settings)
    await responder.open()
    events = await collect(responder.respond(request(user("hello"), voice="nova")))
    await responder.close()
    assert text_of(events) == "Hello there, how are you?"
    length = sum(event.duration_ms for event in events if isinstance(event, AudioDelta))
    assert length == 50 * len("Hello there,how are you?")
    assert {body["voice"] for body in model_server.requests[1:]} == {"mine"}


def test_choosing_imports_nothing_heavy() -> None:
    program = (
        "import sys; from tinyvoice.realtime.backends.registry import build_responder; "
        "build_responder(); print([m for m in ('torch', 'openai', 'fastapi') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert result.stdout.strip() == b"[]"

"""Voices at a server, driven by the real client over a real connection."""

import socket
from typing import Any

import numpy as np
import pytest

from tests.realtime.backends.model_server import ModelServer
from tinyvoice.errors import ConfigurationError
from tinyvoice.realtime.backends.errors import VoiceError
from tinyvoice.realtime.backends.openai_speech import OpenAISpeechVoice


async def spoken(voice: OpenAISpeechVoice, text: str = "hello", speed: float = 1.0) -> list[bytes]:
    await voice.open()
    try:
        return [stretch.pcm16 async for stretch in voice.speak(text, "nova", speed)]
    finally:
        await voice.close()


def voice_at(server: ModelServer, model: str, **settings: Any) -> OpenAISpeechVoice:
    return OpenAISpeechVoice(server.url, model, **settings)


async def test_sound_arrives_whole_and_in_pieces(model_server: ModelServer) -> None:
    pieces = await spoken(voice_at(model_server, "tone"))
    expected = (8000 * np.sin(np.arange(5 * 1200) * 0.1)).astype("<i2").tobytes()
    assert b"".join(pieces) == expected
    assert len(pieces) > 1


async def test_what_the_server_is_asked(model_server: ModelServer) -> None:
    voice = voice_at(model_server, "tone", key="secret")
    await spoken(voice, "hello")
    await spoken(voice, "again", speed=9.0)
    asked = {"model": "tone", "voice": "nova", "response_format": "pcm"}
    assert model_server.requests == [
        {**asked, "input": "hello"},
        {**asked, "input": "again", "speed": 4.0},
    ]
    assert model_server.headers[0]["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("no-key", "does not accept the server's key"),
        ("busy", "too busy"),
        ("missing", "does not exist"),
        ("broken", "has a problem"),
        ("json", "not sound"),
    ],
)
async def test_a_refusal_is_one_sentence(model_server: ModelServer, model: str, words: str) -> None:
    with pytest.raises(VoiceError, match=words):
        await spoken(voice_at(model_server, model))


@pytest.mark.parametrize(
    ("model", "words", "timeout_s"), [("dies", "broke off", 60.0), ("stalls", "too long", 3.0)]
)
async def test_a_fault_in_the_middle_ends_what_is_spoken(
    model_server: ModelServer, model: str, words: str, timeout_s: float
) -> None:
    voice = voice_at(model_server, model, timeout_s=timeout_s)
    await voice.open()
    heard = bytearray()

    async def listen() -> None:
        async for stretch in voice.speak("hello there", "nova", 1.0):
            heard.extend(stretch.pcm16)

    with pytest.raises(VoiceError, match=words):
        await listen()
    await voice.close()
    assert len(heard) >= 4800


async def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(VoiceError, match="cannot be reached"):
            await spoken(OpenAISpeechVoice(url, "m"))


@pytest.mark.parametrize(
    ("url", "model", "key"),
    [("", "", "tts_key"), ("http://localhost:1/v1", "", "tts_model"), ("nowhere", "m", "tts_url")],
)
async def test_settings_that_cannot_work_are_named(
    model_server: ModelServer, url: str, model: str, key: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        await OpenAISpeechVoice(url, model).open()
    assert raised.value.key == key

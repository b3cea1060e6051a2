"""``/v1/audio/speech`` over real sockets: what is spoken is transcribed back."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import numpy as np
import pytest
from openai import BadRequestError, InternalServerError, OpenAI

from tests.server.conftest import RunningServer
from tinyvoice.audio import load_audio
from tinyvoice.metrics import word_errors
from tinyvoice.realtime.backends.errors import VoiceError
from tinyvoice.realtime.backends.interface import SpokenAudio
from tinyvoice.server.errors import ApiError
from tinyvoice.server.places import places_of
from tinyvoice.server.sound_formats import CONTENT_TYPES, SAMPLE_RATE, build_format
from tinyvoice.server.speech import SpeechRequest, read_request

WAIT_S = 180.0
TEXT = "Could you play some music in the kitchen? I will be nine minutes late."
BEGINNINGS = {
    "mp3": b"ID3",
    "opus": b"OggS",
    "aac": b"\xff\xf1",
    "flac": b"fLaC",
    "wav": b"RIFF",
}


@pytest.fixture
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=WAIT_S
    ) as client:
        yield client


def wait_until(happened: Callable[[], bool]) -> None:
    """Look again and again; the state of a server in another thread cannot be awaited."""
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def post(server: RunningServer, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{server.url}/v1/audio/speech", content=content, timeout=WAIT_S)


def as_wav(pcm16: bytes) -> bytes:
    length = struct.pack("<I", len(pcm16))
    form = struct.pack("<IHHIIHH", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
    return b"RIFF" + length + b"WAVEfmt " + form + b"data" + length + pcm16


class TestSpeaking:
    @pytest.mark.parametrize("name", list(CONTENT_TYPES))
    def test_every_format_is_understood(self, client: OpenAI, name: Any) -> None:
        answer = client.audio.speech.create(
            input=TEXT, model="tts-1", voice="alloy", response_format=name
        )

        assert answer.response.headers["content-type"] == CONTENT_TYPES[name]
        assert answer.content.startswith(BEGINNINGS.get(name, b""))
        sound = as_wav(answer.content) if name == "pcm" else answer.content
        found = client.audio.transcriptions.create(file=("speech", sound), model="whisper-1")
        assert word_errors(TEXT, found.text).edits <= 1

    def test_mp3_is_what_one_gets_without_asking(self, server: RunningServer) -> None:
        answer = post(server, {"input": "Good morning."})

        assert answer.headers["content-type"] == "audio/mpeg"
        assert 0.3 < load_audio(answer.content).duration < 3.0

    def test_events_hold_the_same_file(self, server: RunningServer) -> None:
        body = {"input": TEXT, "response_format": "pcm", "stream_format": "sse"}
        answer = post(server, body)

        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.text.split("\n\n")
        assert lines.pop() == ""
        events = [json.loads(line.removeprefix("data: ")) for line in lines]
        assert [event["type"] for event in events[:-1]] == ["speech.audio.delta"] * (
            len(events) - 1
        )
        assert events[-1]["type"] == "speech.audio.done"
        assert set(events[-1]["usage"]) == {"input_tokens", "output_tokens", "total_tokens"}
        sound = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
        assert sound == post(server, {"input": TEXT, "response_format": "pcm"}).content

    def test_speed(self, client: OpenAI) -> None:
        def seconds(speed: float) -> float:
            answer = client.audio.speech.create(
                input=TEXT, model="tts-1", voice="alloy", response_format="wav", speed=speed
            )
            return load_audio(answer.content).duration

        assert seconds(0.25) > 1.5 * seconds(1.0) > 1.5 * 1.5 * seconds(4.0)

    def test_voices_differ_and_may_be_objects(self, server: RunningServer) -> None:
        def sound(voice: Any) -> bytes:
            body = {"input": "Good morning.", "voice": voice, "response_format": "pcm"}
            answer = post(server, body)
            assert answer.status_code == 200
            return answer.content

        assert sound("alloy") != sound("onyx")
        assert sound({"id": "onyx"}) == sound("onyx")
        assert sound("voice_of_nobody") == sound("alloy")

    def test_sound_leaves_clause_by_clause(
        self, server: RunningServer, client: OpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A voice that waits for its listener, to see that nothing waits for the whole.
        heard: list[str] = []

        async def speak(text: str, voice: str, speed: float) -> AsyncIterator[SpokenAudio]:
            heard.append(text)
            yield SpokenAudio(bytes(2 * 22_050 * 30))

        monkeypatch.setattr(server.app.state.responder.voice, "speak", speak)
        text = "One sentence. " * 200
        with client.audio.speech.with_streaming_response.create(
            input=text, model="tts-1", voice="alloy", response_format="wav"
        ) as answer:
            next(answer.iter_bytes())
            assert 0 < len(heard) < 200

        wait_until(lambda: places_of(server.app).taken == 0)
        assert len(heard) < 200

    def test_who_does_not_listen_is_left(
        self, server: RunningServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A voice that does not stop by itself.
        async def speak(text: str, voice: str, speed: float) -> AsyncIterator[SpokenAudio]:
            begun.set()
            while True:
                yield SpokenAudio(bytes(2 * 22_050))

        begun = threading.Event()
        state = server.app.state
        monkeypatch.setattr(state.responder.voice, "speak", speak)
        settings = state.settings
        state.settings = settings.model_copy(update={"send_timeout_seconds": 0.3})
        body = json.dumps({"input": "On and on.", "response_format": "wav"})
        where = urlsplit(server.url)
        try:
            with socket.create_connection((str(where.hostname), int(where.port or 0))) as silent:
                silent.sendall(
                    f"POST /v1/audio/speech HTTP/1.1\r\nhost: {where.netloc}\r\n"
                    f"content-length: {len(body)}\r\n\r\n{body}".encode()
                )
                assert begun.wait(WAIT_S)
                wait_until(lambda: places_of(server.app).taken == 0)
        finally:
            state.settings = settings


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "param", "code"),
        [
            ({}, "input", "missing_required_parameter"),
            ({"input": ""}, "input", "invalid_value"),
            ({"input": "  \n"}, "input", "invalid_value"),
            ({"input": 7}, "input", "invalid_value"),
            ({"input": "x" * 4_097}, "input", "string_above_max_length"),
            ({"input": "x", "voice": 7}, "voice", "invalid_value"),
            ({"input": "x", "voice": {"id": []}}, "voice", "invalid_value"),
            ({"input": "x", "speed": 0.2}, "speed", "invalid_value"),
            ({"input": "x", "speed": "fast"}, "speed", "invalid_value"),
            ({"input": "x", "speed": True}, "speed", "invalid_value"),
            ({"input": "x", "response_format": "midi"}, "response_format", "invalid_value"),
            ({"input": "x", "response_format": []}, "response_format", "invalid_value"),
            ({"input": "x", "stream_format": "smoke"}, "stream_format", "invalid_value"),
        ],
    )
    def test_a_field_that_cannot_be(self, body: dict[str, Any], param: str, code: str) -> None:
        with pytest.raises(ApiError) as caught:
            read_request(body, 4_096)

        assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)

    def test_fields_without_effect(self) -> None:
        body = {"input": "x", "model": "any/name", "instructions": "Whisper.", "emotion": "joy"}

        assert read_request(body, 4_096) == SpeechRequest("x", "alloy", "mp3", 1.0, sse=False)

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000])
    def test_a_body_that_is_no_object(self, server: RunningServer, body: bytes) -> None:
        answer = post(server, body)

        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"

    def test_half_a_character(self, server: RunningServer) -> None:
        assert post(server, b'{"input": "caf\\ud83d"}').status_code == 200

    def test_the_client_is_told_in_its_own_terms(self, client: OpenAI) -> None:
        with pytest.raises(BadRequestError, match=r"0\.25 to 4") as caught:
            client.audio.speech.create(input="x", model="tts-1", voice="alloy", speed=9.0)

        assert caught.value.param == "speed"

    def test_a_server_without_a_voice(
        self, server: RunningServer, client: OpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server.app.state.responder, "voice", None)

        with pytest.raises(BadRequestError, match="--tts"):
            client.audio.speech.create(input="x", model="tts-1", voice="alloy")

    def test_no_room(self, server: RunningServer, client: OpenAI) -> None:
        places = places_of(server.app)
        most, places.max_requests = places.max_requests, 0
        try:
            with pytest.raises(InternalServerError) as caught:
                client.audio.speech.create(input="x", model="tts-1", voice="alloy")
        finally:
            places.max_requests = most

        assert caught.value.status_code == 503
        assert int(caught.value.response.headers["retry-after"]) >= 1

    @pytest.mark.parametrize("at_once", [True, False])
    def test_a_voice_that_fails(
        self, server: RunningServer, monkeypatch: pytest.MonkeyPatch, at_once: bool
    ) -> None:
        # A voice that breaks down cannot be had otherwise.
        async def speak(text: str, voice: str, speed: float) -> AsyncIterator[SpokenAudio]:
            if not at_once and text.startswith("One"):
                yield SpokenAudio(bytes(44_100))
            else:
                raise VoiceError("The voice has gone: restart the server.")

        monkeypatch.setattr(server.app.state.responder.voice, "speak", speak)
        body = {"input": "One sentence. And another one.", "response_format": "wav"}

        if at_once:
            answer = post(server, body)
            assert answer.status_code == 500
            assert "voice has gone" in answer.json()["error"]["message"]
            return
        with pytest.raises(httpx.RemoteProtocolError):
            post(server, body)
        events = post(server, {**body, "stream_format": "sse"}).text.strip().split("\n\n")
        assert "speech.audio.delta" in events[0]
        assert "voice has gone" in json.loads(events[-1].removeprefix("data: "))["error"]["message"]


@pytest.mark.parametrize("name", list(CONTENT_TYPES))
def test_formats_keep_the_length_however_sound_comes(name: str) -> None:
    sound = (np.sin(np.arange(SAMPLE_RATE) * 0.2) * 9_000).astype("<i2").tobytes()
    encoder = build_format(name)
    parts = [encoder.encode(sound[at : at + 1_234]) for at in range(0, len(sound), 1_234)]
    content = b"".join([*parts, encoder.finish()])

    if name == "pcm":
        assert content == sound
    else:
        assert load_audio(content).duration == pytest.approx(1.0, abs=0.11)


@pytest.mark.parametrize("name", list(CONTENT_TYPES))
def test_formats_leave_early(name: str) -> None:
    encoder = build_format(name)
    early = encoder.encode(bytes(2 * SAMPLE_RATE))

    assert bool(early) is (name != "flac")

"""``/v1/audio/transcriptions`` over real sockets, mostly through the official client."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import numpy as np
import pytest
from openai import APIError, APIStatusError, BadRequestError, InternalServerError, OpenAI
from openai.types.audio import TranscriptionVerbose

from tests.server.conftest import RunningServer
from tests.server.recording_files import CONTAINERS, RATE, wav
from tinyvoice.audio import load_audio
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import Final, Partial
from tinyvoice.engine.errors import StreamFailedError
from tinyvoice.engine.events import Event
from tinyvoice.engine.recording import joined, stream_recording
from tinyvoice.metrics import word_errors
from tinyvoice.server import transcriptions
from tinyvoice.server.places import places_of
from tinyvoice.server.transcription_request import FILE_SETTINGS
from tinyvoice.server.transcriptions import AppendedText

WAIT_S = 180.0


@pytest.fixture
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=WAIT_S
    ) as client:
        yield client


@pytest.fixture(scope="module")
def clip(clips: list[Clip]) -> Clip:
    """A short utterance that the embedded model gets right."""
    return clips[0]


@pytest.fixture(scope="module")
def talk(clips: list[Clip]) -> Clip:
    """Some utterances with pauses, more than the encoder takes at a time."""
    samples = np.concatenate([np.pad(clip.samples, (0, RATE // 2)) for clip in clips[1:12]])
    text = " ".join(str(clip.text) for clip in clips[1:12])
    return Clip("talk", samples, text, clips[1].onset, None)


def post(server: RunningServer, data: dict[str, Any], content: bytes, **more: Any) -> Any:
    """A form as curl sends it."""
    return httpx.post(
        f"{server.url}/v1/audio/transcriptions",
        data=data,
        files={"file": ("speech.wav", content)},
        timeout=WAIT_S,
        **more,
    )


def wait_until(happened: Callable[[], bool]) -> None:
    """Look again and again; the state of a server in another thread cannot be awaited."""
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestWords:
    def test_json(self, client: OpenAI, clip: Clip) -> None:
        found = client.audio.transcriptions.create(
            file=("speech.wav", wav(clip.samples)), model="whisper-1"
        )

        assert found.text == clip.text
        assert found.usage is not None
        assert found.usage.model_dump() == {
            "type": "duration",
            "seconds": pytest.approx(clip.duration, abs=0.01),
        }

    def test_the_engine_says_the_same(
        self, server: RunningServer, client: OpenAI, talk: Clip
    ) -> None:
        async def by_engine() -> str:
            engine = server.app.state.engine
            samples = load_audio(wav(talk.samples)).samples
            heard = stream_recording(engine, samples, settings=FILE_SETTINGS)
            finals = [event async for event in heard if isinstance(event, Final)]
            return joined(finals, talk.duration).text

        asked = asyncio.run_coroutine_threadsafe(by_engine(), server.loop)
        found = client.audio.transcriptions.create(
            file=("talk.wav", wav(talk.samples)), model="any-name/at-all"
        )

        assert found.text == asked.result(WAIT_S)
        assert talk.duration > 30
        errors = word_errors(str(talk.text), found.text)
        assert errors.edits < 0.15 * errors.words

    @pytest.mark.parametrize("container", list(CONTAINERS))
    def test_every_container_whatever_its_name(
        self, client: OpenAI, clip: Clip, container: str
    ) -> None:
        content = CONTAINERS[container](np.pad(clip.samples, 4_000))

        found = client.audio.transcriptions.create(
            file=("speech.txt.mp3", content), model="whisper-1"
        )

        assert word_errors(str(clip.text), found.text).edits <= 1

    def test_silence_has_none(self, client: OpenAI) -> None:
        found = client.audio.transcriptions.create(
            file=("silence.wav", wav(np.zeros(3 * RATE, np.float32))),
            model="whisper-1",
            response_format="verbose_json",
        )

        assert found.text == ""
        assert found.segments == []
        assert found.duration == 3.0


class TestFormats:
    def test_text(self, client: OpenAI, clip: Clip) -> None:
        found = client.audio.transcriptions.create(
            file=("speech.wav", wav(clip.samples)), model="whisper-1", response_format="text"
        )

        assert str(found) == f"{clip.text}\n"

    def test_subtitles(self, client: OpenAI, clip: Clip) -> None:
        content = wav(clip.samples)
        srt = client.audio.transcriptions.create(
            file=("speech.wav", content), model="whisper-1", response_format="srt"
        )
        vtt = client.audio.transcriptions.create(
            file=("speech.wav", content), model="whisper-1", response_format="vtt"
        )

        assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\n\w", str(srt))
        assert re.match(r"WEBVTT\n\n00:00:0\d\.\d{3} --> 00:00:0\d\.\d{3}\n\w", str(vtt))

    def test_verbose_json(self, client: OpenAI, talk: Clip) -> None:
        found: TranscriptionVerbose = client.audio.transcriptions.create(
            file=("talk.wav", wav(talk.samples)),
            model="whisper-1",
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
            language="en",
        )

        assert found.language == "english"
        assert found.duration == pytest.approx(talk.duration, abs=0.01)
        assert found.words is not None
        assert found.segments is not None
        assert [word.word for word in found.words] == found.text.split()
        assert "".join(segment.text for segment in found.segments).strip() == found.text
        times = [time for word in found.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[-1] <= found.duration
        assert len(found.segments) > 5
        assert all(s.start <= s.end for s in found.segments)

    def test_logprobs(self, client: OpenAI, clip: Clip) -> None:
        found = client.audio.transcriptions.create(
            file=("speech.wav", wav(clip.samples)), model="gpt-4o-transcribe", include=["logprobs"]
        )

        assert found.logprobs is not None
        assert "".join(str(one.token) for one in found.logprobs).strip() == found.text
        assert all(one.logprob is not None and one.logprob <= 0 for one in found.logprobs)

    def test_fields_of_other_servers(self, server: RunningServer, clip: Clip) -> None:
        found = post(
            server,
            {"hotwords": "tea", "vad_filter": "true", "chunking_strategy[type]": "server_vad"},
            wav(clip.samples),
        )

        assert found.status_code == 200
        assert found.json()["text"] == clip.text

    def test_a_form_with_an_unknown_part_type_and_a_second_file(
        self, server: RunningServer, clip: Clip
    ) -> None:
        found = httpx.post(
            f"{server.url}/v1/audio/transcriptions",
            files=[
                ("known_speaker_references[]", ("agent.wav", b"RIFF")),
                ("file", ("blob", wav(clip.samples), "application/x-unheard-of")),
            ],
            timeout=WAIT_S,
        )

        assert found.json()["text"] == clip.text


class TestStreaming:
    def test_deltas_append_up_to_the_whole(self, client: OpenAI, talk: Clip) -> None:
        content = wav(talk.samples)
        whole = client.audio.transcriptions.create(file=("t.wav", content), model="whisper-1")

        events = list(
            client.audio.transcriptions.create(
                file=("t.wav", content), model="whisper-1", stream=True, include=["logprobs"]
            )
        )

        assert [event.type for event in events[:-1]] == ["transcript.text.delta"] * (
            len(events) - 1
        )
        done = events[-1]
        assert done.type == "transcript.text.done"
        assert done.text == whole.text
        assert done.usage is None
        assert done.logprobs is not None
        deltas = "".join(event.delta for event in events if event.type == "transcript.text.delta")
        assert deltas == done.text

    def test_the_first_words_come_while_the_rest_is_being_heard(
        self, server: RunningServer, client: OpenAI, talk: Clip
    ) -> None:
        longer = np.tile(talk.samples, 3)
        with client.audio.transcriptions.create(
            file=("talk.wav", wav(longer)), model="whisper-1", stream=True
        ) as stream:
            first = next(iter(stream))
            hearing = server.call(lambda: server.app.state.engine.open_streams)

        assert first.type == "transcript.text.delta"
        assert str(talk.text).startswith(first.delta)
        assert hearing == 1
        wait_until(lambda: server.app.state.engine.open_streams == 0)
        wait_until(lambda: places_of(server.app).taken == 0)

    def test_the_bytes_on_the_wire(self, server: RunningServer, clip: Clip) -> None:
        found = post(server, {"stream": "true"}, wav(clip.samples))

        assert found.headers["content-type"].startswith("text/event-stream")
        events = found.text.split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        assert all(event.startswith("data: {") for event in events[:-2])
        assert json.loads(events[-3].removeprefix("data: ")) == {
            "type": "transcript.text.done",
            "text": clip.text,
        }

    def test_a_fault_after_the_start_is_an_event(
        self, client: OpenAI, clip: Clip, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A model that fails in the middle of a good recording cannot be had otherwise.
        async def failing(*_: object) -> AsyncGenerator[Event, None]:
            yield Partial(0, "what", " is", 0.5)
            raise StreamFailedError("The model failed: send it again.")

        monkeypatch.setattr(transcriptions, "events_of", failing)
        stream = client.audio.transcriptions.create(
            file=("speech.wav", wav(clip.samples)), model="whisper-1", stream=True
        )
        assert next(stream).type == "transcript.text.delta"
        with pytest.raises(APIError, match="The model failed"):
            next(stream)

    def test_a_client_that_goes_away_ends_the_work(self, server: RunningServer, talk: Clip) -> None:
        engine = server.app.state.engine
        request = httpx.Request(
            "POST",
            f"{server.url}/v1/audio/transcriptions",
            files={"file": ("long.wav", wav(np.tile(talk.samples, 10)))},
        )
        with connected(server) as connection:
            connection.sendall(raw(request))
            wait_until(lambda: engine.open_streams == 1)

        wait_until(lambda: engine.open_streams == 0)
        wait_until(lambda: places_of(server.app).taken == 0)
        page = httpx.get(f"{server.url}/metrics").text
        assert re.search(r'http_requests_total\{.*audio/transcriptions",status="499"\} 1', page)


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "message", "code"),
        [
            (b"", "is empty", "invalid_value"),
            (b"hello, world", "looks like text", "invalid_value"),
            (b"\x89PNG\r\n\x1a\n" + bytes(900), "picture", "invalid_value"),
            (wav(np.zeros(RATE, np.float32))[:30], "might be corrupted", "invalid_value"),
            (b"OggS" + bytes(60), "might be corrupted", "invalid_value"),
            (b"\x1a\x45\xdf\xa3" + bytes(200), "might be corrupted", "invalid_value"),
            (wav(np.zeros(0, np.float32)), "no samples", "invalid_value"),
            (wav(np.zeros(1_500, np.float32)), "too short", "audio_too_short"),
        ],
    )
    def test_what_is_no_recording(
        self, client: OpenAI, content: bytes, message: str, code: str
    ) -> None:
        with pytest.raises(BadRequestError, match=message) as caught:
            client.audio.transcriptions.create(file=("speech.wav", content), model="whisper-1")

        assert (caught.value.param, caught.value.code) == ("file", code)
        assert caught.value.type == "invalid_request_error"

    def test_a_fault_in_a_request_to_be_streamed(self, client: OpenAI) -> None:
        with pytest.raises(BadRequestError, match="corrupted"):
            client.audio.transcriptions.create(
                file=("speech.wav", b"noise"), model="whisper-1", stream=True
            )

    def test_a_recording_that_is_too_long(self, server: RunningServer, clip: Clip) -> None:
        with changed(server, max_file_seconds=1.0):
            found = post(server, {}, wav(clip.samples))

        assert found.status_code == 400
        assert found.json()["error"]["code"] == "audio_too_long"

    def test_speakers_are_not_told_apart(self, client: OpenAI, clip: Clip) -> None:
        with pytest.raises(BadRequestError, match="verbose_json") as caught:
            client.audio.transcriptions.create(
                file=("speech.wav", wav(clip.samples)),
                model="whisper-1",
                response_format="diarized_json",
            )

        assert caught.value.param == "response_format"

    def test_nothing_is_translated(self, server: RunningServer) -> None:
        found = httpx.post(
            f"{server.url}/v1/audio/translations", files={"file": ("a.wav", b"RIFF")}
        )

        assert found.status_code == 400
        assert found.json()["error"]["code"] == "translation_not_supported"

    @pytest.mark.parametrize(
        ("content_type", "body", "code"),
        [
            ("application/json", b"{}", "invalid_content_type"),
            ("multipart/form-data", b"x", "invalid_form"),
            ("multipart/form-data; boundary=b", b"nonsense", "invalid_form"),
            ("multipart/form-data; boundary=b", b"--b--\r\n", "missing_required_parameter"),
        ],
    )
    def test_what_is_no_form(
        self, server: RunningServer, content_type: str, body: bytes, code: str
    ) -> None:
        found = httpx.post(
            f"{server.url}/v1/audio/transcriptions",
            content=body,
            headers={"content-type": content_type},
        )

        assert found.status_code == 400
        assert set(found.json()["error"]) == {"message", "type", "param", "code"}
        assert found.json()["error"]["code"] == code

    def test_an_upload_that_is_too_large_is_not_read(self, server: RunningServer) -> None:
        with connected(server) as connection:
            connection.sendall(head(server, "content-length: 1000000000"))

            assert b" 413 " in connection.recv(65_536).split(b"\r\n", 1)[0]

    def test_an_upload_that_does_not_say_how_large_it_is(self, server: RunningServer) -> None:
        part = b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
        with changed(server, max_upload_bytes=200_000), connected(server) as connection:
            connection.sendall(head(server, "transfer-encoding: chunked"))
            connection.sendall(chunk(part))
            for _ in range(8):
                connection.sendall(chunk(bytes(50_000)))
            answer = b""
            while b"}}" not in answer and (part := connection.recv(65_536)):
                answer += part

        assert b" 413 " in answer.split(b"\r\n", 1)[0]
        assert b"content_too_large" in answer
        wait_until(lambda: places_of(server.app).taken == 0)

    def test_an_upload_that_stalls(self, server: RunningServer) -> None:
        with changed(server, upload_seconds=0.2), connected(server) as connection:
            connection.sendall(head(server, "content-length: 5000") + b"--b\r\n")

            assert b" 408 " in connection.recv(65_536).split(b"\r\n", 1)[0]
        wait_until(lambda: places_of(server.app).taken == 0)

    def test_no_room(self, server: RunningServer, client: OpenAI, clip: Clip) -> None:
        places = places_of(server.app)
        most, places.max_requests = places.max_requests, 0
        try:
            with pytest.raises(InternalServerError, match="try again") as caught:
                client.audio.transcriptions.create(
                    file=("speech.wav", wav(clip.samples)), model="whisper-1"
                )
        finally:
            places.max_requests = most

        assert caught.value.status_code == 503
        assert int(caught.value.response.headers["retry-after"]) >= 1

    def test_a_server_that_stops(self, server: RunningServer, client: OpenAI) -> None:
        sessions = server.app.state.sessions
        sessions.draining = True
        try:
            with pytest.raises(APIStatusError, match="shutting down"):
                client.audio.transcriptions.create(file=("s.wav", b"RIFF"), model="whisper-1")
        finally:
            sessions.draining = False


class TestCompany:
    def test_a_live_stream_says_the_same_beside_recordings(
        self, server: RunningServer, talk: Clip, clips: list[Clip]
    ) -> None:
        async def live() -> list[str]:
            engine = server.app.state.engine
            heard = stream_recording(engine, clips[3].samples, packet_ms=100, speed=4.0)
            return [event.text async for event in heard if isinstance(event, Final)]

        def say() -> list[str]:
            return asyncio.run_coroutine_threadsafe(live(), server.loop).result(WAIT_S)

        alone = say()
        with httpx.Client(timeout=WAIT_S) as http:
            request = http.build_request(
                "POST",
                f"{server.url}/v1/audio/transcriptions",
                data={"stream": "true"},
                files={"file": ("talk.wav", wav(np.tile(talk.samples, 3)))},
            )
            answer = http.send(request, stream=True)
            beside = say()
            answer.close()

        assert beside == alone
        wait_until(lambda: server.app.state.engine.open_streams == 0)

    def test_no_more_recordings_than_allowed_are_heard_at_once(
        self, server: RunningServer, clip: Clip
    ) -> None:
        async def several() -> list[httpx.Response]:
            async with httpx.AsyncClient(timeout=WAIT_S) as http:
                return await asyncio.gather(
                    *(
                        http.post(
                            f"{server.url}/v1/audio/transcriptions",
                            files={"file": ("s.wav", wav(clip.samples))},
                        )
                        for _ in range(6)
                    )
                )

        most = 0
        engine = server.app.state.engine
        admit = engine.stream

        def counted(*arguments: Any, **settings: Any) -> Any:
            nonlocal most
            most = max(most, engine.open_streams + 1)
            return admit(*arguments, **settings)

        engine.stream = counted
        try:
            answers = asyncio.run(several())
        finally:
            del engine.stream

        assert [answer.json()["text"] for answer in answers] == [clip.text] * 6
        assert most <= server.app.state.settings.max_files_at_once


class TestAppendedText:
    def test_stable_text_then_the_rest(self) -> None:
        text = AppendedText()

        assert text.partial(Partial(0, "hello ", "word", 1.0)) == "hello"
        assert text.partial(Partial(0, "hello world", "", 2.0)) == " world"
        assert text.final(_final(0, "hello world again")) == " again"
        assert text.partial(Partial(1, "", "and", 3.0)) == ""
        assert text.final(_final(1, "and more")) == " and more"

    def test_what_was_given_is_not_taken_back(self) -> None:
        text = AppendedText()

        assert text.partial(Partial(0, "hallo", "", 1.0)) == "hallo"
        assert text.final(_final(0, "hello")) == ""
        assert text.final(_final(1, "next")) == " next"

    def test_utterances_without_words(self) -> None:
        text = AppendedText()

        assert [
            text.final(_final(number, said)) for number, said in enumerate(["", "a", "", "b"])
        ] == ["", "a", "", " b"]


def _final(number: int, text: str) -> Final:
    return Final(number, text, (), 0.0, 1.0, 1.0, 0.0, 1.0, 1.0)


# --- plain sockets --------------------------------------------------------------------------------


def connected(server: RunningServer) -> socket.socket:
    """A connection to the server, to be used with ``with``."""
    where = urlsplit(server.url)
    return socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=WAIT_S)


def head(server: RunningServer, length: str) -> bytes:
    """The beginning of an upload."""
    return (
        "POST /v1/audio/transcriptions HTTP/1.1\r\n"
        f"host: {urlsplit(server.url).netloc}\r\n"
        "content-type: multipart/form-data; boundary=b\r\n"
        f"{length}\r\n\r\n"
    ).encode()


def chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def raw(request: httpx.Request) -> bytes:
    """A request as bytes."""
    lines = [f"POST {request.url.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + request.read()


class changed:  # noqa: N801 - used like a function
    """Other settings for a while."""

    def __init__(self, server: RunningServer, **settings: object) -> None:
        self._state, self._changes = server.app.state, settings

    def __enter__(self) -> None:
        self._before = self._state.settings
        self._state.settings = self._before.model_copy(update=self._changes)

    def __exit__(self, *_: object) -> None:
        self._state.settings = self._before

"""What the fields of the form mean, in all the ways in which clients write them."""

from __future__ import annotations

import io

import pytest
from starlette.datastructures import FormData, UploadFile

from tinyvoice.server.errors import ApiError
from tinyvoice.server.transcription_request import (
    FILE_SETTINGS,
    TranscriptionRequest,
    read_request,
)


def read(*fields: tuple[str, str]) -> TranscriptionRequest:
    upload = UploadFile(io.BytesIO(b"RIFF"), filename="speech.wav")
    return read_request(FormData([("file", upload), *fields]))


def refused(*fields: tuple[str, str]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(*fields)
    assert caught.value.status == 400
    return caught.value


def test_a_file_is_enough() -> None:
    wanted = read()

    assert wanted.response_format == "json"
    assert wanted.granularities == {"segment"}
    assert not wanted.stream
    assert not wanted.logprobs
    assert wanted.settings == FILE_SETTINGS


def test_fields_that_nobody_knows_and_those_without_effect() -> None:
    wanted = read(
        ("model", "whisper-large-v3-turbo"),
        ("prompt", "names: Zoë"),
        ("keywords[]", "Zoë"),
        ("hotwords", "tea"),
        ("vad_filter", "true"),
        ("temperature", "0.4"),
        ("known_speaker_names[]", "agent"),
    )

    assert wanted.settings == FILE_SETTINGS


@pytest.mark.parametrize(
    "fields",
    [
        [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")],
        [("timestamp_granularities", "word"), ("timestamp_granularities", "segment")],
        [("timestamp_granularities[0]", "word"), ("timestamp_granularities[1]", "segment")],
        [("timestamp_granularities", "word,segment")],
        [("timestamp_granularities", '["word", "segment"]')],
    ],
)
def test_lists_in_every_spelling(fields: list[tuple[str, str]]) -> None:
    assert read(*fields).granularities == {"word", "segment"}


@pytest.mark.parametrize("name", ["include[]", "include"])
def test_logprobs(name: str) -> None:
    assert read((name, "logprobs")).logprobs


@pytest.mark.parametrize(("text", "stream"), [("true", True), ("True", True), ("1", True)])
def test_stream_is_asked_for(text: str, stream: bool) -> None:
    assert read(("stream", text)).stream is stream


@pytest.mark.parametrize("text", ["false", "0", ""])
def test_stream_is_not_asked_for(text: str) -> None:
    assert not read(("stream", text)).stream


@pytest.mark.parametrize(
    "fields",
    [
        [
            ("chunking_strategy[type]", "server_vad"),
            ("chunking_strategy[threshold]", "0.7"),
            ("chunking_strategy[prefix_padding_ms]", "100"),
            ("chunking_strategy[silence_duration_ms]", "900"),
        ],
        [
            (
                "chunking_strategy",
                '{"type": "server_vad", "threshold": 0.7, "prefix_padding_ms": 100, '
                '"silence_duration_ms": 900}',
            )
        ],
    ],
)
def test_how_the_recording_is_cut(fields: list[tuple[str, str]]) -> None:
    settings = read(*fields).settings

    assert (settings.threshold, settings.prefix_padding_ms, settings.silence_ms) == (0.7, 100, 900)


@pytest.mark.parametrize("strategy", ["auto", "", "server_vad"])
def test_cut_as_the_server_likes(strategy: str) -> None:
    assert read(("chunking_strategy", strategy)).settings == FILE_SETTINGS


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("response_format", "xml", "response_format"),
        ("response_format", "diarized_json", "response_format"),
        ("timestamp_granularities[]", "phoneme", "timestamp_granularities"),
        ("stream", "perhaps", "stream"),
        ("temperature", "warm", "temperature"),
        ("temperature", "nan", "temperature"),
        ("temperature", "7", "temperature"),
        ("chunking_strategy", "cleverly", "chunking_strategy"),
        ("chunking_strategy", "{", "chunking_strategy"),
        ("chunking_strategy", "{" * 2_000, "chunking_strategy"),
        ("chunking_strategy", '{"a":' + "[" * 100_000, "chunking_strategy"),
        ("chunking_strategy[type]", "by_ear", "chunking_strategy[type]"),
        ("chunking_strategy[threshold]", "2", "chunking_strategy[threshold]"),
        ("chunking_strategy[threshold]", "loud", "chunking_strategy[threshold]"),
        ("chunking_strategy[silence_duration_ms]", "-1", "chunking_strategy[silence_duration_ms]"),
    ],
)
def test_a_value_that_cannot_be_names_its_field(field: str, value: str, param: str) -> None:
    error = refused((field, value))

    assert error.param == param
    assert error.code in ("invalid_value", "unsupported_value")
    assert len(str(error)) < 300


def test_no_file() -> None:
    with pytest.raises(ApiError, match="'file'") as caught:
        read_request(FormData([("model", "whisper-1")]))

    assert caught.value.param == "file"
    assert caught.value.code == "missing_required_parameter"


def test_a_file_that_is_a_plain_field() -> None:
    with pytest.raises(ApiError, match="file name") as caught:
        read_request(FormData([("file", "RIFF")]))

    assert caught.value.param == "file"

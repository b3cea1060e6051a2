"""The forms of a transcript, made from finals without any audio."""

from __future__ import annotations

import math

import pytest
from openai.types.audio import Transcription, TranscriptionVerbose

from tinyvoice.engine import Final
from tinyvoice.engine.events import TokenLogprob
from tinyvoice.model.transcript import Word
from tinyvoice.server.transcription_formats import (
    FileTranscript,
    as_json,
    as_srt,
    as_text,
    as_verbose,
    as_vtt,
    language_name,
)


def final(text: str, start: float, *, timed: bool = True, number: int = 0) -> Final:
    """An utterance of one word every half second."""
    words = text.split()
    end = start + len(words) / 2
    times = tuple(
        Word(word, start + index / 2, start + index / 2 + 0.4, 0.9)
        for index, word in enumerate(words)
    )
    return Final(
        number,
        text,
        times if timed else (),
        start,
        end,
        0.9,
        max(start - 0.3, 0.0),
        end + 0.1,
        end + 0.5,
        tokens=tuple(TokenLogprob(" " + word, -0.1) for word in words),
    )


TWO = FileTranscript([final("hello there. how are you?", 1.0), final("fine", 6.0)], 8.25)


def test_the_text_is_that_of_all_utterances() -> None:
    silent = FileTranscript([final("", 1.0), *TWO.finals], 8.25)

    assert silent.text == TWO.text == "hello there. how are you? fine"
    assert as_text(TWO) == "hello there. how are you? fine\n"


def test_json() -> None:
    parsed = Transcription.model_validate(as_json(TWO, logprobs=False))

    assert parsed.usage is not None
    assert parsed.usage.model_dump() == {"type": "duration", "seconds": 8.25}
    assert parsed.logprobs is None


def test_logprobs_spell_the_text() -> None:
    parsed = Transcription.model_validate(as_json(TWO, logprobs=True))

    assert parsed.logprobs is not None
    assert "".join(one.token or "" for one in parsed.logprobs) == " " + TWO.text
    assert bytes(int(b) for one in parsed.logprobs for b in one.bytes or []).decode() == (
        " " + TWO.text
    )


def test_verbose_json_has_segments_of_sentences() -> None:
    body = as_verbose(TWO, "en", frozenset({"segment"}))
    parsed = TranscriptionVerbose.model_validate(body)

    assert parsed.segments is not None
    assert [(s.id, s.text, s.start, s.end) for s in parsed.segments] == [
        (0, " hello there.", 1.0, 1.9),
        (1, " how are you?", 2.0, 3.4),
        (2, " fine", 6.0, 6.4),
    ]
    assert parsed.segments[0].avg_logprob == pytest.approx(math.log(0.9), abs=1e-3)
    assert parsed.words is None
    assert (parsed.language, parsed.duration) == ("english", 8.25)


def test_verbose_json_has_words_where_they_are_asked_for() -> None:
    body = as_verbose(TWO, "en", frozenset({"word"}))

    assert "segments" not in body
    assert body["words"][0] == {"word": "hello", "start": 1.0, "end": 1.4}
    assert len(body["words"]) == 6


def test_a_segment_ends_at_a_pause_and_after_a_while() -> None:
    slow = final("a b c d", 0.0)
    words = [*slow.words[:2], *(word.shifted(5.0) for word in slow.words[2:])]
    paused = FileTranscript([Final(**{**vars(slow), "words": tuple(words)})], 10.0)
    endless = FileTranscript([final("word " * 50, 0.0)], 25.0)

    def texts(transcript: FileTranscript) -> list[str]:
        found = as_verbose(transcript, "", frozenset({"segment"}))["segments"]
        return [segment["text"] for segment in found]

    assert texts(paused) == [" a b", " c d"]
    assert [len(text.split()) for text in texts(endless)] == [30, 20]


def test_words_without_times_are_spread_over_their_speech() -> None:
    transcript = FileTranscript([final("one two", 3.0, timed=False)], 5.0)

    words = transcript.words
    assert [word.text for word in words] == ["one", "two"]
    assert words[0].start == 3.0
    assert words[-1].end == 4.0


def test_subtitles() -> None:
    assert as_srt(TWO).startswith("1\n00:00:01,000 --> 00:00:0")
    assert as_vtt(TWO).startswith("WEBVTT\n\n00:00:01.000 --> 00:00:0")
    assert "fine" in as_srt(TWO)


def test_nothing_said() -> None:
    nothing = FileTranscript([], 3.0)

    assert as_json(nothing, logprobs=True)["text"] == ""
    assert as_verbose(nothing, "", frozenset({"segment", "word"}))["segments"] == []
    assert as_srt(nothing) == ""
    assert as_vtt(nothing) == "WEBVTT\n"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("", "english"),
        ("en", "english"),
        ("de-AT", "german"),
        ("pt_BR", "portuguese"),
        ("French", "french"),
        ("klingon", "english"),
    ],
)
def test_languages_are_named(given: str, name: str) -> None:
    assert language_name(given) == name

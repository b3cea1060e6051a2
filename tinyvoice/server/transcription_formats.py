"""The forms in which a transcript is sent: those of OpenAI's transcription API.

Everything here is a function from a transcript to JSON or text. What the model cannot know is not
made up: a language is the one that the client named (or English, which the models are made for),
``tokens`` of a segment are empty, ``no_speech_prob`` is 0, since stretches without speech are left
out before.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tinyvoice.engine.events import Final
from tinyvoice.model.transcript import Word
from tinyvoice.subtitles import PAUSE_S, format_srt, format_vtt, make_cues, spread_words

SEGMENT_S = 15.0
"""A segment this long ends at the next word."""

_SENTENCE_ENDS = ".!?…。！？"
_FRAMES_A_SECOND = 100  # what OpenAI's field ``seek`` counts


@dataclass(frozen=True)
class FileTranscript:
    """What was said in a recording."""

    finals: Sequence[Final]
    duration: float
    """Seconds of the recording."""

    @property
    def text(self) -> str:
        """The texts of all utterances."""
        return " ".join(final.text for final in self.finals if final.text)

    @property
    def words(self) -> list[Word]:
        """All words with their times."""
        return [word for final in self.finals for word in timed_words(final)]


def timed_words(final: Final) -> Sequence[Word]:
    """Words of an utterance; where it has no times of its own, spread over its speech."""
    if final.words or not final.text:
        return final.words
    return [
        Word(piece.text, final.start + piece.start, final.start + piece.end, final.confidence)
        for piece in spread_words(final.text, max(final.end - final.start, 0.0))
    ]


def usage(duration: float) -> dict[str, Any]:
    """What a recording of so many seconds counts for."""
    return {"type": "duration", "seconds": round(duration, 3)}


def as_json(transcript: FileTranscript, logprobs: bool) -> dict[str, Any]:
    """``response_format=json``."""
    body: dict[str, Any] = {"text": transcript.text, "usage": usage(transcript.duration)}
    if logprobs:
        body["logprobs"] = token_logprobs(transcript.finals)
    return body


def token_logprobs(finals: Sequence[Final]) -> list[dict[str, Any]]:
    """Every token with its bytes and the logarithm of its probability."""
    return [
        {
            "token": token.text,
            "bytes": list(token.text.encode("utf-8", "replace")),
            "logprob": token.logprob,
        }
        for final in finals
        for token in final.tokens
    ]


def as_verbose(
    transcript: FileTranscript, language: str, granularities: frozenset[str]
) -> dict[str, Any]:
    """``response_format=verbose_json``: segments and words as far as they were asked for."""
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": language_name(language),
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "usage": usage(transcript.duration),
    }
    if "segment" in granularities:
        found = (segment for final in transcript.finals for segment in _segments(final))
        body["segments"] = [{"id": index, **segment} for index, segment in enumerate(found)]
    if "word" in granularities:
        body["words"] = [
            {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
            for word in transcript.words
        ]
    return body


def as_text(transcript: FileTranscript) -> str:
    """``response_format=text``."""
    return transcript.text + "\n"


def as_srt(transcript: FileTranscript) -> str:
    """``response_format=srt``."""
    return format_srt(make_cues(transcript.words))


def as_vtt(transcript: FileTranscript) -> str:
    """``response_format=vtt``."""
    return format_vtt(make_cues(transcript.words))


def _segments(final: Final) -> Iterator[dict[str, Any]]:
    """The sentences or phrases of an utterance, without their numbers."""
    for words in _phrases(timed_words(final)):
        text = " " + " ".join(word.text for word in words)
        packed = text.encode()
        sure = [math.log(max(word.confidence, 1e-30)) for word in words]
        yield {
            "seek": int(final.audio_start * _FRAMES_A_SECOND),
            "start": round(words[0].start, 3),
            "end": round(max(words[-1].end, words[0].start), 3),
            "text": text,
            "tokens": [],
            "temperature": 0.0,
            "avg_logprob": round(sum(sure) / len(sure), 4),
            "compression_ratio": round(len(packed) / len(zlib.compress(packed)), 4),
            "no_speech_prob": 0.0,
        }


def _phrases(words: Sequence[Word]) -> Iterator[list[Word]]:
    phrase: list[Word] = []
    for word in words:
        if phrase and (
            phrase[-1].text[-1:] in _SENTENCE_ENDS
            or word.start - phrase[-1].end >= PAUSE_S
            or word.end - phrase[0].start > SEGMENT_S
        ):
            yield phrase
            phrase = []
        phrase.append(word)
    if phrase:
        yield phrase


def language_name(language: str) -> str:
    """The English name in lower case of a language given by code or name; English for none."""
    names = _language_names()
    primary = language.lower().replace("_", "-").partition("-")[0].strip()
    if primary in names:
        return names[primary]
    return primary if primary in names.values() else names["en"]


@cache
def _language_names() -> dict[str, str]:
    # The list of Whisper, whose names OpenAI's API gives. Importing it costs little once the
    # model is loaded.
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return dict(LANGUAGES)

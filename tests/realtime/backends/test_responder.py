"""Language model and voice together.

The models here are written out event by event, because when each piece comes is what is tested;
the voice is eSpeak NG, but where a fault or a pace is wanted that it does not have.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from tests.realtime.backends.requests import collect, request, text_of, tool, user
from tinyvoice.audio.resample import resample
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.modeling import ASRModel
from tinyvoice.realtime.backends.echo import EchoModel
from tinyvoice.realtime.backends.errors import VoiceError
from tinyvoice.realtime.backends.espeak import EspeakVoice
from tinyvoice.realtime.backends.interface import (
    AudioDelta,
    BackendFailed,
    Finished,
    ResponseRequest,
    SpokenAudio,
    SpokenMark,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
)
from tinyvoice.realtime.backends.responder import ConversationResponder


class WrittenModel:
    """Says what is written, and waits where an event of asyncio is."""

    name = "written"

    def __init__(self, *script: Any) -> None:
        self.script = script
        self.closed = False

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def reply(self, request: ResponseRequest) -> AsyncIterator[Any]:
        try:
            for step in self.script:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield TextDelta(step) if isinstance(step, str) else step
        finally:
            self.closed = True


class Hum:
    """A voice without word times: 50 ms for each character, in two pieces. Some words break it."""

    name = "hum"
    sample_rate = 24_000

    def __init__(self) -> None:
        self.said: list[tuple[str, str, float]] = []
        self.closed = 0

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[SpokenAudio]:
        self.said.append((text, voice, speed))
        try:
            for _ in range(2):
                yield SpokenAudio(bytes(25 * 48 * len(text)))
                if "fail" in text:
                    raise VoiceError("The voice is hoarse.")
                if "bug" in text:
                    raise ZeroDivisionError
        finally:
            self.closed += 1


def audio_of(events: Sequence[Any]) -> bytes:
    return b"".join(event.audio for event in events if isinstance(event, AudioDelta))


def marks_of(events: Sequence[Any]) -> list[SpokenMark]:
    return [event for event in events if isinstance(event, SpokenMark)]


async def answer(*script: Any, voice: Any = None, **settings: Any) -> list[Any]:
    responder = ConversationResponder(WrittenModel(*script), voice or Hum())
    return await collect(responder.respond(request(**settings)))


@pytest.fixture
async def espeak() -> AsyncIterator[EspeakVoice]:
    voice = EspeakVoice()
    await voice.open()
    yield voice
    await voice.close()


def check_order(events: Sequence[Any]) -> None:
    """What holds of every audio answer: text before its sound, marks in order and within both."""
    text, sound_ms = 0, 0.0
    last = SpokenMark(0.0, 0)
    for event in events:
        if isinstance(event, TextDelta):
            text += len(event.text)
        elif isinstance(event, AudioDelta):
            assert text > 0
            assert 0 < event.duration_ms <= 1000
            sound_ms += event.duration_ms
        elif isinstance(event, SpokenMark):
            assert last.audio_ms <= event.audio_ms <= sound_ms + 0.01
            assert last.characters < event.characters <= text
            last = event
    assert isinstance(events[-1], (Finished, BackendFailed))
    if isinstance(events[-1], Finished) and sound_ms:
        assert last.characters == text


async def test_text_answers_pass_as_they_are() -> None:
    finished = Finished("completed", Usage(1, 2))
    voice = Hum()
    events = await answer("Hel", "lo, you. ", "Bye", finished, voice=voice, modality="text")
    assert events == [TextDelta("Hel"), TextDelta("lo, you. "), TextDelta("Bye"), finished]
    assert voice.said == []


async def test_without_a_voice_audio_answers_are_text() -> None:
    responder = ConversationResponder(EchoModel(), None)
    events = await collect(responder.respond(request(user("call mom"))))
    assert text_of(events) == "You said: call mom."
    assert not audio_of(events)


@pytest.mark.parametrize(
    ("encoding", "rate"), [("pcm16", 24_000), ("mulaw", 8_000), ("alaw", 8_000)]
)
async def test_speech_is_understood_in_every_encoding(
    espeak: EspeakVoice, encoding: str, rate: int
) -> None:
    from tinyvoice.audio.g711 import decode_alaw, decode_mulaw

    sentence = "turn on the lights in the kitchen"
    events = await answer(sentence, Finished(), voice=espeak, encoding=encoding)
    check_order(events)
    sound = audio_of(events)
    if encoding == "pcm16":
        samples = np.frombuffer(sound, "<i2").astype(np.float32) / np.float32(32768)
    else:
        decode = decode_mulaw if encoding == "mulaw" else decode_alaw
        samples = decode(np.frombuffer(sound, np.uint8))
    assert len(samples) / rate * 1000 == pytest.approx(
        sum(event.duration_ms for event in events if isinstance(event, AudioDelta))
    )
    if encoding == "pcm16":  # the embedded model has learned wide-band speech
        model = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
        heard = model.transcribe(resample(samples, rate, 16_000)).text
        assert heard.lower().strip(" .") == sentence


async def test_the_first_clause_is_spoken_while_the_model_writes() -> None:
    go_on = asyncio.Event()
    model = WrittenModel("Of course I can, ", "and ", go_on, "I will.", Finished())
    responder = ConversationResponder(model, Hum())
    events = responder.respond(request())
    heard = [await anext(events) for _ in range(3)]
    assert heard[0] == TextDelta("Of course I can, ")
    assert isinstance(heard[1], AudioDelta)
    assert heard[1].duration_ms == 100
    assert not go_on.is_set()
    go_on.set()
    heard += [event async for event in events]
    check_order(heard)
    assert text_of(heard) == "Of course I can, and I will."


async def test_marks_lie_where_the_words_are(espeak: EspeakVoice) -> None:
    text = "Well hello there, my friend. **Here** is 🎉 `one`. Good."
    events = await answer(text, Finished(), voice=espeak)
    check_order(events)
    marks = marks_of(events)
    ends = {text[: mark.characters].split()[-1] for mark in marks}
    assert {"hello", "there,", "friend.", "**Here**", "is", "Good."} <= ends
    total = sum(event.duration_ms for event in events if isinstance(event, AudioDelta))
    middle = [mark for mark in marks if mark.audio_ms < total / 2]
    assert 0.3 * len(text) < middle[-1].characters < 0.7 * len(text)


async def test_a_voice_without_word_times_gets_marks_by_length() -> None:
    text = "one two three four."
    events = await answer(text, Finished())
    check_order(events)
    length = 50 * len(text)
    for mark in marks_of(events):
        assert mark.audio_ms == pytest.approx(length * mark.characters / len(text), abs=1)
    assert [mark.characters for mark in marks_of(events)] == [3, 7, 13, 19]


async def test_what_has_no_words_is_shown_and_not_spoken() -> None:
    voice = Hum()
    events = await answer("🎉\n", "Yes.\n", "```\ncode\n```\n", "Done.", Finished(), voice=voice)
    check_order(events)
    assert text_of(events) == "🎉\nYes.\n```\ncode\n```\nDone."
    assert [text for text, _, _ in voice.said] == ["Yes.", "Done."]


async def test_the_client_chooses_voice_and_speed_unless_one_is_set() -> None:
    voice = Hum()
    for speaker in ("", "mine"):
        responder = ConversationResponder(WrittenModel("Yes.", Finished()), voice, speaker=speaker)
        await collect(responder.respond(request(voice="nova", speed=1.5)))
    assert voice.said == [("Yes.", "nova", 1.5), ("Yes.", "mine", 1.5)]


async def test_calls_come_after_the_speech_before_them() -> None:
    call = [ToolCallStarted("c", "f"), ToolCallDelta("c", "{}"), ToolCallDone("c", "f", "{}")]
    events = await answer("Let me see", *call, Finished())
    check_order(events)
    assert text_of(events) == "Let me see"
    assert events[-4:] == [*call, Finished()]
    assert isinstance(events[-5], SpokenMark)


async def test_calls_alone_make_no_sound() -> None:
    asked = request(user("weather in Paris"), tools=[tool("get_weather")])
    responder = ConversationResponder(EchoModel(), Hum())
    events = await collect(responder.respond(asked))
    assert not text_of(events)
    assert not audio_of(events)
    assert isinstance(events[-2], ToolCallDone)


@pytest.mark.parametrize("modality", ["audio", "text"])
async def test_the_limit_of_tokens_holds(modality: str) -> None:
    responder = ConversationResponder(EchoModel(), Hum())
    asked = request(user("call mom now"), modality=modality, max_output_tokens=2)
    events = await collect(responder.respond(asked))
    assert text_of(events) == "You said:"
    assert events[-1].reason == "max_output_tokens"


async def test_a_model_that_fails_is_heard_to_the_end() -> None:
    failed = BackendFailed("x", "It broke.")
    events = await answer("First part. Then", failed)
    check_order(events)
    assert text_of(events) == "First part. Then"
    assert events[-1] == failed


@pytest.mark.parametrize("modality", ["audio", "text"])
@pytest.mark.parametrize("fault", [RuntimeError("secret"), ConfigurationError("Set it up.")])
async def test_a_model_that_raises_fails_the_answer(modality: str, fault: Exception) -> None:
    events = await answer("Hi. ", fault, modality=modality)
    assert text_of(events) == "Hi. "
    assert isinstance(events[-1], BackendFailed)
    assert "secret" not in events[-1].message
    if isinstance(fault, ConfigurationError):
        assert events[-1].message == "Set it up."


async def test_a_model_that_just_stops_is_finished() -> None:
    assert (await answer("Hi."))[-1] == Finished()


@pytest.mark.parametrize(("word", "message"), [("fail", "hoarse"), ("bug", "went wrong")])
async def test_a_voice_that_fails_fails_the_answer(word: str, message: str) -> None:
    model = WrittenModel("All is fine. ", f"Now I {word} here. ", "Never said. ", Finished())
    voice = Hum()
    events = await collect(ConversationResponder(model, voice).respond(request()))
    check_order(events)
    assert isinstance(events[-1], BackendFailed)
    assert message in events[-1].message
    assert "Never" not in text_of(events)
    assert model.closed
    assert voice.closed == 2


@pytest.mark.parametrize("taken", [0, 1, 2, 6])
async def test_closing_stops_model_and_voice(taken: int) -> None:
    model = WrittenModel(*(["One more sentence. "] * 1000), asyncio.Event())
    voice = Hum()
    events = ConversationResponder(model, voice).respond(request())
    for _ in range(taken):
        await anext(events)
    await events.aclose()  # type: ignore[attr-defined]
    assert model.closed == (taken > 0)
    assert voice.closed == len(voice.said)
    assert len(voice.said) < 20
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancelling_the_reader_stops_model_and_voice() -> None:
    begun = asyncio.Event()
    model = WrittenModel("One sentence. ", asyncio.Event())

    async def read() -> None:
        async for _ in ConversationResponder(model, Hum()).respond(request()):
            begun.set()

    reading = asyncio.create_task(read())
    await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert model.closed
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_client_that_does_not_listen_holds_the_model_up() -> None:
    model = WrittenModel(*(["One more sentence. "] * 10_000))
    voice = Hum()
    events = ConversationResponder(model, voice).respond(request())
    await anext(events)
    for _ in range(2000):
        await asyncio.sleep(0)
    assert len(voice.said) < 100
    await events.aclose()  # type: ignore[attr-defined]


async def test_answers_at_the_same_time_are_those_alone(espeak: EspeakVoice) -> None:
    responder = ConversationResponder(EchoModel(), espeak)
    asked = [request(user(f"number {n}"), voice=v) for n, v in enumerate(["alloy", "nova", "onyx"])]
    alone = [await collect(responder.respond(of)) for of in asked]
    together = await asyncio.gather(*(collect(responder.respond(of)) for of in asked))
    assert [audio_of(events) for events in together] == [audio_of(events) for events in alone]


async def test_if_the_voice_cannot_be_opened_the_model_is_closed() -> None:
    class Broken(Hum):
        async def open(self) -> None:
            raise ConfigurationError("No voice.")

    model = EchoModel()
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    model.close = close  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError):
        await ConversationResponder(model, Broken()).open()
    assert closed == [True]

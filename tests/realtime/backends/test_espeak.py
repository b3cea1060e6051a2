"""eSpeak NG's voice in a conversation, heard by the embedded model."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import numpy as np
import pytest

from tinyvoice.audio.resample import resample
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.modeling import ASRModel
from tinyvoice.realtime.backends.errors import VoiceError
from tinyvoice.realtime.backends.espeak import VOICES, EspeakVoice
from tinyvoice.realtime.backends.interface import SpokenAudio

SENTENCES = ["turn on the lights in the kitchen", "what is the weather in new york tomorrow"]


@pytest.fixture
async def voice() -> AsyncIterator[EspeakVoice]:
    speaking = EspeakVoice()
    await speaking.open()
    yield speaking
    await speaking.close()


async def spoken(
    voice: EspeakVoice, text: str, name: str = "alloy", speed: float = 1.0
) -> SpokenAudio:
    (stretch,) = [stretch async for stretch in voice.speak(text, name, speed)]
    return stretch


@pytest.mark.parametrize("name", ["alloy", "nova"])
async def test_what_it_says_is_understood(voice: EspeakVoice, name: str) -> None:
    model = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    for sentence in SENTENCES:
        pcm16 = (await spoken(voice, sentence, name)).pcm16
        samples = np.frombuffer(pcm16, "<i2").astype(np.float32) / np.float32(32768)
        heard = model.transcribe(resample(samples, voice.sample_rate, 16_000)).text
        assert heard.lower().strip(" .?!") == sentence


async def test_a_word_ends_where_it_is_silent_or_the_next_begins(voice: EspeakVoice) -> None:
    text = "Hello there, it is 3.14 or 1,250 euros — größe!"
    stretch = await spoken(voice, text)
    ends = list(stretch.words)
    assert [text[:characters].split()[-1] for characters, _ in ends[:2]] == ["Hello", "there,"]
    assert ends[-1][0] == len(text)
    assert {text[:characters].split()[-1] for characters, _ in ends} >= {"3.14", "or", "1,250"}
    for values in zip(*ends, strict=True):
        assert list(values) == sorted(values)
    length = len(stretch.pcm16) / 2 / voice.sample_rate
    assert 0 < ends[0][1] < ends[-1][1] <= length


async def test_the_names_of_the_api_are_different_voices(voice: EspeakVoice) -> None:
    assert set(VOICES) >= set(
        "alloy ash ballad coral echo sage shimmer verse marin cedar nova onyx fable".split()
    )
    sounds = await asyncio.gather(*(spoken(voice, "hello there", name) for name in VOICES))
    assert len({sound.pcm16 for sound in sounds}) == len(VOICES)


async def test_names_of_its_own_are_taken_and_others_get_the_default(voice: EspeakVoice) -> None:
    default = await spoken(voice, "guten tag")
    assert (await spoken(voice, "guten tag", "de")).pcm16 != default.pcm16
    for name in ("somebody", "zz", "../../etc/passwd", "", "en-us+nobody"):
        assert (await spoken(voice, "guten tag", name)).pcm16 == default.pcm16, name


async def test_speed_is_followed_within_what_can_be_understood(voice: EspeakVoice) -> None:
    lengths = {
        s: len((await spoken(voice, SENTENCES[0], speed=s)).pcm16) for s in (0.25, 0.5, 1, 2, 4)
    }
    assert lengths[0.5] > lengths[1] > lengths[2] > lengths[4]
    assert lengths[0.25] == lengths[0.5]


async def test_many_at_once_sound_as_each_alone(voice: EspeakVoice) -> None:
    texts = [f"{sentence} {n}" for n in range(3) for sentence in SENTENCES]
    names = list(VOICES)[: len(texts)]
    alone = [await spoken(voice, *of) for of in zip(texts, names, strict=True)]
    together = await asyncio.gather(*(spoken(voice, *of) for of in zip(texts, names, strict=True)))
    assert together == alone


async def test_nothing_to_say_is_nothing(voice: EspeakVoice) -> None:
    for text in ("", "...", "\0", "\ud800"):
        sounds = [stretch async for stretch in voice.speak(text, "alloy", 1.0)]
        assert sum(len(sound.pcm16) for sound in sounds) < voice.sample_rate


async def test_a_process_that_dies_is_replaced(voice: EspeakVoice) -> None:
    before = await spoken(voice, "hello")
    for process in voice._all:
        os.kill(process._process.pid, signal.SIGKILL)
        process._process.wait()
    assert await spoken(voice, "hello") == before


async def test_the_loop_runs_on_while_it_speaks(voice: EspeakVoice) -> None:
    speaking = asyncio.create_task(spoken(voice, "a long story. " * 100))
    turns = 0
    while not speaking.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100


async def test_an_answer_that_is_cancelled_leaves_the_voice_usable(voice: EspeakVoice) -> None:
    expected = await spoken(voice, "hello")
    for _ in range(5):
        speaking = asyncio.create_task(spoken(voice, "a long story. " * 50))
        await asyncio.sleep(0)
        speaking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await speaking
    assert await spoken(voice, "hello") == expected
    assert len(voice._all) <= 2


async def test_a_closed_voice_says_so() -> None:
    voice = EspeakVoice(1)
    with pytest.raises(VoiceError, match="not open"):
        await spoken(voice, "hello")
    await voice.open()
    await voice.close()
    await voice.close()
    with pytest.raises(VoiceError, match="not open"):
        await spoken(voice, "hello")
    with pytest.raises(ConfigurationError):
        EspeakVoice(0)

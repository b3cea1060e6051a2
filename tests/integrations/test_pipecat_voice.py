"""`EspeakTTSService` in pipelines of Pipecat; what it says is heard again by the embedded model."""

from __future__ import annotations

import numpy as np
from pipecat.frames.frames import (
    AggregatedTextFrame,
    ErrorFrame,
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    TTSUpdateSettingsFrame,
)
from pipecat.pipeline.worker import PipelineParams
from pipecat.tests.utils import run_test

from tinyvoice.audio.resample import resample
from tinyvoice.integrations import EspeakTTSService
from tinyvoice.model.modeling import ASRModel


async def spoken(service: EspeakTTSService, *frames: Frame, rate: int = 24_000) -> list[Frame]:
    down, up = await run_test(
        service,
        frames_to_send=list(frames),
        pipeline_params=PipelineParams(audio_out_sample_rate=rate),
        start_timeout=20.0,
    )
    assert not [frame for frame in up if isinstance(frame, ErrorFrame)]
    return list(down)


def sound(frames: list[Frame]) -> np.ndarray:
    pcm16 = b"".join(frame.audio for frame in frames if isinstance(frame, TTSAudioRawFrame))
    return np.frombuffer(pcm16, dtype="<i2").astype(np.float32) / 32768


async def test_what_it_says_is_understood_at_any_rate(model: ASRModel) -> None:
    for rate in (8_000, 24_000):
        frames = await spoken(EspeakTTSService(), TTSSpeakFrame("tell me a joke"), rate=rate)
        assert {frame.sample_rate for frame in frames if isinstance(frame, TTSAudioRawFrame)} == {
            rate
        }
        samples = np.pad(resample(sound(frames), rate, 16_000), 8_000)
        [heard] = model.transcribe([samples], sample_rate=16_000)
        assert heard.text == "tell me a joke"


async def test_a_turn_is_one_stretch_and_its_words_rise_in_time() -> None:
    frames = await spoken(
        EspeakTTSService(),
        LLMFullResponseStartFrame(),
        LLMTextFrame("How are you? "),
        LLMTextFrame("I am fine."),
        LLMFullResponseEndFrame(),
    )
    words = [frame for frame in frames if isinstance(frame, TTSTextFrame)]
    assert " ".join(frame.text for frame in words) == "How are you? I am fine."
    times = [frame.pts or 0 for frame in words]
    assert times == sorted(times)
    length_s = len(sound(frames)) / 24_000
    assert 0.5 * length_s < (times[-1] - times[0]) / 1e9 < length_s
    assert len([frame for frame in frames if isinstance(frame, TTSStartedFrame)]) == 1
    assert len([frame for frame in frames if isinstance(frame, TTSStoppedFrame)]) == 1


async def test_without_word_times_sentences_follow_their_sound() -> None:
    service = EspeakTTSService(word_timestamps=False)
    frames = await spoken(service, TTSSpeakFrame("How are you?"))
    kinds = [type(frame) for frame in frames]
    [text] = [frame for frame in frames if isinstance(frame, TTSTextFrame)]
    assert text.text == "How are you?"
    assert kinds.index(TTSTextFrame) > kinds.index(TTSAudioRawFrame)
    assert AggregatedTextFrame in kinds


async def test_voice_and_speed_change_in_place() -> None:
    def change(**delta: object) -> Frame:
        return TTSUpdateSettingsFrame(delta=EspeakTTSService.Settings(**delta))  # type: ignore[arg-type]

    text = "one two three four five six seven eight nine"
    slow = sound(await spoken(EspeakTTSService(), TTSSpeakFrame(text)))
    fast = sound(await spoken(EspeakTTSService(), change(speed=2.0), TTSSpeakFrame(text)))
    other = sound(await spoken(EspeakTTSService(), change(voice="coral"), TTSSpeakFrame(text)))
    assert len(fast) < 0.7 * len(slow)
    assert not np.array_equal(other[: len(slow)], slow[: len(other)])


async def test_a_text_without_words_is_no_failure() -> None:
    frames = await spoken(EspeakTTSService(), *[TTSSpeakFrame("…")] * 4)
    assert len([frame for frame in frames if isinstance(frame, TTSStoppedFrame)]) == 4

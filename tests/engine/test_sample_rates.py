"""Sound at other rates than the engine's: as soon, and the same words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.engine.hearing import SECOND, finals, packets
from tinyvoice.audio.pcm import PCMStream
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import Event, SpeechEnded, StreamingEngine
from tinyvoice.model.modeling import ASRModel

PACKET_MS = 20


def pcm16_at(rate: int, clips: list[Clip]) -> bytes:
    """Clips with a second of silence behind each."""
    pause = np.zeros(SECOND, dtype=np.float32)
    sound = np.concatenate([piece for clip in clips for piece in (clip.samples, pause)])
    samples = np.clip(resample(sound, SECOND, rate), -1, 1)
    return np.round(samples * 32_767).astype("<i2").tobytes()


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
async def test_the_packet_with_the_end_decides_it(
    model: ASRModel, clips: list[Clip], rate: int
) -> None:
    sound = pcm16_at(rate, clips[:6])
    size = 2 * rate * PACKET_MS // 1000
    decided: list[tuple[int, int]] = []
    async with StreamingEngine(model) as engine, engine.stream(rate) as stream:
        for number, start in enumerate(range(0, len(sound), size), start=1):
            await stream.feed(sound[start : start + size])
            await stream.flush()
            for event in stream.read():
                if isinstance(event, SpeechEnded):
                    decided.append((number, math.ceil(event.at * 1000 / PACKET_MS)))
    assert len(decided) >= 6
    assert [with_packet for with_packet, _ in decided] == [needed for _, needed in decided]


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
async def test_the_words_are_those_of_the_same_stretch_offline(
    model: ASRModel, clips: list[Clip], rate: int
) -> None:
    sound = pcm16_at(rate, clips[:4])
    decoder = PCMStream(rate)
    heard = np.concatenate([decoder.decode(sound), decoder.finish()])
    events: list[Event] = []
    async with StreamingEngine(model) as engine:
        async with engine.stream(rate) as stream:
            for packet in packets(sound, np.random.default_rng(rate)):
                await stream.feed(packet)
        events = stream.read()
    assert len(finals(events)) >= 4
    for final in finals(events):
        begin, end = round(final.audio_start * SECOND), round(final.audio_end * SECOND)
        assert final.text == model.transcribe(heard[begin:end]).text

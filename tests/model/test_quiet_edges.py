"""Words are understood however long nobody spoke before them, offline and in the engine."""

from __future__ import annotations

import numpy as np
import pytest

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.speech import bundled_speech
from tinyvoice.engine import Final, StreamingEngine
from tinyvoice.model.modeling import ASRModel


@pytest.fixture(scope="module")
def model() -> ASRModel:
    return ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")


@pytest.mark.parametrize("background", [0.0, 1e-3])
@pytest.mark.parametrize(("lead_s", "tail_s"), [(8.0, 0.0), (0.0, 8.0), (6.0, 6.0)])
async def test_a_push_to_talk_turn_that_is_mostly_silence_is_understood(
    model: ASRModel, lead_s: float, tail_s: float, background: float
) -> None:
    clip = bundled_speech()[0]
    edges = [np.zeros(round(seconds * SAMPLE_RATE)) for seconds in (lead_s, tail_s)]
    samples = np.concatenate([edges[0], clip.samples, edges[1]])
    samples += background * np.random.default_rng(0).standard_normal(len(samples))
    pcm16 = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")

    offline = model.transcribe(pcm16 / np.float32(32768), sample_rate=SAMPLE_RATE)
    async with (
        StreamingEngine(model) as engine,
        engine.stream(SAMPLE_RATE, endpointing="manual") as stream,
    ):
        await stream.feed(pcm16.tobytes())
        await stream.commit()
        await stream.close()
        finals = [event async for event in stream if isinstance(event, Final) and event.text]

    [final] = finals  # silence may be a piece of its own
    assert final.text == offline.text == clip.text
    assert final.words[0].start == pytest.approx(lead_s + clip.onset, abs=0.12)

"""Telephone audio through a running server, in and out, and a turn that nobody speaks in."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.server.conftest import RunningServer, appends
from tests.server.realtime import connected
from tinyvoice.audio.g711 import decode_alaw, decode_mulaw, encode_alaw, encode_mulaw
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.speech import Clip
from tinyvoice.model.modeling import ASRModel

COMPLETED = "conversation.item.input_audio_transcription.completed"
Encode = Callable[[NDArray[np.float32]], NDArray[np.uint8]]
Decode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.mark.parametrize(
    ("name", "encode", "decode"),
    [("audio/pcmu", encode_mulaw, decode_mulaw), ("audio/pcma", encode_alaw, decode_alaw)],
)
async def test_telephone_audio_is_understood_and_spoken(
    server: RunningServer,
    clips: list[Clip],
    asr_model: ASRModel,
    name: str,
    encode: Encode,
    decode: Decode,
) -> None:
    clip = clips[11]
    heard = resample(np.pad(clip.samples, (3_200, 16_000)).astype(np.float32), 16_000, 8_000)
    turns = {"type": "server_vad", "silence_duration_ms": 500}
    audio = {
        "input": {
            "format": {"type": name},
            "transcription": {"model": "m"},
            "turn_detection": turns,
        },
        "output": {"format": {"type": name}},
    }
    async with connected(server.websocket_url, "model=m") as client:
        await client.send({"type": "session.update", "session": {"audio": audio}})
        updated = (await client.until("session.updated"))["session"]["audio"]
        assert updated["input"]["format"] == updated["output"]["format"] == {"type": name}
        await client.send(*appends(encode(heard).tobytes()))
        completed = await client.until(COMPLETED)
        done = (await client.until("response.done"))["response"]
    assert words(completed["transcript"]) == words(str(clip.text))
    spoken = b"".join(
        base64.b64decode(event["delta"])
        for event in client.events
        if event["type"] == "response.output_audio.delta"
    )
    sound = decode(np.frombuffer(spoken, np.uint8))
    said = words(done["output"][0]["content"][0]["transcript"])
    understood = words(asr_model.transcribe(resample(sound, 8_000, 16_000)).text)
    assert said == ["you", "said", *words(completed["transcript"])]
    assert sum(word in understood for word in said) >= 0.8 * len(said), understood


async def test_silence_after_an_answer_is_a_turn_too(server: RunningServer) -> None:
    turns = {"type": "server_vad", "idle_timeout_ms": 5_000}
    session: dict[str, Any] = {
        "output_modalities": ["text"],
        "audio": {"input": {"turn_detection": turns}},
    }
    async with connected(server.websocket_url, "model=m") as client:
        await client.send({"type": "session.update", "session": session})
        await client.send({"type": "response.create"})
        await client.until("response.done")
        await client.send(*appends(bytes(48_000 * 6)))
        over = await client.until("input_audio_buffer.timeout_triggered")
        committed = await client.until("input_audio_buffer.committed")
        answered = await client.until("response.done")
    assert over["audio_end_ms"] - over["audio_start_ms"] == 5_000
    assert committed["item_id"] == over["item_id"]
    assert answered["response"]["status"] == "completed"

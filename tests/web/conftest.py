"""The page's server, and recordings for the browser's microphone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.conftest import RunningServer, running
from tests.web.microphone import microphone_file
from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.speech import Clip, bundled_speech
from tinyvoice.model.modeling import ASRModel
from tinyvoice.server.settings import ServerSettings

Microphone = Callable[..., Path]


@pytest.fixture(scope="session")
def model() -> ASRModel:
    return ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def server(model: ASRModel) -> Iterator[RunningServer]:
    with running(ServerSettings(port=0, refuse_partial_gap_s=3_600), model) as started:
        yield started


@pytest.fixture(scope="session")
def clips(model: ASRModel) -> list[Clip]:
    """Short utterances that the model gets right."""
    found = [clip for clip in bundled_speech() if clip.duration < 4.5]
    texts = model.transcribe([clip.samples for clip in found], sample_rate=SAMPLE_RATE)
    assert isinstance(texts, list)
    return [clip for clip, heard in zip(found, texts, strict=True) if heard.text == clip.text]


@pytest.fixture
def microphone(tmp_path: Path) -> Microphone:
    """Writes what the microphone hears: clips, and pauses in seconds."""

    def write(*parts: Clip | float) -> Path:
        return microphone_file(tmp_path / "microphone.wav", parts)

    return write

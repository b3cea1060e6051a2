"""Each example runs as its first lines say, against real things."""

from __future__ import annotations

import runpy
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from tests.server.conftest import RunningServer, running
from tinyvoice.benchmark.speech import BUNDLED
from tinyvoice.model.modeling import ASRModel
from tinyvoice.server.settings import ServerSettings
from tinyvoice.voices.espeak_process import EspeakProcess

ROOT = Path(__file__).parents[2]
RECORDING = BUNDLED / "12.flac"
SAID = "what happened in nineteen fifty seven"


class Example(Protocol):
    def __call__(self, name: str, *arguments: object) -> list[str]: ...


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Example:
    """Run one as a program, in this process; the lines that it prints."""

    def run(name: str, *arguments: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    model = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32").eval()
    with running(ServerSettings(port=0, refuse_partial_gap_s=3_600), model) as started:
        yield started


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spoken question with a second of silence on either side."""
    process = EspeakProcess()
    spoken = process.speak("tell me a joke", "en-us")
    process.close()
    path = tmp_path_factory.mktemp("question") / "question.wav"
    silence = bytes(2 * spoken.sample_rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(spoken.sample_rate)
        file.writeframes(silence + spoken.pcm16 + silence)
    return path


def test_every_example_is_tried_here() -> None:
    source = Path(__file__).read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f'example("{path.name}"' in source


def test_engine(example: Example) -> None:
    lines = example("engine.py", RECORDING)
    assert lines[-1] == SAID
    assert [line for line in lines if line.startswith("…")]


def test_microphone(example: Example) -> None:
    assert example("microphone.py", "--file", RECORDING) == [SAID]


def test_pipecat_pipeline(example: Example) -> None:
    assert example("pipecat_pipeline.py", RECORDING)[-1] == SAID


def test_realtime_client(example: Example, server: RunningServer, question: Path) -> None:
    lines = example("realtime_client.py", question, server.url)
    assert lines[0] == "you: tell me a joke"
    assert any(line.startswith("agent: ") and "tell me a joke" in line for line in lines)
    assert "(0.0 s of speech)" not in lines


def test_webrtc_client(
    example: Example, server: RunningServer, question: Path, tmp_path: Path
) -> None:
    lines = example("webrtc_client.py", question, tmp_path / "answer.wav", server.url)
    assert lines[0] == "you: tell me a joke"
    assert any(line.startswith("agent: ") for line in lines)
    with wave.open(str(tmp_path / "answer.wav")) as answer:
        sound = np.frombuffer(answer.readframes(answer.getnframes()), dtype="<i2")
    assert np.abs(sound.astype(np.int32)).max() > 1000

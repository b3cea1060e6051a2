"""Tests of training.evaluation.speed: what is measured, not how fast this machine is."""

from pathlib import Path

import pytest
import soundfile
from rich.console import Console

from tests.miniature import clip, random_model
from training.evaluation.speed import (
    CLIPS,
    FrontEndSpeed,
    RealTimeFactor,
    Speed,
    SpeedProbeError,
    print_speed,
    run_probe,
    speak_clips,
    time_start,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    random_model(embedded_backbones=True).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "noise.wav"
    soundfile.write(path, clip(1.0), 16_000)
    return path


def test_a_probe_measures_in_a_process_of_its_own(model: str, recording: Path) -> None:
    speed = run_probe("transcribe", model, [recording] * 3)
    assert speed.front_end == "transcribe"
    for factor in (speed.single, speed.batch):
        # One core cannot work longer than the clock runs (0.1 s of slack for its granularity).
        assert 0 < factor.processor <= factor.wall + 0.1 / 3
    assert 50 < speed.peak_mb < 5_000


def test_the_start_is_timed_to_the_first_transcript(model: str, recording: Path) -> None:
    seconds, processor, peak = time_start(model, recording)
    assert processor > 0
    assert seconds > 0
    assert 50 < peak < 5_000


def test_a_probe_that_fails_says_why(tmp_path: Path, recording: Path) -> None:
    with pytest.raises(SpeedProbeError, match="transcribe"):
        run_probe("transcribe", str(tmp_path / "nowhere"), [recording])


def test_clips_are_three_to_ten_seconds_long(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    paths = speak_clips(tmp_path)
    assert len(paths) == CLIPS
    lengths = [soundfile.info(path).duration for path in paths]
    assert min(lengths) >= 3.0
    assert max(lengths) <= 10.0


def test_the_table_names_each_figure() -> None:
    factor = RealTimeFactor(0.0312, 0.03)
    front = FrontEndSpeed("pipeline", factor, factor, 512.3)
    console = Console(width=100, record=True)
    print_speed(console, Speed("embedded", "A processor", 60.0, [front], 2.5, 2.0, 480.0))
    text = console.export_text()
    assert "pipeline, batches of 16" in text
    assert "0.0312" in text
    assert "2.50 s" in text

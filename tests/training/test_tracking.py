"""Events go to the log file and the terminal, and W&B is asked for only when it can be had."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tinyvoice.errors import ConfigurationError
from training.tracking import LOG_FILE, Tracker


def console(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=200)


def printed(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


def test_events_are_lines_of_json_added_to_what_is_there(tmp_path: Path) -> None:
    for step in (1, 2):
        with Tracker(tmp_path, {}, wandb="off", console=console()) as tracker:
            tracker.record("train", step, {"loss": 1.23456789, "lr": 1e-3, "note": "x"})
    lines = (tmp_path / LOG_FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"event": "train", "step": step, "loss": 1.23457, "lr": 0.001, "note": "x"}
        for step in (1, 2)
    ]


def test_without_a_terminal_figures_are_plain_lines(tmp_path: Path) -> None:
    to = console()
    with Tracker(tmp_path, {}, wandb="off", console=to) as tracker:
        tracker.record("train", 20, {"loss": 0.5})
        tracker.record("eval", 20, {"wer": 0.25})
        tracker.say("[saved] in here")
    assert printed(to).splitlines() == ["step 20  loss 0.5", "eval 20  wer 0.25", "[saved] in here"]


def test_a_terminal_shows_progress(tmp_path: Path) -> None:
    to = console(terminal=True)
    with Tracker(tmp_path, {}, wandb="off", total_steps=40, console=to) as tracker:
        tracker.advance(1)
        tracker.record("train", 20, {"loss": 0.5})
    assert "20/40" in printed(to)
    assert "loss 0.5" in printed(to)


def test_other_processes_record_nothing(tmp_path: Path) -> None:
    to = console()
    with Tracker(tmp_path / "run", {}, main=False, wandb="on", console=to) as tracker:
        tracker.record("train", 1, {"loss": 0.5})
        tracker.say("hello")
    assert not (tmp_path / "run").exists()
    assert printed(to) == ""


def test_wandb_that_is_wanted_but_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_API_KEY", "a key")
    with pytest.raises(ConfigurationError, match="pip install wandb"):
        Tracker(tmp_path, {}, wandb="on", console=console())
    with Tracker(tmp_path, {}, wandb="auto", console=console()) as tracker:
        tracker.record("train", 1, {"loss": 0.5})
    (warning,) = caplog.messages
    assert "WANDB_API_KEY is set, but the package wandb is not installed" in warning
    with Tracker(tmp_path, {}, wandb="off", console=console()):
        pass
    assert len(caplog.messages) == 1
    assert "a key" not in (tmp_path / LOG_FILE).read_text()

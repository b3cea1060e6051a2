"""Our running of smart-turn against pipecat's own class."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tinyvoice.audio import SAMPLE_RATE, load_audio
from tinyvoice.cli.demo import RECORDING
from tinyvoice.errors import MissingExtraError
from tinyvoice.vad import smart_turn
from tinyvoice.vad.smart_turn import SmartTurn

pytest.importorskip("onnxruntime")
pytest.importorskip("pipecat")


@pytest.fixture(scope="module")
def network() -> SmartTurn:
    return SmartTurn.load()


def test_probabilities_equal_pipecats(network: SmartTurn) -> None:
    from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3

    theirs = LocalSmartTurnAnalyzerV3()
    speech = load_audio(RECORDING).samples
    pause = np.zeros(SAMPLE_RATE // 5, dtype=np.float32)
    random = np.random.default_rng(5)
    turns = {
        "complete": np.concatenate([speech, pause]),
        "cut short": np.concatenate([speech[: 2 * SAMPLE_RATE], pause]),
        "a word": speech[4000:12000],
        "longer than it hears": np.tile(speech, 4),
        "noise": random.normal(0, 0.05, 40000).astype(np.float32),
    }
    for name, samples in turns.items():
        expected = theirs._predict_endpoint(samples)["probability"]
        assert network.complete_probability(samples) == pytest.approx(expected, abs=1e-3), name


def test_only_the_last_eight_seconds_count(network: SmartTurn) -> None:
    random = np.random.default_rng(6)
    last = random.normal(0, 0.1, 8 * SAMPLE_RATE).astype(np.float32)
    before = random.normal(0, 0.5, SAMPLE_RATE).astype(np.float32)
    alone = network.complete_probability(last)
    assert network.complete_probability(np.concatenate([before, last])) == alone


def test_any_length_gives_a_probability(network: SmartTurn) -> None:
    for count in (0, 1, 8 * SAMPLE_RATE):
        assert 0 <= network.complete_probability(np.zeros(count, dtype=np.float32)) <= 1


def test_pipecat_itself_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipecat"]:
        monkeypatch.delitem(sys.modules, name)
    SmartTurn.load()
    assert "pipecat" not in sys.modules


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [folder for folder in sys.path if not Path(folder or ".", "pipecat").exists()]
    monkeypatch.setattr(sys, "path", folders)
    monkeypatch.delitem(sys.modules, "pipecat", raising=False)
    sys.path_importer_cache.clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'tinyvoice\[semantic\]'"):
        smart_turn._network_path()

"""Synthetic corpora are made once, from sentences that evaluation does not share."""

from pathlib import Path
from typing import Any

import pytest

from tinyvoice.errors import ConfigurationError
from training.data import synthetic
from training.data.manifest import read_manifest
from training.data.synthetic import (
    SyntheticSettings,
    available_voices,
    enough_sentences,
    make_synthetic_manifest,
)
from training.synthesis.voices import HELD_OUT_VOICES

pytest.importorskip("espeakng_loader")


def settings(folder: Path, **changes: Any) -> SyntheticSettings:
    values = {"train_sentences": 12, "eval_sentences": 5, "workers": 1, "folder": str(folder)}
    return SyntheticSettings.parse(values | changes)


def test_speech_is_made_once_and_has_word_times(tmp_path: Path) -> None:
    path = make_synthetic_manifest(settings(tmp_path), "train")
    assert path is not None
    manifest = read_manifest(path)
    assert len(manifest) == 12
    for utterance in manifest.utterances:
        assert utterance.words is not None
        assert [word for word, _, _ in utterance.words] == utterance.text.split()
    written = path.stat().st_mtime_ns, sorted(tmp_path.rglob("*.wav"))
    assert make_synthetic_manifest(settings(tmp_path), "train") == path
    assert sorted(tmp_path.rglob("*.wav")) == written[1]


def test_evaluation_has_sentences_and_voices_of_its_own(tmp_path: Path) -> None:
    chosen = settings(tmp_path, eval_voices="held_out")
    train = make_synthetic_manifest(chosen, "train")
    evaluation = make_synthetic_manifest(chosen, "eval")
    assert train is not None
    assert evaluation is not None
    spoken = {u.text for u in read_manifest(train).utterances}
    heard = read_manifest(evaluation).utterances
    assert len(heard) == 5
    assert not spoken & {u.text for u in heard}
    assert {u.voice for u in heard} <= set(HELD_OUT_VOICES)


def test_bounds_and_texts_of_ones_own(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("call mom\n\nstop the music\nwhat time is it\n")
    path = make_synthetic_manifest(settings(tmp_path, texts=str(texts)), "train", most=2)
    assert path is not None
    assert {u.text for u in read_manifest(path).utterances} == {"call mom", "stop the music"}
    assert make_synthetic_manifest(settings(tmp_path, eval_sentences=0), "eval") is None


def test_only_voices_of_this_machine_are_offered() -> None:
    voices = available_voices()
    assert len(voices) >= 10
    assert not set(voices) & set(HELD_OUT_VOICES)


def test_what_is_made_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    first = make_synthetic_manifest(settings(tmp_path, workers=1), "train")
    assert first is not None
    written = first.read_text()
    files = {file: file.stat().st_mtime_ns for file in first.parent.glob("shard-*")}
    assert len(files) == 4, "two shards, each with its audio and its labels"
    assert make_synthetic_manifest(settings(tmp_path, workers=3), "train") == first
    assert first.read_text() == written
    assert {file: file.stat().st_mtime_ns for file in first.parent.glob("shard-*")} == files


def test_no_more_is_spoken_than_a_run_can_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(synthetic, "SMALLEST_CORPUS", 3)
    assert [enough_sentences(needed) for needed in (1, 3, 4, 7, 12)] == [3, 3, 6, 12, 12]
    path = make_synthetic_manifest(settings(tmp_path), "train", needed=5)
    assert path is not None
    assert len(read_manifest(path)) == 6
    assert "6 of 12 sentences are spoken" in capsys.readouterr().err
    whole = make_synthetic_manifest(settings(tmp_path), "train", needed=100)
    assert whole is not None
    assert len(read_manifest(whole)) == 12


def test_flite_is_where_its_libraries_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        monkeypatch.setattr(synthetic.flite, "available", lambda there=there: there)
        assert any(voice.startswith("flite/") for voice in available_voices()) == there


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"synthesis\.sentences is not a setting"):
        SyntheticSettings.parse({"sentences": 3})
    with pytest.raises(ConfigurationError, match=r"missing\.txt"):
        make_synthetic_manifest(settings(tmp_path, texts=str(tmp_path / "missing.txt")), "train")

"""Corpora normalise labels, count what they drop, and read manifests and data sets."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.training.recordings import Recordings, write_recordings
from tinyvoice.errors import AudioError, ConfigurationError, ManifestError
from training.data.corpora import (
    Corpus,
    CorpusSettings,
    Dropped,
    Limits,
    decode_column,
    normalize_label,
    open_corpus,
    usable_label,
)


def opened(settings: CorpusSettings, split: Any = "train", **limits: Any) -> Corpus:
    corpus = open_corpus(settings, split, Limits(**limits))
    assert corpus is not None
    return corpus


def wav_bytes(seconds: float, rate: int = 16_000, format: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    samples = np.sin(np.arange(int(seconds * rate)) / 10) * 0.3
    soundfile.write(buffer, samples, rate, format=format)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("HELLO  World", "hello world"),
        ("<unk> so <noise> 50% off [laughter] ((maybe))", "so 50 percent off maybe"),
        ("AS YOU SEE <COMMA> IT WORKS <PERIOD>", "as you see, it works."),
        ("don\u2019t", "don't"),
        ("nan", ""),
        (" . ", ""),
        ("", ""),
        ("<unk>", ""),
        ("[noise] [silence]", ""),
    ],
)
def test_labels_lose_case_and_markers(written: str, label: str) -> None:
    assert normalize_label(written) == label


def test_spoken_labels_lose_punctuation_and_numerals_too() -> None:
    assert normalize_label("Call 42, please!", "spoken") == "call forty two please"


@pytest.mark.parametrize(
    ("text", "duration", "reason"),
    [
        ("hello", 31.0, "longer than 30 s"),
        ("hello", 0.05, "shorter than 0.1 s"),
        ("hello", math.nan, "unreadable"),
        (None, 1.0, "without label"),
        (math.nan, 1.0, "without label"),
        ("<unk>", 1.0, "with an empty label"),
    ],
)
def test_what_is_dropped_is_counted_by_reason(text: Any, duration: float, reason: str) -> None:
    dropped = Dropped()
    assert usable_label(text, duration, Limits(), dropped) is None
    assert dropped.counts == {reason: 1}
    assert str(dropped) == f"1 {reason}"
    assert usable_label("Hello", 30.0, Limits(), dropped) == "hello"


def test_a_manifest_is_a_corpus(tmp_path: Path) -> None:
    path = write_recordings(tmp_path, 6)
    corpus = opened(CorpusSettings(manifest=str(path)))
    assert len(corpus) == 6
    clip = corpus.clip(2)
    assert clip.words is not None
    assert clip.text == " ".join(word for word, _, _ in clip.words)
    assert clip.duration == pytest.approx(corpus.durations[2], abs=1e-3)
    assert open_corpus(CorpusSettings(manifest=str(path)), "eval", Limits()) is None
    assert len(opened(CorpusSettings(eval_manifest=str(path)), "eval")) == 6


def test_broken_and_unusable_lines_are_counted(tmp_path: Path) -> None:
    path = write_recordings(tmp_path, 3)
    extra = [
        "{broken",
        json.dumps({"audio_filepath": "m.wav", "duration": 99.0, "text": "too long"}),
        json.dumps({"audio_filepath": "m.wav", "duration": 1.0, "text": " "}),
    ]
    path.write_text(path.read_text() + "\n".join(extra) + "\n")
    with pytest.raises(ManifestError, match=r"m\.jsonl:4"):
        opened(CorpusSettings(manifest=str(path)))
    corpus = opened(CorpusSettings(manifest=str(path)), on_error="skip")
    assert len(corpus) == 3
    assert corpus.dropped.counts == {
        "broken lines": 1,
        "longer than 30 s": 1,
        "with an empty label": 1,
    }
    assert "m.jsonl:4" in str(corpus.dropped.errors[0])


def test_missing_audio_is_found_before_training(tmp_path: Path) -> None:
    path = write_recordings(tmp_path, 3)
    line = json.dumps({"audio_filepath": "gone.wav", "duration": 1.0, "text": "hello"})
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ManifestError, match=r"gone\.wav, which does not exist \(1 of 2 files"):
        opened(CorpusSettings(manifest=str(path)))
    corpus = opened(CorpusSettings(manifest=str(path)), on_error="skip")
    assert len(corpus) == 3
    assert corpus.dropped.counts == {"without audio file": 1}


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a data set as the Hub has them: Parquet files by split, audio as bytes."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("data-set")
    rows = [
        (wav_bytes(1.0), "FIRST CLIP"),
        (wav_bytes(0.5, 8_000), "second clip"),
        (wav_bytes(2.0, format="FLAC"), None),
        (b"not audio", "third clip"),
        (wav_bytes(31.0, 8_000), "fourth clip"),
        (wav_bytes(1.5), "<unk> fifth"),
    ]
    audio = [{"bytes": content, "path": f"{i}.wav"} for i, (content, _) in enumerate(rows)]
    # The library encodes audio only with a decoder of its own, but takes what is encoded already.
    data = datasets.Dataset.from_dict({"wav": audio, "words": [text for _, text in rows]})
    data = data.cast_column("wav", datasets.Audio(sampling_rate=16_000))
    for split, part in (("train", data), ("dev", data.select([0, 1]))):
        (folder / "data").mkdir(exist_ok=True)
        part.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def hub(folder: Path, **changes: Any) -> CorpusSettings:
    settings: dict[str, Any] = {
        "path": str(folder),
        "audio_column": "wav",
        "text_column": "words",
        "train_splits": ("train",),
        "eval_splits": ("dev",),
    }
    return CorpusSettings(**(settings | changes))


def test_a_data_set_is_a_corpus(parquet: Path) -> None:
    corpus = opened(hub(parquet))
    assert [corpus.clip(i).text for i in range(len(corpus))] == [
        "first clip",
        "second clip",
        "fifth",
    ]
    np.testing.assert_allclose(corpus.durations, [1.0, 0.5, 1.5], atol=1e-3)
    assert corpus.dropped.counts == {
        "without label": 1,
        "unreadable": 1,
        "longer than 30 s": 1,
    }
    assert len(corpus.clip(1).samples) == 8_000


def test_splits_stand_one_behind_the_other(parquet: Path) -> None:
    assert len(opened(hub(parquet), "eval")) == 2
    assert len(opened(hub(parquet, train_splits=("train", "dev")))) == 5
    assert open_corpus(hub(parquet, eval_splits=()), "eval", Limits()) is None
    assert len(opened(hub(parquet), most=2)) == 2


def test_a_data_set_saved_to_disk_and_a_duration_column(parquet: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict(
        {"audio": [str(tmp_path / "a.wav")] * 2, "text": ["one", "two"], "length_ms": [1000, 99e3]}
    )
    rows.save_to_disk(tmp_path / "saved")
    (tmp_path / "a.wav").write_bytes(wav_bytes(1.0))
    settings = CorpusSettings(
        path=str(tmp_path / "saved"), train_splits=("train",), duration_column="length_ms"
    )
    corpus = opened(settings)
    assert corpus.dropped.counts == {"longer than 30 s": 1}
    assert corpus.clip(0).duration == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio_column": "sound"}, "no column 'sound'.*wav, words"),
        ({"text_column": "label"}, "no column 'label'"),
        ({"duration_column": "seconds"}, "no column 'seconds'"),
        ({"train_splits": ("everything",)}, "split 'everything'"),
        ({"path": "/nowhere/at/all"}, "cannot be loaded"),
        ({"manifest": "also.jsonl"}, "exactly one of"),
    ],
)
def test_mistakes_about_a_data_set_are_named(
    parquet: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        opened(hub(parquet, **changes))


@pytest.mark.parametrize(
    "cell",
    [
        {"bytes": wav_bytes(1.0), "path": None},
        {"array": np.zeros(16_000), "sampling_rate": 16_000},
        {"array": np.zeros(8_000), "sampling_rate": 8_000},
        wav_bytes(1.0),
        [0.0] * 16_000,
    ],
)
def test_a_cell_may_be_bytes_or_samples(cell: Any) -> None:
    assert decode_column(cell, "row 0").shape == (16_000,)


@pytest.mark.parametrize("cell", [None, {}, {"bytes": None, "path": None}, [], 3])
def test_a_cell_without_audio_is_named(cell: Any) -> None:
    with pytest.raises(AudioError, match="row 0"):
        decode_column(cell, "row 0")


def only_for_training(split: str, limits: Limits, count: int) -> Recordings | None:
    return (
        Recordings(count, name=f"tones, at most {limits.longest_s:g} s")
        if split == "train"
        else None
    )


def test_a_corpus_of_ones_own_is_opened_by_its_name() -> None:
    mine = CorpusSettings(factory=f"{__name__}:only_for_training", options={"count": 3})
    corpus = opened(mine, longest_s=7.0)
    assert (len(corpus), corpus.name) == (3, "tones, at most 7 s")
    assert open_corpus(mine, "eval", Limits()) is None


@pytest.mark.parametrize("name", ["nowhere:at_all", f"{__name__}:nothing", "", "no_colon"])
def test_a_factory_that_cannot_be_imported_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"corpus factory '{name}' cannot be imported"):
        open_corpus(CorpusSettings(factory=name), "train", Limits())

import json
from pathlib import Path

import numpy as np
import pytest

from tinyvoice.errors import ConfigurationError
from training.data.manifest import read_manifest, read_samples
from training.synthesis.corpus import CorpusSettings, make_corpus, plan

VOICES = ("espeak/en-us", "espeak/en+f2", "flite/slt")
TEXTS = ["Set a timer for 10 minutes!", "call mom", "...", "what's the weather"]


def test_plan_normalises_and_leaves_wordless_texts_out() -> None:
    lines = plan(TEXTS, VOICES, CorpusSettings(renditions=2))
    assert len(lines) == 6
    assert {line.text for line in lines} == {
        "set a timer for ten minutes",
        "call mom",
        "what's the weather",
    }
    by_text = [line.voice for line in lines if line.text == "call mom"]
    assert len(set(by_text)) == 2  # a text is spoken by another voice each time


def test_plan_depends_on_the_seed_alone() -> None:
    assert plan(TEXTS, VOICES, CorpusSettings(seed=1)) == plan(
        TEXTS, VOICES, CorpusSettings(seed=1)
    )
    assert plan(TEXTS, VOICES, CorpusSettings(seed=1)) != plan(
        TEXTS, VOICES, CorpusSettings(seed=2)
    )


def test_corpus_can_be_read_and_its_times_fit(tmp_path: Path) -> None:
    settings = CorpusSettings(renditions=3, utterances_per_shard=4)
    manifest = make_corpus(plan(TEXTS, VOICES, settings), tmp_path, settings=settings, workers=2)
    utterances = read_manifest(manifest, phonemes=True).utterances
    assert len(utterances) == 9
    for utterance in utterances:
        samples = read_samples(utterance)
        assert len(samples) == round(utterance.duration * 16000)
        assert float(np.abs(samples).max()) > 0.01
        assert utterance.words is not None
        assert " ".join(word for word, _, _ in utterance.words) == utterance.text
        assert utterance.words[-1][2] <= utterance.duration + 0.01
        assert utterance.phonemes


def test_second_run_makes_only_what_is_missing(tmp_path: Path) -> None:
    settings = CorpusSettings(utterances_per_shard=1)
    lines = plan(TEXTS, VOICES, settings)
    manifest = make_corpus(lines, tmp_path, settings=settings)
    before = manifest.read_text()
    shards = sorted(tmp_path.glob("shard-*.wav"))
    stamps = {path: path.stat().st_mtime_ns for path in shards}
    victim = shards[1]
    victim.with_suffix(".jsonl").unlink()
    victim.unlink()
    make_corpus(lines, tmp_path, settings=settings)
    assert manifest.read_text() == before
    assert victim.exists()
    for path in shards:
        if path != victim:
            assert path.stat().st_mtime_ns == stamps[path]


def test_other_settings_make_other_shards(tmp_path: Path) -> None:
    for seed in (1, 2):
        settings = CorpusSettings(seed=seed)
        make_corpus(plan(TEXTS, VOICES, settings), tmp_path, settings=settings)
    assert len(list(tmp_path.glob("shard-*.wav"))) == 2
    labels = [json.loads(line) for line in (tmp_path / "manifest.jsonl").open()]
    assert len({label["audio_filepath"] for label in labels}) == 1


@pytest.mark.parametrize("wrong", [{"renditions": 0}, {"rate": (1.2, 0.9)}, {"pitch": (0.1, 1.0)}])
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        CorpusSettings(**wrong)

from pathlib import Path

import numpy as np
import pytest

from tinyvoice.errors import ManifestError
from training.pretraining.frames import FrameCorpus, frame_phonemes
from training.synthesis.corpus import CorpusSettings, make_corpus, plan
from training.synthesis.phonemes import PHONEME_IDS


def test_a_frame_has_the_phoneme_at_its_centre() -> None:
    ids = np.array([5, 7, 0], dtype=np.uint8)
    starts = np.array([0.05, 0.09, 0.21], dtype=np.float32)
    # Centres: 0.02, 0.06, 0.10, 0.14, 0.18, 0.22
    assert frame_phonemes(ids, starts, 6, 0.04).tolist() == [0, 5, 7, 7, 7, 0]


def test_corpus_gives_audio_words_and_phonemes(tmp_path: Path) -> None:
    settings = CorpusSettings()
    lines = plan(["call mom", "set a timer"], ["espeak/en-us"], settings)
    corpus = FrameCorpus([make_corpus(lines, tmp_path, settings=settings)])
    assert sorted(corpus.texts) == ["call mom", "set a timer"]
    index = corpus.texts.index("call mom")
    clip = corpus.clip(index)
    assert len(clip.samples) == round(float(corpus.durations[index]) * 16000)
    assert clip.words is not None
    assert [word for word, _, _ in clip.words] == ["call", "mom"]
    ids, starts = corpus.phonemes(index)
    assert ids[0] == PHONEME_IDS["k"]
    assert PHONEME_IDS["m"] in ids
    assert (np.diff(starts) > 0).all()


def test_a_line_without_phonemes_is_refused_by_its_number(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text('{"audio_filepath": "a.wav", "duration": 1.0, "text": "hi"}\n')
    with pytest.raises(ManifestError, match=r"manifest\.jsonl:1 has no phonemes"):
        FrameCorpus([manifest])

"""The speech that is played: the bundled set, folders and manifests of others."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tinyvoice.benchmark.speech import BUNDLED, bundled_speech, load_speech, of_length
from tinyvoice.errors import ManifestError


def test_the_bundled_set_has_texts_word_times_and_two_lengths() -> None:
    clips = bundled_speech()
    assert len(clips) == 24
    assert all(clip.text and clip.first_word_end for clip in clips)
    assert all(0 <= clip.onset < clip.first_word_end < clip.duration for clip in clips)  # type: ignore[operator]
    assert len(of_length(clips, 2.0, 3.5)) == 20
    assert len(of_length(clips, 8.5, 11.0)) == 4
    assert sum(file.stat().st_size for file in BUNDLED.iterdir()) < 1.5e6


def test_a_folder_with_transcripts(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(1600), np.full(1600, 0.5)]).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, 16_000)
    soundfile.write(tmp_path / "b.wav", sound, 16_000)
    (tmp_path / "transcripts.tsv").write_text("a.wav\tturn it on\n")
    first, second = load_speech(tmp_path)
    assert (first.name, first.text, first.onset, first.first_word_end) == (
        "a.wav",
        "turn it on",
        0.1,
        None,
    )
    assert (second.text, second.duration) == (None, 0.2)


def test_a_manifest_cuts_utterances_out_of_a_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "all.wav", np.linspace(0, 0.5, 16_000), 16_000, subtype="FLOAT")
    lines = [
        {"audio_filepath": "all.wav", "offset": 0.5, "duration": 0.25, "text": "yes"},
        {"audio_filepath": "all.wav", "text": "no", "words": [["no", 0.1, 0.3]]},
    ]
    path = tmp_path / "some.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    cut, whole = load_speech(path)
    assert (cut.duration, whole.duration) == (0.25, 1.0)
    assert cut.samples[0] == pytest.approx(0.25, abs=1e-3)
    assert (whole.onset, whole.first_word_end) == (0.1, 0.3)


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"text": "a"}', '{"audio_filepath": "a", "words": 3}']
)
def test_a_broken_manifest_names_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(f"\n{line}\n")
    with pytest.raises(ManifestError, match="line 2") as caught:
        load_speech(tmp_path)
    assert caught.value.line == 2


def test_nothing_to_play(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="holds no recordings"):
        load_speech(tmp_path)
    with pytest.raises(ManifestError, match="neither a folder"):
        load_speech(tmp_path / "missing")

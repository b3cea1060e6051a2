"""Clips strung together: audio, text and word times stay together."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import soundfile

from tinyvoice.audio.files import SAMPLE_RATE
from training.data.manifest import read_manifest, read_samples
from training.pretraining.texts import StringSettings, string_clips


def make_manifest(folder: Path, voices: list[str], seconds: float) -> Path:
    """One recording of clips whose samples are all of one value: 0.1, 0.2, …"""
    folder.mkdir()
    pieces, lines = [], []
    for number, voice in enumerate(voices, 1):
        lines.append(
            {
                "audio_filepath": "clips.wav",
                "offset": (number - 1) * seconds,
                "duration": seconds,
                "text": f"word{number}",
                "voice": voice,
                "words": [[f"word{number}", 0.1, seconds]],
            }
        )
        pieces.append(np.full(round(seconds * SAMPLE_RATE), number / 10, dtype=np.float32))
    soundfile.write(folder / "clips.wav", np.concatenate(pieces), SAMPLE_RATE, subtype="PCM_16")
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


def test_a_string_is_its_clips_with_pauses_between(tmp_path: Path) -> None:
    source = make_manifest(tmp_path / "clips", ["a", "a", "b"], 0.5)
    settings = StringSettings(strings=5, clips=(2, 4), pause_s=(0.25, 0.25))
    made = string_clips([source], tmp_path / "strings", random.Random(1), settings)
    utterances = read_manifest(made).utterances
    assert len(utterances) == 5
    for utterance in utterances:
        samples = read_samples(utterance)
        assert utterance.words is not None
        assert [word for word, _, _ in utterance.words] == utterance.text.split()
        assert {"word3"} == set(utterance.text.split()) or "word3" not in utterance.text
        for position, (word, start, end) in enumerate(utterance.words):
            assert start == round(position * 0.75 + 0.1, 3)
            said = samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
            np.testing.assert_allclose(said, int(word[-1]) / 10, atol=1e-4)


def test_a_string_is_not_longer_than_allowed(tmp_path: Path) -> None:
    source = make_manifest(tmp_path / "clips", ["a"], 0.5)
    settings = StringSettings(strings=20, clips=(8, 8), pause_s=(0.0, 0.1), longest_s=2.1)
    made = string_clips([source], tmp_path / "strings", random.Random(2), settings)
    durations = [utterance.duration for utterance in read_manifest(made).utterances]
    assert len(durations) == 20
    assert max(durations) <= 2.2
    assert min(durations) >= 1.6

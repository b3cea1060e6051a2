"""Manifests are read line by line, and audio by seeking."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tinyvoice.errors import AudioError, ManifestError
from training.data.manifest import Utterance, read_manifest, read_samples, write_manifest

GOOD = {"audio_filepath": "a.wav", "duration": 1.5, "text": "call mom"}


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    )
    return path


def ramp(path: Path, seconds: float = 2.0, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    samples = np.linspace(-0.5, 0.5, int(seconds * rate), dtype=np.float32)
    soundfile.write(path, np.stack([samples] * channels, axis=1), rate, subtype="FLOAT")
    return samples


def test_a_full_line_gives_every_field(tmp_path: Path) -> None:
    line = GOOD | {
        "offset": 12.5,
        "voice": "en-us+f2",
        "words": [["call", 0.1, 0.42], ["mom", 0.42, 0.8]],
        "phonemes": [["k", 0.1]],
        "lang": "ignored",
    }
    manifest = read_manifest(write_lines(tmp_path / "m.jsonl", line), phonemes=True)
    assert manifest.utterances == [
        Utterance(
            path=tmp_path / "a.wav",
            duration=1.5,
            text="call mom",
            offset=12.5,
            voice="en-us+f2",
            words=(("call", 0.1, 0.42), ("mom", 0.42, 0.8)),
            phonemes=(("k", 0.1),),
        )
    ]


def test_a_plain_line_and_empty_lines(tmp_path: Path) -> None:
    manifest = read_manifest(write_lines(tmp_path / "m.jsonl", "", GOOD, "  "))
    assert manifest.utterances == [Utterance(tmp_path / "a.wav", 1.5, "call mom")]
    assert manifest.duration == 1.5


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "JSON"),
        ('{"text": ', r"JSON \(Expecting value, character 9\)"),
        ("[1, 2]", "not a JSON object"),
        ("[" * 100_000, "JSON"),
        ({"duration": 1.0, "text": "x"}, "audio_filepath"),
        (GOOD | {"text": None}, "text"),
        (GOOD | {"duration": -1}, "duration"),
        (GOOD | {"duration": float("nan")}, "duration"),
        (GOOD | {"duration": True}, "duration"),
        (GOOD | {"offset": "0"}, "offset"),
        (GOOD | {"words": "call mom"}, "words"),
        (GOOD | {"words": [["call", 0.5, 0.1]]}, "out of order at 'call'"),
        (GOOD | {"words": [["call", 0.5, 0.6], ["mom", 0.1, 0.2]]}, "out of order at 'mom'"),
    ],
)
def test_a_broken_line_is_named_and_refused_or_skipped(
    tmp_path: Path, line: object, reason: str
) -> None:
    path = write_lines(tmp_path / "m.jsonl", GOOD, line, GOOD)
    with pytest.raises(ManifestError, match=reason) as caught:
        read_manifest(path)
    assert caught.value.line == 2
    assert f"{path}:2:" in str(caught.value)
    assert "set data.on_error=skip" in str(caught.value)

    skipped = read_manifest(path, on_error="skip")
    assert len(skipped) == 2
    assert [error.line for error in skipped.errors] == [2]
    assert str(skipped.errors[0]).startswith(f"{path}:2:")
    assert str(skipped.errors[0]).endswith("; the line is left out until it is corrected.")


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone\.jsonl cannot be read"):
        read_manifest(tmp_path / "gone.jsonl", on_error="skip")


def test_writing_and_reading_gives_the_same_utterances(tmp_path: Path) -> None:
    utterances = [
        Utterance(tmp_path / "a.wav", 1.0, "naïve café", 0.5, "v", (("naïve", 0.0, 0.4),), None),
        Utterance(Path("/elsewhere/b.wav"), 2.0, "", phonemes=(("a", 0.25),)),
    ]
    assert write_manifest(tmp_path / "m.jsonl", utterances) == 2
    assert read_manifest(tmp_path / "m.jsonl", phonemes=True).utterances == utterances


def test_reading_seeks_to_the_utterance(tmp_path: Path) -> None:
    samples = ramp(tmp_path / "a.wav")
    read = read_samples(Utterance(tmp_path / "a.wav", 0.5, "", offset=1.25))
    np.testing.assert_array_equal(read, samples[20_000:28_000])


def test_stereo_is_mixed_and_other_rates_are_converted(tmp_path: Path) -> None:
    ramp(tmp_path / "a.wav", rate=8_000, channels=2)
    read = read_samples(Utterance(tmp_path / "a.wav", 2.0, ""))
    assert read.shape == (32_000,)
    assert read.dtype == np.float32
    assert abs(read[16_000]) < 1e-3


@pytest.mark.parametrize("offset", [1.8, 2.0, 99.0])
def test_an_utterance_past_the_end_is_named(tmp_path: Path, offset: float) -> None:
    ramp(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=r"ends at 2\.00 s"):
        read_samples(Utterance(tmp_path / "a.wav", 0.5, "", offset=offset))


def test_a_duration_rounded_up_is_read_to_the_end(tmp_path: Path) -> None:
    ramp(tmp_path / "a.wav")
    assert len(read_samples(Utterance(tmp_path / "a.wav", 2.01, ""))) == 32_000


def test_what_is_not_audio_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("not audio")
    for name in ("a.wav", "missing.wav"):
        with pytest.raises(AudioError, match=name):
            read_samples(Utterance(tmp_path / name, 1.0, ""))


def test_samples_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    samples = np.zeros(16_000, dtype=np.float32)
    samples[5] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="not numbers"):
        read_samples(Utterance(tmp_path / "a.wav", 1.0, ""))

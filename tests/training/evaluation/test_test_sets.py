"""Tests of training.evaluation.test_sets."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tinyvoice.errors import ConfigurationError, ManifestError
from training.evaluation.test_sets import (
    NON_SPEECH_KINDS,
    MissingDataError,
    NonSpeech,
    Request,
    load_test_set,
)


def wav_bytes(seconds: float = 0.25, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    tone = 0.1 * np.sin(np.arange(int(seconds * rate)) / 9)
    soundfile.write(buffer, tone, rate, format="WAV")
    return buffer.getvalue()


@pytest.fixture
def clinc(tmp_path: Path) -> Path:
    sentences = [f"set a timer for {minutes} minutes" for minutes in range(2, 32)]
    (tmp_path / "clinc150-validation.txt").write_text("\n".join(sentences))
    return tmp_path


@pytest.mark.parametrize("kind", NON_SPEECH_KINDS)
def test_non_speech_sounds_are_the_same_for_the_same_seed(kind: str) -> None:
    samples, words = NonSpeech(kind, 3.0, seed=7).load()
    again, _ = NonSpeech(kind, 3.0, seed=7).load()
    other, _ = NonSpeech(kind, 3.0, seed=8).load()
    assert samples.dtype == np.float32
    assert samples.shape == (48_000,)
    assert np.abs(samples).max() <= 1.0
    assert words == ()
    np.testing.assert_array_equal(samples, again)
    assert kind == "silence" or not np.array_equal(samples, other)


def test_coloured_noises_fall_off_as_their_names_say() -> None:
    def slope(kind: str) -> float:
        """Decibels an octave, between 250 Hz and 4 kHz."""
        samples, _ = NonSpeech(kind, 20.0, seed=1).load()
        power = np.abs(np.fft.rfft(samples)) ** 2
        hertz = np.fft.rfftfreq(len(samples), 1 / 16_000)
        low = power[(hertz > 250) & (hertz < 500)].mean()
        high = power[(hertz > 2000) & (hertz < 4000)].mean()
        return float(10 * np.log10(high / low) / 3)

    assert slope("white noise") == pytest.approx(0.0, abs=0.3)
    assert slope("pink noise") == pytest.approx(-3.0, abs=0.3)
    assert slope("brown noise") == pytest.approx(-6.0, abs=0.4)


def test_no_speech_holds_five_minutes_of_each_kind() -> None:
    examples = load_test_set("no-speech", Request()).examples
    for kind in NON_SPEECH_KINDS:
        seconds = [
            e.source.seconds
            for e in examples
            if isinstance(e.source, NonSpeech) and e.group == kind
        ]
        assert sum(seconds) == pytest.approx(300.0)
        assert min(seconds) >= 3.0
    assert {example.text for example in examples} == {""}


def test_count_draws_the_same_examples_for_the_same_seed() -> None:
    every = [example.name for example in load_test_set("no-speech", Request()).examples]
    some = [example.name for example in load_test_set("no-speech", Request(count=20)).examples]
    again = [e.name for e in load_test_set("no-speech", Request(count=20)).examples]
    other = [e.name for e in load_test_set("no-speech", Request(count=20, seed=1)).examples]
    assert len(some) == 20
    assert some == again
    assert some != other
    assert some == [name for name in every if name in some]


def test_spoken_sets_use_the_voices_their_names_say(clinc: Path) -> None:
    pytest.importorskip("espeakng_loader")
    from training.synthesis.voices import HELD_OUT_VOICES, TRAINING_VOICES

    known = load_test_set("clinc-known", Request(clinc)).examples
    unseen = load_test_set("clinc-unseen", Request(clinc)).examples
    assert len(known) == len(unseen) == 30
    assert {example.group for example in known} <= set(TRAINING_VOICES)
    assert {example.group for example in unseen} <= set(HELD_OUT_VOICES)
    assert not {example.group for example in known} & {example.group for example in unseen}
    assert all(example.text.startswith("set a timer for ") for example in known)


def test_a_spoken_example_has_audio_and_a_time_for_each_word(clinc: Path) -> None:
    pytest.importorskip("espeakng_loader")
    example = load_test_set("clinc-unseen", Request(clinc, count=1)).examples[0]
    samples, times = example.source.load()
    assert 0.5 < len(samples) / 16_000 < 10
    assert times is not None
    assert [word for word, _, _ in times] == example.text.split()


def test_fsdd_holds_the_speakers_kept_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "fsdd.tar.gz", "w:gz") as archive:
        for name in ("./7_theo_3.wav", "./0_yweweler_11.wav", "./4_george_0.wav"):
            content = wav_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    examples = load_test_set("fsdd", Request(tmp_path)).examples
    assert [(e.name, e.text, e.group) for e in examples] == [
        ("0_yweweler_11", "zero", "yweweler"),
        ("7_theo_3", "seven", "theo"),
    ]
    samples, times = examples[0].source.load()
    assert len(samples) == 4000
    assert times is None


def test_a_folder_with_transcripts(tmp_path: Path) -> None:
    (tmp_path / "one.wav").write_bytes(wav_bytes())
    (tmp_path / "two.flac").write_bytes(wav_bytes())
    (tmp_path / "transcripts.tsv").write_text("one\tHello there.\n\ntwo.flac\tBye\n")
    examples = load_test_set(str(tmp_path), Request()).examples
    assert [(e.name, e.text) for e in examples] == [("one", "Hello there."), ("two", "Bye")]
    assert len(examples[1].source.load()[0]) == 4000


def test_a_line_without_a_tab_is_named(tmp_path: Path) -> None:
    (tmp_path / "transcripts.tsv").write_text("one\tHello\ntwo Bye\n")
    with pytest.raises(ManifestError, match=r"transcripts\.tsv:2"):
        load_test_set(str(tmp_path), Request())


def test_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "all.wav").write_bytes(wav_bytes(2.0))
    lines = [
        {"audio_filepath": "all.wav", "offset": 0.5, "duration": 1.0, "text": "hi", "voice": "v"},
        {"audio_filepath": "all.wav", "duration": 0.5, "text": "ho", "words": [["ho", 0.1, 0.4]]},
    ]
    path = tmp_path / "made.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    test_set = load_test_set(str(path), Request())
    assert test_set.name == "made"
    assert [(e.text, e.group) for e in test_set.examples] == [("hi", "v"), ("ho", "")]
    assert len(test_set.examples[0].source.load()[0]) == 16_000
    assert test_set.examples[1].source.load()[1] == (("ho", 0.1, 0.4),)


def test_a_folder_in_the_format_of_the_hub(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {
        "audio": [{"bytes": wav_bytes(), "path": "a.wav"}, {"bytes": wav_bytes(), "path": "b.wav"}],
        "sentence": ["Good morning", "Good night"],
    }
    (tmp_path / "corpus").mkdir()
    datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / "corpus" / "test.parquet"))
    request = Request(count=1)
    examples = load_test_set(str(tmp_path / "corpus"), request).examples
    assert [e.text for e in examples] == ["Good morning"]
    assert len(examples[0].source.load()[0]) == 4000
    with pytest.raises(ConfigurationError, match="audio, sentence"):
        load_test_set(str(tmp_path / "corpus"), Request(text_column="missing"))


@pytest.mark.parametrize("name", ["clinc-known", "fsdd", "ljspeech"])
def test_missing_data_says_what_and_where(name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="--data-dir"):
        load_test_set(name, Request())
    with pytest.raises(MissingDataError, match=str(tmp_path)):
        load_test_set(name, Request(tmp_path))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="clinc-known"):
        load_test_set("librispeech", Request())

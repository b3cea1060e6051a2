"""What `tinyvoice listen --save` keeps, and where."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli.test_live_view import ENDED, FINAL, NOTHING, PARTIAL
from tinyvoice.cli.recorder import Recorder, save_paths
from tinyvoice.errors import TinyvoiceError

NOW = datetime(2026, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("place", "sound", "text"),
    [
        ("talk", "talk.flac", "talk.txt"),
        ("v1.2", "v1.2.flac", "v1.2.txt"),
        ("talk.wav", "talk.wav", "talk.txt"),
        ("deep/talk.FLAC", "deep/talk.FLAC", "deep/talk.txt"),
        ("new/", "new/listen-20260102-030405.flac", "new/listen-20260102-030405.txt"),
        ("old", "old/listen-20260102-030405.flac", "old/listen-20260102-030405.txt"),
    ],
)
def test_names(
    place: str, sound: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old").mkdir()
    assert save_paths(place, NOW) == (Path(sound), Path(text))


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_sound_and_finals_are_kept(suffix: str, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    packets = [random.integers(-32768, 32768, (320, 2)).astype(np.int16) for _ in range(3)]
    with Recorder(str(tmp_path / "new" / f"talk{suffix}"), 44100, 2) as recorder:
        for packet in packets:
            recorder.hear(packet)
        for event in (PARTIAL, ENDED, FINAL, NOTHING):
            recorder.note(event)
        assert recorder.text_path.read_text() == "[00:01.0] turn the lights off\n"
    samples, rate = soundfile.read(recorder.sound_path, dtype="int16")
    assert rate == 44100
    np.testing.assert_array_equal(samples, np.concatenate(packets))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    kept = tmp_path / "talk.txt"
    kept.write_text("precious")
    with pytest.raises(TinyvoiceError, match=r"talk\.txt: exists already; choose another name"):
        Recorder(str(tmp_path / "talk"), 16000, 1).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["talk.txt"]
    assert kept.read_text() == "precious"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no device that is always full")
def test_a_full_disk_is_told_once_and_closing_is_quiet(tmp_path: Path) -> None:
    with Recorder(str(tmp_path / "talk"), 16000, 1) as recorder:
        assert recorder._text is not None
        recorder._text.close()
        recorder._text = Path("/dev/full").open("w")  # noqa: SIM115
        with pytest.raises(TinyvoiceError, match=r"talk\.txt: .*No space left.*make room"):
            recorder.note(FINAL)
        recorder.note(FINAL)
        recorder.hear(np.zeros(320, dtype=np.int16))
    assert recorder.failed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no device that is always full")
def test_a_disk_that_is_full_at_the_end_is_told(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path / "talk"), 16000, 1).__enter__()
    assert recorder._text is not None
    recorder._text.close()
    recorder._text = Path("/dev/full").open("w")  # noqa: SIM115
    recorder._text.write("not written yet")
    with pytest.raises(TinyvoiceError, match=r"talk\.txt: .*No space left"):
        recorder.__exit__(None, None, None)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.joinpath("file").write_text("in the way")
    with pytest.raises(TinyvoiceError, match=r"cannot be written .*choose another place"):
        Recorder(str(tmp_path / "file" / "talk"), 16000, 1).__enter__()

"""The command ``transcribe``, with miniature models of random weights: what goes where, and how."""

import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import Program
from tests.miniature import clip, write_checkpoint
from tinyvoice.benchmark.speech import bundled_speech
from tinyvoice.cli.app import main
from tinyvoice.cli.progress import Activity
from tinyvoice.model.modeling import ASRModel


class Result(NamedTuple):
    code: int
    out: str
    err: str


Transcribe = Callable[..., Result]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, made the current one, with three recordings and what is none."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for seed, name in enumerate(("a.wav", "b.flac", "c.ogg")):
        soundfile.write(folder / name, clip(1.0 + seed, seed), 16000)
    (folder / "text.wav").write_text("these are words, but nobody says them\n")
    (folder / "empty.wav").touch()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def transcribe(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Transcribe]:
    """Run the command in this process, which spares it the imports."""
    logger = logging.getLogger("tinyvoice")
    before = logger.level, logger.propagate, list(logger.handlers)

    def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main(["transcribe", "--model", str(model_folder), *map(str, arguments)])
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Result(code, out, err)

    yield run
    level, logger.propagate, logger.handlers = before
    logger.setLevel(level)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> ASRModel:
    return ASRModel.from_pretrained(model_folder, device="cpu")


@pytest.mark.usefixtures("recordings")
class TestOutput:
    def test_one_file_gives_its_text(self, transcribe: Transcribe, model: ASRModel) -> None:
        text = model.transcribe("a.wav").text
        assert transcribe("a.wav") == Result(0, text + "\n", "")

    def test_several_files_are_named_and_in_order(
        self, transcribe: Transcribe, model: ASRModel
    ) -> None:
        names = ["c.ogg", "a.wav", "b.flac"]
        expected = "".join(f"{name}: {model.transcribe(name).text}\n" for name in names)
        for batch_size in (1, 2, 16):
            assert transcribe(*names, "--batch-size", batch_size) == Result(0, expected, "")

    def test_json_is_one_object_a_line(self, transcribe: Transcribe, model: ASRModel) -> None:
        result = transcribe("a.wav", "b.flac", "--json")
        first, second = map(json.loads, result.out.splitlines())
        transcript = model.transcribe("a.wav")
        assert first == {
            "file": "a.wav",
            "text": transcript.text,
            "duration": 1.0,
            "confidence": round(transcript.confidence, 4),
        }
        assert second["file"] == "b.flac"
        assert second["duration"] == 2.0

    def test_json_with_words(self, transcribe: Transcribe) -> None:
        record = json.loads(transcribe("c.ogg", "--json", "--words").out)
        assert [word["text"] for word in record["words"]] == record["text"].split()
        for word in record["words"]:
            assert set(word) == {"text", "start", "end", "confidence"}
            assert 0 <= word["start"] <= word["end"] <= record["duration"] + 0.1
            assert 0 <= word["confidence"] <= 1

    def test_text_with_words_has_a_line_for_each(self, transcribe: Transcribe) -> None:
        text, *words = transcribe("c.ogg", "--words").out.splitlines()
        assert [line.split()[3] for line in words] == text.split()
        assert all(re.fullmatch(r" +\d+\.\d{3} +\d+\.\d{3} +[01]\.\d{3}  \S+", w) for w in words)

    def test_srt_and_vtt(self, transcribe: Transcribe) -> None:
        srt = transcribe("c.ogg", "--srt").out
        assert re.match(r"1\n\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}\n\S", srt)
        vtt = transcribe("c.ogg", "--vtt").out
        assert re.match(r"WEBVTT\n\n\d\d:\d\d:\d\d\.\d{3} --> \d\d:\d\d:\d\d\.\d{3}\n\S", vtt)

    def test_standard_input(self, transcribe: Transcribe, model: ASRModel) -> None:
        content = Path("a.wav").read_bytes()
        text = model.transcribe("a.wav").text
        assert transcribe("-", stdin=content).out == text + "\n"
        record = json.loads(transcribe("-", "--json", stdin=content).out)
        assert record["file"] == "standard input"


@pytest.mark.usefixtures("recordings")
class TestFolderOfResults:
    @pytest.mark.parametrize(
        ("option", "suffix"),
        [(None, "txt"), ("--json", "json"), ("--srt", "srt"), ("--vtt", "vtt")],
    )
    def test_each_recording_gets_a_file(
        self, transcribe: Transcribe, option: str | None, suffix: str
    ) -> None:
        options = [option] if option else []
        result = transcribe("a.wav", "b.flac", *options, "--output", "new/results")
        assert result.out.splitlines() == [f"new/results/a.{suffix}", f"new/results/b.{suffix}"]
        for name in ("a.wav", "b.flac"):
            alone = transcribe(name, *options).out
            written = Path("new/results", name).with_suffix(f".{suffix}").read_text()
            assert written.rstrip("\n") == alone.rstrip("\n")

    def test_names_that_would_collide_do_not(self, transcribe: Transcribe) -> None:
        Path("other").mkdir()
        for copy in ("a.flac", "other/a.wav"):
            soundfile.write(copy, clip(1.0), 16000)
        result = transcribe("a.wav", "a.flac", "other/a.wav", "b.flac", "-o", "out")
        assert sorted(path.name for path in Path("out").iterdir()) == [
            "a.flac.txt",
            "a.wav-2.txt",
            "a.wav.txt",
            "b.txt",
        ]
        assert result.code == 0

    def test_a_folder_that_cannot_be_made(self, transcribe: Transcribe) -> None:
        result = transcribe("a.wav", "-o", "b.flac/out")
        assert result.code == 1
        assert result.err.startswith("error: b.flac/out: cannot be made a folder for the results")
        assert result.err.count("\n") == 1


@pytest.mark.usefixtures("recordings")
class TestBadInput:
    def test_bad_files_are_named_and_the_others_transcribed(
        self, transcribe: Transcribe, model: ASRModel
    ) -> None:
        result = transcribe("gone.wav", "a.wav", "text.wav", "empty.wav", ".", "b.flac")
        assert result.code == 1
        assert result.out == "".join(
            f"{name}: {model.transcribe(name).text}\n" for name in ("a.wav", "b.flac")
        )
        errors = result.err.splitlines()
        assert [line.split(":")[1].strip() for line in errors] == [
            "gone.wav",
            "text.wav",
            "empty.wav",
            ".",
        ]
        assert all(line.startswith("error: ") for line in errors)

    def test_without_a_good_file_no_model_is_loaded(self, transcribe: Transcribe) -> None:
        result = transcribe("gone.wav", "--model", "no/such/model/anywhere")
        assert result == Result(
            1, "", "error: gone.wav: no such file; check the name and the folder.\n"
        )

    def test_a_url_without_a_server(self, transcribe: Transcribe) -> None:
        result = transcribe("http://127.0.0.1:9/a.wav", "a.wav")
        assert result.code == 1
        assert result.err.count("\n") == 1
        assert "http://127.0.0.1:9/a.wav: could not be fetched" in result.err
        assert result.out.startswith("a.wav: ")

    def test_warnings_are_shown_beside_the_result(self, transcribe: Transcribe) -> None:
        samples = clip(1.0)
        samples[7] = np.nan
        soundfile.write("nan.wav", samples, 16000, subtype="FLOAT")
        result = transcribe("nan.wav")
        assert result.code == 0
        assert result.err == (
            "warning: nan.wav: 1 of 16000 samples are NaN or infinite "
            "and were replaced by silence.\n"
        )

    @pytest.mark.parametrize(
        ("option", "limit", "words"),
        [
            ("--max-duration", "1.5", "b.flac: is longer than the 1.5 s allowed"),
            ("--max-size", "0.035", "b.flac: is larger than the 36 kB allowed"),
        ],
    )
    def test_limits(self, transcribe: Transcribe, option: str, limit: str, words: str) -> None:
        result = transcribe("a.wav", "b.flac", option, limit)
        assert result.code == 1
        assert words in result.err
        assert result.out.startswith("a.wav: ")

    def test_no_limits(self, transcribe: Transcribe) -> None:
        assert transcribe("a.wav", "--max-duration", "inf", "--max-size", "inf").code == 0

    def test_an_empty_name(self, transcribe: Transcribe) -> None:
        result = transcribe("", "a.wav")
        assert result.code == 1
        assert result.err.startswith("error: A file name is empty")
        assert result.out.startswith("a.wav: ")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full disk to try")
    def test_a_full_disk(self, transcribe: Transcribe, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch, Path("/dev/full").open("w") as full:
            patch.setattr(sys, "stdout", full)
            result = transcribe("a.wav")
            with pytest.raises(OSError, match="No space left"):
                full.close()  # what could not be written is still there
        assert result.code == 1
        assert result.err.startswith("error: Standard output cannot be written (No space left")
        assert result.err.count("\n") == 1

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["a.wav", "--json", "--srt"], "choose one of --json, --srt and --vtt"),
            (["a.wav", "b.flac", "--vtt"], "add --output DIR to --vtt"),
            (["-", "-"], "- may be given once"),
            (["a.wav", "--batch-size", "0"], "--batch-size"),
            (["a.wav", "--device", "abacus"], "--device"),
            (["a.wav", "--frobnicate"], "No such option"),
        ],
    )
    def test_wrong_usage_is_told_apart(
        self, transcribe: Transcribe, arguments: list[str], words: str
    ) -> None:
        result = transcribe(*arguments)
        assert result.code == 2
        assert result.out == ""
        assert words in " ".join(result.err.replace("│", " ").split())

    @pytest.mark.parametrize("name", ["./no/such/folder", "a.wav"])
    def test_a_model_that_is_not_there(self, transcribe: Transcribe, name: str) -> None:
        result = transcribe("a.wav", "--model", name)
        assert result.code == 1
        assert result.err.count("\n") == 1
        assert name in result.err


class TestLong:
    """Longer than the model takes, with the embedded model and real speech."""

    NUMBERS = range(8)

    @pytest.fixture
    def long(self, recordings: Path) -> str:
        pieces = [np.pad(bundled_speech()[n].samples, (0, 16000)) for n in self.NUMBERS]
        soundfile.write("long.wav", np.concatenate([*pieces, np.zeros(160000)]), 16000)
        return "long.wav"

    def test_is_cut_in_its_pauses(self, transcribe: Transcribe, long: str) -> None:
        text = transcribe(long, "-m", "embedded").out
        clips = [f"clip{n}.wav" for n in self.NUMBERS]
        for name, n in zip(clips, self.NUMBERS, strict=True):
            soundfile.write(name, bundled_speech()[n].samples, 16000)
        apart = transcribe(*clips, "-m", "embedded").out.splitlines()
        expected = " ".join(line.split(": ", 1)[1] for line in apart).split()
        # The sound around a sentence may tip a word or two.
        assert SequenceMatcher(a=expected, b=text.split()).ratio() > 0.9

    def test_can_be_cut_at_its_quietest_points(self, transcribe: Transcribe, long: str) -> None:
        fixed = transcribe(long, "-m", "embedded", "--segment", "fixed").out
        model = ASRModel.from_pretrained("embedded", device="cpu")
        assert fixed == model.transcribe(long, segment="fixed").text + "\n"
        assert fixed != transcribe(long, "-m", "embedded").out

    def test_words_are_timed_on_its_clock(self, transcribe: Transcribe, long: str) -> None:
        record = json.loads(transcribe(long, "-m", "embedded", "--json", "--words").out)
        assert [word["text"] for word in record["words"]] == record["text"].split()
        times = [word["start"] for word in record["words"]]
        assert times == sorted(times)
        begin = 0.0
        for number in self.NUMBERS:
            sentence = bundled_speech()[number]
            # Some word begins where the sentence does, and none in the second behind it.
            assert min(abs(time - begin - sentence.onset) for time in times) < 0.15
            begin += sentence.duration + 1.0
            assert not any(begin - 0.9 < time < begin - 0.1 for time in times)
        assert times[-1] < record["duration"] - 10

    def test_a_bar_shows_how_far_it_is(
        self, transcribe: Transcribe, long: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shares: list[float] = []
        monkeypatch.setattr(Activity, "under_way", lambda _, share: shares.append(share))
        transcribe(long, "-m", "embedded", "--batch-size", 2)
        assert shares == sorted(shares)
        assert len(shares) > 4
        assert shares[-1] == pytest.approx(1.0)


class TestStreamed:
    """Through the engine, with the embedded model and real speech."""

    @pytest.fixture
    def speech(self, recordings: Path) -> list[str]:
        for number in (0, 2):
            samples = np.pad(bundled_speech()[number].samples, (4000, 12000))
            soundfile.write(f"speech{number}.wav", samples, 16000)
        return ["speech0.wav", "speech2.wav"]

    def test_gives_the_words_of_the_utterances(
        self, transcribe: Transcribe, speech: list[str]
    ) -> None:
        offline = transcribe(*speech, "-m", "embedded")
        assert offline.out.count("\n") == 2
        for option in (["--batch-size", "1"], ["--speed", "20"]):
            assert transcribe(*speech, "-m", "embedded", "--stream", *option) == offline

    def test_offline_stands_beside_it(self, transcribe: Transcribe, speech: list[str]) -> None:
        text = transcribe(speech[0], "-m", "embedded").out
        options = ["-m", "embedded", "--stream", "--compare"]
        assert transcribe(speech[0], *options).out == f"streamed  {text}offline   {text}"
        several = transcribe(*speech, *options).out
        assert several.startswith(f"{speech[0]}:\nstreamed  {text}offline   {text}{speech[1]}:\n")

    def test_json_tells_the_utterances(self, transcribe: Transcribe, speech: list[str]) -> None:
        options = ["-m", "embedded", "--stream", "--json", "--words", "--compare"]
        record = json.loads(transcribe(speech[1], *options).out)
        (utterance,) = record["utterances"]
        assert utterance["text"] == record["text"] == record["offline"]
        assert 0.2 < utterance["start"] < utterance["end"] < record["duration"]
        assert [word["text"] for word in record["words"]] == record["text"].split()
        assert all(
            0.1 < word["start"] < word["end"] < record["duration"] for word in record["words"]
        )

    def test_subtitles(self, transcribe: Transcribe, speech: list[str]) -> None:
        srt = transcribe(speech[0], "-m", "embedded", "--stream", "--srt").out
        assert re.match(r"1\n00:00:00,\d{3} --> 00:00:0\d,\d{3}\n\w", srt)

    def test_no_speech_gives_no_text(self, transcribe: Transcribe, recordings: Path) -> None:
        soundfile.write("silence.wav", np.zeros(32000), 16000)
        assert transcribe("silence.wav", "-m", "embedded", "--stream") == Result(0, "\n", "")
        record = json.loads(transcribe("silence.wav", "-m", "embedded", "--stream", "--json").out)
        assert (record["text"], record["utterances"], record["duration"]) == ("", [], 2.0)

    def test_partials_are_shown_on_a_terminal_and_go(
        self, transcribe: Transcribe, speech: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setattr("tinyvoice.cli.progress.PATIENCE_S", 600.0)  # no bar on slow machines
        result = transcribe(speech[0], "-m", "embedded", "--stream")
        lines = result.err.split("\r\x1b[2K")
        assert len(lines) > 4
        assert lines[-1] == ""
        assert any("\x1b[2m" in line for line in lines)
        assert "\x1b" not in result.out

    @pytest.mark.parametrize(
        "options",
        [
            ["--compare"],
            ["--speed", "1"],
            ["--stream", "--compare", "--srt"],
            ["--stream", "--segment", "fixed"],
        ],
    )
    def test_options_that_do_not_go_together(
        self, transcribe: Transcribe, recordings: Path, options: list[str]
    ) -> None:
        assert transcribe("a.wav", *options).code == 2


def test_the_program_itself(
    program: Program, model_folder: Path, recordings: Path, model: ASRModel
) -> None:
    """Once through a process of its own: nothing but the transcript on either output."""
    result = program("transcribe", recordings / "a.wav", "-m", model_folder)
    text = model.transcribe(recordings / "a.wav").text
    assert (result.returncode, result.stdout, result.stderr) == (0, text + "\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="names are text on other systems")
def test_a_name_that_is_no_text(program: Program, model_folder: Path, recordings: Path) -> None:
    name = os.fsdecode(b"\xff.wav")
    (recordings / name).write_bytes((recordings / "a.wav").read_bytes())
    files = [recordings / name, recordings / "a.wav"]
    result = program("transcribe", *files, "-m", model_folder, "--json", "-o", "out")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "out/\\udcff.json\nout/a.json\n"

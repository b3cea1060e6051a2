"""Tests of training.cli.eval."""

import json
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

from tests.miniature import clip, random_model
from tinyvoice.benchmark.speech import BUNDLED, MANIFEST
from tinyvoice.errors import ManifestError
from tinyvoice.model.modeling import ASRModel
from training.cli.analysis import app as analyse
from training.cli.eval import app
from training.evaluation.evaluate import ModelTranscriber
from training.evaluation.streamed_report import BEGIN, END

runner = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    random_model(embedded_backbones=True).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for index in range(3):
        soundfile.write(folder / f"{index}.wav", clip(0.5, index), 16_000)
    lines = [f"{index}\tturn on light number {index}" for index in range(3)]
    (folder / "transcripts.tsv").write_text("\n".join(lines))
    return folder


def test_prints_a_table_and_keeps_hypotheses(model: str, recordings: Path, tmp_path: Path) -> None:
    output = tmp_path / "results"
    result = runner.invoke(app, ["-m", model, "-d", str(recordings), "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert "WER" in result.output
    lines = [json.loads(line) for line in (output / "mine.jsonl").read_text().splitlines()]
    assert [line["reference"] for line in lines] == [
        "turn on light number zero",
        "turn on light number one",
        "turn on light number two",
    ]
    assert json.loads((output / "mine.json").read_text())["words"] == 15


def test_json_has_a_line_for_each_set(model: str, recordings: Path) -> None:
    arguments = ["-m", model, "-d", str(recordings), "-d", "no-speech", "-n", "2", "--json"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    figures = [json.loads(line) for line in result.stdout.splitlines()]
    assert [figure["test_set"] for figure in figures] == ["mine", "no-speech"]
    assert [figure["utterances"] for figure in figures] == [2, 2]
    assert figures[1]["wer"] is None


def test_evaluating_twice_gives_the_same_figures(model: str) -> None:
    arguments = ["-m", model, "-d", "no-speech", "-n", "4", "--json", "--seed", "3"]
    first, second = (json.loads(runner.invoke(app, arguments).stdout) for _ in range(2))
    del first["processing_seconds"], second["processing_seconds"]
    assert first == second


def test_a_set_without_data_is_skipped_and_the_others_are_measured(
    model: str, recordings: Path, tmp_path: Path
) -> None:
    arguments = ["-m", model, "-d", "fsdd", "-d", str(recordings), "--data-dir", str(tmp_path)]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "skipped fsdd" in result.stderr
    assert "fsdd.tar.gz" in result.stderr
    assert "WER" in result.stdout


def test_nothing_measured_is_a_failure(model: str, tmp_path: Path) -> None:
    result = runner.invoke(app, ["-m", model, "-d", "ljspeech", "--data-dir", str(tmp_path)])
    assert result.exit_code == 1


def test_the_folder_of_data_may_come_from_the_environment(
    model: str, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings.rename(recordings.parent / "ljspeech")
    monkeypatch.setenv("TINYVOICE_DATA", str(recordings.parent))
    result = runner.invoke(app, ["-m", model, "-d", "ljspeech", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["utterances"] == 3


class TestStreamed:
    """With the embedded model: one of random weights hears no utterances."""

    speech = str(BUNDLED / MANIFEST)

    def test_a_table_and_files_and_a_place_in_documents(self, tmp_path: Path) -> None:
        output = tmp_path / "results"
        arguments = ["-d", self.speech, "-n", "2", "--stream", "--streams", "2", "-o", str(output)]
        result = runner.invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert "equal to offline" in result.stdout
        lines = (output / "streamed" / "manifest-manual-auto-2.jsonl").read_text().splitlines()
        assert [json.loads(line)["verdict"] for line in lines] == ["equal", "equal"]
        document = tmp_path / "results.md"
        document.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
        written = runner.invoke(analyse, ["table", str(output), "--into", str(document)])
        assert written.exit_code == 0, written.output
        assert "| `manifest` | manual, auto, 2 at once | 2 | 2 | 0 | 0 | +0.00 |" in (
            document.read_text()
        )
        printed = runner.invoke(analyse, ["table", str(output)])
        assert printed.stdout.startswith("| test set | played |")

    def test_json_of_edge_sets_and_sound_without_speech(self) -> None:
        sets = ["-d", "cut-and-pad", "-d", "no-speech", "-d", "speed", "--seconds", "30"]
        options = ["--stream", "--endpointing", "vad", "--encoder", "window", "-n", "2", "--json"]
        result = runner.invoke(app, [*sets, *options])
        assert result.exit_code == 0, result.output
        padded, noise = map(json.loads, result.stdout.splitlines())
        assert padded["equal"] + padded["ties"] == 2
        assert padded["lost_at_beginning"] == padded["lost_at_end"] == 0
        assert noise["words_heard"] == 0
        assert "tinyvoice bench" in result.stderr

    @pytest.mark.parametrize("option", [["--encoder", "abacus"], ["--streams", "0"]])
    def test_options_out_of_range_are_refused(self, option: list[str]) -> None:
        assert runner.invoke(app, ["-d", "no-speech", "--stream", *option]).exit_code == 2


@pytest.mark.parametrize("played", [(), ("--stream",)])
def test_broken_lines_stop_the_program_or_are_counted(
    model: str, recordings: Path, tmp_path: Path, played: tuple[str, ...]
) -> None:
    manifest = tmp_path / "some.jsonl"
    line = {"audio_filepath": str(recordings / "0.wav"), "duration": 0.5, "text": "on"}
    manifest.write_text(json.dumps(line) + "\nbroken\n")
    arguments = ["-m", model, "-d", str(manifest), "--json", *played]
    stopped = runner.invoke(app, arguments)
    assert isinstance(stopped.exception, ManifestError)
    assert "some.jsonl:2: not a line of JSON" in str(stopped.exception)
    assert "add --on-error skip" in str(stopped.exception)
    result = runner.invoke(app, [*arguments, "--on-error", "skip"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["utterances"] == 1
    assert len(figures["skipped"]) == 1
    assert "some.jsonl:2" in figures["skipped"][0]


def test_broken_lines_of_a_table_are_counted_in_the_summary(model: str, recordings: Path) -> None:
    table = recordings / "transcripts.tsv"
    table.write_text(table.read_text() + "\nno tab here\n")
    with pytest.raises(ManifestError, match=r"transcripts\.tsv:4: no tab .* add --on-error skip"):
        runner.invoke(app, ["-m", model, "-d", str(recordings)], catch_exceptions=False)
    result = runner.invoke(app, ["-m", model, "-d", str(recordings), "--on-error", "skip"])
    assert result.exit_code == 0, result.output
    assert "1 not measured:" in result.stdout


@pytest.mark.parametrize("played", [(), ("--stream",)])
def test_a_set_of_which_nothing_could_be_measured_is_a_failure(
    model: str, recordings: Path, played: tuple[str, ...]
) -> None:
    for file in recordings.glob("*.wav"):
        file.write_text("no audio")
    result = runner.invoke(app, ["-m", model, "-d", str(recordings), "--json", *played])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["utterances"] == 0


def test_the_model_is_loaded_as_asked(model: str, recordings: Path) -> None:
    transcriber = ModelTranscriber(model, dtype="float32", load_in_8bit=True)
    with pytest.MonkeyPatch.context() as patch:
        asked: dict[str, object] = {}
        patch.setattr(ASRModel, "from_pretrained", lambda name, **how: asked.update(how))
        transcriber.load()
    assert asked == {"device": "auto", "dtype": "float32", "load_in_8bit": True}
    for options in (["--int8"], ["--dtype", "bfloat16"], ["--int8", "--stream"]):
        result = runner.invoke(app, ["-m", model, "-d", str(recordings), "-n", "1", *options])
        assert result.exit_code == 0, result.output
    result = runner.invoke(app, ["-m", model, "-d", "speed", "--int8"])
    assert result.exit_code == 1
    assert "skipped speed" in result.stderr

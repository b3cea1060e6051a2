"""``tinyvoice bench`` as its user runs it."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Program


def test_one_stream_as_json_and_kept_for_later(program: Program, tmp_path: Path) -> None:
    done = program("bench", "--seconds", "4", "--json", "--save", "kept.json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record == json.loads((tmp_path / "kept.json").read_text())
    single = record["single"]
    assert single["utterances"] >= 1
    assert single["latencies"]["time_to_final"]["count"] == single["utterances"]
    assert single["text"]["same_as_offline"] == 1.0
    assert record["machine"]["processor"]

    page = tmp_path / "page.md"
    page.write_text("<!-- figures: written by `tinyvoice bench` -->\n<!-- end of figures -->\n")
    shown = program("bench", "--from", "kept.json", "--into", page)
    assert shown.returncode == 0, shown.stderr
    assert "time to final" in shown.stdout
    assert "| time to final |" in page.read_text()


def test_many_streams_of_random_weights_beside_the_baseline(program: Program) -> None:
    done = program(
        "bench",
        "--random-weights",
        "--shape",
        "miniature",
        "--device",
        "cpu",
        "--no-single",
        "--streams",
        "2",
        "--stream-seconds",
        "3",
        "--baseline",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["model"]["random_weights"]
    assert record["single"] is None
    for kind in ("engine", "baseline"):
        [run] = record["streams"][kind]
        assert run["streams"] == 2
        assert run["revision_rate"] is None
        assert run["refused"] == 0
    assert set(record["held"]) == {"engine", "baseline"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--streams", "1,x"], "no list of numbers"),
        (["--streams", "0"], "no list of numbers"),
        (["--no-single"], "nothing is left to measure"),
        (["--into", "none.md"], "none.md cannot be read"),
        (["--from", "none.json"], "is no record"),
        (["--audio", "none"], "neither a folder nor a manifest"),
        (["--encoder", "round"], "encoder"),
    ],
)
def test_what_cannot_be_measured_is_said_at_once(
    program: Program, arguments: list[str], message: str
) -> None:
    done = program("bench", *arguments)
    assert done.returncode in (1, 2)
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr

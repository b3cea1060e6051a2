"""``tinyvoice bench`` as its user runs it."""

import json
import threading
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Program
from tests.server.conftest import running
from tinyvoice.benchmark.speech import BUNDLED, MANIFEST
from tinyvoice.server.settings import ServerSettings


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


def test_utterances_that_end_when_they_sound_finished(program: Program) -> None:
    done = program(
        "bench", "--seconds", "4", "--endpointing", "semantic", "--device", "cpu", "--json"
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["settings"]["endpointing"] == "semantic"
    single = record["single"]
    assert single["utterances"] >= 1
    # No fixed silence is added to the time to final: it counts from the end of the voice.
    ttfs, final = (single["latencies"][name] for name in ("ttfs", "time_to_final"))
    assert ttfs["count"] == final["count"]
    assert ttfs["p50"] - final["p50"] != pytest.approx(0.2, abs=1e-6)


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


def test_a_set_of_recordings_in_a_pipeline_of_pipecat(program: Program, tmp_path: Path) -> None:
    folder = tmp_path / "requests"
    folder.mkdir()
    line = (BUNDLED / MANIFEST).read_text().splitlines()[0]
    (folder / MANIFEST).write_text(line + "\n")
    recording = json.loads(line)["audio_filepath"]
    (folder / recording).write_bytes((BUNDLED / recording).read_bytes())
    done = program(
        *("bench", "--no-single", "--pipecat", "1", "--audio", f"requests/{MANIFEST}"),
        *("--device", "cpu", "--json"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["speech"].startswith("requests, 1 utterances, ")
    assert record["pipecat"]["different"] == 1
    # No stream was measured by itself: the record tells only the settings that the service had.
    assert record["settings"].keys() == {"max_batch"}
    assert record["pipecat"]["settings"]["early_final_ms"] == 64


def test_a_server_of_its_own_beside_the_engine(program: Program, tmp_path: Path) -> None:
    done = program(
        *("bench", "--serve", "--device", "cpu", "--no-single", "--streams", "1"),
        *("--stream-seconds", "3", "--save", "kept.json"),
        TINYVOICE_API_KEY="not-for-it",
    )
    assert done.returncode == 0, done.stderr
    for heading in ("Streams", "Sessions of the server"):
        assert f"\n{heading}\n" in done.stdout
    record = json.loads((tmp_path / "kept.json").read_text())
    assert record["server"] == {"address": "tinyvoice serve", "own": True}
    for kind in ("engine", "server"):
        [run] = record["streams"][kind]
        assert run["utterances"] >= 1
        assert run["refused"] == 0
        assert run["failures"] == []
    assert set(record["held"]) == {"engine", "server"}


def test_a_server_somewhere(program: Program, tmp_path: Path) -> None:
    settings = ServerSettings(port=0, tts="none", api_key="right", refuse_partial_gap_s=3_600)  # type: ignore[arg-type]
    with running(settings) as server:
        arguments = ("bench", "--url", server.url, "--seconds", "3", "--streams", "2")
        done = program(
            *arguments, "--stream-seconds", "3", "--save", "kept.json", TINYVOICE_API_KEY="right"
        )
        assert done.returncode == 0, done.stderr
        refused = program(*arguments, "--api-key", "wrong")
    address = "ws" + server.url.removeprefix("http") + "/v1/realtime"
    assert done.stdout.startswith(f"{address}, measured from ")
    assert "Latency through the server" in done.stdout
    record = json.loads((tmp_path / "kept.json").read_text())
    assert record["model"] is None
    assert record["server_single"]["utterances"] >= 1
    assert record["server_single"]["text"]["wer_streamed"] < 0.5
    assert [run["streams"] for run in record["streams"]["server"]] == [2]
    shown = program("bench", "--from", "kept.json")
    assert shown.stdout == done.stdout
    assert refused.returncode == 1
    assert refused.stderr == (
        f"error: The server at {address} does not accept this key: give the right --api-key.\n"
    )


def test_what_was_measured_before_a_server_went_away_is_shown(
    program: Program, tmp_path: Path
) -> None:
    settings = ServerSettings(port=0, tts="none", drain_seconds=0, refuse_partial_gap_s=3_600)
    with running(settings) as server:

        def sessions_opened() -> int:
            family = next(iter(server.app.state.metrics.sessions_opened.collect()))
            return int(sum(s.value for s in family.samples if s.name.endswith("_total")))

        def stop_in_the_second_run() -> None:
            # A session for each run's check, and the runs' own: one, then two.
            while sessions_opened() < 5:
                time.sleep(0.02)
            server.loop.call_soon_threadsafe(server.listener.stop)

        stopping = threading.Thread(target=stop_in_the_second_run)
        stopping.start()
        done = program(
            *("bench", "--url", server.url, "--seconds", "3", "--streams", "2"),
            *("--stream-seconds", "60", "--save", "kept.json"),
        )
        stopping.join()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "went away while it was measured (close code 1001" in done.stderr
    assert "Latency through the server" in done.stdout
    record = json.loads((tmp_path / "kept.json").read_text())
    assert record["server_single"]["utterances"] >= 1
    assert record["streams"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "here"], "'here' is no address of a server"),
        (["--url", "ws://127.0.0.1:1"], "cannot be reached (Connection refused): is the server"),
        (["--url", "ws://127.0.0.1:1", "--baseline"], "it has no meaning beside --url"),
        (["--serve", "--partial-ms", "500"], "it has no meaning beside --serve"),
        (["--serve", "--endpointing", "semantic"], "it has no meaning beside --serve"),
        (["--streams", "1,x"], "no list of numbers"),
        (["--streams", "0"], "no list of numbers"),
        (["--overload", "many"], "is no number of streams: write 24 or auto"),
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

"""The command ``demo``: a bundled recording at speaking pace."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
import soundfile

from tests.cli.conftest import Program
from tinyvoice.audio import load_audio
from tinyvoice.cli.demo import MANIFEST, RECORDING
from tinyvoice.model.modeling import ASRModel


def test_words_come_one_by_one_and_latencies_at_the_end(program: Program) -> None:
    result = program("demo", "--recording", TINYVOICE_MODEL="embedded")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    partials = [line for line in lines if re.match(r" *\d+\.\d\d s   ", line)]
    finals = [line for line in lines if re.match(r" *\d+\.\d\d s to \d+\.\d\d s: ", line)]
    assert len(finals) == 3
    assert len(partials) > 9
    assert any(re.search(r"\(.+\)$", line) for line in partials)
    for metric in ("time to final", "first partial", "first stable word", "partial lag"):
        assert any(re.match(rf"{metric} +-?\d+ ms +-?\d+ ms$", line) for line in lines)
    *_, spoken, heard = lines
    assert spoken.startswith("spoken please set an alarm")
    assert heard.startswith("heard  ")


def test_the_page_is_served_until_it_is_ended() -> None:
    command = [sys.executable, "-m", "tinyvoice", "demo", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"Talk to it at (http://127\.0\.0\.1:\d+/)", line)
        assert found, line
        with urllib.request.urlopen(found[1]) as page:
            assert b"<title>tinyvoice</title>" in page.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_the_manifest_says_what_the_recording_holds() -> None:
    assert soundfile.info(RECORDING).samplerate == 16000
    lines = [json.loads(line) for line in MANIFEST.read_text().splitlines()]
    assert [line["audio_filepath"] for line in lines] == [RECORDING.name] * 3
    ends = [line["offset"] + line["duration"] for line in lines]
    # An utterance ends after half a second of silence.
    gaps = [line["offset"] - end for line, end in zip(lines[1:], ends, strict=False)]
    assert min(gaps) > 0.6
    assert load_audio(RECORDING).duration - ends[-1] > 0.6


@pytest.mark.parametrize("number", range(3))
def test_the_embedded_model_understands_it(number: int) -> None:
    model = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    line = json.loads(MANIFEST.read_text().splitlines()[number])
    begin, length = (round(line[key] * 16000) for key in ("offset", "duration"))
    samples = load_audio(RECORDING).samples[begin : begin + length]
    assert model.transcribe(samples, sample_rate=16000).text == line["text"]

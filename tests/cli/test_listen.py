"""`tinyvoice listen` as its user runs it: recordings, a virtual microphone, Ctrl-C, no microphone.

The virtual microphone is the monitor of a PulseAudio null sink, from a server of the test's own.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import ROOT, Program
from tests.sound_server import sound_server
from tinyvoice.audio import load_audio
from tinyvoice.cli.demo import MANIFEST, RECORDING
from tinyvoice.metrics import word_errors

SENTENCES = [json.loads(line) for line in MANIFEST.read_text().splitlines()]
"""What is said in the recording, and when."""

PATIENCE_S = 120
"""A process that has not done its work by then is ended, and the test fails."""

LARGEST_FILE = "LARGEST_FILE_BYTES"
"""In a process's environment: how far its files may grow."""

Event = dict[str, Any]


class Listening:
    """A running ``tinyvoice listen --json``, ended with the test at the latest."""

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        def prepare() -> None:
            # A shell's background jobs ignore Ctrl-C, and children inherit that.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if LARGEST_FILE in environment:
                largest = int(environment[LARGEST_FILE])
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

        self.process = subprocess.Popen(
            [sys.executable, "-m", "tinyvoice.cli.app", "listen", "--json", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ
            | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            | environment,
            preexec_fn=prepare,
        )
        self.watchdog = threading.Timer(PATIENCE_S, self.process.kill)
        self.watchdog.start()
        self.events: list[Event] = []

    @property
    def errors(self) -> IO[str]:
        assert self.process.stderr is not None
        return self.process.stderr

    def wait_until_ready(self) -> str:
        """The line that says what it listens to."""
        return self.errors.readline()

    def next_event(self) -> Event:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended after {self.events}: {self.errors.read()}"
        self.events.append(json.loads(line))
        return self.events[-1]

    def wait_for(self, kind: str, **fields: Any) -> Event:
        """Read until there is an event of a kind with these fields."""
        while True:
            event = self.next_event()
            if event["type"] == kind and event.items() >= fields.items():
                return event

    def finish(self) -> tuple[int, str]:
        """Read what is left; exit code and standard error."""
        output, errors = self.process.communicate()
        self.events += [json.loads(line) for line in output.splitlines()]
        return self.process.returncode, errors

    def finals(self) -> list[Event]:
        return [event for event in self.events if event["type"] == "final"]


@contextmanager
def listening(*arguments: str | Path, **environment: str) -> Iterator[Listening]:
    run = Listening(*arguments, **environment)
    try:
        yield run
    finally:
        run.watchdog.cancel()
        run.process.kill()
        run.process.communicate()


def heard_almost(sentence: dict[str, Any], final: Event) -> bool:
    return word_errors(sentence["text"], final["text"]).edits <= 1


# --- recordings ----------------------------------------------------------------------------------


def test_a_recording_is_heard_as_events_and_saved(program: Program, tmp_path: Path) -> None:
    result = program(
        "listen", "--file", RECORDING, "--speed", "8", "--json", "--save", tmp_path / "kept"
    )
    assert result.returncode == 0, result.stderr
    events = [json.loads(line) for line in result.stdout.splitlines()]
    kinds = [event["type"] for event in events]
    assert kinds[0] == "speech_started"
    assert "partial" in kinds
    assert kinds[-2:] == ["speech_ended", "final"]
    finals = [event for event in events if event["type"] == "final"]
    assert len(finals) == len(SENTENCES)
    assert all(map(heard_almost, SENTENCES, finals))
    for final in finals:
        assert [word["text"] for word in final["words"]] == final["text"].split()
    lines = (tmp_path / "kept.txt").read_text().splitlines()
    assert [line.split("] ")[1] for line in lines] == [final["text"] for final in finals]
    kept = load_audio(tmp_path / "kept.flac").samples
    np.testing.assert_allclose(kept, load_audio(RECORDING).samples, atol=1 / 32768)
    assert f"Listening to {RECORDING}: Ctrl-C ends" in result.stderr
    assert "3 utterances" in result.stderr
    assert "time to final" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="its console cannot be waited for")
def test_with_manual_endpointing_enter_ends_an_utterance() -> None:
    options = ("--file", RECORDING, "--endpointing", "manual", "--seconds", "5")
    with listening(*options) as run:
        assert "Enter ends an utterance" in run.wait_until_ready()
        assert run.process.stdin is not None
        while len(run.wait_for("partial")["stable"].split()) < 3:
            pass
        run.process.stdin.write("\n")
        run.process.stdin.flush()
        first = run.wait_for("final", utterance=0)
        code, errors = run.finish()
    assert code == 0, errors
    assert {event["type"] for event in run.events} == {"partial", "final"}
    assert len(run.finals()) == 2
    assert first["text"].split()[:3] == SENTENCES[0]["text"].split()[:3]
    assert len(first["text"].split()) < len(SENTENCES[0]["text"].split())
    assert run.finals()[1]["start"] >= first["end"]


def test_after_so_many_seconds_it_stops(program: Program) -> None:
    result = program("listen", "--file", RECORDING, "--speed", "8", "--seconds", "2")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("[00:00.")
    words = result.stdout.split("] ")[1].split()
    assert words[:3] == SENTENCES[0]["text"].split()[:3]
    assert len(words) < len(SENTENCES[0]["text"].split())
    assert "in 2.0 s of sound" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="its files have no such limit")
@pytest.mark.parametrize(("kind", "limit"), [(".wav", 40_000), (".flac", 20_000)])
def test_where_nothing_more_can_be_saved_what_was_said_is_shown(
    kind: str, limit: int, tmp_path: Path
) -> None:
    """Files may only grow so far, as if the disk were full: that is amid the first sentence."""
    place = tmp_path / f"kept{kind}"
    environment = {LARGEST_FILE: str(limit), "PYTHONDONTWRITEBYTECODE": "1"}
    with listening("--file", RECORDING, "--save", place, **environment) as run:
        code, errors = run.finish()
    assert code == 1
    assert errors.splitlines()[-1].startswith(f"error: {place}: cannot be written any further (")
    assert errors.endswith("; make room on the disk, or choose another place for --save.\n")
    assert "saved:" not in errors
    (final,) = run.finals()
    words = final["text"].split()
    assert words[:2] == SENTENCES[0]["text"].split()[:2]
    assert place.stat().st_size <= limit


# --- without a microphone ------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--list-devices"], ["--device", "2"]])
def test_without_portaudio_one_sentence_says_what_to_install(
    arguments: list[str], program: Program, tmp_path: Path
) -> None:
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    shadow.joinpath("sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    result = program("listen", *arguments, path=shadow)
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: The PortAudio library, which records from microphones, is")
    assert line.endswith(("libportaudio2", "portaudio"))


def test_a_microphone_and_a_recording_at_once_are_refused(program: Program) -> None:
    result = program("listen", "--file", RECORDING, "--device", "1")
    assert result.returncode == 2
    assert "choose --file or --device" in result.stderr


def test_a_pace_without_a_recording_is_refused(program: Program) -> None:
    result = program("listen", "--speed", "4")
    assert result.returncode == 2
    assert "--speed" in result.stderr
    assert "choose --file too" in result.stderr


# --- a virtual microphone ------------------------------------------------------------------------


@pytest.fixture
def sound_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What leads to a sound server with one room."""
    with sound_server(tmp_path_factory.mktemp("pulse", numbered=True), "room") as server:
        yield server.environment


def test_a_microphone_is_heard_until_control_c(
    sound_environment: dict[str, str], tmp_path: Path
) -> None:
    """The recording is played into the room; Ctrl-C comes amid its second sentence."""
    pytest.importorskip("sounddevice")
    sound = tmp_path / "speech.wav"
    samples, rate = soundfile.read(RECORDING)
    soundfile.write(sound, samples, rate)
    place = tmp_path / "kept.wav"
    with listening(
        "--device", "pulse", "--seconds", "60", "--save", place, **sound_environment
    ) as run:
        assert run.wait_until_ready() == "Listening to pulse: Ctrl-C ends\n"
        player = subprocess.Popen(["paplay", sound], env=os.environ | sound_environment)
        try:
            final = run.wait_for("final", utterance=0)
            while len(run.wait_for("partial", utterance=1)["stable"].split()) < 2:
                pass
            run.process.send_signal(signal.SIGINT)
            code, errors = run.finish()
        finally:
            player.kill()
            player.wait()
    assert code == 0, errors
    assert heard_almost(SENTENCES[0], final)
    rest = run.finals()[1]["text"].split()
    assert rest[:2] == SENTENCES[1]["text"].split()[:2]
    assert "2 utterances" in errors
    kept = load_audio(place)
    assert kept.duration > 4
    assert np.abs(kept.samples).max() > 0.1


def test_microphones_are_listed(sound_environment: dict[str, str], program: Program) -> None:
    pytest.importorskip("sounddevice")
    listed = program("listen", "--list-devices", **sound_environment)
    assert listed.returncode == 0, listed.stderr
    assert "pulse" in listed.stdout
    assert "default" in listed.stdout
    devices = json.loads(program("listen", "--list-devices", "--json", **sound_environment).stdout)
    assert "pulse" in [device["name"] for device in devices]
    assert sum(device["default"] for device in devices) == 1
    unknown = program("listen", "--device", "gramophone", **sound_environment)
    assert unknown.returncode == 1
    assert "There is no microphone 'gramophone'; choose from" in unknown.stderr

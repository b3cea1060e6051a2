"""``tinyvoice serve``: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.cli.conftest import ROOT
from tests.server.conftest import appends, pcm24k
from tests.server.realtime import connected
from tinyvoice.benchmark.speech import bundled_speech
from tinyvoice.cli.app import main
from tinyvoice.cli.serve import _pointers
from tinyvoice.server.settings import ServerSettings

START_S = 180.0


@dataclass
class Program:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    url: str = ""
    said: list[str] = field(default_factory=list)
    """Lines of standard output."""
    logged: list[dict[str, Any]] = field(default_factory=list)
    """Lines of standard error."""
    listens: threading.Event = field(default_factory=threading.Event)

    def read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if not self.url and (address := re.search(r"https?://[\w.]+:\d+", line)):
                self.url = address[0]
            if "Ctrl-C" in line:
                self.listens.set()
        self.listens.set()

    def read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.logged.append(json.loads(line))


@contextlib.contextmanager
def serving(**environment: str) -> Iterator[Program]:
    command = [sys.executable, "-m", "tinyvoice", "serve", "--port", "0", "--log-format", "json"]
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | settings | environment,
    )
    program = Program(process)
    readers = [threading.Thread(target=one) for one in (program.read_output, program.read_log)]
    for reader in readers:
        reader.start()
    try:
        assert program.listens.wait(START_S)
        assert program.url, program.logged
        yield program
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for reader in readers:
            reader.join()
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
async def test_a_turn_in_hand_is_finished_before_the_end() -> None:
    audio = pcm24k(bundled_speech()[0])
    half = len(audio) // 4 * 2
    key = "a-key-that-nobody-may-read"
    bearer = {"Authorization": f"Bearer {key}"}
    with serving(TINYVOICE_API_KEY=key, TINYVOICE_TTS="none") as program:
        url = "ws" + program.url.removeprefix("http")
        async with connected(url, headers=bearer) as client:
            await client.send(*appends(audio[:half]))
            await client.until("input_audio_buffer.speech_started")
            program.process.send_signal(signal.SIGTERM)
            async with httpx.AsyncClient(base_url=program.url) as http:
                while (await http.get("/readyz")).status_code == 200:
                    await asyncio.sleep(0.02)
                assert (await http.get("/readyz")).json() == {"status": "draining"}
                assert (await http.get("/healthz")).status_code == 200
            async with connected(url, created=False, headers=bearer) as late:
                assert (await late.closed())[0] == 1013
            await client.send(*appends(audio[half:]))
            code, events = await client.closed()
        assert code == 1001
        assert events[-1]["type"] == "conversation.item.input_audio_transcription.completed"
        assert events[-1]["transcript"]
        assert await asyncio.to_thread(program.process.wait, 60) == 0
    everything = "".join(program.said) + json.dumps(program.logged)
    assert key not in everything
    assert events[-1]["transcript"] not in everything
    assert f'OpenAI(base_url="{program.url}/v1", api_key="YOUR_KEY")' in "".join(program.said)
    about = [line for line in program.logged if line.get("session")]
    assert [line["message"] for line in about[:1]] == ["session opened"]
    assert about[-1]["code"] == 1001


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and message of a start that cannot be."""
    with pytest.raises(SystemExit) as raised:
        main(["serve", *arguments])
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    return int(raised.value.code or 0), said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--port", "70000"], 2, "--port cannot be used: input should be less than or equal"),
        (["--port", "many"], 2, "Input should be a valid integer"),
        (["--device", "abacus"], 2, "abacus"),
        (["--host", "0.0.0.0"], 1, "could use the server: give --api-key"),
        (["--host", "203.0.113.9", "--api-key", "k"], 1, "is not an address of this machine"),
        (["--host", "a..b", "--api-key", "k"], 1, "There is no address"),
        (["--llm", "abacus"], 1, "llm is 'abacus'; choose from"),
        (["--tts", "whistle"], 1, "tts is 'whistle'; choose from"),
        (["--tls-cert", "none.pem"], 1, "give --tls-cert and --tls-key"),
        (["--tls-cert", "none.pem", "--tls-key", "k.pem"], 1, "check --tls-cert"),
        (["--api-key-file", "none.txt"], 1, "check --api-key-file"),
        (["--settings", "none.toml"], 1, "check --settings"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    arguments: list[str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(arguments, capsys)[0] == code
    said = refused(arguments, capsys)[1]
    assert words in said
    assert "Traceback" not in said


def test_a_port_in_use_is_found_before_the_model_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = refused(["--port", str(port), "--model", "/no/such/model"], capsys)
    assert code == 1
    assert f"Port {port} of 127.0.0.1 is in use" in said
    assert "choose another --port" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tts", "piper"], "Piper needs a voice"),
        (["--tts", "openai", "--tts-url", "http://localhost:1"], "set tts_model"),
        (["--llm", "openai", "--llm-url", "nowhere"], "llm_url is 'nowhere': give an address"),
        (["--llm", "local", "--llm-model", "/no/such/llm"], "there is no folder /no/such/llm"),
        (["--api-key-file", "/no/such/keys"], "check --api-key-file"),
    ],
)
def test_what_a_backend_lacks_is_found_before_the_model_is_loaded(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "piper" in arguments:
        pytest.importorskip("piper")
    code, said = refused(["--port", "0", "--model", "/no/such/model", *arguments], capsys)
    assert (code, words in said) == (1, True), said


def test_a_voice_that_is_not_installed_is_found_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "piper", None)
    code, said = refused(["--port", "0", "--model", "/no/such/model", "--tts", "piper"], capsys)
    assert code == 1
    assert "pip install 'tinyvoice[piper]'" in said


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    code, said = refused([], capsys)
    assert code == 1
    assert "pip install 'tinyvoice[serve]'" in said


def test_every_setting_is_an_option() -> None:
    from typer.main import get_command

    from tinyvoice.cli.serve import app

    options = {option for one in get_command(app).params for option in one.opts}
    assert {"--" + name.replace("_", "-") for name in ServerSettings.model_fields} <= options


def test_a_page_is_told_which_key_its_client_takes() -> None:
    """The agents SDK refuses to connect from a page with any other key than these."""
    http, ws = "http://127.0.0.1:8000", "ws://127.0.0.1:8000"
    keyless = dict(_pointers(http, ws, "any", secure=False))["Agents SDK, browser"]
    keyed = dict(_pointers(http, ws, "YOUR_KEY", secure=False))["Agents SDK, browser"]
    assert 'useInsecureApiKey: true })  (connect with apiKey: "any")' in keyless
    assert 'calls" })  (connect with apiKey: an ephemeral key)' in keyed

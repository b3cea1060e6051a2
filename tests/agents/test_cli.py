"""`tinyvoice agent`: what it says where it cannot run, and that it listens."""

from __future__ import annotations

import os
import shutil
import socket
import urllib.request
from pathlib import Path

import pytest

from tests.agents.running import ROOT, agent, running


def test_the_command_is_announced_and_explains_itself() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["tinyvoice.commands"]["agent"] == "tinyvoice_agents.cli:app"
    result = agent("--help")
    assert result.returncode == 0
    assert "parrot, dictation, receptionist or assistant" in result.stdout


@pytest.mark.parametrize("installed", [False, True], ids=["checkout", "wheel"])
def test_it_is_found_beside_another_package_of_the_name_agents(
    tmp_path: Path, installed: bool
) -> None:
    """OpenAI's Agents SDK has it."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("raise ImportError('not ours')")
    if installed:  # as a wheel lays it out
        shutil.copytree(ROOT / "agents", tmp_path / "tinyvoice_agents")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    arguments = ("parrot", "--transport", "websocket", "--port", "0", "--model", "/not/there")
    result = agent(*arguments, PYTHONPATH=path, PYTHONSAFEPATH="1")
    assert "there is no folder /not/there" in result.stderr


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = agent("parrot", "--transport", "webrtc", "--port", port)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: Port {port} is taken by another program")


def test_without_its_microphone_it_says_what_to_do() -> None:
    result = agent("parrot", "--device", "no such microphone")
    assert result.returncode == 1
    assert result.stderr.count("error:") == 1
    assert "microphone" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_that_is_not_there_is_a_sentence() -> None:
    result = agent("parrot", "--transport", "websocket", "--port", "0", "--model", "/not/there")
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("error: there is no folder /not/there;")


def test_a_wrong_agent_is_told_of_the_right_ones() -> None:
    result = agent("parot")
    assert result.returncode == 2
    assert "'parot' is not one of" in result.stderr
    for name in ("parrot", "dictation", "receptionist", "assistant"):
        assert f"'{name}'" in result.stderr


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'pipecat' else find(name, *rest)\n"
    )
    result = agent("parrot", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert result.returncode == 1
    assert "pip install 'tinyvoice[agents]'" in result.stderr
    assert result.stderr.startswith("error: ")


def test_it_listens_and_ends_with_ctrl_c() -> None:
    with running("dictation", "--transport", "webrtc", "--port", "0") as run:
        with urllib.request.urlopen(f"http://{run.address}/", timeout=20) as page:
            assert b"Talk to the agent" in page.read()
        code, errors = run.interrupt()
    assert code == 0
    assert errors == ""

"""docs/backends.md: its commands choose backends that exist, its program runs."""

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tinyvoice.realtime.backends.registry import BackendSettings, build_responder

GUIDE = (Path(__file__).parents[3] / "docs" / "backends.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^tinyvoice serve (--.*)$", GUIDE, re.MULTILINE)


@pytest.mark.parametrize("options", COMMANDS)
def test_a_command_chooses_backends_that_can_be_built(
    options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(options)
    types = {field.name: field.type for field in fields(BackendSettings)}
    settings: dict[str, Any] = {}
    for option, value in zip(words[::2], words[1::2], strict=True):
        name = option.removeprefix("--").replace("-", "_")
        settings[name] = float(value) if "float" in str(types[name]) else value
    responder = build_responder(BackendSettings(**settings))
    assert responder.language_model.name == settings.get("llm", "echo")
    assert responder.voice is not None
    assert responder.voice.name == settings.get("tts", "espeak")


def test_the_guide_has_commands() -> None:
    assert len(COMMANDS) >= 6


def test_its_program_runs() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.startswith("You said: good morning.\n")
    assert re.search(r"^[1-9]\.\d s of speech$", result.stdout, re.MULTILINE)


def test_every_code_of_a_failure_is_listed() -> None:
    backends = Path(__file__).parents[3] / "tinyvoice" / "realtime" / "backends"
    sources = "".join(file.read_text(encoding="utf-8") for file in backends.glob("*.py"))
    endings = re.findall(r'f"\{_?(?:code|CODE)\}_(\w+)"', sources)
    assert endings
    for ending in endings:
        assert f"language_model_{ending}" in GUIDE

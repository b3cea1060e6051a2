"""Environments are made once, and an installation that fails says so."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conformance import environments
from tests.conformance.environments import InstallationError, environment


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Requirements and environments of this test alone."""
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(environments, "CACHE", tmp_path / "made")
    return tmp_path


def test_an_environment_is_made_once_for_the_same_requirements(elsewhere: Path) -> None:
    (elsewhere / "nothing.txt").write_text("# no packages\n")
    python = environment("nothing")
    where = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True)
    assert Path(where.stdout.decode().strip()) == python.parents[1]
    made = python.stat().st_mtime_ns, python.parents[1].stat().st_mtime_ns
    assert environment("nothing") == python
    assert (python.stat().st_mtime_ns, python.parents[1].stat().st_mtime_ns) == made
    (elsewhere / "nothing.txt").write_text("# still no packages\n")
    assert environment("nothing") != python


def test_an_installation_that_fails_is_no_environment(elsewhere: Path) -> None:
    (elsewhere / "missing.txt").write_text("./is-not-there\n")
    for _ in range(2):
        with pytest.raises(InstallationError, match="is-not-there"):
            environment("missing")

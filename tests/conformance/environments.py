"""An environment of its own for each third-party client.

Each file in ``requirements/`` names one client with its exact version. :func:`environment` makes a
virtual environment for it the first time somebody asks, below ``.conformance/`` in the root of the
repository, and hands out its interpreter; a change of the requirements makes another one. Workers
that ask at the same moment wait for one installation. An installation that fails raises: a test
that cannot have its client has failed.

It knows nothing about what the clients do, and does not install tinyvoice into any of them: they
see the server from outside.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements")
CACHE = Path(__file__).parents[2] / ".conformance"
INSTALL_SECONDS = 600
"""Longest time an installation may take."""
_READY = "ready"


class InstallationError(Exception):
    """A client could not be installed; the message has what pip said."""


def environment(client: str) -> Path:
    """The interpreter of the environment with this client; installs it if need be.

    Args:
        client: name of a file in ``requirements/``, without its suffix.

    Raises:
        InstallationError: pip could not install it.
    """
    requirements = REQUIREMENTS / f"{client}.txt"
    home = CACHE / f"{client}-{_key(requirements)}"
    CACHE.mkdir(exist_ok=True)
    with _locked(CACHE / f"{client}.lock"):
        if not (home / _READY).exists():
            shutil.rmtree(home, ignore_errors=True)
            _install(home, requirements)
            (home / _READY).touch()
    return _interpreter(home)


def _key(requirements: Path) -> str:
    """What an environment depends on: the requirements and the interpreter it was made with."""
    what = requirements.read_text(encoding="utf-8") + sys.version + sys.executable
    return hashlib.sha256(what.encode()).hexdigest()[:12]


def _interpreter(home: Path) -> Path:
    return home / ("Scripts" if os.name == "nt" else "bin") / "python"


def _install(home: Path, requirements: Path) -> None:
    # pip of the environment we run in installs into the new one: that saves it a pip of its own.
    _run([sys.executable, "-m", "venv", "--without-pip", str(home)])
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    target = ["--python", str(_interpreter(home))]
    options = ["--quiet", "--no-compile", "--prefer-binary"]
    _run([*pip, *target, "install", *options, "--requirement", str(requirements)])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InstallationError(f"{' '.join(command)} took over {INSTALL_SECONDS} s.") from error
    if done.returncode != 0:
        raise InstallationError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that other processes wait for; the system gives it back if we die."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""Runs a client script under Node, with the npm packages of ``package-lock.json``.

The packages, and Node itself in the version they ask for, are installed the first time somebody
asks, below ``.conformance/`` in the root of the repository; a change of the lock file makes another
installation. Workers that ask at the same moment wait for one installation. A script is a file in
``clients/``: it gets its settings as one JSON argument and prints its result as one line of JSON.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.conformance.environments import CACHE, INSTALL_SECONDS, InstallationError

PROJECT = Path(__file__).parent
CLIENTS = PROJECT / "clients"
PROJECT_FILES = (".npmrc", "package.json", "package-lock.json")
LONGEST_SECONDS = 90.0
"""A script that takes longer hangs."""
_READY = "ready"


class ScriptError(Exception):
    """A client script failed; the message has what it wrote."""


async def run_script(script: str, *, seconds: float = LONGEST_SECONDS, **settings: Any) -> Any:
    """What the script ``clients/<script>.mjs`` reports when it is run with these settings.

    Raises:
        InstallationError: npm could not install the packages.
        ScriptError: it ended with an error, took too long, or did not report.
    """
    home = await asyncio.to_thread(installation)
    process = await asyncio.create_subprocess_exec(
        node(home),
        # The clients are linked into the installation, and import from where the link is.
        "--preserve-symlinks",
        "--preserve-symlinks-main",
        str(home / CLIENTS.name / f"{script}.mjs"),
        json.dumps(settings, default=str),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment_variables(),
    )
    story = f"{script} {settings}"
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    except TimeoutError:
        process.terminate()  # and not kill: it closes its browser first
        output, errors = await process.communicate()
        raise ScriptError(f"{story} took too long:\n{errors.decode()[-6000:]}") from None
    if process.returncode != 0:
        raise ScriptError(f"{story} failed:\n{errors.decode()[-6000:]}")
    try:
        return json.loads(output.decode().splitlines()[-1])
    except (IndexError, ValueError):
        said = f"{output.decode()}{errors.decode()}"
        raise ScriptError(f"{story} reported nothing:\n{said[-6000:]}") from None


def installation() -> Path:
    """The folder with ``node_modules`` and the clients; installs the packages if need be.

    Raises:
        InstallationError: npm could not install them.
    """
    key = hashlib.sha256(b"".join((PROJECT / name).read_bytes() for name in PROJECT_FILES))
    home = CACHE / f"javascript-{key.hexdigest()[:12]}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "javascript.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / _READY).exists():
            shutil.rmtree(home, ignore_errors=True)
            _install(home)
            (home / _READY).touch()
    return home


def _install(home: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise InstallationError(
            "npm is missing: on Debian and Ubuntu run sudo apt-get install nodejs npm."
        )
    home.mkdir()
    for name in PROJECT_FILES:
        shutil.copy(PROJECT / name, home)
    # Relative, so that a repository can be moved with its installations.
    (home / CLIENTS.name).symlink_to(os.path.relpath(CLIENTS, home))
    # Nothing of what is installed gets to run here: neither its scripts nor npm's questions home.
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=home, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InstallationError(f"npm ci took over {INSTALL_SECONDS} s.") from error
    if done.returncode != 0:
        raise InstallationError(f"npm ci failed:\n{done.stdout}{done.stderr}")


def node(home: Path) -> str:
    """The packages' Node; the machine's own where there is none of it for its processor."""
    ours = home / "node_modules" / ".bin" / "node"
    return str(ours) if ours.exists() else shutil.which("node") or "node"


def _environment_variables() -> dict[str, str]:
    """Ours, less what would lead a client elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    return kept | {"NO_PROXY": "127.0.0.1", "NODE_NO_WARNINGS": "1"}

"""Running the program as its user does: in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Run ``tinyvoice`` with arguments in an empty folder; returns exit code and both outputs."""

    def run(
        *arguments: str | Path,
        stdin: bytes = b"",
        path: Path | None = None,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        search = os.pathsep.join(str(folder) for folder in (path, ROOT) if folder)
        settings = {
            "PYTHONPATH": search,
            "COLUMNS": "100",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(tmp_path / "huggingface"),
        }
        result = subprocess.run(
            [sys.executable, "-m", "tinyvoice.cli.app", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            cwd=tmp_path,
            env=os.environ | settings | environment,
            timeout=300,
            check=False,
        )
        return subprocess.CompletedProcess(
            result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
        )

    return run

"""Where a run's figures go: a log file, the terminal, and W&B if it is wanted.

The log file is JSON lines, one object an event, and outlives everything. Nothing here decides what
is measured. Keys and tokens are read by the libraries that need them and never written.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tinyvoice.errors import ConfigurationError

logger = logging.getLogger(__name__)

LOG_FILE = "log.jsonl"

Tracking = Literal["auto", "on", "off"]
"""``auto`` is on where W&B is installed and ``WANDB_API_KEY`` is set."""


class Tracker:
    """Records a run's events on its main process; other processes record nothing.

    Use as a context: leaving it closes the file, the progress bar and W&B.
    """

    def __init__(
        self,
        folder: Path,
        configuration: Mapping[str, Any],
        *,
        main: bool = True,
        wandb: Tracking = "auto",
        total_steps: int | None = None,
        console: Console | None = None,
    ) -> None:
        self._main = main
        self._console = console or Console(stderr=True)
        self._file = None
        self._wandb: Any = None
        self._progress: Progress | None = None
        if not main:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / LOG_FILE).open("a", encoding="utf-8")
        if _wants_wandb(wandb):
            import wandb as library

            self._wandb = library.init(
                project=os.environ.get("WANDB_PROJECT", "tinyvoice"),
                id=os.environ.get("WANDB_RUN_ID"),
                resume="allow",
                dir=str(folder),
                config=dict(configuration),
            )
        if self._console.is_terminal:
            self._progress = _progress(self._console)
            self._task = self._progress.add_task("training", total=total_steps, figures="")

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._file is not None:
            self._file.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if kind is None else 1)

    def record(self, event: str, step: int, figures: Mapping[str, Any]) -> None:
        """Write an event and its figures everywhere."""
        if self._file is None:
            return
        rounded = {key: _rounded(value) for key, value in figures.items()}
        self._file.write(json.dumps({"event": event, "step": step, **rounded}) + "\n")
        self._file.flush()
        if self._wandb is not None:
            numbers = {k: v for k, v in figures.items() if isinstance(v, int | float)}
            self._wandb.log({f"{event}/{key}": value for key, value in numbers.items()}, step=step)
        text = "  ".join(f"{key} {_shown(value)}" for key, value in rounded.items())
        if event == "train" and self._progress is not None:
            self._progress.update(self._task, completed=step, figures=text)
        else:
            self.say(f"step {step}  {text}" if event == "train" else f"{event} {step}  {text}")

    def advance(self, step: int) -> None:
        """Move the progress bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def say(self, text: str) -> None:
        """Print a line."""
        if self._main:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _progress(console: Console) -> Progress:
    """Return the progress bar of a run."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=console,
    )


def _wants_wandb(wandb: Tracking) -> bool:
    """Decide whether to track with W&B; asking for it without having it is an error."""
    if wandb == "off":
        return False
    installed = importlib.util.find_spec("wandb") is not None
    if wandb == "on" and not installed:
        raise ConfigurationError(
            "training.wandb=on needs the package wandb: pip install wandb, or leave it at auto.",
            key="training.wandb",
        )
    key = bool(os.environ.get("WANDB_API_KEY"))
    if key and not installed:
        logger.warning(
            "WANDB_API_KEY is set, but the package wandb is not installed, so nothing is sent to "
            "it: pip install wandb, or set training.wandb=off"
        )
    return installed and (wandb == "on" or key)


def _rounded(value: Any) -> Any:
    """Return a figure with six digits that matter."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _shown(value: Any) -> str:
    """Return a figure as the terminal shows it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

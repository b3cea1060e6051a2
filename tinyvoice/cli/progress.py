"""What is going on, on standard error, for work that takes longer than two seconds.

Nothing is shown where standard error is not a terminal, and nothing is left behind on one.
"""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE_S = 2.0


class Activity:
    """A progress bar that appears when the work turns out to be long.

    Use it as a context; ``total`` steps are expected, 0 if their number is unknown. Lines for
    standard output go through :meth:`write`, so that bar and text do not end up in one line.
    """

    def __init__(self, description: str, total: int = 0) -> None:
        self._description = description
        self._total = total
        self._done = 0
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Activity:
        if sys.stderr.isatty():
            self._timer = threading.Timer(PATIENCE_S, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
            self._timer = None

    def describe(self, description: str) -> None:
        """Say what is being done now."""
        with self._lock:
            self._description = description
            self._update()

    def advance(self, steps: int = 1) -> None:
        """Count steps as done."""
        with self._lock:
            self._done += steps
            self._update()

    def write(self, text: str) -> None:
        """Write lines to standard output at once, above the bar."""
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
            print(text, flush=True)
            if self._progress is not None:
                self._progress.start()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        columns: list[ProgressColumn] = [
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
        ]
        if self._total > 1:
            columns += [BarColumn(), MofNCompleteColumn()]
        columns.append(TimeElapsedColumn())
        with self._lock:
            if self._timer is None:
                return  # the work ended just now
            # Standard output stays as it is: it may go to a file while this is a terminal.
            self._progress = Progress(
                *columns,
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._progress.add_task(
                self._description, total=self._total or None, completed=self._done
            )
            self._progress.start()

    def _update(self) -> None:
        if self._progress is not None:
            task = self._progress.tasks[0].id
            self._progress.update(task, description=self._description, completed=self._done)

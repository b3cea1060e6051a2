"""What is going on, on standard error, for work that takes longer than two seconds.

Nothing is shown where standard error is not a terminal, and nothing is left behind on one. Whoever
writes to the terminal meanwhile does so inside :func:`hidden`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE_S = 2.0

_current: Activity | None = None


@contextmanager
def hidden() -> Iterator[None]:
    """Take the bar off the terminal, if there is one, for as long as something else is written."""
    activity = _current
    if activity is None:
        yield
        return
    with activity.lock:
        if activity.progress is not None:
            activity.progress.stop()
        try:
            yield
        finally:
            if activity.progress is not None:
                activity.progress.start()


class Activity:
    """A progress bar that appears when the work turns out to be long.

    Use it as a context, one at a time; ``total`` steps are expected, 0 if their number is unknown.
    The bar shows their share that is done, with what is done of the steps under way.
    """

    def __init__(self, description: str, total: int = 0) -> None:
        self.lock = threading.RLock()
        self.progress: Progress | None = None
        self._description = description
        self._total = total
        self._done = 0.0
        self._under_way = 0.0
        self._began = time.monotonic()
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Activity:
        global _current
        if sys.stderr.isatty():
            _current = self
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
        global _current
        _current = None
        if self._timer is not None:
            self._timer.cancel()
        with self.lock:
            if self.progress is not None:
                self.progress.stop()
            self._timer = None

    def describe(self, description: str) -> None:
        """Say what is being done now."""
        with self.lock:
            self._description = description
            self._update()

    def advance(self, steps: int = 1) -> None:
        """Count steps as done, and nothing as under way."""
        with self.lock:
            self._done += steps
            self._under_way = 0.0
            self._update()

    def under_way(self, steps: float) -> None:
        """Say how much is done of the steps that are under way."""
        with self.lock:
            self._under_way = steps
            self._update()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            SpinnerColumn,
            Task,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )
        from rich.text import Text

        class TimeLeft(ProgressColumn):
            """By the pace so far: rich's own forgets steps that are half a minute apart."""

            def render(self, task: Task) -> Text:
                return Text(_left(task.completed, task.total, task.elapsed), style="dim")

        columns: list[ProgressColumn] = [
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
        ]
        if self._total > 0:
            columns += [BarColumn(), TaskProgressColumn()]
        if self._total > 1:
            columns.append(MofNCompleteColumn())
        columns.append(TimeElapsedColumn())
        if self._total > 0:
            columns.append(TimeLeft())
        with self.lock:
            if self._timer is None:
                return  # the work ended just now
            # Standard output stays as it is: it may go to a file while this is a terminal.
            self.progress = Progress(
                *columns,
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            task = self.progress.add_task(self._description, total=self._total or None)
            self.progress.tasks[task].start_time = self._began
            self._update()
            self.progress.start()

    def _update(self) -> None:
        if self.progress is not None:
            task = self.progress.tasks[0].id
            done = self._done + self._under_way
            self.progress.update(task, description=self._description, completed=done)


def _left(done: float, total: float | None, elapsed_s: float | None) -> str:
    """How long the rest takes at the pace so far; nothing while that cannot be said."""
    if not total or not elapsed_s or not 0 < done < total:
        return ""
    seconds = round(elapsed_s * (total - done) / done)
    return f"{seconds // 60}:{seconds % 60:02} left"

"""One line of a terminal that shows what is being understood: stable words normal, the tail dim.

The line is rewritten in place and leaves nothing behind: no rows are added, the cursor stays
visible, so other output may follow at any time. It is for terminals only; whoever writes to
anything else writes whole lines. A live stream has a screen of several rows, `live_view.Screen`.
"""

from __future__ import annotations

import shutil
from typing import TextIO

_RESTART = "\r\x1b[2K"
_DIM, _NORMAL = "\x1b[2m", "\x1b[22m"


class LiveLine:
    """Shows partials on ``terminal``, after a short fixed ``prefix``."""

    def __init__(self, terminal: TextIO, prefix: str = "") -> None:
        self._terminal = terminal
        self._prefix = prefix
        self._shown = False

    def show(self, stable: str, tail: str) -> None:
        """Replace the line. Of a text that is too long its end is shown."""
        room = shutil.get_terminal_size().columns - len(self._prefix) - 1
        text = fitted(stable, tail, room)
        self._terminal.write(f"{_RESTART}{self._prefix}{text[0]}{_DIM}{text[1]}{_NORMAL}")
        self._terminal.flush()
        self._shown = True

    def clear(self) -> None:
        """Take the line off the terminal."""
        if self._shown:
            self._terminal.write(_RESTART)
            self._terminal.flush()
            self._shown = False


def fitted(stable: str, tail: str, room: int) -> tuple[str, str]:
    """The end of both parts that fits into ``room`` columns, with an ellipsis where it was cut."""
    excess = len(stable) + len(tail) - max(room, 2)
    if excess <= 0:
        return stable, tail
    excess += 1  # the ellipsis takes a column
    if excess < len(stable):
        return "…" + stable[excess:], tail
    return "", "…" + tail[excess - len(stable) :]

"""What a server's process takes, as far as its own metrics say."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass

TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Usage:
    """Processor time and memory of a process; None where they are not known."""

    cpu_s: float | None
    memory_bytes: int | None
    """Held now."""

    def since(self, before: Usage) -> Usage:
        """The processor time that was taken since then, and the memory that is held now."""
        known = self.cpu_s is not None and before.cpu_s is not None
        spent = (self.cpu_s or 0.0) - (before.cpu_s or 0.0)
        return Usage(spent if known else None, self.memory_bytes)


def read_usage(address: str) -> Usage:
    """Ask a page of metrics in Prometheus' text format; nothing is known where there is none."""
    # No proxy: the server is asked on the same way on which it is measured.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=TIMEOUT_S) as answer:
            return parse_usage(answer.read().decode("utf-8", errors="replace"))
    except (OSError, ValueError):
        return Usage(None, None)


def parse_usage(page: str) -> Usage:
    """The figures of the process in Prometheus' text format, by the names that its clients use."""
    values: dict[str, float] = {}
    for line in page.splitlines():
        name, _, value = line.partition(" ")
        if name in ("process_cpu_seconds_total", "process_resident_memory_bytes"):
            values[name] = float(value)
    memory = values.get("process_resident_memory_bytes")
    return Usage(values.get("process_cpu_seconds_total"), None if memory is None else round(memory))

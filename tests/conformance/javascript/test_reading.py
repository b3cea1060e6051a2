"""Whatever the server may say, the agents SDK for JavaScript understands.

The other tests show it a few sessions; here are the events of thousands of mutated client events,
one of each shape. The SDK knows no images, and nothing of our own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conformance.javascript.node import run_script
from tests.realtime.fuzz import Run, Tally, shape_of

CLIENT_EVENTS = 6_000
FOREIGN = ("input_image", "tinyvoice.")


class Collected(Run):
    """A session whose events are kept, one of each shape."""

    shapes: dict[Any, dict[str, Any]]

    def _judge(self, event: dict[str, Any]) -> None:
        if self.session.dialect == "ga" and not any(n in json.dumps(event) for n in FOREIGN):
            self.shapes.setdefault(shape_of(event), event)


async def test_events_of_all_shapes(tmp_path: Path) -> None:
    tally = Tally()
    Collected.shapes = {}
    while tally.client_events < CLIENT_EVENTS:
        run = Collected(f"reading/{tally.sessions}", tally, set())
        for _ in range(250):
            run.client_event()
            for _ in range(run.chance.randrange(6)):
                run.world()
            if run.session.closed:
                break
        run.finish()
    events = list(Collected.shapes.values())
    assert len({event["type"] for event in events}) >= 30, "too few kinds of events"

    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(map(json.dumps, events)), encoding="utf-8")
    report = await run_script("agents_reading", events=file)
    assert report["read"] == len(events)
    assert report["unrecognised"] == []
    assert report["stumbles"] == []

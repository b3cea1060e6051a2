"""A few hundred mutated events over a real WebSocket."""

from __future__ import annotations

from tests.conformance.hostile_clients import misbehave
from tests.conformance.serving import RunningServer


async def test_mutated_events_over_a_websocket(server: RunningServer) -> None:
    tally = await misbehave(server.url, 250, seed=20)

    assert (tally.client_events, tally.sessions) == (250, 2)
    assert tally.turns > 0
    assert {"invalid_json", "invalid_type", "invalid_value"} < set(tally.errors)

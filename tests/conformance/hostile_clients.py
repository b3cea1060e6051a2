"""Mutated client events over a real WebSocket, between packets of real speech.

    python -m tests.conformance.hostile_clients --events 5000 --seed 1

The events are those of ``tests/realtime/fuzz.py``, which shows many more of them to a session
without a socket, and with an engine of its own. Here the whole server answers: uvicorn, the
session's tasks, the embedded model, the echo and its voice. Behind each event goes one of an
unknown type, whose error says that all before it was read. What came until then is judged: one
error at most, the right one, with the client's ``event_id``; and at the end of a session its log.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.conformance.checking import session_faults
from tests.realtime.fuzz import MUTATIONS, FuzzError, as_event, named, templates
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.speech import bundled_speech

PATIENCE_S = 120.0
_SURROGATE = re.compile("[\ud800-\udfff]")
SESSION_EVENTS = 125
SPEECH_EVERY = 5
"""Mutated events between two packets of speech."""
SPEECH_BYTES = 24_000
"""Half a second."""


@dataclass
class Tally:
    """What happened in a run."""

    sessions: int = 0
    client_events: int = 0
    server_events: int = 0
    turns: int = 0
    errors: Counter[str] = field(default_factory=Counter)


class HostileClient:
    """One session and who is at its other end."""

    def __init__(self, socket: ClientConnection, seed: str, tally: Tally) -> None:
        self._socket, self._seed, self._tally = socket, seed, tally
        self._chance = random.Random(seed)
        self._known: dict[str, list[str]] = {"item": [], "resp": []}
        self._log: list[tuple[str, dict[str, Any]]] = []
        self._places: dict[str, int] = {}
        """Where in the log the client's events are, by their ``event_id``."""
        self._speech = speech()

    async def misbehave(self, events: int) -> None:
        """Send so many events.

        Raises:
            FuzzError: the server answered otherwise than it has to.
        """
        # The first update decides which dialect is spoken: a mutated one may look like the beta.
        await self._send(json.dumps({"type": "session.update", "session": {"instructions": ""}}))
        for number in range(events):
            if number % SPEECH_EVERY == 0:
                audio = base64.b64encode(next(self._speech)).decode()
                await self._send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            await self._one(number)
        faults = session_faults(self._log)
        if faults:
            raise FuzzError(f"{self._seed}: {faults[:5]}")
        self._tally.sessions += 1

    async def _one(self, number: int) -> None:
        event_id = f"client_{number}"
        text, code, param, mutation = self._mutated(event_id)
        where = f"{self._seed}, {mutation}: {text[:300]}"
        await self._send(text)
        self._tally.client_events += 1
        mark = f"mark_{number}"
        await self._send(json.dumps({"type": "mark", "event_id": mark}))
        errors = [e for e in await self._read_to(mark, where) if e["event_id"] == named(text)]
        if len(errors) > 1 or (code and len(errors) != 1):
            raise FuzzError(f"{where}: {errors}")
        if code and (errors[0]["code"] != code or (param and errors[0]["param"] != param)):
            raise FuzzError(f"{where}: {errors[0]}")

    def _mutated(self, event_id: str) -> tuple[str, str | None, str | None, str]:
        while True:
            mutation = self._chance.choice(MUTATIONS)
            event = templates(self._chance, self._known) | {"event_id": event_id}
            mutated = mutation(self._chance, event)
            # What is no UTF-8 is no text frame: tests/server/test_hostile.py sends it all the same.
            if mutated is not None and not _SURROGATE.search(mutated[0]):
                return *mutated, mutation.__name__

    async def _send(self, text: str) -> None:
        self._log.append(("client", as_event(text)))
        self._places[str(named(text))] = len(self._log) - 1
        await self._socket.send(text)

    async def _read_to(self, mark: str, where: str) -> list[dict[str, Any]]:
        """The errors that come before that of the mark."""
        errors: list[dict[str, Any]] = []
        while True:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    event = json.loads(await self._socket.recv())
            except Exception as reason:
                raise FuzzError(f"{where}: {reason!r}") from reason
            self._note(event)
            if event["type"] != "error":
                continue
            error = event["error"]
            if error["type"] == "server_error":
                raise FuzzError(f"{where}: {error}")
            # What was refused has asked for nothing.
            if str(error["event_id"]) in self._places:
                self._log[self._places[str(error["event_id"])]] = (
                    "client",
                    {"event_id": error["event_id"]},
                )
            if error["event_id"] == mark:
                if error["code"] != "invalid_value" or error["param"] != "type":
                    raise FuzzError(f"{where}: {error}")
                return errors
            errors.append(error)
            self._tally.errors[str(error["code"])] += 1

    def _note(self, event: dict[str, Any]) -> None:
        self._tally.server_events += 1
        self._log.append(("server", event))
        if event["type"] == "input_audio_buffer.committed":
            self._tally.turns += 1
        if event["type"] == "conversation.item.added":
            self._known["item"].append(event["item"]["id"])
        elif event["type"] == "response.created":
            self._known["resp"].append(event["response"]["id"])


def speech() -> Iterator[bytes]:
    """Bundled utterances as the wire has them, with pauses, half a second at a time, for ever."""
    for clip in cycle(bundled_speech()):
        pcm = (resample(clip.samples, 16_000, 24_000).clip(-1, 1) * 32_767).astype("<i2").tobytes()
        sound = pcm + bytes(2 * SPEECH_BYTES)
        for start in range(0, len(sound), SPEECH_BYTES):
            yield sound[start : start + SPEECH_BYTES]


async def misbehave(url: str, events: int, seed: int) -> Tally:
    """Send so many events to a server at ``http://…``, in sessions of some hundred.

    Raises:
        FuzzError: something went wrong; its message begins with the seed of the session.
    """
    tally = Tally()
    while tally.client_events < events:
        query = ("intent=transcription", "model=any")[tally.sessions % 2]
        address = f"{url.replace('http', 'ws', 1)}/v1/realtime?{query}"
        async with connect(
            address, compression=None, max_size=None, ping_interval=None, open_timeout=PATIENCE_S
        ) as socket:
            client = HostileClient(socket, f"{seed}/{tally.sessions}", tally)
            await client.misbehave(min(SESSION_EVENTS, events - tally.client_events))
    return tally


def main(arguments: list[str] | None = None) -> int:
    """The command; it starts the server, which must end in good order."""
    from tests.conformance.serving import serving

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    with serving() as server:
        tally = asyncio.run(misbehave(server.url, options.events, options.seed))
    sys.stdout.write(
        f"{tally.client_events} client events in {tally.sessions} sessions, "
        f"{tally.server_events} server events, {tally.turns} turns, "
        f"{time.monotonic() - begin:.0f} s: no fault\nerrors {dict(tally.errors)}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

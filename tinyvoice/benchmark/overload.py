"""More streams than an engine can hold: what it gives up, what it does not, and how it recovers.

Three runs on one engine: one stream alone; many more than are held, while somebody else asks for a
stream again and again; one stream alone again, as soon as it is let in. Shown are finals and
partials of each, how often the late comer was refused and in which words, and how long after the
load's last packet it was let in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.figures import Figures, figures_of
from tinyvoice.benchmark.harness import Engine, RunSettings, paced_run
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine.errors import EngineError

ALONE_S = 10.0
"""Length of the runs of one stream, before and after."""
LOAD_S = 20.0
"""Length of the run of too many."""
ASK_EVERY_S = 0.25
"""How often the late comer asks."""
LONGEST_RECOVERY_S = 30.0
"""After which an engine that still lets nobody in is not asked any more."""


@dataclass(frozen=True)
class OverloadFigures:
    """What an engine did under, and after, more streams than it holds."""

    streams: int
    before: Figures
    """One stream alone."""
    during: Figures
    after: Figures | None
    """One stream alone, on the same engine; None where it was interrupted or let nobody in."""
    asked: int
    """How often a late comer asked for a stream while the load was on."""
    refused: int
    refused_after_s: float | None
    """From the load's begin to the first refusal."""
    words: str
    """What the one who was refused was told."""
    recovered_s: float | None
    """From the load's last packet to the first stream that was let in."""
    interrupted: bool = False


class LateComer:
    """Asks an engine for a stream again and again, and leaves at once where it gets one."""

    def __init__(self, engine: Engine, settings: dict[str, object]) -> None:
        self._engine, self._settings = engine, settings
        self.loaded = asyncio.Event()
        """Set when the load begins: nobody asks before."""
        self.load_ended: float | None = None
        """Wall time; None while the load is on."""
        self._began = 0.0
        self.asked = self.refused = 0
        self.refused_after_s: float | None = None
        self.recovered_s: float | None = None
        self.words = ""

    async def ask(self, stop: asyncio.Event) -> None:
        """Until the load is over and a stream was given, or nothing came of it for long."""
        await self.loaded.wait()
        self._began = time.monotonic()
        while not stop.is_set():
            given = await self._ask_once()
            ended = self.load_ended
            if ended is not None:
                waited = time.monotonic() - ended
                if given:
                    self.recovered_s = waited
                if given or waited > LONGEST_RECOVERY_S:
                    return
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), ASK_EVERY_S)

    async def _ask_once(self) -> bool:
        loaded = self.load_ended is None
        self.asked += loaded
        try:
            async with self._engine.stream(SAMPLE_RATE, **self._settings):
                return True
        except EngineError as error:
            if loaded:
                if not self.refused:
                    self.refused_after_s = time.monotonic() - self._began
                self.refused += 1
                self.words = str(error)
            return False


async def overload(
    engine: Engine,
    clips: Sequence[Clip],
    streams: int,
    settings: RunSettings,
    silence_s: float | None,
    stop: asyncio.Event,
    progress: Callable[[float], None] = lambda _: None,
    *,
    with_text: bool = True,
) -> OverloadFigures:
    """Load an open engine with ``streams`` streams, for less than a minute all in all.

    ``settings`` are those of every run, apart from the number of streams and the length;
    ``silence_s`` is as for `figures_of`; without ``with_text`` the words
    mean nothing.
    """
    total = 2 * ALONE_S + LOAD_S

    async def played(count: int, seconds: float, done: float, told: LateComer | None) -> Figures:
        def report(share: float) -> None:
            progress((done + share * seconds) / total)
            if told is not None:
                told.loaded.set()
                if share >= 1.0 and told.load_ended is None:
                    told.load_ended = time.monotonic()

        wanted = replace(settings, streams=count, seconds=seconds)
        run = await paced_run(engine, clips, wanted, stop, report)
        return figures_of(run, silence_s, with_text=with_text)

    before = await played(1, ALONE_S, 0.0, None)
    comer = LateComer(engine, dict(settings.stream))
    asking = asyncio.create_task(comer.ask(stop))
    try:
        during = await played(streams, LOAD_S, ALONE_S, comer)
        if not stop.is_set():
            await asking
    finally:
        asking.cancel()
    after = None
    if comer.recovered_s is not None and not stop.is_set():
        after = await played(1, ALONE_S, ALONE_S + LOAD_S, None)
    return OverloadFigures(
        streams,
        before,
        during,
        after,
        comer.asked,
        comer.refused,
        comer.refused_after_s,
        comer.words,
        comer.recovered_s,
        stop.is_set(),
    )

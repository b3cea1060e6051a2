"""How long an agent's voice goes on when somebody speaks: figures of docs/page.md and agents.md.

    python -m tests.web.barge_in [INTERRUPTIONS]

Chromium's fake microphone plays the bundled utterances, each into the answer to the one before it,
to the page of `tinyvoice serve` and to the page of `tinyvoice agent parrot`, which run in this
process. In the browser one audio context taps the microphone and the agent's voice, so that both
are on one clock, sample by sample; the voice is tapped behind the browser's jitter buffer, where it
is heard. The times, all until the voice is silent:

- *voice*: from the first sound of the person in the browser's microphone. It is what a person
  waits, and holds the network, the recogniser's windows of 32 ms, the 64 ms of speech that it wants
  before it believes it, and whatever of the recording's beginning is too soft to be speech;
- *onset*: from where the server's voice activity detector puts the beginning of speech;
- *decision*: from when it has decided that somebody speaks (``speech_started``).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from loguru import logger

from agents import parrot
from agents.doors import Door
from agents.settings import AgentSettings
from tests.server.conftest import running
from tests.web.browser import Page, chromium
from tests.web.microphone import microphone_file
from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.speech import Clip, bundled_speech
from tinyvoice.integrations import PipecatASRService
from tinyvoice.integrations.shared_engine import close_engines
from tinyvoice.server.settings import ServerSettings
from tinyvoice.vad.utterance import Started, UtteranceDetector

LEAD_S = 5.0
"""Silence before the first utterance: connections are made, and the parrot greets."""
GAP_S = 2.0
"""Between utterances: the turn ends, and the answer has begun before the next one."""

VOICE = 0.005
PERSON = 0.01
"""Peaks from which a sound counts, of 1."""
QUIET_MS = 300.0
"""A voice that is not heard for so long is silent, and not between two words."""

TAP = """
    window.blocks = [];
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    let context, merger;
    const tap = (stream, channel) => {
        if (!context) {
            context = new AudioContext({sampleRate: 48000});
            merger = context.createChannelMerger(2);
            const node = context.createScriptProcessor(256, 2, 1);
            merger.connect(node);
            node.connect(context.destination);
            node.onaudioprocess = ({inputBuffer, playbackTime}) => {
                const now = performance.timeOrigin + performance.now();
                const peak = (channel) => inputBuffer.getChannelData(channel).reduce(
                    (most, sample) => Math.max(most, Math.abs(sample)), 0);
                window.blocks.push([1000 * playbackTime, now, peak(0), peak(1)]);
            };
        }
        context.createMediaStreamSource(stream).connect(merger, 0, channel);
    };
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        const stream = await open(wanted);
        tap(stream, 0);
        return stream;
    };
    addEventListener('DOMContentLoaded', () => {
        document.querySelector('audio').addEventListener('loadedmetadata', ({target}) =>
            tap(target.srcObject, 1));
    });
"""


@dataclass(frozen=True)
class Decision:
    """The detector has found speech; both in ms since 1970."""

    at_ms: float
    onset_ms: float


@dataclass(frozen=True)
class Interruption:
    """Until the agent's voice was silent, in ms."""

    voice_ms: float
    onset_ms: float
    decision_ms: float


@contextmanager
def noting_decisions() -> Iterator[list[Decision]]:
    """Everything that detectors of this process find meanwhile."""
    found: list[Decision] = []
    start = UtteranceDetector._start

    def noting(self: UtteranceDetector, onset: int) -> Started:
        now_ms = 1000 * time.time()
        found.append(Decision(now_ms, now_ms - 1000 * (self.position - onset) / SAMPLE_RATE))
        return start(self, onset)

    UtteranceDetector._start = noting  # type: ignore[method-assign]
    try:
        yield found
    finally:
        UtteranceDetector._start = start  # type: ignore[method-assign]


def interruptions(blocks: Any, decisions: list[Decision]) -> list[Interruption]:
    """Those of the decisions that fell into the agent's voice.

    ``blocks`` are rows of the audio context's clock, the wall clock when it was told, and the peaks
    of the microphone and of the voice; times in ms.
    """
    clock, told, person, voice = np.asarray(blocks, dtype=np.float64).T
    # The least delayed message says how the two clocks lie to each other.
    wall = clock + np.min(told - clock)
    loud = wall[voice > VOICE]
    spoken = wall[person > PERSON]
    begun = spoken[np.diff(spoken, prepend=-np.inf) > QUIET_MS]
    found = []
    for decision in decisions:
        onsets = begun[begun <= decision.at_ms]
        around = loud[(loud > decision.at_ms - 100) & (loud <= decision.at_ms)]
        if not len(onsets) or not len(around):
            continue  # nobody was interrupted
        after = loud[loud >= around[-1]]
        ends = np.flatnonzero(np.diff(after, append=np.inf) > QUIET_MS)
        silent = after[ends[0]]
        found.append(
            Interruption(silent - onsets[-1], silent - decision.onset_ms, silent - decision.at_ms)
        )
    return found


async def measured(page: Page, url: str, begin: str, live: str, seconds: float) -> Any:
    """Talk by a page until the recording is over; what was tapped meanwhile."""
    for domain in ("Page", "Runtime", "Log"):
        await page.command(f"{domain}.enable")
    await page.command("Page.addScriptToEvaluateOnNewDocument", source=TAP)
    await page.command("Page.navigate", url=url)
    await page.until("document.readyState === 'complete' && !!document.querySelector('audio')")
    await page.evaluate(begin)
    await page.until(live)
    await asyncio.sleep(seconds)
    return await page.evaluate("window.blocks")


@asynccontextmanager
async def parrots() -> AsyncIterator[str]:
    """The parrot's page, in a thread of its own; its address."""
    ready = threading.Event()
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        await PipecatASRService.load()
        config = uvicorn.Config(
            Door(parrot.run, AgentSettings()).app(),
            port=0,
            log_level="critical",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        servers.append(server)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        ready.set()
        await task
        await close_engines()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="parrot", daemon=True)
    thread.start()
    await asyncio.to_thread(ready.wait)
    port = servers[0].servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        servers[0].should_exit = True
        await asyncio.to_thread(thread.join)


async def measure(count: int, folder: Path) -> None:
    """Print a table of both pages."""
    clips = [clip for clip in bundled_speech() if 2.0 < clip.duration < 5.0]
    chosen: list[Clip] = [clips[n % len(clips)] for n in range(count + 1)]
    parts = [LEAD_S, *(part for clip in chosen for part in (clip, GAP_S)), 60.0]
    recording = microphone_file(folder / "microphone.wav", parts)
    seconds = sum(part.duration if isinstance(part, Clip) else part for part in parts[:-1]) + 4.0
    print("| page | interruptions | voice p50 / max | onset p50 / max | decision p50 / max |")
    print("| --- | --- | --- | --- | --- |")
    settings = ServerSettings(port=0, refuse_partial_gap_s=3_600)
    logger.remove()  # Pipecat tells every step
    with noting_decisions() as decisions:
        with running(settings) as server:
            async with chromium(recording) as page:
                blocks = await measured(
                    page,
                    server.url,
                    "document.querySelector('input[value=talk]').click(), "
                    "document.getElementById('start').click()",
                    "document.body.dataset.state === 'live'",
                    seconds,
                )
            report("`tinyvoice serve`", interruptions(blocks, decisions))
        decisions.clear()
        async with parrots() as url, chromium(recording) as page:
            blocks = await measured(
                page,
                url,
                "document.getElementById('talk').click()",
                "document.getElementById('state').innerText === 'Connected: speak.'",
                seconds,
            )
            report("`tinyvoice agent parrot`", interruptions(blocks, decisions))


def report(name: str, found: list[Interruption]) -> None:
    """Print a row."""
    rows = np.array([(each.voice_ms, each.onset_ms, each.decision_ms) for each in found])
    figures = [f"{np.median(row):.0f} / {row.max():.0f} ms" for row in rows.T]
    print(f"| {name} | {len(found)} | {' | '.join(figures)} |", flush=True)


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(count, Path(folder)))


if __name__ == "__main__":
    main()

"""Pictures of every state of the page: large and small, light and dark.

    python -m tests.web.screenshots --output DIR [STATE ...]

A real server, a real browser and recorded speech. Where a state needs a fault that cannot be had
otherwise (no microphone, a question that is never answered), the browser's own function is replaced
by one that fails in that way. The pictures are for eyes; nothing is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.server.conftest import RunningServer, running
from tests.web.browser import Page, chromium
from tests.web.microphone import microphone_file
from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.speech import Clip, bundled_speech
from tinyvoice.model.modeling import ASRModel
from tinyvoice.server.settings import ServerSettings

SIZES = {"desktop": (1280, 800), "phone": (390, 844)}

EVENTS_GATE = """
    (() => {
        const add = RTCDataChannel.prototype.addEventListener;
        const waiting = [];
        let listener = null, closed = false, enough = () => false;
        RTCDataChannel.prototype.addEventListener = function (name, hear, ...more) {
            if (name !== 'message') return add.call(this, name, hear, ...more);
            listener = hear;
            return add.call(this, name, (event) => {
                if (closed) return waiting.push(event);
                hear(event);
                closed = enough();
            });
        };
        window.events = {
            holdWhen(condition) { enough = () => (window.held = condition()); },
            go() {
                enough = () => closed = false;
                enough();
                waiting.splice(0).forEach((event) => listener(event));
            },
            tell(event) { listener({data: JSON.stringify(event)}); },
        };
    })();
"""
"""``events.holdWhen`` stops the page in a state, which sets ``held``; ``events.tell`` makes up an
event of the server."""

GROWING = """
    document.querySelectorAll('li[data-state=final]').length >= 3
    && document.querySelector('li[data-state=open] .tail')?.innerText.trim()
    && document.querySelector('li[data-state=open] .stable').innerText.trim().split(' ').length > 2
"""

LIVE = "document.body.dataset.state === 'live'"
NOTICE = "document.getElementById('notice').innerText"


@dataclass
class Studio:
    """What the states are made with."""

    server: RunningServer
    clips: list[Clip]
    folder: Path
    """For recordings."""

    @contextlib.asynccontextmanager
    async def page(
        self, *heard: Clip | float, before: str = "", allowed: bool = True
    ) -> AsyncIterator[Page]:
        """An open page whose microphone hears clips and pauses; ``before`` runs before it loads."""
        recording = microphone_file(self.folder / "microphone.wav", heard) if heard else None
        async with chromium(recording, allowed=allowed) as page:
            await page.command("Page.enable")
            script = EVENTS_GATE + before
            await page.command("Page.addScriptToEvaluateOnNewDocument", source=script)
            await page.look(width=1280, height=800)
            await page.open(self.server.url)
            yield page


Keep = Callable[[Page, str], Awaitable[None]]
State = Callable[[Studio, Keep], Awaitable[None]]

STATES: dict[str, State] = {}


def state(make: State) -> State:
    """Register a state, or several that come one after another."""
    STATES[make.__name__] = make
    return make


def finals(who: str, count: int = 1) -> str:
    """Whether so many turns are done."""
    select = f"#turns li[data-who={who}][data-state=final]"
    return f"document.querySelectorAll('{select}').length >= {count}"


@state
async def first(studio: Studio, keep: Keep) -> None:
    async with studio.page() as page:
        await keep(page, "first")
        await page.click("#open-settings")
        await keep(page, "settings")


@state
async def asking(studio: Studio, keep: Keep) -> None:
    never = "navigator.mediaDevices.getUserMedia = () => new Promise(() => {});"
    async with studio.page(before=never) as page:
        await page.click("#start")
        await page.until("document.body.dataset.state === 'asking'")
        await keep(page, "asking")


@state
async def connecting(studio: Studio, keep: Keep) -> None:
    async with studio.page(5.0, before="window.fetch = () => new Promise(() => {});") as page:
        await page.click("#start")
        await page.until("document.body.dataset.state === 'connecting'")
        await keep(page, "connecting")


@state
async def listening(studio: Studio, keep: Keep) -> None:
    async with studio.page(30.0) as page:
        await page.click("#start")
        await page.until(LIVE)
        await keep(page, "listening")
        await page.until(f"{NOTICE} !== ''")
        await keep(page, "muted")


@state
async def unheard(studio: Studio, keep: Keep) -> None:
    noise = np.random.default_rng(0).normal(0, 0.003, 30 * SAMPLE_RATE).astype(np.float32)
    room = Clip("room", noise, None, 0.0, None)
    later = "const clock = performance.now.bind(performance); window.ahead = 0;"
    later += "performance.now = () => clock() + window.ahead;"
    async with studio.page(room, before=later) as page:
        await page.click("#start")
        await page.until(LIVE)
        await page.evaluate("window.ahead += 31000")
        await page.until(f"{NOTICE} !== ''")
        await keep(page, "unheard")


@state
async def words(studio: Studio, keep: Keep) -> None:
    one, four, two, three = studio.clips[:4]  # of the second, words are sure early
    async with studio.page(3.0, one, 1.2, two, 1.2, three, 1.5, four, 5.0) as page:
        await page.evaluate(f"events.holdWhen(() => {GROWING})")
        await page.click("#start")
        await page.until("window.held")
        await keep(page, "growing")
        await page.evaluate("events.go()")
        await page.until(finals("person", 4))
        await keep(page, "turns")
        await page.evaluate("document.querySelectorAll('#turns .word')[2].focus()")
        await keep(page, "word")
        await page.evaluate("document.activeElement.blur()")
        await page.evaluate("document.getElementById('download').open = true")
        await keep(page, "download")


@state
async def push(studio: Studio, keep: Keep) -> None:
    async with studio.page(1.0, studio.clips[0], 30.0) as page:
        await page.click("#push")
        await page.click("#start")
        await page.until(LIVE)
        await keep(page, "push-ready")
        key = {"key": " ", "code": "Space", "windowsVirtualKeyCode": 32}
        await page.command("Input.dispatchKeyEvent", type="keyDown", **key)
        await keep(page, "push-held")


@state
async def talk(studio: Studio, keep: Keep) -> None:
    one, two = studio.clips[:2]
    async with studio.page(3.0, one, 1.9, two, 8.0) as page:
        await page.click("input[value=talk]")
        await keep(page, "talk-first")
        await page.click("#start")
        await page.until("document.querySelector('li[data-who=agent] .heard')?.innerText")
        await keep(page, "talk-speaking")
        await page.until("document.querySelector('li[data-state=interrupted]') !== null")
        await page.until("document.querySelectorAll('li[data-who=agent] .heard').length > 1")
        await keep(page, "talk-interrupted")


@state
async def network(studio: Studio, keep: Keep) -> None:
    async with studio.page(3.0, studio.clips[0], 60.0) as page:
        await page.click("#start")
        await page.until(finals("person"))
        await page.command("Network.enable")
        await page.command("Network.setBlockedURLs", urls=["*/v1/realtime/calls"])
        connections = studio.server.app.state.sessions
        studio.server.call(lambda: [each.close(1012, "") for each in list(connections)])
        await page.until("document.body.dataset.state !== 'live'")
        await keep(page, "reconnecting")
        await page.until(f"{NOTICE}.includes('cannot be reached')")
        await keep(page, "unreachable")


@state
async def refused(studio: Studio, keep: Keep) -> None:
    async with studio.page(allowed=False) as page:
        await page.click("#start")
        await page.until(f"{NOTICE} !== ''")
        await keep(page, "refused")


@state
async def no_microphone(studio: Studio, keep: Keep) -> None:
    fails = (
        "navigator.mediaDevices.getUserMedia = async () => { "
        "throw new DOMException('Requested device not found', 'NotFoundError'); };"
    )
    async with studio.page(before=fails) as page:
        await page.click("#start")
        await page.until(f"{NOTICE} !== ''")
        await keep(page, "no-microphone")


@state
async def no_webrtc(studio: Studio, keep: Keep) -> None:
    async with studio.page(before="delete window.RTCPeerConnection;") as page:
        await keep(page, "no-webrtc")


@state
async def insecure(studio: Studio, keep: Keep) -> None:
    hide = "Object.defineProperty(window, 'isSecureContext', {value: false});"
    async with studio.page(before=hide) as page:
        await keep(page, "insecure")


@state
async def full(studio: Studio, keep: Keep) -> None:
    fails = (
        "window.fetch = async () => new Response('{}', {status: 503, headers: {'Retry-After': 5}});"
    )
    async with studio.page(5.0, before=fails) as page:
        await page.click("#start")
        await page.until(f"{NOTICE} !== ''")
        await keep(page, "full")


@state
async def key_wanted(studio: Studio, keep: Keep) -> None:
    fails = "window.fetch = async () => new Response('{}', {status: 401});"
    async with studio.page(5.0, before=fails) as page:
        await page.click("#start")
        await page.until(f"{NOTICE} !== ''")
        await keep(page, "key-wanted")


@state
async def failed(studio: Studio, keep: Keep) -> None:
    item = "item_failed"
    events = [
        {"type": "input_audio_buffer.speech_started", "item_id": item, "audio_start_ms": 5900},
        {
            "type": "tinyvoice.transcription.partial",
            "item_id": item,
            "stable": "book",
            "tail": " a",
        },
        {"type": "input_audio_buffer.speech_stopped", "item_id": item, "audio_end_ms": 7300},
        {
            "type": "conversation.item.input_audio_transcription.failed",
            "item_id": item,
            "error": {"message": "The recogniser failed in this turn; the next one is heard."},
        },
        {
            "type": "response.done",
            "response": {
                "id": "resp_failed",
                "status": "failed",
                "status_details": {"error": {"message": "The language model cannot be reached."}},
            },
        },
    ]
    async with studio.page(3.0, studio.clips[0], 30.0) as page:
        await page.click("#start")
        await page.until(finals("person"))
        for event in events:
            await page.evaluate(f"events.tell({json.dumps(event)})")
        await keep(page, "failed")


async def take(output: Path, names: Sequence[str], schemes: Sequence[str]) -> None:
    """Take the pictures of these states."""
    output.mkdir(parents=True, exist_ok=True)
    model = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    clips = [clip for clip in bundled_speech() if clip.duration < 4.5]
    transcripts = model.transcribe([clip.samples for clip in clips])
    assert isinstance(transcripts, list)
    pairs = zip(clips, transcripts, strict=True)
    clips = [clip for clip, transcript in pairs if transcript.text == clip.text]

    async def keep(page: Page, name: str) -> None:
        for size, (width, height) in SIZES.items():
            for scheme in schemes:
                await page.screenshot(
                    output / f"{name}-{size}-{scheme}.png",
                    width=width,
                    height=height,
                    dark=scheme == "dark",
                )
        print(name, flush=True)

    settings = ServerSettings(port=0, refuse_partial_gap_s=3_600)
    with running(settings, model) as server, tempfile.TemporaryDirectory() as folder:
        studio = Studio(server, clips, Path(folder))
        for name in names:
            await STATES[name](studio, keep)


def main() -> None:
    """Read the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("states", nargs="*", metavar="STATE", help=", ".join(STATES))
    chosen = parser.parse_args()
    asyncio.run(take(chosen.output, chosen.states or list(STATES), ("light", "dark")))


if __name__ == "__main__":
    main()

"""What the page looks like: contrast, small screens, the keyboard, and the pictures of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import RunningServer
from tests.web.browser import Page, chromium
from tests.web.conftest import Microphone
from tests.web.screenshots import EVENTS_GATE, LIVE, NOTICE, SIZES, STATES, Studio
from tinyvoice.benchmark.speech import Clip

TEXT_CONTRAST, EDGE_CONTRAST = 4.5, 3.0
"""Of WCAG 2.2, level AA: 1.4.3 and 1.4.11."""

CONTRAST = """
(() => {
    const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgba = (colour) => {
        paint.clearRect(0, 0, 1, 1);
        paint.fillStyle = colour;
        paint.fillRect(0, 0, 1, 1);
        return [...paint.getImageData(0, 0, 1, 1).data];
    };
    const luminance = ([r, g, b]) => {
        const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    };
    const ratio = (a, b) => {
        const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x);
        return (light + 0.05) / (dark + 0.05);
    };
    const behind = (element) => {
        for (; element; element = element.parentElement) {
            const colour = rgba(getComputedStyle(element).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255, 255];
    };
    const found = [];
    for (const element of document.querySelectorAll('body *')) {
        const style = getComputedStyle(element);
        if (!element.checkVisibility({visibilityProperty: true})) continue;
        if (element.closest('.unseen, :disabled')) continue;
        const written = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
        if (written) found.push(['text', element.id || element.className || element.textContent,
                                 ratio(rgba(style.color), behind(element))]);
        if (element.matches('button, select, summary, input[type=password]')
            && parseFloat(style.borderTopWidth)) {
            const around = behind(element.parentElement);
            const edges = [rgba(style.borderTopColor), behind(element)].map(c => ratio(c, around));
            found.push(['edge', element.id || element.textContent, Math.max(...edges)]);
        }
    }
    return found;
})()
"""

TURNS: list[dict[str, Any]] = [
    {"type": "input_audio_buffer.speech_started", "item_id": "a", "audio_start_ms": 1500},
    {"type": "input_audio_buffer.speech_stopped", "item_id": "a", "audio_end_ms": 3000},
    {
        "type": "tinyvoice.transcription.words",
        "item_id": "a",
        "words": [
            {"word": "book", "start_ms": 1520, "end_ms": 1800, "confidence": 0.9},
            {"word": "it", "start_ms": 1800, "end_ms": 2100, "confidence": 0.4},
        ],
    },
    {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "a",
        "transcript": "book it",
    },
    {
        "type": "response.output_audio_transcript.delta",
        "response_id": "r",
        "item_id": "b",
        "delta": "Done, for two people and " + "a-name-that-goes-on-" * 4,
    },
    {"type": "output_audio_buffer.started", "response_id": "r"},
    {"type": "output_audio_buffer.cleared", "response_id": "r"},
    {"type": "input_audio_buffer.speech_started", "item_id": "c", "audio_start_ms": 9000},
    {"type": "tinyvoice.transcription.partial", "item_id": "c", "stable": "and", "tail": " now"},
    {"type": "input_audio_buffer.speech_started", "item_id": "d", "audio_start_ms": 9900},
    {
        "type": "conversation.item.input_audio_transcription.failed",
        "item_id": "d",
        "error": {"message": "The recogniser failed in this turn."},
    },
    {"type": "error", "error": {"message": "Something was wrong.", "code": "other"}},
]


async def busy(page: Page, server: RunningServer) -> None:
    """Bring the page to a state with a bit of everything."""
    await page.command("Page.enable")
    await page.command("Page.addScriptToEvaluateOnNewDocument", source=EVENTS_GATE)
    await page.open(server.url)
    await page.click("#start")
    await page.until(LIVE)
    for event in TURNS:
        await page.evaluate(f"events.tell({json.dumps(event)})")


async def press(page: Page, key: str) -> str:
    """Press a key; what has the focus then."""
    codes = {"Tab": 9, "ArrowRight": 39, "ArrowLeft": 37, "Escape": 27}
    for kind in ("keyDown", "keyUp"):
        await page.command(
            "Input.dispatchKeyEvent",
            type=kind,
            key=key,
            code=key,
            windowsVirtualKeyCode=codes[key],
        )
    return str(
        await page.evaluate(
            "document.activeElement.id || document.activeElement.value "
            "|| document.activeElement.textContent.trim()"
        )
    )


async def test_everything_can_be_read_and_fits(
    server: RunningServer, microphone: Microphone
) -> None:
    async with chromium(microphone(30.0)) as page:
        await busy(page, server)
        await page.evaluate("document.querySelector('.word').focus()")
        for dark in (False, True):
            await page.look(width=1280, height=800, dark=dark)
            await page.evaluate("document.getElementById('open-settings').click()")
            found = await page.evaluate(CONTRAST)
            await page.evaluate("document.getElementById('settings').close()")
            assert {"stable", "tail", "unheard", "word", "latency", "notice"} <= {
                name for kind, name, _ in found if kind == "text"
            }
            least = {"text": TEXT_CONTRAST, "edge": EDGE_CONTRAST}
            assert [each for each in found if each[2] < least[each[0]]] == []
        longest = "Waiting for the microphone"
        await page.evaluate(f"document.getElementById('state').textContent = '{longest}'")
        for width in (1280, 390, 320):
            await page.look(width=width, height=700)
            wide = "Math.max(document.documentElement.scrollWidth, innerWidth)"
            assert await page.evaluate(wide) == width


async def test_the_keyboard_reaches_everything_in_the_order_of_the_page(
    server: RunningServer, microphone: Microphone
) -> None:
    async with chromium(microphone(30.0)) as page:
        await busy(page, server)
        await page.evaluate("document.getElementById('turns').replaceChildren(); 0")
        await page.evaluate("document.getElementById('open-settings').focus()")
        order = [await press(page, "Tab") for _ in range(6)]
        assert order == ["copy", "Download", "clear", "transcript", "start", "transcribe"]


async def test_words_tell_their_times_to_keys_and_fingers(
    server: RunningServer, microphone: Microphone
) -> None:
    about = "document.getElementById('about')"
    async with chromium(microphone(30.0)) as page:
        await busy(page, server)
        await page.evaluate("document.getElementById('transcript').focus()")
        assert await press(page, "Tab") == "book"
        assert await page.evaluate(f"{about}.textContent") == "1.52 s to 1.80 s, 90 % sure"
        assert await press(page, "ArrowRight") == "it"
        assert await page.evaluate(f"{about}.textContent") == "1.80 s to 2.10 s, 40 % sure"
        described = "document.activeElement.getAttribute('aria-describedby')"
        assert await page.evaluate(described) == "about"
        assert await press(page, "ArrowRight") == "it"
        assert await press(page, "ArrowLeft") == "book"
        await press(page, "Escape")
        assert await page.evaluate(f"{about}.hidden") is True


async def test_a_microphone_that_gives_nothing_is_pointed_out(
    server: RunningServer, microphone: Microphone
) -> None:
    async with chromium(microphone(60.0)) as page:
        await page.open(server.url)
        await page.click("#start")
        await page.until(f"{NOTICE}.includes('muted')")
        await page.click("#notice button")
        assert await page.evaluate("document.getElementById('settings').open") is True
        assert await page.evaluate("document.activeElement.id") == "microphone"


async def test_stop_while_the_browser_asks_for_the_microphone(server: RunningServer) -> None:
    ask_long = """
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        window.opened = null;
        navigator.mediaDevices.getUserMedia = async (wish) => {
            await new Promise((allow) => (window.allow = allow));
            return (window.opened = await ask(wish));
        };
    """
    async with chromium() as page:
        await page.command("Page.enable")
        await page.command("Page.addScriptToEvaluateOnNewDocument", source=ask_long)
        await page.open(server.url)
        await page.click("#start")
        await page.until("document.body.dataset.state === 'asking' && !!window.allow")
        await page.click("#start")
        await page.evaluate("window.allow()")
        await page.until("window.opened?.getTracks().every(t => t.readyState === 'ended')")
        assert await page.evaluate("document.body.dataset.state") == "idle"


@pytest.mark.parametrize("state", ["first", "no_webrtc"])
async def test_pictures_can_be_taken(
    server: RunningServer, clips: list[Clip], tmp_path: Path, state: str
) -> None:
    taken: list[str] = []

    async def keep(page: Page, name: str) -> None:
        width, height = SIZES["phone"]
        await page.screenshot(tmp_path / f"{name}.png", width=width, height=height, dark=True)
        taken.append(name)

    await STATES[state](Studio(server, clips, tmp_path), keep)
    assert taken
    for name in taken:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")

"""The agents' page in a real browser, against the command that people start."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from tests.web.browser import Page, chromium
from tests.web.microphone import microphone_file
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.speech import Clip, bundled_speech
from tinyvoice.model.modeling import ASRModel
from tinyvoice.voices.espeak_process import EspeakProcess

RATE = 16_000

STATE = "document.getElementById('state').innerText"
LINES = "[...document.querySelectorAll('#log p')].map(line => line.innerText)"

INTERIMS = """
    window.interims = [];
    new MutationObserver(() => window.interims.push(
        ...[...document.querySelectorAll('#log .interim')].map(line => line.innerText)
    )).observe(document.getElementById('log'), {subtree: true, childList: true}); 0
"""
"""Keeps what is shown before it is final."""

RECORD = """
    window.sound = [];
    addEventListener('DOMContentLoaded', () => {
        document.getElementById('voice').addEventListener('loadedmetadata', ({target}) => {
            const context = new AudioContext({sampleRate: 16000});
            const tap = context.createScriptProcessor(512, 1, 1);
            context.createMediaStreamSource(target.srcObject).connect(tap);
            tap.connect(context.destination);
            tap.onaudioprocess = ({inputBuffer}) => {
                const samples = inputBuffer.getChannelData(0);
                window.sound.push(...samples);
                if (window.sound.length > 16000 * 10) window.sound.splice(0, samples.length);
            };
        });
    });
"""
"""Keeps the last ten seconds of the voice as it is played."""

SOUND = """
    (() => {
        const bytes = new Uint8Array(Float32Array.from(window.sound).buffer);
        let text = '';
        for (let at = 0; at < bytes.length; at += 8192) {
            text += String.fromCharCode(...bytes.subarray(at, at + 8192));
        }
        return btoa(text);
    })()
"""


@pytest.fixture
def clips(model: ASRModel, mouth: EspeakProcess) -> list[Clip]:
    """Short utterances that the model gets right, from the person and from the parrot."""
    found = [clip for clip in bundled_speech() if clip.duration < 4.5]
    voices = []
    for clip in found:
        spoken = mouth.speak(clip.text or "", "en-us")
        pcm = np.frombuffer(spoken.pcm16, dtype="<i2").astype(np.float32)
        voices.append(resample(pcm / np.float32(32768), spoken.sample_rate, RATE))
    people = model.transcribe([clip.samples for clip in found])
    parrots = model.transcribe(voices)
    both = zip(found, people, parrots, strict=True)
    return [clip for clip, one, other in both if one.text == other.text == clip.text]


@contextlib.asynccontextmanager
async def parrot() -> AsyncIterator[str]:
    """The parrot's process; its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tinyvoice", "agent", "parrot"),
        *("--transport", "webrtc", "--port", "0"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(90):
            while not (found := re.search(rb"Open (http://\S+/) in a browser", said)):
                line = await process.stderr.readline()
                assert line, said.decode()
                said += line
        yield found[1].decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def page_of(
    address: str, microphone: Path | None = None, *, allowed: bool = True
) -> AsyncIterator[Page]:
    """The page, before anything has been pressed."""
    async with chromium(microphone, allowed=allowed) as page:
        for domain in ("Page", "Runtime", "Log"):
            await page.command(f"{domain}.enable")
        await page.command("Page.addScriptToEvaluateOnNewDocument", source=RECORD)
        await page.command("Page.navigate", url=address)
        await page.until("document.readyState === 'complete' && !!document.getElementById('talk')")
        yield page


async def heard(page: Page, model: ASRModel) -> str:
    """What the voice has said until now."""
    sound = np.frombuffer(base64.b64decode(await page.evaluate(SOUND)), dtype="<f4")
    [transcript] = model.transcribe([np.pad(sound, 4_000)], sample_rate=RATE)
    return str(transcript.text)


def mostly(expected: str, said: str) -> bool:
    """Whether at least half of the words are there.

    The browser of a busy machine records and plays with holes; every word is asked for where no
    browser takes part.
    """
    words = set(expected.split())
    return len(words & set(said.split())) >= len(words) / 2


async def line_of(page: Page, speaker: str, clip: Clip) -> None:
    """Wait until the page shows what somebody said."""
    lines: list[str] = []
    try:
        async with asyncio.timeout(90):
            while not any(
                line.startswith(f"{speaker}: ") and mostly(clip.text or "", line) for line in lines
            ):
                lines = await page.evaluate(LINES)
                await asyncio.sleep(0.1)  # the page says nothing of itself
    except TimeoutError:
        raise AssertionError(f"{speaker} did not say {clip.text!r}, but {lines}") from None


async def test_speech_goes_in_and_the_parrots_voice_comes_out_until_it_is_interrupted(
    model: ASRModel, clips: list[Clip], tmp_path: Path
) -> None:
    # The second utterance falls into the echo of the first, which is longer.
    long, short = sorted(clips, key=lambda clip: -len(clip.text or ""))[:2]
    recording = microphone_file(tmp_path / "microphone.wav", [7.0, long, 2.0, short, 60.0])
    async with parrot() as address, page_of(address, recording) as page:
        assert await page.evaluate(STATE) == "Your microphone is off."
        await page.click("#talk")
        await page.until(f"{STATE} === 'Connected: speak.'")
        await page.evaluate(INTERIMS)
        await line_of(page, "You", short)
        assert (long.text or "?") not in await heard(page, model), "it spoke to its end"
        await page.evaluate("window.sound = []")
        await line_of(page, "Agent", short)
        async with asyncio.timeout(60):
            while not mostly(short.text or "", await heard(page, model)):
                await asyncio.sleep(0.2)  # more of the voice is to be played
        await line_of(page, "You", long)
        lines = await page.evaluate(LINES)
        assert len(lines) == len(set(lines)), lines
        interims = await page.evaluate("window.interims")
        assert any(0 < len(text) < len(f"You: {long.text}") for text in interims), interims
        assert await page.evaluate("document.querySelectorAll('.interim').length") == 0
        await page.click("#talk")
        assert await page.evaluate(STATE) == "Your microphone is off."
        assert page.complaints == []


async def test_what_goes_wrong_is_told_and_can_be_tried_again() -> None:
    async with parrot() as address:
        async with page_of(address, allowed=False) as page:
            await page.click("#talk")
            await page.until(f"{STATE}.includes('allow it for this page')")
            assert await page.evaluate("document.getElementById('talk').innerText") == (
                "Start talking"
            )
        async with page_of(address) as page:
            await page.command("Network.enable")
            await page.command("Network.setBlockedURLs", urls=["*/api/offer"])
            await page.click("#talk")
            await page.until(f"{STATE} === 'The agent cannot be reached.'")
            await page.command("Network.setBlockedURLs", urls=[])
            await page.click("#talk")
            await page.until(f"{STATE} === 'Connected: speak.'")

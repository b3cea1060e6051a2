"""The JavaScript programs of the guides, run as they stand there, in Node and in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.checking import same_words
from tests.conformance.conftest import write_wav
from tests.conformance.guides import block, run
from tests.conformance.javascript.conftest import Recording
from tests.conformance.javascript.node import installation, node, run_script
from tests.conformance.serving import RunningServer, serving
from tinyvoice.audio.files import load_audio
from tinyvoice.benchmark.speech import Clip

CLIENTS, CALLS = "clients.md", "webrtc.md"
NAME = "13"
QUIET = {"OPENAI_AGENTS_DISABLE_TRACING": "1", "NODE_NO_WARNINGS": "1", "NO_PROXY": "127.0.0.1"}
"""Nothing is reported to anybody."""

Speech = dict[str, Clip]


@pytest.fixture
def folder(tmp_path: Path, speech: Speech) -> Path:
    """The current folder of who follows a guide: there is a recording in it."""
    write_wav(tmp_path / "speech.wav", speech[NAME].samples)
    return tmp_path


@pytest.fixture
def microphone(played: Recording) -> Path:
    """What is said into the browser's microphone, over and over again.

    It begins when the microphone is opened, so the first time may come before there is a call.
    """
    return played(NAME, before=2.0, after=8.0, rate=48_000)


async def run_javascript(section: str, folder: Path, url: str) -> str:
    home = installation()
    (folder / "node_modules").symlink_to(home / "node_modules")
    program = folder / "program.mjs"
    program.write_text(block(CLIENTS, section, "javascript").pointed_at(url), encoding="utf-8")
    return await run([node(home), program.name], folder, QUIET)


def page_of(module: str) -> str:
    """A page with a program, whose imports a bundler would resolve."""
    bundle = "/npm/@openai/agents-realtime/dist/bundle/openai-realtime-agents.mjs"
    imports = f'{{"imports": {{"@openai/agents-realtime": "{bundle}"}}}}'
    return (
        f'<!doctype html><script type="importmap">{imports}</script>'
        f'<script type="module">{module}</script>'
    )


async def test_javascript_that_hears(folder: Path, speech: Speech) -> None:
    with serving("--tls-self-signed") as server:
        said = await run_javascript("JavaScript: openai", folder, server.url)
    assert same_words(speech[NAME].text or "", said)


async def test_javascript_that_converses(server: RunningServer, folder: Path) -> None:
    said = await run_javascript("JavaScript: OpenAI Agents SDK", folder, server.url)
    assert said.strip() == "You said: Hello there."


async def test_javascript_that_hears_and_speaks_over_http(
    server: RunningServer, folder: Path, speech: Speech
) -> None:
    said = await run_javascript("AI SDK", folder, server.url)
    assert same_words(speech[NAME].text or "", said)
    assert abs(load_audio(folder / "speech.mp3").samples).max() > 0.1


async def test_a_page_converses_over_a_websocket(server: RunningServer, browser: str) -> None:
    module = block(CLIENTS, "JavaScript: OpenAI Agents SDK", "javascript").pointed_at(server.url)
    report = await run_script("page", html=page_of(module), browser=browser, until="You said")
    assert report["logged"] == ["You said: Hello there."]


async def test_a_page_opens_a_websocket(server: RunningServer, browser: str) -> None:
    module = block(CLIENTS, "A browser without a library", "javascript").pointed_at(server.url)
    html = page_of(module)
    report = await run_script("page", html=html, browser=browser, until="session.created")
    (event,) = report["logged"]
    assert event["session"]["type"] == "transcription"


async def test_a_page_calls(
    server: RunningServer, browser: str, microphone: Path, speech: Speech
) -> None:
    html = block(CALLS, "From a browser", "html").pointed_at(server.url)
    report = await run_script(
        "page",
        html=f"<!doctype html>{html}",
        browser=browser,
        microphone=microphone,
        until=f'audio_transcript.done".*"You said: {speech[NAME].text}',
    )
    texts = [e["transcript"] for e in report["logged"] if e["type"].endswith(".completed")]
    assert same_words(speech[NAME].text or "", texts[-1])


async def test_a_page_calls_with_the_agents_sdk(
    server: RunningServer, browser: str, microphone: Path, speech: Speech
) -> None:
    module = block(CALLS, "From a browser", "javascript").pointed_at(server.url)
    until = f"You said: {speech[NAME].text}"
    report = await run_script(
        "page", html=page_of(module), browser=browser, microphone=microphone, until=until
    )
    assert same_words(until, report["logged"][-1])

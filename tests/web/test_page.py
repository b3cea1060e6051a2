"""The page in a real browser, its microphone fed by recordings."""

from __future__ import annotations

import json
import math
import random
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest
from aiortc.rtp import RtpPacket

from tests.server.conftest import RunningServer
from tests.web.browser import Page, chromium
from tests.web.conftest import Microphone
from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.speech import Clip
from tinyvoice.server import page as page_routes
from tinyvoice.webrtc import Peer

LIVE = "document.body.dataset.state === 'live'"
TURNS = """[...document.querySelectorAll('#turns li')].map(item => ({
    who: item.dataset.who, state: item.dataset.state, text: item.querySelector('p').innerText,
    latency: item.querySelector('.latency')?.innerText ?? null,
    tail: item.querySelector('.tail')?.innerText ?? null}))"""
NOTICE = "document.getElementById('notice').innerText"
WATCH = """
    window.seen = [];
    new MutationObserver(() => {
        const texts = [...document.querySelectorAll('#turns p')].map(p => p.innerText);
        const speaking = document.getElementById('voice').classList.contains('on');
        window.seen.push({texts, speaking, at: performance.now()});
    }).observe(document.getElementById('turns'), {subtree: true, childList: true});
"""


async def said(page: Page, who: str = "person") -> list[dict[str, Any]]:
    return [turn for turn in await page.evaluate(TURNS) if turn["who"] == who]


def finals(who: str, count: int = 1) -> str:
    select = f"#turns li[data-who={who}][data-state=final]"
    return f"document.querySelectorAll('{select}').length >= {count}"


async def test_words_appear_while_they_are_spoken(
    server: RunningServer, microphone: Microphone, clips: list[Clip]
) -> None:
    async with chromium(microphone(8.0, clips[0], 1.5, clips[1], 2.0)) as page:
        await page.open(server.url)
        await page.evaluate(WATCH)
        await page.click("#start")
        await page.until(LIVE)
        await page.until("Number(document.getElementById('level').ariaValueNow) > 30")
        await page.until(finals("person", 2))
        turns = await said(page)
        assert [turn["text"] for turn in turns] == [clips[0].text, clips[1].text]
        assert all(turn["latency"].endswith(" ms") for turn in turns)
        seen = await page.evaluate("window.seen")
        growing = {item["texts"][0] for item in seen if item["speaking"] and item["texts"]}
        assert len(growing) >= 3, "no words while somebody spoke"
        word = "document.querySelector('#turns .word')"
        times = await page.evaluate(f"{word}.dataset.about")
        assert "s to " in times
        assert times.endswith("% sure")
        announced = await page.evaluate("document.getElementById('announcer').textContent")
        assert announced == clips[1].text
        await page.click("#start")
        assert (
            await page.evaluate("document.getElementById('state').textContent") == "Not listening"
        )
        assert page.complaints == []


async def interruption_ms(
    server: RunningServer, microphone: Microphone, clips: list[Clip]
) -> float:
    """Have the agent answer and interrupt it; how long its voice went on."""
    # The answer repeats what was said; the second utterance falls into it.
    async with chromium(microphone(8.0, clips[0], 1.6, clips[1], 6.0)) as page:
        await page.open(server.url)
        await page.click("input[value=talk]")
        await page.evaluate(LISTEN)
        await page.click("#start")
        await page.until(LIVE)
        interrupted = "li[data-who=agent][data-state=interrupted]"
        await page.until(f"document.querySelector('{interrupted}') !== null")
        await page.until(finals("agent"))
        answers = await said(page, "agent")
        assert (clips[0].text or "?") in answers[0]["text"]
        assert (clips[1].text or "?") in answers[-1]["text"]
        assert answers[0]["latency"].endswith(" ms")
        unheard = "document.querySelector('li[data-state=interrupted] .unheard').innerText"
        assert len(await page.evaluate(unheard)) < len(answers[0]["text"]), "none of it was shown"
        assert await page.evaluate(unheard), "words that nobody heard are shown as heard"
        # It is stopped by the beginning of what the person says, not by its end.
        events = await page.evaluate("window.events")
        since = events[events.index("output_audio_buffer.started") :]
        order = [event.split(".")[-1] for event in since if "audio_buffer" in event]
        assert order[:4] == ["started", "speech_started", "cleared", "speech_stopped"]
        silent_after = await page.evaluate("window.silentAfter")
        heard = await page.evaluate("window.loudest")
        assert heard > 0.01, "the answer was not heard"
        # What has left the server is still to be played: a jitter buffer's worth.
        assert silent_after is not None
        assert page.complaints == []
        return float(silent_after)


async def test_the_agent_answers_and_is_interrupted(
    server: RunningServer, microphone: Microphone, clips: list[Clip]
) -> None:
    # A browser that other work keeps from its processor plays late: it is given three tries.
    times_ms: list[float] = []
    while len(times_ms) < 3 and min(times_ms, default=math.inf) > 200:
        times_ms.append(await interruption_ms(server, microphone, clips))
    assert min(times_ms) <= 200, f"the voice went on for {times_ms} ms"


LISTEN = """
    window.loudest = 0; window.silentAfter = null; window.cleared = null; window.events = [];
    import('/web/turns.js').then(({Turns}) => {
        const take = Turns.prototype.take;
        Turns.prototype.take = function (event) {
            window.events.push(event.type);
            if (event.type === 'output_audio_buffer.cleared') window.cleared ??= performance.now();
            return take.call(this, event);
        };
    });
    document.getElementById('speaker').addEventListener('loadedmetadata', (event) => {
        const context = new AudioContext();
        const analyser = new AnalyserNode(context, {fftSize: 512});
        context.createMediaStreamSource(event.target.srcObject).connect(analyser);
        const samples = new Float32Array(512);
        let loudAt = 0;
        setInterval(() => {
            analyser.getFloatTimeDomainData(samples);
            const peak = Math.max(...samples.map(Math.abs));
            window.loudest = Math.max(window.loudest, peak);
            if (peak > 0.005) loudAt = performance.now();
            const quiet = performance.now() - loudAt;
            if (window.cleared && window.silentAfter === null && quiet > 100) {
                window.silentAfter = Math.max(0, loudAt - window.cleared);
            }
        }, 5);
    });
"""


async def test_a_lost_connection_is_made_again_and_nothing_written_is_lost(
    server: RunningServer, microphone: Microphone, clips: list[Clip]
) -> None:
    async with chromium(microphone(8.0, clips[0], 15.0, clips[1], 4.0)) as page:
        await page.open(server.url)
        await page.click("#start")
        await page.until(finals("person"))
        # The server forgets the call, as one that is restarted does.
        dropped = server.call(lambda: _drop_calls(server))
        assert dropped  # a page that was just closed may still be among them
        await page.until("document.body.dataset.state === 'connecting'")
        assert "Trying again" in await page.evaluate(NOTICE)
        await page.until(LIVE)
        assert await page.evaluate(NOTICE) == ""
        await page.until(finals("person", 2))
        turns = await said(page)
        assert turns[0]["text"] == clips[0].text
        # The second call's clock begins anew; the transcript's does not.
        times = await page.evaluate(
            "[...document.querySelectorAll('#turns li')].map(li => parseFloat("
            "li.querySelector('.word').dataset.about))"
        )
        assert times[1] > times[0] + clips[0].duration
        assert page.complaints == []


def _drop_calls(server: RunningServer) -> int:
    connections = list(server.app.state.sessions)
    for connection in connections:
        connection.close(1012, "the server starts anew")
    return len(connections)


async def test_words_come_over_a_network_that_loses_delays_and_jumbles_packets(
    server: RunningServer,
    microphone: Microphone,
    clips: list[Clip],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance = random.Random(0)
    hear = Peer._packet_received
    peers: set[Peer] = set()

    def impaired(peer: Peer, packet: RtpPacket) -> None:
        peers.add(peer)
        if chance.random() >= 0.05:
            # Packets, 20 ms apart, overtake each other.
            server.loop.call_later(chance.uniform(0, 0.06), hear, peer, packet)

    monkeypatch.setattr(Peer, "_packet_received", impaired)
    async with chromium(microphone(8.0, clips[0], 1.5, clips[1], 2.0)) as page:
        await page.open(server.url)
        await page.click("#start")
        await page.until(finals("person", 2))
        understood = [turn["text"].split() for turn in await said(page)]
        assert await page.evaluate(LIVE)
        [peer] = peers
        assert peer.statistics.recovered > 0, "Chromium sends no copies"
        assert peer.statistics.recovered > peer.statistics.lost
    for words, clip in zip(understood, clips, strict=False):
        spoken = (clip.text or "").split()
        assert len(set(words) & set(spoken)) >= len(set(spoken)) / 2


async def test_a_refused_microphone_is_explained(server: RunningServer) -> None:
    async with chromium(allowed=False) as page:
        await page.open(server.url)
        await page.click("#start")
        await page.until(f"{NOTICE} !== ''")
        notice = await page.evaluate(NOTICE)
        assert "not allowed to use the microphone" in notice
        assert await page.evaluate("document.body.dataset.state") == "idle"


async def test_sound_without_words_is_told_once_until_words_come(
    server: RunningServer, microphone: Microphone, clips: list[Clip]
) -> None:
    """A quiet room, and now and then somebody who is understood."""
    noise = np.random.default_rng(0).normal(0, 0.003, 6 * SAMPLE_RATE).astype(np.float32)
    room = Clip("room", noise, None, 0.0, None)
    async with chromium(microphone(*[room, clips[0]] * 6)) as page:
        await page.open(server.url)
        await page.evaluate("""
            const clock = performance.now.bind(performance);
            window.ahead = 0;
            performance.now = () => clock() + window.ahead;
            window.told = [];
            new MutationObserver(() => told.push(document.getElementById('notice').innerText))
                .observe(document.getElementById('notice'), {childList: true}); 0
        """)
        await page.click("#start")
        await page.until(LIVE)
        told = "window.told.filter(text => text.includes('no words in it for half a minute'))"
        assert await page.evaluate(f"{told}.length") == 0
        await page.evaluate("window.ahead += 31000")
        await page.until(f"{told}.length === 1")
        # Settings that are changed take the notice away; it does not come again for that.
        await page.evaluate("document.getElementById('silence').dispatchEvent(new Event('change'))")
        await page.until(f"{NOTICE} === ''")
        await page.evaluate("window.ahead += 31000")
        await page.until(finals("person"))
        assert await page.evaluate(f"{told}.length") == 1
        await page.evaluate("window.ahead += 31000")
        await page.until(f"{told}.length === 2")
        await page.until(f"{NOTICE} === ''")
        assert page.complaints == []


async def test_a_server_that_is_away_is_tried_again_until_it_is_stopped(
    server: RunningServer, microphone: Microphone
) -> None:
    async with chromium(microphone(5.0)) as page:
        await page.open(server.url)
        await page.command("Network.enable")
        await page.command("Network.setBlockedURLs", urls=["*/v1/realtime/calls"])
        await page.click("#start")
        await page.until(f"{NOTICE}.includes('cannot be reached')")
        await page.command("Network.setBlockedURLs", urls=[])
        await page.until(LIVE)
        await page.click("#start")
        await page.until("document.body.dataset.state === 'idle'")


async def test_pages_that_cannot_work_say_why(server: RunningServer) -> None:
    async with chromium() as page:
        await page.open(server.url)
        obstacle = "import('/web/microphone.js').then(module => module.obstacle())"
        assert await page.evaluate(obstacle) is None
        hide = "Object.defineProperty(window, '{}', {{value: {}, configurable: true}}); 0"
        await page.evaluate(hide.format("RTCPeerConnection", "undefined"))
        assert "no WebRTC" in await page.evaluate(obstacle)
        await page.evaluate(hide.format("isSecureContext", "false"))
        assert "https" in await page.evaluate(obstacle)


async def test_push_to_talk(
    server: RunningServer, microphone: Microphone, clips: list[Clip]
) -> None:
    async with chromium(microphone(3.5, clips[1], 30.0)) as page:
        await page.open(server.url)
        await page.click("#push")
        await page.evaluate("document.getElementById('start').focus()")
        await page.click("#start")
        await page.until(LIVE)
        key = {"key": " ", "code": "Space", "windowsVirtualKeyCode": 32}
        # Start had the focus; the space bar there would stop it instead.
        assert await page.evaluate("document.activeElement.id") == "hold"
        await page.command("Input.dispatchKeyEvent", type="keyDown", **key)
        assert await page.evaluate("document.getElementById('hold').ariaPressed") == "true"
        await page.until(f"({TURNS}).some(turn => turn.text.split(' ').length >= 3)")
        await page.command("Input.dispatchKeyEvent", type="keyUp", **key)
        await page.until(finals("person"))
        [turn] = await said(page)
        assert turn["text"].split()[:2] == (clips[1].text or "").split()[:2]


EVENTS: list[dict[str, Any]] = [
    {"type": "input_audio_buffer.speech_started", "item_id": "a", "audio_start_ms": 1500},
    {"type": "tinyvoice.transcription.partial", "item_id": "a", "stable": "book", "tail": " a"},
    {"type": "input_audio_buffer.speech_stopped", "item_id": "a", "audio_end_ms": 3000},
    {
        "type": "tinyvoice.transcription.words",
        "item_id": "a",
        "words": [
            {"word": "book", "start_ms": 1520, "end_ms": 1800, "confidence": 0.9},
            {"word": "it", "start_ms": 1800, "end_ms": 3661001, "confidence": 0.8},
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
        "delta": "Done.",
    },
    {"type": "output_audio_buffer.started", "response_id": "r"},
    {"type": "output_audio_buffer.cleared", "response_id": "r"},
    {"type": "input_audio_buffer.speech_started", "item_id": "c", "audio_start_ms": 9000},
    {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "c",
        "transcript": "",
    },
]


async def test_what_can_be_taken_along(server: RunningServer) -> None:
    async with chromium() as page:
        await page.open(server.url)
        found = await page.evaluate(
            f"""import('/web/turns.js').then(module => {{
                let clock = 0;
                const turns = new module.Turns(() => (clock += 10));
                for (const event of {json.dumps(EVENTS)}) turns.take(event);
                return [module.asText(turns.all), module.asSubtitles(turns.all),
                        JSON.parse(module.asJson(turns.all))];
            }})"""
        )
    text, subtitles, record = found
    assert text == "You: book it\nAgent: Done."
    assert subtitles == "1\n00:00:01,520 --> 01:01:01,001\nbook it\n"
    assert [turn["who"] for turn in record] == ["person", "agent"]
    assert record[0]["latency_ms"] == 10
    assert record[1]["interrupted"] is True


async def test_what_a_lost_call_leaves_is_kept_and_marked(server: RunningServer) -> None:
    events = [
        {"type": "session.created"},
        {"type": "input_audio_buffer.speech_started", "item_id": "a", "audio_start_ms": 100},
        {
            "type": "tinyvoice.transcription.partial",
            "item_id": "a",
            "stable": "book",
            "tail": " a",
        },
        {"type": "input_audio_buffer.speech_started", "item_id": "b", "audio_start_ms": 900},
        {
            "type": "response.output_audio_transcript.delta",
            "response_id": "r",
            "item_id": "c",
            "delta": "Yes, done.",
        },
        {"type": "output_audio_buffer.started", "response_id": "r"},
    ]
    again = [
        {"type": "session.created"},
        {"type": "input_audio_buffer.speech_started", "item_id": "d", "audio_start_ms": 200},
        {
            "type": "conversation.item.input_audio_transcription.failed",
            "item_id": "d",
            "error": {"message": "Out of memory."},
        },
        {"type": "input_audio_buffer.speech_started", "item_id": "e", "audio_start_ms": 300},
        {
            "type": "conversation.item.input_audio_transcription.completed",
            "item_id": "e",
            "transcript": "thanks",
        },
    ]
    async with chromium() as page:
        await page.open(server.url)
        states, text, record = await page.evaluate(
            f"""import('/web/turns.js').then(module => {{
                let clock = 0;
                const turns = new module.Turns(() => clock);
                for (const event of {json.dumps(events)}) turns.take(event);
                clock = 5000;
                const left = turns.leave().map(turn => [turn.id, turn.state]);
                for (const event of {json.dumps(again)}) turns.take(event);
                return [left, module.asText(turns.all), JSON.parse(module.asJson(turns.all))];
            }})"""
        )
    assert states == [["a", "cut"], ["b", "empty"], ["c", "interrupted"]]
    assert text == "You: book a\nAgent: Yes, done.\nYou: thanks"  # not the recogniser's complaint
    assert [turn["start_ms"] for turn in record] == [100, None, 5300]


@pytest.mark.parametrize("name", page_routes.FILES)
def test_every_file_of_the_page_comes_from_the_server(server: RunningServer, name: str) -> None:
    with urllib.request.urlopen(f"{server.url}/web/{name}") as response:
        assert response.headers["Content-Type"].startswith(page_routes.FILES[name])
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert b"https://" not in response.read()


def test_no_other_file_does(server: RunningServer) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.url}/web/index.html%2f..%2f..%2ferrors.py")
    assert refused.value.code == 404

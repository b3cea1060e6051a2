"""Connections that do not come about, break off or come back, in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from aioice.ice import StunProtocol

from tests.server.conftest import RunningServer
from tests.web.browser import Page, chromium
from tests.web.conftest import Microphone
from tests.web.test_page import LIVE, NOTICE, finals, said
from tinyvoice.benchmark.speech import Clip

STATE = "document.body.dataset.state"
STANDING = "window.peers.filter(peer => peer.connectionState !== 'closed').length"
"""Peer connections that nobody has closed."""

WATCH = """
    window.peers = [];
    window.channels = [];
    window.requests = [];
    const Peer = RTCPeerConnection;
    window.RTCPeerConnection = class extends Peer {
        constructor(...settings) {
            super(...settings);
            peers.push(this);
        }
        createDataChannel(...settings) {
            const channel = super.createDataChannel(...settings);
            channels.push(channel);
            return channel;
        }
    };
    const request = fetch;
    window.answers = Promise.resolve();
    window.fetch = async (url, settings) => {
        requests.push(url);
        const answer = await request(url, settings);
        await answers;
        return answer;
    };

    // A call waits 4 s for a network that is away, and 15 s for a connection: here until a test
    // says that they are over.
    window.waiting = new Map();
    const [set, clear] = [setTimeout, clearTimeout];
    let timers = 0;
    window.setTimeout = (work, ms, ...rest) => {
        if (ms !== 4000 && ms !== 15000) return set(work, ms, ...rest);
        timers -= 1;
        waiting.set(timers, work);
        return timers;
    };
    window.clearTimeout = (timer) => waiting.delete(timer) || clear(timer);
    window.expire = () => {
        const works = [...waiting.values()];
        waiting.clear();
        works.forEach((work) => work());
        return works.length;
    };
"""


class Network:
    """What lies between the browser and the server's calls, which are in this process."""

    def __init__(self) -> None:
        self.silent = False
        """Whether no packet comes through, either way."""


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """Loses every packet of every call while it is silent; sockets and objects stay."""
    network = Network()

    def losing(name: str) -> None:
        carry = getattr(StunProtocol, name)

        def carried(self: StunProtocol, *arguments: Any) -> None:
            if not network.silent:
                carry(self, *arguments)

        monkeypatch.setattr(StunProtocol, name, carried)

    for name in ("datagram_received", "send_stun"):
        losing(name)
    send = StunProtocol.send_data

    async def send_data(self: StunProtocol, *arguments: Any) -> None:
        if not network.silent:
            await send(self, *arguments)

    monkeypatch.setattr(StunProtocol, "send_data", send_data)
    yield network
    network.silent = False


@contextlib.asynccontextmanager
async def watched(url: str, microphone: Any) -> AsyncIterator[Page]:
    """The page, and what it connects with."""
    async with chromium(microphone) as page:
        await page.command("Page.enable")
        await page.command("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        await page.open(url)
        yield page


async def test_stopping_while_it_connects_is_the_end_of_it(
    server: RunningServer, microphone: Microphone, network: Network
) -> None:
    async with watched(server.url, microphone(60.0)) as page:
        network.silent = True
        await page.click("#start")
        await page.until("window.waiting.size === 1")
        await page.click("#start")
        await page.evaluate("window.expire()")
        assert await page.evaluate(STATE) == "idle"
        assert await page.evaluate(NOTICE) == ""
        assert await page.evaluate(STANDING) == 0


async def test_a_call_that_was_left_while_it_connected_does_not_touch_the_next(
    server: RunningServer, microphone: Microphone, network: Network
) -> None:
    async with watched(server.url, microphone(60.0)) as page:
        network.silent = True
        await page.click("#start")
        await page.until("window.waiting.size === 1")
        network.silent = False
        await page.click("#processing")  # another microphone, so to speak: it stops and starts
        await page.until(LIVE)
        await page.evaluate("window.expire()")
        assert await page.evaluate(STATE) == "live"
        assert await page.evaluate(NOTICE) == ""
        assert await page.evaluate("window.peers.length") == 2
        assert await page.evaluate(STANDING) == 1


async def test_a_call_that_is_lost_while_it_connects_is_made_again_once(
    server: RunningServer, microphone: Microphone, network: Network
) -> None:
    async with watched(server.url, microphone(60.0)) as page:
        network.silent = True
        await page.click("#start")
        await page.until("window.waiting.size === 1")
        # A browser says so of its own accord only after half a minute.
        await page.evaluate("window.channels[0].dispatchEvent(new Event('close'))")
        await page.until(f"{NOTICE}.includes('The connection was lost')")
        network.silent = False
        await page.until(LIVE)
        await page.evaluate("window.expire()")
        assert await page.evaluate(STATE) == "live"
        assert await page.evaluate("window.peers.length") == 2
        assert await page.evaluate(STANDING) == 1


async def test_an_answer_that_comes_after_the_call_was_left_is_hung_up_on(
    server: RunningServer, microphone: Microphone
) -> None:
    async with watched(server.url, microphone(60.0)) as page:
        await page.evaluate("void (window.answers = new Promise(done => { window.answer = done }))")
        await page.click("#start")
        await page.until("window.requests.length === 1")
        await page.click("#start")
        await page.evaluate("window.answer()")
        await page.until("window.requests.some(url => url.endsWith('/hangup'))")
        assert await page.evaluate(STATE) == "idle"
        assert await page.evaluate(NOTICE) == ""


async def test_a_network_that_is_away_for_a_moment_is_awaited_and_for_longer_connected_again(
    server: RunningServer, microphone: Microphone, network: Network, clips: list[Clip]
) -> None:
    recording = microphone(2.0, clips[0], *[4.0, clips[1]] * 12)
    async with watched(server.url, recording) as page:
        await page.click("#start")
        await page.until(finals("person"))
        first = "window.peers[0].connectionState"
        network.silent = True
        await page.until(f"{first} === 'disconnected'")
        network.silent = False
        await page.until(f"{first} === 'connected'")
        assert await page.evaluate("window.expire()") == 0
        assert await page.evaluate(STATE) == "live"

        network.silent = True
        await page.until(f"{first} === 'disconnected'")
        assert await page.evaluate("window.expire()") == 1
        assert await page.evaluate(STATE) == "connecting"
        assert "The connection was lost" in await page.evaluate(NOTICE)
        # The address can be reached, which says nothing of the packets.
        await page.until("window.peers.length === 2 && window.waiting.size === 1")
        await page.evaluate("window.expire()")
        assert "a firewall may be in the way. Trying again" in await page.evaluate(NOTICE)
        before = await said(page)
        network.silent = False
        await page.until(LIVE)
        assert await page.evaluate(NOTICE) == ""
        assert await page.evaluate(STANDING) == 1
        await page.until(
            f"[...document.querySelectorAll('#turns li[data-state=final] p')].slice({len(before)})"
            f".some(words => words.innerText === {clips[1].text!r})"
        )
        turns = await said(page)
        assert turns[0]["text"] == clips[0].text
        assert [turn["text"] for turn in turns[: len(before)]] == [turn["text"] for turn in before]


@contextlib.asynccontextmanager
async def reverse_proxy(url: str, refusals: list[int]) -> AsyncIterator[str]:
    """Stands before a server; calls are refused with these status codes first. Its address."""
    server = urlsplit(url)

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()  # a browser connects ahead of need
            return
        if head.startswith(b"POST /v1/realtime/calls ") and refusals:
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            writer.write(b"HTTP/1.1 %d Sorry\r\nConnection: close\r\n" % refusals.pop(0))
            writer.write(b"Content-Length: 13\r\n\r\n<html></html>")
            await writer.drain()
            writer.close()
            return
        onward = await asyncio.open_connection(server.hostname, server.port)
        # One request a connection, so that each is seen.
        onward[1].write(re.sub(rb"(?i)connection: keep-alive", b"Connection: close", head))
        await asyncio.gather(carry(reader, onward[1]), carry(onward[0], writer))

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    finally:
        proxy.close()


async def test_a_proxy_whose_server_is_away_is_asked_again(
    server: RunningServer, microphone: Microphone
) -> None:
    refusals: list[int] = []
    async with reverse_proxy(server.url, refusals) as url, chromium(microphone(60.0)) as page:
        await page.open(url)
        await page.evaluate("""
            window.told = [];
            new MutationObserver(() => told.push(document.getElementById('notice').innerText))
                .observe(document.getElementById('notice'), {childList: true}); 0
        """)
        refusals += [502, 504, 500]
        await page.click("#start")
        await page.until(LIVE)
        assert refusals == []
        told = [text for text in await page.evaluate("window.told") if text]
        assert told == [
            f"The server cannot answer at the moment ({status}). Trying again…"
            for status in (502, 504, 500)
        ]

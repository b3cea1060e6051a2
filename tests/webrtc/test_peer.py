"""Two real peers on 127.0.0.1: what one says, the other hears."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.webrtc.caller import LABEL, Caller, Network
from tinyvoice.webrtc import (
    MessageTooLargeError,
    OfferError,
    Peer,
    PeerClosedError,
    PeerSettings,
)

SETTINGS = PeerSettings(addresses=("127.0.0.1",), setup_s=5.0)


class Owner:
    """Keeps what a peer tells."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.refused: list[int] = []
        self.audio = bytearray()
        self.playback: list[tuple[str, str]] = []
        self.reasons: list[str] = []
        self.opened = asyncio.Event()
        self.closed = asyncio.Event()
        self.news = asyncio.Event()

    def channel_opened(self) -> None:
        self.opened.set()

    def message_received(self, message: str | bytes) -> None:
        self.messages.append(message)
        self.news.set()

    def message_refused(self, size: int) -> None:
        self.refused.append(size)
        self.news.set()

    def audio_received(self, pcm16: bytes) -> None:
        self.audio += pcm16
        self.news.set()

    def playback_started(self, response_id: str) -> None:
        self.playback.append(("started", response_id))
        self.news.set()

    def playback_finished(self, response_id: str) -> None:
        self.playback.append(("finished", response_id))
        self.news.set()

    def peer_closed(self, reason: str) -> None:
        self.reasons.append(reason)
        self.closed.set()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for news until something is so."""
        async with asyncio.timeout(15):
            while not reached():
                self.news.clear()
                await self.news.wait()

    @property
    def heard(self) -> NDArray[np.int16]:
        return np.frombuffer(bytes(self.audio), dtype="<i2")


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(15):
        await event.wait()


@asynccontextmanager
async def call(
    settings: PeerSettings = SETTINGS, network: Network | None = None, audio: bool = True
) -> AsyncIterator[tuple[Caller, Peer, Owner]]:
    """A call that stands."""
    owner = Owner()
    peer = Peer(owner, LABEL, settings)
    caller = Caller(network, audio=audio)
    try:
        await caller.accept(await peer.answer(await caller.offer()))
        await soon(owner.opened)
        await soon(caller.opened)
        yield caller, peer, owner
    finally:
        await caller.close()
        await peer.close()


def spectrum_peak(sound: NDArray[np.float32], rate: int) -> float:
    """The loudest frequency, Hz."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(np.argmax(spectrum) * rate / len(sound))


def tone(hertz: float, seconds: float, rate: int) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype("f4")


def fallen_silent(sound: NDArray[np.float32]) -> bool:
    """Whether there was a voice (48 kHz), and then 100 ms without it."""
    loud = np.flatnonzero(np.abs(sound) > 0.1)
    return len(loud) > 0 and len(sound) - loud[-1] > 4_800


async def test_a_call_carries_messages_in_order_and_audio_both_ways() -> None:
    async with call() as (caller, peer, owner):
        for n in range(50):
            caller.send({"type": "question", "n": n})
            peer.send(f'{{"type": "answer", "n": {n}}}')
        await owner.until(lambda: len(owner.messages) == 50)
        await caller.wait_for_type("answer", 50)
        assert [event["n"] for event in caller.of_type("answer")] == list(range(50))
        assert owner.messages[49] == '{"type": "question", "n": 49}'

        caller.microphone.say(tone(300, 0.5, 16_000))
        answer = (tone(700, 0.5, 24_000) * 32767).astype("<i2").tobytes()
        peer.playback.play("a", answer)
        peer.playback.end("a")
        await owner.until(lambda: owner.playback == [("started", "a"), ("finished", "a")])
        await owner.until(lambda: len(owner.audio) > 48 * 900)
        await caller.hear(fallen_silent)
    loud = owner.heard[np.abs(owner.heard) > 1_000]
    assert len(loud) > 0.4 * 24_000
    begin = int(np.argmax(np.abs(owner.heard) > 1_000))
    said = owner.heard[begin : begin + 9_600].astype(np.float32)
    assert spectrum_peak(said, 24_000) == pytest.approx(300, abs=5)
    loud_at = np.flatnonzero(np.abs(caller.sound) > 0.1)
    heard = caller.sound[loud_at[0] : loud_at[-1]]
    assert len(heard) == pytest.approx(0.5 * 48_000, abs=0.03 * 48_000)
    assert spectrum_peak(heard, 48_000) == pytest.approx(700, abs=5)
    assert np.abs(heard).max() == pytest.approx(0.5, rel=0.15)
    assert owner.reasons == ["the caller hung up"]


async def test_the_answer_is_complete_and_has_one_microphone_and_one_channel() -> None:
    peer = Peer(Owner(), LABEL, SETTINGS)
    caller = Caller()
    answer = await peer.answer(await caller.offer())
    await caller.close()
    await peer.close()
    lines = answer.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("m=")] == [
        "m=audio",
        "m=application",
    ]
    assert "a=sendrecv" in lines
    candidates = [line for line in lines if line.startswith("a=candidate:")]
    assert candidates
    assert all(" 127.0.0.1 " in line and line.endswith("typ host") for line in candidates)


async def test_copies_of_packets_are_asked_for_where_they_are_offered() -> None:
    caller = Caller()
    offer = await caller.offer()
    [opus] = re.findall(r"a=rtpmap:(\d+) opus/48000/2", offer)
    known = f"a=rtpmap:{opus} opus/48000/2\r\n"
    assert known in offer
    copies = f"a=rtpmap:63 red/48000/2\r\na=fmtp:63 {opus}/{opus}\r\n"
    redundant = re.sub(r"(m=audio [^\r]*)", r"\1 63", offer.replace(known, known + copies))
    owner = Owner()
    peer = Peer(owner, LABEL, SETTINGS)
    try:
        answer = await peer.answer(redundant)
        kinds = next(line for line in answer.split("\r\n") if line.startswith("m=audio")).split()
        assert kinds[3:5] == ["63", opus]
        assert f"a=fmtp:63 {opus}/{opus}" in answer
        await caller.accept(answer)  # by a caller that knows no copies: all else is as usual
        await soon(owner.opened)
        caller.microphone.say(tone(300, 0.5, 16_000))
        await owner.until(lambda: bool(len(owner.heard)) and np.abs(owner.heard).max() > 1_000)
    finally:
        await caller.close()
        await peer.close()


async def test_a_call_without_a_microphone_carries_messages() -> None:
    async with call(audio=False) as (caller, peer, owner):
        caller.send("hello")
        peer.send("hello yourself")
        await owner.until(lambda: owner.messages == ["hello"])
        await caller.wait_for(lambda event: event == "hello yourself")


async def test_a_second_microphone_and_video_are_declined() -> None:
    peer = Peer(Owner(), LABEL, SETTINGS)
    caller = Caller()
    caller.connection.addTransceiver("audio")
    caller.connection.addTransceiver("video")
    answer = await peer.answer(await caller.offer())
    await caller.close()
    await peer.close()
    lines = answer.splitlines()
    assert lines.count("a=inactive") == 2
    assert lines.count("a=sendrecv") == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda sdp: "", "no session description"),
        (lambda sdp: "hello", "no session description"),
        (lambda sdp: sdp.encode().hex(), "no session description"),
        (lambda sdp: "v=0\r\n", "neither audio nor a data channel"),
        (lambda sdp: sdp.replace("a=ice-ufrag", "a=x"), "ICE"),
        (lambda sdp: sdp.replace("opus", "none").replace("PCM", "X").replace("G722", "Y"), "audio"),
        (lambda sdp: sdp.replace("a=setup:actpass", "a=setup:nonsense"), "cannot be answered"),
        (lambda sdp: sdp.replace("m=audio ", "m=audio x"), "cannot be answered"),
        (lambda sdp: sdp + "a=x\r\n" * 30_000, "at most 65536"),
        (lambda sdp: sdp + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n" * 9, "media sections"),
        (lambda sdp: sdp.replace("a=fingerprint", "a=thumb"), "no DTLS fingerprint"),
    ],
)
async def test_an_offer_that_cannot_be_answered_is_refused(
    change: Callable[[str], str], reason: str
) -> None:
    caller = Caller()
    offer = await caller.offer()
    await caller.close()
    owner = Owner()
    peer = Peer(owner, LABEL, SETTINGS)
    with pytest.raises(OfferError, match=reason):
        await peer.answer(change(offer))
    assert owner.reasons == ["the offer was refused"]
    assert peer.closed.is_set()


async def test_hidden_candidates_delay_no_answer_and_a_flood_of_them_is_cut() -> None:
    caller = Caller()
    offer = await caller.offer()
    hidden = "a=candidate:1 1 udp 2113937151 0a1b2c3d.local 50000 typ host\r\n"
    flood = "".join(
        f"a=candidate:{n} 1 udp 2113937151 192.0.2.9 {1000 + n} typ host\r\n" for n in range(500)
    )
    own = [line for line in offer.splitlines() if line.startswith("a=candidate:")]
    offer = offer.replace(own[0] + "\r\n", hidden + flood, 1)
    for line in own:
        offer = offer.replace(line + "\r\n", "")
    peer = Peer(Owner(), LABEL, SETTINGS)
    answer = await peer.answer(offer)
    remote = next(iter(peer._ice_transports())).getRemoteCandidates()
    assert len(remote) == 32
    # The caller told no address of its own: it is learnt from its first packet.
    await caller.accept(answer)
    await soon(caller.opened)
    await caller.close()
    await peer.close()


async def test_messages_up_to_the_limit_of_either_side_pass_and_longer_ones_are_refused() -> None:
    async with call() as (caller, peer, owner):
        longest = "x" * peer.longest_message
        peer.send(longest)
        assert await caller.wait_for(lambda event: event == longest)
        with pytest.raises(MessageTooLargeError) as refused:
            peer.send(longest + "x")
        assert refused.value.limit == peer.longest_message == 262_144
        caller.send("y" * 262_144)
        await owner.until(lambda: owner.messages == ["y" * 262_144])


async def test_a_message_over_the_bound_is_reported_and_the_call_goes_on() -> None:
    settings = PeerSettings(addresses=("127.0.0.1",), message_bytes=20_000)
    async with call(settings) as (caller, _, owner):
        caller.send("z" * 20_001)
        caller.send("short")
        await owner.until(lambda: bool(owner.messages))
        assert (owner.refused, owner.messages) == ([20_001], ["short"])


async def test_a_caller_that_reads_nothing_is_dropped() -> None:
    settings = PeerSettings(addresses=("127.0.0.1",), unread_bytes=1_000_000)
    async with call(settings) as (caller, peer, owner):
        caller.vanish()
        for _ in range(9):
            peer.send("x" * 100_000)
        with pytest.raises(PeerClosedError, match="does not read"):
            peer.send("x" * 200_000)
        await soon(owner.closed)
        assert owner.reasons == ["the caller does not read"]


async def test_clear_stops_the_voice_within_a_frame_and_says_what_was_played() -> None:
    async with call() as (caller, peer, owner):
        peer.playback.play("a", (tone(500, 5.0, 24_000) * 32767).astype("<i2").tobytes())
        await owner.until(lambda: ("started", "a") in owner.playback)
        await caller.hear(lambda sound: np.abs(sound).max(initial=0) > 0.1)
        played = peer.playback.clear("a")
        assert peer.playback.queued_ms == 0
        heard_before = len(caller.sound)
        await caller.hear(lambda sound: len(sound) > heard_before and fallen_silent(sound))
        loud = np.flatnonzero(np.abs(caller.sound) > 0.1)
        voice_ms = (loud[-1] - loud[0]) / 48
        print(f"\nheard {(loud[-1] - heard_before) / 48:.0f} ms of it after clear()")
        # All that was played was heard, and nothing else; the codec smears by some milliseconds.
        assert voice_ms == pytest.approx(played, abs=30)
        assert owner.playback == [("started", "a")]


async def test_packets_flow_while_nothing_is_said() -> None:
    async with call() as (caller, _, owner):
        await caller.hear(lambda sound: len(sound) >= 9_600)
        await owner.until(lambda: len(owner.audio) >= 9_600)
        assert np.abs(caller.sound).max() < 0.001


async def test_a_bad_network_costs_no_time_on_the_audio_clock() -> None:
    async with call(network=Network(loss=0.05, jitter_s=0.06)) as (caller, peer, owner):
        caller.microphone.say(tone(300, 2.0, 16_000))
        await caller.microphone.finished()
        await owner.until(lambda: len(owner.audio) > 48 * 2_200)
        loud = np.flatnonzero(np.abs(owner.heard) > 1_000)
        assert (loud[-1] - loud[0]) / 24 == pytest.approx(2_000, abs=110)
        assert peer.statistics.lost > 0


async def hang_up(caller: Caller) -> None:
    await caller.close()


async def close_channel(caller: Caller) -> None:
    caller.channel.close()


async def vanish(caller: Caller) -> None:
    caller.vanish()


@pytest.mark.parametrize(
    ("leave", "reason"),
    [
        (hang_up, "the caller hung up"),
        (close_channel, "the caller hung up"),
        (vanish, "the caller vanished"),
    ],
)
async def test_a_caller_who_leaves_is_noticed_once(
    leave: Callable[[Caller], Awaitable[None]], reason: str
) -> None:
    settings = PeerSettings(addresses=("127.0.0.1",), vanished_s=1.5)
    async with call(settings) as (caller, peer, owner):
        await leave(caller)
        await soon(owner.closed)
        with pytest.raises(PeerClosedError):
            peer.send("hello?")
    assert owner.reasons == [reason]


async def test_a_caller_who_never_connects_is_given_up() -> None:
    owner = Owner()
    peer = Peer(owner, LABEL, PeerSettings(addresses=("127.0.0.1",), setup_s=0.5))
    caller = Caller()
    await peer.answer(await caller.offer())
    await soon(owner.closed)
    assert owner.reasons == ["the caller did not connect"]
    await caller.close()


async def test_closing_here_tells_the_caller() -> None:
    async with call() as (caller, peer, owner):
        await asyncio.gather(peer.close("enough"), peer.close("more than enough"))
        await soon(caller.hung_up)
        assert owner.reasons == ["enough"]


async def test_a_call_that_is_over_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    async with call() as (_, peer, owner):
        reference = weakref.ref(peer)
        sockets = [
            protocol.transport
            for transport in peer._ice_transports()
            for protocol in transport.iceGatherer._connection._protocols
        ]
        assert sockets
    await soon(owner.closed)
    assert all(each.is_closing() for each in sockets)
    del peer
    async with asyncio.timeout(5):
        while asyncio.all_tasks() - before or reference() is not None:
            gc.collect()
            await asyncio.sleep(0.02)


async def test_whatever_an_offer_says_it_is_answered_or_refused_and_nothing_stays() -> None:
    caller = Caller()
    offer = await caller.offer()
    await caller.close()
    before = asyncio.all_tasks()
    chance = random.Random(7)
    outcomes = set()
    for _ in range(80):
        owner = Owner()
        peer = Peer(owner, LABEL, SETTINGS)
        try:
            await peer.answer(mangled(offer, chance))
            outcomes.add("answered")
        except OfferError:
            outcomes.add("refused")
        await peer.close()
        assert len(owner.reasons) == 1
    assert outcomes == {"answered", "refused"}
    async with asyncio.timeout(5):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.02)


def mangled(offer: str, chance: random.Random) -> str:
    """The offer with a few lines lost, doubled, cut or changed."""
    lines = offer.split("\r\n")
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(lines))
        line = lines[at]
        cut = chance.randrange(len(line) + 1)
        lines[at : at + 1] = chance.choice(
            [[], [line, lines[chance.randrange(len(lines))]], [line[:cut]]]
            + [[line[:cut] + wrong + line[cut + 1 :]] for wrong in ("", "x", "-1", "9" * 30, "\0")]
        )
    return "\r\n".join(lines)

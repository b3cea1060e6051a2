"""The other end of a call, as a browser would be: an aiortc peer that speaks and listens."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame
from numpy.typing import NDArray

from tinyvoice.audio.resample import resample
from tinyvoice.webrtc.outgoing import Pacer

LABEL = "oai-events"
RATE = 48_000
FRAME = RATE // 50


@dataclass
class Network:
    """What happens to the packets of a sender: each is lost, or comes late by a random time."""

    loss: float = 0.0
    jitter_s: float = 0.0
    """Greatest delay; packets overtake each other where it is longer than 20 ms."""
    seed: int = 0

    def __post_init__(self) -> None:
        self.dropped = 0
        self.sent = 0
        self._random = random.Random(self.seed)

    def attach(self, transport: Any) -> None:
        """Let the RTP that goes out over an aiortc DTLS transport through this network."""
        send = transport._send_rtp
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        async def deliver(data: bytes) -> None:
            with contextlib.suppress(ConnectionError):  # the call is over
                await send(data)

        async def impaired(data: bytes) -> None:
            if 64 <= (data[1] & 0x7F) <= 95:  # RTCP
                await send(data)
                return
            self.sent += 1
            if self._random.random() < self.loss:
                self.dropped += 1
                return
            if not self.jitter_s:
                await send(data)
                return

            def later() -> None:
                task = asyncio.ensure_future(deliver(data))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

            loop.call_later(self._random.uniform(0, self.jitter_s), later)

        transport._send_rtp = impaired


class Microphone(MediaStreamTrack):
    """Says what it is given, silence otherwise; 20 ms at a time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._unsaid = np.zeros(0, dtype=np.int16)
        self._pacer = Pacer()
        self._position = 0
        self._said = asyncio.Event()

    def say(self, samples: NDArray[np.float32], rate: int = 16_000) -> None:
        """Speak mono samples in [-1, 1]."""
        sound = np.clip(resample(samples, rate, RATE), -1, 1)
        self._unsaid = np.concatenate([self._unsaid, (sound * 32767).astype(np.int16)])
        self._said.clear()

    async def finished(self) -> None:
        """Return when everything has been said."""
        await self._said.wait()

    async def recv(self) -> AudioFrame:
        await asyncio.sleep(self._pacer.wait(asyncio.get_running_loop().time()))
        if self.readyState != "live":
            raise MediaStreamError
        sound, self._unsaid = self._unsaid[:FRAME], self._unsaid[FRAME:]
        if not len(self._unsaid):
            self._said.set()
        both = np.repeat(np.pad(sound, (0, FRAME - len(sound))), 2).reshape(1, -1)
        frame = AudioFrame.from_ndarray(both, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = RATE, self._position
        frame.time_base = fractions.Fraction(1, RATE)
        self._position += FRAME
        return frame


class Caller:
    """One call: a microphone, a loudspeaker that keeps what it heard, a data channel.

    Events that come are kept, as dictionaries where they are JSON.
    """

    def __init__(self, network: Network | None = None, audio: bool = True, label: str = LABEL):
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.microphone = Microphone()
        self.heard: list[NDArray[np.int16]] = []
        self.events: list[Any] = []
        self.network = network
        self.opened = asyncio.Event()
        self.hung_up = asyncio.Event()
        self._arrived = asyncio.Event()
        self._frame_came = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self.channel: RTCDataChannel = self.connection.createDataChannel(label)
        self.channel.on("open", self.opened.set)
        self.channel.on("message", self._message)
        self.channel.on("close", self.hung_up.set)
        self.connection.on("track", self._track)
        self.connection.on("connectionstatechange", self._state_changed)
        if audio:
            self.connection.addTrack(self.microphone)

    async def offer(self) -> str:
        """The SDP to send."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        if self.network is not None:
            self.network.attach(self.connection.getTransceivers()[0].receiver.transport)
        return str(self.connection.localDescription.sdp)

    async def accept(self, answer: str) -> None:
        """Connect to who sent this answer."""
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))

    def send(self, event: Any) -> None:
        """Send an event or a text."""
        self.channel.send(event if isinstance(event, str | bytes) else json.dumps(event))

    async def wait_for(self, matches: Callable[[Any], bool], timeout: float = 90.0) -> Any:
        """The first event, also of those that have come, that matches."""
        async with asyncio.timeout(timeout):
            while True:
                for event in self.events:
                    if matches(event):
                        return event
                self._arrived.clear()
                await self._arrived.wait()

    async def wait_for_type(self, kind: str, count: int = 1, timeout: float = 90.0) -> Any:
        """The ``count``-th event of a type."""

        def enough(_: Any) -> bool:
            return len(self.of_type(kind)) >= count

        await self.wait_for(enough, timeout)
        return self.of_type(kind)[count - 1]

    def of_type(self, kind: str) -> list[Any]:
        """Events of a type, in order."""
        return [each for each in self.events if isinstance(each, dict) and each["type"] == kind]

    @property
    def sound(self) -> NDArray[np.float32]:
        """All that was heard, ``(n,)`` at 48 kHz."""
        if not self.heard:
            return np.zeros(0, dtype=np.float32)
        return np.concatenate(self.heard).astype(np.float32) / np.float32(32768)

    async def hear(
        self, enough: Callable[[NDArray[np.float32]], bool], timeout: float = 90
    ) -> None:
        """Listen until what was heard is enough."""
        async with asyncio.timeout(timeout):
            while not enough(self.sound):
                self._frame_came.clear()
                await self._frame_came.wait()

    async def close(self) -> None:
        """Hang up."""
        await self.connection.close()
        if self._listening is not None:
            self._listening.cancel()

    def vanish(self) -> None:
        """Stop existing without a word, as a phone without reception does."""
        for transceiver in self.connection.getTransceivers():
            ice: Any = transceiver.receiver.transport.transport._connection
            for protocol in ice._protocols:
                protocol.datagram_received = lambda *_: None
                protocol.transport.sendto = lambda *_: None

    def _message(self, message: str | bytes) -> None:
        try:
            self.events.append(json.loads(message))
        except ValueError:
            self.events.append(message)
        self._arrived.set()

    def _track(self, track: MediaStreamTrack) -> None:
        self._listening = asyncio.ensure_future(self._listen(track))

    async def _listen(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            assert isinstance(frame, AudioFrame)
            samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
            self.heard.append(samples[:, 0].astype(np.int16))
            self._frame_came.set()

    def _state_changed(self) -> None:
        if self.connection.connectionState in ("closed", "failed"):
            self.hung_up.set()

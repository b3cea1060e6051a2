"""Agents over a network: a WebSocket client of Pipecat's frames, a WebRTC peer, and strangers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from fractions import Fraction

import httpx2 as httpx
import numpy as np
import pytest
import uvicorn
import websockets
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamTrack
from av import AudioFrame
from numpy.typing import NDArray
from pipecat.frames.frames import (
    InputAudioRawFrame,
    InputTransportMessageFrame,
    OutputAudioRawFrame,
)
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.base_transport import BaseTransport

from agents.doors import Door
from agents.settings import AgentSettings
from tests.agents.running import running
from tinyvoice.audio.resample import resample
from tinyvoice.model.modeling import ASRModel
from tinyvoice.voices.espeak_process import EspeakProcess

SAID = "tell me a joke"
PATIENCE_S = 60.0


@asynccontextmanager
async def listening(door: Door) -> AsyncIterator[str]:
    """The door on a port of this machine; its address."""
    config = uvicorn.Config(door.app(), port=0, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    async with asyncio.timeout(20):
        await task


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the parrot listens, a process of its own; both doors are open."""
    with running("parrot", "--transport", "websocket", "--port", "0") as run:
        yield run.address


@pytest.fixture
def question(mouth: EspeakProcess) -> NDArray[np.float32]:
    spoken = mouth.speak(SAID, "en-us")
    samples = np.frombuffer(spoken.pcm16, dtype="<i2").astype(np.float32)
    return resample(samples / np.float32(32768), spoken.sample_rate, 16_000)


async def understood(
    model: ASRModel,
    sound: list[NDArray[np.float32]],
    rate: int,
    more: Callable[[], Awaitable[None]],
) -> str:
    """What is heard, once it holds what was said; ``more`` waits for more sound."""
    heard = ""
    async with asyncio.timeout(PATIENCE_S):
        while SAID not in heard:
            await more()
            samples = resample(np.concatenate(sound).astype(np.float32), rate, 16_000)
            [transcript] = model.transcribe([np.pad(samples, 8_000)], sample_rate=16_000)
            heard = transcript.text
    return heard


class Caller:
    """A client of Pipecat's frames over a WebSocket."""

    def __init__(self, websocket: websockets.ClientConnection) -> None:
        self._websocket = websocket
        self._serializer = ProtobufFrameSerializer()
        self.sound: list[NDArray[np.float32]] = []
        """What the agent has said since it was last interrupted."""
        self.rates: set[int] = set()

    async def say(self, samples: NDArray[np.float32]) -> None:
        pcm = np.round(samples * 32767).astype(np.int16)
        for start in range(0, len(pcm), 320):
            # The wire's audio frame is the output's: the serializer of a client turns it round.
            frame = OutputAudioRawFrame(pcm[start : start + 320].tobytes(), 16_000, 1)
            await self._websocket.send(await self._serializer.serialize(frame) or b"")

    async def more(self) -> None:
        """Wait for a tenth of a second of the agent's voice."""
        length = sum(map(len, self.sound))
        while sum(map(len, self.sound)) < length + 2_400:
            if await self._receive() == "bot-interrupted":
                # The voice stopped in the middle of a sound. With what follows, that is another
                # word: "h" and "tell me" are "hotel me".
                self.sound.clear()
                length = 0

    async def hear_out(self) -> None:
        """Wait until the agent has finished what it says."""
        async with asyncio.timeout(PATIENCE_S):
            while await self._receive() != "bot-stopped-speaking":
                pass
        self.sound.clear()

    async def _receive(self) -> str:
        """Take a frame; what kind of message it was, nothing for sound."""
        frame = await self._serializer.deserialize(await self._websocket.recv())
        if isinstance(frame, InputAudioRawFrame):
            self.rates.add(frame.sample_rate)
            pcm16 = np.frombuffer(frame.audio, dtype="<i2")
            self.sound.append(pcm16.astype(np.float32) / np.float32(32768))
        if isinstance(frame, InputTransportMessageFrame):
            return str(frame.message.get("type"))
        return ""


async def test_a_client_of_pipecats_frames_is_answered(
    address: str, model: ASRModel, question: NDArray[np.float32]
) -> None:
    async with websockets.connect(f"ws://{address}/ws") as websocket:
        caller = Caller(websocket)
        await caller.hear_out()
        await caller.say(np.pad(question, (4_000, 24_000)))
        assert await understood(model, caller.sound, 24_000, caller.more)
    assert caller.rates == {24_000}


async def test_who_vanishes_in_the_middle_of_a_sentence_leaves_the_agent_to_the_next(
    address: str, model: ASRModel, question: NDArray[np.float32]
) -> None:
    for _ in range(2):
        websocket = await websockets.connect(f"ws://{address}/ws")
        caller = Caller(websocket)
        await caller.more()  # in the middle of the greeting, too
        await caller.say(np.pad(question[: len(question) // 2], (4_000, 0)))
        websocket.transport.abort()  # no close frame, as when a cable is pulled
    async with websockets.connect(f"ws://{address}/ws") as websocket:
        caller = Caller(websocket)
        await caller.hear_out()
        await caller.say(np.pad(question, (4_000, 24_000)))
        assert await understood(model, caller.sound, 24_000, caller.more)


class _Speech(AudioStreamTrack):
    """Silence, a recording once it is to begin, then silence, in real time."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        super().__init__()
        self._pcm = np.round(samples * 32767).astype(np.int16)
        self._at = 0
        self.begun = False

    @property
    def over(self) -> bool:
        """Whether only silence is left."""
        return self._at >= len(self._pcm)

    async def recv(self) -> AudioFrame:
        paced = await super().recv()  # silence of 20 ms at 8 kHz, when it is time
        piece = np.zeros(320, dtype=np.int16)
        if self.begun:
            rest = self._pcm[self._at : self._at + 320]
            piece[: len(rest)] = rest
            self._at += 320
        frame = AudioFrame.from_ndarray(piece[None], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = 16_000, Fraction(1, 16_000)
        frame.pts = (paced.pts or 0) * 2
        return frame


async def test_a_webrtc_peer_is_answered(
    address: str, model: ASRModel, question: NDArray[np.float32]
) -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    sound: list[NDArray[np.float32]] = []
    tracks: asyncio.Queue[MediaStreamTrack] = asyncio.Queue()
    peer.on("track", tracks.put_nowait)
    peer.createDataChannel("chat")
    speech = _Speech(question)
    peer.addTrack(speech)
    try:
        await peer.setLocalDescription(await peer.createOffer())
        offer = {"sdp": peer.localDescription.sdp, "type": peer.localDescription.type}
        async with httpx.AsyncClient() as client:
            response = await client.post(f"http://{address}/api/offer", json=offer)
        answer = response.json()
        await peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        track = await asyncio.wait_for(tracks.get(), 20)

        silent: int | None = None
        """Frames of 20 ms without a voice, once there has been one."""

        async def more() -> None:
            nonlocal silent
            length = len(sound)
            while len(sound) < length + 10:
                frame = await track.recv()
                assert isinstance(frame, AudioFrame)
                mono = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
                if np.abs(mono).max() > 100:
                    silent = 0
                elif silent is not None:
                    silent += 1
                if silent == 75:
                    # The greeting is over. A voice that is cut short makes another word with what
                    # follows: "h" and "tell me" are "hotel me".
                    speech.begun = True
                if speech.begun and silent == 0:
                    sound.append(mono.astype(np.float32) / np.float32(32768))

        assert await understood(model, sound, 48_000, more)
    finally:
        await peer.close()


async def test_pages_of_other_sites_are_turned_away(address: str) -> None:
    async with httpx.AsyncClient(headers={"Origin": "https://elsewhere.example"}) as client:
        response = await client.post(f"http://{address}/api/offer", json={})
    assert response.status_code == 403
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(f"ws://{address}/ws", origin="https://elsewhere.example")  # type: ignore[arg-type]


async def test_nonsense_is_refused_and_the_page_is_there(address: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://{address}") as client:
        for body in (b"{", b"[]", b"{}", b'{"sdp": "v=0", "type": "offer", "x": 1}'):
            assert (await client.post("/api/offer", content=body)).status_code == 400
        assert (await client.patch("/api/offer", json={"pc_id": "x"})).status_code == 400
        page = await client.get("/", headers={"Origin": f"http://{address}"})
    assert "api/offer" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text


async def test_who_finds_no_place_is_told(settings: AgentSettings) -> None:
    async def run(_transport: BaseTransport, _settings: AgentSettings) -> None:
        raise AssertionError("nobody was to be let in")

    async with listening(Door(run, settings, most=0)) as address:
        async with httpx.AsyncClient() as client:
            response = await client.post(f"http://{address}/api/offer", json={})
        assert response.status_code == 503
        async with websockets.connect(f"ws://{address}/ws") as websocket:
            with pytest.raises(websockets.ConnectionClosed) as refusal:
                await websocket.recv()
        assert refusal.value.rcvd is not None
        assert refusal.value.rcvd.code == 1013

"""`openai` Python makes a WebRTC call, with aiortc as the peer that a browser would be."""

import argparse
import array
import asyncio
import fractions
import json
from typing import Any

from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from av import AudioFrame
from av.audio.resampler import AudioResampler
from feeding import read_pcm, run, silence
from openai import AsyncOpenAI

RATE = 24_000
SAMPLES = RATE // 50


class Microphone(MediaStreamTrack):
    """Speech, then silence for ever, 20 ms at a time in real time."""

    kind = "audio"

    def __init__(self, pcm: bytes) -> None:
        super().__init__()
        self.pcm = pcm
        self.sent = 0
        self.begin: float | None = None

    async def recv(self) -> AudioFrame:
        loop = asyncio.get_running_loop()
        self.begin = loop.time() if self.begin is None else self.begin
        await asyncio.sleep(max(0.0, self.begin + self.sent / RATE - loop.time()))
        piece = self.pcm[2 * self.sent : 2 * (self.sent + SAMPLES)]
        frame = AudioFrame(format="s16", layout="mono", samples=SAMPLES)
        frame.planes[0].update(piece.ljust(2 * SAMPLES, b"\0"))
        frame.sample_rate = RATE
        frame.pts = self.sent
        frame.time_base = fractions.Fraction(1, RATE)
        self.sent += SAMPLES
        return frame


class Call:
    """A peer connection with the protocol's data channel."""

    def __init__(self, pcm: bytes) -> None:
        self.peer = RTCPeerConnection()
        self.events: list[dict[str, Any]] = []
        self.news = asyncio.Condition()
        self.loudest = 0
        self.listening: asyncio.Task[None] | None = None
        self.closed = asyncio.Event()
        self.peer.addTrack(Microphone(pcm))
        self.channel = self.peer.createDataChannel("oai-events")
        self.channel.on("message", self.message)
        self.channel.on("close", self.closed.set)
        self.peer.on("track", self.track)

    async def message(self, text: str) -> None:
        async with self.news:
            self.events.append(json.loads(text))
            self.news.notify_all()

    def track(self, track: MediaStreamTrack) -> None:
        self.listening = asyncio.create_task(self.listen(track))

    async def listen(self, track: MediaStreamTrack) -> None:
        resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
        while True:
            for frame in resampler.resample(await track.recv()):
                samples = array.array("h", bytes(frame.planes[0])[: 2 * frame.samples])
                self.loudest = max(self.loudest, *map(abs, samples))

    def send(self, event: dict[str, Any]) -> None:
        self.channel.send(json.dumps(event))

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        """The event of this type, as soon as there are so many."""

        def found() -> list[dict[str, Any]]:
            return [event for event in self.events if event["type"] == kind]

        async with self.news:
            await self.news.wait_for(lambda: len(found()) >= count)
        return found()[count - 1]


async def spoken_turn(options: argparse.Namespace) -> dict[str, Any]:
    """A call with speech both ways, a look at it from the side, and its end."""
    api = AsyncOpenAI(base_url=f"{options.http}/v1", api_key="none", max_retries=0)
    call = Call(silence(0.5) + read_pcm(options.speech[0]))
    await call.peer.setLocalDescription(await call.peer.createOffer())
    answer = await api.realtime.calls.create(
        sdp=call.peer.localDescription.sdp,
        session={
            "type": "realtime",
            "audio": {
                "input": {
                    "transcription": {"model": "whisper-1"},
                    "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
                }
            },
        },
    )
    location = answer.response.headers["location"]
    call_id = location.rsplit("/", 1)[-1]
    await call.peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
    await call.until("session.created")
    completed = await call.until("conversation.item.input_audio_transcription.completed")
    await call.until("output_audio_buffer.started")
    done = await call.until("response.done")
    await call.until("output_audio_buffer.stopped")

    # A second connection to the same call, as a server of the application's would have it.
    beside = AsyncOpenAI(base_url=f"{options.relay}/v1", api_key="none", max_retries=0)
    async with beside.realtime.connect(call_id=call_id) as connection:
        first = await anext(aiter(connection))
        content = [{"type": "input_text", "text": "from the side"}]
        item = {"type": "message", "role": "user", "content": content}
        await connection.conversation.item.create(item=item)
        async for event in connection:
            if event.type == "conversation.item.done":
                break

    await api.realtime.calls.hangup(call_id)
    await asyncio.wait_for(call.closed.wait(), 10)
    if call.listening is not None:
        call.listening.cancel()
    await call.peer.close()
    item = done["response"]["output"][0]
    return {
        "status": answer.response.status_code,
        "content_type": answer.response.headers["content-type"],
        "call_id": call_id,
        "transcript": completed["transcript"],
        "answer": item["content"][0]["transcript"],
        "loudest": call.loudest,
        "first_beside": first.type,
        "events": call.events,
    }


if __name__ == "__main__":
    run({"spoken_turn": spoken_turn})

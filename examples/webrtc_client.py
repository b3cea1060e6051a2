"""A call to `tinyvoice serve` over WebRTC, with aiortc: one recording asks, another is the answer.

tinyvoice serve &
python examples/webrtc_client.py question.wav answer.wav
"""

from __future__ import annotations

import asyncio
import json
from argparse import ArgumentParser, RawDescriptionHelpFormatter

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer, MediaRecorder
from openai import APIConnectionError, AsyncOpenAI


async def main(question: str, answer: str, server: str) -> None:
    """Ask, print what was understood and answered, and keep the answer's sound."""
    client = AsyncOpenAI(base_url=f"{server}/v1", api_key="any")
    # No STUN server: aiortc's own is on the internet.
    call = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    recorder = MediaRecorder(answer)
    call.on("track", recorder.addTrack)
    track = MediaPlayer(question).audio
    assert track is not None, "the recording has no sound"
    call.addTrack(track)
    events = call.createDataChannel("oai-events")  # before the offer
    answered = asyncio.Event()

    @events.on("message")
    def heard(message: str) -> None:
        event = json.loads(message)
        if event["type"] == "conversation.item.input_audio_transcription.completed":
            print("you:", event["transcript"])
        elif event["type"] == "response.output_audio_transcript.done":
            print("agent:", event["transcript"])
        elif event["type"] == "output_audio_buffer.stopped":
            answered.set()

    await call.setLocalDescription(await call.createOffer())
    response = await client.realtime.calls.create(
        sdp=call.localDescription.sdp,
        session={
            "type": "realtime",
            "audio": {"input": {"transcription": {"model": "tinyvoice"}}},
        },
    )
    await call.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
    await recorder.start()
    await answered.wait()
    await recorder.stop()
    await call.close()


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("question", help="a sound file")
    parser.add_argument("answer", help="file for the answer, .wav")
    parser.add_argument("server", nargs="?", default="http://127.0.0.1:8000")
    options = parser.parse_args()
    try:
        asyncio.run(main(options.question, options.answer, options.server))
    except APIConnectionError:
        raise SystemExit(f"Nothing answers at {options.server}: start tinyvoice serve.") from None

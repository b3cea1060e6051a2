"""Lets an agent on a call over WebRTC hear what has come, and not 60 ms later.

aiortc's jitter buffer serves a loudspeaker: it holds back four packets always, and sixteen after
one was lost. A recogniser plays nothing. What is held back is added to every turn and, above all,
to the time for which an interrupted voice goes on.
"""

from __future__ import annotations

from aiortc.jitterbuffer import JitterBuffer
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

ATTRIBUTE = "_RTCRtpReceiver__jitter_buffer"

CAPACITY = 8
"""Packets that are waited for when one is missing, 20 ms each; a power of two."""


def hear_at_once(connection: SmallWebRTCConnection) -> None:
    """Take each packet of the microphone as soon as the next has come."""
    for transceiver in connection.pc.getTransceivers():
        if transceiver.kind != "audio":
            continue
        if not hasattr(transceiver.receiver, ATTRIBUTE):
            raise RuntimeError("this release of aiortc has no jitter buffer where one is expected")
        setattr(transceiver.receiver, ATTRIBUTE, JitterBuffer(capacity=CAPACITY, prefetch=1))

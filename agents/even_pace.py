"""Keeps the voice of an agent close behind itself on a call over WebRTC.

Pipecat's audio track counts its frames from the moment it was made. Whatever keeps it from sending
for a while, the start of a conversation above all, is made up by a burst of frames, and a browser
keeps such a burst as the length of its jitter buffer: for the rest of the call everything is heard
that much later, and an interrupted voice goes on for as long. Here the count begins anew instead.
"""

from __future__ import annotations

import time

from aiortc.mediastreams import MediaStreamTrack
from av import AudioFrame
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import RawAudioTrack

CATCH_UP_S = 0.1
"""Frames that are late by less are sent at once; beyond it, those after them are late as well."""


class EvenlyPaced(MediaStreamTrack):
    """Pipecat's track without its bursts."""

    kind = "audio"

    def __init__(self, track: RawAudioTrack) -> None:
        super().__init__()
        self._track = track

    async def recv(self) -> AudioFrame:
        """The next 10 ms, when they are due."""
        track = self._track
        due = track._start + track._timestamp / track._sample_rate
        late = time.time() - due
        if late > CATCH_UP_S:
            track._start += late
        frame: AudioFrame = await track.recv()
        return frame

    def stop(self) -> None:
        """Stop both tracks."""
        super().stop()
        self._track.stop()


def pace_evenly(connection: SmallWebRTCConnection) -> None:
    """Have whatever track the transport gives this connection paced evenly."""
    replace = connection.replace_audio_track

    def replace_evenly(track: MediaStreamTrack) -> None:
        replace(EvenlyPaced(track) if isinstance(track, RawAudioTrack) else track)

    connection.replace_audio_track = replace_evenly  # type: ignore[method-assign]

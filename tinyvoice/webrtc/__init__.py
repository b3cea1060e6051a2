"""Audio and data of a WebRTC call: one peer, its microphone, its voice and a data channel.

Nothing here knows the Realtime protocol.
"""

from tinyvoice.webrtc.errors import (
    MessageTooLargeError,
    OfferError,
    PeerClosedError,
    PlaybackFullError,
    WebRTCError,
)
from tinyvoice.webrtc.peer import Peer, PeerHandler, PeerSettings

__all__ = [
    "MessageTooLargeError",
    "OfferError",
    "Peer",
    "PeerClosedError",
    "PeerHandler",
    "PeerSettings",
    "PlaybackFullError",
    "WebRTCError",
]

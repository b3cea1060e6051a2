"""What can go wrong with a call's media and data channel."""

from __future__ import annotations

from tinyvoice.errors import TinyvoiceError


class WebRTCError(TinyvoiceError):
    """Base of the errors of a call."""


class OfferError(WebRTCError):
    """A session description that cannot be answered."""


class PeerClosedError(WebRTCError):
    """Something was asked of a call that is over."""


class MessageTooLargeError(WebRTCError):
    """A message that the other side does not take; ``limit`` is its bound in bytes."""

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class PlaybackFullError(WebRTCError):
    """More audio waits to be played than the settings allow; what came now is dropped."""

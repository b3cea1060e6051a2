"""What can go wrong with a voice."""

from __future__ import annotations

from tinyvoice.errors import TinyvoiceError


class VoiceError(TinyvoiceError):
    """A text could not be spoken; the message is fit for the user."""

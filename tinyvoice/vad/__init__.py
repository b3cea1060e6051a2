"""Hearing whether somebody speaks, where utterances begin and end, and whether they are finished.

Nothing is transcribed here.
"""

from tinyvoice.vad.silero import WINDOW_SAMPLES, SileroVAD, VADState

__all__ = ["WINDOW_SAMPLES", "SileroVAD", "VADState"]

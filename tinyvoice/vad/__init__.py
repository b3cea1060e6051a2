"""Hearing whether somebody speaks, and whether they have finished.

Networks only: they give probabilities and know nothing of utterances.
"""

from tinyvoice.vad.silero import WINDOW_SAMPLES, SileroVAD, VADState

__all__ = ["WINDOW_SAMPLES", "SileroVAD", "VADState"]

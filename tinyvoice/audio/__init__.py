"""Sound as numbers: reading files, resampling.

Everything behind this package sees float32 mono samples at 16 kHz; what they were before is settled
here. It knows nothing of models.
"""

from tinyvoice.audio.files import SAMPLE_RATE, Audio, AudioLimits, load_audio
from tinyvoice.audio.resample import Resampler, resample

__all__ = ["SAMPLE_RATE", "Audio", "AudioLimits", "Resampler", "load_audio", "resample"]

"""Makes the recording that `tinyvoice demo` plays: run it to make the same files again.

Three sentences of one synthetic voice with pauses between them, as 16 kHz FLAC, and a manifest of
their texts, places and word times.

    python -m training.demo_recording
"""

from __future__ import annotations

import json

import numpy as np
import soundfile

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.cli.demo import MANIFEST, RECORDING
from training.synthesis.speech import Synthesiser

VOICE = "flite/slt"
SENTENCES = (
    "please set an alarm for seven tomorrow morning",
    "turn off the lights in the kitchen",
    "what is the weather like in london today",
)
LEAD_IN_S, PAUSE_S = 0.4, 0.8
PEAK = 0.5
"""Loudest sample."""


def main() -> None:
    """Write the recording and its manifest into the package."""
    synthesiser = Synthesiser(VOICE)
    pieces = [np.zeros(round(LEAD_IN_S * SAMPLE_RATE), dtype=np.float32)]
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), dtype=np.float32)
    lines = []
    for text in SENTENCES:
        spoken = synthesiser.speak(text)
        entry = {
            "audio_filepath": RECORDING.name,
            "offset": round(sum(map(len, pieces)) / SAMPLE_RATE, 4),
            "duration": round(spoken.duration, 4),
            "text": text,
            "voice": VOICE,
            "words": [[w, round(start, 3), round(end, 3)] for w, start, end in spoken.words],
        }
        lines.append(json.dumps(entry) + "\n")
        loudest = float(np.abs(spoken.samples).max())
        pieces += [spoken.samples * np.float32(PEAK / loudest), pause]
    samples = np.concatenate(pieces)
    soundfile.write(RECORDING, samples, SAMPLE_RATE, subtype="PCM_16", compression_level=1.0)
    MANIFEST.write_text("".join(lines), encoding="utf-8")
    print(f"{len(samples) / SAMPLE_RATE:.1f} s, {RECORDING.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

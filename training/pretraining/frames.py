"""Frame-level labels of a synthetic corpus, held compactly.

A corpus of 70,000 utterances has three million phonemes; as Python objects they would fill
gigabytes in every loader process. Here each kind of label is one flat array with the utterances'
bounds beside it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyvoice.errors import ManifestError
from training.data.augmentation import Clip
from training.data.manifest import Utterance, read_samples
from training.synthesis.phonemes import PHONEME_IDS, PHONEMES


class FrameCorpus:
    """Utterances of one or more manifests that carry ``words`` and ``phonemes``.

    ``texts``, ``voices``: a string an utterance. ``durations``: (utterances,) seconds.
    Raises ManifestError for a line without phonemes: this pretraining cannot do without.
    """

    def __init__(self, manifests: list[Path], limit: int | None = None) -> None:
        self.texts: list[str] = []
        self.voices: list[str] = []
        self._files: list[tuple[Path, float]] = []
        self._words: list[list[tuple[str, float, float]]] = []
        durations: list[float] = []
        ids: list[int] = []
        starts: list[float] = []
        bounds = [0]
        for manifest in manifests:
            with manifest.open() as lines:
                for number, line in enumerate(lines, 1):
                    record = json.loads(line)
                    if not record.get("phonemes"):
                        raise ManifestError(
                            f"{manifest}:{number} has no phonemes: make the corpus "
                            "with `tinyvoice synth`.",
                            path=str(manifest),
                            line=number,
                        )
                    self.texts.append(record["text"])
                    self.voices.append(record.get("voice", ""))
                    self._files.append(
                        (manifest.parent / record["audio_filepath"], record.get("offset", 0.0))
                    )
                    self._words.append([(word, start, end) for word, start, end in record["words"]])
                    durations.append(record["duration"])
                    ids += [PHONEME_IDS[name] for name, _ in record["phonemes"]]
                    starts += [start for _, start in record["phonemes"]]
                    bounds.append(len(ids))
                    if limit and len(durations) >= limit:
                        break
        self.durations: NDArray[np.float32] = np.array(durations, dtype=np.float32)
        self._ids = np.array(ids, dtype=np.uint8)
        self._starts = np.array(starts, dtype=np.float32)
        self._bounds = np.array(bounds, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.texts)

    def clip(self, index: int) -> Clip:
        """Audio, text and word times of one utterance."""
        path, offset = self._files[index]
        utterance = Utterance(path, float(self.durations[index]), self.texts[index], offset)
        words = tuple(self._words[index])
        return Clip(read_samples(utterance), self.texts[index], words, self.voices[index])

    def phonemes(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Class ids and start times in seconds of one utterance's phonemes."""
        part = slice(self._bounds[index], self._bounds[index + 1])
        return self._ids[part], self._starts[part]


def frame_phonemes(
    ids: NDArray[np.uint8], starts: NDArray[np.float32], n_frames: int, frame_seconds: float
) -> NDArray[np.int64]:
    """The class of each frame, taken at the frame's centre: (n_frames,). Silence before the
    first."""
    centres = (np.arange(n_frames) + 0.5) * frame_seconds
    index = np.searchsorted(starts, centres, side="right") - 1
    labels = np.where(index >= 0, ids[np.maximum(index, 0)], 0)
    return labels.astype(np.int64)


N_PHONEMES = len(PHONEMES)

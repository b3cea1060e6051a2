"""What the embedded checkpoint is trained on: texts to be spoken, and recordings of people.

The repository's own grammar is always there. Files of a data folder are used where they lie, and
each is named in the model card: ``clinc150-train.txt`` (things asked of a voice assistant),
``ljspeech-sentences.txt`` (sentences of books, cut into spans), ``fsdd.tar.gz`` (recorded digits;
two of its six speakers are kept out), and the word list of the Debian package ``wamerican``, spoken
five random words at a time so that the language model learns to spell what the sentences lack.
"""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.audio.resample import resample
from training.synthesis.corpus import MANIFEST, CorpusSettings, make_corpus, plan
from training.synthesis.grammar import sentences
from training.synthesis.voices import TRAINING_VOICES
from training.text import normalise

DIGITS = "zero one two three four five six seven eight nine".split()

FSDD_HELD_OUT = ("theo", "yweweler")
"""Speakers of the digit recordings that are never trained on."""

RECORDED_DIGITS, DIGIT_STRINGS = "fsdd", "fsdd-strings"
"""Corpora of recorded digits: one by one, and strung together."""

WORD_LIST = Path("/usr/share/dict/american-english")
"""Where the Debian package wamerican puts its words."""


def read_lines(path: Path) -> list[str]:
    """Lines of a text file that hold something."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def spans(
    texts: Iterable[str], draw: random.Random, shortest: int = 4, longest: int = 14
) -> list[str]:
    """One run of consecutive words of each text: long sentences would crowd out short commands."""
    found = []
    for text in texts:
        words = normalise(text).split()
        count = draw.randint(shortest, longest)
        start = draw.randrange(len(words) - count + 1) if len(words) > count + 3 else 0
        found.append(
            " ".join(words[start : start + count] if start or len(words) > count + 3 else words)
        )
    return found


def word_lists(words: Iterable[str], draw: random.Random, most: int, size: int = 5) -> list[str]:
    """Random words in groups of ``size``, each word once, ``most`` groups at most."""
    pool = sorted(set(words))
    draw.shuffle(pool)
    groups = [" ".join(pool[start : start + size]) for start in range(0, len(pool), size)]
    return groups[:most]


def digit_strings(draw: random.Random, singles: int = 120, strings: int = 800) -> list[str]:
    """Each digit alone ``singles`` times, and random strings of two to five."""
    alone = [digit for digit in DIGITS for _ in range(singles)]
    return alone + [
        " ".join(draw.choice(DIGITS) for _ in range(draw.randint(2, 5))) for _ in range(strings)
    ]


def make_corpora(
    folder: Path, data: Path | None, *, workers: int, scale: float = 1.0
) -> list[Path]:
    """Make every corpus there is material for; return the manifests. ``scale`` shrinks all of
    them."""
    draw = random.Random(5)
    corpora: dict[str, tuple[list[str], int]] = {
        "grammar": (list(sentences(round(8000 * scale), seed=3)), 1),
        "digits": (digit_strings(draw, round(120 * scale), round(800 * scale)), 1),
    }
    vocabulary: set[str] = set()
    if data is not None and (data / "clinc150-train.txt").exists():
        asked = read_lines(data / "clinc150-train.txt")
        vocabulary.update(word for text in asked for word in normalise(text).split())
        corpora["clinc"] = (asked[: round(len(asked) * scale)], 4)
    if data is not None and (data / "ljspeech-sentences.txt").exists():
        read = read_lines(data / "ljspeech-sentences.txt")
        vocabulary.update(word for text in read for word in normalise(text).split())
        corpora["books"] = (spans(read, draw)[: round(len(read) * scale)], 1)
    if WORD_LIST.exists():
        listed = {word for line in read_lines(WORD_LIST) for word in normalise(line).split()}
        vocabulary.update(word for word in listed if word.isascii() and 2 < len(word) < 14)
    if vocabulary:
        corpora["words"] = (word_lists(vocabulary, draw, round(18000 * scale)), 1)
    manifests = []
    for seed, (name, (texts, renditions)) in enumerate(corpora.items(), 1):
        settings = CorpusSettings(renditions=renditions, seed=seed)
        lines = plan(texts, TRAINING_VOICES, settings)
        manifests.append(make_corpus(lines, folder / name, settings=settings, workers=workers))
    if data is not None and (data / "fsdd.tar.gz").exists():
        recordings = unpack_digits(data / "fsdd.tar.gz", folder / RECORDED_DIGITS)
        manifests.append(recordings)
        manifests.append(string_digits(recordings, folder / DIGIT_STRINGS, draw))
    return manifests


def unpack_digits(archive: Path, folder: Path) -> Path:
    """Free Spoken Digit Dataset → a shard and its manifest, without the speakers kept out.

    Members are named ``{digit}_{speaker}_{take}.wav``; 8 kHz is resampled to 16 kHz. These lines
    have no word times: nobody measured them.
    """
    manifest = folder / MANIFEST
    if manifest.exists():
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    labels, pieces, offset = [], [], 0
    with tarfile.open(archive) as members:
        for member in sorted(members.getmembers(), key=lambda m: m.name):
            parts = Path(member.name).stem.split("_")
            file = members.extractfile(member) if member.name.endswith(".wav") else None
            if file is None or len(parts) != 3 or parts[1] in FSDD_HELD_OUT:
                continue
            samples, rate = soundfile.read(io.BytesIO(file.read()), dtype="float32")
            samples = resample(samples, rate, SAMPLE_RATE)
            label = {
                "audio_filepath": "recordings.wav",
                "offset": offset / SAMPLE_RATE,
                "duration": len(samples) / SAMPLE_RATE,
                "text": DIGITS[int(parts[0])],
                "voice": f"fsdd/{parts[1]}",
            }
            labels.append(json.dumps(label) + "\n")
            pieces.append(samples)
            offset += len(samples)
    soundfile.write(
        folder / "recordings.wav", np.concatenate(pieces), SAMPLE_RATE, subtype="PCM_16"
    )
    manifest.write_text("".join(labels))
    return manifest


def string_digits(recordings: Path, folder: Path, draw: random.Random, strings: int = 4000) -> Path:
    """Strings of two to five digits of one speaker each, 0.05 to 0.4 s apart.

    ``recordings`` is the manifest of `unpack_digits`. A digit alone is over before a model has
    anything to go by; in a string the same few human voices are heard for seconds.
    """
    manifest = folder / MANIFEST
    if manifest.exists():
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    audio, _ = soundfile.read(recordings.parent / "recordings.wav", dtype="float32")
    speakers: dict[str, list[dict[str, Any]]] = {}
    for line in recordings.open(encoding="utf-8"):
        record = json.loads(line)
        speakers.setdefault(record["voice"], []).append(record)
    labels, pieces, offset = [], [], 0
    for _ in range(strings):
        voice = draw.choice(sorted(speakers))
        said = draw.choices(speakers[voice], k=draw.randint(2, 5))
        parts = []
        for record in said:
            start = round(record["offset"] * SAMPLE_RATE)
            pause = np.zeros(round(draw.uniform(0.05, 0.4) * SAMPLE_RATE), dtype=np.float32)
            parts += [audio[start : start + round(record["duration"] * SAMPLE_RATE)], pause]
        samples = np.concatenate(parts)
        label = {
            "audio_filepath": "strings.wav",
            "offset": offset / SAMPLE_RATE,
            "duration": len(samples) / SAMPLE_RATE,
            "text": " ".join(record["text"] for record in said),
            "voice": voice,
        }
        labels.append(json.dumps(label) + "\n")
        pieces.append(samples)
        offset += len(samples)
    soundfile.write(folder / "strings.wav", np.concatenate(pieces), SAMPLE_RATE, subtype="PCM_16")
    manifest.write_text("".join(labels))
    return manifest

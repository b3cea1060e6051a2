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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.audio.resample import resample
from training.data.augmentation import Clip
from training.data.corpora import read_samples
from training.data.manifest import Utterance, read_manifest
from training.synthesis.corpus import MANIFEST, CorpusSettings, make_corpus, plan
from training.synthesis.grammar import sentences
from training.synthesis.voices import TRAINING_VOICES
from training.text import normalise

DIGITS = "zero one two three four five six seven eight nine".split()

FSDD_HELD_OUT = ("theo", "yweweler")
"""Speakers of the digit recordings that are never trained on."""

RECORDED_DIGITS, DIGIT_STRINGS, LONG = "fsdd", "fsdd-strings", "long"
"""Corpora of recorded digits, one by one and strung together, and of sentences strung together."""

WITHOUT_PHONEMES = (RECORDED_DIGITS, DIGIT_STRINGS, LONG)

STRINGS_A_SHARD = 400

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
        manifests.append(string_clips([recordings], folder / DIGIT_STRINGS, draw, DIGITS_TOGETHER))
    sentences_of = [path for path in manifests if path.parent.name in ("clinc", "books", "grammar")]
    longer = replace(LONG_SPEECH, strings=round(LONG_SPEECH.strings * scale))
    manifests.append(string_clips(sentences_of, folder / LONG, draw, longer))
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


@dataclass(frozen=True)
class StringSettings:
    """How clips are strung together: how many strings, of how many clips, and how far apart."""

    strings: int
    clips: tuple[int, int]
    pause_s: tuple[float, float]
    longest_s: float = 28.0


DIGITS_TOGETHER = StringSettings(4000, clips=(2, 5), pause_s=(0.05, 0.4))
"""A digit alone is over before a model has anything to go by; in a string the same few human voices
are heard for seconds."""

LONG_SPEECH = StringSettings(2500, clips=(2, 12), pause_s=(0.0, 0.4))
"""No sentence of the texts is longer than nine seconds, and people speak longer than that."""


def string_clips(
    manifests: Sequence[Path], folder: Path, draw: random.Random, settings: StringSettings
) -> Path:
    """Clips of one voice strung together; returns the new manifest.

    Word times move along; a string with a clip that has none has none. Phonemes are left out:
    frame-level pretraining has them in the clips already.
    """
    manifest = folder / MANIFEST
    if manifest.exists():
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    voices: dict[str, list[Utterance]] = {}
    for path in manifests:
        for utterance in read_manifest(path).utterances:
            voices.setdefault(str(utterance.voice), []).append(utterance)
    labels = []
    for shard in range(0, settings.strings, STRINGS_A_SHARD):
        name, offset = f"shard-{shard:05d}.wav", 0
        with soundfile.SoundFile(folder / name, "w", SAMPLE_RATE, 1, subtype="PCM_16") as file:
            for _ in range(min(STRINGS_A_SHARD, settings.strings - shard)):
                voice = draw.choice(sorted(voices))
                count = draw.randint(*settings.clips)
                string = join_clips(draw.choices(voices[voice], k=count), draw, settings)
                file.write(string.samples)
                label = {
                    "audio_filepath": name,
                    "offset": offset / SAMPLE_RATE,
                    "duration": string.duration,
                    "text": string.text,
                    "voice": voice,
                }
                if string.words is not None:
                    label["words"] = [[w, round(b, 3), round(e, 3)] for w, b, e in string.words]
                labels.append(json.dumps(label) + "\n")
                offset += len(string.samples)
    manifest.write_text("".join(labels))
    return manifest


def join_clips(
    utterances: Sequence[Utterance], draw: random.Random, settings: StringSettings
) -> Clip:
    """The utterances one behind the other, as many as fit into the longest string."""
    pieces: list[Clip] = []
    position = 0.0
    for utterance in utterances:
        samples = read_samples(utterance)
        if pieces and position + len(samples) / SAMPLE_RATE > settings.longest_s:
            break
        pause = round(draw.uniform(*settings.pause_s) * SAMPLE_RATE)
        clip = Clip(samples, utterance.text, utterance.words)
        pieces.append(clip.shifted(np.pad(samples, (0, pause)), position))
        position += len(pieces[-1].samples) / SAMPLE_RATE
    words = [piece.words for piece in pieces if piece.words is not None]
    return Clip(
        np.concatenate([piece.samples for piece in pieces]),
        " ".join(piece.text for piece in pieces),
        tuple(word for times in words for word in times) if len(words) == len(pieces) else None,
    )

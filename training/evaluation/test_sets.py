"""Test sets: what is played to a model and what it should write.

A `TestSet` is a list of examples that know how to get their audio; nothing is loaded or spoken
before it is needed, and examples can be sent to worker processes. Built-in sets are named in
`BUILT_IN`; any other name is a manifest (``….jsonl``), a folder with ``transcripts.tsv``, a folder
of a Hub data set, or the id of one.

The data of the built-in sets is no part of tinyvoice: it is looked for in one folder
(``--data-dir``, ``TINYVOICE_DATA``), and a set without its data raises `MissingDataError`.
"""

from __future__ import annotations

import random
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE, load_audio
from tinyvoice.errors import ConfigurationError, ManifestError, MissingExtraError, TinyvoiceError
from training.data.manifest import ADVICE, OnError, read_manifest, read_samples

Samples = NDArray[np.float32]
WordTimes = tuple[tuple[str, float, float], ...]

DATA_VARIABLE = "TINYVOICE_DATA"
SKIP_WITH = "add --on-error skip"

FSDD_HELD_OUT_SPEAKERS = ("theo", "yweweler")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

NON_SPEECH_KINDS = ("silence", "white noise", "pink noise", "brown noise", "hum", "tones", "clicks")
NON_SPEECH_SECONDS = 300.0
"""How much there is of each kind, unless the request says otherwise."""

_TEXT_COLUMNS = ("text", "sentence", "transcription", "transcript", "normalized_text")


class MissingDataError(TinyvoiceError):
    """A test set whose data is not on this machine."""


class Source(Protocol):
    """Gets the audio of an example; picklable, so that a worker process can do it."""

    def load(self) -> tuple[Samples, WordTimes | None]:
        """Return 16 kHz mono samples in [-1, 1] and, where known, ``(word, start, end)`` times."""


@dataclass(frozen=True)
class Example:
    """One utterance of a test set. ``group`` is what tables break figures down by: voice, kind."""

    name: str
    text: str
    group: str
    source: Source
    whole: Source | None = None
    """The clip that this one was made of and whose transcript must come out, where it is that."""


@dataclass(frozen=True)
class TestSet:
    """A named list of examples."""

    __test__ = False  # not a class of tests, whatever pytest makes of its name

    name: str
    title: str
    examples: list[Example]
    broken: list[str] = field(default_factory=list)
    """What is wrong with each line that was left out of it, one sentence for each."""


# Sources -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpokenText:
    """Text for the synthesiser: ``rate`` and ``pitch`` are factors of the voice's own."""

    text: str
    voice: str
    rate: float
    pitch: float

    def load(self) -> tuple[Samples, WordTimes | None]:
        """Speak the text."""
        from training.synthesis.speech import Synthesiser

        spoken = Synthesiser(self.voice).speak(self.text, rate=self.rate, pitch=self.pitch)
        return spoken.samples, tuple(spoken.words)


@dataclass(frozen=True)
class AudioFile:
    """A whole audio file, given by its path or its bytes."""

    file: Path | bytes

    def load(self) -> tuple[Samples, WordTimes | None]:
        """Read and resample the file."""
        return load_audio(self.file).samples, None


@dataclass(frozen=True)
class ManifestLine:
    """An utterance of a manifest (`training.data.manifest.Utterance`)."""

    utterance: Any

    def load(self) -> tuple[Samples, WordTimes | None]:
        """Read the utterance's part of its file."""
        return read_samples(self.utterance), self.utterance.words


@dataclass(frozen=True)
class NonSpeech:
    """Made sound without speech: one of `NON_SPEECH_KINDS`, ``seconds`` long, fixed by ``seed``."""

    kind: str
    seconds: float
    seed: int

    def load(self) -> tuple[Samples, WordTimes | None]:
        """Make the sound, at a level drawn between -55 and -3 dB of full scale."""
        generator = np.random.default_rng(self.seed)
        shape = _NON_SPEECH[self.kind](round(self.seconds * SAMPLE_RATE), generator)
        peak = float(np.abs(shape).max(initial=0.0))
        level = 10 ** (generator.uniform(-55, -3) / 20)
        if self.kind == "silence":
            level = min(peak, 1.0)  # keeps its own level: nothing, or the last bits of a converter
        return (shape * (level / peak if peak else 0.0)).astype(np.float32), ()


def _silence(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Digital silence half of the time, else the noise floor of 12 to 16 bits."""
    if generator.random() < 0.5:
        return np.zeros(count)
    return generator.standard_normal(count) * 2.0 ** -generator.uniform(11, 15)


def _coloured_noise(exponent: float) -> Callable[[int, np.random.Generator], NDArray[np.float64]]:
    """Noise whose power falls with frequency to the power of ``exponent`` (0 white, 1 pink)."""

    def noise(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
        spectrum = np.fft.rfft(generator.standard_normal(count))
        # Below 20 Hz there is nothing to hear, and brown noise would be all drift.
        hertz = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 20.0)
        return np.asarray(np.fft.irfft(spectrum * hertz ** (-exponent / 2), count))

    return noise


def _hum(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Mains hum: 50 or 60 Hz, with overtones that fall off, over a little noise."""
    time = np.arange(count) / SAMPLE_RATE
    mains = generator.choice([50.0, 60.0])
    tone = sum(
        generator.uniform(0.2, 1.0) / order * np.sin(2 * np.pi * mains * order * time)
        for order in range(1, 9)
    )
    return np.asarray(tone) + 0.01 * generator.standard_normal(count)


def _tones(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Beeps: pure or two-tone (as telephones dial), 0.1 to 2 s long, with pauses between."""
    sound = np.zeros(count)
    position = 0
    while position < count:
        length = min(int(generator.uniform(0.1, 2.0) * SAMPLE_RATE), count - position)
        time = np.arange(length) / SAMPLE_RATE
        pitches = generator.uniform(100, 4000, size=generator.integers(1, 3))
        beep = np.sin(2 * np.pi * np.outer(pitches, time)).sum(axis=0)
        fade = np.minimum(1.0, np.minimum(time, time[::-1]) / 0.005)  # 5 ms: a beep, not a click
        sound[position : position + length] = beep * fade
        position += length + int(generator.uniform(0.05, 1.0) * SAMPLE_RATE)
    return sound


def _clicks(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Clicks of keys and switches: decaying bursts, one to eight a second."""
    sound = np.zeros(count + SAMPLE_RATE)
    position = 0
    while position < count:
        length = int(generator.uniform(0.001, 0.03) * SAMPLE_RATE)
        burst = generator.standard_normal(length) * np.exp(-5 * np.arange(length) / length)
        sound[position : position + length] += burst * generator.uniform(0.3, 1.0)
        position += int(generator.exponential(1 / generator.uniform(1, 8)) * SAMPLE_RATE) + 1
    return sound[:count] + 0.001 * generator.standard_normal(count)


_NON_SPEECH: dict[str, Callable[[int, np.random.Generator], NDArray[np.float64]]] = {
    "silence": _silence,
    "white noise": _coloured_noise(0.0),
    "pink noise": _coloured_noise(1.0),
    "brown noise": _coloured_noise(2.0),
    "hum": _hum,
    "tones": _tones,
    "clicks": _clicks,
}


# Built-in sets -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What the user asks for: at most ``count`` examples, drawn with ``seed``."""

    data_dir: Path | None = None
    count: int | None = None
    seed: int = 0
    split: str = "test"
    configuration: str | None = None
    audio_column: str = "audio"
    text_column: str | None = None
    seconds: float = NON_SPEECH_SECONDS
    """How much of each kind of sound without speech."""
    on_error: OnError = "raise"
    """``skip`` leaves broken lines of manifests and tables out, and names them in the set."""


def clinc_known(request: Request) -> TestSet:
    """Sentences of clinc150-validation.txt, spoken by voices of the training set."""
    from training.synthesis.voices import TRAINING_VOICES

    return _spoken("clinc-known", "CLINC150, voices of training", TRAINING_VOICES, request)


def clinc_unseen(request: Request) -> TestSet:
    """The same sentences, spoken by voices kept out of training."""
    from training.synthesis.voices import HELD_OUT_VOICES

    return _spoken("clinc-unseen", "CLINC150, voices kept out", HELD_OUT_VOICES, request)


def word_times(request: Request) -> TestSet:
    """The same sentences by known and unseen voices, to compare word times."""
    from training.synthesis.voices import HELD_OUT_VOICES, TRAINING_VOICES

    voices = (*TRAINING_VOICES, *HELD_OUT_VOICES)
    return _spoken("word-times", "Word times against the synthesiser", voices, request)


def _spoken(name: str, title: str, voices: Sequence[str], request: Request) -> TestSet:
    """Each sentence once, by a voice, at a rate and pitch drawn as in training."""
    from training.synthesis.corpus import CorpusSettings, plan

    path = _data_file(request, "clinc150-validation.txt")
    texts = path.read_text(encoding="utf-8").splitlines()
    lines = plan(texts, _available(voices), CorpusSettings(seed=request.seed))
    examples = [
        Example(
            f"{name}-{index:04d}",
            line.text,
            line.voice,
            SpokenText(line.text, line.voice, line.rate, line.pitch),
        )
        for index, line in enumerate(lines)
    ]
    return TestSet(name, title, examples[: request.count])


def _available(voices: Sequence[str]) -> list[str]:
    """Leave out Flite's voices where Flite is not installed."""
    from training.synthesis import flite

    if flite.available():
        return list(voices)
    return [voice for voice in voices if not voice.startswith("flite/")]


def fsdd(request: Request) -> TestSet:
    """Free Spoken Digit Dataset: single digits by the two speakers kept out of training."""
    path = _data_file(request, "fsdd.tar.gz")
    examples = []
    with tarfile.open(path) as archive:
        for member in archive:
            digit, _, rest = Path(member.name).stem.partition("_")
            speaker = rest.partition("_")[0]
            if not member.isfile() or speaker not in FSDD_HELD_OUT_SPEAKERS:
                continue
            content = archive.extractfile(member)
            if content is not None:
                examples.append(
                    Example(
                        Path(member.name).stem,
                        DIGITS[int(digit)],
                        speaker,
                        AudioFile(content.read()),
                    )
                )
    title = "Free Spoken Digit Dataset, speakers kept out"
    return TestSet("fsdd", title, draw_examples(sorted(examples, key=lambda e: e.name), request))


def no_speech(request: Request) -> TestSet:
    """Minutes of silence, noises, hum, tones and clicks each, in clips of 3 to 10 s."""
    draw = random.Random(request.seed)
    examples = []
    for kind in NON_SPEECH_KINDS:
        left, index = request.seconds, 0
        while left > 0:
            seconds = min(round(draw.uniform(3.0, 10.0), 2), left)
            if left - seconds < 3.0:
                seconds = left  # rather one clip a little longer than a rest too short to count
            source = NonSpeech(kind, seconds, draw.randrange(2**32))
            examples.append(Example(f"{kind.replace(' ', '-')}-{index:03d}", "", kind, source))
            left, index = left - seconds, index + 1
    return TestSet("no-speech", "Sound without speech", draw_examples(examples, request))


def ljspeech(request: Request) -> TestSet:
    """Recordings of a human reader: the folder ``ljspeech`` of the data."""
    folder = _data_file(request, "ljspeech")
    return _transcribed_folder(folder, "ljspeech", "LJ Speech, a human reader", request)


BUILT_IN: dict[str, Callable[[Request], TestSet]] = {
    "clinc-known": clinc_known,
    "clinc-unseen": clinc_unseen,
    "fsdd": fsdd,
    "no-speech": no_speech,
    "ljspeech": ljspeech,
    "word-times": word_times,
}


def load_test_set(name: str, request: Request) -> TestSet:
    """Return the built-in test set ``name``, or the manifest, folder or Hub data set it names.

    Raises:
        MissingDataError: the data of a built-in set is not on this machine.
        ConfigurationError: ``name`` is none of these.
        ManifestError: the manifest or ``transcripts.tsv`` is broken.
        MissingExtraError: a Hub data set is asked for without the package datasets.
    """
    from training.evaluation.edge_sets import EDGE_SETS

    if name in BUILT_IN:
        return BUILT_IN[name](request)
    if name in EDGE_SETS:
        return EDGE_SETS[name](request)
    path = Path(name)
    if path.suffix == ".jsonl":
        return _manifest(path, request)
    if (path / "transcripts.tsv").is_file():
        return _transcribed_folder(path, path.name, str(path), request)
    if path.is_dir() or name.count("/") == 1:
        return _hub_data_set(name, request)
    known = ", ".join([*BUILT_IN, *EDGE_SETS])
    raise ConfigurationError(
        f"There is no test set {name!r}: use one of {known}, a manifest ending in .jsonl, a folder "
        "with transcripts.tsv, or the id of a Hub data set (owner/name).",
        key="dataset",
    )


def _data_file(request: Request, name: str) -> Path:
    if request.data_dir is None:
        raise MissingDataError(
            f"This test set needs {name}: say which folder it lies in with --data-dir or the "
            f"environment variable {DATA_VARIABLE}."
        )
    path = request.data_dir / name
    if not path.exists():
        raise MissingDataError(f"This test set needs {name}, which is not in {request.data_dir}.")
    return path


def draw_examples(examples: list[Example], request: Request) -> list[Example]:
    """Draw ``request.count`` of the examples, in their order."""
    if request.count is None or request.count >= len(examples):
        return examples
    chosen = random.Random(request.seed).sample(range(len(examples)), request.count)
    return [examples[index] for index in sorted(chosen)]


def _manifest(path: Path, request: Request) -> TestSet:
    manifest = read_manifest(path, on_error=request.on_error, skip_with=SKIP_WITH)
    examples = [
        Example(f"{path.stem}-{index:05d}", line.text, line.voice or "", ManifestLine(line))
        for index, line in enumerate(manifest.utterances)
    ]
    broken = [str(error) for error in manifest.errors]
    return TestSet(path.stem, str(path), draw_examples(examples, request), broken)


def _transcribed_folder(folder: Path, set_name: str, title: str, request: Request) -> TestSet:
    """Read ``transcripts.tsv``: name of a file (``.wav`` may be left out), tab, transcript."""
    table = folder / "transcripts.tsv"
    if not table.is_file():
        raise MissingDataError(f"{folder} has no transcripts.tsv (file name, tab, transcript).")
    examples = []
    broken = []
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        name, tab, text = line.partition("\t")
        if not tab:
            advice = ADVICE[request.on_error].format(skip_with=SKIP_WITH)
            error = ManifestError(
                f"{table}:{number}: no tab between file name and transcript; {advice}.",
                path=str(table),
                line=number,
            )
            if request.on_error == "raise":
                raise error
            broken.append(str(error))
            continue
        file = folder / name
        if not file.is_file():
            file = folder / f"{name}.wav"
        examples.append(Example(Path(name).stem, text.strip(), "", AudioFile(file)))
    return TestSet(set_name, title, draw_examples(examples, request), broken)


def _hub_data_set(name: str, request: Request) -> TestSet:
    """Read a data set of the Hub, or a folder in its format, without decoding what is not asked."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("training", f"reading the data set {name}") from error
    try:
        rows = datasets.load_dataset(
            name, request.configuration, split=request.split, streaming=True
        )
        text_column = _text_column(name, set(rows.column_names or rows.features or ()), request)
        # The bytes as they are: our own reader decodes them, and torchcodec is not needed.
        rows = rows.cast_column(request.audio_column, datasets.Audio(decode=False))
        if request.count is not None:
            rows = rows.take(request.count)
        examples = [
            Example(
                f"{Path(name).name}-{index:05d}",
                str(row[text_column]),
                "",
                _stored_audio(row[request.audio_column]),
            )
            for index, row in enumerate(rows)
        ]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"The data set {name} cannot be read ({' '.join(str(error).split())[:300]}): check its "
            "name, --split and columns, and the network.",
            key="dataset",
        ) from error
    return TestSet(Path(name).name, f"{name} ({request.split})", examples)


def _text_column(name: str, columns: set[str], request: Request) -> str:
    wanted = (request.text_column,) if request.text_column else _TEXT_COLUMNS
    for column in wanted:
        if column in columns:
            return column
    raise ConfigurationError(
        f"{name} has no column {' or '.join(wanted)} with transcripts: name it with --text-column; "
        f"its columns are {', '.join(sorted(columns))}.",
        key="text_column",
    )


def _stored_audio(value: dict[str, Any]) -> AudioFile:
    """The undecoded audio of a row: its bytes, or else the path of its file."""
    return AudioFile(value["bytes"] or Path(value["path"]))

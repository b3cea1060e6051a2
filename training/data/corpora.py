"""Corpora: local manifests, Hub data sets and synthetic speech, behind one interface.

A corpus knows the duration of each of its clips and reads a clip by index. Opening one normalises
its labels and drops what cannot be trained on: clips that are too long or too short, and those
without a label. What was dropped is counted (`Dropped`) and nothing is dropped silently.

Choosing among corpora is `training.data.mixing`'s work; augmentation comes later still.
"""

from __future__ import annotations

import importlib
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from tinyvoice.audio.files import load_audio
from tinyvoice.errors import AudioError, ConfigurationError, ManifestError, MissingExtraError
from training.data.augmentation import Clip
from training.data.manifest import (
    Manifest,
    OnError,
    Utterance,
    read_manifest,
    read_samples,
)

Split = Literal["train", "eval"]
Labels = Literal["lower", "spoken"]

_MARKERS = re.compile(r"<\s*/?\s*[\w:-]+\s*/?\s*>|\[[^\[\]]*\]|\(\(|\)\)")
"""What corpora write where there is no word: ``<unk>``, ``<noise>``, ``[laughter]``, ``((``."""

_PUNCTUATION_MARKERS = {
    "<comma>": ",",
    "<period>": ".",
    "<questionmark>": "?",
    "<exclamationpoint>": "!",
}
"""GigaSpeech's names of punctuation marks."""


@dataclass(frozen=True)
class CorpusSettings:
    """One corpus: ``manifest``, ``path``, ``synthesis`` or ``factory`` is set."""

    manifest: str | None = None
    """A manifest for training (`training.data.manifest`)."""
    eval_manifest: str | None = None
    """A manifest for evaluation, beside ``manifest``."""

    path: str | None = None
    """Id of a Hub data set, or a local folder of Parquet, Arrow or audio files."""
    name: str | None = None
    """Configuration of the Hub data set."""
    audio_column: str = "audio"
    text_column: str = "text"
    duration_column: str | None = None
    """Seconds, or milliseconds where the name ends in ``_ms``. ``duration`` is used if it is there;
    otherwise clips are measured once and the result kept in the data set library's cache."""
    train_splits: tuple[str, ...] = ()
    eval_splits: tuple[str, ...] = ()

    synthesis: dict[str, Any] | None = None
    """Settings of `training.data.synthetic`: speech made on this machine."""

    factory: str | None = None
    """``module:function`` of a user's own, called with the split, the `Limits` and ``options``; it
    returns a `Corpus`, or None where it has nothing for that split."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of ``factory``."""

    target_samples: int | None = None
    """Samples wanted of the corpus in an epoch: fewer than it has caps it, more repeats it."""


@dataclass(frozen=True)
class Limits:
    """What makes a clip usable."""

    shortest_s: float = 0.1
    longest_s: float = 30.0
    labels: Labels = "lower"
    """``lower`` lower-cases and strips markers; ``spoken`` also drops punctuation and spells
    numbers out (`training.text.normalise`)."""
    on_error: OnError = "raise"
    """What a broken line of a manifest does."""
    most: int | None = None
    """A bound on what is read of a corpus, for quick checks."""
    needed: int | None = None
    """Clips that the run can use at most; what is made for it on this machine need not be more."""


@dataclass
class Dropped:
    """Clips and lines that were left out, counted by reason."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: list[ManifestError] = field(default_factory=list)
    """What was wrong with each broken line."""

    def __str__(self) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in self.counts.most_common())


class Corpus(Protocol):
    """Clips of known duration and label."""

    name: str
    durations: NDArray[np.float64]
    """``(clips,)`` seconds."""
    dropped: Dropped

    def __len__(self) -> int: ...

    def clip(self, index: int) -> Clip:
        """Read a clip; raises `AudioError` where that fails."""


def open_corpus(settings: CorpusSettings, split: Split, limits: Limits) -> Corpus | None:
    """Open a corpus for training or evaluation; None where it has nothing for that split.

    Raises:
        ConfigurationError: not exactly one kind of corpus is set, or a column is missing.
        ManifestError: the manifest cannot be read, or has a broken line and ``on_error`` is
            ``"raise"``.
        MissingExtraError: a Hub data set without the extra ``training``.
    """
    manifests = settings.manifest or settings.eval_manifest
    kinds = [manifests, settings.path, settings.synthesis, settings.factory]
    if sum(kind is not None for kind in kinds) != 1:
        raise ConfigurationError(
            "Each corpus under data.corpora needs exactly one of 'manifest', 'path', 'synthesis' "
            f"and 'factory': {settings}.",
            key="data.corpora",
        )
    if settings.factory is not None:
        opened: Corpus | None = _factory(settings.factory)(split, limits, **settings.options)
        return opened
    if settings.path is not None:
        splits = settings.train_splits if split == "train" else settings.eval_splits
        return HubCorpus(settings, splits, limits) if splits else None
    if settings.synthesis is not None:
        from training.data.synthetic import SyntheticSettings, make_synthetic_manifest

        synthetic = SyntheticSettings.parse(settings.synthesis)
        manifest = make_synthetic_manifest(synthetic, split, limits.most, limits.needed)
        return None if manifest is None else ManifestCorpus(manifest, limits, "synthesis")
    path = settings.manifest if split == "train" else settings.eval_manifest
    return None if path is None else ManifestCorpus(path, limits)


def may_have_word_times(corpus: Corpus) -> bool:
    """Whether some clip of a corpus has the times of its words; assumed of a user's own corpus."""
    if isinstance(corpus, ManifestCorpus):
        return corpus.has_word_times
    return not isinstance(corpus, HubCorpus)


def _factory(name: str) -> Callable[..., Corpus | None]:
    """Import ``module:function``."""
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"The corpus factory {name!r} cannot be imported ({error}): give module:function of "
            "an installed package.",
            key="data.corpora",
        ) from error
    return function


class ManifestCorpus:
    """The utterances of a local manifest."""

    def __init__(self, path: str | Path, limits: Limits, name: str | None = None) -> None:
        manifest = read_manifest(path, on_error=limits.on_error)
        self.name = name or str(path)
        self.dropped = Dropped(errors=manifest.errors)
        if manifest.errors:
            self.dropped.counts["broken lines"] = len(manifest.errors)
        self._utterances: list[Utterance] = []
        self._labels: list[str] = []
        missing = _missing_audio(manifest, limits.on_error)
        for utterance in manifest.utterances:
            if utterance.path in missing:
                self.dropped.counts["without audio file"] += 1
                continue
            label = usable_label(utterance.text, utterance.duration, limits, self.dropped)
            if label is not None:
                self._utterances.append(utterance)
                self._labels.append(label)
        self.durations = np.array([u.duration for u in self._utterances], dtype=np.float64)

    @property
    def has_word_times(self) -> bool:
        """Whether some utterance has the times of its words."""
        return any(utterance.words is not None for utterance in self._utterances)

    def __len__(self) -> int:
        return len(self._utterances)

    def clip(self, index: int) -> Clip:
        """Read a clip; raises `AudioError` where that fails."""
        utterance = self._utterances[index]
        samples = read_samples(utterance)
        return Clip(samples, self._labels[index], utterance.words, utterance.voice)


def _missing_audio(manifest: Manifest, on_error: OnError) -> set[Path]:
    """Return the audio files that are not there; looking now spares a stop in the middle."""
    named = {utterance.path for utterance in manifest.utterances}
    missing = {path for path in named if not path.is_file()}
    if missing and on_error == "raise":
        raise ManifestError(
            f"{manifest.path} names {min(missing)}, which does not exist ({len(missing)} of "
            f"{len(named)} files are missing): correct the manifest or set data.on_error=skip.",
            path=str(manifest.path),
        )
    return missing


class HubCorpus:
    """Splits of a data set of the Hub, or of a local folder, one behind the other.

    Audio is read as bytes and decoded here, by the same code as everywhere, so that the library's
    own decoders are not needed.
    """

    def __init__(self, settings: CorpusSettings, splits: Sequence[str], limits: Limits) -> None:
        path = settings.path or ""
        self.name = f"{path}/{settings.name}" if settings.name else path
        self.dropped = Dropped()
        self._audio_column = settings.audio_column
        library = _datasets(path)
        parts = [_load_split(library, settings, split, limits.most) for split in splits]
        rows = parts[0] if len(parts) == 1 else library.concatenate_datasets(parts)
        for column in (settings.audio_column, settings.text_column):
            if column not in rows.column_names:
                raise ConfigurationError(
                    f"The data set {self.name} has no column '{column}': set audio_column and "
                    f"text_column among {', '.join(rows.column_names)}.",
                    key="data.corpora",
                )
        if isinstance(rows.features[settings.audio_column], library.Audio):
            rows = rows.cast_column(settings.audio_column, library.Audio(decode=False))
        self._rows = rows
        self._keep(_durations(rows, settings), rows[settings.text_column], limits)

    def __len__(self) -> int:
        return len(self._indices)

    def clip(self, index: int) -> Clip:
        """Read and decode a clip; raises `AudioError` where that fails."""
        row = self._indices[index]
        audio = self._rows[row][self._audio_column]
        return Clip(decode_column(audio, f"{self.name}, row {row}"), self._labels[index])

    def _keep(self, durations: Iterable[float], texts: Iterable[Any], limits: Limits) -> None:
        """Keep the rows that can be trained on."""
        self._indices: list[int] = []
        self._labels: list[str] = []
        kept = []
        for row, (duration, text) in enumerate(zip(durations, texts, strict=True)):
            label = usable_label(text, duration, limits, self.dropped)
            if label is not None:
                self._indices.append(row)
                self._labels.append(label)
                kept.append(duration)
        self.durations = np.array(kept, dtype=np.float64)


def usable_label(text: Any, duration: float, limits: Limits, dropped: Dropped) -> str | None:
    """Return a clip's normalised label, or None and count why the clip is left out."""
    reason = None
    label = ""
    if not isinstance(text, str):
        reason = "without label"
    elif not math.isfinite(duration):
        reason = "unreadable"
    elif duration > limits.longest_s:
        reason = f"longer than {limits.longest_s:g} s"
    elif duration < limits.shortest_s:
        reason = f"shorter than {limits.shortest_s:g} s"
    else:
        label = normalize_label(text, limits.labels)
        if not label:
            reason = "with an empty label"
    if reason is None:
        return label
    dropped.counts[reason] += 1
    return None


def normalize_label(text: str, labels: Labels = "lower") -> str:
    """Return a transcript as the model is to write it.

    Markers that corpora write for noises and unknown words are removed, ``%`` becomes
    ``percent``, letters become small and blanks single. A label that says nothing, such as
    ``nan`` or a lone full stop, gives ``""``.
    """
    text = text.replace("\u2019", "'").lower()
    for marker, mark in _PUNCTUATION_MARKERS.items():
        text = text.replace(f" {marker}", mark).replace(marker, mark)
    text = _MARKERS.sub(" ", text).replace("%", " percent ")
    if labels == "spoken":
        from training.text import normalise

        text = normalise(text)
    text = re.sub(r"\s+([,.?!])", r"\1", " ".join(text.split()))
    if text in ("nan", "none", "null") or not any(character.isalnum() for character in text):
        return ""
    return text


def decode_column(audio: Any, name: str) -> NDArray[np.float32]:
    """Return 16 kHz mono samples of a data set's cell: bytes, a path, or decoded samples.

    Raises:
        AudioError: none of these, or not audio.
    """
    if isinstance(audio, dict) and audio.get("bytes") is not None:
        return load_audio(audio["bytes"], name=name).samples
    if isinstance(audio, dict) and audio.get("array") is not None:
        rate = int(audio.get("sampling_rate") or 16_000)
        return load_audio(np.asarray(audio["array"]), sample_rate=rate, name=name).samples
    if isinstance(audio, dict) and audio.get("path"):
        return load_audio(Path(audio["path"]), name=name).samples
    if isinstance(audio, bytes | str):
        return load_audio(audio, name=name).samples
    if isinstance(audio, list) and audio:
        return load_audio(np.asarray(audio, dtype=np.float32), name=name).samples
    raise AudioError(f"{name} has no audio in its audio column.", path=name)


def _datasets(path: str) -> Any:
    """Import the data set library, or say which extra brings it."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("training", f"Reading the data set {path}") from error
    return datasets


def _load_split(library: Any, settings: CorpusSettings, split: str, most: int | None) -> Any:
    """Load one split; with ``most``, only the beginning of it, without downloading the rest."""
    path = settings.path or ""
    try:
        if (Path(path) / "dataset_dict.json").is_file():
            return _head(library.load_from_disk(path)[split], most)
        if (Path(path) / "dataset_info.json").is_file() and any(Path(path).glob("*.arrow")):
            return _head(library.load_from_disk(path), most)
        if most is None or Path(path).exists():
            return _head(library.load_dataset(path, settings.name, split=split), most)
        stream = library.load_dataset(path, settings.name, split=split, streaming=True)
        column = stream.cast_column(settings.audio_column, library.Audio(decode=False))
        return library.Dataset.from_list(list(column.take(most)))
    except (OSError, ValueError, KeyError, library.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(
            f"The split '{split}' of the data set {path} cannot be loaded ({reason[:300]}): check "
            "path, name and splits under data.corpora, and the network.",
            key="data.corpora",
        ) from error


def _head(rows: Any, most: int | None) -> Any:
    """Return the first ``most`` rows."""
    return rows if most is None else rows.select(range(min(most, len(rows))))


def _durations(rows: Any, settings: CorpusSettings) -> list[float]:
    """Return each row's seconds, from a column or measured; not a number where it is no audio."""
    column = settings.duration_column or "duration"
    if column in rows.column_names:
        scale = 1e-3 if column.endswith("_ms") else 1.0
        return [math.nan if value is None else float(value) * scale for value in rows[column]]
    if settings.duration_column is not None:
        raise ConfigurationError(
            f"The data set {settings.path} has no column '{column}': correct duration_column.",
            key="data.corpora",
        )
    measured = rows.map(
        _measure,
        input_columns=[settings.audio_column],
        remove_columns=rows.column_names,
        desc="measuring clips",
    )
    return list(measured["seconds"])


def _measure(audio: Any) -> dict[str, float]:
    """Return the seconds of a cell, read from the header where there is one."""
    try:
        if isinstance(audio, dict) and audio.get("bytes") is not None:
            return {"seconds": float(soundfile.info(io.BytesIO(audio["bytes"])).duration)}
        if isinstance(audio, dict) and audio.get("path") and audio.get("array") is None:
            return {"seconds": float(soundfile.info(audio["path"]).duration)}
    except (RuntimeError, OSError):
        pass  # a container that only the full decoder reads
    try:
        return {"seconds": len(decode_column(audio, "a clip")) / 16_000}
    except AudioError:
        return {"seconds": math.nan}

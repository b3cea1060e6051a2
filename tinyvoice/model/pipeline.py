"""The ``automatic-speech-recognition`` pipeline of transformers for our models.

It takes what transformers' own takes, and hands the work to
:meth:`~tinyvoice.model.modeling.ASRModel.transcribe`: clips of any length, batches, word times. It
has no strides and no decoder of its own; other models go to transformers' pipeline unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import GenerationConfig
from transformers.pipelines.automatic_speech_recognition import AutomaticSpeechRecognitionPipeline

from tinyvoice.audio.files import load_audio
from tinyvoice.errors import AudioError, ConfigurationError
from tinyvoice.model.configuration import ASRConfig
from tinyvoice.model.devices import choose
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.transcript import Transcript, Word

# Words further apart than this belong to different segments, in seconds.
SEGMENT_PAUSE = 0.5
# Settings of transformers' pipeline that mean nothing here: any length is taken as it is.
WITHOUT_MEANING = (
    "chunk_length_s",
    "stride_length_s",
    "ignore_warning",
    "decoder",
    "decoder_kwargs",
    "num_workers",
    "return_language",
)
GENERATION_KEYS = frozenset(key for key in vars(GenerationConfig()) if not key.startswith("_"))
# Settings of `ASRModel.transcribe` that a pipeline takes too.
TRANSCRIPTION_KEYS = frozenset({"segment"})


class SpeechRecognition:
    """What ``pipeline("automatic-speech-recognition")`` calls: picks the class by the model."""

    # None: loaded where present, since a model of ours brings its own. A model of transformers'
    # needs both, which is checked below as transformers would have.
    _load_tokenizer = None
    _load_feature_extractor = None
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False

    def __new__(cls, model: Any, **settings: Any) -> Any:
        """A pipeline around ``model``."""
        if isinstance(model.config, ASRConfig):
            return ASRPipeline(model, **settings)
        for part in ("tokenizer", "feature_extractor"):
            if settings.get(part) is None:
                name = model.config.name_or_path or type(model).__name__
                raise ValueError(
                    f"The {part} of {name} cannot be loaded: give pipeline() one as {part}=."
                )
        return AutomaticSpeechRecognitionPipeline(model, **settings)


class ASRPipeline(AutomaticSpeechRecognitionPipeline):
    """Transcribes with an :class:`~tinyvoice.model.modeling.ASRModel`.

    Calling it with one input gives one result, with a list a list, and with a generator, an
    iterator or a data set an iterator that reads ``batch_size`` inputs ahead.

    An input is a path, a URL, the bytes of a file, an array at 16 kHz, or a mapping with
    ``"array"`` or ``"raw"`` and ``"sampling_rate"`` (or with ``"path"`` or ``"bytes"``). A result
    is ``{"text": …}``, and with ``return_timestamps="word"`` also ``"chunks"``, a list of
    ``{"text": word, "timestamp": (start, end)}`` in seconds, rounded to milliseconds.
    ``return_timestamps=True`` gives a chunk for each stretch of speech between pauses.
    ``segment`` says where long clips are cut, as in ``ASRModel.transcribe``.
    """

    model: ASRModel

    def __init__(
        self,
        model: ASRModel,
        feature_extractor: Any = None,
        tokenizer: Any = None,
        device: Any = None,
        **settings: Any,
    ) -> None:
        processor = model.need_processor()
        precision = settings.get("dtype")
        super().__init__(
            model,
            feature_extractor or processor.feature_extractor,
            tokenizer or processor.tokenizer,
            device=device,
            **settings,
        )
        self.type = "seq2seq"
        if precision in (None, "auto") and model.dtype != torch.float32:
            # The model may have been moved from where its precision was a good one.
            module: Any = model  # transformers hides the types of `to`
            module.to(choose(self.device, "auto")[1])

    def __call__(  # type: ignore[override]
        self, inputs: Any, *, batch_size: int | None = None, **settings: Any
    ) -> dict[str, Any] | list[dict[str, Any]] | Iterator[dict[str, Any]]:
        """Transcribe one clip, a list of them, or a stream of them; see the class.

        Raises:
            AudioError: an input that cannot be read or used, by name.
            ConfigurationError: a setting that is unknown or cannot work.
        """
        _, generation, output = self._sanitize_parameters(**settings)
        generation, output = self._forward_params | generation, self._postprocess_params | output
        size = batch_size or self._batch_size or 1
        if isinstance(inputs, list | tuple):
            return list(self._transcribe(inputs, size, generation, output))
        if isinstance(inputs, Iterator | Dataset) or _is_dataset(inputs):
            return self._transcribe(inputs, size, generation, output)
        return next(self._transcribe([inputs], 1, generation, output))

    def _transcribe(
        self, inputs: Iterable[Any], size: int, generation: dict[str, Any], output: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Results in order, made ``size`` at a time."""
        timestamps = output.get("return_timestamps") or False
        remaining = iter(inputs)
        while batch := [read_input(item) for item in islice(remaining, size)]:
            transcripts = self.model.transcribe(
                batch, word_timestamps=bool(timestamps), batch_size=size, **generation
            )
            for transcript in transcripts:
                yield result(transcript, timestamps)

    def _sanitize_parameters(  # type: ignore[override]
        self, **settings: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Settings for reading (none), for decoding, and for the result."""
        for key in WITHOUT_MEANING:
            settings.pop(key, None)
        output = {}
        if "return_timestamps" in settings:
            asked = settings.pop("return_timestamps")
            if asked not in ("word", True, False, None):
                raise ConfigurationError(
                    f"return_timestamps is {asked!r}: use 'word', True or False.",
                    key="return_timestamps",
                )
            output["return_timestamps"] = asked
        generation = dict(settings.pop("generate_kwargs", None) or {})
        config = settings.pop("generation_config", None)
        if config is not None:
            generation = config.to_diff_dict() | generation
        generation |= settings
        for key in ("transformers_version", "return_timestamps", "language", "task"):
            generation.pop(key, None)  # written by transformers, or meant for Whisper
        unknown = sorted(generation.keys() - GENERATION_KEYS - TRANSCRIPTION_KEYS)
        if unknown:
            raise ConfigurationError(
                f"{unknown[0]} is no setting of this pipeline or of generation.", key=unknown[0]
            )
        return {}, generation, output


def _is_dataset(inputs: Any) -> bool:
    """Whether something is a collection of clips that is no list: a data set of ``datasets``."""
    if isinstance(inputs, str | bytes | bytearray | memoryview | Path | Mapping):
        return False
    return hasattr(inputs, "__iter__") and not hasattr(inputs, "__array__")


def read_input(item: Any) -> Any:
    """A clip that ``transcribe`` takes, from an input of the pipeline."""
    if hasattr(item, "get_all_samples"):  # a decoder of torchcodec, as data sets give it
        decoded = item.get_all_samples()
        return load_audio(decoded.data, sample_rate=int(decoded.sample_rate))
    if not isinstance(item, Mapping):
        return load_audio(item)
    if "audio" in item and not {"array", "raw"} & item.keys():  # a row of a data set
        return read_input(item["audio"])
    for key in ("raw", "array"):
        if item.get(key) is not None:
            if item.get("sampling_rate") is None:
                raise AudioError(
                    f'The input has "{key}" and no "sampling_rate": say how many samples a second '
                    "it has."
                )
            return load_audio(item[key], sample_rate=int(item["sampling_rate"]))
    for key in ("bytes", "path"):
        if item.get(key) is not None:
            return load_audio(item[key])
    raise AudioError(
        f'The input has the keys {sorted(map(str, item))}: give "array" or "raw" with '
        '"sampling_rate", or "path" or "bytes".'
    )


def result(transcript: Transcript, timestamps: bool | str) -> dict[str, Any]:
    """A transcript as transformers' pipelines give it."""
    found: dict[str, Any] = {"text": transcript.text}
    if timestamps:
        groups = (
            [[word] for word in transcript.words]
            if timestamps == "word"
            else segments(transcript.words)
        )
        found["chunks"] = [
            {
                "text": " ".join(word.text for word in group),
                "timestamp": (round(group[0].start, 3), round(group[-1].end, 3)),
            }
            for group in groups
        ]
    return found


def segments(words: Iterable[Word]) -> list[list[Word]]:
    """Words in groups, a new one after every pause longer than :data:`SEGMENT_PAUSE`."""
    groups: list[list[Word]] = []
    for word in words:
        if not groups or word.start - groups[-1][-1].end > SEGMENT_PAUSE:
            groups.append([])
        groups[-1].append(word)
    return groups


__all__ = ["ASRPipeline", "SpeechRecognition"]

"""From audio to transcripts: clips of any length, alone or together, at once or by the token.

Clips longer than the encoder takes are cut in the pauses between utterances, as live speech is, or
at their quietest points, and joined again. Pieces of similar length are batched together, which
changes the speed and not the words. Live audio is not handled here: everything is known before the
first word is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from tinyvoice.audio.files import SAMPLE_RATE, Audio, load_audio
from tinyvoice.audio.resample import resample
from tinyvoice.checks import one_of
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.generation import GeneratedTokens
from tinyvoice.model.text import THINK_START, clean_transcript, strip_thinking
from tinyvoice.model.timestamps import confidence, time_words
from tinyvoice.model.transcript import Transcript, Word
from tinyvoice.vad.recordings import find_utterances
from tinyvoice.vad.segmentation import MAX_SECONDS, audible_part, split_at_quietest

if TYPE_CHECKING:
    from tinyvoice.model.modeling import ASRModel

Segmentation = Literal["pauses", "fixed"]
"""Where clips that the encoder does not take whole are cut: in the pauses between utterances, what
is between those being left out; or at the quietest points near the longest that it takes."""

SEARCH_COST = 0.15
"""Time to look for pauses in some audio, as a part of the time to transcribe it, about."""

# What decoding writes for bytes that are no character yet: the next token may complete it.
HALF_CHARACTER = "\ufffd"


@dataclass(frozen=True)
class Piece:
    """A stretch of one clip that the encoder takes in one go."""

    clip: int
    start: float
    """Seconds from the beginning of the clip."""
    samples: np.ndarray
    """Mono, at the model's sample rate."""
    padding: float = 0.0
    """Seconds of silence that the model is given before and behind it."""

    def heard(self, sample_rate: int) -> np.ndarray:
        """What the model is given."""
        if not self.padding:
            return self.samples
        silence = np.zeros(round(self.padding * sample_rate), dtype=np.float32)
        return np.concatenate([silence, self.samples, silence])

    def timed(self, words: Sequence[Word], duration: float) -> tuple[Word, ...]:
        """Words timed in what was heard, timed in the clip: none lies outside of the piece."""
        latest = self.start + duration
        moved = (word.shifted(self.start - self.padding) for word in words)
        return tuple(
            replace(
                word,
                start=min(max(word.start, self.start), latest),
                end=min(max(word.end, self.start), latest),
            )
            for word in moved
        )


def is_several(audio: Any) -> bool:
    """Whether ``audio`` is a list or tuple of clips; one of plain numbers is a single clip."""
    return isinstance(audio, list | tuple) and not (
        len(audio) > 0 and isinstance(audio[0], int | float | np.number)
    )


def transcribe(
    model: ASRModel,
    audio: Any,
    *,
    sample_rate: int | None = None,
    word_timestamps: bool = False,
    batch_size: int = 16,
    segment: Segmentation = "pauses",
    progress: Callable[[float], None] | None = None,
    **generation: Any,
) -> Transcript | list[Transcript]:
    """Transcripts of one clip or of a list of clips; see :meth:`ASRModel.transcribe`."""
    if batch_size < 1:
        raise ConfigurationError(
            f"batch_size is {batch_size}; it must be at least 1", key="batch_size"
        )
    one_of("segment", segment, get_args(Segmentation))
    sources: Sequence[Any] = audio if is_several(audio) else [audio]
    clips = [load_clip(model, source, sample_rate) for source in sources]
    work = _Work(model, clips, segment, progress)
    pieces = [piece for at, clip in enumerate(clips) for piece in work.cut(at, clip)]
    # Long ones first: should memory not suffice, it is known at once.
    order = sorted(range(len(pieces)), key=lambda at: -len(pieces[at].samples))
    results: dict[int, Transcript] = {}
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        found = transcribe_batch(model, [pieces[at] for at in batch], word_timestamps, **generation)
        results.update(zip(batch, found, strict=True))
        work.did(sum(len(pieces[at].samples) for at in batch))
    parts: list[list[Transcript]] = [[] for _ in clips]
    for at, piece in enumerate(pieces):
        parts[piece.clip].append(results[at])
    transcripts = [
        join(found, len(clip) / rate(model)) for found, clip in zip(parts, clips, strict=True)
    ]
    return transcripts if is_several(audio) else transcripts[0]


class _Work:
    """What there is to do for some clips, and how much of it has been done.

    It is counted in samples: each is transcribed, or found to be none of speech; in clips that are
    searched for pauses that takes `SEARCH_COST` more.
    """

    def __init__(
        self,
        model: ASRModel,
        clips: Sequence[np.ndarray],
        segment: Segmentation,
        progress: Callable[[float], None] | None,
    ) -> None:
        self._model, self._segment, self._tell = model, segment, progress
        long = (clip for clip in clips if segment == "pauses" and not is_short(model, clip))
        self._total = sum(map(len, clips)) + SEARCH_COST * sum(map(len, long))
        self._done = 0.0

    def cut(self, clip: int, samples: np.ndarray) -> list[Piece]:
        """The pieces to be transcribed."""
        pieces = segmented(
            self._model, clip, samples, self._segment, lambda n: self.did(SEARCH_COST * n)
        )
        silent = len(samples) - sum(len(piece.samples) for piece in pieces)
        if silent:
            self.did(silent)
        return pieces

    def did(self, samples: float) -> None:
        """Count samples as done."""
        self._done += samples
        if self._tell is not None:
            self._tell(min(self._done / max(self._total, 1), 1.0))


def rate(model: ASRModel) -> int:
    """Samples per second that the model's features are made from."""
    return model.need_processor().sample_rate


def load_clip(model: ASRModel, source: Any, sample_rate: int | None) -> np.ndarray:
    """Mono samples at the model's rate from anything :func:`load_audio` takes."""
    clip: Audio = load_audio(source, sample_rate=sample_rate)
    if rate(model) == SAMPLE_RATE:
        return clip.samples
    return resample(clip.samples, SAMPLE_RATE, rate(model))


def longest_piece_s(model: ASRModel) -> float:
    """Seconds of sound that the model is given in one go, beside the silence around them.

    That is all that the encoder takes, or less where the checkpoint understands less (the
    configuration's ``longest_piece_s``).
    """
    config = model.config
    taken = MAX_SECONDS - 2 * config.silence_padding_s
    return taken if config.longest_piece_s is None else min(taken, config.longest_piece_s)


def is_short(model: ASRModel, samples: np.ndarray) -> bool:
    """Whether a clip is one piece, however it is to be cut."""
    return len(samples) <= int(longest_piece_s(model) * rate(model))


def cut(
    model: ASRModel,
    clip: int,
    samples: np.ndarray,
    max_seconds: float = MAX_SECONDS,
    start: float = 0.0,
) -> list[Piece]:
    """Samples in pieces of at most ``max_seconds``, and no more than the encoder takes.

    They begin ``start`` seconds after the clip does; long quiet at a piece's edges is left out.
    """
    longest, padding = min(max_seconds, longest_piece_s(model)), model.config.silence_padding_s
    pieces = []
    for begin, end in split_at_quietest(samples, rate(model), longest):
        first, last = audible_part(samples[begin:end], rate(model))
        sound = samples[begin + first : begin + last]
        pieces.append(Piece(clip, start + (begin + first) / rate(model), sound, padding))
    return pieces


def segmented(
    model: ASRModel,
    clip: int,
    samples: np.ndarray,
    segment: Segmentation,
    searched: Callable[[float], None] | None = None,
) -> list[Piece]:
    """A whole clip in pieces; none where it is a long one in which nobody speaks.

    ``searched`` is told how many samples have been searched for pauses since its last call.
    """
    if segment == "fixed" or is_short(model, samples):
        return cut(model, clip, samples)
    scale = rate(model) / SAMPLE_RATE
    audible = samples if scale == 1 else resample(samples, rate(model), SAMPLE_RATE)

    def heard(count: int) -> None:
        if searched is not None:
            searched(count * scale)

    pieces: list[Piece] = []
    for extent in find_utterances(audible, longest_piece_s(model), heard):
        begin, end = round(extent.audio_start * scale), round(extent.audio_end * scale)
        pieces += cut(model, clip, samples[begin:end], start=begin / rate(model))
    return pieces


@dataclass(frozen=True)
class EncodedPieces:
    """Pieces as the language model is given them, and as words are timed in them."""

    hidden: Tensor
    """``(pieces, frames, E)``, the encoder's output; behind each piece's end it means nothing."""
    lengths: Tensor
    """``(pieces,)``, frames of each piece."""
    embeds: Tensor
    """``(pieces, tokens, M)``, the projector's output."""
    counts: Tensor
    """``(pieces,)``, audio tokens of each piece."""


def encode_pieces(model: ASRModel, pieces: Sequence[Piece]) -> EncodedPieces:
    """Pieces through encoder and projector, together."""
    processor = model.need_processor()
    sounds = [piece.heard(processor.sample_rate) for piece in pieces]
    features, mask = processor.features(sounds, model.device)
    hidden, lengths = model.encode(features, mask)
    return EncodedPieces(hidden, lengths, *model.project(hidden, lengths))


def read_pieces(
    model: ASRModel,
    pieces: Sequence[Piece],
    encoded: EncodedPieces,
    outputs: Sequence[GeneratedTokens],
    word_timestamps: bool,
) -> list[Transcript]:
    """Transcripts of pieces from what was decoded, with times from each one's clip's beginning."""
    processor = model.need_processor()
    transcripts = []
    for row, (piece, tokens) in enumerate(zip(pieces, outputs, strict=True)):
        text = clean_transcript(decode_text(model, tokens))
        frames = encoded.hidden[row, : int(encoded.lengths[row])]
        words = (
            time_words(model, text, tokens, frames, processor.hop_seconds)
            if word_timestamps
            else ()
        )
        duration = len(piece.samples) / processor.sample_rate
        timed = piece.timed(words, duration)
        sure = confidence(tokens.logprobs)
        transcripts.append(Transcript(text, timed, sure, duration, piece.start))
    return transcripts


@torch.inference_mode()
def transcribe_batch(
    model: ASRModel, pieces: Sequence[Piece], word_timestamps: bool, **generation: Any
) -> list[Transcript]:
    """Transcripts of pieces, run together, with times from each one's clip's beginning."""
    encoded = encode_pieces(model, pieces)
    outputs = model.decode(encoded.embeds, encoded.counts, **generation)
    return read_pieces(model, pieces, encoded, outputs, word_timestamps)


def decode_text(model: ASRModel, tokens: GeneratedTokens) -> str:
    """What the tokens spell, special ones left out."""
    return str(model.tokenizer.decode(tokens.ids, skip_special_tokens=True))


def join(parts: Sequence[Transcript], duration: float) -> Transcript:
    """One clip's transcript from those of its pieces, in order.

    The confidence is the pieces' geometric mean, weighted by their words.
    """
    if len(parts) == 1:
        return replace(parts[0], start=0.0, duration=duration)
    weights = np.array([len(part.text.split()) for part in parts], dtype=float)
    logs = np.log([max(part.confidence, 1e-30) for part in parts])
    sure = float(np.exp((weights * logs).sum() / weights.sum())) if weights.sum() else 1.0
    return Transcript(
        " ".join(part.text for part in parts if part.text),
        tuple(word for part in parts for word in part.words),
        sure,
        duration,
    )


@torch.inference_mode()
def generate_streaming(
    model: ASRModel,
    audio: Any,
    *,
    sample_rate: int | None = None,
    segment: Segmentation = "pauses",
) -> Iterator[str]:
    """Pieces of a clip's transcript as tokens come; see :meth:`ASRModel.generate_streaming`."""
    one_of("segment", segment, get_args(Segmentation))
    said_anything = False
    for piece in segmented(model, 0, load_clip(model, audio, sample_rate), segment):
        encoded = encode_pieces(model, [piece])
        said, text = "", ""
        for ids in model.decode_steps(encoded.embeds, encoded.counts):
            text = str(model.tokenizer.decode(ids, skip_special_tokens=True))
            new = addition(said, settled_text(text))
            if new:
                yield " " + new if said_anything and not said else new
                said += new
        rest = addition(said, strip_thinking(text))
        if rest:
            yield " " + rest if said_anything and not said else rest
            said += rest
        said_anything = said_anything or bool(said)


def addition(said: str, text: str) -> str:
    """What ``text`` adds to ``said``; nothing where it does not continue it."""
    return text[len(said) :] if text.startswith(said) else ""


def settled_text(text: str) -> str:
    """Decoded text so far, without what later tokens may still turn into something else."""
    text = text.rstrip(HALF_CHARACTER)
    opening = text.rfind("<")
    if opening >= 0 and THINK_START.startswith(text[opening:]):
        text = text[:opening]
    return strip_thinking(text)

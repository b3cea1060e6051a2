"""From audio to transcripts: clips of any length, alone or together, at once or by the token.

Clips longer than the encoder takes are cut at their quietest points and joined again. Pieces of
similar length are batched together, which changes the speed and not the words. Live audio is not
handled here: everything is known before the first word is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tinyvoice.audio.files import SAMPLE_RATE, Audio, load_audio
from tinyvoice.audio.resample import resample
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.generation import GeneratedTokens
from tinyvoice.model.text import THINK_START, clean_transcript, strip_thinking
from tinyvoice.model.timestamps import confidence, time_words
from tinyvoice.model.transcript import Transcript, Word
from tinyvoice.vad.segmentation import MAX_SECONDS, split_at_quietest

if TYPE_CHECKING:
    from tinyvoice.model.modeling import ASRModel

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
    **generation: Any,
) -> Transcript | list[Transcript]:
    """Transcripts of one clip or of a list of clips; see :meth:`ASRModel.transcribe`."""
    if batch_size < 1:
        raise ConfigurationError(
            f"batch_size is {batch_size}; it must be at least 1", key="batch_size"
        )
    sources: Sequence[Any] = audio if is_several(audio) else [audio]
    clips = [load_clip(model, source, sample_rate) for source in sources]
    pieces = [piece for index, clip in enumerate(clips) for piece in cut(model, index, clip)]
    # Long ones first: should memory not suffice, it is known at once.
    order = sorted(range(len(pieces)), key=lambda at: -len(pieces[at].samples))
    results: dict[int, Transcript] = {}
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        found = transcribe_batch(model, [pieces[at] for at in batch], word_timestamps, **generation)
        results.update(zip(batch, found, strict=True))
    transcripts = [
        join(
            [results[at] for at, piece in enumerate(pieces) if piece.clip == index],
            len(clip) / rate(model),
        )
        for index, clip in enumerate(clips)
    ]
    return transcripts if is_several(audio) else transcripts[0]


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
    """Seconds of speech that the encoder takes in one go, beside the silence around them."""
    return MAX_SECONDS - 2 * model.config.silence_padding_s


def cut(
    model: ASRModel, clip: int, samples: np.ndarray, max_seconds: float = MAX_SECONDS
) -> list[Piece]:
    """A clip in pieces of at most ``max_seconds``, and no more than the encoder takes."""
    longest, padding = min(max_seconds, longest_piece_s(model)), model.config.silence_padding_s
    bounds = split_at_quietest(samples, rate(model), longest)
    return [Piece(clip, begin / rate(model), samples[begin:end], padding) for begin, end in bounds]


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
        return parts[0]
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
    model: ASRModel, audio: Any, *, sample_rate: int | None = None
) -> Iterator[str]:
    """Pieces of a clip's transcript as tokens come; see :meth:`ASRModel.generate_streaming`."""
    processor = model.need_processor()
    said_anything = False
    for piece in cut(model, 0, load_clip(model, audio, sample_rate)):
        features, mask = processor.features([piece.heard(processor.sample_rate)], model.device)
        said, text = "", ""
        for ids in model.decode_steps(*model.project(*model.encode(features, mask))):
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

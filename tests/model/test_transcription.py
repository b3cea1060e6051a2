from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.miniature import CHAT_TEMPLATE, clip, clips, random_model
from tinyvoice.audio.files import Audio
from tinyvoice.errors import AudioError, ConfigurationError
from tinyvoice.model.generation import GeneratedTokens
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.text import cut_trailing_repetition
from tinyvoice.model.transcript import Transcript
from tinyvoice.model.transcription import (
    Segmentation,
    cut,
    decode_text,
    is_several,
    join,
    longest_piece_s,
    settled_text,
)


@pytest.fixture(scope="module")
def model() -> ASRModel:
    return speaking_model()


def speaking_model(**changes: Any) -> ASRModel:
    """A random model that says pieces of words, never single bytes or special tokens."""
    model = random_model(**changes)
    embedding = model.language_model.get_input_embeddings()
    with torch.no_grad():
        for token, row in model.tokenizer.get_vocab().items():
            letters = token.removeprefix("Ġ")
            if not (len(token) > 1 and letters.isascii() and letters.isalpha()):
                # Scores of zero: some other token always has more.
                embedding.weight[row] = 0.0
    return model


def test_one_clip_gives_one_transcript(model: ASRModel) -> None:
    transcript = model.transcribe(clip(1.5))
    assert isinstance(transcript, Transcript)
    assert transcript.text
    assert transcript.duration == 1.5
    assert transcript.words == ()
    assert 0 < transcript.confidence < 1


def test_a_list_gives_a_list_in_its_order(model: ASRModel) -> None:
    waves = clips(0.5, 2.0, 1.1, 1.7)
    transcripts = model.transcribe(waves, batch_size=2)
    assert [t.text for t in transcripts] == [model.transcribe(wave).text for wave in waves]
    assert [t.duration for t in transcripts] == pytest.approx([0.5, 2.0, 1.1, 1.7])
    assert model.transcribe([]) == []
    assert model.transcribe(waves[:1]) == [model.transcribe(waves[0])]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batch_size_does_not_change_the_words(model: ASRModel, batch_size: int) -> None:
    waves = clips(0.5, 2.0, 1.1, 1.7, 0.8)
    texts = [t.text for t in model.transcribe(waves, batch_size=batch_size)]
    assert texts == [t.text for t in model.transcribe(waves, batch_size=5)]


def test_confidence_is_the_tokens_geometric_mean(model: ASRModel) -> None:
    wave = clip(1.2)
    (tokens,) = model.generate_with_scores(*model.need_processor().features([wave]))
    expected = math.exp(sum(tokens.logprobs) / len(tokens.logprobs))
    assert model.transcribe(wave).confidence == pytest.approx(expected, rel=1e-4)


def test_a_long_clip_is_cut_at_its_quietest_points_and_joined(model: ASRModel) -> None:
    wave = clip(70.0)
    for second in (25, 50):
        wave[second * 16000 : second * 16000 + 8000] = 0.0
    transcript = model.transcribe(wave, word_timestamps=True, segment="fixed")
    pieces = cut(model, 0, wave)
    assert [25 <= piece.start <= 25.5 or 50 <= piece.start <= 50.5 for piece in pieces[1:]] == [
        True,
        True,
    ]
    parts = [model.transcribe(piece.samples).text for piece in pieces]
    assert transcript.text == " ".join(parts)
    assert (transcript.start, transcript.duration) == (0.0, 70.0)
    starts = [word.start for word in transcript.words]
    assert len(starts) == len(transcript.text.split())
    assert starts == sorted(starts)
    assert starts[-1] >= 50
    assert all(word.end <= 70.0 for word in transcript.words)


def test_a_clip_that_fits_is_taken_whole_however_long_ones_are_cut(model: ASRModel) -> None:
    longest = clip(longest_piece_s(model))
    assert model.transcribe(longest) == model.transcribe(longest, segment="fixed")
    assert model.transcribe(longest).text


def test_a_long_clip_without_speech_has_no_words(model: ASRModel) -> None:
    wave = np.zeros(40 * 16000, dtype=np.float32)
    assert model.transcribe(wave, word_timestamps=True) == Transcript("", (), 1.0, 40.0)
    assert list(model.generate_streaming(wave)) == []


@pytest.mark.parametrize("segment", ["pauses", "fixed"])
def test_progress_grows_to_the_whole(model: ASRModel, segment: Segmentation) -> None:
    shares: list[float] = []
    waves = [clip(1.0), clip(40.0), np.zeros(35 * 16000, dtype=np.float32)]
    model.transcribe(waves, batch_size=1, segment=segment, progress=shares.append)
    assert shares == sorted(shares)
    assert 0 < shares[0] < 1
    assert shares[-1] == pytest.approx(1.0)


def test_another_way_to_cut_is_refused(model: ASRModel) -> None:
    with pytest.raises(ConfigurationError, match="choose from pauses, fixed"):
        model.transcribe(clip(1.0), segment="anywhere")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="choose from pauses, fixed"):
        list(model.generate_streaming(clip(1.0), segment="anywhere"))  # type: ignore[arg-type]


def test_words_are_the_texts_words(model: ASRModel) -> None:
    transcript = model.transcribe(clip(2.0), word_timestamps=True)
    assert [word.text for word in transcript.words] == transcript.text.split()
    assert all(0 <= word.start <= word.end <= 2.0 for word in transcript.words)


@pytest.mark.parametrize("alphabet", [None, "abcdefghijklmnopqrstuvwxyz'"])
def test_word_times_do_not_change_the_text(alphabet: str | None) -> None:
    model, wave = speaking_model(aligner_alphabet=alphabet), clip(1.4)
    assert model.transcribe(wave, word_timestamps=True).text == model.transcribe(wave).text


def test_other_sample_rates_and_containers(model: ASRModel) -> None:
    wave = clip(1.0)
    expected = model.transcribe(wave).text
    assert model.transcribe(Audio(wave, "a clip")).text == expected
    assert model.transcribe(np.stack([wave, wave], axis=1)).text == expected
    assert model.transcribe(wave[::2].copy(), sample_rate=8000).duration == pytest.approx(1.0)


def test_a_clip_too_short_to_hear_is_empty(model: ASRModel) -> None:
    transcript = model.transcribe(clip(0.01), word_timestamps=True)
    assert (transcript.text, transcript.words, transcript.confidence) == ("", (), 1.0)


def test_what_cannot_be_read_is_an_audio_error(model: ASRModel) -> None:
    with pytest.raises(AudioError, match=r"nowhere\.wav"):
        model.transcribe("nowhere.wav")


def test_batch_size_must_be_positive(model: ASRModel) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        model.transcribe(clip(1.0), batch_size=0)


def test_generation_settings_are_passed_on(model: ASRModel) -> None:
    short = model.transcribe(clip(1.0), max_new_tokens=2).text
    assert len(short) < len(model.transcribe(clip(1.0)).text)
    assert model.transcribe(clip(1.0), num_beams=2).text


@pytest.mark.parametrize("seed", range(4))
def test_streamed_pieces_are_the_transcript(model: ASRModel, seed: int) -> None:
    wave = clip(1.5, seed)
    pieces = list(model.generate_streaming(wave))
    assert cut_trailing_repetition("".join(pieces)) == model.transcribe(wave).text
    assert len(pieces) > 1


def test_bytes_that_make_one_character_come_together() -> None:
    # This model says single bytes, most of them no characters; all must be said in the end.
    model, wave = random_model(), clip(1.5)
    (ids,) = model.generate(*model.need_processor().features([wave]))
    spelt = decode_text(model, GeneratedTokens(ids, []))
    assert "".join(model.generate_streaming(wave)) == spelt.strip()


def test_streaming_a_long_clip_puts_spaces_between_its_parts(model: ASRModel) -> None:
    wave = clip(33.0)
    first, second = (
        "".join(model.generate_streaming(piece.samples)) for piece in cut(model, 0, wave)
    )
    assert "".join(model.generate_streaming(wave, segment="fixed")) == f"{first} {second}"


def test_pieces_come_before_the_end(model: ASRModel) -> None:
    pieces = model.generate_streaming(clip(1.5))
    first = next(pieces)
    assert first
    assert list(pieces)


@pytest.mark.parametrize(
    ("text", "settled"),
    [
        ("hello", "hello"),
        ("hello \ufffd", "hello"),
        ("<think>\n\n", ""),
        ("<think>\n\n</think>\n\nhi", "hi"),
        ("so <thi", "so"),
        ("a < b", "a < b"),
    ],
)
def test_settled_text(text: str, settled: str) -> None:
    assert settled_text(text) == settled


@pytest.mark.parametrize(
    ("audio", "several"),
    [
        ([np.zeros(3)], True),
        (["a.wav"], True),
        ([], True),
        ([0.1, 0.2], False),
        ([np.float32(0.1)], False),
        ("a.wav", False),
        (np.zeros(3), False),
    ],
)
def test_one_clip_or_several(audio: Any, several: bool) -> None:
    assert is_several(audio) is several


def test_joining_weighs_confidence_by_words() -> None:
    parts = [
        Transcript("one two three", (), 0.9, 20.0),
        Transcript("", (), 0.1, 25.0, 20.0),
        Transcript("four", (), 0.5, 5.0, 45.0),
    ]
    whole = join(parts, 50.0)
    assert whole.text == "one two three four"
    assert whole.confidence == pytest.approx((0.9**3 * 0.5) ** 0.25)
    assert (whole.start, whole.duration) == (0.0, 50.0)


def test_special_tokens_are_not_text(model: ASRModel) -> None:
    vocabulary = model.tokenizer.get_vocab()
    ids = [vocabulary["<|im_start|>"], vocabulary["a"], vocabulary["<audio>"]]
    assert decode_text(model, GeneratedTokens(ids, [0.0] * 3)) == "a"
    assert "<|im_start|>" in CHAT_TEMPLATE

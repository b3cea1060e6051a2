from pathlib import Path

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from tinyvoice.model.processing import ASRProcessor
from training.data.batching import BatchSettings
from training.pretraining.frames import N_PHONEMES, FrameCorpus
from training.pretraining.reader import (
    PhonemeReader,
    ReaderSettings,
    build_language_model,
    noisy_frames,
    reading_batches,
)
from training.pretraining.tokenizer import train_tokenizer
from training.synthesis.corpus import CorpusSettings, make_corpus, plan
from training.synthesis.grammar import sentences

TINY = ReaderSettings(width=32, layers=2, heads=2, head_dim=16, intermediate=48)


def tiny_processor() -> ASRProcessor:
    extractor = WhisperFeatureExtractor(feature_size=80, hop_length=320, n_fft=400)
    return ASRProcessor(extractor, train_tokenizer(sentences(300, seed=1), 400))


def test_noisy_frames_are_distributions_near_what_was_spoken() -> None:
    ids = np.array([3, 9, 4, 0], dtype=np.uint8)
    starts = np.array([0.0, 0.2, 0.4, 0.6], dtype=np.float32)
    random = np.random.default_rng(0)
    frames = noisy_frames(ids, starts, 0.8, ReaderSettings(most_substitutions=0.0), random)
    np.testing.assert_allclose(frames.sum(axis=1), 1.0, atol=1e-5)
    assert frames.shape[1] == N_PHONEMES
    spoken = [
        label
        for label, previous in zip(frames.argmax(1), [-1, *frames.argmax(1)], strict=False)
        if label != previous
    ]
    assert spoken == [3, 9, 4, 0]


def test_every_word_has_one_spelling_in_tokens() -> None:
    tokenizer = tiny_processor().tokenizer
    first = tokenizer("timer", add_special_tokens=False).input_ids
    later = tokenizer("the timer", add_special_tokens=False).input_ids
    assert later[-len(first) :] == first
    assert tokenizer.decode(later).strip() == "the timer"


def test_the_reader_learns_to_read_a_handful_of_sentences(tmp_path: Path) -> None:
    processor = tiny_processor()
    settings = CorpusSettings()
    texts = ["call mom", "stop the music", "what time is it", "turn on the lights"]
    manifest = make_corpus(
        plan(texts, ["espeak/en-us"], settings), tmp_path, settings=settings, workers=1
    )
    corpus = FrameCorpus([manifest])
    torch.manual_seed(0)
    language_model = build_language_model(TINY, len(processor.tokenizer))
    model = PhonemeReader(language_model, TINY, processor.audio_token_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batches = reading_batches(corpus, processor, TINY, BatchSettings(), 0, workers=0)
    losses = []
    for _, batch in zip(range(80), batches, strict=False):
        loss, _ = model(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 4.0
    assert losses[-1] < 0.5

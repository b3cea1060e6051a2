from pathlib import Path

import torch
from transformers import WhisperFeatureExtractor

from training.data.augmentation import Augmentation
from training.data.batching import BatchSettings
from training.pretraining.encoder import (
    EncoderSettings,
    FramewiseLoss,
    FramewiseRecogniser,
    chunk_of_step,
    frame_batches,
)
from training.pretraining.features import LogMel
from training.pretraining.frames import FrameCorpus
from training.synthesis.corpus import CorpusSettings, make_corpus, plan

TINY = EncoderSettings(width=32, layers=2, heads=2, intermediate=48)


def test_it_learns_the_phonemes_of_one_voice(tmp_path: Path) -> None:
    settings = CorpusSettings(rate=(1.0, 1.0), pitch=(1.0, 1.0))
    texts = ["call mom", "stop the music", "what time is it", "turn on the lights"]
    corpus = FrameCorpus(
        [make_corpus(plan(texts, ["espeak/en-us"], settings), tmp_path, settings=settings)]
    )
    log_mel = LogMel(WhisperFeatureExtractor(feature_size=80, hop_length=320, n_fft=400))
    torch.manual_seed(0)
    model = FramewiseRecogniser(TINY)
    loss = FramewiseLoss(model, TINY)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batches = frame_batches(corpus, Augmentation(), log_mel, BatchSettings(), 0, workers=0)
    accuracies = []
    for step, batch in zip(range(60), batches, strict=False):
        value, numbers = loss(batch, step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        accuracies.append(numbers["accuracy"])
    assert accuracies[0] < 0.2
    assert accuracies[-1] > 0.8


def test_the_chunk_mask_of_a_step_is_the_same_after_a_resume() -> None:
    chunks = [chunk_of_step(TINY, step) for step in range(200)]
    assert chunks == [chunk_of_step(TINY, step) for step in range(200)]
    given = [chunk for chunk in chunks if chunk is not None]
    assert 60 < len(given) < 140
    assert min(given) >= TINY.chunk_frames[0]
    assert max(given) <= TINY.chunk_frames[1]

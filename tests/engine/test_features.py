"""Incremental log-mel against the processor's features of the whole clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.miniature import clip, feature_extractor, tokenizer
from tinyvoice.engine.features import IncrementalLogMel
from tinyvoice.model.processing import ASRProcessor


@pytest.fixture(scope="module", params=[160, 320])
def processor(request: pytest.FixtureRequest) -> ASRProcessor:
    extractor = feature_extractor()
    extractor.hop_length = request.param
    return ASRProcessor(extractor, tokenizer())


def test_frames_are_the_offline_ones_once_the_loudest_is_past(processor: ASRProcessor) -> None:
    samples = clip(3.0)
    samples[:40] = 0.9
    expected, _ = processor.features([samples])
    log_mel = IncrementalLogMel(processor)
    state = log_mel.new_state()
    final = []
    for packet in np.split(samples, [3, 4, 300, 900, 901, 5000, 30000, 47990]):
        (state,), (frames,) = log_mel.advance([state], [packet])
        final.append(frames.normalised()[: frames.final])
        tail = frames.normalised()[frames.final :]
    together = torch.cat((*final, tail)).T
    torch.testing.assert_close(together, expected[0], atol=1e-5, rtol=0)

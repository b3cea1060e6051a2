"""Speech through a bad network is still understood."""

from __future__ import annotations

import random

import numpy as np

from tests.webrtc.impaired_network import heard, measure, spoken
from tinyvoice.benchmark.speech import bundled_speech
from tinyvoice.model.modeling import ASRModel


def test_jitter_and_reordering_change_no_sample() -> None:
    packets = spoken(bundled_speech()[0])
    straight, _ = heard(packets, 0.0, 0.0, random.Random(0))
    # The first packet, which nothing can be put before, is not overtaken in this draw.
    jumbled, filled_ms = heard(packets, 0.0, 0.06, random.Random(3))
    assert filled_ms == 0
    np.testing.assert_array_equal(jumbled, straight)


def test_few_words_are_lost() -> None:
    model = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    assert measure(model, bundled_speech()[:5], 0.05, 0.06, 1).rate <= 0.3

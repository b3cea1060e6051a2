"""Speech through a bad network is still understood."""

from __future__ import annotations

import random

import numpy as np

from tests.webrtc.impaired_network import (
    WORST_EXPECTED,
    Conditions,
    heard,
    measure,
    spoken,
    with_copies,
)
from tinyvoice.benchmark.speech import bundled_speech
from tinyvoice.model.modeling import ASRModel


def test_jitter_and_reordering_change_no_sample() -> None:
    packets = spoken(bundled_speech()[0])
    straight, _ = heard(packets, Conditions(), random.Random(0))
    # The first packet, which nothing can be put before, is not overtaken in this draw.
    for network, seed in ((Conditions(jitter_s=0.06), 3), (Conditions(overtaken=0.3), 0)):
        jumbled, filled_ms = heard(packets, network, random.Random(seed))
        assert filled_ms == 0
        np.testing.assert_array_equal(jumbled, straight)


def test_copies_bring_back_what_is_lost() -> None:
    packets = spoken(bundled_speech()[0])
    network = Conditions(loss=0.1, jitter_s=0.06)
    _, without_ms = heard(packets, network, random.Random(0))
    _, filled_ms = heard(with_copies(packets), network, random.Random(0))
    assert filled_ms < without_ms / 3


def test_few_words_are_lost() -> None:
    model = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    clips = bundled_speech()[:5]
    assert measure(model, clips, WORST_EXPECTED, 1).rate <= 0.3

"""The embedded model and speech to try it with."""

from __future__ import annotations

import pytest

from tinyvoice.benchmark.speech import Clip, bundled_speech
from tinyvoice.model.modeling import ASRModel


@pytest.fixture(scope="session")
def model() -> ASRModel:
    """The embedded checkpoint in float32, on one thread."""
    return ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def clips() -> list[Clip]:
    """Twenty sentences of a few seconds and four of about ten."""
    return bundled_speech()

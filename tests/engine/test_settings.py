"""Settings out of their range are refused by name."""

from __future__ import annotations

import pytest

from tinyvoice.engine.settings import StreamSettings
from tinyvoice.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 1.5),
        ("threshold", float("nan")),
        ("silence_ms", 0),
        ("prefix_padding_ms", -1),
        ("endpointing", "psychic"),
        ("eagerness", "wild"),
        ("partial_interval_ms", True),
        ("volume", 11),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        StreamSettings().changed(**{name: value})
    assert caught.value.key == name

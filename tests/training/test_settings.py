"""Configurations become typed settings, and mistakes are refused by their full name."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from tinyvoice.errors import ConfigurationError
from training.settings import parse_settings


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    steps: int | None = None
    name: str = "x"
    fast: bool = False
    inner: Inner = field(default_factory=Inner)
    pair: tuple[int, int] = (1, 2)
    several: tuple[Inner, ...] = ()
    anything: dict[str, Any] = field(default_factory=dict)


def test_nested_values_are_parsed() -> None:
    parsed = parse_settings(
        Outer,
        {
            "steps": 3,
            "inner": {"rate": "1e-3", "kind": "b"},
            "pair": [3, 4],
            "several": [{"rate": 2}, {}],
            "anything": {"x": None},
        },
        "",
    )
    assert parsed == Outer(
        steps=3,
        inner=Inner(0.001, "b"),
        pair=(3, 4),
        several=(Inner(2.0), Inner()),
        anything={"x": None},
    )
    assert isinstance(parsed.several[0].rate, float)


def test_nothing_gives_the_defaults() -> None:
    assert parse_settings(Outer, None, "") == parse_settings(Outer, {"steps": None}, "") == Outer()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": 3}, r"run\.step is not a setting.*steps"),
        ({"inner": {"rat": 1}}, r"run\.inner\.rat is not a setting"),
        ({"inner": {"kind": "c"}}, r"run\.inner\.kind is 'c', and must be one of a, b"),
        ({"inner": 3}, r"run\.inner is 3, and must be a group"),
        ({"inner": {"rate": "fast"}}, r"run\.inner\.rate is 'fast', and must be a number"),
        ({"inner": {"rate": True}}, r"run\.inner\.rate"),
        ({"steps": 1.5}, r"run\.steps is 1\.5, and must be a whole number"),
        ({"steps": True}, r"run\.steps is True"),
        ({"name": 3}, r"run\.name is 3, and must be a string"),
        ({"name": None}, r"run\.name is None"),
        ({"fast": 1}, r"run\.fast is 1, and must be true or false"),
        ({"pair": [1]}, r"run\.pair is \[1\], and must be a list of 2"),
        ({"pair": "12"}, r"run\.pair is '12', and must be a list"),
        ({"several": [{"kind": 0}]}, r"run\.several\.kind is 0"),
        ({"anything": [1]}, r"run\.anything"),
    ],
)
def test_mistakes_are_named_by_their_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse_settings(Outer, values, "run")
    assert caught.value.key is not None
    assert caught.value.key.startswith("run.")

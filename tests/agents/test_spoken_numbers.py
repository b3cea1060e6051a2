"""Numbers in sentences."""

import pytest

from agents.spoken_numbers import numbers_in


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("what is twenty nine times seven", [29, 7]),
        ("six seven", [6, 7]),
        ("five thousand six hundred and four", [5604]),
        ("two hundred million", [200_000_000]),
        ("a hundred", []),
        ("one hundred and nobody", [100]),
        ("eight divided by 2.5", [8, 2.5]),
        ("nineteen fifty", [19, 50]),
        ("nothing", []),
    ],
)
def test_numbers(text: str, numbers: list[float]) -> None:
    assert numbers_in(text) == numbers

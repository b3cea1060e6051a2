"""A recorded conversation with the receptionist, and what it leaves in the file."""

from __future__ import annotations

import sqlite3
from datetime import date
from typing import Any

import pytest

from agents import receptionist
from agents.receptionist import date_of, understood
from agents.settings import AgentSettings
from tests.agents.talk import talking
from tinyvoice.model.modeling import ASRModel
from tinyvoice.voices.espeak_process import EspeakProcess

COLUMNS = "day, time, people, name"


def bookings(settings: AgentSettings) -> list[Any]:
    with sqlite3.connect(settings.folder / "bookings.sqlite") as connection:
        return connection.execute(f"SELECT {COLUMNS} FROM bookings").fetchall()


async def test_a_table_is_booked_after_all_is_said_and_confirmed(
    model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    async with talking(lambda t: receptionist.build_pipeline(t, settings), model, mouth) as talk:
        await talk.answer("i'd like to book a table for three people", "for which day")
        await talk.answer("on friday", "at what time")
        await talk.answer("at seven o'clock", "under what name")
        heard = await talk.answer("my name is peter", "is that right")
        assert "three people on friday at seven o'clock under the name peter" in heard
        await talk.answer("no make it five people", "five people on friday")
        await talk.answer("yes please", "your table is booked")
    day = date_of("friday", date.today()).isoformat()
    assert bookings(settings) == [(day, "seven o'clock", 5, "peter")]


async def test_a_file_that_cannot_be_written_is_told_and_tried_again(
    model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    file = settings.folder / "bookings.sqlite"
    file.mkdir()  # in the place of the file
    async with talking(lambda t: receptionist.build_pipeline(t, settings), model, mouth) as talk:
        await talk.answer("i'd like to book a table for three people", "day")
        await talk.answer("on friday at seven o'clock", "name")
        await talk.answer("my name is peter", "is that right")
        await talk.answer("yes please", "try again")
        file.rmdir()
        await talk.answer("yes please", "your table is booked")
    assert len(bookings(settings)) == 1


@pytest.mark.parametrize(
    ("said", "asked", "told"),
    [
        ("for three people at twenty past six please", None, ["people=3", "time=twenty past six"]),
        ("a table for two on friday at eight", None, ["people=2", "day=friday", "time=eight"]),
        ("reserve a table for 12 people tonight", None, ["people=12", "day=today"]),
        ("at half past seven", None, ["time=half past seven"]),
        ("four", "people", ["people=4"]),
        ("eight thirty", "time", ["time=eight thirty"]),
        ("nine", "time", ["time=nine"]),
        ("peter", "name", ["name=peter"]),
        ("it's peter", "name", ["name=peter"]),
        ("under the name of bob", None, ["name=bob"]),
        ("make it five people", "right?", ["people=5"]),
        ("hello", None, []),
        ("yes", "right?", []),
    ],
)
def test_what_a_sentence_tells(said: str, asked: str | None, told: list[str]) -> None:
    assert [f"{key}={value}" for key, value in understood(said, asked).items()] == told


def test_a_weekday_is_the_next_one() -> None:
    monday = date(2026, 11, 23)
    assert date_of("friday", monday) == date(2026, 11, 27)
    assert date_of("monday", monday) == date(2026, 11, 30)
    assert date_of("tomorrow", monday) == date(2026, 11, 24)
    assert date_of("today", monday) == monday

"""A recorded conversation with the receptionist, and what it leaves in the file."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date, datetime, time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agents import receptionist
from agents.receptionist import (
    SEATS,
    Booking,
    BookingDesk,
    Bookings,
    RefusalError,
    Script,
    date_of,
    time_in_words,
    time_of,
    understood,
)
from agents.settings import AgentSettings
from tests.agents.talk import talking
from tinyvoice.integrations.scripted_llm import Call, Result, Turn
from tinyvoice.model.modeling import ASRModel
from tinyvoice.voices.espeak_process import EspeakProcess

COLUMNS = "day, time, people, name"
FRIDAY = date(2026, 11, 27)


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
    assert bookings(settings) == [(day, "19:00", 5, "peter")]


# --- the same in writing --------------------------------------------------------------------------


class Guest:
    """Speaks with the script and its functions, without sound; it is Monday at five."""

    def __init__(self, file: Path) -> None:
        self.script = Script()
        self.now = datetime(2026, 11, 23, 17)
        self.bookings = Bookings(file)
        self.desk = BookingDesk(self.bookings, now=lambda: self.now)

    async def call(self, name: str, /, **arguments: Any) -> Any:
        """What a function returns."""
        results: list[Any] = []

        async def take(result: Any) -> None:
            results.append(result)

        params: Any = SimpleNamespace(result_callback=take)
        await getattr(self.desk, name)(params, **arguments)
        [result] = results
        return result

    async def say(self, said: str) -> str:
        """What the receptionist answers; a function that raises fails as in a pipeline."""
        reply = self.script(Turn(said, (), ()))
        while isinstance(reply, Call):
            try:
                result = await self.call(reply.name, **reply.arguments)
            except (sqlite3.Error, OSError):
                result = f"The function `{reply.name}` failed and returned no result."
            reply = self.script(Turn("", (Result(reply.name, result),), ()))
        assert isinstance(reply, str)
        return reply

    async def book(self, said: str = "a table for two on friday at seven") -> str:
        """A whole booking."""
        await self.say(said)
        await self.say("my name is peter")
        return await self.say("yes")

    def rows(self) -> list[Any]:
        """What is in the file."""
        with closing(sqlite3.connect(self.bookings.file)) as connection:
            return connection.execute(f"SELECT {COLUMNS} FROM bookings").fetchall()


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "bookings.sqlite")


async def test_corrections_are_taken_at_any_time(guest: Guest) -> None:
    assert await guest.say("I'd like a table for three people.") == "For which day?"
    assert await guest.say("No, for four people.") == "For which day?"
    assert await guest.say("On Friday.") == "At what time?"
    assert await guest.say("On Saturday, sorry.") == "At what time?"
    await guest.say("half past seven")
    heard = await guest.say("Peter")
    assert heard == (
        "A table for 4 people on saturday at half past seven under the name peter. Is that right?"
    )
    assert await guest.say("That's not right.") == "What shall I change?"
    assert await guest.say("the time") == "At what time?"
    assert "at eight o'clock under the name peter" in await guest.say("eight")
    assert "under the name anna" in await guest.say("yes but the name is anna")
    assert guest.rows() == []
    assert await guest.say("Yes, that is right.") == "Your table is booked. Thank you."
    assert guest.rows() == [("2026-11-28", "20:00", 4, "anna")]


@pytest.mark.parametrize("said", ["no", "that's not right", "i am not sure", "wait", "yes but"])
async def test_only_a_plain_yes_books(guest: Guest, said: str) -> None:
    await guest.say("a table for two on friday at seven")
    await guest.say("my name is peter")
    assert await guest.say(said) == "What shall I change?"
    assert guest.rows() == []


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("a table for twenty five people", "We have tables for one to 20 people. For how many"),
        ("a table for zero people", "We have tables for one to 20 people."),
        ("for two people today at four", "That time is over. At what time?"),
        ("for two people on friday at ten", "We have tables from twelve o'clock to half past"),
        ("for two people on friday at eight in the morning", "We have tables from twelve"),
    ],
)
async def test_what_cannot_be_is_said_and_asked_again(guest: Guest, said: str, answer: str) -> None:
    assert (await guest.say(said)).startswith(answer)
    assert guest.desk.booking.missing


async def test_a_time_that_passes_while_the_guest_thinks_is_not_booked(guest: Guest) -> None:
    await guest.say("a table for two today at six")
    await guest.say("my name is peter")
    guest.now = datetime(2026, 11, 23, 18, 30)
    assert await guest.say("yes") == "That time is over. At what time?"
    assert guest.rows() == []


async def test_a_full_house_offers_the_nearest_time(guest: Guest) -> None:
    for name in ("a", "b"):
        guest.bookings.add(Booking(20, FRIDAY, time(19), name))
    heard = await guest.say("a table for two on friday at half past seven")
    assert heard == (
        "We are full at that time, but there is a table at nine o'clock. At what time?"
    )
    assert await guest.say("at nine") == "Under what name?"
    await guest.say("peter")
    assert await guest.say("yes") == "Your table is booked. Thank you."


async def test_a_table_that_goes_before_the_yes_is_not_promised(guest: Guest) -> None:
    await guest.say("a table for twenty people on friday at seven")
    await guest.say("my name is peter")
    for name in ("a", "b"):
        guest.bookings.add(Booking(20, FRIDAY, time(19), name))
    assert (await guest.say("yes")).startswith("We are full at that time")
    assert len(guest.rows()) == 2


def test_a_day_without_a_seat_is_said(tmp_path: Path) -> None:
    bookings = Bookings(tmp_path / "bookings.sqlite")
    for hour in (12, 14, 16, 18, 20):
        for name in ("a", "b"):
            bookings.add(Booking(20, FRIDAY, time(hour), name))
    # Who comes at half past nine stays when those of eight have not left.
    with pytest.raises(RefusalError, match="We are full on that day"):
        bookings.add(Booking(1, FRIDAY, time(21), "c"))


def test_seats_are_counted_at_every_moment(tmp_path: Path) -> None:
    bookings = Bookings(tmp_path / "bookings.sqlite")
    bookings.add(Booking(20, FRIDAY, time(17), "a"))
    bookings.add(Booking(20, FRIDAY, time(19), "b"))
    bookings.add(Booking(20, FRIDAY, time(18), "c"))  # never more than 40 at once
    with pytest.raises(RefusalError):
        bookings.add(Booking(1, FRIDAY, time(17, 30), "d"))
    bookings.add(Booking(20, FRIDAY, time(20), "e"))


def test_many_who_call_at_once_get_no_more_than_there_is(tmp_path: Path) -> None:
    file = tmp_path / "bookings.sqlite"

    def call(number: int) -> bool:
        try:
            Bookings(file).add(Booking(10, FRIDAY, time(19), f"guest {number}"))
        except RefusalError:
            return False
        return True

    with ThreadPoolExecutor(8) as callers:
        assert sum(callers.map(call, range(16))) == SEATS // 10


async def test_a_yes_that_comes_twice_books_once(guest: Guest) -> None:
    await guest.book()
    again, once_more = await asyncio.gather(guest.call("confirm"), guest.call("confirm"))
    assert again == once_more
    assert again["number"] == 1
    assert len(guest.rows()) == 1
    await guest.say("a table for two on friday at seven")
    await guest.say("my name is peter")
    assert (await guest.say("yes")).startswith("That table is booked already.")


async def test_an_interrupted_confirmation_still_books_and_once(guest: Guest) -> None:
    await guest.say("a table for two on friday at seven")
    await guest.say("my name is peter")
    task = asyncio.create_task(guest.call("confirm"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await guest.call("confirm"))["number"] == 1
    assert len(guest.rows()) == 1


async def test_a_name_is_a_value_and_nothing_else(guest: Guest) -> None:
    name = "Robert'); DROP TABLE bookings;--"
    result = await guest.call("note", people=2, day="friday", time="19:00", name=name)
    assert result["missing"] == []
    await guest.call("confirm")
    assert guest.rows() == [("2026-11-27", "19:00", 2, name)]
    assert await guest.call("cancel", name="x' OR '1'='1", day="friday") == {
        "missing": ["name", "day"],
        "problem": "I find no such booking.",
    }
    refused = await guest.call("note", name="x" * 1000)
    assert refused["problem"] == "Please say a shorter name."


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"people": 21}, "We have tables for one to 20 people."),
        ({"people": -2}, "We have tables for one to 20 people."),
        ({"people": 2.5}, "We have tables for one to 20 people."),
        ({"people": "many"}, "We have tables for one to 20 people."),
        ({"day": "2026-11-22"}, "That day is over."),
        ({"day": "2027-11-23"}, "We take bookings for the next 60 days."),
        ({"day": "someday"}, "Which day is that? Say a weekday, today or tomorrow."),
        ({"time": "some time"}, "Which time is that?"),
        ({"time": "23:30"}, "We have tables from twelve o'clock to half past nine."),
    ],
)
async def test_what_a_language_model_gets_wrong_is_refused(
    guest: Guest, told: dict[str, Any], problem: str
) -> None:
    result = await guest.call("note", **told)
    assert result == {"missing": ["people", "day", "time", "name"], "problem": problem}


async def test_a_language_model_may_give_numbers_as_words_and_dates(guest: Guest) -> None:
    told = {"people": "four", "day": "2026-12-04", "time": "19:45", "name": "Ann"}
    result = await guest.call("note", **told)
    sentence = "A table for 4 people on friday, December 4 at quarter to eight under the name Ann."
    assert result == {"missing": [], "to_confirm": sentence}


async def test_cancelling_forgets_what_is_under_way(guest: Guest) -> None:
    await guest.say("a table for two on friday at seven")
    assert await guest.say("never mind") == "All right."
    assert await guest.say("yes") == "For how many people?"


async def test_what_was_booked_can_be_cancelled(guest: Guest) -> None:
    await guest.book()
    heard = await guest.say("please cancel my table")
    assert heard.startswith("Shall I cancel it? A table for 2 people on friday at seven o'clock")
    assert await guest.say("no") == "All right."
    assert len(guest.rows()) == 1
    await guest.say("cancel it")
    assert await guest.say("yes") == "I have cancelled it."
    assert guest.rows() == []


async def test_a_table_of_an_earlier_call_is_cancelled_by_name_and_day(
    guest: Guest, tmp_path: Path
) -> None:
    await guest.book()
    later = Guest(tmp_path / "bookings.sqlite")
    assert await later.say("I want to cancel a table.") == "Under what name?"
    assert await later.say("peter") == "For which day?"
    assert (await later.say("on saturday")).startswith("I find no such booking. Under what name?")
    await later.say("peter")
    assert "A table for 2 people on friday" in await later.say("on friday")
    assert await later.say("yes") == "I have cancelled it."
    assert guest.rows() == []
    assert await later.say("I'd like to book a table") == "For how many people?"


async def test_a_file_that_cannot_be_written_is_told_and_tried_again(guest: Guest) -> None:
    await guest.say("a table for two on friday at seven")
    await guest.say("my name is peter")
    guest.bookings.file.unlink()
    guest.bookings.file.mkdir()  # in the place of the file
    assert await guest.say("yes") == "Sorry, I could not do that. Please try again."
    guest.bookings.file.rmdir()
    assert await guest.say("yes please") == "Your table is booked. Thank you."
    assert len(guest.rows()) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seven o'clock", time(19)),
        ("half past seven", time(19, 30)),
        ("a quarter to eight in the evening", time(19, 45)),
        ("twenty five to eight", time(19, 35)),
        ("eight forty five", time(20, 45)),
        ("7.30 p.m.", time(19, 30)),
        ("19:30", time(19, 30)),
        ("noon", time(12)),
        ("five to one", time(12, 55)),
    ],
)
def test_a_time_is_understood(text: str, expected: time) -> None:
    assert time_of(text) == expected
    assert time_of(time_in_words(expected)) == expected


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
        ("a table for twenty five people", None, ["people=25"]),
        ("a table for eight thirty", None, ["time=eight thirty"]),
        ("just me", "people", ["people=1"]),
        ("no for four", "right?", ["people=4"]),
        ("make it eight o'clock", "right?", ["time=eight o'clock"]),
        ("my name is peter and i come at seven", None, ["time=seven", "name=peter"]),
        ("what did you say", "name", []),
        ("hello", None, []),
        ("yes", "right?", []),
    ],
)
def test_what_a_sentence_tells(said: str, asked: str | None, told: list[str]) -> None:
    pairs = [f"{key}={value}" for key, value in understood(said, asked).items()]
    assert sorted(pairs) == sorted(told)


def test_a_weekday_is_the_next_one() -> None:
    monday = date(2026, 11, 23)
    assert date_of("friday", monday) == date(2026, 11, 27)
    assert date_of("monday", monday) == date(2026, 11, 30)
    assert date_of("tomorrow", monday) == date(2026, 11, 24)
    assert date_of("today", monday) == monday

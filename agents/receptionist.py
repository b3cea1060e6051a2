"""A restaurant's receptionist: books a table, asks for what is missing, confirms, writes it down.

The functions are the same whoever calls them, a language model or the script that stands in for
one: `note` fills in what the guest has said, `confirm` writes the booking to a SQLite file, `drop`
forgets it. So the agent cannot promise a table that is not in the file.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.llm_service import FunctionCallParams
from pipecat.transports.base_transport import BaseTransport

from agents.conversation import aggregators, hold, worker_for
from agents.settings import AgentSettings
from agents.spoken_numbers import numbers_in
from tinyvoice.integrations.scripted_llm import Call, Reply, Turn
from tinyvoice.integrations.spoken_failures import SpokenFailures

GREETING = "Hello. Would you like to book a table?"
INSTRUCTIONS = """\
You answer the telephone of a restaurant and book tables. Your answers are spoken: one or two short
sentences, no lists, no symbols. Whatever the guest tells you of a booking, call `note` with it.
Ask for what it says is missing, one thing at a time. When nothing is missing, read the booking back
and ask whether it is right; only when the guest says yes, call `confirm`. If they do not want the
table any more, call `drop`. Never say that a table is booked before `confirm` says so.
"""
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
MOST_PEOPLE = 20


@dataclass(frozen=True)
class Booking:
    """What the guest has said so far."""

    people: int | None = None
    day: str | None = None
    """A weekday, "today" or "tomorrow"."""
    time: str | None = None
    """In words, such as "seven o'clock"."""
    name: str | None = None

    @property
    def missing(self) -> list[str]:
        """What is still to be asked for, in order."""
        return [field for field in ("people", "day", "time", "name") if not getattr(self, field)]

    def sentence(self) -> str:
        """The booking in words."""
        people = "one person" if self.people == 1 else f"{self.people} people"
        day = self.day if self.day in ("today", "tomorrow") else f"on {self.day}"
        return f"A table for {people} {day} at {self.time} under the name {self.name}."


@dataclass
class BookingDesk:
    """The functions, and the booking under way."""

    file: Path
    booking: Booking = field(default_factory=Booking)

    async def note(
        self,
        params: FunctionCallParams,
        people: int | None = None,
        day: str | None = None,
        time: str | None = None,
        name: str | None = None,
    ) -> None:
        """Note what the guest said of the booking; only what was said.

        Args:
            people: How many will come.
            day: A weekday, "today" or "tomorrow".
            time: The time of day in words, such as "seven o'clock".
            name: The name for the booking.
        """
        told: dict[str, Any] = {"people": people, "day": day, "time": time, "name": name}
        problem = None
        if people is not None and not 1 <= people <= MOST_PEOPLE:
            problem = f"We have tables for one to {MOST_PEOPLE} people."
            del told["people"]
        if day is not None and day.lower() not in (*WEEKDAYS, "today", "tomorrow"):
            problem = "A day is a weekday, today or tomorrow."
            del told["day"]
        self.booking = replace(self.booking, **{key: of for key, of in told.items() if of})
        await params.result_callback(self._state() | ({"problem": problem} if problem else {}))

    async def confirm(self, params: FunctionCallParams) -> None:
        """Book the table. Only after the guest has heard the booking and said yes."""
        if self.booking.missing:
            await params.result_callback(self._state())
            return
        number = write(self.file, self.booking)
        sentence, self.booking = self.booking.sentence(), Booking()
        await params.result_callback({"booked": sentence, "number": number})

    async def drop(self, params: FunctionCallParams) -> None:
        """Forget the booking under way."""
        self.booking = Booking()
        await params.result_callback({"dropped": True})

    def _state(self) -> dict[str, Any]:
        if self.booking.missing:
            return {"missing": self.booking.missing}
        return {"missing": [], "to_confirm": self.booking.sentence()}


def write(file: Path, booking: Booking, today: date | None = None) -> int:
    """Add a booking to the SQLite file, which is made if need be; its number.

    Raises:
        sqlite3.Error, OSError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS bookings"
            " (number INTEGER PRIMARY KEY, day TEXT, time TEXT, people INTEGER, name TEXT)"
        )
        day = date_of(booking.day or "today", today or date.today())
        cursor = connection.execute(
            "INSERT INTO bookings (day, time, people, name) VALUES (?, ?, ?, ?)",
            (day.isoformat(), booking.time, booking.people, booking.name),
        )
    return int(cursor.lastrowid or 0)


def date_of(day: str, today: date) -> date:
    """The next day of that name; on a Friday, "friday" is in a week."""
    if day.lower() in WEEKDAYS:
        ahead = (WEEKDAYS.index(day.lower()) - today.weekday()) % 7
        return today + timedelta(days=ahead or 7)
    return today + timedelta(days=1 if day.lower() == "tomorrow" else 0)


# --- the script that stands in for a language model ---------------------------------------------

_QUESTIONS = {
    "people": "For how many people?",
    "day": "For which day?",
    "time": "At what time?",
    "name": "Under what name?",
}
_HOUR = r"(?:\d{1,2}(?::\d\d)?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
_PEOPLE = re.compile(r"(?:table )?(?:for|make it|make that) (\w+)(?= (?:people|persons|guests))")
_TABLE_FOR = re.compile(r"table for (\w+)\b")
_DAY = re.compile(rf"\b({'|'.join(WEEKDAYS)}|today|tomorrow|tonight)\b")
_TIME = re.compile(
    r"\b(?:at )?((?:half|(?:a )?quarter|twenty|ten|five|twenty five)(?: minutes)? (?:past|to) "
    rf"{_HOUR}|{_HOUR} (?:o'clock|thirty|fifteen|forty five|[ap]\.?m\b\.?))"
)
_AT = re.compile(rf"\bat ({_HOUR})\b(?! (?:people|persons|guests))")
_NAME = re.compile(r"(?:under(?: the name(?: of)?)?|my name is|the name is|this is|i am) (.+)$")
_YES = re.compile(r"\b(?:yes|yeah|yep|sure|correct|right|exactly|perfect|please do)\b")
_NO = re.compile(r"^(?:no|nope|not quite|wrong)\b")
_DROP = re.compile(r"\b(?:cancel|forget it|never mind|don't want)\b")


class Script:
    """Asks for one thing after the other, and understands what it has asked for."""

    def __init__(self) -> None:
        self._asked: str | None = None  # a field of the booking, "right?" or None

    def __call__(self, turn: Turn) -> Reply:
        """The next thing to say or to do."""
        if turn.results:
            return self._after(turn)
        said = turn.said.lower().strip(" .!?")
        asked, self._asked = self._asked, None
        if _DROP.search(said):
            return Call("drop")
        told = understood(said, asked)
        if told:
            return Call("note", told)
        if asked == "right?" and _YES.search(said) and not _NO.search(said):
            return Call("confirm")
        if asked == "right?" and _NO.search(said):
            self._asked = "right?"
            return "What shall I change?"
        if asked is None and _NO.search(said):
            return "All right. Goodbye."
        if asked is None and (_YES.search(said) or "table" in said or "book" in said):
            return Call("note")
        self._asked = asked
        question = _QUESTIONS.get(asked or "", "Is that right?" if asked else GREETING)
        return f"Sorry, I did not understand. {question}"

    def _after(self, turn: Turn) -> str:
        result = turn.results[-1]
        if result.failed:
            self._asked = "right?" if result.name == "confirm" else None
            return "Sorry, I could not do that. Please try again."
        if result.name == "drop":
            return "All right, I have dropped it."
        if "booked" in result.output:
            return "Your table is booked. Thank you."
        problem = result.output.get("problem", "")
        if result.output["missing"]:
            self._asked = result.output["missing"][0]
            return f"{problem} {_QUESTIONS[self._asked]}".strip()
        self._asked = "right?"
        return f"{problem} {result.output['to_confirm']} Is that right?".strip()


def understood(said: str, asked: str | None = None) -> dict[str, Any]:
    """What a sentence tells of a booking; a bare answer is one to what was ``asked``."""
    told: dict[str, Any] = {}
    if people := _PEOPLE.search(said) or _TABLE_FOR.search(said):
        told["people"] = people[1]
    elif asked == "people" and numbers_in(said):
        told["people"] = said
    if "people" in told:
        told["people"] = next((int(number) for number in numbers_in(told["people"])), None)
    if day := _DAY.search(said):
        told["day"] = {"tonight": "today"}.get(day[1], day[1])
    if time := _TIME.search(said) or _AT.search(said):
        told["time"] = time[1]
    elif asked == "time" and (hour := re.search(rf"\b{_HOUR}\b", said)):
        told["time"] = hour[0]
    if name := _NAME.search(said):
        told["name"] = name[1]
    elif asked == "name" and said and not _NO.search(said):
        told["name"] = said.removeprefix("it is ").removeprefix("it's ")
    return {key: value for key, value in told.items() if value is not None}


def build_pipeline(transport: BaseTransport, settings: AgentSettings) -> PipelineWorker:
    """Ear, language model or script with the desk's functions, voice."""
    hearing = settings.hearing()
    desk = BookingDesk(settings.folder / "bookings.sqlite")
    llm = settings.language_model(Script(), INSTRUCTIONS)
    context = aggregators(LLMContext(tools=[desk.note, desk.confirm, desk.drop]))
    return worker_for(
        Pipeline(
            [
                transport.input(),
                hearing,
                context.user(),
                llm,
                SpokenFailures(llm, hearing, patience_s=settings.patience_s),
                settings.speech(),
                transport.output(),
                context.assistant(),
            ]
        )
    )


async def run(transport: BaseTransport, settings: AgentSettings) -> None:
    """Hold one conversation."""
    await hold(build_pipeline(transport, settings), transport, GREETING)

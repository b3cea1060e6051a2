"""A restaurant's receptionist: books a table, asks for what is missing, confirms, writes it down.

The functions are the same whoever calls them, a language model or the script that stands in for
one: `note` fills in what the guest has said, `cancel` looks up a booking that was made before,
`confirm` carries out what has been read back, `drop` forgets it. So the agent cannot promise a
table that is not in the SQLite file, nor one that the house does not have: `Bookings` counts the
seats, also where several guests call at the same time.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.llm_service import FunctionCallParams
from pipecat.transports.base_transport import BaseTransport

from tinyvoice.integrations.scripted_llm import Call, Reply, Result, Turn
from tinyvoice.integrations.spoken_failures import SpokenFailures

from .conversation import aggregators, hold, worker_for
from .settings import AgentSettings
from .spoken_numbers import NUMBER_WORDS, numbers_in

GREETING = "Hello. Would you like to book a table?"
INSTRUCTIONS = """\
You answer the telephone of a restaurant and book tables. Your answers are spoken: one or two short
sentences, no lists, no symbols. Whatever the guest tells you of a booking, also a correction, call
`note` with it. Ask for what it says is missing, one thing at a time, and tell of the problem that
it reports. When nothing is missing, read the booking back and ask whether it is right; only when
the guest says yes, call `confirm`. To cancel a table that was booked before, call `cancel`, read
back what it finds, and call `confirm` after a yes. If they do not want it any more, call `drop`.
Never say that a table is booked or cancelled before `confirm` says so.
"""

# --- the house ----------------------------------------------------------------------------------

OPENS, LAST = dt.time(12), dt.time(21, 30)
"""When tables are booked for."""
SITTING = dt.timedelta(hours=2)
SEATS = 40
MOST_PEOPLE = 20
MOST_DAYS_AHEAD = 60
LONGEST_NAME = 60

WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_HOURS = "twelve one two three four five six seven eight nine ten eleven".split()


class RefusalError(Exception):
    """What the guest wishes cannot be had; the message is said to them."""


@dataclass(frozen=True)
class Booking:
    """A table, or what the guest has said of one so far."""

    people: int | None = None
    day: dt.date | None = None
    time: dt.time | None = None
    name: str | None = None

    @property
    def missing(self) -> list[str]:
        """What is still to be asked for, in order."""
        fields = ("people", "day", "time", "name")
        return [field for field in fields if getattr(self, field) is None]

    @property
    def begins(self) -> dt.datetime:
        """When the guests come; only where day and time are known."""
        assert self.day is not None
        assert self.time is not None
        return dt.datetime.combine(self.day, self.time)

    def sentence(self, today: dt.date) -> str:
        """A whole booking in words."""
        people = "one person" if self.people == 1 else f"{self.people} people"
        begins = f"{day_in_words(self.begins.date(), today)} at {time_in_words(self.begins.time())}"
        return f"A table for {people} {begins} under the name {self.name}."


class Bookings:
    """The SQLite file of what has been booked; made if need be. Its methods block.

    Raises (all methods):
        RefusalError: the house has no such table.
        sqlite3.Error, OSError: the file cannot be read or written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def add(self, booking: Booking) -> int:
        """Book a table and return its number, unless that takes more seats than there are."""
        with self._transaction() as connection:
            booked = self._of_day(connection, booking.begins.date())
            if booking in booked.values():
                raise RefusalError("That table is booked already.")
            _check_room(booking, list(booked.values()))
            row = (booking.begins.date().isoformat(), f"{booking.time:%H:%M}")
            cursor = connection.execute(
                "INSERT INTO bookings (day, time, people, name) VALUES (?, ?, ?, ?)",
                (*row, booking.people, booking.name),
            )
            return int(cursor.lastrowid or 0)

    def check(self, booking: Booking) -> None:
        """Refuse what `add` would refuse for want of seats."""
        with self._transaction() as connection:
            booked = self._of_day(connection, booking.begins.date())
        _check_room(booking, list(booked.values()))

    def find(self, name: str, day: dt.date) -> tuple[int, Booking]:
        """The first booking of a day under that name, and its number."""
        with self._transaction() as connection:
            for number, booking in self._of_day(connection, day).items():
                if (booking.name or "").casefold() == name.casefold():
                    return number, booking
        raise RefusalError("I find no such booking.")

    def remove(self, number: int) -> None:
        """Cancel a booking; no number is given twice, so twice does no harm."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM bookings WHERE number = ?", (number,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and nobody else meanwhile."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS bookings"
                " (number INTEGER PRIMARY KEY AUTOINCREMENT,"
                " day TEXT, time TEXT, people INTEGER, name TEXT)"
            )
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _of_day(self, connection: sqlite3.Connection, day: dt.date) -> dict[int, Booking]:
        rows = connection.execute(
            "SELECT number, time, people, name FROM bookings WHERE day = ? ORDER BY time, number",
            (day.isoformat(),),
        )
        return {
            number: Booking(people, day, dt.time.fromisoformat(time), name)
            for number, time, people, name in rows
        }


def _check_room(wanted: Booking, booked: list[Booking]) -> None:
    """Refuse a table that the house has not, and name the nearest time at which it has one."""
    if _has_room(wanted, booked):
        return
    half_hours = range(OPENS.hour * 60, LAST.hour * 60 + LAST.minute + 1, 30)
    others = [replace(wanted, time=dt.time(*divmod(minutes, 60))) for minutes in half_hours]
    others.sort(key=lambda other: abs(other.begins - wanted.begins))
    for other in others:
        if _has_room(other, booked):
            when = time_in_words(other.begins.time())
            raise RefusalError(f"We are full at that time, but there is a table at {when}.")
    raise RefusalError("We are full on that day.")


def _has_room(wanted: Booking, booked: list[Booking]) -> bool:
    """Whether the seats suffice at every moment of the sitting; they change where one begins."""
    end = wanted.begins + SITTING
    moments = [wanted.begins, *(b.begins for b in booked if wanted.begins < b.begins < end)]
    for moment in moments:
        taken = sum(b.people or 0 for b in booked if b.begins <= moment < b.begins + SITTING)
        if taken + (wanted.people or 0) > SEATS:
            return False
    return True


# --- days and times, in words and out of words ----------------------------------------------------


def date_of(day: str, today: dt.date) -> dt.date:
    """The next day of that name; on a Friday, "friday" is in a week. Also ``2026-11-27``.

    Raises:
        RefusalError: it is no day, is over, or too far ahead.
    """
    day = day.lower().strip()
    if day in WEEKDAYS:
        ahead = (WEEKDAYS.index(day) - today.weekday()) % 7
        return today + dt.timedelta(days=ahead or 7)
    if day in ("today", "tonight", "tomorrow"):
        return today + dt.timedelta(days=int(day == "tomorrow"))
    try:
        date = dt.date.fromisoformat(day)
    except ValueError:
        raise RefusalError("Which day is that? Say a weekday, today or tomorrow.") from None
    if date < today:
        raise RefusalError("That day is over.")
    if date > today + dt.timedelta(days=MOST_DAYS_AHEAD):
        raise RefusalError(f"We take bookings for the next {MOST_DAYS_AHEAD} days.")
    return date


def day_in_words(day: dt.date, today: dt.date) -> str:
    """A day as it is said."""
    ahead = (day - today).days
    if ahead in (0, 1):
        return ("today", "tomorrow")[ahead]
    if ahead <= 7:
        return f"on {WEEKDAYS[day.weekday()]}" + (" next week" if ahead == 7 else "")
    return f"on {WEEKDAYS[day.weekday()]}, {day:%B} {day.day}"


def time_of(text: str) -> dt.time:
    """A time of day: "seven o'clock", "half past seven", "eight thirty", "19:30", "7 pm".

    The house is open from noon, so hours are those after it unless the morning is said.

    Raises:
        RefusalError: it is no time, or not one at which guests come.
    """
    text = re.sub(r"(\d)[:.](\d\d)\b", r"\1 \2", text.lower()).replace("noon", "twelve")
    if relation := re.search(r"\b(past|to)\b", text):
        before, after = text[: relation.start()], numbers_in(text[relation.end() :])
        counted = numbers_in(before)[-1:]
        minutes = [30.0] if "half" in before else [15.0] if "quarter" in before else counted
        numbers = [*after[:1], *(-m if relation[1] == "to" else m for m in minutes)]
    else:
        numbers = [*numbers_in(text)[:2], 0.0]
    if len(numbers) < 2 or not (0 <= numbers[0] < 24 and -60 < numbers[1] < 60):
        raise RefusalError("Which time is that?")
    hour, minute = int(numbers[0]), int(numbers[1])
    if hour < 12 and not re.search(r"\ba\.?m\b|morning", text):
        hour += 12
    time = dt.time(*divmod((60 * hour + minute) % (24 * 60), 60))
    if not OPENS <= time <= LAST:
        first, last = time_in_words(OPENS), time_in_words(LAST)
        raise RefusalError(f"We have tables from {first} to {last}.")
    return time


def time_in_words(time: dt.time) -> str:
    """A time of day as it is said."""
    hour, following = _HOURS[time.hour % 12], _HOURS[(time.hour + 1) % 12]
    if time.minute == 0:
        return f"{hour} o'clock"
    if time.minute in (15, 30):
        return f"{'half' if time.minute == 30 else 'quarter'} past {hour}"
    if time.minute == 45:
        return f"quarter to {following}"
    if time.minute < 30:
        return f"{time.minute} minutes past {hour}"
    return f"{60 - time.minute} minutes to {following}"


# --- the functions --------------------------------------------------------------------------------


class BookingDesk:
    """What a language model can do, and what has been said so far; one for each conversation."""

    def __init__(
        self, bookings: Bookings, now: Callable[[], dt.datetime] = dt.datetime.now
    ) -> None:
        self.booking = Booking()
        """The booking under way."""
        self._bookings = bookings
        self._now = now
        self._to_cancel: tuple[int, Booking] | None = None
        self._cancelled = Booking()  # what is known of a booking to be cancelled
        self._done: dict[str, Any] | None = None  # what was booked last in this conversation
        self._booked: tuple[int, Booking] | None = None
        self._writing = asyncio.Lock()

    async def note(
        self,
        params: FunctionCallParams,
        people: int | None = None,
        day: str | None = None,
        time: str | None = None,
        name: str | None = None,
    ) -> None:
        """Note what the guest said of the booking, or corrected; only what was said.

        Args:
            people: How many will come.
            day: A weekday, "today", "tomorrow", or a date such as "2026-11-27".
            time: The time of day, such as "seven o'clock" or "19:30".
            name: The name for the booking.
        """
        self._to_cancel, self._cancelled = None, Booking()
        problem = self._fill(people=people, day=day, time=time, name=name)
        problem = await self._impossible() or problem
        await params.result_callback(self._state() | ({"problem": problem} if problem else {}))

    async def cancel(
        self, params: FunctionCallParams, name: str | None = None, day: str | None = None
    ) -> None:
        """Look up a booking to cancel it; without name and day, that of this conversation.

        Args:
            name: The name it was booked under.
            day: A weekday, "today", "tomorrow", or a date such as "2026-11-27".
        """
        found, problem = None, None
        try:
            if name:
                self._cancelled = replace(self._cancelled, name=_name_of(name))
            if day:
                when = date_of(day, self._now().date())
                self._cancelled = replace(self._cancelled, day=when)
            found = await self._look_up()
        except RefusalError as refusal:
            problem = str(refusal)
        self._to_cancel = found
        if found is None:
            asked = ("name", "day")
            missing = [field for field in asked if getattr(self._cancelled, field) is None]
            result: dict[str, Any] = {"missing": missing}
        else:
            sentence = found[1].sentence(self._now().date())
            result = {"missing": [], "to_cancel": sentence}
        await params.result_callback(result | ({"problem": problem} if problem else {}))

    async def confirm(self, params: FunctionCallParams) -> None:
        """Book or cancel the table. Only after the guest has heard which one and said yes."""
        # Who speaks meanwhile cancels this call, but not the writing, and may confirm again.
        await params.result_callback(await asyncio.shield(self._carry_out()))

    async def drop(self, params: FunctionCallParams) -> None:
        """Forget the booking under way, or leave the one that was to be cancelled."""
        self.booking, self._to_cancel, self._cancelled = Booking(), None, Booking()
        await params.result_callback({"dropped": True})

    async def _look_up(self) -> tuple[int, Booking] | None:
        """What is to be cancelled, once enough is known; a wrong name or day is forgotten."""
        known = self._cancelled
        if known == Booking():
            return self._booked
        if known.name is None or known.day is None:
            return None
        self._cancelled = Booking()
        return await asyncio.to_thread(self._bookings.find, known.name, known.day)

    async def _carry_out(self) -> dict[str, Any]:
        async with self._writing:
            today = self._now().date()
            if self._to_cancel:
                number, booking = self._to_cancel
                await asyncio.to_thread(self._bookings.remove, number)
                self._booked = None if self._booked == self._to_cancel else self._booked
                self._to_cancel, self._cancelled = None, Booking()
                self._done = {"cancelled": booking.sentence(today)}
                return self._done
            if self._done and self.booking == Booking():
                return self._done  # said twice, done once
            if problem := await self._impossible():
                return self._state() | {"problem": problem}
            if self.booking.missing:
                return self._state()
            booking = self.booking
            try:
                number = await asyncio.to_thread(self._bookings.add, booking)
            except RefusalError as refusal:  # somebody else was quicker
                self.booking = replace(booking, time=None)
                return self._state() | {"problem": str(refusal)}
            self._booked, self.booking = (number, booking), Booking()
            self._done = {"booked": booking.sentence(today), "number": number}
            return self._done

    def _fill(self, **told: Any) -> str | None:
        """Take what can be had; the last problem that there is with the rest."""
        readers: dict[str, Callable[[Any], Any]] = {
            "people": _people_of,
            "day": lambda day: date_of(day, self._now().date()),
            "time": time_of,
            "name": _name_of,
        }
        problem = None
        for field, value in told.items():
            if value in (None, ""):
                continue
            try:
                self.booking = replace(self.booking, **{field: readers[field](value)})
            except RefusalError as refusal:
                problem = str(refusal)
        return problem

    async def _impossible(self) -> str | None:
        """What is wrong with the booking under way as a whole, less what has to change."""
        booking = self.booking
        if booking.day is None or booking.time is None:
            return None
        if booking.begins < self._now():
            self.booking = replace(booking, time=None)
            return "That time is over."
        try:
            if booking.people is not None:
                await asyncio.to_thread(self._bookings.check, booking)
        except RefusalError as refusal:
            self.booking = replace(booking, time=None)
            return str(refusal)
        return None

    def _state(self) -> dict[str, Any]:
        if self.booking.missing:
            return {"missing": self.booking.missing}
        return {"missing": [], "to_confirm": self.booking.sentence(self._now().date())}


def _people_of(value: Any) -> int:
    numbers = [value] if isinstance(value, int | float) else numbers_in(str(value))
    if len(numbers) != 1 or numbers[0] != int(numbers[0]) or not 1 <= numbers[0] <= MOST_PEOPLE:
        raise RefusalError(f"We have tables for one to {MOST_PEOPLE} people.")
    return int(numbers[0])


def _name_of(value: str) -> str:
    name = " ".join(str(value).split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise RefusalError("Please say a shorter name.")
    return name


# --- the script that stands in for a language model ---------------------------------------------

_QUESTIONS = {
    "people": "For how many people?",
    "day": "For which day?",
    "time": "At what time?",
    "name": "Under what name?",
    "right?": "Is that right?",
    "change": "What shall I change?",
}
_WORD = rf"(?:{'|'.join(NUMBER_WORDS)})"
_NUMBER = rf"(?:\d+|{_WORD}(?: {_WORD})*\b)"
_GUESTS = r"(?:people|persons?|guests?|of us)\b"
_PEOPLE = (
    re.compile(rf"\b({_NUMBER}) {_GUESTS}"),
    re.compile(rf"\b(?:for|make it|make that|party of|we are|there are|we will be) ({_NUMBER})"),
)
_ALONE = re.compile(r"\b(?:just|only|for) me\b")
_DAY = re.compile(rf"\b({'|'.join(WEEKDAYS)}|today|tomorrow|tonight)\b")
_CLOCK = r"(?: o'? ?clock| ?[ap]\.?m\b\.?)"
_PART_OF_DAY = r"(?: in the (?:morning|afternoon|evening)| tonight)?"
_TIME = (
    re.compile(
        rf"\b(?:half|(?:a )?quarter|{_NUMBER}(?: minutes?)?) (?:past|to) {_NUMBER}{_PART_OF_DAY}"
    ),
    re.compile(rf"\b{_NUMBER}{_CLOCK}{_PART_OF_DAY}"),
    re.compile(rf"\b\d{{1,2}}[:.]\d\d{_CLOCK}?{_PART_OF_DAY}"),
    re.compile(rf"(?<=\bat ){_NUMBER}(?! {_GUESTS}){_PART_OF_DAY}|\bnoon\b"),
    # "eight thirty" is two numbers, "twenty eight" is one.
    re.compile(
        rf"\b(?:{'|'.join(_HOURS)}) (?:fifteen|(?:ten|twenty|thirty|forty|fifty)\b{_WORD}?)"
    ),
)
_NAME = re.compile(r"\b(?:under(?: the name(?: of)?)?|(?:my|the) name(?:'s| is)) (.+)$")
_AFTER_NAME = re.compile(r"\b(?:please|and|for|on|at|today|tomorrow|tonight|thanks|thank you)\b.*")
_BEFORE_NAME = re.compile(r"^(?:(?:yes|no|it is|it's|this is|that's|i am|i'm|please)\b[ ,]*)+")
_NO_NAME = re.compile(r"\b(?:what|why|how|who|when|sorry|pardon|again|wait|sure|not|can|you)\b")
_MOST_WORDS_OF_NAME = 4
_YES = re.compile(r"\b(?:yes|yeah|yep|sure|correct|right|exactly|perfect|please do)\b")
_NO = re.compile(r"\b(?:no|nope|not|isn't|don't|wrong|but|wait|change)\b")
_CANCEL = re.compile(r"\b(?:cancel|forget it|never mind|don't want)\b")
_FIELDS = {"people": r"people|persons|guests|how many|number", "day": r"\bday\b|date"}
_FIELDS |= {"time": r"\btime\b|hour", "name": r"\bname\b"}


class Script:
    """Asks for one thing after the other, and understands what it has asked for."""

    def __init__(self) -> None:
        self._asked: str | None = None  # a key of the questions
        self._before: str | None = None  # what had been asked when the turn came
        self._filling = "note"  # or "cancel"

    def __call__(self, turn: Turn) -> Reply:
        """The next thing to say or to do."""
        if turn.results:
            return self._after(turn.results[-1])
        said = turn.said.lower().strip(" .!?")
        asked, self._before, self._asked = self._asked, self._asked, None
        told = understood(said, asked)
        if _CANCEL.search(said):
            if asked is not None:
                return Call("drop")
            self._filling = "cancel"
            return self._fill(told)
        if told:
            return self._fill(told)
        if asked in ("right?", "change"):
            return self._confirm_or_change(said, asked)
        if asked is None and _NO.search(said):
            return "All right. Goodbye."
        if asked is None and (_YES.search(said) or "table" in said or "book" in said):
            return self._fill({})
        self._asked = asked
        return f"Sorry, I did not understand. {_QUESTIONS[asked] if asked else GREETING}"

    def _fill(self, told: dict[str, Any]) -> Call:
        if self._filling == "cancel":
            told = {field: told[field] for field in ("name", "day") if field in told}
        return Call(self._filling, told)

    def _confirm_or_change(self, said: str, asked: str) -> Reply:
        if asked == "right?" and _YES.search(said) and not _NO.search(said):
            return Call("confirm")
        if self._filling == "cancel":
            return Call("drop")
        for field, words in _FIELDS.items():
            if re.search(words, said):
                self._asked = field
                return _QUESTIONS[field]
        self._asked = "change"
        return _QUESTIONS["change"]

    def _after(self, result: Result) -> str:
        if result.failed:
            self._asked = self._before
            return "Sorry, I could not do that. Please try again."
        output = result.output
        if "missing" not in output:
            self._filling = "note"
            if "booked" in output:
                return "Your table is booked. Thank you."
            return "I have cancelled it." if "cancelled" in output else "All right."
        if output["missing"]:
            self._asked, sentence = output["missing"][0], ""
        else:
            self._asked = "right?"
            sentence = output.get("to_confirm") or f"Shall I cancel it? {output['to_cancel']}"
        parts = (output.get("problem"), sentence, _QUESTIONS[self._asked])
        return " ".join(part for part in parts if part)


def understood(said: str, asked: str | None = None) -> dict[str, Any]:
    """What a sentence tells of a booking; a bare answer is one to what was ``asked``."""
    told: dict[str, Any] = {}
    if day := _DAY.search(said):
        told["day"] = {"tonight": "today"}.get(day[1], day[1])
    rest = said
    if time := next(filter(None, (form.search(said) for form in _TIME)), None):
        told["time"] = time[0]
        rest = said[: time.start()] + said[time.end() :]
    elif asked == "time" and (hour := re.search(rf"\b{_NUMBER}(?! {_GUESTS})", said)):
        told["time"] = hour[0]
        rest = said[: hour.start()] + said[hour.end() :]
    if people := next(filter(None, (form.search(rest) for form in _PEOPLE)), None):
        told["people"] = people[1]
    elif asked == "people" and numbers_in(rest):
        told["people"] = rest
    elif _ALONE.search(rest) or (asked == "people" and rest == "me"):
        told["people"] = "one"
    if "people" in told:
        told["people"] = next((int(number) for number in numbers_in(told["people"])), 0)
    if name := _NAME.search(said):
        told["name"] = _AFTER_NAME.sub("", name[1]).strip(" ,")
    elif asked == "name" and not told and not _NO_NAME.search(said):
        told["name"] = _AFTER_NAME.sub("", _BEFORE_NAME.sub("", said)).strip(" ,")
    if not 0 < len(told.get("name", "").split()) <= _MOST_WORDS_OF_NAME:
        told.pop("name", None)
    return told


# --- the pipeline ------------------------------------------------------------------------------


def build_pipeline(transport: BaseTransport, settings: AgentSettings) -> PipelineWorker:
    """Ear, language model or script with the desk's functions, voice."""
    hearing = settings.hearing()
    desk = BookingDesk(Bookings(settings.folder / "bookings.sqlite"))
    llm = settings.language_model(Script(), INSTRUCTIONS)
    context = aggregators(
        LLMContext(tools=[desk.note, desk.cancel, desk.confirm, desk.drop]), settings.idle_s
    )
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

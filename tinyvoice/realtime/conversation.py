"""The conversation: items in order, what was heard of each, and what a language model gets to see.

The client's view and the model's view of an item differ in two places. A client that did not ask
for transcripts sees null where the model reads what the user said; and the model reads only as much
of an interrupted answer as was sent or, where that is known, heard.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tinyvoice.realtime.errors import ProtocolError, wrong_value
from tinyvoice.realtime.items import Item

ROOT = "root"
"""As ``previous_item_id``: before all others."""


@dataclass
class Speech:
    """The audio of an answer, and which of its words are where in it."""

    text: str = ""
    audio_ms: float = 0.0
    marks: list[tuple[float, int]] = field(default_factory=list)
    """(milliseconds of audio, characters of the text spoken by then), both ascending."""
    heard_ms: float | None = None
    """What the listener has heard; None is all."""
    complete: bool = False
    """Whether all of the text has become audio."""

    def mark(self, audio_ms: float, characters: int) -> None:
        """So many characters are spoken at that time."""
        last_ms, last = self.marks[-1] if self.marks else (0.0, 0)
        if audio_ms >= last_ms and characters >= last:
            self.marks.append((audio_ms, characters))

    def cut(self, heard_ms: float) -> None:
        """The listener has heard this much; it can only become less."""
        heard_ms = min(max(heard_ms, 0.0), self.audio_ms)
        self.heard_ms = heard_ms if self.heard_ms is None else min(self.heard_ms, heard_ms)

    @property
    def heard_text(self) -> str:
        """The text as far as it was heard, cut behind a word."""
        if self.heard_ms is None or (self.complete and self.heard_ms >= self.audio_ms):
            return self.text
        if self.marks:
            reached = [characters for at, characters in self.marks if at <= self.heard_ms]
            return self.text[: reached[-1]].rstrip() if reached else ""
        if not self.audio_ms:
            return ""
        # Without word times: the voice is taken to speak evenly.
        characters = round(len(self.text) * self.heard_ms / self.audio_ms)
        if characters >= len(self.text):
            return self.text
        head = self.text[:characters]
        cut_in_word = not self.text[characters].isspace() and not head[-1:].isspace()
        return (head.rpartition(" ")[0] if cut_in_word else head).rstrip()


@dataclass
class Entry:
    """An item and what belongs to it."""

    item: Item
    size: int
    """Characters of its JSON text, about."""
    heard: str | None = None
    """What the user said, whether the client sees it or not."""
    speech: Speech | None = None
    """Of an answer that is spoken."""
    response_id: str | None = None

    def view(self) -> Item:
        """The item as the client sees it."""
        return copy.deepcopy(self.item)


class Conversation:
    """Items in order. At most ``most_items`` and ``most_bytes`` are kept, the newest ones."""

    def __init__(self, identifier: str, most_items: int, most_bytes: int) -> None:
        self.identifier = identifier
        self._most_items, self._most_bytes = most_items, most_bytes
        self._entries: dict[str, Entry] = {}
        self._order: list[str] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter([self._entries[item_id] for item_id in self._order])

    def get(self, item_id: str) -> Entry | None:
        """An item by its id."""
        return self._entries.get(item_id)

    @property
    def last(self) -> str | None:
        """The id of the newest item."""
        return self._order[-1] if self._order else None

    def previous(self, item_id: str) -> str | None:
        """The id of the item before; None for the first one."""
        index = self._order.index(item_id) if item_id in self._entries else 0
        return self._order[index - 1] if index else None

    def place(self, previous_item_id: str | None) -> int:
        """The position behind an item: None is the end, ``root`` the beginning.

        Raises:
            ProtocolError: there is no such item.
        """
        if previous_item_id is None:
            return len(self._order)
        if previous_item_id == ROOT:
            return 0
        if previous_item_id not in self._entries:
            raise ProtocolError(
                "invalid_value",
                f"Error adding item: the previous item '{previous_item_id}' does not exist.",
                "previous_item_id",
            )
        return self._order.index(previous_item_id) + 1

    def add(self, item: Item, place: int | None = None, **kept: Any) -> Entry:
        """Put an item in, at the end where no place is given. Its id must be new."""
        entry = Entry(item, len(json.dumps(item)), **kept)
        assert item["id"] not in self._entries
        self._entries[item["id"]] = entry
        self._order.insert(len(self._order) if place is None else place, item["id"])
        self._bytes += entry.size
        return entry

    def grow(self, entry: Entry, characters: int) -> None:
        """An item has become longer."""
        entry.size += characters
        if self._entries.get(entry.item["id"]) is entry:
            self._bytes += characters

    def remove(self, item_id: str) -> None:
        """Take an item out."""
        self._bytes -= self._entries.pop(item_id).size
        self._order.remove(item_id)

    def overflow(self) -> list[str]:
        """Take the oldest items out until the rest fits; their ids. The newest one stays."""
        gone = []
        while len(self._order) > 1 and (
            len(self._order) > self._most_items or self._bytes > self._most_bytes
        ):
            gone.append(self._order[0])
            self.remove(self._order[0])
        return gone

    @property
    def has_answer_audio(self) -> bool:
        """Whether the assistant has spoken in it."""
        return any(entry.speech is not None and entry.speech.audio_ms for entry in self)

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> int:
        """Cut an answer to what was heard; the milliseconds that it now has.

        More than there is cuts nothing: a listener's clock overshoots by a packet.

        Raises:
            ProtocolError: there is no such answer.
        """
        entry = self._entries.get(item_id)
        if entry is None:
            raise wrong_value(
                "item_id", f"Error truncating item: the item with id '{item_id}' does not exist."
            )
        if entry.speech is None or content_index != 0:
            raise ProtocolError(
                "unsupported_content_type" if entry.speech is None else "invalid_value",
                "Only model output audio messages can be truncated",
                "item_id" if entry.speech is None else "content_index",
            )
        speech = entry.speech
        speech.cut(audio_end_ms)
        for part in entry.item["content"]:
            part["transcript"] = speech.heard_text
        return int(speech.heard_ms or 0)

    def context(self, leave_out: str | None = None) -> list[Item]:
        """The items as a language model gets them, without those of one response."""
        return [
            model_view(entry)
            for entry in self
            if readable(entry) and (leave_out is None or entry.response_id != leave_out)
        ]


def readable(entry: Entry) -> bool:
    """Whether a language model can make something of the item."""
    if entry.item["type"] in ("function_call", "function_call_output"):
        return entry.item["status"] == "completed"
    if entry.item["type"] != "message" or not entry.item["content"]:
        return False
    # A sound without words is no message.
    return any(
        part["type"] not in ("input_audio", "output_audio") or part["transcript"]
        for part in model_view(entry)["content"]
    )


def model_view(entry: Entry) -> Item:
    """The item with what was said in it, and no more than was heard."""
    item = copy.deepcopy(entry.item)
    for part in item.get("content", ()):
        if part["type"] == "input_audio" and entry.heard is not None:
            part["transcript"] = entry.heard
        elif part["type"] == "output_audio" and entry.speech is not None:
            part["transcript"] = entry.speech.heard_text
    return item

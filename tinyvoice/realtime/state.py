"""What all parts of a session share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyvoice.realtime.configuration import Configuration, Kind
from tinyvoice.realtime.conversation import Conversation, Entry
from tinyvoice.realtime.items import Item
from tinyvoice.realtime.limits import SessionLimits
from tinyvoice.realtime.outbox import Outbox


@dataclass
class State:
    """A session's configuration, conversation and outbox."""

    kind: Kind
    configuration: Configuration
    conversation: Conversation
    outbox: Outbox
    limits: SessionLimits

    @property
    def detection(self) -> dict[str, Any] | None:
        """How turns are found; None where the client commits."""
        found: dict[str, Any] | None = self.configuration["audio"]["input"]["turn_detection"]
        return found

    @property
    def transcribes(self) -> bool:
        """Whether the client is told what was said: always in a transcription session."""
        configured = self.configuration["audio"]["input"]["transcription"] is not None
        return configured or self.kind == "transcription"

    def add_item(
        self, item: Item, place: int | None = None, *, done: bool = True, **kept: Any
    ) -> Entry:
        """Put an item into the conversation and announce it; the oldest make room for it."""
        entry = self.conversation.add(item, place, **kept)
        self.tell_item("added", entry)
        if done:
            self.tell_item("done", entry)
        self.make_room()
        return entry

    def tell_item(self, what: str, entry: Entry) -> None:
        """``conversation.item.added`` or ``.done``, unless the item is gone by now."""
        item_id = entry.item["id"]
        if self.conversation.get(item_id) is not entry:
            return
        previous = self.conversation.previous(item_id)
        self.outbox.emit(f"conversation.item.{what}", previous_item_id=previous, item=entry.view())

    def make_room(self) -> None:
        """Delete the oldest items where there are too many.

        A transcription session has no history to speak of, so that nobody is told there.
        """
        for item_id in self.conversation.overflow():
            if self.kind == "realtime":
                self.outbox.emit("conversation.item.deleted", item_id=item_id)

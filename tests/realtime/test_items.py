"""Items of clients: put in, found again, deleted; and what is no item."""

from __future__ import annotations

from typing import Any

import pytest

from tests.realtime.driving import Driven, kinds, only_error, plain

HELLO = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}


def create(driven: Driven, item: Any, **fields: Any) -> dict[str, Any]:
    """The item as it comes back, twice the same."""
    added, done = driven.client("conversation.item.create", item=item, **fields)
    assert [added["type"], done["type"]] == ["conversation.item.added", "conversation.item.done"]
    assert (added["item"], added["previous_item_id"]) == (done["item"], done["previous_item_id"])
    return added


def test_an_item_is_announced_twice() -> None:
    driven = Driven()
    event = create(driven, HELLO | {"id": "ab" * 16})
    assert plain(event) == {
        "type": "conversation.item.added",
        "previous_item_id": None,
        "item": {
            "id": "ab" * 16,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": "hello"}],
        },
    }
    driven.check()


def test_places() -> None:
    driven = Driven()
    assert create(driven, HELLO | {"id": "a"})["previous_item_id"] is None
    assert create(driven, HELLO | {"id": "b"}, previous_item_id=None)["previous_item_id"] == "a"
    assert create(driven, HELLO | {"id": "c"}, previous_item_id="root")["previous_item_id"] is None
    assert create(driven, HELLO | {"id": "d"}, previous_item_id="a")["previous_item_id"] == "a"
    assert create(driven, HELLO | {"id": "e"})["previous_item_id"] == "b"
    driven.client("response.create")
    assert [item["id"] for item in driven.generated.request.items] == ["c", "a", "d", "b", "e"]
    driven.check(complete=False)


def test_a_place_behind_nothing() -> None:
    driven = Driven()
    error = only_error(
        driven.client("conversation.item.create", item=HELLO, previous_item_id="x", event_id="e")
    )
    assert (error["param"], error["event_id"]) == ("previous_item_id", "e")
    assert create(driven, HELLO)["previous_item_id"] is None


def test_one_item_of_a_name() -> None:
    driven = Driven()
    create(driven, HELLO | {"id": "a"})
    error = only_error(
        driven.client("conversation.item.create", item=HELLO | {"id": "a"}, event_id="e")
    )
    assert error["code"] == "item_create_duplicate_item_id"
    assert error["message"] == "Error adding item: an item with id 'a' already exists."
    assert error["event_id"] == "e"


def test_the_name_of_a_turn_that_goes_on_is_taken() -> None:
    driven = Driven()
    driven.client("session.update", session={"audio": {"input": {"turn_detection": None}}})
    driven.append(1)
    error = only_error(driven.client("conversation.item.create", item=HELLO | {"id": "item_1"}))
    assert error["code"] == "item_create_duplicate_item_id"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (
            {"type": "message", "role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        ),
        (
            {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
        ),
        (
            {"type": "message", "role": "system", "content": "a"},
            {"role": "system", "content": [{"type": "input_text", "text": "a"}]},
        ),
        (
            {"type": "message", "role": "user", "content": [{"type": "audio", "audio": ""}]},
            {"role": "user", "content": [{"type": "input_audio", "transcript": None}]},
        ),
        (
            {"type": "message", "role": "assistant", "content": [{"type": "audio"}]},
            {"role": "assistant", "content": [{"type": "output_audio", "transcript": ""}]},
        ),
        (
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_image", "image_url": "data:,", "detail": "low"}],
            },
            {
                "role": "user",
                "content": [{"type": "input_image", "image_url": "data:,", "detail": "low"}],
            },
        ),
        (
            {"type": "function_call", "name": "f", "call_id": "c", "arguments": "{}", "x": None},
            {"name": "f", "call_id": "c", "arguments": "{}"},
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": "1", "name": None},
            {"call_id": "c", "output": "1"},
        ),
        (
            {
                "type": "mcp_list_tools",
                "server_label": "s",
                "tools": [{"name": "t", "input_schema": {}, "x": 1}],
            },
            {"server_label": "s", "tools": [{"name": "t", "input_schema": {}}]},
        ),
        (
            {"type": "mcp_call", "server_label": "s", "name": "t", "arguments": "", "output": "o"},
            {"server_label": "s", "name": "t", "arguments": "", "output": "o"},
        ),
        (
            {"type": "mcp_approval_request", "server_label": "s", "name": "t", "arguments": "{}"},
            {"server_label": "s", "name": "t", "arguments": "{}"},
        ),
        (
            {"type": "mcp_approval_response", "approval_request_id": "r", "approve": True},
            {"approval_request_id": "r", "approve": True},
        ),
    ],
)  # fmt: skip
def test_items_have_exactly_the_keys_of_their_type(given: Any, kept: dict[str, Any]) -> None:
    item = create(Driven(), given)["item"]
    common = {"id": "item_1", "object": "realtime.item", "type": given["type"]}
    if not given["type"].startswith("mcp"):
        common["status"] = "completed"
    assert item == common | kept


def test_a_status_is_kept_and_nothing_stays_unfinished() -> None:
    driven = Driven()
    assert create(driven, HELLO | {"status": "incomplete"})["item"]["status"] == "incomplete"
    assert create(driven, HELLO | {"status": "in_progress"})["item"]["status"] == "completed"


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        (None, "invalid_type", "item"),
        ([], "invalid_type", "item"),
        ({}, "missing_required_parameter", "item.type"),
        ({"type": "letter"}, "invalid_value", "item.type"),
        ({"type": 3}, "invalid_type", "item.type"),
        (HELLO | {"id": 3}, "invalid_type", "item.id"),
        (HELLO | {"id": ""}, "invalid_value", "item.id"),
        (HELLO | {"id": "x" * 600}, "invalid_value", "item.id"),
        (HELLO | {"status": "x"}, "invalid_value", "item.status"),
        ({"type": "message"}, "missing_required_parameter", "item.role"),
        ({"type": "message", "role": "x"}, "invalid_value", "item.role"),
        ({"type": "message", "role": "user"}, "missing_required_parameter", "item.content"),
        (HELLO | {"content": 3}, "invalid_type", "item.content"),
        (HELLO | {"content": [3]}, "invalid_type", "item.content[0]"),
        (HELLO | {"content": [{}]}, "missing_required_parameter", "item.content[0].type"),
        (HELLO | {"content": [{"type": "output_text"}]}, "invalid_value", "item.content[0].type"),
        (
            HELLO | {"content": [{"type": "input_text"}]},
            "missing_required_parameter",
            "item.content[0].text",
        ),
        (
            HELLO | {"content": [{"type": "input_text", "text": None}]},
            "invalid_type",
            "item.content[0].text",
        ),
        (
            HELLO | {"content": [{"type": "input_audio", "transcript": 3}]},
            "invalid_type",
            "item.content[0].transcript",
        ),
        ({"type": "function_call"}, "missing_required_parameter", "item.name"),
        (
            {"type": "function_call", "name": "f", "call_id": 3, "arguments": ""},
            "invalid_type",
            "item.call_id",
        ),
        ({"type": "function_call_output"}, "missing_required_parameter", "item.call_id"),
        (
            {"type": "function_call_output", "call_id": "c", "output": {}},
            "invalid_type",
            "item.output",
        ),
        ({"type": "mcp_call"}, "missing_required_parameter", "item.arguments"),
    ],
)
def test_what_is_no_item(item: Any, code: str, param: str) -> None:
    driven = Driven()
    error = only_error(driven.client("conversation.item.create", item=item, event_id="e"))
    assert (error["code"], error["param"], error["event_id"]) == (code, param, "e")
    assert create(driven, HELLO)["previous_item_id"] is None


def test_retrieving() -> None:
    driven = Driven()
    item = create(driven, HELLO)["item"]
    (event,) = driven.client("conversation.item.retrieve", item_id=item["id"])
    assert plain(event) == {"type": "conversation.item.retrieved", "item": item}


@pytest.mark.parametrize("what", ["retrieve", "delete"])
def test_what_is_not_there(what: str) -> None:
    driven = Driven()
    error = only_error(
        driven.client(f"conversation.item.{what}", item_id="x", event_id=f"rci_{what}")
    )
    assert error["code"] == f"item_{what}_invalid_item_id"
    assert error["event_id"] == f"rci_{what}"
    error = only_error(driven.client(f"conversation.item.{what}"))
    assert (error["code"], error["param"]) == ("missing_required_parameter", "item_id")


def test_deleting() -> None:
    driven = Driven()
    create(driven, HELLO | {"id": "a"})
    create(driven, HELLO | {"id": "b"})
    (event,) = driven.client("conversation.item.delete", item_id="a")
    assert plain(event) == {"type": "conversation.item.deleted", "item_id": "a"}
    (event,) = driven.client("conversation.item.delete", item_id="b")
    assert create(driven, HELLO)["previous_item_id"] is None
    driven.check()


def test_deleting_a_turn_whose_words_are_still_to_come() -> None:
    driven = Driven("transcription")
    driven.client("session.update", session={"audio": {"input": {"turn_detection": None}}})
    driven.append(1)
    driven.client("input_audio_buffer.commit")
    driven.client("conversation.item.delete", item_id="item_1")
    events = driven.tell("committed", "item_1", None)
    assert kinds(events) == ["conversation.item.input_audio_transcription.completed"]
    driven.check()


def test_the_oldest_items_make_room() -> None:
    driven = Driven(limits={"items": 2})
    for name in "abc":
        events = driven.client("conversation.item.create", item=HELLO | {"id": name})
    assert kinds(events) == [
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.deleted",
    ]
    assert events[2]["item_id"] == "a"
    driven.check()


def test_large_items_make_room_too() -> None:
    driven = Driven(limits={"conversation_bytes": 2_000})
    large = {"type": "message", "role": "system", "content": "x" * 1_500}
    driven.client("conversation.item.create", item=large)
    assert len(driven.client("conversation.item.create", item=large)) == 3
    driven.check()


def test_a_transcription_session_forgets_silently() -> None:
    driven = Driven("transcription", limits={"items": 1})
    driven.turn("one")
    events = driven.turn("two", 1, 3.0)
    assert "conversation.item.deleted" not in kinds(events)
    assert only_error(driven.client("conversation.item.retrieve", item_id="item_1"))
    driven.check()

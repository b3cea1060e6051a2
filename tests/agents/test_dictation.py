"""A recorded conversation with the note taker, and its notes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import websockets
from numpy.typing import NDArray
from pipecat.frames.frames import InputTransportMessageFrame
from pipecat.serializers.protobuf import ProtobufFrameSerializer

from agents import dictation
from agents.dictation import Notepad
from agents.settings import AgentSettings
from tests.agents.running import running
from tests.agents.talk import speech, talking
from tests.agents.test_doors import PATIENCE_S, SAID, Caller
from tinyvoice.integrations.scripted_llm import Turn
from tinyvoice.model.modeling import ASRModel
from tinyvoice.voices.espeak_process import EspeakProcess


async def test_a_note_is_spoken_corrected_read_and_saved(
    model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    async with talking(lambda t: dictation.build_pipeline(t, settings), model, mouth) as talk:
        await talk.say("i need to buy milk and eggs")
        await talk.say("next line")
        await talk.say("tell me a joke")
        await talk.answer("delete that", "deleted")
        await talk.say("call my mother in the morning")
        heard = await talk.answer("read it back", "morning")
        assert heard == "i need to buy milk and eggs call my mother in the morning"
        assert "saved" in await talk.answer("save the note", "saved")
    [note] = (settings.folder / "notes").iterdir()
    assert note.read_text() == "i need to buy milk and eggs\ncall my mother in the morning\n"


def said(pad: Notepad, *texts: str) -> list[str]:
    return [pad.answer(Turn(text, (), ())) for text in texts]


def test_commands_are_whole_turns_but_line_breaks_are_not(tmp_path: Path) -> None:
    pad = Notepad(tmp_path)
    said(pad, "I want to save it for later, new line. and delete that email.", "New line", "Bye.")
    assert pad.text == "I want to save it for later\nand delete that email.\nBye."


def test_deleting_takes_the_last_words_and_what_follows_them(tmp_path: Path) -> None:
    pad = Notepad(tmp_path)
    answers = said(pad, "one", "two", "new line", "Delete that, please.", "delete that")
    assert pad.text == ""
    assert answers[-2:] == ["I have deleted it.", "I have deleted it."]
    assert said(pad, "delete that", "read it back", "save it") == [
        "There is nothing to delete.",
        "There is nothing yet.",
        "There is nothing to save.",
    ]


def test_a_new_note_saves_the_old_one(tmp_path: Path) -> None:
    pad = Notepad(tmp_path)
    assert said(pad, "one", "new note", "two", "done")[1:] == [
        "Saved. I am listening.",
        "",
        "I have saved it.",
    ]
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["one\n", "two\n"]


def test_a_note_that_nobody_saved_is_saved_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pad = Notepad(tmp_path / "notes")
    pad.close()
    assert not pad.folder.exists()
    said(pad, "one")
    pad.close()
    assert [path.read_text() for path in pad.folder.iterdir()] == ["one\n"]
    pad.folder = next(pad.folder.iterdir())  # a file, where no note can be written
    said(pad, "two")
    pad.close()
    assert "cannot be saved" in caplog.text
    assert caplog.text.endswith("It was:\ntwo\n")


async def dictated(websocket: websockets.ClientConnection, sound: NDArray[np.float32]) -> None:
    """Say something, and wait until it has been written down."""
    await Caller(websocket).say(np.pad(sound, (4_000, 24_000)))
    serializer = ProtobufFrameSerializer()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            frame = await serializer.deserialize(await websocket.recv())
            told = frame.message if isinstance(frame, InputTransportMessageFrame) else {}
            if told.get("type") == "bot-llm-stopped":
                return


async def test_a_note_outlasts_a_client_that_disappears_and_ctrl_c(
    mouth: EspeakProcess, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    where = ("--transport", "websocket", "--port", "0", "--folder", str(tmp_path))
    with running("dictation", *where) as run:
        async with websockets.connect(f"ws://{run.address}/ws") as websocket:
            await dictated(websocket, speech(mouth, SAID))
            websocket.transport.abort()  # no close frame, as when a cable is pulled
        async with asyncio.timeout(PATIENCE_S):
            while not list(notes.glob("*")):
                await asyncio.sleep(0.05)  # the agent tells nobody
        async with websockets.connect(f"ws://{run.address}/ws") as websocket:
            await dictated(websocket, speech(mouth, SAID))
            code, errors = await asyncio.to_thread(run.interrupt)
    assert (code, errors) == (0, "")
    assert [note.read_text() for note in notes.iterdir()] == [f"{SAID}\n"] * 2


@pytest.mark.parametrize("command", ["save it", "new note"])
def test_a_note_that_cannot_be_saved_is_kept(tmp_path: Path, command: str) -> None:
    (tmp_path / "notes").write_text("a file where the folder should be")
    pad = Notepad(tmp_path / "notes")
    assert said(pad, "one", command)[1] == "Sorry, I cannot save the note. I still have it."
    assert pad.text == "one"

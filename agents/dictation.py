"""Voice notes: speak, and it is written down; spoken commands edit and save.

    "new line", "next line"               go on in a new line, also within a sentence
    "delete that", "scratch that"         take back what was said last
    "read it back", "read that back"      hear the note
    "save it", "save the note", "done"    write the note to a file
    "start a new note", "new note"        save what there is, and begin anew

Anything else becomes part of the note. Notes are text files in the agent's folder; one that nobody
has saved is written there when the conversation ends, however it does. The script below needs no
language model, and none is asked: what is dictated stays on this machine.
"""

from __future__ import annotations

import logging
import re
from datetime import datetime
from pathlib import Path

from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.transports.base_transport import BaseTransport

from tinyvoice.integrations import ScriptedLLMService
from tinyvoice.integrations.scripted_llm import Turn
from tinyvoice.integrations.spoken_failures import SpokenFailures

from .conversation import aggregators, hold, worker_for
from .settings import AgentSettings

GREETING = "Hello. I am taking notes."

_log = logging.getLogger("tinyvoice.agents")

_LINE_BREAK = re.compile(r"[\s,.]*\b(?:new|next) line\b[\s,.]*", re.IGNORECASE)
_COMMANDS = {
    "delete": ("delete that", "delete the last line", "scratch that", "take that back"),
    "read": ("read it back", "read that back", "read the note", "read it to me"),
    "save": ("save it", "save that", "save the note", "done", "i am done"),
    "new": ("start a new note", "new note", "a new note", "next note"),
}
_COMMAND_OF = {phrase: command for command, phrases in _COMMANDS.items() for phrase in phrases}


class Notepad:
    """The note under way, and the folder of those that are finished."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pieces: list[str] = []
        """What was said, in order; a piece may begin with line breaks."""

    @property
    def text(self) -> str:
        """The note so far."""
        return re.sub(r" *\n *", "\n", " ".join(self.pieces)).strip()

    def save(self) -> Path | None:
        """Write the note to a file of its own and begin anew; None if there is nothing to write.

        Raises:
            OSError: it cannot be written; the note is kept.
        """
        if not self.text:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        name = datetime.now().strftime("note %Y-%m-%d %H.%M.%S.%f")
        path = self.folder / f"{name}.txt"
        path.write_text(self.text + "\n", encoding="utf-8")
        self.pieces.clear()
        return path

    def close(self) -> None:
        """Save what nobody has; where that cannot be, it is told to whoever runs the agent."""
        try:
            saved = self.save()
        except OSError as error:
            _log.warning("The note cannot be saved (%s). It was:\n%s", error, self.text)
        else:
            if saved is not None:
                _log.info("The note was saved: %s", saved)

    def answer(self, turn: Turn) -> str:
        """Do what was said, and say so; what is merely written down is not answered."""
        command = _COMMAND_OF.get(_plain(turn.said))
        if command is None:
            self._write(turn.said)
            return ""
        if command == "delete":
            return "I have deleted it." if self._delete() else "There is nothing to delete."
        if command == "read":
            return self.text.replace("\n", ". ") or "There is nothing yet."
        return self._save_aloud(new=command == "new")

    def _write(self, said: str) -> None:
        written = _LINE_BREAK.sub("\n", said)
        if written:
            self.pieces.append(written)

    def _delete(self) -> bool:
        """Take back the last words, with the line breaks that followed them."""
        while self.pieces and not self.pieces[-1].strip():
            self.pieces.pop()
        return bool(self.pieces and self.pieces.pop())

    def _save_aloud(self, new: bool) -> str:
        try:
            saved = self.save()
        except OSError:
            return "Sorry, I cannot save the note. I still have it."
        if saved is None:
            return "I am listening." if new else "There is nothing to save."
        return "Saved. I am listening." if new else "I have saved it."


def _plain(said: str) -> str:
    """Words only, as commands are compared."""
    words = re.findall(r"[a-z']+", said.lower())
    return " ".join(word for word in words if word != "please")


def build_pipeline(
    transport: BaseTransport, settings: AgentSettings, pad: Notepad | None = None
) -> PipelineWorker:
    """Ear, notepad, voice."""
    hearing = settings.hearing()
    llm = ScriptedLLMService((pad or Notepad(settings.folder / "notes")).answer)
    context = aggregators(LLMContext())
    return worker_for(
        Pipeline(
            [
                transport.input(),
                hearing,
                context.user(),
                llm,
                SpokenFailures(llm, hearing),
                settings.speech(),
                transport.output(),
                context.assistant(),
            ]
        )
    )


async def run(transport: BaseTransport, settings: AgentSettings) -> None:
    """Hold one conversation; what was dictated outlasts it, also where the client disappears."""
    pad = Notepad(settings.folder / "notes")
    try:
        await hold(build_pipeline(transport, settings, pad), transport, GREETING)
    finally:
        pad.close()

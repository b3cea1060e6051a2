"""Speak a text file with many voices: a corpus with exact word times."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tinyvoice.errors import ConfigurationError

GRAMMAR_SENTENCES = 1000

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def synth(
    texts: Annotated[
        Path | None,
        typer.Argument(help="Text file, one utterance a line. Without one, the built-in grammar."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the corpus.")] = Path(
        "corpus"
    ),
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            "-n",
            min=1,
            help="Sentences to draw from the grammar (1000 unless said), or the first so many of "
            "the file.",
        ),
    ] = None,
    voices: Annotated[
        str, typer.Option(help="'training', 'held-out', or voice names with commas between them.")
    ] = "training",
    renditions: Annotated[
        int, typer.Option(min=1, help="How often each text is spoken, by another voice each time.")
    ] = 1,
    rate: Annotated[
        tuple[float, float], typer.Option(help="Range of speaking rates, 1 is the voice's own.")
    ] = (0.85, 1.25),
    pitch: Annotated[
        tuple[float, float], typer.Option(help="Range of pitches, 1 is the voice's own.")
    ] = (0.8, 1.25),
    seed: Annotated[int, typer.Option(help="Same seed, same corpus.")] = 0,
    workers: Annotated[
        int | None, typer.Option("--workers", "-w", min=1, help="Processes; one a core by default.")
    ] = None,
    list_voices: Annotated[
        bool, typer.Option("--list-voices", help="Show the voices and leave.")
    ] = False,
) -> None:
    """Make a corpus of synthetic speech: shards of audio and manifest.jsonl with exact word times.

    Run it again after an interruption and it goes on where it stopped.
    """
    from training.synthesis.corpus import CorpusSettings, make_corpus, plan
    from training.synthesis.grammar import sentences

    console = Console(stderr=True)
    if list_voices:
        Console().print(_voice_table())
        return
    settings = CorpusSettings(renditions=renditions, rate=rate, pitch=pitch, seed=seed)
    said = _read(texts)[:count] if texts else sentences(count or GRAMMAR_SENTENCES, seed)
    lines = plan(said, _choose_voices(voices, console), settings)
    manifest = make_corpus(lines, output, settings=settings, workers=workers or os.cpu_count() or 1)
    console.print(f"{len(lines)} utterances planned, corpus in {manifest}")


def _read(path: Path) -> list[str]:
    try:
        return [
            line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as UTF-8 text ({error}): give a file with one utterance a line."
        ) from error


def _choose_voices(names: str, console: Console) -> tuple[str, ...]:
    """The voices asked for; Flite's are left out of ``training`` where Flite is not installed."""
    from training.synthesis import flite
    from training.synthesis.voices import FLITE_VOICES, HELD_OUT_VOICES, TRAINING_VOICES, Voice

    if names == "held-out":
        return HELD_OUT_VOICES
    if names == "training":
        if flite.available():
            return TRAINING_VOICES
        console.print("[dim]Flite is not installed: its four voices are left out.[/dim]")
        return tuple(voice for voice in TRAINING_VOICES if voice not in FLITE_VOICES)
    return tuple(str(Voice.parse(name.strip())) for name in names.split(","))


def _voice_table() -> Table:
    from training.synthesis.voices import HELD_OUT_VOICES, TRAINING_VOICES

    table = Table("voice", "set")
    for voice in TRAINING_VOICES:
        table.add_row(voice, "training")
    for voice in HELD_OUT_VOICES:
        table.add_row(voice, "held-out")
    return table

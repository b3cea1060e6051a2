"""Transcribe a recording that comes with the program: text, word times, speed.

The recording is synthetic speech of flite's voice slt, made for this purpose; it shows that the
installation works, not how well a model understands people.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tinyvoice.cli.options import ModelName
from tinyvoice.cli.progress import Activity

if TYPE_CHECKING:
    from tinyvoice.model.transcript import Transcript

app = typer.Typer(add_completion=False)

RECORDING = Path(__file__).with_name("demo.flac")

SPOKEN = "please set an alarm for seven tomorrow morning and turn off the lights in the kitchen"


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def demo(model: ModelName = "embedded") -> None:
    """Transcribe a recording that comes with the program: text, word times, speed."""
    from tinyvoice.audio import load_audio
    from tinyvoice.cli.transcribe import load_model

    began = time.perf_counter()
    audio = load_audio(RECORDING)
    with Activity(f"Loading the model {model}"):
        loaded = load_model(model)
        ready = time.perf_counter()
        transcript = loaded.transcribe(audio, word_timestamps=True)
        done = time.perf_counter()
    _show(transcript, loading_s=ready - began, transcribing_s=done - ready)


def _show(transcript: Transcript, loading_s: float, transcribing_s: float) -> None:
    from rich.console import Console
    from rich.table import Table

    words = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("start", "end", "sure"):
        words.add_column(title, justify="right")
    words.add_column("word")
    for word in transcript.words:
        words.add_row(
            f"{word.start:.2f} s", f"{word.end:.2f} s", f"{word.confidence:.0%}", word.text
        )
    console = Console(highlight=False)
    console.print(words)
    console.print(
        f"\n{transcript.duration:.1f} s of sound in {transcribing_s:.2f} s, "
        f"real-time factor {transcribing_s / transcript.duration:.3f} "
        f"(before that, {loading_s:.1f} s to load the model)"
    )
    console.print("\n[bold]spoken[/] ", SPOKEN, sep="", markup=True)
    console.print("[bold]heard[/]  ", end="")
    console.print(transcript.text, markup=False)

"""Talk, and watch the words appear: microphone to live transcript.

Words that are settled are shown plain, those that may still change dim, and each utterance gets a
line with its time when it is over. Ctrl-C finishes the current utterance; a second one leaves at
once. Where standard output is no terminal, finals are written to it, one a line.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from tinyvoice.cli.options import Device, ModelName, ModelPrecision, Precision
from tinyvoice.cli.progress import Activity

app = typer.Typer(add_completion=False)

_SETTINGS = "How speech is cut into utterances"


class Endpointing(StrEnum):
    """What ends an utterance."""

    VAD = "vad"
    SEMANTIC = "semantic"
    MANUAL = "manual"


class Eagerness(StrEnum):
    """How soon semantic endpointing ends a turn that sounds unfinished."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    AUTO = "auto"


@app.command(
    epilog="A recording instead of the microphone: tinyvoice listen --file talk.wav",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def listen(
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            "-d",
            envvar="TINYVOICE_MICROPHONE",
            metavar="NUMBER|NAME",
            help="Microphone: its number, or a part of its name.",
        ),
    ] = None,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", "-l", help="List the microphones, and stop.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Every event as a JSON object, one a line.")
    ] = False,
    save: Annotated[
        str | None,
        typer.Option(
            "--save",
            metavar="FOLDER|PREFIX",
            help="Keep the sound (.flac, or .wav if said) and the transcript (.txt).",
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", help="Play a recording instead, at the pace of speech."),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(
            "--speed", min=0.1, max=1000, help="Pace of --file, 1 if not said; 2 is twice as fast."
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.1, help="Stop after so much sound.")
    ] = None,
    model: ModelName = "embedded",
    compute_device: Annotated[
        Device, typer.Option("--compute-device", help="Where to compute; auto takes the fastest.")
    ] = Device.AUTO,
    dtype: ModelPrecision = Precision.AUTO,
    endpointing: Annotated[
        Endpointing,
        typer.Option(
            help="What ends an utterance: silence; silence after a finished sentence; Enter.",
            rich_help_panel=_SETTINGS,
        ),
    ] = Endpointing.VAD,
    threshold: Annotated[
        float,
        typer.Option(
            min=0.01, max=0.99, help="Probability that is speech.", rich_help_panel=_SETTINGS
        ),
    ] = 0.5,
    silence_ms: Annotated[
        int,
        typer.Option(
            min=32, max=10_000, help="Silence that ends an utterance.", rich_help_panel=_SETTINGS
        ),
    ] = 500,
    prefix_padding_ms: Annotated[
        int,
        typer.Option(
            min=0, max=2000, help="Sound kept before the speech.", rich_help_panel=_SETTINGS
        ),
    ] = 300,
    min_speech_ms: Annotated[
        int,
        typer.Option(
            min=0, max=2000, help="Speech that begins an utterance.", rich_help_panel=_SETTINGS
        ),
    ] = 64,
    eagerness: Annotated[
        Eagerness,
        typer.Option(help="How soon an unfinished turn ends.", rich_help_panel=_SETTINGS),
    ] = Eagerness.AUTO,
    partial_interval_ms: Annotated[
        int,
        typer.Option(
            min=32, max=10_000, help="Sound between two updates.", rich_help_panel=_SETTINGS
        ),
    ] = 320,
) -> None:
    """Talk, and watch the words appear: microphone to live transcript.

    Settled words are plain, those that may still change dim. Ctrl-C finishes; a second one leaves
    at once. With --endpointing manual, Enter ends an utterance.
    """
    if list_devices:
        _list_devices(as_json)
        return
    if file is not None and device is not None:
        raise typer.BadParameter("choose --file or --device", param_hint="--file")
    if file is None and speed is not None:
        raise typer.BadParameter(
            "a microphone has its own pace: choose --file too", param_hint="--speed"
        )
    # What can be wrong with the sound is found before the model is loaded.
    from tinyvoice.audio import load_audio
    from tinyvoice.audio.microphone import find_device

    source = find_device(device) if file is None else load_audio(file)
    with Activity(f"Loading the model {model}"):
        from tinyvoice.cli.transcribe import load_model

        loaded = load_model(model, device=compute_device.value, dtype=dtype.value)
        from tinyvoice.cli.listening import Session, run
        from tinyvoice.engine import StreamSettings

        settings = StreamSettings(
            endpointing=endpointing.value,
            threshold=threshold,
            silence_ms=silence_ms,
            prefix_padding_ms=prefix_padding_ms,
            min_speech_ms=min_speech_ms,
            eagerness=eagerness.value,
            partial_interval_ms=partial_interval_ms,
        )
    asyncio.run(run(loaded, Session(source, settings, speed or 1.0, seconds, as_json, save)))


def _list_devices(as_json: bool) -> None:
    from tinyvoice.audio.microphone import find_device, input_devices

    devices = input_devices()
    if as_json:
        print(json.dumps([asdict(device) for device in devices], indent=2))
        return
    if not devices:
        find_device()  # says what to do about it
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("number", justify="right")
    table.add_column("name", overflow="fold")
    table.add_column("channels", justify="right")
    table.add_column("rate", justify="right")
    table.add_column("")
    for device in devices:
        table.add_row(
            str(device.index),
            device.name,
            str(device.channels),
            f"{device.sample_rate} Hz",
            "default" if device.default else "",
        )
    Console(markup=False, highlight=False).print(table)

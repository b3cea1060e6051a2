"""Say what this machine can do, and what to install for the rest.

Each finding is ``ok``, ``optional`` (something is missing that some command would use) or
``missing`` (transcribing does not work without it). It only looks: it installs nothing, asks no
server and records no sound.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from tinyvoice.errors import MissingExtraError, TinyvoiceError

app = typer.Typer(add_completion=False)

EXTRAS = {
    "lora": (["peft"], "checkpoints with a LoRA adapter"),
    "media": (["av"], "MP4, WebM, M4A and other video"),
    "mic": (["sounddevice"], "the microphone"),
    "semantic": (["pipecat", "onnxruntime"], "turns that end by what was said"),
    "serve": (["fastapi", "uvicorn", "aiortc", "openai"], "tinyvoice serve and tinyvoice demo"),
    "pipecat": (["pipecat", "onnxruntime"], "recognition in a Pipecat pipeline"),
    "piper": (["piper"], "neural voices of the server"),
    "agents": (["pipecat", "openai"], "tinyvoice agent"),
    "synthesis": (["espeakng_loader", "num2words"], "tinyvoice synth"),
    "eval": (["jiwer", "espeakng_loader", "num2words"], "tinyvoice eval"),
    "bench": (["matplotlib"], "plots of tinyvoice bench"),
    "training": (
        ["hydra", "accelerate", "datasets", "matplotlib", "peft", "jiwer"],
        "tinyvoice train",
    ),
}
"""Extra of the package: modules that show it is there, and what it is for."""

_LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "soundfile",
    "soxr",
    "silero-vad",
)

_CPU_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "bf16",
    "amx_bf16": "AMX bf16",
    "asimd": "NEON",
    "bf16": "bf16",
}


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    OPTIONAL = "optional"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``install`` is the command that brings what is missing."""

    topic: str
    level: Level
    detail: str
    install: str | None = None


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list instead of a table.")] = (
        False
    ),
) -> None:
    """Say what this machine can do, and what to install for the rest.

    Exit code 1 if something that transcribing needs is missing.
    """
    findings = examine()
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _print_table(findings)
    if any(finding.level is Level.MISSING for finding in findings):
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Look at everything, in the order of the report."""
    return [
        _python(),
        *_libraries(),
        _embedded_model(),
        _processor(),
        *_voice_activity(),
        *_accelerators(),
        _microphone(),
        *_extras(),
        *_programs(),
    ]


def _python() -> Finding:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("Python", Level.OK, detail)


def _libraries() -> Iterator[Finding]:
    for package in _LIBRARIES:
        try:
            detail = version(package)
        except PackageNotFoundError:
            yield Finding(package, Level.MISSING, "not installed", f"pip install {package}")
            continue
        yield Finding(package, Level.OK, detail)


def _embedded_model() -> Finding:
    from tinyvoice.cli.models import EMBEDDED, describe_folder

    topic = "embedded model"
    source = EMBEDDED.parents[2]
    if (source / ".git").exists():
        restore = f"git -C {shlex.quote(str(source))} checkout -- tinyvoice/model/embedded"
    else:
        restore = "pip install --force-reinstall --no-deps tinyvoice"
    if not (EMBEDDED / "config.json").is_file() or not list(EMBEDDED.glob("*.safetensors")):
        return Finding(
            topic,
            Level.MISSING,
            f"no checkpoint in {EMBEDDED}",
            restore,
        )
    model = describe_folder(EMBEDDED, "embedded", "embedded")
    return Finding(
        topic,
        Level.OK,
        f"{(model.parameters or 0) / 1e6:.1f} M parameters, {(model.bytes or 0) / 1e6:.1f} MB",
    )


def _processor() -> Finding:
    names = sorted(cpu_features())
    listed = ", ".join(names) if names else "no vector units known"
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    hint = "" if any("bf16" in name for name in names) else "; no bf16 units"
    return Finding("processor", Level.OK, f"{count} cores, {listed}{hint}")


def cpu_features(table: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return what matters for speed of what the processor can do, empty where it does not say."""
    try:
        lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {"NEON"} if platform.machine() in ("arm64", "aarch64") else set()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            return {name for flag, name in _CPU_FEATURES.items() if flag in flags}
    return set()


def _voice_activity() -> Iterator[Finding]:
    topic = "voice activity"
    try:
        from tinyvoice.vad.silero import SileroVAD

        SileroVAD.load()
    except (ImportError, OSError):
        return  # torch is missing or broken, which has a line of its own
    except TinyvoiceError as error:
        install = "pip install --force-reinstall 'silero-vad>=6.2,<7'"
        yield Finding(topic, Level.MISSING, str(error), install)
        return
    yield Finding(topic, Level.OK, "Silero VAD v6, windows of 32 ms")


def _accelerators() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    try:
        import torch
    except (ImportError, OSError) as error:  # a wheel for another system, a library missing
        reason = " ".join(str(error).split())
        yield Finding("torch", Level.MISSING, reason, "pip install --force-reinstall torch")
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / (1 << 30)
            yield Finding(f"GPU {index}", Level.OK, f"{properties.name}, {memory:.0f} GiB")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "GPU",
            Level.OPTIONAL,
            f"there may be one, but torch {torch.__version__} cannot use it",
            "pip install --force-reinstall torch  # see https://pytorch.org/get-started",
        )
    else:
        yield Finding("GPU", Level.OPTIONAL, "none; the processor is used")
    if platform.system() == "Darwin":
        able = torch.backends.mps.is_available()
        detail = "available" if able else "not available; needs Apple silicon and macOS 12.3"
        yield Finding("MPS", Level.OK if able else Level.OPTIONAL, detail)


def _microphone() -> Finding:
    from tinyvoice.audio.microphone import MicrophoneError, find_device, input_devices

    topic = "microphone"
    try:
        chosen = find_device()
        names = [device.name for device in input_devices() if device != chosen]
    except MissingExtraError as error:
        install = f"pip install 'tinyvoice[{error.extra}]'"
        return Finding(topic, Level.OPTIONAL, "not examined", install)
    except MicrophoneError as error:
        return Finding(topic, Level.OPTIONAL, str(error), error.install)
    except (
        ImportError,
        OSError,
    ):  # numpy or soundfile is missing or broken, which the libraries' lines say
        return Finding(topic, Level.OPTIONAL, "not examined")
    others = f"; others: {', '.join(names)}" if names else ""
    return Finding(topic, Level.OK, f"{chosen.name}{others}")


def _extras() -> Iterator[Finding]:
    for extra, (modules, purpose) in EXTRAS.items():
        topic = f"extra '{extra}'"
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if not missing:
            yield Finding(topic, Level.OK, f"installed: {purpose}")
            continue
        lacking = f"; {', '.join(missing)} missing" if len(missing) < len(modules) else ""
        yield Finding(
            topic, Level.OPTIONAL, f"for {purpose}{lacking}", f"pip install 'tinyvoice[{extra}]'"
        )


def _programs() -> Iterator[Finding]:
    installer = "brew install" if platform.system() == "Darwin" else "sudo apt-get install"
    for program, purpose in (
        ("espeak-ng", "its library comes with the extra 'synthesis'; the program is a convenience"),
        ("flite", "four more voices for tinyvoice synth"),
        ("ffmpeg", "converting recordings by hand; tinyvoice itself reads them without it"),
    ):
        found = shutil.which(program)
        if found:
            yield Finding(program, Level.OK, found)
        else:
            yield Finding(program, Level.OPTIONAL, purpose, f"{installer} {program}")


def _print_table(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    marks = {
        Level.OK: Text("✓", style="green"),
        Level.OPTIONAL: Text("–", style="yellow"),
        Level.MISSING: Text("✗", style="bold red"),
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        detail = Text(finding.detail)
        if finding.install:
            detail.append("\n" + finding.install, style="bold")
        table.add_row(marks[finding.level], finding.topic, detail)
    console = Console()
    console.print(table)
    missing = [finding.topic for finding in findings if finding.level is Level.MISSING]
    console.print()
    if missing:
        console.print(f"Cannot transcribe yet: {', '.join(missing)} missing.", style="bold red")
    else:
        console.print("Ready to transcribe: tinyvoice transcribe recording.wav", style="green")

"""How fast a model is on one core, how soon it answers, and how much memory it takes.

Each figure comes from a process of its own that is bound to one core and one thread: real-time
factors (seconds of work per second of audio) of single clips of 3 to 10 s and of batches of 16,
through `ASRModel.transcribe` and through the pipeline of transformers; the time from the start of
the process ``tinyvoice transcribe`` to its first transcript; and the peak resident memory.

Wall-clock time is what a user waits; processor time is given beside it, because it says the same
of an idle machine and changes less when other programs want the core. Linux and macOS only.
"""

from __future__ import annotations

import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tinyvoice.audio.files import SAMPLE_RATE, load_audio
from tinyvoice.errors import TinyvoiceError

BATCH = 16
CLIPS = 3 * BATCH
SHORTEST_S, LONGEST_S = 3.0, 10.0
FRONT_ENDS = ("transcribe", "pipeline")

_VOICES = ("espeak/en-us", "espeak/en", "espeak/en-us+f2", "espeak/en-gb-x-rp")
_MEGABYTE = 1_000_000
# getrusage counts in kilobytes on Linux and in bytes on macOS.
_RESIDENT_UNIT = 1 if sys.platform == "darwin" else 1024


class SpeedProbeError(TinyvoiceError):
    """A measuring process ended without a figure."""


@dataclass(frozen=True)
class RealTimeFactor:
    """Seconds of work per second of audio: waited for, and spent by the processor."""

    wall: float
    processor: float


@dataclass(frozen=True)
class FrontEndSpeed:
    """One way to call the model: single clips, batches of 16, peak memory of its process."""

    front_end: str
    single: RealTimeFactor
    batch: RealTimeFactor
    peak_mb: float


@dataclass(frozen=True)
class Speed:
    """All figures of one machine."""

    model: str
    machine: str
    audio_seconds: float
    front_ends: list[FrontEndSpeed]
    start_seconds: float
    """From the start of ``tinyvoice transcribe CLIP`` to its first line of output."""
    start_processor_seconds: float
    start_peak_mb: float

    def to_json(self) -> dict[str, Any]:
        """Return all figures as a JSON object."""
        return {"test_set": "speed", **asdict(self)}


def measure_speed(model: str = "embedded") -> Speed:
    """Measure everything; takes a minute or two.

    Raises SpeedProbeError, with what the process said, when one of them fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        clips = speak_clips(Path(folder))
        front_ends = [run_probe(name, model, clips) for name in FRONT_ENDS]
        start = time_start(model, clips[0])
        seconds = sum(soundfile.info(clip).duration for clip in clips)
    return Speed(model, machine(), round(seconds, 1), front_ends, *start)


def machine() -> str:
    """Name this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, one core of {os.cpu_count()}"


def speak_clips(folder: Path) -> list[Path]:
    """Speak `CLIPS` clips of 3 to 10 s: sentences of the grammar, joined until long enough."""
    from training.synthesis.grammar import sentences
    from training.synthesis.speech import Synthesiser
    from training.text import normalise

    texts = iter([normalise(text) for text in sentences(20 * CLIPS, 0)])
    draw = random.Random(0)
    pause = np.zeros(SAMPLE_RATE // 5, dtype=np.float32)
    clips: list[Path] = []
    while len(clips) < CLIPS:
        voice = Synthesiser(_VOICES[len(clips) % len(_VOICES)])
        wanted = draw.uniform(SHORTEST_S, LONGEST_S - 2.0) * SAMPLE_RATE
        pieces: list[np.ndarray] = []
        while sum(map(len, pieces)) < wanted:
            pieces += [voice.speak(next(texts)).samples, pause]
        samples = np.concatenate(pieces)[: int(LONGEST_S * SAMPLE_RATE)]
        clips.append(folder / f"{len(clips):02d}.wav")
        soundfile.write(clips[-1], samples, SAMPLE_RATE)
    return clips


# In the measured processes -------------------------------------------------------------------


def one_core() -> None:
    """Bind this process to one of its cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _environment() -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, **threads, "PYTHONPATH": path}


def run_probe(front_end: str, model: str, clips: Sequence[Path]) -> FrontEndSpeed:
    """Measure one front end in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "training.evaluation.speed",
        front_end,
        model,
        *map(str, clips),
    ]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SpeedProbeError(
            f"The speed of {front_end} could not be measured: {_last_line(done.stderr)}"
        )
    figures = json.loads(done.stdout.splitlines()[-1])
    return FrontEndSpeed(
        front_end,
        RealTimeFactor(*figures["single"]),
        RealTimeFactor(*figures["batch"]),
        figures["peak_mb"],
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def probe(front_end: str, model: str, paths: Sequence[str]) -> dict[str, Any]:
    """Measure one front end inside this process, on one core."""
    one_core()
    import torch

    torch.set_num_threads(1)
    clips = [load_audio(path).samples for path in paths]
    transcribe = _front_end(front_end, model)
    # The first calls pay for what is allocated and compiled only once.
    transcribe(clips[:1])
    transcribe(clips[:BATCH])
    seconds = sum(map(len, clips)) / SAMPLE_RATE
    single = _time(lambda: [transcribe([clip]) for clip in clips], seconds)
    batches = [clips[start : start + BATCH] for start in range(0, len(clips), BATCH)]
    batch = _time(lambda: [transcribe(group) for group in batches], seconds)
    return {"single": single, "batch": batch, "peak_mb": _peak_mb(resource.RUSAGE_SELF)}


def _front_end(name: str, model: str) -> Callable[[list[np.ndarray]], Any]:
    if name == "transcribe":
        from tinyvoice.model.modeling import ASRModel

        loaded: Any = ASRModel.from_pretrained(model, device="cpu")
        return lambda clips: loaded.transcribe(clips, sample_rate=SAMPLE_RATE, batch_size=BATCH)
    from transformers import pipeline

    from tinyvoice.model.checkpoint import resolve_folder

    recognise: Any = pipeline(
        "automatic-speech-recognition", model=str(resolve_folder(model)), device="cpu"
    )
    return lambda clips: recognise(list(clips), batch_size=BATCH)


def _time(work: Callable[[], Any], audio_seconds: float) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return (
        (time.perf_counter() - wall) / audio_seconds,
        (time.process_time() - processor) / audio_seconds,
    )


def _peak_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss * _RESIDENT_UNIT / _MEGABYTE


def time_start(model: str, clip: Path) -> tuple[float, float, float]:
    """Run ``tinyvoice transcribe`` once: seconds to its first line, processor seconds, peak MB."""
    command = [sys.executable, "-m", "tinyvoice.cli.app", "transcribe", str(clip)]
    command += ["--model", model, "--device", "cpu"]
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        preexec_fn=one_core,  # runs between fork and exec: the interpreter starts bound
    )
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    elapsed = time.perf_counter() - started
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not line:
        raise SpeedProbeError(
            f"tinyvoice transcribe gave no transcript: {_last_line(process.stderr.read())}"
        )
    peak = usage.ru_maxrss * _RESIDENT_UNIT / _MEGABYTE
    return elapsed, usage.ru_utime + usage.ru_stime, peak


# Report --------------------------------------------------------------------------------------


def print_speed(console: Console, speed: Speed) -> None:
    """Print the figures as a table."""
    console.print(f"\n[bold]Speed on one core[/bold]  [dim]{speed.model}, {speed.machine}[/dim]")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for heading in ("waited", "processor", "peak memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for front in speed.front_ends:
        peak = f"{front.peak_mb:,.0f} MB"
        for what, factor in (("single clips", front.single), (f"batches of {BATCH}", front.batch)):
            label = f"real-time factor, {front.front_end}, {what}"
            table.add_row(label, f"{factor.wall:.4f}", f"{factor.processor:.4f}", peak)
    table.add_row(
        "start to first transcript",
        f"{speed.start_seconds:.2f} s",
        f"{speed.start_processor_seconds:.2f} s",
        f"{speed.start_peak_mb:,.0f} MB",
    )
    console.print(table)


def write_speed(folder: Path, speed: Speed) -> None:
    """Write ``speed.json`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "speed.json").write_text(json.dumps(speed.to_json(), indent=2) + "\n")


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1], sys.argv[2], sys.argv[3:])))

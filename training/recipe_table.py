"""The recipe on small frozen backbones, as a table: every projector type, and the three stages.

    python -m training.recipe_table runs/backbones corpus/manifest.jsonl dev/manifest.jsonl

Trains each projector type from scratch between the same frozen encoder and language model, then the
two LoRA stages on top of the ``mlp`` projector, and prints type, trained parameters, word error
rate and minutes. Runs are bounded and small: they show that the recipe works, not how good it can
get.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from safetensors import safe_open

from tinyvoice.errors import ConfigurationError
from training.evaluation.results_table import replace_table

BEGIN = "<!-- recipe: written by `python -m training.recipe_table` -->"
END = "<!-- end of recipe -->"

QUIET_AUGMENTATION = tuple(
    f"data.augmentation.{name}.probability=0" for name in ("reverb", "telephone", "short_noises")
)


UTTERANCES = 200
"""Of the development set: error rates are measured on so many, drawn."""


@dataclass(frozen=True)
class Run:
    """One training run: its row in the table, and what it overrides."""

    name: str
    title: str
    overrides: tuple[str, ...]


PROJECTORS = tuple(
    Run(name, f"stage 1, projector `{name}`", (f"+experiments={experiment}", *extra))
    for name, experiment, extra in (
        ("mlp", "transcription", ()),
        ("mosa", "mosa", ()),
        ("moe", "moe", ()),
        ("qformer", "qformer", ("model.downsample_rate=3",)),
    )
)
"""The qformer is asked for as many queries as the others make tokens, about."""


def later_stages(output: Path) -> tuple[Run, ...]:
    """LoRA alone, then both together, each from where the one before it ended."""
    return (
        Run(
            "lora",
            "stage 2, LoRA on `mlp`, projector frozen",
            ("+experiments=mlp_lora", f"model.checkpoint={output / 'mlp' / 'best'}"),
        ),
        Run(
            "both",
            "stage 3, projector and LoRA",
            (
                "+experiments=mlp_lora",
                "stage=projector_and_lora",
                f"model.checkpoint={output / 'lora' / 'best'}",
            ),
        ),
    )


def main(
    backbones: Annotated[Path, typer.Argument(help="Checkpoint whose backbones are frozen.")],
    train: Annotated[Path, typer.Argument(help="Manifest to train on.")],
    development: Annotated[Path, typer.Argument(help="Manifest to measure on.")],
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("runs/recipe"),
    steps: Annotated[int, typer.Option(help="Steps of each run.")] = 300,
    minutes: Annotated[float, typer.Option(help="Minutes of each run at most.")] = 6.0,
    parallel: Annotated[int, typer.Option(help="Runs side by side, one thread each.")] = 4,
    into: Annotated[Path | None, typer.Option(help="Document to write the table into.")] = None,
) -> None:
    """Train and measure every row, then print the table as Markdown."""
    output = output.absolute()
    common = (
        "data=manifest",
        f"data.corpora=[{{manifest:{train.absolute()},eval_manifest:{development.absolute()}}}]",
        f"data.max_eval_samples={UTTERANCES}",
        *QUIET_AUGMENTATION,
        "training.workers=0",
        "training.batch.seconds=40",
        "training.eval_every_steps=null",
        "training.schedule.warmup_steps=20",
        "training.aligner_weight=0",
        f"training.max_steps={steps}",
        f"training.max_minutes={minutes}",
    )

    def run(job: Run, start: tuple[str, ...] = ()) -> str:
        overrides = (*job.overrides, *start, *common)
        return train_and_describe(job, overrides, output, development)

    start = (f"model.checkpoint={backbones.absolute()}",)
    with ThreadPoolExecutor(parallel) as pool:
        rows = list(pool.map(lambda job: run(job, start), PROJECTORS))
    rows += [run(job) for job in later_stages(output)]
    header = ["| run | trained parameters | word error rate | minutes | steps |"]
    table = "\n".join([*header, "| --- | --- | --- | --- | --- |", *rows])
    Console().print(table, markup=False, soft_wrap=True)
    if into is not None:
        document = replace_table(into.read_text(encoding="utf-8"), table, BEGIN, END)
        into.write_text(document, encoding="utf-8")


def train_and_describe(
    job: Run, overrides: tuple[str, ...], output: Path, development: Path
) -> str:
    """Train one run in a process of its own and measure it in another; its row of the table."""
    folder = output / job.name
    started = time.monotonic()
    _python(job, "training.train", *overrides, f"output_dir={folder}")
    taken = (time.monotonic() - started) / 60
    events = [json.loads(line) for line in (folder / "log.jsonl").open(encoding="utf-8")]
    last = [event for event in events if event["event"] == "eval"][-1]
    trained = trained_parameters(folder / "best", job.name) / 1e6
    model = ("-m", str(folder / "best"))
    measured = ("-d", str(development), "-n", str(UTTERANCES))
    figures = json.loads(_python(job, "tinyvoice", "eval", *model, *measured, "--json"))
    rate = error_rate(figures)
    return f"| {job.title} | {trained:.2f}M | {rate} | {taken:.1f} | {last['step']} |"


def error_rate(figures: dict[str, Any]) -> str:
    """A word error rate and its interval, from what ``tinyvoice eval --json`` prints."""
    low, high = figures["wer_interval"]
    return f"{figures['wer']:.1%} ({low:.1%} to {high:.1%})"


def _python(job: Run, module: str, *arguments: str) -> str:
    """Run a module in a process of one thread and return what it prints."""
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if finished.returncode:
        raise ConfigurationError(f"the run {job.name} failed: {finished.stderr.strip()[-500:]}")
    return finished.stdout


def trained_parameters(checkpoint: Path, name: str) -> int:
    """Parameters of the projector, of the adapter, or of both."""
    projector = adapter = 0
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        for key in file.keys():  # noqa: SIM118 - not a dictionary
            if key.startswith("projector."):
                projector += file.get_tensor(key).numel()
    if (checkpoint / "adapter_model.safetensors").exists():
        with safe_open(checkpoint / "adapter_model.safetensors", "pt") as file:
            adapter = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118
    return {"lora": adapter, "both": projector + adapter}.get(name, projector)


if __name__ == "__main__":
    typer.run(main)

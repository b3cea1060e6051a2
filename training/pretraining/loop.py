"""The optimisation loop of the pretraining programs: one model, one loss, one or more processes.

It knows nothing of speech. It schedules the learning rate, clips gradients, logs JSON lines, shows
progress, saves its state and resumes from it. A run may be bounded by steps, by minutes, or by
both; the learning rate follows whichever is nearer its end, so a run of given minutes still ends
annealed. The recipe's own trainer (``training.trainer``) is the one for accelerators.

On a CPU several processes of one thread train a small model nearly twice as fast as one process
with as many threads: start the program with ``torchrun`` and gradients are averaged over the
processes.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

STATE = "state.pt"


def join_processes() -> tuple[int, int]:
    """Rank and number of processes; joins the group that ``torchrun`` describes, if there is
    one."""
    if "RANK" not in os.environ:
        return 0, 1
    if not distributed.is_initialized():
        distributed.init_process_group("gloo")
    return distributed.get_rank(), distributed.get_world_size()


def wait_for_processes() -> None:
    """Wait until every process has come here."""
    if distributed.is_initialized():
        distributed.barrier()


@dataclass(frozen=True)
class LoopSettings:
    """Bounds and rates of a run. ``peak`` learning rates are those of the parameter groups."""

    folder: Path
    max_steps: int = 100_000
    max_minutes: float = math.inf
    peak_factor: float = 1.0
    """Of all peak learning rates: below 1 for a short training of what has been trained already."""
    warmup_steps: int = 200
    final_fraction: float = 0.02
    """Learning rate at the end, as a fraction of the peak."""
    max_gradient_norm: float = 1.0
    save_every_minutes: float = 5.0
    log_every_steps: int = 20


class Loop:
    """Trains ``model`` with ``loss`` on ``batches``.

    ``loss(batch, step)`` returns the scalar to minimise and numbers to log. ``batches(step)``
    iterates from the given step on, so that a resumed run sees the data that an unbroken one would.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: list[dict[str, Any]],
        loss: Callable[[Any, int], tuple[Tensor, dict[str, float]]],
        batches: Callable[[int], Iterator[Any]],
        settings: LoopSettings,
    ) -> None:
        self.model, self.loss, self.batches, self.settings = model, loss, batches, settings
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
        self.peaks = [group["lr"] * settings.peak_factor for group in self.optimizer.param_groups]
        self.step, self.minutes = 0, 0.0
        self.rank, self.processes = join_processes()
        settings.folder.mkdir(parents=True, exist_ok=True)

    def rate(self) -> float:
        """Factor of the peak learning rate now: linear warm-up, then a cosine."""
        settings = self.settings
        if self.step < settings.warmup_steps:
            return (self.step + 1) / settings.warmup_steps
        done = min(1.0, max(self.step / settings.max_steps, self.minutes / settings.max_minutes))
        return settings.final_fraction + (1 - settings.final_fraction) * 0.5 * (
            1 + math.cos(math.pi * done)
        )

    def finished(self) -> bool:
        """Whether a bound of the run has been reached."""
        return self.step >= self.settings.max_steps or self.minutes >= self.settings.max_minutes

    def run(self) -> None:
        """Train from where the last run stopped until a bound is reached."""
        self.load()
        started, before, saved = time.monotonic(), self.minutes, self.minutes
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            disable=self.rank != 0,
        ) as progress:
            bar = progress.add_task("training", total=self.settings.max_steps)
            for batch in self.batches(self.step):
                if self.finished():
                    break
                minutes = before + (time.monotonic() - started) / 60
                numbers = self._update(batch, minutes)
                if self.rank == 0 and self.step % self.settings.log_every_steps == 0:
                    self._log(numbers)
                    text = "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())
                    progress.update(bar, completed=self.step, description=text)
                if self.minutes - saved > self.settings.save_every_minutes:
                    self.save()
                    saved = self.minutes
        self.save()

    def _update(self, batch: Any, minutes: float) -> dict[str, float]:
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self.rate()
        loss, numbers = self.loss(batch, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.minutes = self._average(trained, minutes)
        norm = nn.utils.clip_grad_norm_(trained, self.settings.max_gradient_norm)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        return {"loss": float(loss.detach()), **numbers, "gradient_norm": float(norm)}

    def _average(self, trained: list[nn.Parameter], minutes: float) -> float:
        """Average gradients over the processes, and their clocks: all must end at the same step."""
        if self.processes == 1:
            return minutes
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor([minutes])])
        distributed.all_reduce(flat)
        flat /= self.processes
        start = 0
        for parameter in trained:
            parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        return float(flat[-1])

    def _log(self, numbers: dict[str, float]) -> None:
        record = {
            "step": self.step,
            "minutes": round(self.minutes, 3),
            "rate": round(self.rate(), 4),
        }
        with (self.settings.folder / "log.jsonl").open("a") as file:
            file.write(
                json.dumps({**record, **{k: round(v, 5) for k, v in numbers.items()}}) + "\n"
            )

    def save(self) -> None:
        """Write weights, optimizer and position; the file is replaced whole, never half written."""
        if self.rank != 0:
            return
        path = self.settings.folder / STATE
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "minutes": self.minutes,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self) -> bool:
        """Take up the state of an earlier run in the same folder, if there is one."""
        path = self.settings.folder / STATE
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.minutes = state["step"], state["minutes"]
        return True


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Weights of the model that a loop saved in ``folder``."""
    state: dict[str, Tensor] = torch.load(folder / STATE, weights_only=True)["model"]
    return state


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write weights where `load_weights` finds them, as if a loop had ended there."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, folder / STATE)

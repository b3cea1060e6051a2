"""The training loop: one CPU, one GPU or many, resumable to the bit.

A step takes a global batch, averages its loss over all its label tokens on all processes, and
updates the weights once; so two processes train as one does with the doubled batch, and so does
accumulation. Everything random in a step is a function of the seed, the step and the process:
nothing needs to be remembered of it, and a resumed run gives the weights that an unbroken one
gives.

The trainer knows batches, losses and files. Which weights are trainable is decided before
(`training.stages`), which clips there are is decided elsewhere (`training.data`).
"""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tinyvoice.errors import ConfigurationError, TinyvoiceError
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.processing import IGNORED_LABEL
from tinyvoice.model.text import clean_transcript
from training.data.augmentation import Augmentation
from training.data.batching import BatchSettings, ClipKey, GlobalBatches, MicroBatches
from training.data.collator import Batch, ClipSettings, FrameCounts, TrainingClips, collate
from training.data.mixing import Mixture
from training.evaluation.wer import WordErrors, word_errors
from training.schedule import ScheduleSettings
from training.stages import hold_frozen_weights_in, trainable_groups, trainable_parameters
from training.tracking import Tracker, Tracking

STATE_FILE = "training_state.pt"
CHECKPOINT_PREFIX = "checkpoint-"
BEST_FOLDER = "best"
MOST_SKIPPED_STEPS = 20
"""Steps in a row whose gradients are not numbers, after which training is given up."""
EVAL_TOKENS_PER_SECOND = 12
"""Bounds what is decoded in evaluation: speech has about 4 tokens a second."""


class TrainingDivergedError(TinyvoiceError):
    """The gradients have been infinite or not numbers for many steps."""


class ResumeError(TinyvoiceError):
    """A saved state that does not belong to this run."""


class PushError(TinyvoiceError):
    """The trained checkpoint could not be uploaded; it is still in its folder."""


@dataclass(frozen=True)
class LearningRates:
    """Peak rates by part; parts that are frozen do not care."""

    projector: float = 1e-3
    decoder: float = 1e-4
    encoder: float = 1e-5
    aligner: float = 1e-3


@dataclass(frozen=True)
class TrainerSettings:
    """How a run is trained, logged and saved. Steps are optimizer steps."""

    max_steps: int | None = None
    """End of the run; null for ``epochs``."""
    max_minutes: float | None = None
    """End of the run by the clock, counted over all its resumed parts."""
    anneal_by: Literal["steps", "minutes"] = "steps"
    """``minutes`` lets the learning rate fall so that it reaches its end with ``max_minutes``; the
    rate then depends on the machine's speed, and resuming is no longer exact."""
    epochs: float = 1.0

    rates: LearningRates = field(default_factory=LearningRates)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    max_gradient_norm: float = 1.0
    aligner_weight: float = 0.3
    """Weight of the aligner's loss, where the model has an aligner and words their times."""

    batch: BatchSettings = field(default_factory=BatchSettings)
    eval_batch_seconds: float = 120.0
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation; trained weights are always held in float32. ``auto`` is bfloat16 on GPUs
    that compute in it."""
    frozen_precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """In which frozen weights are held. ``auto`` is bfloat16 where it is computed in and the frozen
    backbones are not part of the checkpoint."""
    gradient_checkpointing: bool = False
    cpu: bool = False
    """Leave GPUs alone."""
    workers: int | None = None
    """Data loader processes; null for up to four, as cores allow."""

    log_every_steps: int = 20
    eval_every_steps: int | None = 500
    eval_transcripts: int = 100
    """Clips that an evaluation transcribes for the word error rate."""
    save_every_steps: int | None = 500
    keep_checkpoints: int = 2
    resume: str | None = "auto"
    """``auto`` goes on with the newest state in the output folder if there is one; a checkpoint's
    folder goes on with that; null begins anew."""
    wandb: Tracking = "auto"
    push_to_hub: str | None = None
    """Hub repository that receives the best checkpoint at the end; needs ``HF_TOKEN``."""

    def clips_per_process(self) -> int | None:
        """Return how many clips a process takes in ``max_steps`` at most; None without such."""
        if self.max_steps is None:
            return None
        return self.max_steps * self.batch.accumulation * self.batch.max_clips


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended."""

    step: int
    stopped_by: Literal["steps", "minutes", "signal"]
    checkpoint: Path
    best: Path | None
    figures: dict[str, float]
    """Of the last evaluation."""
    unreadable: int
    """Clips that could not be read and were left out, repeats included."""


class LossModule(nn.Module):
    """The model with its losses as sums, so that they can be averaged over processes."""

    def __init__(self, model: ASRModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, chunk_frames: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the loss summed over label tokens, and over the aligner's target frames."""
        output = self.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            input_features=batch.input_features,
            input_features_mask=batch.input_features_mask,
            labels=batch.labels,
            chunk_frames=chunk_frames,
        )
        text = output.loss * batch.label_tokens
        return text, self._aligner_loss(output.encoder_hidden, batch.frame_targets)

    def _aligner_loss(self, hidden: Tensor, targets: Tensor | None) -> Tensor:
        """Cross-entropy of the letter of each frame; keeps the graph whole where there is none."""
        if self.model.aligner is None:
            return hidden.new_zeros(())
        if targets is None:
            return self.model.aligner(hidden[:, :1]).sum() * 0.0
        logits = self.model.aligner(hidden[:, : targets.shape[1]])
        return nn.functional.cross_entropy(
            logits.float().flatten(0, 1),
            targets[:, : logits.shape[1]].flatten(),
            ignore_index=IGNORED_LABEL,
            reduction="sum",
        )


class Trainer:
    """Trains a model on a mixture of clips; `run` is the whole story.

    Args:
        model: with the weights to train marked by ``requires_grad``, and its processor.
        folder: where checkpoints and logs go.
        clips: what to train on.
        settings: how.
        eval_clips: what to evaluate on, never augmented; None for no evaluation.
        clip_settings: what happens to a training clip; the seed is the trainer's.
        augmentation: of training clips.
        chunk_mask_probability, chunk_frames: how often, and by which range of blocks, the
            encoder's view is limited to the past.
        configuration: written to W&B.

    Raises:
        ConfigurationError: nothing is trainable, or nothing ends the run.
    """

    def __init__(
        self,
        model: ASRModel,
        folder: str | Path,
        clips: Mixture,
        settings: TrainerSettings,
        *,
        eval_clips: Mixture | None = None,
        clip_settings: ClipSettings | None = None,
        augmentation: Augmentation | None = None,
        chunk_mask_probability: float = 0.0,
        chunk_frames: tuple[int, int] = (8, 32),
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = settings
        self.folder = Path(folder)
        self.model = model
        self.configuration = configuration or {}
        self.chunk_mask_probability, self.chunk_frames = chunk_mask_probability, chunk_frames
        self.accelerator = make_accelerator(settings, model)
        self._prepare_model(model)
        processor = model.processor
        assert processor is not None, "a model is loaded with its processor"
        counts = FrameCounts.of(model, processor)
        self.examples = TrainingClips(
            clips, processor, counts, clip_settings or ClipSettings(), augmentation
        )
        self.batches = GlobalBatches(
            clips.durations, settings.batch, self.accelerator.num_processes
        )
        self.eval_clips = eval_clips
        self.eval_examples = (
            TrainingClips(
                eval_clips,
                processor,
                counts,
                ClipSettings(
                    system_prompt=self.examples.settings.system_prompt,
                    aligner_alphabet=self.examples.settings.aligner_alphabet,
                    silence_padding_s=self.examples.settings.silence_padding_s,
                    skip_unreadable=True,
                ),
            )
            if eval_clips is not None and len(eval_clips)
            else None
        )
        self.total_steps = self._total_steps()
        self.schedule = settings.schedule.for_run_of(self.total_steps)
        self.step, self.minutes = 0, 0.0
        self.best_loss = math.inf
        self.unreadable = 0
        self._first_error: str | None = None
        self._skipped_in_a_row = 0
        self._signalled = False

    def run(self) -> TrainingResult:
        """Train from the beginning or from the saved state to the end of the run."""
        self._resume()
        started, before, evaluated = time.monotonic(), self.minutes, -1
        figures: dict[str, float] = {}
        with self._tracker() as tracker, _signals(self._on_signal):
            self._announce(tracker)
            window = Window()
            batches = iter(self._loader())
            stopped_by = self._stop_reason(False)
            while stopped_by is None:
                micro = list(islice(batches, self.settings.batch.accumulation))
                losses, counts, signalled = self._update(micro)
                self.step += 1
                self.minutes = before + (time.monotonic() - started) / 60
                window.add(losses, counts)
                tracker.advance(self.step)
                if self.step % self.settings.log_every_steps == 0:
                    tracker.record("train", self.step, window.figures(self._rates()))
                    window = Window()
                if _due(self.step, self.settings.eval_every_steps) and self.eval_examples:
                    figures, evaluated = self._evaluate_and_keep_best(tracker), self.step
                if _due(self.step, self.settings.save_every_steps):
                    self.save()
                stopped_by = self._stop_reason(signalled)
            # A signal leaves little time: the state matters more than figures.
            if stopped_by != "signal" and self.eval_examples and evaluated != self.step:
                figures = self._evaluate_and_keep_best(tracker)
            checkpoint = self.save()
            self._summarise(tracker, stopped_by, checkpoint)
        self._push()
        best = self.folder / BEST_FOLDER
        return TrainingResult(
            self.step,
            stopped_by,
            checkpoint,
            best if best.is_dir() else None,
            figures,
            self.unreadable,
        )

    # --- one step --------------------------------------------------------------------------------

    def _update(self, micro: list[Batch]) -> tuple[dict[str, float], dict[str, float], bool]:
        """Make one optimizer step.

        Returns the mean losses and the counts they are the means of, over all processes, and
        whether some process has been told to stop.
        """
        self._seed_step()
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self._factor()
        tokens, frames, seconds, signalled = self._sum_over_processes(
            sum(batch.label_tokens for batch in micro),
            sum(batch.target_frames for batch in micro),
            sum(batch.seconds for batch in micro),
            float(self._signalled),
        )
        chunk_frames = self._draw_chunk_frames()
        sums = torch.zeros(2, dtype=torch.float64)
        self.optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(micro):
            self._note_errors(batch)
            last = number == len(micro) - 1
            context = nullcontext() if last else self.accelerator.no_sync(self.module)
            with context:
                text, aligner = self.module(batch.to(self.accelerator.device), chunk_frames)
                loss = text / max(tokens, 1.0)
                loss = loss + self.settings.aligner_weight * aligner / max(frames, 1.0)
                # Gradients are averaged over processes, and the sum is wanted.
                self.accelerator.backward(loss * self.accelerator.num_processes)
            sums += torch.stack([text.detach(), aligner.detach()]).double().cpu()
        self._apply_gradients()
        text_sum, aligner_sum = self._sum_over_processes(*sums.tolist())
        losses = {"loss": text_sum / max(tokens, 1.0)}
        if frames:
            losses["aligner_loss"] = aligner_sum / frames
        counts = {"tokens": tokens, "frames": frames, "seconds": seconds}
        return losses, counts, signalled > 0

    def _apply_gradients(self) -> None:
        """Clip the gradients and step; a step whose gradients are not numbers is skipped."""
        norm = self.accelerator.clip_grad_norm_(
            self.trainable.values(), self.settings.max_gradient_norm
        )
        if torch.isfinite(torch.as_tensor(norm)):
            self._skipped_in_a_row = 0
            self.optimizer.step()
            return
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MOST_SKIPPED_STEPS:
            raise TrainingDivergedError(
                f"The gradients have not been finite for {MOST_SKIPPED_STEPS} steps up to step "
                f"{self.step}: lower training.rates or raise training.schedule.warmup_steps, and "
                "go on from the last checkpoint."
            )

    def _seed_step(self) -> None:
        """Seed every generator that a step may draw from."""
        seeds = [self.settings.seed, self.step, self.accelerator.process_index]
        seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)

    def _draw_chunk_frames(self) -> int | None:
        """Draw whether and how a step limits the encoder's view, alike on every process."""
        draw = np.random.default_rng([self.settings.seed, 1, self.step])
        if draw.random() >= self.chunk_mask_probability:
            return None
        low, high = self.chunk_frames
        return int(draw.integers(low, high + 1))

    def _sum_over_processes(self, *values: float) -> list[float]:
        """Add up numbers over all processes."""
        if self.accelerator.num_processes == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        reduced: Tensor = self.accelerator.reduce(total, reduction="sum")
        return reduced.tolist()

    # --- evaluation ------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Return ``loss`` and ``wer`` on the evaluation clips, over all processes."""
        assert self.eval_examples is not None, "run asks first whether there is anything"
        batches = GlobalBatches(
            self.eval_examples.source.durations,  # type: ignore[attr-defined]
            BatchSettings(seconds=self.settings.eval_batch_seconds, shuffle=False, pool=1 << 30),
        ).epoch(0)
        mine = batches[self.accelerator.process_index :: self.accelerator.num_processes]
        keys = [[ClipKey(0, int(index)) for index in clips] for clips in mine]
        loader = DataLoader(self.eval_examples, batch_sampler=keys, collate_fn=collate)
        step = max(1, len(self.eval_examples) // max(1, self.settings.eval_transcripts))
        sums = np.zeros(4)
        self.module.eval()
        with torch.no_grad(), self.accelerator.autocast():
            for clips, batch in zip(mine, loader, strict=True):
                batch = batch.to(self.accelerator.device)
                text, _ = self.accelerator.unwrap_model(self.module)(batch)
                heard = [row for row, index in enumerate(clips) if index % step == 0]
                errors = self._transcription_errors(batch, heard)
                sums += [float(text), batch.label_tokens, errors.total, errors.words]
        self.module.train()
        loss, tokens, edits, words = self._sum_over_processes(*sums.tolist())
        return {"loss": loss / max(tokens, 1.0), "wer": edits / max(words, 1.0)}

    def _transcription_errors(self, batch: Batch, rows: list[int]) -> WordErrors:
        """Transcribe some clips of a batch and count their word errors."""
        if not rows:
            return WordErrors()
        hop = self.examples.processor.hop_seconds
        limit = 8 + int(batch.input_features.shape[-1] * hop * EVAL_TOKENS_PER_SECOND)
        ids = self.model.generate(
            batch.input_features[rows], batch.input_features_mask[rows], max_new_tokens=limit
        )
        total = WordErrors()
        for row, tokens in zip(rows, ids, strict=True):
            text = self.examples.processor.tokenizer.decode(tokens, skip_special_tokens=True)
            total = total + word_errors(batch.texts[row], clean_transcript(text))
        return total

    def _evaluate_and_keep_best(self, tracker: Tracker) -> dict[str, float]:
        """Evaluate, record, and keep the checkpoint if it is the best so far."""
        figures = self.evaluate()
        tracker.record("eval", self.step, figures)
        if figures["loss"] < self.best_loss:
            self.best_loss = figures["loss"]
            if self.accelerator.is_main_process:
                _write_folder(self.folder / BEST_FOLDER, self.model.save_pretrained)
            self.accelerator.wait_for_everyone()
        return figures

    # --- state -----------------------------------------------------------------------------------

    def save(self) -> Path:
        """Write a checkpoint that transcribes and from which training goes on; return its folder.

        The folder appears whole or not at all. Older ones beyond ``keep_checkpoints`` go.
        """
        folder = self.folder / f"{CHECKPOINT_PREFIX}{self.step:07d}"
        if self.accelerator.is_main_process:
            _write_folder(folder, self._write_state)
            for old in saved_checkpoints(self.folder)[: -self.settings.keep_checkpoints]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()
        return folder

    def _write_state(self, folder: Path) -> None:
        """Write the model as a checkpoint and, beside it, what training needs to go on."""
        self.model.save_pretrained(folder)
        state = {
            "step": self.step,
            "minutes": self.minutes,
            "best_loss": self.best_loss,
            "unreadable": self.unreadable,
            "data": self._fingerprint(),
            "weights": {name: p.detach().cpu() for name, p in self.trainable.items()},
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, folder / STATE_FILE)

    def _resume(self) -> None:
        """Take up a saved state, if the settings name one or there is one."""
        if self.settings.resume is None:
            return
        if self.settings.resume != "auto":
            self.load(Path(self.settings.resume))
            return
        folders = saved_checkpoints(self.folder)
        if folders:
            self.load(folders[-1], same_data=True)

    def _fingerprint(self) -> str:
        """Return what tells one choice of data from another: a resumed run must not change it."""
        durations = self.batches.durations
        return f"{len(durations)} clips of {durations.sum():.2f} s"

    def load(self, folder: Path, *, same_data: bool = False) -> None:
        """Take up the state that a run saved in a checkpoint folder.

        Raises:
            ResumeError: there is none, or it is of a run that trains other weights, or, with
                ``same_data``, of a run on other data.
        """
        path = folder / STATE_FILE
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            raise ResumeError(
                f"{folder} has no {STATE_FILE}: training.resume must name a folder that training "
                "has written, auto or null."
            ) from error
        except Exception as error:  # torch raises many kinds for a file that is not its own
            raise ResumeError(
                f"{path} cannot be read ({error}): remove {folder} to go on from an older one."
            ) from error
        saved, mine = state["weights"], self.trainable
        different = sorted(
            name
            for name in saved.keys() | mine.keys()
            if name not in saved or name not in mine or saved[name].shape != mine[name].shape
        )
        if different:
            raise ResumeError(
                f"{folder} was saved by a run that trains other weights ({different[0]} differs): "
                "go on with the same configuration, or set training.resume=null and "
                f"model.checkpoint={folder} to start a new run from its model."
            )
        if same_data and state["data"] != self._fingerprint():
            raise ResumeError(
                f"{self.folder} holds a run on other data ({state['data']}, now "
                f"{self._fingerprint()}): set output_dir for a run beside it, "
                "training.resume=null to begin anew in its place, or "
                f"training.resume={folder} to go on from it all the same."
            )
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(saved[name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.minutes = int(state["step"]), float(state["minutes"])
        self.best_loss, self.unreadable = float(state["best_loss"]), int(state["unreadable"])

    # --- preparation -----------------------------------------------------------------------------

    def _prepare_model(self, model: ASRModel) -> None:
        """Choose precisions, group the trainable weights, and wrap the model for its devices."""
        settings = self.settings
        groups = trainable_groups(model)
        if not groups:
            raise ConfigurationError("Nothing is trainable: choose another stage.", key="stage")
        computes_bfloat16 = self.accelerator.mixed_precision == "bf16"
        if settings.frozen_precision == "bfloat16" or (
            settings.frozen_precision == "auto"
            and computes_bfloat16
            and not model.config.embedded_backbones
        ):
            hold_frozen_weights_in(model, torch.bfloat16)
        if settings.gradient_checkpointing:
            model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        self.trainable = dict(trainable_parameters(model))
        self.peaks = [getattr(settings.rates, part) for part in groups]
        optimizer = torch.optim.AdamW(
            [
                {"params": parameters, "lr": peak}
                for parameters, peak in zip(groups.values(), self.peaks, strict=True)
            ],
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        self.module, self.optimizer = self.accelerator.prepare(LossModule(model), optimizer)
        self.module.train()

    def _loader(self) -> DataLoader[Any]:
        """Return the endless loader of this process's micro-batches, from the current step on."""
        workers = self.settings.workers
        if workers is None:
            workers = min(4, available_cores() - 1)
        sampler = MicroBatches(
            self.batches, rank=self.accelerator.process_index, first_step=self.step
        )
        return DataLoader(
            self.examples,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_ignore_signals,
            pin_memory=self.accelerator.device.type == "cuda",
        )

    def _total_steps(self) -> int | None:
        """Return the step at which the run ends, None if only the clock ends it."""
        settings = self.settings
        if settings.max_steps is not None:
            return settings.max_steps
        if settings.max_minutes is not None:
            if settings.anneal_by == "minutes" or settings.schedule.kind == "constant":
                return None
            raise ConfigurationError(
                "training.max_minutes alone does not say how the learning rate falls: set "
                "training.max_steps, or training.anneal_by=minutes.",
                key="training.max_minutes",
            )
        return max(1, math.ceil(settings.epochs * len(self.batches.epoch(0))))

    def _progress(self) -> float:
        """Return the finished part of the run, 0 to 1."""
        if self.settings.anneal_by == "minutes" and self.settings.max_minutes:
            return self.minutes / self.settings.max_minutes
        return self.step / self.total_steps if self.total_steps else 0.0

    def _factor(self) -> float:
        return self.schedule.factor(self.step, self._progress())

    def _rates(self) -> dict[str, float]:
        """Return the learning rate of the first group, under its usual name."""
        return {"lr": float(self.optimizer.param_groups[0]["lr"])}

    def _stop_reason(self, signalled: bool) -> Literal["steps", "minutes", "signal"] | None:
        """Say why the run ends now, or None. All processes agree."""
        if signalled:
            return "signal"
        if self.total_steps is not None and self.step >= self.total_steps:
            return "steps"
        if self.settings.max_minutes is None:
            return None
        # Clocks differ by a step: the first process past the limit stops all.
        (over,) = self._sum_over_processes(float(self.minutes >= self.settings.max_minutes))
        return "minutes" if over else None

    def _on_signal(self) -> None:
        self._signalled = True

    def _note_errors(self, batch: Batch) -> None:
        """Count what could not be read."""
        self.unreadable += len(batch.errors)
        if batch.errors and self._first_error is None:
            self._first_error = batch.errors[0]

    # --- reports ---------------------------------------------------------------------------------

    def _tracker(self) -> Tracker:
        return Tracker(
            self.folder,
            self.configuration,
            main=self.accelerator.is_main_process,
            wandb=self.settings.wandb,
            total_steps=self.total_steps,
        )

    def _announce(self, tracker: Tracker) -> None:
        """Say what is about to be trained, on what."""
        counts = {
            part: sum(parameter.numel() for parameter in parameters)
            for part, parameters in trainable_groups(self.model).items()
        }
        parts = ", ".join(f"{part} {count / 1e6:.2f}M" for part, count in counts.items())
        tracker.say(f"trained parameters: {parts}")
        if self.step:
            tracker.say(f"going on from step {self.step}; training.resume=null would begin anew")
        hours = float(self.batches.durations.sum()) / 3600
        tracker.say(
            f"{len(self.batches.durations)} clips, {hours:.2f} h, on {self.accelerator.device} "
            f"with {self.accelerator.num_processes} process(es), "
            f"from step {self.step} to {self.total_steps or 'the time limit'}"
        )

    def _summarise(self, tracker: Tracker, stopped_by: str, checkpoint: Path) -> None:
        """Say how the run ended and what was left out."""
        (self_unreadable,) = self._sum_over_processes(float(self.unreadable))
        if self_unreadable:
            tracker.say(
                f"{self_unreadable:.0f} clips could not be read and were left out"
                + (f", the first: {self._first_error}" if self._first_error else "")
            )
        tracker.say(f"stopped by {stopped_by} at step {self.step}; saved in {checkpoint}")

    def _push(self) -> None:
        """Send the best checkpoint to the Hub, if that is wanted."""
        if self.settings.push_to_hub is None or not self.accelerator.is_main_process:
            return
        from huggingface_hub import HfApi

        best = self.folder / BEST_FOLDER
        folder = best if best.is_dir() else saved_checkpoints(self.folder)[-1]
        hub = HfApi()  # reads HF_TOKEN or the login of this machine
        try:
            hub.create_repo(self.settings.push_to_hub, exist_ok=True)
            hub.upload_folder(
                repo_id=self.settings.push_to_hub,
                folder_path=str(folder),
                ignore_patterns=[STATE_FILE],
                commit_message=f"Training, step {self.step}",
            )
        except (OSError, ValueError) as error:  # the Hub's own errors are among these
            raise PushError(
                f"{folder} could not be uploaded to {self.settings.push_to_hub} "
                f"({' '.join(str(error).split())[:200]}): it is safe there; check HF_TOKEN and the "
                "network, and upload it with `hf upload`."
            ) from error


@dataclass
class Window:
    """Losses and audio of the steps since the last line of the log."""

    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def add(self, losses: Mapping[str, float], counts: Mapping[str, float]) -> None:
        """Take in a step."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self.seconds += counts["seconds"]

    def figures(self, rates: Mapping[str, float]) -> dict[str, float]:
        """Return mean losses, rates, and audio seconds per second of the clock."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        means = {name: value / max(self.steps, 1) for name, value in self.sums.items()}
        return {**means, **rates, "audio_s_per_s": self.seconds / elapsed}


def make_accelerator(settings: TrainerSettings, model: ASRModel) -> Accelerator:
    """Return the accelerator of a run: devices, processes and precision of computation."""
    precision = settings.precision
    if precision == "auto":
        capable = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        capable = capable and not on_cpu(settings)
        precision = "bfloat16" if capable else "float32"
    # Experts that no token was sent to have no gradient.
    unused = DistributedDataParallelKwargs(
        find_unused_parameters=model.config.projector_type == "moe"
    )
    # A process has one such state: that of an earlier run must not bind this one.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision="bf16" if precision == "bfloat16" else "no",
        cpu=on_cpu(settings),
        kwargs_handlers=[unused],
    )


def on_cpu(settings: TrainerSettings) -> bool:
    """Whether to compute on the CPU. It must be said: many processes are otherwise taken for one
    each where there is no GPU."""
    return settings.cpu or not torch.accelerator.is_available()


def available_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def saved_checkpoints(folder: Path) -> list[Path]:
    """Return the folders of an output folder that training can go on from, oldest first."""
    return sorted(path.parent for path in folder.glob(f"{CHECKPOINT_PREFIX}*/{STATE_FILE}"))


def _write_folder(folder: Path, write: Any) -> None:
    """Fill a folder beside its place and then put it there, so that it is never half written."""
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _ignore_signals(_: int) -> None:
    """Let the main process decide what a signal to the whole group means."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _due(step: int, every: int | None) -> bool:
    """Whether something that happens every so many steps happens now."""
    return bool(every) and step % (every or 1) == 0


@contextmanager
def _signals(stop: Any) -> Iterator[None]:
    """Call ``stop`` at SIGTERM and SIGINT; a second SIGINT interrupts as usual.

    Outside of the main thread signals cannot be caught, and are not.
    """

    def caught(number: int, _: Any) -> None:
        stop()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        previous = {
            number: signal.signal(number, partial(caught))
            for number in (signal.SIGTERM, signal.SIGINT)
        }
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

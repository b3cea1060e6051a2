"""Train a model as a Hydra configuration says: ``python -m training.train +experiments=mosa``.

Reads ``configs/``, opens the data, builds the model of the stage, and hands both to the trainer.
Any key can be overridden on the command line; ``accelerate launch -m training.train …`` uses many
devices. ``tinyvoice train …`` is the same program.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyvoice.errors import ConfigurationError, MissingExtraError, TinyvoiceError
from tinyvoice.model.configuration import ASRConfig
from training.data.augmentation import build_augmentation
from training.data.collator import ClipSettings
from training.data.corpora import (
    Corpus,
    CorpusSettings,
    Labels,
    Limits,
    Split,
    may_have_word_times,
    open_corpus,
)
from training.data.manifest import OnError
from training.data.mixing import Mixture
from training.settings import parse_settings
from training.stages import ModelSettings, Stage, build_model
from training.trainer import Trainer, TrainerSettings, TrainingResult, on_cpu

try:
    import hydra
    from omegaconf import DictConfig, OmegaConf
except ImportError as missing:
    raise MissingExtraError("training", "Training") from missing

logger = logging.getLogger(__name__)

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SHOWN_ERRORS = 5
LONGEST_CLIP_S = 30.0  # of GLM-ASR's encoder and of Whisper's, whose features it takes


@dataclass(frozen=True)
class DataSettings:
    """What to train and evaluate on, and what happens to it."""

    corpora: tuple[CorpusSettings, ...] = ()
    max_train_samples: int | None = None
    """A bound on all training samples together, drawn at random."""
    max_eval_samples: int | None = 500
    shortest_s: float = 0.1
    longest_s: float = 30.0
    labels: Labels = "lower"
    on_error: OnError = "raise"
    """``skip`` leaves broken manifest lines and unreadable audio out and counts them."""
    seed: int = 0
    cut_probability: float = 0.0
    """How often a clip with known word times ends at a random point, its label with it."""
    empty_probability: float = 0.0
    """How often a clip is replaced by silence, noise or tones with an empty label."""
    augmentation: dict[str, Any] = field(default_factory=dict)
    """Transforms by name (`training.data.augmentation.TRANSFORMS`) with their settings."""


@dataclass(frozen=True)
class RunSettings:
    """A whole configuration."""

    output_dir: str
    stage: Stage = "projector"
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainerSettings = field(default_factory=TrainerSettings)


def run(configuration: Mapping[str, Any]) -> TrainingResult:
    """Train as a configuration says, a mapping like the one that Hydra composes.

    Raises:
        TinyvoiceError: whatever is wrong with configuration, data or checkpoint, in one sentence.
    """
    import torch

    settings = parse_settings(RunSettings, configuration, "")
    torch.manual_seed(settings.training.seed)
    model = build_model(settings.model, settings.stage)
    trainer_options: dict[str, Any] = {
        "clip_settings": clip_settings(settings, model.config),
        "augmentation": build_augmentation(settings.data.augmentation),
        "chunk_mask_probability": settings.model.chunk_mask_probability,
        "chunk_frames": settings.model.chunk_frames,
        "configuration": configuration,
    }
    train_clips, eval_clips = open_data(
        settings.data, on_cpu(settings.training), settings.training.clips_per_process()
    )
    trainer = Trainer(
        model,
        settings.output_dir,
        train_clips,
        settings.training,
        eval_clips=eval_clips,
        **trainer_options,
    )
    result = trainer.run()
    if trainer.accelerator.is_main_process:
        _report_left_out(train_clips)
    return result


def clip_settings(settings: RunSettings, config: ASRConfig) -> ClipSettings:
    """What happens to the clips of a run: as configured, and as its model wants them."""
    return ClipSettings(
        seed=settings.training.seed,
        cut_probability=settings.data.cut_probability,
        empty_probability=settings.data.empty_probability,
        system_prompt=config.system_prompt or "",
        aligner_alphabet=config.aligner_alphabet,
        silence_padding_s=config.silence_padding_s,
        skip_unreadable=settings.data.on_error == "skip",
    )


def open_data(
    settings: DataSettings, cpu: bool = True, clips_per_process: int | None = None
) -> tuple[Mixture, Mixture | None]:
    """Open all corpora and mix them; say what was taken and what was left out.

    With many processes, on the ``cpu`` or not, the first one opens them before the others do, so
    that what is made or measured is made once. ``clips_per_process`` is how many training clips
    each of them uses at most, where that is known.
    """
    from accelerate import PartialState

    if not settings.corpora:
        raise ConfigurationError(
            "data.corpora is empty: choose a group, such as data=synthesis, or list corpora.",
            key="data.corpora",
        )
    if not 0 < settings.longest_s <= LONGEST_CLIP_S:
        raise ConfigurationError(
            f"data.longest_s is {settings.longest_s:g}, and must be at most {LONGEST_CLIP_S:g}, "
            "which is what the encoder hears at once.",
            key="data.longest_s",
        )
    state = PartialState(cpu=cpu)
    needed = None if clips_per_process is None else clips_per_process * state.num_processes
    with state.main_process_first():
        train = _open_split(settings, "train", settings.max_train_samples, needed)
        evaluation = _open_split(settings, "eval", settings.max_eval_samples)
    if train is None:
        raise ConfigurationError(
            "No corpus under data.corpora has a training part: set manifest, train_splits or "
            "synthesis.",
            key="data.corpora",
        )
    if state.is_main_process:
        for mixture, what in ((train, "training"), (evaluation, "evaluation")):
            for name, count in mixture.counts().items() if mixture else ():
                print(f"{what}: {count} clips of {name}", file=sys.stderr)
        _report_left_out(train)
        if settings.cut_probability:
            _warn_of_uncut(train, settings.cut_probability)
    return train, evaluation


def _open_split(
    settings: DataSettings, split: Split, most: int | None, needed: int | None = None
) -> Mixture | None:
    """Open one side of the data."""
    limits = Limits(
        shortest_s=settings.shortest_s,
        longest_s=settings.longest_s,
        labels=settings.labels,
        on_error=settings.on_error,
        most=most,
        needed=needed,
    )
    opened: list[tuple[Corpus, CorpusSettings]] = []
    for corpus_settings in settings.corpora:
        corpus = open_corpus(corpus_settings, split, limits)
        if corpus is not None:
            opened.append((corpus, corpus_settings))
    if not opened:
        return None
    targets = [s.target_samples if split == "train" else None for _, s in opened]
    return Mixture([c for c, _ in opened], targets, most=most, seed=settings.seed)


def _report_left_out(mixture: Mixture) -> None:
    """Say what each corpus has that cannot be trained on, and where its manifest is broken."""
    for corpus in mixture.corpora:
        if str(corpus.dropped):
            print(f"left out of {corpus.name}: {corpus.dropped}", file=sys.stderr)
        for error in corpus.dropped.errors[:SHOWN_ERRORS]:
            print(f"  {error}", file=sys.stderr)


def _warn_of_uncut(mixture: Mixture, probability: float) -> None:
    """Say which corpora have no clip that can be cut at a random point."""
    for corpus in mixture.corpora:
        if not may_have_word_times(corpus):
            print(
                f"warning: data.cut_probability is {probability:g}, but {corpus.name} has no word "
                "times, so none of its clips is cut: give 'words' in a manifest, or set it to 0.",
                file=sys.stderr,
            )


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def hydra_main(config: DictConfig) -> None:
    """Run a composed configuration; errors meant for the user end the program with one sentence."""
    configuration = OmegaConf.to_container(config, resolve=True)
    assert isinstance(configuration, dict)
    Path(configuration["output_dir"]).mkdir(parents=True, exist_ok=True)
    try:
        run({str(key): value for key, value in configuration.items()})
    except TinyvoiceError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    hydra_main()

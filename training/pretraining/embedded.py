"""The embedded checkpoint, from text to safetensors: one program, read from top to bottom.

    python -m training.pretraining.embedded all --work runs/embedded --data ../shared/data

Steps, each of which can be run by itself, is skipped when it is done, and resumes when it was
interrupted:

1. ``corpus``     speak the texts with the training voices (`texts`)
2. ``encoder``    frame-level pretraining of the GLM-ASR-type encoder and the aligner (`encoder`)
3. ``reader``     the Qwen3 learns to read phonemes as text, without audio (`reader`)
4. ``projector``  the recipe's first stage: encoder and language model frozen (`joint`)
5. ``listener``   projector and language model on cached encoder output (`listener`)
6. ``joint``      everything together (`joint`)
7. ``export``     write the checkpoint folder

A finished checkpoint takes the place of the first steps with ``adopt``, which puts its weights
where the step named by ``--before`` looks for them: ``listener``, or ``joint`` alone.

Minutes bound each step, because that is what a person without a GPU has; a step's learning rate is
annealed over them. Training steps run in ``--processes`` processes of one thread each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

from tinyvoice.errors import ConfigurationError
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.processing import ASRProcessor
from tinyvoice.model.timestamps import ALPHABET
from training.data.augmentation import (
    Augmentation,
    BandLimit,
    Gain,
    Noise,
    SilencePads,
    Speed,
    Telephone,
    Tilt,
)
from training.data.batching import BatchSettings
from training.data.collator import ClipSettings
from training.data.corpora import Limits, ManifestCorpus
from training.data.mixing import Mixture
from training.pretraining import encoder, joint, listener, reader
from training.pretraining.features import LogMel
from training.pretraining.frames import FrameCorpus
from training.pretraining.loop import (
    Loop,
    LoopSettings,
    load_weights,
    save_weights,
    wait_for_processes,
)
from training.pretraining.texts import RECORDED_DIGITS, WITHOUT_PHONEMES, make_corpora
from training.pretraining.tokenizer import train_tokenizer
from training.synthesis.corpus import MANIFEST

STEPS = ("encoder", "reader", "projector", "listener", "joint")
MINUTES = {"encoder": 15.0, "reader": 20.0, "projector": 3.0, "listener": 40.0, "joint": 60.0}
"""Minutes of each step unless told otherwise; the more, the better."""

MEL_BANDS, MEL_HOP, MEL_WINDOW = 80, 320, 400
"""Log-mel settings: 20 ms hop, half the frame rate of the full model's and half its cost."""

VOCABULARY = 1500
DIGIT_RECORDINGS = 22000
"""Recorded digits in an epoch; they are few, and the only human voices."""


class AdoptedStep(StrEnum):
    """Steps that an adopted checkpoint can be trained further from."""

    LISTENER = "listener"
    JOINT = "joint"


app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)

Work = Annotated[Path, typer.Option(help="Folder of everything that is made.")]
Minutes = Annotated[float | None, typer.Option(help="Bound of the step, minutes.")]
Processes = Annotated[int, typer.Option(help="Training processes, one thread each.")]

PeakFactor = Annotated[
    float, typer.Option(help="Factor of the learning rates: below 1 to train a little further.")
]


@app.command("all")
def run_all(
    work: Work = Path("runs/embedded"),
    data: Annotated[Path | None, typer.Option(help="Folder of further texts and digits.")] = None,
    processes: Processes = 3,
    minutes_factor: Annotated[float, typer.Option(help="Stretches every step's minutes.")] = 1.0,
    scale: Annotated[float, typer.Option(help="Shrinks the corpora, for a trial.")] = 1.0,
) -> None:
    """Every step in order."""
    corpus(work, data, processes, scale)
    for step in STEPS:
        train(step, work, MINUTES[step] * minutes_factor, processes)
    export(work)


@app.command()
def corpus(
    work: Work = Path("runs/embedded"),
    data: Annotated[Path | None, typer.Option(help="Folder of further texts and digits.")] = None,
    processes: Processes = 3,
    scale: Annotated[float, typer.Option(help="Shrinks the corpora, for a trial.")] = 1.0,
) -> None:
    """Speak the texts, and learn the tokenizer from them."""
    make_corpora(work / "corpus", data, workers=processes, scale=scale)
    if not (work / "processor").exists():
        extractor = WhisperFeatureExtractor(
            feature_size=MEL_BANDS, hop_length=MEL_HOP, n_fft=MEL_WINDOW
        )
        # Word lists teach spelling; as the tokenizer's text they would crowd out what people say.
        texts = [
            text
            for path in _manifests(work)
            if path.parent.name != "words"
            for text in _texts(path)
        ]
        tokenizer = train_tokenizer(texts, VOCABULARY)
        ASRProcessor(extractor, tokenizer).save_pretrained(work / "processor")


@app.command()
def train(
    step: Annotated[str, typer.Argument(help="encoder, reader, projector, listener or joint")],
    work: Work = Path("runs/embedded"),
    minutes: Minutes = None,
    processes: Processes = 3,
    peak_factor: PeakFactor = 1.0,
) -> None:
    """Run a training step in ``processes`` processes."""
    if step not in STEPS:
        raise ConfigurationError(f"{step!r} is no step: choose from {', '.join(STEPS)}.")
    arguments = [step, str(work), str(minutes or MINUTES[step]), str(peak_factor)]
    launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    subprocess.run(
        [
            sys.executable,
            "-m",
            *launcher,
            "-m",
            "training.pretraining.embedded",
            "process",
            *arguments,
        ],
        check=True,
    )


@app.command(hidden=True)
def process(step: str, work: Path, minutes: float, peak_factor: float) -> None:
    """One process of a training step."""
    joint.single_threaded()
    torch.manual_seed(STEPS.index(step))
    settings = LoopSettings(
        work / step,
        max_minutes=minutes,
        peak_factor=peak_factor,
        warmup_steps=max(20, round(200 * peak_factor)),
    )
    loops = {"encoder": _encoder_loop, "reader": _reader_loop, "listener": _listener_loop}
    loop = loops[step](work, settings) if step in loops else _model_loop(step, work, settings)
    loop.run()


@app.command()
def export(
    work: Work = Path("runs/embedded"),
    output: Annotated[Path | None, typer.Option(help="Folder of the checkpoint.")] = None,
    average_with: Annotated[
        str | None,
        typer.Option(help="Name or folder of the checkpoint that this one was trained from."),
    ] = None,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Of that checkpoint in the average.")
    ] = 0.4,
) -> Path:
    """Write the trained model as a checkpoint, weights in float16.

    Weights that were trained further lie in the same valley as those before, and a point between
    both often generalises better than either (Izmailov et al. 2018, "Averaging weights leads to
    wider optima and better generalization").
    """
    model = _model(work)
    model.load_state_dict(load_weights(work / "joint"))
    if average_with is not None:
        earlier = ASRModel.from_pretrained(average_with, device="cpu", dtype="float32")
        average_weights(model, earlier, share)
    # Whoever trains on top of it starts as the recipe does: with frozen backbones.
    model.config.freeze_encoder = model.config.freeze_language_model = True
    target = output or work / "checkpoint"
    model.eval().half().save_pretrained(target)
    typer.echo(f"checkpoint in {target}")
    return target


def average_weights(model: ASRModel, earlier: ASRModel, share: float) -> None:
    """Move a model's weights towards an earlier one's, by a share from 0 to 1.

    Raises:
        ConfigurationError: the two have not the same weights.
    """
    before, after = earlier.state_dict(), model.state_dict()
    shapes = [{name: tuple(w.shape) for name, w in state.items()} for state in (before, after)]
    if shapes[0] != shapes[1]:
        raise ConfigurationError(
            "The checkpoint to average with has other weights than the one that was trained: "
            "average with the one that was adopted.",
            key="average_with",
        )
    done = set()
    for name, weight in after.items():
        # Tied weights have two names.
        if weight.is_floating_point() and weight.data_ptr() not in done:
            weight.lerp_(before[name].to(weight), share)
            done.add(weight.data_ptr())


@app.command()
def adopt(
    checkpoint: Annotated[
        str, typer.Argument(help="Name or folder of the checkpoint.")
    ] = "embedded",
    work: Work = Path("runs/embedded"),
    before: Annotated[
        AdoptedStep, typer.Option(help="The step that trains it further.")
    ] = AdoptedStep.JOINT,
) -> None:
    """Take a finished checkpoint as the outcome of the steps before another, to train it further.

    Its tokenizer is taken too, so adopt first and make the corpus afterwards.
    """
    model = ASRModel.from_pretrained(checkpoint, device="cpu", dtype="float32")
    model.need_processor().save_pretrained(work / "processor")
    first = STEPS.index(before)
    save_weights(model, work / STEPS[first - 1])
    remaining = " and ".join(STEPS[first:])
    typer.echo(f"{checkpoint} adopted: run corpus, then train {remaining} in {work} next")


@app.command()
def backbones(
    work: Work = Path("runs/embedded"),
    output: Annotated[Path | None, typer.Option(help="Folder of the checkpoint.")] = None,
) -> Path:
    """Write the pretrained encoder and reader with a fresh projector, for the recipe."""
    model = _model(work)
    joint.take_backbones(model, load_weights(work / "encoder"), load_weights(work / "reader"))
    model.config.freeze_encoder = model.config.freeze_language_model = True
    target = output or work / "backbones"
    model.eval().save_pretrained(target)
    typer.echo(f"checkpoint in {target}")
    return target


def _encoder_loop(work: Path, settings: LoopSettings) -> Loop:
    frames = FrameCorpus(_timed(work))
    shape = encoder.EncoderSettings()
    model = encoder.FramewiseRecogniser(shape)
    log_mel = LogMel(_processor(work).feature_extractor)
    batch = BatchSettings(seconds=45.0, max_clips=128, pool=4096)

    def batches(step: int) -> Iterator[Any]:
        return encoder.frame_batches(frames, _augmentation(), log_mel, batch, step)

    groups = [{"params": list(model.parameters()), "lr": 2e-3}]
    return Loop(model, groups, encoder.FramewiseLoss(model, shape), batches, settings)


def _reader_loop(work: Path, settings: LoopSettings) -> Loop:
    frames = FrameCorpus(_timed(work))
    processor, shape = _processor(work), reader.ReaderSettings()
    language_model = reader.build_language_model(shape, len(processor.tokenizer))
    model = reader.PhonemeReader(language_model, shape, processor.audio_token_id)
    batch = BatchSettings(seconds=60.0, max_clips=256, pool=4096, seed=1)

    def batches(step: int) -> Iterator[Any]:
        return reader.reading_batches(frames, processor, shape, batch, step)

    def loss(batch: dict[str, torch.Tensor], step: int) -> tuple[torch.Tensor, dict[str, float]]:
        del step
        value, accuracy = model(batch)
        return value, {"accuracy": float(accuracy)}

    groups = [{"params": list(model.parameters()), "lr": 1.5e-3}]
    return Loop(model, groups, loss, batches, settings)


def _listener_loop(work: Path, settings: LoopSettings) -> Loop:
    processor, model = _processor(work), _model(work)
    model.load_state_dict(load_weights(work / "projector"))
    shape = encoder.EncoderSettings()
    clips = ClipSettings(seed=5, cut_probability=0.1, empty_probability=0.05)
    folder = work / "cache"
    listener.cache_frames(model, processor, _mixture(work), clips, _augmentation(), shape, folder)
    wait_for_processes()
    cache = listener.CachedFrames(folder, model, processor, listener.ListenerSettings())
    batch = BatchSettings(seconds=1000.0, max_clips=128, pool=4096, seed=6)

    def batches(step: int) -> Iterator[Any]:
        return listener.listening_batches(cache, batch, step)

    def loss(batch: dict[str, torch.Tensor], step: int) -> tuple[torch.Tensor, dict[str, float]]:
        del step
        return listener.listening_loss(model, batch)

    model.audio_tower.requires_grad_(False)
    model.train()
    trained = [*model.projector.parameters(), *model.language_model.parameters()]
    return Loop(model, [{"params": trained, "lr": 1e-3}], loss, batches, settings)


def _mixture(work: Path) -> Mixture:
    corpora = [ManifestCorpus(path, Limits(), path.parent.name) for path in _manifests(work)]
    targets = [DIGIT_RECORDINGS if corpus.name == RECORDED_DIGITS else None for corpus in corpora]
    return Mixture(corpora, targets)


def _model_loop(stage: str, work: Path, settings: LoopSettings) -> Loop:
    processor, model = _processor(work), _model(work)
    if stage == "projector":
        joint.take_backbones(model, load_weights(work / "encoder"), load_weights(work / "reader"))
    else:
        model.load_state_dict(load_weights(work / "listener"))
    mixture = _mixture(work)
    clips = ClipSettings(
        seed=3,
        cut_probability=0.1 if stage == "joint" else 0.0,
        empty_probability=0.08 if stage == "joint" else 0.02,
        aligner_alphabet=ALPHABET,
    )
    batch = BatchSettings(seconds=60.0, max_clips=128, pool=4096, seed=4)

    def batches(step: int) -> Iterator[Any]:
        return joint.clip_batches(mixture, model, processor, clips, _augmentation(), batch, step)

    model.train()
    groups = joint.parameter_groups(model, stage)
    return Loop(model, groups, joint.JointLoss(model, encoder.EncoderSettings()), batches, settings)


def _augmentation() -> Augmentation:
    """Light: the model is small, and clean synthetic speech is most of what it will hear.

    Speed moves formants and so makes voices that no synthesiser has; gain matters because the
    features keep the level, and recordings of people are far quieter than synthesisers.
    """
    return Augmentation(
        [
            Speed(0.45, 0.84, 1.27),
            SilencePads(0.5, 0.5),
            Tilt(0.35),
            Noise(0.25, 12.0, 40.0),
            BandLimit(0.1),
            Telephone(0.07),
            Gain(0.6, -42.0),
        ]
    )


def _manifests(work: Path) -> list[Path]:
    return sorted((work / "corpus").glob(f"*/{MANIFEST}"))


def _timed(work: Path) -> list[Path]:
    """Manifests with phonemes."""
    return [path for path in _manifests(work) if path.parent.name not in WITHOUT_PHONEMES]


def _texts(manifest: Path) -> list[str]:
    return [json.loads(line)["text"] for line in manifest.open(encoding="utf-8")]


def _processor(work: Path) -> ASRProcessor:
    folder = work / "processor"
    if not folder.exists():
        raise ConfigurationError(f"{folder} is missing: run the step `corpus` first.")
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    return ASRProcessor(extractor, PreTrainedTokenizerFast.from_pretrained(folder))


def _model(work: Path) -> ASRModel:
    return joint.build_model(encoder.EncoderSettings(), reader.ReaderSettings(), _processor(work))


if __name__ == "__main__":
    app()

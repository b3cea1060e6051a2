"""The trainer learns, resumes to the bit, averages over tokens, and ends as it was told."""

import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.miniature import random_model
from tests.training.recordings import Recordings
from tinyvoice.errors import AudioError, ConfigurationError
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.timestamps import ALPHABET
from training.data.augmentation import Augmentation, Clip, Noise
from training.data.batching import BatchSettings
from training.data.collator import ClipSettings
from training.data.mixing import Mixture
from training.schedule import ScheduleSettings
from training.stages import ModelSettings, apply_stage
from training.trainer import (
    STATE_FILE,
    LearningRates,
    PushError,
    ResumeError,
    Trainer,
    TrainerSettings,
    saved_checkpoints,
)

SETTINGS = TrainerSettings(
    max_steps=6,
    cpu=True,
    workers=0,
    batch=BatchSettings(seconds=4.0, pool=16),
    schedule=ScheduleSettings(warmup_steps=2),
    log_every_steps=2,
    eval_every_steps=None,
    save_every_steps=None,
    keep_checkpoints=10,
    wandb="off",
)


def mixture(count: int = 24, seed: int = 0) -> Mixture:
    return Mixture([Recordings(count, seed)], [None])


def trainer(folder: Path, model: ASRModel | None = None, **changes: Any) -> Trainer:
    """A trainer of a miniature model; changes of settings and arguments are told by their names."""
    arguments = {
        name: changes.pop(name)
        for name in ("eval_clips", "clip_settings", "augmentation", "chunk_mask_probability")
        if name in changes
    }
    clips = changes.pop("clips", None) or mixture()
    settings = replace(SETTINGS, **changes)
    model = model or random_model(projector_pool_stride=2, aligner_alphabet=ALPHABET)
    arguments.setdefault("clip_settings", ClipSettings(aligner_alphabet=ALPHABET))
    return Trainer(model, folder, clips, settings, **arguments)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, dict[str, torch.Tensor]] = torch.load(folder / STATE_FILE, weights_only=True)
    return state["weights"]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_evaluation_pads_its_clips_as_training_does(tmp_path: Path) -> None:
    padded = ClipSettings(silence_padding_s=0.4)
    whole = trainer(tmp_path, eval_clips=mixture(2, seed=1), clip_settings=padded)
    assert whole.eval_examples is not None
    assert whole.eval_examples.settings.silence_padding_s == 0.4


RANDOMNESS: dict[str, Any] = {
    "clip_settings": ClipSettings(
        cut_probability=0.5, empty_probability=0.1, aligner_alphabet=ALPHABET
    ),
    "augmentation": Augmentation((Noise(0.7),)),
    "chunk_mask_probability": 0.5,
}


def test_a_model_learns_words_and_where_they_are(tmp_path: Path) -> None:
    model = random_model(projector_pool_stride=2, aligner_alphabet=ALPHABET, max_new_tokens=None)
    apply_stage(model, "full", ModelSettings(train_encoder=True))
    clips = mixture(12)
    result = trainer(
        tmp_path,
        model,
        clips=clips,
        eval_clips=clips,
        max_steps=120,
        rates=LearningRates(3e-3, 3e-3, 1e-3, 3e-3),
        batch=BatchSettings(seconds=20.0),
        log_every_steps=10,
    ).run()
    logged = [event for event in events(tmp_path) if event["event"] == "train"]
    assert result.figures["wer"] < 0.1
    assert logged[-1]["loss"] < 0.2 < logged[0]["loss"]
    assert logged[-1]["aligner_loss"] < 0.5 * logged[0]["aligner_loss"]
    assert result.best is not None
    assert (result.best / "model.safetensors").is_file()


def test_only_the_trainable_weights_change(tmp_path: Path) -> None:
    model = random_model(aligner_alphabet=ALPHABET)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer(tmp_path, model).run()
    changed = {name for name, value in model.state_dict().items() if (value != before[name]).any()}
    assert {name.split(".")[0] for name in changed} == {"projector", "aligner"}


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_gives_the_weights_of_an_unbroken_run(tmp_path: Path, workers: int) -> None:
    whole = trainer(tmp_path / "whole", workers=workers, **RANDOMNESS).run()

    # Stopped by its saved state alone: the schedule still aims at the same last step.
    trainer(tmp_path / "broken", save_every_steps=4, **RANDOMNESS).run()
    for checkpoint in saved_checkpoints(tmp_path / "broken")[1:]:
        (checkpoint / STATE_FILE).unlink()
    resumed = trainer(tmp_path / "broken", workers=workers, **RANDOMNESS)
    result = resumed.run()

    assert result.step == whole.step == 6
    assert same(weights(result.checkpoint), weights(whole.checkpoint))
    optimizer = torch.load(whole.checkpoint / STATE_FILE, weights_only=True)["optimizer"]
    for number, state in resumed.optimizer.state_dict()["state"].items():
        assert torch.equal(state["exp_avg_sq"], optimizer["state"][number]["exp_avg_sq"])


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    one = trainer(tmp_path / "one").run()
    other = trainer(tmp_path / "other", batch=BatchSettings(seconds=4.0, pool=16, seed=1)).run()
    assert not same(weights(one.checkpoint), weights(other.checkpoint))


def test_accumulation_equals_the_larger_batch(tmp_path: Path) -> None:
    large = trainer(tmp_path / "large", batch=BatchSettings(seconds=12.0, max_clips=48)).run()
    small = BatchSettings(seconds=4.0, max_clips=16, accumulation=3)
    parts = trainer(tmp_path / "parts", batch=small).run()
    for name, value in weights(large.checkpoint).items():
        torch.testing.assert_close(weights(parts.checkpoint)[name], value, atol=1e-5, rtol=0)


def test_a_signal_saves_the_state_and_ends_the_run(tmp_path: Path) -> None:
    class Signalling(Recordings):
        """Sends the signal while the third batch is read."""

        reads = 0

        def clip(self, index: int) -> Clip:
            self.reads += 1
            if self.reads == 10:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().clip(index)

    before = signal.getsignal(signal.SIGTERM)
    clips = Mixture([Signalling(24)], [None])
    result = trainer(tmp_path, clips=clips, max_steps=1000).run()
    assert result.stopped_by == "signal"
    assert 0 < result.step < 20
    assert saved_checkpoints(tmp_path) == [result.checkpoint]
    assert signal.getsignal(signal.SIGTERM) is before


def test_training_works_outside_of_the_main_thread(tmp_path: Path) -> None:
    results = []
    thread = threading.Thread(target=lambda: results.append(trainer(tmp_path, max_steps=1).run()))
    thread.start()
    thread.join()
    assert results[0].step == 1


def test_no_minutes_left_ends_at_once(tmp_path: Path) -> None:
    result = trainer(tmp_path, max_steps=None, max_minutes=0.0, anneal_by="minutes").run()
    assert (result.step, result.stopped_by) == (0, "minutes")


def test_epochs_are_counted_in_batches(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_steps=None, epochs=2.0)
    assert run.total_steps == 2 * len(run.batches.epoch(0))


def test_old_checkpoints_go(tmp_path: Path) -> None:
    trainer(tmp_path, save_every_steps=1, keep_checkpoints=2).run()
    names = [folder.name for folder in saved_checkpoints(tmp_path)]
    assert names == ["checkpoint-0000005", "checkpoint-0000006"]
    assert not list(tmp_path.glob(".*.part"))


def test_the_log_holds_losses_rates_and_speed(tmp_path: Path) -> None:
    trainer(tmp_path, eval_clips=mixture(6, seed=1), eval_every_steps=3).run()
    trained = [event for event in events(tmp_path) if event["event"] == "train"]
    evaluated = [event for event in events(tmp_path) if event["event"] == "eval"]
    assert [event["step"] for event in trained] == [2, 4, 6]
    assert [event["step"] for event in evaluated] == [3, 6]
    assert trained[0].keys() >= {"loss", "aligner_loss", "lr", "audio_s_per_s"}
    assert trained[0]["lr"] == pytest.approx(1e-3)
    assert trained[-1]["lr"] < trained[1]["lr"]
    assert evaluated[0].keys() >= {"loss", "wer"}


def test_clips_that_cannot_be_read_are_left_out_and_counted(tmp_path: Path) -> None:
    class Damaged(Recordings):
        def clip(self, index: int) -> Clip:
            if index == 3:
                raise AudioError("clip 3 cannot be read", path="3")
            return super().clip(index)

    clips = Mixture([Damaged(24)], [None])
    with pytest.raises(AudioError, match="clip 3"):
        trainer(tmp_path / "raise", clips=clips, max_steps=20).run()
    result = trainer(
        tmp_path / "skip",
        clips=clips,
        max_steps=None,
        epochs=1.0,
        clip_settings=ClipSettings(skip_unreadable=True, aligner_alphabet=ALPHABET),
    ).run()
    assert result.unreadable == 1


def test_a_state_of_other_weights_is_refused(tmp_path: Path) -> None:
    saved = trainer(tmp_path, max_steps=1).run().checkpoint
    with pytest.raises(ResumeError, match="other weights"):
        trainer(tmp_path / "b", random_model("mosa"), resume=str(saved)).run()
    with pytest.raises(ResumeError, match="has no training_state"):
        trainer(tmp_path / "b", resume=str(tmp_path)).run()
    (saved / STATE_FILE).write_bytes(b"not a state")
    with pytest.raises(ResumeError, match="cannot be read"):
        trainer(tmp_path).run()


def test_a_run_on_other_data_is_not_taken_up_by_itself(tmp_path: Path) -> None:
    saved = trainer(tmp_path, max_steps=1).run().checkpoint
    with pytest.raises(ResumeError, match="other data"):
        trainer(tmp_path, clips=mixture(20), max_steps=2).run()
    assert trainer(tmp_path, clips=mixture(20), max_steps=2, resume=str(saved)).run().step == 2


def test_an_upload_that_fails_leaves_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PushError, match=r"could not be uploaded to owner/name") as caught:
        trainer(tmp_path, max_steps=1, push_to_hub="owner/name").run()
    assert len(saved_checkpoints(tmp_path)) == 1
    assert "hf_secret" not in str(caught.value)


def test_nothing_to_train_and_no_end_are_refused(tmp_path: Path) -> None:
    frozen = random_model()
    frozen.requires_grad_(False)
    with pytest.raises(ConfigurationError, match="Nothing is trainable"):
        trainer(tmp_path, frozen)
    with pytest.raises(ConfigurationError, match="max_minutes alone"):
        trainer(tmp_path, max_steps=None, max_minutes=1.0)


@pytest.mark.parametrize("projector", ["mlp", "mosa", "moe", "qformer"])
def test_every_projector_trains_in_bfloat16_over_float32_weights(
    tmp_path: Path, projector: str
) -> None:
    model = random_model(projector)
    result = trainer(
        tmp_path,
        model,
        max_steps=2,
        precision="bfloat16",
        frozen_precision="bfloat16",
        clip_settings=ClipSettings(),
    ).run()
    assert model.audio_tower.conv1.weight.dtype == torch.bfloat16
    trained = weights(result.checkpoint)
    assert {value.dtype for value in trained.values()} == {torch.float32}
    fresh = dict(random_model(projector).named_parameters())
    assert any(not torch.equal(trained[name], fresh[name]) for name in trained)

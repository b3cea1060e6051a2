from pathlib import Path

import pytest
import torch

from tests.training.recordings import write_recordings
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.modeling import ASRModel
from training.pretraining.embedded import (
    AdoptedStep,
    _listener_loop,
    _model,
    adopt,
    average_weights,
    corpus,
    export,
)
from training.pretraining.loop import LoopSettings, load_weights, save_weights
from training.synthesis.corpus import MANIFEST


def test_a_checkpoint_is_adopted_and_exported_unchanged(tmp_path: Path) -> None:
    work = tmp_path / "work"
    adopt("embedded", work)
    shipped = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    taken = load_weights(work / "listener")
    for name, tensor in shipped.state_dict().items():
        assert torch.equal(taken[name], tensor), name
    model = _model(work)
    model.load_state_dict(taken)
    save_weights(model, work / "joint")
    again = ASRModel.from_pretrained(
        str(export(work, tmp_path / "checkpoint")), device="cpu", dtype="float32"
    )
    for name, tensor in shipped.state_dict().items():
        # The shipped weights were float16 already, so writing float16 loses nothing.
        assert torch.equal(again.state_dict()[name], tensor), name


def test_an_adopted_checkpoint_is_trained_further_by_the_listener(tmp_path: Path) -> None:
    adopt("embedded", tmp_path, AdoptedStep.LISTENER)
    assert not (tmp_path / "listener").exists()
    recordings = tmp_path / "corpus" / "tones"
    recordings.mkdir(parents=True)
    write_recordings(recordings, 4, name=MANIFEST)
    shipped = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32").state_dict()

    loop = _listener_loop(tmp_path, LoopSettings(tmp_path / "listener", max_steps=1))
    for name, tensor in loop.model.state_dict().items():
        assert torch.equal(tensor, shipped[name]), name
    loop.run()
    trained = load_weights(tmp_path / "listener")
    changed = {name for name, tensor in trained.items() if not torch.equal(tensor, shipped[name])}
    assert {name.split(".")[0] for name in changed} == {"projector", "language_model"}


def test_the_repository_alone_gives_a_corpus(tmp_path: Path) -> None:
    corpus(tmp_path, None, processes=2, scale=0.005)
    manifests = sorted(path.parent.name for path in tmp_path.glob(f"corpus/*/{MANIFEST}"))
    assert {"digits", "grammar"} <= set(manifests)
    assert (tmp_path / "processor" / "tokenizer.json").exists()


def test_an_exported_checkpoint_is_averaged_with_the_one_before(tmp_path: Path) -> None:
    work = tmp_path / "work"
    adopt("embedded", work)
    shipped = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32").state_dict()
    model = _model(work)
    model.load_state_dict({name: 2 * tensor for name, tensor in shipped.items()})
    save_weights(model, work / "joint")
    folder = export(work, tmp_path / "checkpoint", average_with="embedded", share=0.25)
    averaged = ASRModel.from_pretrained(str(folder), device="cpu", dtype="float32").state_dict()
    for name, tensor in shipped.items():
        torch.testing.assert_close(averaged[name], 1.75 * tensor, rtol=1e-3, atol=1e-6)


def test_other_weights_are_not_averaged() -> None:
    model = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    other = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    del other.projector
    with pytest.raises(ConfigurationError, match="other weights"):
        average_weights(model, other, 0.5)

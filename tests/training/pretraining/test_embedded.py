from pathlib import Path

import torch

from tinyvoice.model.modeling import ASRModel
from training.pretraining.embedded import _model, adopt, corpus, export
from training.pretraining.loop import load_weights, save_weights
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


def test_the_repository_alone_gives_a_corpus(tmp_path: Path) -> None:
    corpus(tmp_path, None, processes=2, scale=0.005)
    manifests = sorted(path.parent.name for path in tmp_path.glob(f"corpus/*/{MANIFEST}"))
    assert {"digits", "grammar"} <= set(manifests)
    assert (tmp_path / "processor" / "tokenizer.json").exists()

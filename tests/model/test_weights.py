from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tinyvoice.errors import CheckpointError
from tinyvoice.model.weights import WeightFiles, load_into, read_json, write_json, write_weights


def linear_on_meta() -> nn.Linear:
    with torch.device("meta"):
        return nn.Linear(2, 3)


def test_weights_are_read_by_prefix_and_cast(tmp_path: Path) -> None:
    state = {"a.weight": torch.ones(3, 2), "a.bias": torch.arange(3.0), "b.x": torch.zeros(1)}
    save_file(state, tmp_path / "model.safetensors")
    files = WeightFiles(tmp_path)
    assert files.shapes == {"a.weight": (3, 2), "a.bias": (3,), "b.x": (1,)}
    assert files.keys_under("a.") == {"weight": "a.weight", "bias": "a.bias"}
    module = linear_on_meta()
    load_into(
        module, files, files.keys_under("a."), device="cpu", dtype=torch.float16, what="layer"
    )
    assert module.bias.dtype == torch.float16
    assert module.bias.tolist() == [0, 1, 2]


def test_nothing_is_loaded_when_something_is_wrong(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(3, 2)}, tmp_path / "model.safetensors")
    files = WeightFiles(tmp_path)
    module = linear_on_meta()
    with pytest.raises(CheckpointError, match="lacks bias of the layer") as caught:
        load_into(
            module, files, files.keys_under(""), device="cpu", dtype=torch.float32, what="layer"
        )
    assert caught.value.key == "bias"
    assert module.weight.is_meta


def test_writing_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_weights(path, {"x": torch.ones(2)}, None)
    mapped = WeightFiles(tmp_path).read(["x"])["x"]
    write_weights(path, {"x": torch.zeros(2)}, torch.bfloat16)
    assert mapped.tolist() == [1, 1]
    assert load_file(path)["x"].dtype == torch.bfloat16
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_shared_and_sliced_tensors_are_written_whole(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    write_weights(tmp_path / "model.safetensors", {"a": whole, "b": whole, "c": whole.T}, None)
    state = load_file(tmp_path / "model.safetensors")
    assert torch.equal(state["a"], whole)
    assert torch.equal(state["b"], whole)
    assert torch.equal(state["c"], whole.T)


def test_json_round_trip(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": [1], "a": "ü"})
    assert read_json(tmp_path / "x.json") == {"a": "ü", "b": [1]}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_deeply_nested_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_json(tmp_path / "x.json")

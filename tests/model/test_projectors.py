"""Projectors against formulas written out from their weights, and their lengths against tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.miniature import ENCODER_DIM, LLM_DIM, PROJECTOR_TYPES, asr_config, scatter_weights
from tinyvoice.errors import CheckpointError, ConfigurationError
from tinyvoice.model.checkpoint import check_config
from tinyvoice.model.configuration import ASRConfig
from tinyvoice.model.projectors import (
    PROJECTORS,
    Length,
    Projector,
    build_projector,
    frame_mask,
    register_projector,
)

HIDDEN = 40  # projector_hidden_dim of tests.miniature


def projector(kind: str, seed: int = 0, **changes: Any) -> Projector:
    built = build_projector(asr_config(kind, **changes))
    scatter_weights(built, seed)
    return built.eval()


def frames(count: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, count, ENCODER_DIM, generator=torch.Generator().manual_seed(count))


def rms(hidden: Tensor, weight: Tensor) -> Tensor:
    return hidden / (hidden.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def stacked(hidden: Tensor) -> Tensor:
    rows = [
        torch.cat([hidden[:, 4 * group + place] for place in range(4)], dim=-1)
        for group in range(hidden.shape[1] // 4)
    ]
    return torch.stack(rows, dim=1)


def adapter(hidden: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    inner = F.gelu(hidden @ state[f"{name}.fc1.weight"].T + state[f"{name}.fc1.bias"])
    return inner @ state[f"{name}.fc2.weight"].T + state[f"{name}.fc2.bias"]


@pytest.mark.parametrize(
    ("kind", "lengths"),
    [
        ("mlp", {0: 0, 3: 0, 4: 1, 7: 1, 8: 2, 150: 37, 1500: 375}),
        ("moe", {0: 0, 3: 0, 4: 1, 7: 1, 8: 2, 150: 37, 1500: 375}),
        ("mosa", {1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 9: 3, 150: 38, 1500: 375}),
        ("qformer", {0: 0, 1: 3, 15: 3, 16: 6, 150: 30, 1500: 300}),
    ],
)
def test_output_length(kind: str, lengths: dict[int, int]) -> None:
    built = projector(kind)
    assert {length: built.output_length(length) for length in lengths} == lengths
    as_tensor = built.output_length(torch.tensor(list(lengths)))
    assert as_tensor.tolist() == list(lengths.values())


@pytest.mark.parametrize("kind", PROJECTOR_TYPES)
@pytest.mark.parametrize("count", [4, 17, 30, 61])
def test_forward_gives_as_many_tokens_as_output_length_says(kind: str, count: int) -> None:
    built = projector(kind)
    with torch.no_grad():
        assert built(frames(count)).shape == (2, built.output_length(count), LLM_DIM)


def test_weight_names_and_shapes_are_the_published_ones() -> None:
    stack = 4 * ENCODER_DIM
    assert shapes("mlp") == {
        "linear_1.weight": (HIDDEN, stack),
        "norm.weight": (HIDDEN,),
        "linear_2.weight": (LLM_DIM, HIDDEN),
        "norm_2.weight": (LLM_DIM,),
    }
    assert shapes("mosa") == {
        "downsampler.0.weight": (ENCODER_DIM, ENCODER_DIM, 3),
        "downsampler.0.bias": (ENCODER_DIM,),
        "downsampler.2.weight": (LLM_DIM, ENCODER_DIM, 3),
        "downsampler.2.bias": (LLM_DIM,),
        "router.0.weight": (512, LLM_DIM),
        "router.0.bias": (512,),
        "router.2.weight": (4, 512),
        "router.2.bias": (4,),
        **adapters([f"experts.{i}" for i in range(4)], LLM_DIM, 4096),
    }
    assert shapes("moe") == {
        "norm.weight": (stack,),
        "router.weight": (4, stack),
        **adapters([*(f"experts.{i}" for i in range(4)), "shared_expert"], stack, HIDDEN),
    }
    assert "encoder_proj.weight" not in shapes("qformer")
    wide = shapes("qformer", qformer_hidden_size=64)
    assert wide["encoder_proj.weight"] == (64, ENCODER_DIM)
    assert wide["query"] == (1, 3, 64)
    assert wide["linear.weight"] == (LLM_DIM, 64)
    assert {key.split(".")[0] for key in wide} == {"query", "encoder_proj", "qformer", "linear"}


def shapes(kind: str, **changes: Any) -> dict[str, tuple[int, ...]]:
    state = projector(kind, **changes).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def adapters(names: list[str], outer: int, hidden: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for name in names:
        found[f"{name}.fc1.weight"] = (hidden, outer)
        found[f"{name}.fc1.bias"] = (hidden,)
        found[f"{name}.fc2.weight"] = (LLM_DIM, hidden)
        found[f"{name}.fc2.bias"] = (LLM_DIM,)
    return found


@torch.no_grad()
def test_mlp_is_the_formula() -> None:
    built, hidden = projector("mlp"), frames(18)
    state = built.state_dict()
    inner = rms(stacked(hidden) @ state["linear_1.weight"].T, state["norm.weight"])
    expected = rms(F.gelu(inner) @ state["linear_2.weight"].T, state["norm_2.weight"])
    torch.testing.assert_close(built(hidden), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_mosa_is_the_formula() -> None:
    built, hidden = projector("mosa"), frames(18)
    state = built.state_dict()
    inner = hidden.transpose(1, 2)
    for layer in (0, 2):
        weight, bias = state[f"downsampler.{layer}.weight"], state[f"downsampler.{layer}.bias"]
        inner = F.gelu(F.conv1d(inner, weight, bias, stride=2, padding=1))
    inner = inner.transpose(1, 2)
    routed = F.relu(inner @ state["router.0.weight"].T + state["router.0.bias"])
    weights = torch.softmax(routed @ state["router.2.weight"].T + state["router.2.bias"], -1)
    experts = torch.stack([adapter(inner, state, f"experts.{i}") for i in range(4)], dim=-1)
    expected = (experts * weights[..., None, :]).sum(-1)
    torch.testing.assert_close(built(hidden), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_moe_is_the_formula() -> None:
    built, hidden = projector("moe"), frames(18)
    state = built.state_dict()
    inner = rms(stacked(hidden), state["norm.weight"])
    scores = torch.softmax(inner @ state["router.weight"].T, dim=-1)
    best = torch.zeros_like(scores)
    top = scores.topk(2, dim=-1)
    best.scatter_(-1, top.indices, top.values / (top.values.sum(-1, keepdim=True) + 1e-6))
    experts = torch.stack([adapter(inner, state, f"experts.{i}") for i in range(4)], dim=-1)
    expected = adapter(inner, state, "shared_expert") + (experts * best[..., None, :]).sum(-1)
    torch.testing.assert_close(built(hidden), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_qformer_pads_its_last_window_with_zeros() -> None:
    built, hidden = projector("qformer"), frames(20)
    padded = F.pad(hidden, (0, 0, 0, 10))
    torch.testing.assert_close(built(hidden), built(padded))
    whole_windows = torch.cat([built(padded[:, :15]), built(padded[:, 15:])], dim=1)
    torch.testing.assert_close(built(hidden), whole_windows, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_qformer_attends_to_frames_in_every_layer() -> None:
    state = projector("qformer").state_dict()
    for layer in range(2):
        assert f"qformer.encoder.layer.{layer}.crossattention.attention.key.weight" in state


@torch.no_grad()
@pytest.mark.parametrize("kind", PROJECTOR_TYPES)
@pytest.mark.parametrize("length", [5, 14, 16, 23, 46])
def test_a_short_clip_is_the_same_in_a_padded_batch(kind: str, length: int) -> None:
    built, lengths = projector(kind), torch.tensor([length, 47])
    batch = frames(47) * frame_mask(lengths, 47)[..., None]
    arguments = (batch, lengths) if built.needs_lengths else (batch,)
    together = built(*arguments)[0, : built.output_length(length)]
    alone = built(batch[:1, :length])[0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_moe_has_an_auxiliary_loss_in_training_only() -> None:
    built = projector("moe")
    built(frames(16))
    assert built.auxiliary_loss is None
    loss = training_loss(built)
    assert loss.item() > 0
    loss.backward()
    assert built.get_parameter("router.weight").grad is not None


def test_moe_balance_loss_prefers_even_routing() -> None:
    even, skewed = (projector("moe", router_z_loss_coef=0.0) for _ in range(2))
    with torch.no_grad():
        even.get_parameter("router.weight").zero_()
        skewed.get_parameter("router.weight")[0] += 5.0
    assert training_loss(even).item() == pytest.approx(0.0, abs=1e-9)
    assert training_loss(skewed).item() > 1e-3


def training_loss(built: Projector) -> Tensor:
    built.train()
    built(frames(64).abs())
    assert built.auxiliary_loss is not None
    return built.auxiliary_loss


def test_unknown_projector_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'conv' is unknown; known are .*mlp.*qformer"):
        build_projector(asr_config("conv"))


def test_a_query_less_qformer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="leaves no query"):
        build_projector(asr_config("qformer", qformer_window_size=4))


EVERY_THIRD = """
from torch import nn
from tinyvoice.model.projectors import Projector, register_projector

@register_projector("every_third")
class EveryThird(Projector):
    def __init__(self, config):
        super().__init__()
        self.linear = nn.Linear(config.encoder_dim, config.llm_dim)

    def output_length(self, frames):
        return frames // 3

    def forward(self, hidden):
        return self.linear(hidden[:, 2::3])
"""


def announce(folder: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """Put a distribution that announces the projector ``every_third`` on the path, as pip would."""
    information = folder / "elsewhere-1.0.dist-info"
    information.mkdir()
    information.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\n")
    information.joinpath("entry_points.txt").write_text(
        f"[tinyvoice.projectors]\nevery_third = {target}\n"
    )
    folder.joinpath("third_projector.py").write_text(EVERY_THIRD)
    monkeypatch.syspath_prepend(folder)


def test_an_announced_projector_is_loaded_when_a_checkpoint_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"model_type": "asr_model", "projector_type": "every_third"}
    with pytest.raises(CheckpointError, match=r"entry-point group tinyvoice\.projectors"):
        check_config(config, tmp_path)
    announce(tmp_path, monkeypatch, "third_projector:EveryThird")
    try:
        check_config(config, tmp_path)
        assert build_projector(asr_config("every_third"))(frames(6)).shape == (2, 2, LLM_DIM)
    finally:
        PROJECTORS.pop("every_third", None)


def test_an_announced_projector_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(tmp_path, monkeypatch, "no_such_module:EveryThird")
    with pytest.raises(ConfigurationError, match="no_such_module:EveryThird, which cannot be"):
        build_projector(asr_config("every_third"))


def test_a_users_projector_is_built_by_name() -> None:
    @register_projector("every_other")
    class EveryOther(Projector):
        def __init__(self, config: ASRConfig) -> None:
            super().__init__()
            self.linear = nn.Linear(ENCODER_DIM, LLM_DIM)

        def output_length(self, frames: Length) -> Length:
            return (frames + 1) // 2

        def forward(self, hidden: Tensor) -> Tensor:
            return self.linear(hidden[:, ::2])

    try:
        built = build_projector(asr_config("every_other"))
        assert built(frames(5)).shape == (2, built.output_length(5), LLM_DIM)
    finally:
        del PROJECTORS["every_other"]

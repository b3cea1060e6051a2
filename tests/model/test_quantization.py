"""INT8 layers stay close to the originals, treat each row alone, and are never saved."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests import miniature
from tinyvoice.errors import CheckpointError
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.quantization import (
    Int8Embedding,
    Int8Linear,
    has_integer_kernel,
    quantize,
    quantize_int8,
    round_channels,
)

CPU = torch.device("cpu")
KERNELS = [
    pytest.param(
        True,
        id="integers",
        marks=pytest.mark.skipif(not has_integer_kernel(CPU), reason="no integer kernel here"),
    ),
    pytest.param(False, id="weights only"),
]


def layer(inputs: int = 64, outputs: int = 48, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_rounding_keeps_each_channel_within_half_a_step() -> None:
    weight = torch.randn(5, 32) * torch.tensor([[1.0], [1e-3], [30.0], [0.0], [1.0]])
    rounded, scale = round_channels(weight)
    assert rounded.dtype == torch.int8
    assert ((rounded * scale[:, None] - weight).abs() <= scale[:, None] / 2 + 1e-9).all()


@pytest.mark.parametrize("integer", KERNELS)
class TestInt8Linear:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("shape", [(64,), (1, 64), (2, 7, 64), (2, 0, 64)])
    def test_shapes(self, integer: bool, bias: bool, shape: tuple[int, ...]) -> None:
        linear = layer(bias=bias)
        outputs = Int8Linear(linear, integer)(torch.randn(shape))
        assert outputs.shape == (*shape[:-1], 48)
        assert outputs.dtype == torch.float32

    def test_it_is_close(self, integer: bool) -> None:
        linear, inputs = layer(), torch.randn(20, 64)
        expected = linear(inputs).detach()
        assert relative_error(Int8Linear(linear, integer)(inputs), expected) < 0.02

    def test_a_row_far_larger_than_the_others_does_not_blur_them(self, integer: bool) -> None:
        linear, inputs = layer(bias=False), torch.randn(20, 64)
        inputs[3] *= 1e4
        expected = linear(inputs).detach()
        found = Int8Linear(linear, integer)(inputs)
        for row in (0, 3, 19):
            assert relative_error(found[row], expected[row]) < 0.03

    def test_a_row_gives_the_same_alone(self, integer: bool) -> None:
        quantised, inputs = Int8Linear(layer(), integer), torch.randn(9, 64).abs()
        inputs[1:] -= 1
        together = quantised(inputs)
        torch.testing.assert_close(quantised(inputs[:1]), together[:1])

    def test_zeros_give_the_bias(self, integer: bool) -> None:
        linear = layer()
        outputs = Int8Linear(linear, integer)(torch.zeros(1, 64))
        torch.testing.assert_close(outputs[0], linear.bias.detach())

    def test_half_precision_stays(self, integer: bool) -> None:
        quantised = Int8Linear(layer().to(torch.bfloat16), integer)
        assert quantised(torch.randn(2, 64).bfloat16()).dtype == torch.bfloat16

    def test_it_cannot_be_saved(self, integer: bool) -> None:
        network = nn.Sequential(Int8Linear(layer(), integer))
        with pytest.raises(CheckpointError, match="cannot be saved"):
            network.state_dict()


def test_embedding_rows_are_close() -> None:
    torch.manual_seed(0)
    embedding, ids = nn.Embedding(30, 16), torch.tensor([[3, 29], [0, 3]])
    found = Int8Embedding(embedding)(ids)
    assert relative_error(found, embedding(ids).detach()) < 0.01


def test_only_plain_layers_are_replaced() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 4, 1), nn.LayerNorm(4))
    quantize_int8(network)
    assert [type(part) for part in network] == [Int8Linear, nn.Conv1d, nn.LayerNorm]


class TestModel:
    def test_it_transcribes_much_as_before_and_alike_in_a_batch(self) -> None:
        model = miniature.random_model()
        features, mask = model.need_processor().features(miniature.clips(2.0, 1.0))
        hidden, _ = model.encode(features, mask)
        quantize(model)
        assert relative_error(model.encode(features, mask)[0], hidden) < 0.1
        together = model.generate(features, mask, max_new_tokens=6)
        alone = model.generate(features[1:, :, : int(mask[1].sum())], max_new_tokens=6)
        assert together[1] == alone[0]
        assert isinstance(model.language_model.get_output_embeddings(), Int8Linear)
        assert isinstance(model.get_input_embeddings(), Int8Embedding)

    def test_loading_in_8_bits(self, tmp_path: Path) -> None:
        folder = miniature.write_checkpoint(tmp_path / "checkpoint", lora=True)
        model = ASRModel.from_pretrained(folder, device="cpu", load_in_8bit=True)
        kinds = {
            name: type(module)
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Int8Linear)
        }
        adapters = {name for name in kinds if "lora_" in name}
        assert adapters
        assert {kinds[name] for name in adapters} == {nn.Linear}
        assert {kinds[name] for name in kinds.keys() - adapters if "projector" not in name} == {
            Int8Linear
        }
        features, mask = model.need_processor().features(miniature.clips(1.0))
        assert model.generate(features, mask)[0]
        with pytest.raises(CheckpointError, match="cannot be saved"):
            model.save_pretrained(tmp_path / "again")

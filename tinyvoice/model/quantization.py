"""INT8 weights for the encoder and the language model, made while loading.

Weights are rounded to 8 bits with one scale per output channel, symmetric around zero. On a CPU the
inputs are rounded as well, with one scale per row (token or frame), and multiplied by FBGEMM's
integer kernel, which reads a quarter of the memory: that is where the speed comes from, and only a
large model has it. Elsewhere the weights alone are kept in 8 bits and widened for each product,
which saves memory only. While loading, the weights are there in their own precision first. Rows do
not influence each other, so a clip gives the same tokens alone and in a batch.

Convolutions, norms, projector, aligner and adapters stay as they are: they are small, or the
quality hangs on them. Quantised modules cannot be saved or trained; a checkpoint always holds the
original weights.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from tinyvoice.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    from tinyvoice.model.modeling import ASRModel

LEVELS = 127  # the largest magnitude of a rounded weight
SMALLEST_SCALE = 1e-12  # a channel or row of zeros is divided by this
# FBGEMM's own engine and the one that torch calls x86, which uses it.
INTEGER_ENGINES = ("x86", "fbgemm")
# The integer kernel takes one range for all rows. Rows are scaled to [-1, 1] before, and these
# columns, which meet weights of zero, make that the range whatever the rows hold.
RANGE_COLUMNS = (1.0, -1.0)
# LoRA's factors are a hundredth of their layer and stay as they are; this is in their path's names.
ADAPTER_MARK = "lora_"


class Int8Module(nn.Module):
    """Base of quantised modules: refuses to be saved."""

    weight8: Tensor
    scale: Tensor

    @property
    def weight(self) -> NoReturn:
        """There is none any more; raises :class:`CheckpointError`."""
        raise CheckpointError(
            "INT8 weights are made while loading and cannot be saved or changed: load the model "
            "without load_in_8bit for that.",
            key="load_in_8bit",
        )

    def _save_to_state_dict(self, *_: Any) -> None:
        _ = self.weight


class Int8Linear(Int8Module):
    """A linear layer with 8-bit weights, for inference.

    Takes the place of ``nn.Linear``: ``(…, inputs)`` to ``(…, outputs)`` in the input's precision.
    ``integer`` says whether products are made of integers; by default where torch can.
    """

    range_columns: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, integer: bool | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = round_channels(linear.weight)
        bias = None if linear.bias is None else linear.bias.detach()
        self.packed: Any = None
        if has_integer_kernel(linear.weight.device) if integer is None else integer:
            # The bias is added afterwards, because the rows' scales come between.
            self.packed = pack(weight, scale)
            self.register_buffer("range_columns", torch.tensor([RANGE_COLUMNS]), persistent=False)
        else:
            self.register_buffer("weight8", weight, persistent=False)
            self.register_buffer("scale", scale.to(linear.weight.dtype), persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """The layer's output; no gradient flows through it."""
        if self.packed is None:
            outputs = nn.functional.linear(inputs, self.weight8.to(inputs.dtype)) * self.scale
        else:
            if inputs.device.type != "cpu":
                raise ConfigurationError(
                    f"The layer was quantised for the CPU and cannot run on {inputs.device}: load "
                    "the model on that device with load_in_8bit.",
                    key="load_in_8bit",
                )
            outputs = self._integer_product(inputs.detach())
        return outputs if self.bias is None else outputs + self.bias

    def _integer_product(self, inputs: Tensor) -> Tensor:
        rows = inputs.reshape(-1, self.in_features).float()
        size = rows.abs().amax(dim=-1, keepdim=True).clamp_min(SMALLEST_SCALE)
        pinned = torch.cat([rows / size, self.range_columns.expand(len(rows), -1)], dim=-1)
        # reduce_range: inputs of 7 bits, without which CPUs older than VNNI overflow.
        outputs = torch.ops.quantized.linear_dynamic(pinned, self.packed, True) * size
        return outputs.view(*inputs.shape[:-1], self.out_features).to(inputs.dtype)

    def extra_repr(self) -> str:
        """Sizes and kernel, for printing the model."""
        kernel = "weights only" if self.packed is None else "integer"
        return f"in_features={self.in_features}, out_features={self.out_features}, {kernel}"


class Int8Embedding(Int8Module):
    """An embedding with 8-bit rows; takes the place of ``nn.Embedding``."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = embedding.weight.shape
        weight, scale = round_channels(embedding.weight)
        self.register_buffer("weight8", weight, persistent=False)
        self.register_buffer("scale", scale.to(embedding.weight.dtype), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Rows ``(…, width)`` of token ids ``(…)``."""
        scale = self.scale[ids][..., None]
        return self.weight8[ids].to(scale.dtype) * scale


def quantize(model: ASRModel) -> ASRModel:
    """Quantise a model's encoder and language model in place, for inference."""
    for part in (model.audio_tower, model.language_model):
        quantize_int8(part)
    return model


def quantize_int8(module: nn.Module) -> nn.Module:
    """Replace linear layers and embeddings inside ``module`` by 8-bit ones, in place.

    Weights that two modules share (a language model's tied embeddings) are shared no more: each has
    its own 8 bits, together half of what the one float32 tensor took.
    """
    for path, parent in list(module.named_modules()):
        if ADAPTER_MARK in path:
            continue
        for name, child in list(parent.named_children()):
            # Exactly these types: a class that wraps a layer is gone through, not replaced.
            if type(child) is nn.Linear:
                setattr(parent, name, Int8Linear(child))
            elif type(child) is nn.Embedding:
                setattr(parent, name, Int8Embedding(child))
    return module


def round_channels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a matrix as int8 and the float32 scale ``(rows,)`` of each."""
    values = weight.detach().float()
    scale = values.abs().amax(dim=-1).clamp_min(SMALLEST_SCALE) / LEVELS
    return torch.round(values / scale[:, None]).to(torch.int8), scale


def has_integer_kernel(device: torch.device) -> bool:
    """Whether torch multiplies 8-bit integers well on a device."""
    return device.type == "cpu" and torch.backends.quantized.engine in INTEGER_ENGINES


def pack(weight: Tensor, scale: Tensor) -> Any:
    """A matrix in the integer kernel's own layout, with the range's columns of zeros behind."""
    zeros = weight.new_zeros(len(weight), len(RANGE_COLUMNS))
    origins = torch.zeros(len(weight), dtype=torch.long)
    with warnings.catch_warnings():
        # torch announces the end of quantised tensors; here one lives for the length of this call,
        # since it is the only way to the kernel's layout.
        warnings.simplefilter("ignore", UserWarning)
        tensor = torch._make_per_channel_quantized_tensor(
            torch.cat([weight, zeros], dim=1), scale.double(), origins, 0
        )
        return torch.ops.quantized.linear_prepack(tensor, None)

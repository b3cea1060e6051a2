"""Linear layers with the same input as one product, in the order that few rows read fastest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Linear = Callable[[Tensor], Tensor]


def joined_linear(modules: Sequence[nn.Module], *, copied: bool = True) -> Linear:
    """(…, inputs) to the outputs of all ``modules`` side by side.

    On a CPU the weights of plain linear layers are copied, so later changes of theirs are not seen;
    not with ``copied`` false. Adapted and quantised layers, and those elsewhere, are called.
    """
    linears = [m for m in modules if type(m) is nn.Linear and m.weight.device.type == "cpu"]
    if copied and len(linears) == len(modules):
        # For a few rows, the product reads a weight stored (inputs, outputs) up to twice as fast.
        weight = torch.cat([m.weight.detach() for m in linears]).t().contiguous().t()
        bias = None
        if any(m.bias is not None for m in linears):
            bias = torch.cat([bias_of(m) for m in linears])
        return lambda rows: nn.functional.linear(rows, weight, bias)
    if len(modules) == 1:
        return modules[0]
    return lambda rows: torch.cat([module(rows) for module in modules], dim=-1)


def bias_of(linear: nn.Linear) -> Tensor:
    """A linear layer's bias, zero where it has none."""
    bias: Tensor | None = linear.bias
    if bias is None:
        return linear.weight.new_zeros(linear.out_features)
    return bias.detach()

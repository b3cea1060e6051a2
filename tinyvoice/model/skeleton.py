"""Modules without memory for their weights, to be given them later.

``torch.device("meta")`` does that too, but computes everything else there as well: constants come
out empty, and torch imports its compiler to describe them, which takes two seconds. Here parameters
alone are empty, and constants such as rotary frequencies are computed as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# What modules make their parameters with.
CREATORS = frozenset({torch.empty, torch.ones, torch.rand, torch.randn, torch.zeros})


class WithoutWeights(TorchFunctionMode):
    """While this context lasts, in this thread, new parameters lie on the ``meta`` device.

    Their initialisation is left out. Other tensors that begin as noise, zeros or ones lie there
    too; what is computed lies where it would without this.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Create on ``meta``, and leave alone what lies there."""
        kwargs = dict(kwargs or {})
        if func in CREATORS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
            return func(*args, **kwargs)
        # The functions of torch.nn.init hand their arguments over by name.
        target = args[0] if args else kwargs.get("tensor")
        if _changes_in_place(func) and isinstance(target, Tensor) and target.is_meta:
            return target
        return func(*args, **kwargs)


def _changes_in_place(func: Callable[..., Any]) -> bool:
    """Whether a function writes into its first argument, which torch marks by the name's end."""
    name = getattr(func, "__name__", "")
    return name.endswith("_") and not name.endswith("__") and name != "requires_grad_"

"""Where to run the model and in which precision, by what the machine does well.

A GPU is taken when there is one. The precision follows the hardware: bfloat16 on CUDA devices that
compute in it, float16 on older ones and on Apple's, and float32 on CPUs: it is exact, and without
bfloat16 units a bfloat16 matrix product is emulated, some hundred times slower. Where there are
such units the reason says so, for who wants the full model faster.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from tinyvoice.errors import ConfigurationError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Instructions of x86-64 that multiply bfloat16 matrices, in tiles and in vectors. ARM's are left
# out: torch uses them only in some builds, and float32 is never wrong.
BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16")
CPU_INFO = Path("/proc/cpuinfo")
# The first CUDA generation that computes in bfloat16 (Ampere).
BFLOAT16_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class DeviceChoice:
    """A device and a precision, each with the reason for it in words for the user."""

    device: torch.device
    dtype: torch.dtype
    device_reason: str
    dtype_reason: str


def choose(
    device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> tuple[torch.device, torch.dtype]:
    """The device and precision to use; see :func:`explain`."""
    choice = explain(device, dtype)
    return choice.device, choice.dtype


def explain(device: str | torch.device = "auto", dtype: str | torch.dtype = "auto") -> DeviceChoice:
    """Choose device and precision, and say why.

    Args:
        device: ``"auto"``, or a torch device such as ``"cpu"``, ``"cuda:1"``, ``"mps"``.
        dtype: ``"auto"``, ``"float32"``, ``"float16"``, ``"bfloat16"`` or a torch dtype.

    Raises:
        ConfigurationError: for a device this machine lacks or an unknown name.
    """
    chosen, device_reason = _choose_device(device)
    precision, dtype_reason = _choose_dtype(dtype, chosen)
    return DeviceChoice(chosen, precision, device_reason, dtype_reason)


def cpu_bfloat16_units() -> list[str]:
    """Names of the CPU's bfloat16 instructions, fastest first."""
    if hasattr(torch.cpu, "get_capabilities"):  # since torch 2.9
        present = {name for name, found in torch.cpu.get_capabilities().items() if found is True}
    else:
        present = linux_cpu_flags()
    return [flag for flag in BFLOAT16_FLAGS if flag in present]


def linux_cpu_flags(cpu_info: Path = CPU_INFO) -> set[str]:
    """Names of the CPU's instruction sets as Linux lists them; empty on other systems."""
    if not cpu_info.is_file():
        return set()
    for line in cpu_info.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return set(value.split())
    return set()


def _choose_device(device: str | torch.device) -> tuple[torch.device, str]:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"found the GPU {torch.cuda.get_device_name()}"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "found Apple's GPU"
        return torch.device("cpu"), "no GPU that torch can use was found"
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(
            f"'{device}' is no device that torch knows: use auto, cpu, cuda, cuda:1 or mps.",
            key="device",
        ) from error
    _require_available(asked)
    return asked, "asked for"


def _require_available(device: torch.device) -> None:
    """Refuse a device that this machine, or this build of torch, lacks."""
    problem = None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.backends.cuda.is_built():
            problem = "this build of torch has no CUDA: install one from pytorch.org, or use cpu"
        elif count == 0:
            problem = "torch finds no CUDA device: check the driver with nvidia-smi, or use cpu"
        elif (device.index or 0) >= count:
            problem = f"there are {count} CUDA devices, numbered from 0"
    elif device.type == "mps" and not torch.backends.mps.is_available():
        problem = "it needs macOS on an Apple chip: use cpu"
    elif device.type not in ("cpu", "cuda", "mps"):
        problem = "tinyvoice runs on cpu, cuda and mps"
    if problem is not None:
        raise ConfigurationError(f"The device '{device}' cannot be used: {problem}.", key="device")


def _choose_dtype(dtype: str | torch.dtype, device: torch.device) -> tuple[torch.dtype, str]:
    if dtype != "auto":
        asked = DTYPES.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
        if asked is None or asked not in DTYPES.values():
            raise ConfigurationError(
                f"'{dtype}' is no precision of the model: use auto, {', '.join(DTYPES)}.",
                key="dtype",
            )
        return asked, "asked for"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if torch.version.hip is not None or capability >= BFLOAT16_CAPABILITY:
            return torch.bfloat16, "the GPU computes in bfloat16"
        return torch.float16, "the GPU is too old for bfloat16"
    if device.type == "mps":
        return torch.float16, "Apple's GPU computes in float16"
    units = cpu_bfloat16_units()
    if units:
        return (
            torch.float32,
            f"exact; the full model gains from bfloat16, which {units[0]} multiplies",
        )
    return torch.float32, f"this {platform.machine()} CPU has no bfloat16 units"

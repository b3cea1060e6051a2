"""What a figure was measured on: processor, cores, memory, GPU, versions."""

from __future__ import annotations

import gc
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_CPU_INFO = Path("/proc/cpuinfo")
_MEMORY_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Machine:
    """The machine and the versions of what runs on it."""

    processor: str
    cores: int
    """Cores that this process may use."""
    memory_gib: float
    gpu: str | None
    system: str
    python: str
    torch: str
    transformers: str

    def __str__(self) -> str:
        parts = [f"{self.processor}, {self.cores} cores, {self.memory_gib:.0f} GiB"]
        parts += [self.gpu] if self.gpu else []
        return ", ".join([*parts, f"torch {self.torch}"])


def describe_machine(device: torch.device | None = None) -> Machine:
    """This machine; a GPU is named where the model runs on it."""
    gpu = None
    if device is not None and device.type == "cuda":
        gpu = torch.cuda.get_device_name(device)
    return Machine(
        processor=processor_name(),
        cores=available_cores(),
        memory_gib=total_memory_bytes() / 2**30,
        gpu=gpu,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=_version("transformers"),
    )


def processor_name() -> str:
    """The processor's name as the system gives it."""
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory_bytes() -> int:
    """Memory of the machine, 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def resident_bytes() -> int | None:
    """Memory that this process holds now, garbage and free lists given back first.

    None where the system does not say (elsewhere than on Linux).
    """
    gc.collect()
    _trim_heap()
    try:
        lines = _MEMORY_STATUS.read_text(encoding="utf-8").splitlines()
        line = next(line for line in lines if line.startswith("VmRSS:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def _trim_heap() -> None:
    """Give free memory back to the system: glibc keeps it otherwise, which looks like a leak."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"

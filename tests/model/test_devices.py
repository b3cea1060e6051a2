"""The device and precision follow the machine, and what it lacks is refused by name."""

from pathlib import Path

import pytest
import torch

from tinyvoice.errors import ConfigurationError
from tinyvoice.model.devices import choose, cpu_bfloat16_units, explain, linux_cpu_flags


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    choice = explain()
    assert choice.device.type == (
        "cuda"
        if torch.cuda.is_available()
        else "mps"
        if torch.backends.mps.is_available()
        else "cpu"
    )
    assert choice.device_reason
    assert (choice.device, choice.dtype) == choose()


def test_a_cpu_computes_in_float32_and_says_what_it_could() -> None:
    choice = explain("cpu")
    units = cpu_bfloat16_units()
    assert choice.dtype == torch.float32
    assert (units[0] if units else "no bfloat16 units") in choice.dtype_reason


@pytest.mark.parametrize(
    ("asked", "dtype"),
    [
        ("float32", torch.float32),
        ("torch.float16", torch.float16),
        (torch.bfloat16, torch.bfloat16),
    ],
)
def test_a_precision_asked_for_is_taken(asked: str | torch.dtype, dtype: torch.dtype) -> None:
    choice = explain(torch.device("cpu"), asked)
    assert (choice.dtype, choice.dtype_reason) == (dtype, "asked for")


@pytest.mark.parametrize("device", ["quantum", "cuda:x", "cuda:99", "meta"])
def test_a_device_the_machine_lacks_is_refused(device: str) -> None:
    with pytest.raises(ConfigurationError, match=device) as caught:
        choose(device)
    assert caught.value.key == "device"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_cuda_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"'cuda' cannot be used: .*use cpu"):
        choose("cuda")


@pytest.mark.parametrize("dtype", ["int8", "half", torch.int8])
def test_an_unknown_precision_is_refused(dtype: str | torch.dtype) -> None:
    with pytest.raises(ConfigurationError, match="use auto, float32, float16, bfloat16") as caught:
        choose("cpu", dtype)
    assert caught.value.key == "dtype"


def test_flags_are_read_as_linux_writes_them(tmp_path: Path) -> None:
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16\n\nflags\t: other\n")
    assert linux_cpu_flags(cpu_info) == {"fpu", "avx512_bf16", "amx_bf16"}
    assert linux_cpu_flags(tmp_path / "missing") == set()

"""The quicker start loads less, changes no result, and leaves nothing missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import miniature
from tinyvoice.model import startup
from tinyvoice.model.startup import deferred_imports


def run(program: str, *arguments: object, **environment: str) -> list[str]:
    """Lines that a Python program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


TRANSCRIBE = """
import sys
if sys.argv[2] == "quick":
    from tinyvoice.model.startup import import_transformers
    assert import_transformers()
    print(sorted({"scipy", "torch._dynamo", "torch.distributed.tensor"} & sys.modules.keys()))
import numpy
from tinyvoice.model.modeling import ASRModel
clip = numpy.random.default_rng(0).normal(0, 0.1, 16000)
print(ASRModel.from_pretrained(sys.argv[1], device="cpu").transcribe(clip, word_timestamps=True))
"""


def test_it_transcribes_the_same_with_less(tmp_path: Path) -> None:
    folder = miniature.write_checkpoint(tmp_path / "checkpoint")
    loaded, *quick = run(TRANSCRIBE, folder, "quick")
    assert loaded == "[]"
    assert quick == run(TRANSCRIBE, folder, "usual")


def test_an_adapter_loads_after_a_quick_start(tmp_path: Path) -> None:
    folder = miniature.write_checkpoint(tmp_path / "checkpoint", lora=True)
    _, *quick = run(TRANSCRIBE, folder, "quick")
    assert quick == run(TRANSCRIBE, folder, "usual")


def test_what_was_put_off_is_there_when_it_is_used() -> None:
    program = """
from tinyvoice.model.startup import import_transformers
assert import_transformers()
import torch
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
from torch.distributed.tensor import DTensor
from transformers.distributed import sharding_utils
assert not isinstance(torch.ones(1), sharding_utils.DTensor)
assert issubclass(DTensor, sharding_utils.DTensor)
from transformers.generation.continuous_batching import PagedAttentionCache
print(PagedAttentionCache.__name__)
"""
    assert run(program) == ["PagedAttentionCache"]


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "TINYVOICE_EAGER_IMPORTS"])
def test_the_environment_can_forbid_it(variable: str) -> None:
    program = "from tinyvoice.model.startup import import_transformers as i; print(i())"
    assert run(program, **{variable: "1"}) == ["False"]


class TestDeferred:
    """With a module of the standard library that nothing has imported."""

    NAME = "colorsys"

    @pytest.fixture
    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> object:
        monkeypatch.delitem(sys.modules, self.NAME, raising=False)
        with deferred_imports((self.NAME,)):
            import colorsys
        assert self.NAME not in sys.modules
        return colorsys

    def test_a_function_is_fetched_when_called(self, stand_in: object) -> None:
        function = stand_in.rgb_to_hls  # type: ignore[attr-defined]
        assert self.NAME not in sys.modules
        assert function(0, 0, 1) == (2 / 3, 0.5, 1)
        assert self.NAME in sys.modules

    def test_a_value_is_fetched_when_its_attributes_are_read(self, stand_in: object) -> None:
        assert stand_in.ONE_THIRD.is_integer() is False  # type: ignore[attr-defined]

    def test_nothing_is_an_instance_of_what_is_not_loaded(self, stand_in: object) -> None:
        assert not isinstance(1.0, stand_in.SomeClass)  # type: ignore[attr-defined]
        assert self.NAME not in sys.modules

    def test_calls_during_import_are_put_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, self.NAME, raising=False)
        with deferred_imports((self.NAME,)):
            import colorsys

            result = colorsys.rgb_to_hls(0, 0, 1)
            assert isinstance(sys.modules[self.NAME], startup.StandIn)
        assert result.index(1) == 2

    def test_a_decorated_method_gets_its_instance(self) -> None:
        class Counter:
            count = 7
            read = startup.Deferred(lambda: lambda self: self.count)

        assert Counter().read() == 7

    def test_a_module_that_is_there_stays(self) -> None:
        import json

        with deferred_imports(("json",)):
            import json as again
        assert again is json
        assert sys.modules["json"] is json

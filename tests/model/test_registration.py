"""`import tinyvoice` is enough for transformers to load our checkpoints, and costs nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import miniature


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniature.write_checkpoint(tmp_path_factory.mktemp("registration") / "checkpoint")


def run(program: str, *arguments: object) -> str:
    """What a Python program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_tinyvoice_loads_no_library() -> None:
    program = """
import sys, tinyvoice
print(sorted({"torch", "transformers", "numpy", "soundfile"} & sys.modules.keys()))
"""
    assert run(program) == "[]"


TRANSCRIBE = """
import sys
import numpy
recogniser = pipeline("automatic-speech-recognition", model=sys.argv[1])
clip = numpy.random.default_rng(0).normal(0, 0.1, 16000)
print(type(recogniser).__name__, list(recogniser(clip)))
"""


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param("import tinyvoice\nfrom transformers import pipeline", id="tinyvoice first"),
        pytest.param(
            "from transformers import pipeline\nimport tinyvoice", id="transformers first"
        ),
        pytest.param(
            "from transformers import pipeline, AutoConfig\nimport tinyvoice.errors",
            id="a part of tinyvoice",
        ),
    ],
)
def test_pipeline_needs_nothing_but_the_import(imports: str, checkpoint: Path) -> None:
    assert run(imports + TRANSCRIBE, checkpoint) == "ASRPipeline ['text']"


def test_the_auto_classes_find_ours(checkpoint: Path) -> None:
    program = """
import sys, tinyvoice
from transformers import (
    AutoConfig, AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, AutoProcessor, AutoTokenizer
)
for auto in (AutoConfig, AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, AutoProcessor):
    print(type(auto.from_pretrained(sys.argv[1])).__name__)
print(AutoTokenizer.from_pretrained(sys.argv[1]).convert_tokens_to_ids("<audio>") > 0)
"""
    assert run(program, checkpoint).split() == [
        "ASRConfig",
        "WhisperFeatureExtractor",
        "ASRModel",
        "ASRProcessor",
        "True",
    ]


def test_other_configurations_stay_as_they_were() -> None:
    program = """
import tinyvoice
from transformers import CONFIG_MAPPING
try:
    CONFIG_MAPPING["no_such_model"]
except KeyError:
    print(CONFIG_MAPPING["qwen3"].__name__, "asr_model" in CONFIG_MAPPING)
"""
    assert run(program) == "Qwen3Config True"

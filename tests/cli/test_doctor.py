"""The doctor's findings, and what follows from them."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Program
from tinyvoice.cli.doctor import EXTRAS, Level, cpu_features, examine


def test_every_extra_and_library_has_a_line() -> None:
    topics = [finding.topic for finding in examine()]
    assert len(topics) == len(set(topics))
    assert {f"extra '{extra}'" for extra in EXTRAS} <= set(topics)
    assert {"Python", "torch", "transformers", "processor", "microphone"} <= set(topics)


def test_extras_are_those_of_the_package() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    collections = {"all", "dev"}
    assert set(EXTRAS) == set(project["optional-dependencies"]) - collections


def test_whatever_is_missing_says_how_to_get_it() -> None:
    for finding in examine():
        if finding.level is Level.MISSING or finding.topic.startswith("extra"):
            assert (finding.install is None) == (finding.level is Level.OK)


@pytest.mark.parametrize(
    ("table", "features"),
    [
        ("flags\t\t: fpu sse2 avx2 fma\n", {"AVX2"}),
        ("flags: avx2 avx512f amx_bf16 avx512_bf16", {"AVX2", "AVX-512", "AMX bf16", "bf16"}),
        ("processor: 0\nFeatures\t: fp asimd bf16\n", {"NEON", "bf16"}),
        ("processor: 0\n", set()),
    ],
)
def test_processor_features(tmp_path: Path, table: str, features: set[str]) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(table)
    assert cpu_features(file) == features


def test_the_exit_code_says_whether_transcribing_will_work(program: Program) -> None:
    result = program("doctor", "--json")
    findings = json.loads(result.stdout)
    missing = [finding for finding in findings if finding["level"] == "missing"]
    assert result.returncode == (1 if missing else 0)
    assert result.stderr == ""
    report = program("doctor")
    assert report.returncode == result.returncode
    assert ("Cannot transcribe yet" if missing else "Ready to transcribe") in report.stdout
    assert all(finding["topic"] in report.stdout for finding in findings)


def test_a_library_that_is_not_there_is_missing(program: Program, tmp_path: Path) -> None:
    """Without site-packages' torch: the report still comes, and names the command."""
    shadow = tmp_path / "shadow" / "torch"
    shadow.mkdir(parents=True)
    shadow.joinpath("__init__.py").write_text("raise ImportError('libtorch.so: cannot open')\n")
    result = program("doctor", "--json", path=shadow.parent)
    assert result.returncode == 1
    broken = [f for f in json.loads(result.stdout) if f["detail"] == "libtorch.so: cannot open"]
    assert [f["level"] for f in broken] == ["missing"]
    assert broken[0]["install"] == "pip install --force-reinstall torch"

"""README and docs say what is there: links, commands, extras, configuration, Python examples."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "THIRD_PARTY.md", *(ROOT / "docs").glob("*.md")])
NAMES = [document.relative_to(ROOT).as_posix() for document in DOCUMENTS]

_BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


@pytest.fixture(params=DOCUMENTS, ids=NAMES)
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def blocks(document: Path, language: str) -> list[str]:
    text = document.read_text(encoding="utf-8")
    return [body for found, body in _BLOCK.findall(text) if found == language]


def shell_lines(document: Path) -> list[str]:
    lines = "\n".join(blocks(document, "bash")).splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.strip()]


@cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_readme_opens_with_the_two_commands() -> None:
    first = shell_lines(ROOT / "README.md")[:2]
    assert first == ["make demo", "make test"]


def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path) if path else document
        assert linked.exists(), f"{target} does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in anchors, f"{target}: no such heading"


def test_make_targets_exist(document: Path) -> None:
    rules = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"\bmake ([a-z]+)", "\n".join(shell_lines(document))):
        assert target in rules


def test_commands_exist(document: Path) -> None:
    from tinyvoice.cli.app import app

    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    commands |= set(project()["entry-points"]["tinyvoice.commands"])
    text = document.read_text(encoding="utf-8")
    for name in re.findall(r"(?:^|`)\s*tinyvoice ([a-z]\w*)", text, re.MULTILINE):
        assert name in commands, f"tinyvoice {name}"


def test_options_of_eval_and_analyse_exist(document: Path) -> None:
    from training.cli import analysis
    from training.cli import eval as evaluation

    evaluate = get_command(evaluation.app)
    analyse = get_command(analysis.app).commands  # type: ignore[attr-defined]
    for line in shell_lines(document):
        words = line.split()
        if words[:2] == ["tinyvoice", "eval"]:
            command = evaluate
        elif words[:2] == ["tinyvoice", "analyse"]:
            command = analyse[words[2]]
        else:
            continue
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line


def test_test_sets_exist(document: Path) -> None:
    from training.evaluation.edge_sets import EDGE_SETS
    from training.evaluation.test_sets import BUILT_IN

    known = {*BUILT_IN, *EDGE_SETS, "speed", "all"}
    for line in shell_lines(document):
        for name in re.findall(r" -d (\S+)", line) if line.startswith("tinyvoice eval ") else ():
            assert name in known or name.endswith(".jsonl"), line


def test_extras_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for extra in re.findall(r"\.\[(\w+)\]", text):
        assert extra in project()["optional-dependencies"]


def test_experiments_and_data_exist(document: Path) -> None:
    text = "\n".join(blocks(document, "bash"))
    for group, pattern in (("experiments", r"\+experiments=(\w+)"), ("data", r"(?<!\S)data=(\w+)")):
        for name in re.findall(pattern, text):
            assert (ROOT / "configs" / group / f"{name}.yaml").is_file(), f"{group}={name}"


def test_python_blocks_parse_and_their_imports_exist(document: Path) -> None:
    for block in blocks(document, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and "voice" in node.module:
                module = __import__(node.module, fromlist=[name.name for name in node.names])
                assert all(hasattr(module, name.name) for name in node.names)


def test_readme_and_results_show_the_same_figures() -> None:
    from training.evaluation.results_table import BEGIN, END

    def table(path: Path) -> str:
        return path.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]

    assert table(ROOT / "README.md") == table(ROOT / "docs" / "results.md")
    assert table(ROOT / "README.md").strip()


def test_the_projector_of_the_extension_guide_learns_and_keeps_clips_apart() -> None:
    import torch

    from tests.miniature import asr_config
    from tinyvoice.model.projectors import PROJECTORS, build_projector

    source = blocks(ROOT / "docs" / "extending.md", "python")[0]
    try:
        exec(compile(source, "extending.md", "exec"), {})
        projector = build_projector(asr_config("conv"))
        hidden = torch.randn(1, 10, asr_config().encoder_dim or 0)
        padded = torch.cat([hidden, torch.zeros_like(hidden)], dim=1)
        count = projector.output_length(10)
        assert projector(hidden).shape == (1, count, asr_config().llm_dim)
        torch.testing.assert_close(projector(padded)[:, :count], projector(hidden))
        projector(hidden).sum().backward()
        assert all(parameter.grad is not None for parameter in projector.parameters())
    finally:
        PROJECTORS.pop("conv", None)

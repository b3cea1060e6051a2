"""The program as a whole: help, version, commands from elsewhere, errors, interruption."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tinyvoice
from tests.cli.conftest import ROOT, Program
from tinyvoice.cli.app import BUILT_IN, DeferredCommand


def announce(folder: Path, modules: dict[str, str], **commands: str) -> Path:
    """Install a distribution of modules that announces commands, as pip would."""
    information = folder / "elsewhere-1.0.dist-info"
    information.mkdir(parents=True)
    information.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\n")
    lines = [f"{name} = {target}\n" for name, target in commands.items()]
    information.joinpath("entry_points.txt").write_text("[tinyvoice.commands]\n" + "".join(lines))
    for name, source in modules.items():
        folder.joinpath(f"{name}.py").write_text(source)
    return folder


GREET = '''"""Greet somebody. This is more than help shows."""
import typer
from tinyvoice.errors import TinyvoiceError
app = typer.Typer()
@app.command()
def greet(name: str) -> None:
    if name == "nobody":
        raise TinyvoiceError("There is nobody to greet: give a name.")
    if name == "bug":
        raise ZeroDivisionError("one\\ntwo")
    if name == "large":
        raise MemoryError("too large")
    if name == "interrupt":
        raise KeyboardInterrupt
    print("hello", name)
'''


def test_help_lists_commands_with_what_they_do(program: Program) -> None:
    result = program("--help")
    assert result.returncode == 0
    for name in BUILT_IN:
        assert name in result.stdout
    assert "Write down what is said in recordings." in result.stdout
    assert result.stderr == ""


def test_help_and_version_import_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from tinyvoice.cli.app import main\n"
        "try: main([sys.argv[1]])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'soundfile'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    for option in ("--help", "--version"):
        result = subprocess.run(
            [sys.executable, "-c", code, option],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=True,
        )
        assert "heavy: []" in result.stdout


def test_version(program: Program) -> None:
    result = program("--version")
    assert (result.returncode, result.stdout) == (0, f"tinyvoice {tinyvoice.__version__}\n")


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_command_explains_itself(name: str, program: Program) -> None:
    result = program(name, "--help")
    assert result.returncode == 0
    # What the list of commands says is what the command's own help begins with.
    help_in_list = DeferredCommand(name, BUILT_IN[name]).help
    assert help_in_list
    assert help_in_list in result.stdout
    assert "--install-completion" not in result.stdout


def test_an_unknown_command_suggests_a_known_one(program: Program) -> None:
    result = program("transcrib")
    assert result.returncode == 2
    assert "Did you mean 'transcribe'?" in result.stderr


def test_a_command_from_elsewhere_runs(program: Program, tmp_path: Path) -> None:
    path = announce(tmp_path / "site", {"greeting": GREET}, greet="greeting:app")
    assert "Greet somebody." in program("--help", path=path).stdout
    assert program("greet", "you", path=path).stdout == "hello you\n"


def test_a_command_whose_name_is_taken_is_left_out_and_named(
    program: Program, tmp_path: Path
) -> None:
    path = announce(tmp_path / "site", {"greeting": GREET}, models="greeting:app")
    result = program("models", "--json", path=path)
    assert result.returncode == 0
    assert result.stdout.startswith("[")
    assert result.stderr.startswith("warning: the command 'models' of greeting:app is left out")
    assert result.stderr.count("\n") == 1


def test_help_does_not_run_what_it_lists(program: Program, tmp_path: Path) -> None:
    source = '"""Explode."""\nraise SystemExit("imported")\n'
    path = announce(tmp_path / "site", {"explosive": source}, explode="explosive:app")
    result = program("--help", path=path)
    assert result.returncode == 0
    assert "Explode." in result.stdout


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import not_there_at_all\n", "needs the package not_there_at_all, which is not installed"),
        ("from tinyvoice import nothing_of_this_name\n", "cannot be loaded"),
        ("app = (\n", "cannot be loaded"),
        ("", "cannot be loaded"),
    ],
)
def test_a_broken_command_gives_a_sentence(
    program: Program, tmp_path: Path, source: str, words: str
) -> None:
    path = announce(tmp_path / "site", {"broken": source}, broken="broken:app")
    result = program("broken", path=path)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: The command 'broken' ")
    assert words in result.stderr
    assert program("--help", path=path).returncode == 0


def test_a_command_that_is_not_installed_says_what_to_install(
    program: Program, tmp_path: Path
) -> None:
    path = announce(tmp_path / "site", {}, lost="no_such_package.lost:app")
    assert "(not installed)" in program("--help", path=path).stdout
    result = program("lost", path=path)
    assert result.returncode == 1
    assert "is not part of this installation" in result.stderr
    assert "pip install 'tinyvoice[training]'" in result.stderr


def test_errors_are_one_sentence_and_debug_shows_where(program: Program, tmp_path: Path) -> None:
    path = announce(tmp_path / "site", {"greeting": GREET}, greet="greeting:app")
    result = program("greet", "nobody", path=path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == "error: There is nobody to greet: give a name.\n"
    for debugged in (
        program("--debug", "greet", "nobody", path=path),
        program("greet", "nobody", path=path, TINYVOICE_DEBUG="1"),
    ):
        assert debugged.returncode == 1
        assert "Traceback" in debugged.stderr
        assert debugged.stderr.endswith("error: There is nobody to greet: give a name.\n")


def test_faults_of_the_program_are_one_line_too(program: Program, tmp_path: Path) -> None:
    path = announce(tmp_path / "site", {"greeting": GREET}, greet="greeting:app")
    result = program("greet", "bug", path=path)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "ZeroDivisionError: one two" in result.stderr
    assert "tinyvoice --debug" in result.stderr
    assert "Traceback" in program("--debug", "greet", "bug", path=path).stderr


def test_want_of_memory_is_told_with_what_to_do(program: Program, tmp_path: Path) -> None:
    path = announce(tmp_path / "site", {"greeting": GREET}, greet="greeting:app")
    result = program("greet", "large", path=path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: There is not enough memory (too large): lower --batch")


def test_interruption_is_clean(program: Program, tmp_path: Path) -> None:
    path = announce(tmp_path / "site", {"greeting": GREET}, greet="greeting:app")
    result = program("greet", "interrupt", path=path)
    assert result.returncode == 130
    assert result.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_control_c_while_waiting_for_input_is_clean() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tinyvoice.cli.app", "--debug", "transcribe", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        # A shell's background jobs ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdin is not None
    assert process.stderr is not None
    assert b"reading standard input" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read().strip() == b""
    process.stdin.close()
    process.stderr.close()
    if process.stdout is not None:
        process.stdout.close()


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise there")
def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    source = '"""Talk."""\nimport typer\napp = typer.Typer()\n@app.command()\n'
    source += "def talk() -> None:\n    for _ in range(100_000): print('line')\n"
    path = announce(tmp_path / "site", {"talking": source}, talk="talking:app")
    process = subprocess.Popen(
        [sys.executable, "-m", "tinyvoice.cli.app", "talk"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() != 0
    process.stderr.close()


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_guide_names_every_option(name: str) -> None:
    guide = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    chapter = guide.split(f"\n## {name}\n")[1].split("\n## ")[0]
    command = DeferredCommand(name, BUILT_IN[name]).load()
    options = {option for parameter in command.params for option in parameter.opts}
    contrary = {option for parameter in command.params for option in parameter.secondary_opts}
    assert {
        option for option in options if option.startswith("-") and option not in chapter
    } == set()
    named = set(re.findall(r"--[a-z][a-z0-9-]+", chapter))
    assert named <= options | contrary

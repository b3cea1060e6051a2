"""The program ``tinyvoice``: finds commands, runs one, shows errors as sentences.

Showing help must be quick, so no command is imported for it: what ``--help`` says of a command is
the first line of its module's docstring, read from the source. Commands outside this package
announce themselves in the entry-point group ``tinyvoice.commands``; one whose name is taken is left
out, with a warning.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import io
import logging
import os
import sys
import traceback
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import tinyvoice
from tinyvoice.cli.progress import hidden
from tinyvoice.errors import TinyvoiceError

COMMAND_GROUP = "tinyvoice.commands"

BUILT_IN = {
    "transcribe": "tinyvoice.cli.transcribe:app",
    "listen": "tinyvoice.cli.listen:app",
    "demo": "tinyvoice.cli.demo:app",
    "bench": "tinyvoice.cli.bench:app",
    "models": "tinyvoice.cli.models:app",
    "serve": "tinyvoice.cli.serve:app",
    "doctor": "tinyvoice.cli.doctor:app",
}

_DEBUG_VARIABLE = "TINYVOICE_DEBUG"


class CommandUnavailableError(TinyvoiceError):
    """A command is announced, but what it is made of is not installed or broken."""


class DeferredCommand(TyperCommand):
    """Stands for a command until it is called; ``target`` is ``module:object``."""

    def __init__(self, name: str, target: str) -> None:
        module = target.partition(":")[0]
        super().__init__(name=name, help=_first_sentence(module), add_help_option=False)
        self.target = target

    def load(self) -> Any:
        """Import the command.

        Raises:
            CommandUnavailableError: the import fails.
        """
        module, _, attribute = self.target.partition(":")
        try:
            loaded = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise CommandUnavailableError(self._advice(module, error.name or "")) from error
        except (ImportError, AttributeError, SyntaxError) as error:
            raise CommandUnavailableError(
                f"The command '{self.name}' cannot be loaded ({_one_line(error)}): "
                "reinstall the package that brings it."
            ) from error
        if isinstance(loaded, typer.Typer):
            loaded._add_completion = False  # the program has it already
            command = typer.main.get_command(loaded)
        else:
            command = loaded
        command.name = self.name
        return command

    def _advice(self, module: str, missing: str) -> str:
        package = module.partition(".")[0]
        if missing == package or missing.startswith(package + "."):
            return (
                f"The command '{self.name}' is not part of this installation "
                f"(no module {missing}): install tinyvoice with the extra that brings it, "
                "pip install 'tinyvoice[training]'"
            )
        return (
            f"The command '{self.name}' needs the package {missing}, which is not installed: "
            "pip install 'tinyvoice[training]'"
        )


class CommandGroup(TyperGroup):
    """The commands of this package and of others, imported only when called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        targets = dict(BUILT_IN)
        for entry in entry_points(group=COMMAND_GROUP):
            taken = targets.setdefault(entry.name, entry.value)
            if taken != entry.value:
                print_warning(
                    f"the command '{entry.name}' of {entry.value} is left out, because {taken} has "
                    f"that name: choose another one in the entry-point group {COMMAND_GROUP}."
                )
        for name, target in targets.items():
            self.commands[name] = DeferredCommand(name, target)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that is called, and import that one."""
        name, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, DeferredCommand):
            command = command.load()
        return name, command, rest


app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tinyvoice {tinyvoice.__version__}")
        raise typer.Exit


@app.callback(epilog="Try: tinyvoice transcribe recording.wav")
def root(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", envvar=_DEBUG_VARIABLE, help="Show where errors come from, and log more."
        ),
    ] = False,
) -> None:
    """Speech becomes text, on this machine."""
    del show_version
    if debug:
        os.environ[_DEBUG_VARIABLE] = "1"  # worker processes are to know it too
    _show_logs(logging.DEBUG if debug else logging.WARNING)


def debugging() -> bool:
    """Tell whether tracebacks are wanted."""
    return os.environ.get(_DEBUG_VARIABLE, "").lower() in ("1", "true", "yes", "on", "t", "y")


def print_error(message: str) -> None:
    """Show one sentence on standard error, in red where there is colour."""
    _print_marked("error", message, typer.colors.RED)


def print_warning(message: str) -> None:
    """Show one sentence on standard error, in yellow where there is colour."""
    _print_marked("warning", message, typer.colors.YELLOW)


def _print_marked(mark: str, message: str, colour: str) -> None:
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        mark = typer.style(mark, fg=colour, bold=True)
    with hidden():
        print(f"{mark}: {message}", file=sys.stderr, flush=True)


class _WarningHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            print_warning(record.getMessage())
        else:
            with hidden():
                print(f"{record.name}: {record.getMessage()}", file=sys.stderr)


def _show_logs(level: int) -> None:
    logger = logging.getLogger("tinyvoice")
    logger.setLevel(level)
    if not any(isinstance(handler, _WarningHandler) for handler in logger.handlers):
        logger.addHandler(_WarningHandler())
        logger.propagate = False


def _first_sentence(module: str) -> str:
    """Read the first line of a module's docstring without importing it or its package."""
    top, *inner = module.split(".")
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        found = None
    if found is None:
        return "(not installed)"
    folders = found.submodule_search_locations or []
    sources = [Path(folder, *inner).with_suffix(".py") for folder in folders]
    for source in sources if inner else [Path(found.origin or "")]:
        try:
            docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
        except (OSError, SyntaxError, ValueError):
            continue
        return docstring.splitlines()[0] if docstring else ""
    return "(broken)"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def main(arguments: list[str] | None = None) -> None:
    """Run the program and end the process: 0 done, 1 an error, 2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names and words of any language pass where the terminal's encoding lacks them.
            stream.reconfigure(errors="backslashreplace")
    command = typer.main.get_command(app)
    try:
        command.main(args=arguments, prog_name="tinyvoice")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        _leave_quietly()
    except TinyvoiceError as error:
        if debugging():
            traceback.print_exc()
        print_error(str(error))
        sys.exit(1)
    except Exception as error:
        if debugging():
            raise
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            print_error(
                f"There is not enough memory ({_one_line(error)}): lower --batch-size, "
                "or choose a smaller model or another --device."
            )
            sys.exit(1)
        print_error(
            f"tinyvoice failed with {type(error).__name__}: {_one_line(error)}; "
            "this is a fault of the program: tinyvoice --debug COMMAND shows where it is."
        )
        sys.exit(1)


def _leave_quietly() -> None:
    # The reader of our output has gone (`| head`): nothing is left to say, not even at exit, when
    # Python flushes what is still buffered.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


if __name__ == "__main__":
    main()

"""List the models at hand, and those that can be fetched.

Looks at the embedded checkpoint, at the Hugging Face cache and at ids known to work. It reads
headers of files only, asks no server, and so cannot tell whether a published model has changed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False)

EMBEDDED = Path(__file__).parents[1] / "model" / "embedded"

MODEL_TYPE = "asr_model"

_LARGEST_HEADER = 100 << 20
"""The safetensors format itself allows no longer header."""


@dataclass(frozen=True)
class Model:
    """One line of the list.

    Attributes:
        name: what to pass to ``--model``.
        state: ``embedded``, ``cached`` (on this machine) or ``published`` (would be downloaded).
        where: folder or address.
        bytes: size of its files here, or None where they are not here and nobody has said it.
        parameters: numbers in its own weight files, or None where they are not here.
        licence: as its model card says, or None if it says nothing.
        notes: what it is.
        approximate: whether ``bytes`` is about what a download takes, rather than measured.
    """

    name: str
    state: str
    where: str
    bytes: int | None
    parameters: int | None
    licence: str | None
    notes: str
    approximate: bool = False


PUBLISHED = (
    Model(
        name="mazesmazes/tiny-audio",
        state="published",
        where="https://huggingface.co/mazesmazes/tiny-audio",
        bytes=6_000_000_000,
        parameters=None,
        licence="MIT",
        notes=(
            "projector for real rooms and voices; fetches GLM-ASR-Nano-2512 (4.5 GB) and "
            "Qwen3-0.6B (1.5 GB) as well"
        ),
        approximate=True,
    ),
)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list instead of a table.")] = (
        False
    ),
) -> None:
    """List the models at hand, and those that can be fetched.

    A folder with a checkpoint works as a model too: --model path/to/folder
    """
    found = available_models()
    if as_json:
        print(json.dumps([asdict(model) for model in found], indent=2))
    else:
        _print_table(found)


def available_models() -> list[Model]:
    """Find the embedded model, those in the Hugging Face cache, and those known to be published."""
    found = []
    if (EMBEDDED / "config.json").is_file():
        found.append(describe_folder(EMBEDDED, "embedded", "embedded"))
    found += cached_models(hub_cache())
    names = {model.name for model in found}
    found += [model for model in PUBLISHED if model.name not in names]
    return found


def hub_cache() -> Path:
    """Return the folder where Hugging Face libraries keep downloads, by their own variables."""
    if folder := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(folder).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "huggingface" / "hub"


def cached_models(cache: Path) -> Iterator[Model]:
    """Yield the speech models in a Hugging Face cache; others in it are passed over."""
    for repository in sorted(cache.glob("models--*")):
        name = repository.name.removeprefix("models--").replace("--", "/", 1)
        snapshots = [
            folder
            for folder in repository.glob("snapshots/*")
            if read_json(folder / "config.json").get("model_type") == MODEL_TYPE
        ]
        if snapshots:
            newest = max(snapshots, key=lambda folder: folder.stat().st_mtime)
            yield describe_folder(newest, name, "cached")


def describe_folder(folder: Path, name: str, state: str) -> Model:
    """Describe a checkpoint by its configuration, the headers of its weights and its card."""
    config = read_json(folder / "config.json")
    weights = sorted(folder.glob("*.safetensors"))
    return Model(
        name=name,
        state=state,
        where=str(folder),
        bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        parameters=sum(count_parameters(file) for file in weights) if weights else None,
        licence=_card_licence(folder / "README.md"),
        notes=_notes(config),
    )


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; a file that is missing or holds anything else counts as empty."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def count_parameters(weights: Path) -> int:
    """Count the numbers in a safetensors file by its header alone; 0 if it has none.

    The header is JSON after its length as eight bytes, little end first
    (https://huggingface.co/docs/safetensors).
    """
    try:
        with weights.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LARGEST_HEADER:
                return 0
            header = json.loads(file.read(length))
        return sum(
            math.prod(tensor["shape"]) for key, tensor in header.items() if key != "__metadata__"
        )
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return 0


def _card_licence(card: Path) -> str | None:
    """Read ``license:`` from the YAML lines at the top of a model card."""
    try:
        lines = card.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            return None
        key, _, value = line.partition(":")
        if key.strip() == "license":
            return value.strip().strip("'\"") or None
    return None


def _notes(config: dict[str, Any]) -> str:
    parts = [f"{config.get('projector_type', 'mlp')} projector"]
    if config.get("use_lora"):
        parts.append("LoRA")
    if config.get("embedded_backbones"):
        parts.append("complete: fetches nothing")
    else:
        backbones = (config.get("audio_model_id"), config.get("text_model_id"))
        parts += [f"needs {backbone}" for backbone in backbones if backbone]
    return ", ".join(parts)


def _print_table(found: list[Model]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("licence", no_wrap=True)
    table.add_column("what it is, and where", overflow="fold")
    for model in found:
        about = Text(model.notes)
        if model.parameters is not None:
            about.append(f", {model.parameters / 1e6:.1f} M parameters")
        about.append(f"\n{model.where}", style="dim")
        table.add_row(model.name, model.state, _size(model), model.licence or "?", about)
    Console().print(table)


def _size(model: Model) -> str:
    if model.bytes is None:
        return "-"
    large = model.bytes >= 1e9
    size = f"{model.bytes / 1e9:.1f} GB" if large else f"{model.bytes / 1e6:.1f} MB"
    return f"about {size}" if model.approximate else size

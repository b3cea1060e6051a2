"""Tensors in a folder of safetensors files: listing, bounded reading, loading into a module.

Only safetensors are read. Pickled weights can run code when they are opened, so their presence
instead of safetensors is an error that says so. What the tensors mean is not known here; see
``checkpoint.py``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tinyvoice.errors import CheckpointError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

# Larger files than these are refused unread. The largest published one, GLM-ASR-Nano's, has 4.5 GB;
# a tokenizer.json has 11 MB.
MAX_WEIGHTS_BYTES = int(os.environ.get("TINYVOICE_MAX_WEIGHTS_BYTES", 20 * 2**30))
MAX_JSON_BYTES = 64 * 2**20

FLOATING = ("F64", "F32", "F16", "BF16")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of at most ``MAX_JSON_BYTES``."""
    check_size(path, MAX_JSON_BYTES)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.name} is missing in {path.parent}; a checkpoint folder needs it", key=path.name
        ) from error
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON ({error}); fetch the checkpoint again", key=path.name
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; fetch it again", key=path.name)
    return content


def check_size(path: Path, limit: int) -> None:
    """Refuse a file beyond ``limit`` bytes; a missing file passes."""
    size = path.stat().st_size if path.exists() else 0
    if size > limit:
        raise CheckpointError(
            f"{path} has {size:,} bytes, more than the {limit:,} that are read; "
            "raise max_file_bytes if the file is to be trusted",
            key=path.name,
        )


class WeightFiles:
    """The safetensors of one folder, in one file or in shards, read tensor by tensor.

    ``name`` is the file without shards; ``max_file_bytes`` bounds each file.
    """

    def __init__(
        self, folder: Path, name: str = WEIGHTS_FILE, max_file_bytes: int | None = None
    ) -> None:
        self.folder = folder
        self.name = name
        limit = MAX_WEIGHTS_BYTES if max_file_bytes is None else max_file_bytes
        self.files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in self._paths():
            check_size(path, limit)
            self._list(path)

    def _paths(self) -> list[Path]:
        single, index = self.folder / self.name, self.folder / f"{self.name}.index.json"
        if single.is_file():
            return [single]
        if not index.is_file():
            raise missing_weights(self.folder, self.name)
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise CheckpointError(
                f"{index} has no weight_map; fetch the checkpoint again", key="weight_map"
            )
        names = sorted({str(name) for name in weight_map.values()})
        for name in names:
            if not re.fullmatch(r"[\w.-]+\.safetensors", name):
                raise CheckpointError(
                    f"{index} names the shard {name!r}; shards must be safetensors files of the "
                    "same folder",
                    key="weight_map",
                )
            if not (self.folder / name).is_file():
                raise CheckpointError(
                    f"the shard {name} named by {index} is missing; fetch the checkpoint again",
                    key=name,
                )
        return [self.folder / name for name in names]

    def _list(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as handle:
                for key in handle.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                    part = handle.get_slice(key)
                    if part.get_dtype() not in FLOATING:
                        raise CheckpointError(
                            f"{key} in {path} is stored as {part.get_dtype()}; "
                            "weights must be float32, float16 or bfloat16",
                            key=key,
                        )
                    self.files[key] = path
                    self.shapes[key] = tuple(part.get_shape())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} is no valid safetensors file ({error}); fetch it again", key=path.name
            ) from error

    def keys_under(self, prefix: str) -> dict[str, str]:
        """Names without ``prefix`` to names in the file, for all tensors under that prefix."""
        return {key[len(prefix) :]: key for key in self.files if key.startswith(prefix)}

    def read(
        self,
        keys: Iterable[str],
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> dict[str, Tensor]:
        """Tensors by their name in the file, moved and cast."""
        wanted = sorted(keys, key=lambda key: str(self.files[key]))
        tensors: dict[str, Tensor] = {}
        for path in dict.fromkeys(self.files[key] for key in wanted):
            with safe_open(path, framework="pt") as handle:
                for key in wanted:
                    if self.files[key] == path:
                        tensors[key] = handle.get_tensor(key).to(device=device, dtype=dtype)
        return tensors


def missing_weights(folder: Path, name: str) -> CheckpointError:
    """The error for a folder without safetensors, which names pickled weights if it has those."""
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED_SUFFIXES)
    if pickled:
        return CheckpointError(
            f"{folder} has only pickled weights ({', '.join(pickled)}), which can run code when "
            f"opened and are never read; convert them to {name}",
            key=pickled[0],
        )
    return CheckpointError(f"{name} is missing in {folder}; fetch the checkpoint again", key=name)


def load_into(
    module: nn.Module,
    files: WeightFiles,
    names: Mapping[str, str],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    optional: Iterable[str] = (),
    prefix: str = "",
    what: str,
) -> None:
    """Give a module (usually built on the meta device) its weights.

    ``names`` maps the module's tensor names to those in the files, which begin with ``prefix``
    (needed only to name what is missing). Every tensor of the module must
    be there, except ``optional`` ones, none may be left over, and shapes must agree; otherwise a
    :class:`CheckpointError` names the key and the reason before anything is read.
    """
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    check_names(files, names, expected, set(optional), what, lambda key: prefix + key)
    tensors = files.read(names.values(), device, dtype)
    module.load_state_dict(
        {key: tensors[name] for key, name in names.items()}, strict=False, assign=True
    )


def check_names(
    files: WeightFiles,
    names: Mapping[str, str],
    expected: Mapping[str, tuple[int, ...]],
    optional: set[str],
    what: str,
    stored_name: Callable[[str], str] = str,
) -> None:
    """Compare names and shapes with what a module expects; see :func:`load_into`.

    ``stored_name`` gives the name in the file that a missing tensor of the module would have.
    """
    where = f"{files.folder}/{files.name}"
    missing = sorted(set(expected) - set(names) - optional)
    if missing:
        key = stored_name(missing[0])
        raise CheckpointError(
            f"{where} lacks {key} of the {what}"
            f"{more(missing)}; the file does not belong to this configuration",
            key=key,
        )
    unexpected = sorted(names[key] for key in set(names) - set(expected))
    if unexpected:
        raise CheckpointError(
            f"{where} has {unexpected[0]}, which the {what} of this configuration does not have"
            f"{more(unexpected)}",
            key=unexpected[0],
        )
    for key, name in names.items():
        if files.shapes[name] != expected[key]:
            raise CheckpointError(
                f"{name} in {where} has shape {files.shapes[name]}, "
                f"but the configuration asks for {expected[key]}",
                key=name,
            )


def more(keys: list[str]) -> str:
    """``" (and 3 more)"`` for a list of four."""
    return f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""


def make_tied(language_model: Any) -> None:
    """Let input and output embedding be one tensor where the configuration says so."""
    if language_model.config.tie_word_embeddings:
        shared = language_model.get_input_embeddings().weight
        language_model.get_output_embeddings().weight = shared


def write_weights(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
    """Write tensors, cast to ``dtype`` if one is given, replacing the file in one step.

    Replacing matters: weights just loaded may still be mapped from the old file.
    """
    stored: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in tensors.items():
        tensor = value.detach().to("cpu", dtype=dtype).contiguous()
        # The format has no shared tensors: a second name gets a copy.
        stored[key] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(stored, temporary, metadata={"format": "pt"})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with sorted keys, replacing the file in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)

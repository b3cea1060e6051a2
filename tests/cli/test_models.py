"""The list of models: what is found where, and described by headers alone."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.conftest import Program
from tinyvoice.cli.models import (
    cached_models,
    count_parameters,
    describe_folder,
    hub_cache,
    read_json,
)


def checkpoint(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True)
    folder.joinpath("config.json").write_text(json.dumps({"model_type": "asr_model"} | config))
    save_file(
        {"projector.a": torch.zeros(2, 3), "projector.b": torch.zeros(5)},
        folder / "model.safetensors",
    )
    return folder


def test_a_folder_is_described_by_its_files(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", projector_type="moe", use_lora=True, text_model_id="a/b")
    save_file({"lora": torch.zeros(4)}, folder / "adapter_model.safetensors")
    folder.joinpath("README.md").write_text("---\nlanguage: en\nlicense: 'mit'\n---\nlicense: no\n")
    model = describe_folder(folder, "name", "cached")
    assert model.parameters == 2 * 3 + 5 + 4
    assert model.bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert model.licence == "mit"
    assert model.notes == "moe projector, LoRA, needs a/b"


def test_a_complete_checkpoint_says_that_it_fetches_nothing(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", embedded_backbones=True, text_model_id="a/b")
    model = describe_folder(folder, "name", "cached")
    assert model.notes == "mlp projector, complete: fetches nothing"
    assert model.licence is None


def test_the_cache_is_searched_for_speech_models_only(tmp_path: Path) -> None:
    checkpoint(tmp_path / "models--owner--speech" / "snapshots" / "abc")
    other = tmp_path / "models--owner--text" / "snapshots" / "abc"
    other.mkdir(parents=True)
    other.joinpath("config.json").write_text('{"model_type": "qwen3"}')
    broken = tmp_path / "models--owner--broken" / "snapshots" / "abc"
    broken.mkdir(parents=True)
    broken.joinpath("config.json").write_text("{")
    (tmp_path / "models--owner--empty").mkdir()
    assert [model.name for model in cached_models(tmp_path)] == ["owner/speech"]
    assert list(cached_models(tmp_path / "gone")) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"\xff" * 8 + b"{}",
        b"\x02\x00\x00\x00\x00\x00\x00\x00[]",
        b'\x0b\x00\x00\x00\x00\x00\x00\x00{"a": {} }',
        b"PK\x03\x04 a pickle in a ZIP archive",
    ],
)
def test_weights_without_a_proper_header_count_nothing(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    assert count_parameters(file) == 0


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_json_that_is_no_object_counts_as_empty(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content, encoding="latin-1")
    assert read_json(file) == {}


def test_the_cache_is_where_the_hub_libraries_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert hub_cache() == Path("~/.cache/huggingface/hub").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert hub_cache() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/home")
    assert hub_cache() == Path("/home/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/cache")
    assert hub_cache() == Path("/cache")


def test_the_program_lists_published_and_cached_models(program: Program, tmp_path: Path) -> None:
    cache = tmp_path / "huggingface" / "hub"
    folder = checkpoint(cache / "models--owner--speech" / "snapshots" / "abc")
    result = program("models", "--json")
    assert result.returncode == 0
    models = {model["name"]: model for model in json.loads(result.stdout)}
    assert models["owner/speech"]["state"] == "cached"
    assert models["owner/speech"]["where"] == str(folder)
    published = models["mazesmazes/tiny-audio"]
    assert published["state"] == "published"
    # The encoder's repository, the language model's, and a projector.
    assert 6.0e9 <= published["bytes"] < 6.1e9
    assert [name for name, model in models.items() if model["approximate"]] == [published["name"]]
    table = program("models").stdout
    assert all(name in table for name in models)
    assert "about 6.0 GB" in table


def test_a_published_model_that_is_cached_is_listed_once(program: Program, tmp_path: Path) -> None:
    cache = tmp_path / "huggingface" / "hub"
    checkpoint(cache / "models--mazesmazes--tiny-audio" / "snapshots" / "abc")
    models = json.loads(program("models", "--json").stdout)
    states = [model["state"] for model in models if model["name"] == "mazesmazes/tiny-audio"]
    assert states == ["cached"]

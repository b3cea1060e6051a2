from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch

from tests.miniature import clips, random_model, write_checkpoint
from tinyvoice.model import lora
from tinyvoice.model.modeling import ASRModel


def tokens(model: ASRModel) -> list[list[int]]:
    return model.generate(*model.need_processor().features(clips(1.3, 0.5)))


def test_a_fresh_adapter_changes_no_token_and_is_all_that_trains() -> None:
    model, plain = random_model(lora_rank=3), random_model()
    lora.add_adapter(model)
    assert lora.has_adapter(model)
    assert not lora.has_adapter(plain)
    assert tokens(model) == tokens(plain)
    trainable = {
        name: parameter.shape
        for name, parameter in model.language_model.named_parameters()
        if parameter.requires_grad
    }
    # Seven projections in two layers, two factors each.
    assert len(trainable) == 7 * 2 * 2
    assert all(min(shape) == 3 for shape in trainable.values())
    assert model.config.use_lora


def test_names_in_files_are_pefts_own(tmp_path: Path) -> None:
    model = random_model()
    lora.add_adapter(model)
    lora.save_adapter(model, tmp_path, None)
    theirs: Any = peft.get_peft_model(
        random_model().language_model, peft.LoraConfig.from_pretrained(str(tmp_path))
    )
    names = set(peft.get_peft_model_state_dict(theirs))
    assert names == {lora.file_name(k) for k in model.language_model.state_dict() if "lora_" in k}
    assert {lora.file_name(lora.model_name(name)) for name in names} == names


def test_plain_tensors_keep_their_names_under_an_adapter() -> None:
    model, plain = random_model(), random_model()
    lora.add_adapter(model)
    state = lora.plain_state_dict(model.language_model)
    expected = plain.language_model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state)


def test_a_trained_adapter_comes_back(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "published")
    model = ASRModel.from_pretrained(tmp_path / "published", device="cpu", dtype="float32")
    before = tokens(model)
    lora.add_adapter(model)
    with torch.no_grad():
        for name, parameter in model.language_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    model.save_pretrained(tmp_path / "saved")
    loaded = ASRModel.from_pretrained(tmp_path / "saved", device="cpu", dtype="float32")
    assert tokens(loaded) == tokens(model) != before
    assert loaded.config.use_lora


def test_some_projections_only() -> None:
    model = random_model(lora_target_modules=["q_proj", "v_proj"])
    lora.add_adapter(model)
    adapted = {
        name.split(".lora_")[0].rpartition(".")[2]
        for name, _ in model.language_model.named_parameters()
        if "lora_" in name
    }
    assert adapted == {"q_proj", "v_proj"}

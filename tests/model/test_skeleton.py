"""Parameters are empty, constants are not."""

import pytest
import torch
from torch import nn

from tests import miniature
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.skeleton import WithoutWeights


@pytest.mark.parametrize("projector_type", miniature.PROJECTOR_TYPES)
def test_a_model_without_weights_is_whole_once_it_has_them(projector_type: str) -> None:
    model = miniature.random_model(projector_type)
    with WithoutWeights():
        skeleton = ASRModel(miniature.asr_config(projector_type))
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    assert {k: v.shape for k, v in skeleton.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    buffers = dict(model.named_buffers())
    for name, buffer in skeleton.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    skeleton.load_state_dict(model.state_dict(), assign=True)
    skeleton.use_processor(model.need_processor())
    features, mask = model.need_processor().features(miniature.clips(1.0))
    assert skeleton.eval().generate(features, mask) == model.generate(features, mask)


def test_a_device_asked_for_is_respected() -> None:
    with WithoutWeights():
        assert torch.empty(1, device="cpu").device.type == "cpu"


def test_afterwards_layers_have_memory_again() -> None:
    with WithoutWeights():
        pass
    assert not nn.Linear(2, 2).weight.is_meta

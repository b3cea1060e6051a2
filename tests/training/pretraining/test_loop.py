from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.pretraining.loop import Loop, LoopSettings, load_weights


def make_loop(folder: Path, steps: int) -> Loop:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)

    def batches(step: int) -> Iterator[Tensor]:
        while True:
            yield torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            step += 1

    def loss(batch: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
        target = batch.sum(dim=1, keepdim=True)
        return nn.functional.mse_loss(model(batch), target), {"step_seen": float(step)}

    groups = [{"params": list(model.parameters()), "lr": 0.05}]
    settings = LoopSettings(folder, max_steps=steps, warmup_steps=5, log_every_steps=10)
    return Loop(model, groups, loss, batches, settings)


def test_it_learns_and_logs(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, 200)
    loop.run()
    torch.testing.assert_close(
        loop.model.state_dict()["weight"], torch.ones(1, 4), atol=0.05, rtol=0
    )
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 20


def test_rate_warms_up_and_falls(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, 100)
    rates = []
    for step in range(101):
        loop.step = step
        rates.append(loop.rate())
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[100] == pytest.approx(loop.settings.final_fraction)
    assert rates[6:] == sorted(rates[6:], reverse=True)


def test_resuming_gives_the_weights_of_an_unbroken_run(tmp_path: Path) -> None:
    whole = make_loop(tmp_path / "whole", 60)
    whole.run()
    first = make_loop(tmp_path / "parts", 60)
    for step in range(25):
        batch = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        first._update(batch, 0.0)
    first.save()
    second = make_loop(tmp_path / "parts", 60)
    second.run()
    assert second.step == 60
    expected = whole.model.state_dict()["weight"]
    assert torch.equal(second.model.state_dict()["weight"], expected)
    assert torch.equal(load_weights(tmp_path / "parts")["weight"], expected)

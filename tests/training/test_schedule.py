"""The learning rate rises in a line and falls as its kind says."""

import pytest

from training.schedule import ScheduleSettings


def test_the_rate_rises_in_a_line() -> None:
    schedule = ScheduleSettings(warmup_steps=4)
    assert [schedule.factor(step, step / 100) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("kind", "half_way"),
    [("cosine", 0.5), ("linear", 0.5), ("polynomial", 0.25), ("constant", 1.0)],
)
def test_the_rate_falls_as_its_kind_says(kind: str, half_way: float) -> None:
    schedule = ScheduleSettings(kind=kind, warmup_steps=0)  # type: ignore[arg-type]
    factors = [schedule.factor(step, step / 100) for step in range(101)]
    assert factors[0] == pytest.approx(1.0)
    assert factors[50] == pytest.approx(half_way)
    assert factors[100] == pytest.approx(1.0 if kind == "constant" else 0.0)
    assert factors == sorted(factors, reverse=True)


def test_the_rate_ends_at_its_final_factor_and_stays() -> None:
    schedule = ScheduleSettings(warmup_steps=0, final_factor=0.1)
    assert schedule.factor(100, 1.0) == pytest.approx(0.1)
    assert schedule.factor(120, 1.2) == pytest.approx(0.1)


def test_a_short_run_warms_up_for_a_fifth_of_it() -> None:
    schedule = ScheduleSettings(warmup_steps=500)
    assert schedule.for_run_of(10).warmup_steps == 2
    assert schedule.for_run_of(5000).warmup_steps == 500
    assert schedule.for_run_of(None) == schedule

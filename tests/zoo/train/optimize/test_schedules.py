"""Schedules against torch's and against their formulas."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch.optim import lr_scheduler

from dlzoo.zoo.train.optimize.schedules import (
    Constant,
    Cosine,
    Exponential,
    FixedDecay,
    MultiStep,
    Plateau,
    Schedule,
    Step,
    WarmRestarts,
    plotted_factors,
)

NUM_EPOCHS = 23
BASE = 0.4


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)


TORCH: dict[str, tuple[Schedule, Callable[[torch.optim.Optimizer], Any]]] = {
    "constant": (Constant(), lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    "step": (Step(step_epochs=5, gamma=0.3), lambda o: lr_scheduler.StepLR(o, 5, 0.3)),
    "multi-step": (
        MultiStep(milestones=(3, 4, 11), gamma=0.5),
        lambda o: lr_scheduler.MultiStepLR(o, [3, 4, 11], 0.5),
    ),
    "exponential": (Exponential(gamma=0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    "cosine": (
        Cosine(min_factor=0.125),
        lambda o: lr_scheduler.CosineAnnealingLR(o, NUM_EPOCHS, BASE / 8),
    ),
    "warm-restarts": (
        WarmRestarts(period_epochs=4, min_factor=0.25),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4, 1, BASE / 4),
    ),
    "warm-restarts, longer and longer": (
        WarmRestarts(period_epochs=3, period_factor=2),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2),
    ),
    "fixed-decay": (
        FixedDecay(decay=0.2),
        lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + 0.2 * t)),
    ),
}


@pytest.mark.parametrize("case", TORCH)
@pytest.mark.parametrize("steps_per_epoch", [1, 7])
def test_each_epoch_as_torch_has_it(case: str, steps_per_epoch: int) -> None:
    schedule, build = TORCH[case]
    sgd = optimizer()
    torchs = build(sgd)
    progress = schedule.start(NUM_EPOCHS, steps_per_epoch)
    for epoch in range(NUM_EPOCHS):
        ours = BASE * progress.factor(epoch * steps_per_epoch)
        # torch multiplies from epoch to epoch, with as many roundings.
        assert ours == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-12, abs=1e-15), epoch
        sgd.step()
        torchs.step()


def test_between_epochs() -> None:
    assert Exponential(gamma=0.5).factor(2.5, 10) == pytest.approx(2**-2.5, rel=1e-15)
    assert FixedDecay(decay=2.0).factor(0.25, 10) == pytest.approx(1 / 1.5, rel=1e-15)
    assert Cosine().factor(2.5, 10) == pytest.approx(0.5 + math.sqrt(0.125), rel=1e-15)
    assert WarmRestarts(period_epochs=2).factor(2.5, 10) == Cosine().factor(2.5, 10)
    assert Step(step_epochs=2.5).factor(2.49, 10) == 1.0
    assert Step(step_epochs=2.5).factor(2.5, 10) == pytest.approx(0.1)
    assert MultiStep(milestones=(1.5,)).factor(1.5, 10) == pytest.approx(0.1)
    assert Cosine(min_factor=0.1).factor(10, 10) == pytest.approx(0.1)
    assert Cosine(min_factor=0.1).factor(12, 10) == pytest.approx(0.1)  # stays there


SCHEDULES: list[dict[str, Any]] = [
    {"name": "constant"},
    {"name": "fixed-decay"},
    {"name": "step", "step_epochs": 2},
    {"name": "multi-step", "milestones": [2, 9]},
    {"name": "exponential"},
    {"name": "plateau"},
    {"name": "cosine", "min_factor": 0.2},
    {"name": "warm-restarts", "period_epochs": 2},
]


@pytest.mark.parametrize("values", SCHEDULES, ids=lambda v: str(v["name"]))
@settings(max_examples=20, deadline=None)
@given(
    warmup=st.floats(0.1, 8.0, exclude_max=True), start=st.floats(0, 1), share=st.floats(0, 1)
)
def test_warmup_is_a_line_that_joins_without_a_jump(
    values: dict[str, Any], warmup: float, start: float, share: float
) -> None:
    given_values = {**values, "warmup_epochs": warmup, "warmup_start": start}
    schedule = TypeAdapter[Schedule](Schedule).validate_python(given_values)
    top = schedule.factor(warmup, 10)
    assert schedule.factor(0.0, 10) == start
    assert schedule.factor(warmup * share, 10) == pytest.approx(
        start + (top - start) * share, abs=1e-12
    )
    assert schedule.factor(math.nextafter(warmup, 0), 10) == pytest.approx(top, abs=1e-12)


@pytest.mark.parametrize("values", SCHEDULES, ids=lambda v: str(v["name"]))
def test_after_the_warmup_time_starts_anew(values: dict[str, Any]) -> None:
    validate = TypeAdapter[Schedule](Schedule).validate_python
    plain, warmed = validate(values), validate({**values, "warmup_epochs": 3})
    for t in (0.0, 1.5, 4.0):
        if values["name"] == "multi-step":  # whose milestones are epochs of the run
            assert warmed.factor(t + 3, 10) == plain.factor(t + 3, 10)
        else:
            assert warmed.factor(t + 3, 10) == pytest.approx(plain.factor(t, 7), rel=1e-12)


def test_a_run_may_be_shorter_than_its_warmup() -> None:
    progress = Cosine(warmup_epochs=20).start(2, 10)
    factors = [progress.factor(step) for step in range(20)]
    assert factors == pytest.approx([step / 200 for step in range(20)])
    assert Cosine(warmup_epochs=2).factor(2, 2) == 1.0


def test_state_of_a_function_of_the_time_is_empty() -> None:
    progress = Cosine().start(3, 4)
    before = progress.factor(5)
    progress.end_epoch(1.0)
    progress.load_state(progress.state())
    assert progress.state() == {} and progress.factor(5) == before


# -- on plateau --------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    patience=st.integers(0, 3),
    cooldown=st.integers(0, 3),
    threshold=st.sampled_from([0.0, 0.01, 0.3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_plateau_as_torch_has_it(
    patience: int, cooldown: int, threshold: float, seed: int
) -> None:
    schedule = Plateau(
        gamma=0.5,
        patience=patience,
        threshold=threshold,
        cooldown_epochs=cooldown,
        min_factor=1 / 64,
    )
    sgd = optimizer()
    torchs = lr_scheduler.ReduceLROnPlateau(
        sgd,
        factor=0.5,
        patience=patience,
        threshold=threshold,
        cooldown=cooldown,
        min_lr=BASE / 64,
        eps=0.0,
    )
    draw = random.Random(seed)
    progress = schedule.start(40, 5)
    for epoch in range(40):
        assert progress.factor(epoch * 5) == sgd.param_groups[0]["lr"] / BASE, epoch
        loss = draw.choice([math.nan, draw.random(), draw.random(), 1.0])
        torchs.step(loss)
        progress.end_epoch(loss)
        # As a run that was stopped goes on.
        resumed = schedule.start(40, 5)
        resumed.load_state(json.loads(json.dumps(progress.state(), allow_nan=False)))
        progress = resumed


def test_plateau_after_a_warmup() -> None:
    progress = Plateau(gamma=0.5, patience=0, warmup_epochs=2).start(10, 2)
    assert [progress.factor(step) for step in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    progress.end_epoch(1.0)
    progress.end_epoch(1.0)
    assert progress.factor(4) == 0.5


def test_an_infinite_loss_is_never_the_best() -> None:
    progress = Plateau().start(10, 2)
    progress.end_epoch(math.inf)
    assert progress.state()["best"] is None
    progress.end_epoch(-2.0)
    progress.end_epoch(-1.9999)
    assert progress.state() == {"level": 1.0, "best": -2.0, "num_bad": 1, "cooldown_left": 0}


# -- what a plot shows, and bounds -------------------------------------------------------------


def test_plotted_factors_hold_the_first_and_the_last_step() -> None:
    points = plotted_factors(Cosine(), 10, 999, max_points=100)
    assert len(points) <= 101
    assert points[0] == (0.0, 1.0)
    assert points[-1][0] == pytest.approx(10 - 1 / 999)
    every = plotted_factors(Step(step_epochs=1), 2, 3)
    assert every == [(step / 3, 1.0 if step < 3 else 0.1) for step in range(6)]


def test_every_schedule_has_a_name_of_its_own() -> None:
    kinds = get_args(get_args(Schedule)[0])
    assert [kind.model_fields["name"].default for kind in kinds] == [
        *("constant", "fixed-decay", "step", "multi-step", "exponential", "cosine"),
        *("warm-restarts", "plateau"),
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"name": "multi-step"},
        {"name": "multi-step", "milestones": [5, 5]},
        {"name": "multi-step", "milestones": []},
        {"name": "step", "step_epochs": 0},
        {"name": "exponential", "gamma": 1.1},
        {"name": "warm-restarts", "period_factor": 0.5},
        {"name": "cosine", "warmup_start": 1.5},
        {"name": "cosine", "warmup_epochs": -1},
        {"name": "plateau", "gamma": 1},
    ],
    ids=str,
)
def test_numbers_out_of_bounds_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[Schedule](Schedule).validate_python(values)

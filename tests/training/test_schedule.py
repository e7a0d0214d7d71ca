"""Learning rates by hand, and beside Paddle's schedulers where these mean the same."""

from __future__ import annotations

import math
from typing import Any

import paddle
import pytest

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.training.schedule import POLICIES, Schedule

STEPS = 60

# The options of a policy, and Paddle's scheduler of the same definition over one period.
TWINS: dict[str, tuple[dict[str, Any], Any]] = {
    "poly": (
        {"power": 1.0},
        lambda: paddle.optimizer.lr.PolynomialDecay(0.04, STEPS, end_lr=0.0, power=1.0),
    ),
    "poly of power 2": (
        {"policy": "poly", "power": 2.0},
        lambda: paddle.optimizer.lr.PolynomialDecay(0.04, STEPS, end_lr=0.0, power=2.0),
    ),
    "cosine": (
        {"policy": "cosine", "eta_min": 0.001},
        lambda: paddle.optimizer.lr.CosineAnnealingDecay(0.04, STEPS, eta_min=0.001),
    ),
    "step": (
        {"policy": "step", "step_size": 7, "gamma": 0.3},
        lambda: paddle.optimizer.lr.StepDecay(0.04, 7, gamma=0.3),
    ),
    "multistep": (
        {"policy": "multistep", "milestones": [5, 6, 31], "gamma": 0.3},
        lambda: paddle.optimizer.lr.MultiStepDecay(0.04, [5, 6, 31], gamma=0.3),
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_as_paddles_scheduler(name: str) -> None:
    options, make = TWINS[name]
    ours, theirs = Schedule(STEPS, **options), make()
    for step in range(STEPS):
        assert ours.lr(step) == pytest.approx(theirs(), rel=1e-9)
        theirs.step()


def test_the_defaults_are_the_authors() -> None:
    """solver.prototxt: base_lr 0.04, lr_policy poly, power 1, max_iter 170000."""
    schedule = Schedule(170_000)
    assert schedule.lr(0) == 0.04
    assert schedule.lr(85_000) == pytest.approx(0.02)
    assert schedule.lr(169_999) == pytest.approx(0.04 / 170_000)


def test_cosine_restarts() -> None:
    schedule = Schedule(10, base_lr=1.0, policy="cosine", cosine_t_max=4, eta_min=0.2)
    half = math.sqrt(0.5)
    period = [1.0, 0.6 + 0.4 * half, 0.6, 0.6 - 0.4 * half]
    expected = [*period, *period, *period[:2]]
    assert [schedule.lr(step) for step in range(10)] == pytest.approx(expected)


def test_drops_are_at_the_update_that_is_named() -> None:
    step = Schedule(8, base_lr=1.0, policy="step", step_size=3, gamma=0.5)
    assert [step.lr(i) for i in range(8)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    multistep = Schedule(8, base_lr=1.0, policy="multistep", milestones=(2, 5), gamma=0.5)
    assert [multistep.lr(i) for i in range(8)] == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_warm_up_is_a_factor_on_the_policy() -> None:
    constant = Schedule(6, base_lr=1.0, policy="constant", warmup_steps=4)
    assert [constant.lr(i) for i in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    poly = Schedule(8, base_lr=1.0, warmup_steps=4)
    assert [poly.lr(i) for i in range(8)] == [
        0.25 * 8 / 8,
        0.5 * 7 / 8,
        0.75 * 6 / 8,
        *(x / 8 for x in (5, 4, 3, 2, 1)),
    ]


NAN = math.nan


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "`max_steps` must be at least 1, found 0"),
        *(
            ({"base_lr": value}, f"`lr` must be a number above 0, found {value}")
            for value in (0, -0.1, math.inf, NAN)
        ),
        ({"policy": "exp"}, "`lr_policy` must be one of poly, cosine, .*, found exp"),
        *(({"power": value}, "`power` must be a number above 0") for value in (0, NAN, math.inf)),
        ({"policy": "cosine", "cosine_t_max": 0}, "`cosine_t_max` must be at least 1, found 0"),
        *(
            ({"policy": "cosine", "eta_min": value}, "`eta_min` must be a number from 0 to")
            for value in (-0.1, 0.05, NAN)
        ),
        *(
            ({"policy": "step", "step_size": 5, "gamma": value}, "`gamma` must be .* at most 1")
            for value in (0, 1.1, NAN)
        ),
        ({"policy": "step"}, "`lr_policy` step needs `step_size`"),
        ({"policy": "step", "step_size": 0}, "`step_size` must be at least 1, found 0"),
        ({"policy": "multistep"}, "`lr_policy` multistep needs `milestones`"),
        *(
            (
                {"policy": "multistep", "milestones": value},
                "`milestones` must be rising numbers of at least 1",
            )
            for value in ([5, 3], [3, 3], [0, 3])
        ),
        *(
            ({"warmup_steps": value}, "`warmup_steps` must be from 0 to the 60 updates of the run")
            for value in (-1, 61)
        ),
        ({"policy": "step", "step_size": 5, "power": 2.0}, "`power` is for `lr_policy` poly"),
        ({"cosine_t_max": 5}, "`cosine_t_max` is for `lr_policy` cosine, found with poly"),
        ({"eta_min": 0.01}, "`eta_min` is for `lr_policy` cosine, found with poly"),
        ({"gamma": 0.5}, "`gamma` is for `lr_policy` step or multistep, found with poly"),
        ({"policy": "constant", "step_size": 5}, "`step_size` is for `lr_policy` step, found with"),
        ({"milestones": [5]}, "`milestones` is for `lr_policy` multistep, found with poly"),
    ],
)
def test_a_wrong_value_is_named_by_its_setting(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schedule(**{"max_steps": STEPS, **options})


def test_every_policy_gives_rates_up_to_the_end() -> None:
    needs: dict[str, dict[str, Any]] = {
        "step": {"step_size": 20},
        "multistep": {"milestones": [20, 70]},  # one of them beyond the end
    }
    for policy in POLICIES:
        schedule = Schedule(STEPS, policy=policy, warmup_steps=STEPS, **needs.get(policy, {}))
        assert all(0 < schedule.lr(step) <= 0.04 for step in range(STEPS))

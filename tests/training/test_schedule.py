"""Learning rates by hand, and beside Paddle's schedulers where these mean the same."""

from __future__ import annotations

import math
from typing import Any

import paddle
import pytest

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.training.schedule import POLICIES, Schedule

STEPS = 60


def rates(steps: int, **settings: Any) -> list[float]:
    """The learning rate of each update of a run."""
    schedule = Schedule(**settings)
    return [schedule.rate(step, steps) for step in range(steps)]


# The options of a policy, and Paddle's scheduler of the same definition over one period.
TWINS: dict[str, tuple[dict[str, Any], Any]] = {
    "poly": (
        {"power": 1.0},
        lambda: paddle.optimizer.lr.PolynomialDecay(0.04, STEPS, end_lr=0.0, power=1.0),
    ),
    "poly of power 2": (
        {"lr_policy": "poly", "power": 2.0},
        lambda: paddle.optimizer.lr.PolynomialDecay(0.04, STEPS, end_lr=0.0, power=2.0),
    ),
    "cosine": (
        {"lr_policy": "cosine", "eta_min": 0.001},
        lambda: paddle.optimizer.lr.CosineAnnealingDecay(0.04, STEPS, eta_min=0.001),
    ),
    "step": (
        {"lr_policy": "step", "step_size": 7, "gamma": 0.3},
        lambda: paddle.optimizer.lr.StepDecay(0.04, 7, gamma=0.3),
    ),
    "multistep": (
        {"lr_policy": "multistep", "milestones": [5, 6, 31], "gamma": 0.3},
        lambda: paddle.optimizer.lr.MultiStepDecay(0.04, [5, 6, 31], gamma=0.3),
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_as_paddles_scheduler(name: str) -> None:
    options, make = TWINS[name]
    theirs = make()
    for rate in rates(STEPS, **options):
        assert rate == pytest.approx(theirs(), rel=1e-9)
        theirs.step()


def test_the_defaults_are_the_authors() -> None:
    """solver.prototxt: base_lr 0.04, lr_policy poly, power 1, max_iter 170000."""
    ours = rates(170_000)
    assert ours[0] == 0.04
    assert ours[85_000] == pytest.approx(0.02)
    assert ours[169_999] == pytest.approx(0.04 / 170_000)


def test_cosine_restarts() -> None:
    half = math.sqrt(0.5)
    period = [1.0, 0.6 + 0.4 * half, 0.6, 0.6 - 0.4 * half]
    expected = [*period, *period, *period[:2]]
    ours = rates(10, lr=1.0, lr_policy="cosine", cosine_t_max=4, eta_min=0.2)
    assert ours == pytest.approx(expected)


def test_drops_are_at_the_update_that_is_named() -> None:
    step = rates(8, lr=1.0, lr_policy="step", step_size=3, gamma=0.5)
    assert step == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    multistep = rates(8, lr=1.0, lr_policy="multistep", milestones=(2, 5), gamma=0.5)
    assert multistep == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_warm_up_is_a_factor_on_the_policy() -> None:
    constant = rates(6, lr=1.0, lr_policy="constant", warmup_steps=4)
    assert constant == [0.25, 0.5, 0.75, 1, 1, 1]
    poly = rates(8, lr=1.0, warmup_steps=4)
    assert poly == [
        0.25 * 8 / 8,
        0.5 * 7 / 8,
        0.75 * 6 / 8,
        *(x / 8 for x in (5, 4, 3, 2, 1)),
    ]


NAN = math.nan


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"lr": value}, f"`lr`: above 0 .* found {value}") for value in (0, -0.1, math.inf, NAN)),
        ({"lr_policy": "exp"}, "`lr_policy`: one of poly, cosine, .*, found 'exp'"),
        *(({"power": value}, "`power`: above 0 was expected") for value in (0, NAN, math.inf)),
        ({"lr_policy": "cosine", "cosine_t_max": 0}, "`cosine_t_max`: .* at least 1 .* found 0"),
        *(
            (
                {"lr_policy": "cosine", "eta_min": value},
                "`eta_min`: at (least 0|most `lr` 0.04) was",
            )
            for value in (-0.1, 0.05, NAN)
        ),
        *(
            ({"lr_policy": "step", "step_size": 5, "gamma": value}, "`gamma`: above 0 .* at most 1")
            for value in (0, 1.1, NAN)
        ),
        ({"lr_policy": "step"}, "`lr_policy` step needs `step_size`"),
        ({"lr_policy": "step", "step_size": 0}, "`step_size`: .* at least 1 .* found 0"),
        ({"lr_policy": "multistep"}, "`lr_policy` multistep needs `milestones`"),
        *(
            ({"lr_policy": "multistep", "milestones": value}, "`milestones`: rising numbers were")
            for value in ([5, 3], [3, 3])
        ),
        (
            {"lr_policy": "multistep", "milestones": [0, 3]},
            "`milestones`: .* at least 1 .* found 0",
        ),
        ({"warmup_steps": -1}, "`warmup_steps`: .* at least 0"),
        ({"lr_policy": "step", "step_size": 5, "power": 2.0}, "`power` is for `lr_policy` poly"),
        ({"cosine_t_max": 5}, "`cosine_t_max` is for `lr_policy` cosine, found with poly"),
        ({"eta_min": 0.01}, "`eta_min` is for `lr_policy` cosine, found with poly"),
        ({"gamma": 0.5}, "`gamma` is for `lr_policy` step or multistep, found with poly"),
        ({"lr_policy": "constant", "step_size": 5}, "`step_size` is for `lr_policy` step, found"),
        ({"milestones": [5]}, "`milestones` is for `lr_policy` multistep, found with poly"),
    ],
)
def test_a_wrong_value_is_named_by_its_setting(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schedule(**options)


def test_every_policy_gives_rates_up_to_the_end() -> None:
    needs: dict[str, dict[str, Any]] = {
        "step": {"step_size": 20},
        "multistep": {"milestones": [20, 70]},  # one of them beyond the end
    }
    for policy in POLICIES:
        ours = rates(STEPS, lr_policy=policy, warmup_steps=STEPS, **needs.get(policy, {}))
        assert all(0 < rate <= 0.04 for rate in ours)

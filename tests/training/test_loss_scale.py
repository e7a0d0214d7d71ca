"""The loss scale of float16."""

from __future__ import annotations

from squeezenet_paddle.training.optim import GROWTH_INTERVAL, LARGEST, SMALLEST, LossScale


def test_it_halves_on_an_overflow_and_doubles_after_a_long_good_time() -> None:
    scale = LossScale(1024.0)
    scale.update(finite=False)
    assert scale.value == 512.0
    for _ in range(GROWTH_INTERVAL - 1):
        scale.update(finite=True)
    assert scale.value == 512.0
    scale.update(finite=True)
    assert scale.value == 1024.0
    scale.update(finite=False)
    assert scale.value == 512.0


def test_it_stays_within_bounds() -> None:
    low, high = LossScale(SMALLEST), LossScale(LARGEST)
    low.update(finite=False)
    for _ in range(GROWTH_INTERVAL):
        high.update(finite=True)
    assert (low.value, high.value) == (SMALLEST, LARGEST)


def test_a_resumed_one_goes_on() -> None:
    first, second = LossScale(), LossScale()
    for _ in range(GROWTH_INTERVAL - 1):
        first.update(finite=True)
    second.set_state_dict(first.state_dict())
    second.update(finite=True)
    assert second.value == 2 * first.value

"""Which image is in which batch: every one exactly once, whatever the number of processes."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezenet_paddle.data.sampler import Sampler
from squeezenet_paddle.errors import InputError

SIZES = {
    "num_samples": st.integers(1, 70),
    "batch_size": st.integers(1, 33),
    "world_size": st.integers(1, 5),
    "shuffle": st.booleans(),
    "epoch": st.integers(0, 3),
}


def shares(world_size: int, epoch: int = 0, start: int = 0, **options: object) -> list:
    """[rank][batch] -> indices."""
    return [
        [list(b) for b in Sampler(rank=r, world_size=world_size, **options).batches(epoch, start)]
        for r in range(world_size)
    ]


@given(**SIZES)
def test_every_sample_exactly_once(num_samples, batch_size, world_size, shuffle, epoch) -> None:
    options = {"num_samples": num_samples, "batch_size": batch_size, "shuffle": shuffle}
    ranks = shares(world_size, epoch, **options)
    seen = [index for batches in ranks for share in batches for index in share]
    assert sorted(seen) == list(range(num_samples))
    assert len({len(batches) for batches in ranks}) == 1  # the same number of steps everywhere
    for batch in zip(*ranks):
        sizes = [len(share) for share in batch]
        assert max(sizes) - min(sizes) <= 1
    sampler = Sampler(world_size=world_size, **options)
    assert max(len(share) for batches in ranks for share in batches) <= sampler.largest_share


@given(**SIZES)
def test_processes_together_see_what_one_sees(
    num_samples, batch_size, world_size, shuffle, epoch
) -> None:
    options = {"num_samples": num_samples, "batch_size": batch_size, "shuffle": shuffle}
    (alone,) = shares(1, epoch, **options)
    ranks = shares(world_size, epoch, **options)
    together = [list(chain.from_iterable(batch)) for batch in zip(*ranks)]
    assert together == alone


@given(num_samples=st.integers(1, 70), batch_size=st.integers(1, 33), start=st.integers(0, 80))
def test_a_resume_starts_in_the_middle(num_samples: int, batch_size: int, start: int) -> None:
    options = {"num_samples": num_samples, "batch_size": batch_size, "shuffle": True}
    (whole,) = shares(1, 2, **options)
    assert shares(1, 2, start, **options) == [whole[start:]]


def test_the_last_batch_can_be_dropped() -> None:
    sizes = [len(b) for b in Sampler(10, 4, shuffle=True, drop_last=True).batches()]
    assert sizes == [4, 4]
    assert [len(b) for b in Sampler(10, 4).batches()] == [4, 4, 2]


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return list(Sampler(100, 10, shuffle=True, seed=seed).order(epoch))

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert list(Sampler(5, 2).order(7)) == [0, 1, 2, 3, 4]


def test_a_shuffled_position_is_as_likely_as_any_other() -> None:
    where = np.mean([Sampler(20, 5, shuffle=True, seed=s).order(0) for s in range(400)], axis=0)
    assert np.abs(where - 9.5).max() < 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 3, "batch_size": 4, "drop_last": True}, "3 images make no batch of 4"),
        ({"num_samples": 3, "batch_size": 1, "rank": 2, "world_size": 2}, "rank must lie in 0..1"),
    ],
)
def test_what_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampler(**options)

"""The split: a function of contents that other images, names and folders do not change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from squeezenet_paddle.datasets.split import split
from squeezenet_paddle.errors import InputError


def made(counts: list[int], start: int = 0) -> tuple[np.ndarray, list[str]]:
    """Labels, and contents of which no two are the same."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return labels, [f"{c} {start + i}" for c, count in enumerate(counts) for i in range(count)]


def parts_of(keys: list[str], parts: dict[str, np.ndarray]) -> dict[str, str]:
    """The part of each content."""
    return {keys[i]: part for part, indices in parts.items() for i in indices}


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=12),
    val=st.integers(0, 19),
    test=st.integers(0, 19),
    seed=st.integers(0, 2**32 - 1),
)
def test_each_image_once_and_each_class_everywhere(
    counts: list[int], val: int, test: int, seed: int
) -> None:
    assume(val + test < 20)
    labels, keys = made(counts)
    wanted = ["train", *(["val"] if val else []), *(["test"] if test else [])]
    if min(counts) < len(wanted):
        with pytest.raises(InputError, match=f"so at least {len(wanted)} different"):
            split(labels, val / 20, test / 20, keys=keys, seed=seed)
        return
    parts = split(labels, val / 20, test / 20, keys=keys, seed=seed)
    assert list(parts) == wanted
    assert sorted(np.concatenate(list(parts.values()))) == list(range(sum(counts)))
    for indices in parts.values():
        assert (np.diff(indices) > 0).all()
        assert np.bincount(labels[indices], minlength=len(counts)).min() >= 1


def test_the_shares_are_reached_about() -> None:
    labels, keys = made([20_000, 20_000])
    parts = split(labels, 0.2, 0.1, keys=keys)
    for part, share in (("val", 0.2), ("test", 0.1)):
        found = np.bincount(labels[parts[part]]) / 20_000
        np.testing.assert_allclose(found, share, atol=5 * math.sqrt(share * (1 - share) / 20_000))


def test_neither_order_nor_class_nor_other_images_move_one() -> None:
    labels, keys = made([200, 300])
    before = parts_of(keys, split(labels, 0.2, 0.1, keys=keys))
    order = np.random.default_rng(0).permutation(500)
    more_labels, more_keys = made([0, 400, 0, 70], 1000)
    labels = np.concatenate([1 - labels[order], more_labels])
    keys = [*(keys[i] for i in order), *more_keys]
    after = parts_of(keys, split(labels, 0.2, 0.1, keys=keys))
    assert all(after[key] == part for key, part in before.items())


def test_the_seed_draws_other_images() -> None:
    labels, keys = made([5, 5])
    drawn = {i for s in range(60) for i in split(labels, 0.2, 0, keys=keys, seed=s)["val"].tolist()}
    assert drawn == set(range(10))


def test_images_of_one_content_or_group_stay_together() -> None:
    labels, keys = made([60, 60])
    keys[60:80] = keys[:20]  # the same images under another class
    groups = np.arange(120)
    groups[20:40] = groups[40:60]  # pairs
    groups[100:] = 7777
    parts = split(labels, 0.3, 0.2, keys=keys, groups=groups)
    part = np.empty(120, "U5")
    for name, indices in parts.items():
        part[indices] = name
    assert (part[:20] == part[60:80]).all()
    assert (part[20:40] == part[40:60]).all()
    assert len(set(part[100:])) == 1


def test_chains_of_contents_and_groups_are_one() -> None:
    """a and b are of one group, b and c of one content, c and d of one group, ..."""
    count = 50
    keys = [f"content {i // 2}" for i in range(count)] + [f"other {i}" for i in range(count)]
    groups = np.concatenate([(np.arange(count) + 1) // 2, 1000 + np.arange(count)])
    labels = np.zeros(2 * count, int)
    for seed in range(5):
        parts = split(labels, 0.5, 0, keys=keys, groups=groups, seed=seed)
        assert np.sum(parts["val"] < count) in (0, count)


def test_a_new_image_goes_to_its_group_and_the_old_ones_stay() -> None:
    for seed in range(20):
        labels, keys = made([3, 3])
        before = parts_of(keys, split(labels, 0.1, 0, keys=keys, seed=seed))
        labels, more = made([40, 40], 100)
        keys, labels = [*keys, *more], np.concatenate([[0, 0, 0, 1, 1, 1], labels])
        groups = np.arange(86)
        groups[6:46] = np.arange(40) % 3  # near-duplicates of the old images of class 0
        given: dict[str, Any] = {"keys": keys, "groups": groups, "seed": seed}
        parts = parts_of(keys, split(labels, 0.1, 0, earlier=before, **given))
        assert {key: parts[key] for key in before} == before
        assert all(parts[more[i]] == before[f"0 {i % 3}"] for i in range(40))


def test_an_old_image_moves_where_its_class_would_else_have_none() -> None:
    labels, keys = made([5, 5])
    earlier = dict.fromkeys(keys, "train") | {"1 0": "val"}
    parts = split(labels, 0.2, 0, keys=keys, earlier=earlier)
    assert np.bincount(labels[parts["val"]]).tolist() == [1, 1]
    assert 5 in parts["val"]


def test_small_classes_in_great_number() -> None:
    labels, keys = made([3] * 20_000)
    parts = split(labels, 0.1, 0.1, keys=keys)
    assert {part: len(indices) for part, indices in parts.items()} == {
        "train": 20_000,
        "val": 20_000,
        "test": 20_000,
    }


@pytest.mark.parametrize(
    ("val", "test", "message"),
    [
        (-0.1, 0, r"`val_share` must lie in 0..1, 1 excluded; found -0.1\."),
        (1, 0, "`val_share` must lie in"),
        (0, 20, r"`test_share` must lie in 0..1, 1 excluded; found 20\."),
        (math.nan, 0, "`val_share` must lie in .* found nan"),
        (0.5, 0.5, r"must add up to less than 1, .* found 0.5 and 0.5\."),
    ],
)
def test_shares_that_are_refused(val: float, test: float, message: str) -> None:
    labels, keys = made([5, 5])
    with pytest.raises(InputError, match=message):
        split(labels, val, test, keys=keys)


def test_seeds_that_are_refused() -> None:
    labels, keys = made([5, 5])
    with pytest.raises(InputError, match="`seed` must lie in 0..4294967295"):
        split(labels, 0.2, 0, keys=keys, seed=2**32)


def test_classes_that_are_too_small_are_named() -> None:
    labels, keys = made([3, 2, 9, 1, 4])
    keys[-3:] = ["the same"] * 3
    message = (
        "an image for each of train, val, test, so at least 3 different ones; "
        "found 'b' with 2; 'd' with 1; 'e' with 2."
    )
    with pytest.raises(InputError, match=message):
        split(labels, 0.1, 0.1, keys=keys, classes="abcde")

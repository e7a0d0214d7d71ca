"""Which images train, validate and test: a function of their contents.

Each image has a place in 0..1, a hash of the seed and of its content. Places below `val_share`
validate, those from 1 - `test_share` on test, the rest trains. So neither a new name, nor another
folder or class, nor images that come or go move an image to another part. The price is that the
parts have their shares only about: of 100 images and a share of 0.2, 20 +- 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import InputError, describe_problems
from ..files import sha256

PARTS = ("train", "val", "test")


def split(
    labels: np.ndarray,
    val_share: float,
    test_share: float,
    *,
    keys: Sequence[str],
    groups: np.ndarray | None = None,
    seed: int = 0,
    earlier: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Splits images into a training, a validation and a test part.

    Images of one content, and those of one group, are in one part: all of them have the place of
    the one whose key is the smallest. A class that has no image in a part gets the one there, with
    its group, whose place is the nearest.

    Args:
        labels: int64 [N], class ids from 0 on.
        val_share, test_share: of these parts; 0 for none.
        keys: the SHA-256 of each image's file.
        groups: int64 [N], images with the same number belong together; None: none do.
        seed: another seed draws other images.
        earlier: the part of each content in an earlier split, by key; it stays there, and a new
            image joins its group. None: there was no split.
        classes: the classes' names, for errors; None: their ids.

    Returns:
        Indices, ascending, for "train" and each other part that has a share.

    Raises:
        InputError: a share or the seed is out of range, or a class has fewer images, or groups of
            images that belong together, than there are parts.
    """
    check_shares(val_share, test_share, seed)
    parts = [0, *([1] if val_share else []), *([2] if test_share else [])]
    limits = np.array([[val_share, 1 - test_share], [0, val_share], [1 - test_share, 1]])
    places, group = np.unique(_places(keys, groups, seed), return_inverse=True)
    part = np.where(places < val_share, 1, np.where(places >= 1 - test_share, 2, 0))
    numbers = {key: PARTS.index(name) for key, name in (earlier or {}).items()}
    known = np.array([numbers.get(key, -1) for key in keys], "int64")
    stays = np.isin(known, parts)
    part[group[stays]] = known[stays]
    is_old = np.bincount(group[stays], minlength=len(places)) > 0

    pairs = np.unique(np.stack([labels, group], axis=1), axis=0)  # which class has which group
    check_class_sizes(np.bincount(pairs[:, 0]), parts, classes)
    shared = np.bincount(pairs[:, 1], minlength=len(places)) > 1
    starts = np.searchsorted(pairs[:, 0], np.arange(pairs[-1, 0] + 2))
    counts = np.zeros((len(starts) - 1, len(PARTS)), "int64")
    np.add.at(counts, (pairs[:, 0], part[pairs[:, 1]]), 1)
    for label in np.flatnonzero((counts[:, parts] == 0).any(axis=1) & counts.any(axis=1)):
        own = pairs[starts[label] : starts[label + 1], 1]
        for lacking in (each for each in parts if each not in part[own]):
            spare = own[np.bincount(part[own])[part[own]] > 1]  # no part loses its last one
            low, high = limits[lacking]
            distance = np.maximum(low - places[spare], places[spare] - high)
            order = np.lexsort((distance, is_old[spare], shared[spare]))
            part[spare[order[0]]], is_old[spare[order[0]]] = lacking, False
    part_of = np.where(stays & is_old[group], known, part[group])
    return {PARTS[each]: np.flatnonzero(part_of == each) for each in parts}


def check_shares(val_share: float, test_share: float, seed: int) -> None:
    """Raises the errors of `split` that need no images."""
    for name, share in (("val_share", val_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise InputError(f"`{name}` must lie in 0..1, 1 excluded; found {share}.")
    if val_share + test_share >= 1:
        raise InputError(
            f"`val_share` and `test_share` must add up to less than 1, so that images are left for "
            f"training; found {val_share} and {test_share}."
        )
    if not 0 <= seed < 2**32:
        raise InputError(f"`seed` must lie in 0..{2**32 - 1}, as numpy's; found {seed}.")


def check_class_sizes(
    sizes: np.ndarray, parts: Sequence[int], classes: Sequence[str] | None
) -> None:
    """Raises the error of `split` for classes with too few images, whose numbers are `sizes`."""
    few = np.flatnonzero((sizes < len(parts)) & (sizes > 0)).tolist()
    if few:
        shown = [f"{c if classes is None else repr(classes[c])} with {sizes[c]}" for c in few]
        raise InputError(
            f"every class needs an image for each of {', '.join(PARTS[each] for each in parts)}, "
            f"so at least {len(parts)} different ones; found {describe_problems(shown)}."
        )


def _places(keys: Sequence[str], groups: np.ndarray | None, seed: int) -> np.ndarray:
    """float64 [N] in 0..1, the same for images that belong together, whatever links them."""
    distinct, ranks = np.unique(np.array(keys, bytes), return_inverse=True)
    hashes = [sha256(b"%d %s" % (seed, key))[:13] for key in distinct.tolist()]
    places = np.array([int(each, 16) / 16**13 for each in hashes])
    if groups is None:
        return places[ranks]
    links = [np.unique(each, return_inverse=True)[1] for each in (ranks, groups)]
    while True:
        before = ranks
        for link in links:
            smallest = np.full(link.max() + 1, len(distinct))
            np.minimum.at(smallest, link, ranks)
            ranks = smallest[link]
        if np.array_equal(ranks, before):
            return places[ranks]

"""A split of images into training, validation and test parts, each with its share of a class."""

from __future__ import annotations

import numpy as np

from ..errors import InputError, describe_problems
from .folders import ClassTree


def split(tree: ClassTree, val: float, test: float, seed: int) -> dict[str, np.ndarray]:
    """Deals every image to one part, so that each class is in each part by the parts' shares.

    scikit-learn draws the images. A class's count in a part is its exact share rounded up or
    down, but at least one.

    Args:
        tree: the images.
        val: share of the validation part, 0 for none.
        test: share of the test part, 0 for none; the rest is the training part.
        seed: another seed draws other images.

    Returns:
        Indices into `tree.names`, ascending, for "train" and each other part that is not empty.

    Raises:
        InputError: a share is out of range, or a class has fewer images than there are parts.
    """
    for flag, share in (("--val", val), ("--test", test)):
        if not 0 <= share < 1:
            raise InputError(f"{flag} must lie in 0..1, 1 excluded; found {share}.")
    if val + test >= 1:
        raise InputError(
            f"--val and --test must add to less than 1, so that images are left for training; "
            f"found {val} and {test}."
        )
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed must lie in 0..{2**32 - 1}, as numpy's; found {seed}.")
    shares = {name: share for name, share in (("test", test), ("val", val)) if share}
    counts = np.bincount(tree.labels)
    few = np.flatnonzero(counts < len(shares) + 1)
    if few.size:
        raise InputError(
            f"every class needs an image for each of train, {', '.join(reversed(shares))}, so at "
            f"least {len(shares) + 1}; found "
            + describe_problems([f"{tree.classes[c]!r} with {counts[c]}" for c in few.tolist()])
            + "."
        )
    from sklearn.model_selection import train_test_split  # takes a second

    parts = {}
    rest, left = np.arange(len(tree.names)), 1.0
    for later, (name, share) in zip(reversed(range(len(shares))), shares.items()):
        left -= share
        # What a class may give: its share rounded, what is left its share rounded too, and at
        # least one image to this part and to each part after it.
        have = np.bincount(tree.labels[rest])
        low = np.maximum(_floor(counts * share), have - _ceil(counts * left))
        high = np.minimum(_ceil(counts * share), have - _floor(counts * left))
        low, high = np.clip(low, 1, have - later - 1), np.clip(high, 1, have - later - 1)
        high = np.maximum(low, high)
        size = int(np.clip(round(len(tree.names) * share), low.sum(), high.sum()))
        rest, part = train_test_split(
            rest, test_size=size, stratify=tree.labels[rest], random_state=seed
        )
        rest, part = _fill(rest, part, tree.labels, low)
        part, rest = _fill(part, rest, tree.labels, have - high)
        parts[name] = np.sort(part)
    return {"train": np.sort(rest), **dict(reversed(parts.items()))}


def _fill(
    giver: np.ndarray, taker: np.ndarray, labels: np.ndarray, needed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Moves images until `taker` has `needed[c]` of each class c: (giver, taker)."""
    missing = needed - np.bincount(labels[taker], minlength=len(needed))
    giver = giver[np.argsort(labels[giver], kind="stable")]
    starts = np.searchsorted(labels[giver], np.arange(len(needed)))
    rank = np.arange(len(giver)) - starts[labels[giver]]  # within its class
    moved = rank < missing[labels[giver]]
    return giver[~moved], np.concatenate([taker, giver[moved]])


def _floor(values: np.ndarray) -> np.ndarray:
    return np.floor(values + 1e-6).astype("int64")  # 10 * 0.3 is three, whatever the last bit


def _ceil(values: np.ndarray) -> np.ndarray:
    return np.ceil(values - 1e-6).astype("int64")

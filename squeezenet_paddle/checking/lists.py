"""Lists of the images that are worth training on, split so that what belongs together stays so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..datasets.folders import ClassTree, write_lists
from ..datasets.split import PARTS, split
from .check import Check


def kept_images(check: Check, suspects: bool = True) -> np.ndarray:
    """The images worth training on, ascending: each set of duplicates once, no set in conflict.

    Args:
        check: what was found.
        suspects: keep images whose label looks wrong.
    """
    kept = np.ones(len(check.images), bool)
    kept[list(check.unreadable)] = False
    for each in check.conflicts:
        kept[each] = False
    for each in check.repeated:
        kept[each[1:]] = False
    if not suspects:
        kept[check.labels.suspects] = False
    return np.flatnonzero(kept)


def write_clean_lists(
    check: Check,
    hashes: Sequence[str],
    folder: Path,
    *,
    parts: Sequence[str] | None = None,
    suspects: bool = True,
    val_share: float = 0.2,
    test_share: float = 0.0,
    seed: int = 0,
) -> dict[str, int]:
    """Writes train_list.txt, val_list.txt and synset_words.txt of the images that are kept.

    Args:
        check: what was found.
        hashes: the SHA-256 of each file, on which the split depends.
        folder: where to.
        parts: the part of each image, where the folders give a split, which is kept.
        suspects: keep images whose label looks wrong.
        val_share, test_share, seed: as for `split`.

    Returns:
        How many images are in each part.

    Raises:
        InputError: as `split` and `write_lists`.
    """
    kept = kept_images(check, suspects)
    labels = check.images.labels[kept]
    if parts is None:
        keys, groups = [hashes[i] for i in kept], check.groups[kept]
        shares = val_share, test_share
        split_parts = split(
            labels, *shares, keys=keys, groups=groups, seed=seed, classes=check.classes
        )
    else:
        given = np.array(parts)[kept]
        split_parts = {part: np.flatnonzero(given == part) for part in PARTS if part in given}
    names = [check.images.name(int(i)) for i in kept]
    write_lists(ClassTree(check.classes, names, labels), split_parts, folder)
    return {part: len(indices) for part, indices in split_parts.items()}

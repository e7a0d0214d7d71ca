"""Lists of the images that are worth training on, split so that what belongs together stays so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..datasets.folders import ClassTree, split_tree, write_lists
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
    val_share: float | None = None,
    test_share: float | None = None,
    seed: int = 0,
) -> dict[str, int]:
    """Writes train_list.txt, val_list.txt and synset_words.txt of the images that are kept.

    Args:
        check: what was found.
        hashes: the SHA-256 of each file, on which the split depends.
        folder: where to.
        parts: the part of each image, where the folders give a split, which is kept; a part that
            it lacks is drawn from the training images.
        suspects: keep images whose label looks wrong.
        val_share, test_share, seed: as for `split_tree`.

    Returns:
        How many images are in each part.

    Raises:
        InputError: as `split_tree` and `write_lists`.
    """
    kept = kept_images(check, suspects)
    tree = ClassTree(
        check.classes,
        [check.images.name(int(i)) for i in kept],
        check.images.labels[kept],
        None if parts is None else [parts[i] for i in kept],
    )
    split_parts = split_tree(
        *(tree, check.images.root, val_share, test_share, seed),
        keys=[hashes[i] for i in kept],
        groups=check.groups[kept],
    )
    write_lists(tree, split_parts, folder)
    return {part: len(indices) for part, indices in split_parts.items()}

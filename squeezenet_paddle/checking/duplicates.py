"""Images that are there more than once: the same file, the same pixels, or nearly the same image.

Nearly the same is what a reader would call the same photograph: stored again with other quality,
resized, cropped by a few percent or mirrored. Candidates are near in the space of the network's
features, of which the mirrored image has nearly the same ones; then the pixels are compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..progress import track
from .pixels import SIDE, Look, Read, are_alike, can_be_aligned, kind_of, small_look

BYTES = "same file"

_DIRECTIONS = 128  # of the features, each with the same weight
_NEIGHBOURS = 10
_LEAST_COSINE = 0.4  # an image of 32 pixels and the same at half its size are as far apart
_BLOCK = 1024  # images that are compared with all others at once
_LOOKS = 1024  # images that are held for a close comparison


class Pair(NamedTuple):
    """Two images that are one: their indices, the first the smaller one, and in what way."""

    first: int
    second: int
    kind: str


@dataclass(frozen=True)
class Duplicates:
    """What is there more than once.

    Attributes:
        pairs: the pairs that were found, by index.
        groups: int64 [N], the number of each image's group: that of its first image.
    """

    pairs: Sequence[Pair]
    groups: np.ndarray

    def renumbered(self, indices: np.ndarray, count: int) -> Duplicates:
        """The same with image i as `indices[i]` of `count`; the others are there once."""
        groups = np.arange(count)
        groups[indices] = indices[self.groups]
        return Duplicates(
            [Pair(int(indices[p.first]), int(indices[p.second]), p.kind) for p in self.pairs],
            groups,
        )

    def sets(self) -> list[np.ndarray]:
        """The groups of more than one image, as ascending indices."""
        order = np.argsort(self.groups, kind="stable")
        starts = np.flatnonzero(np.diff(self.groups[order], prepend=-1))
        return [part for part in np.split(order, starts[1:]) if len(part) > 1]


def find_duplicates(
    components: np.ndarray, hashes: Sequence[str], read: Read, read_small: Read | None = None
) -> Duplicates:
    """Finds the images that are there more than once.

    Args:
        components: float32 [N, K], of `project`.
        hashes: the SHA-256 of each file; "" where it is not known.
        read: decodes an image.
        read_small: the same with fewer pixels, where that is faster.
    """
    first = first_of(hashes)
    pairs = [Pair(int(i), n, BYTES) for n, i in enumerate(first) if i != n]
    unique = np.flatnonzero(first == np.arange(len(first)))
    near, cosines = near_pairs(components[unique])
    pairs += confirm(unique[near], cosines, read, read_small or read)
    return Duplicates(sorted(pairs), joined(len(first), [(p.first, p.second) for p in pairs]))


def first_of(values: Sequence[str]) -> np.ndarray:
    """The index of the first of the equal values, for each; "" is equal to nothing."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(v, n) if v else n for n, v in enumerate(values)], "int64")


def joined(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Groups of what pairs connect: the smallest index of the group, for each of `count`."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    i, j = np.array(pairs, "int64").reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(i), bool), (i, j)), shape=(count, count))
    _, groups = connected_components(graph, directed=False)
    _, first = np.unique(groups, return_index=True)
    return first[groups].astype("int64")


def near_pairs(components: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of each image and the nearest of those after it, where they are near at all.

    Args:
        components: float32 [N, K].

    Returns:
        int64 [P, 2], each pair once, the smaller index first; and their cosines, float32 [P].
    """
    count = len(components)
    if count < 2:
        return np.empty((0, 2), "int64"), np.empty(0, "float32")
    # Of few images, the last directions are what duplicates differ in, and noise.
    directions = components[:, : min(_DIRECTIONS, max(count // 4, 8))]
    directions = directions / np.maximum(directions.std(axis=0), 1e-6)
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-6)
    found, cosines = [], []
    for start in range(0, count, _BLOCK):
        cosine = directions[start : start + _BLOCK] @ directions[start:].T
        row, column = np.nonzero(np.triu(cosine, 1) >= _LEAST_COSINE)
        order = np.lexsort((-cosine[row, column], row))
        row, column = row[order], column[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        nearest = rank < _NEIGHBOURS
        found.append(start + np.stack([row[nearest], column[nearest]], axis=1))
        cosines.append(cosine[row[nearest], column[nearest]])
    return np.concatenate(found), np.concatenate(cosines)


def confirm(
    candidates: np.ndarray, cosines: np.ndarray, read: Read, read_small: Read
) -> Iterator[Pair]:
    """Those of the candidates whose pixels are the same, or nearly; the others are dropped.

    Args:
        candidates: int64 [P, 2].
        cosines: float32 [P], of their features.
        read: decodes an image.
        read_small: the same, or the image with fewer pixels, for a first look.
    """
    images = np.unique(candidates)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        small = np.zeros((len(images), SIDE, SIDE), "uint8")
        looks = pool.map(lambda i: small_look(read_small(i)), images.tolist())
        for k, look in enumerate(track(looks, "checking", total=len(images))):
            small[k] = look
        rows = np.searchsorted(images, candidates)
        likely = np.flatnonzero(are_alike(small, rows))
        aligned = pool.map(lambda k: can_be_aligned(*small[rows[k]]), likely.tolist())
        aligned = track(aligned, "comparing", "pairs", len(likely))
        likely = likely[np.fromiter(aligned, bool, len(likely))]
        pairs = candidates[likely].tolist()
        look_at = lru_cache(_LOOKS)(lambda i: Look.of(read(i)))
        kinds = pool.map(
            lambda pair, cosine: kind_of(look_at(pair[0]), look_at(pair[1]), cosine),
            *(pairs, cosines[likely].tolist()),
        )
        for (i, j), kind in zip(pairs, kinds):
            if kind is not None:
                yield Pair(i, j, kind)

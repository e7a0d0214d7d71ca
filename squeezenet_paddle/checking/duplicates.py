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

from .pixels import COARSE, Look, Read, are_alike, coarse_look, kind_of

BYTES = "same file"

_DIRECTIONS = 128  # of the features, each with the same weight
_NEIGHBOURS = 10
_LEAST_COSINE = 0.45
_BLOCK = 1024  # images that are compared with all others at once
_NOTHING = np.zeros(COARSE * COARSE, "float32")
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


def find_duplicates(components: np.ndarray, hashes: Sequence[str], read: Read) -> Duplicates:
    """Finds the images that are there more than once.

    Args:
        components: float32 [N, K], of `project`.
        hashes: the SHA-256 of each file; "" where it is not known.
        read: decodes an image.
    """
    first = first_of(hashes)
    pairs = [Pair(int(i), n, BYTES) for n, i in enumerate(first) if i != n]
    unique = np.flatnonzero(first == np.arange(len(first)))
    candidates = unique[near_pairs(components[unique])]
    pairs += confirm(candidates, read)
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


def near_pairs(components: np.ndarray) -> np.ndarray:
    """Pairs of each image and its nearest ones, where they are near at all.

    Args:
        components: float32 [N, K].

    Returns:
        int64 [P, 2], each pair once, the smaller index first.
    """
    count = len(components)
    if count < 2:
        return np.empty((0, 2), "int64")
    # Of few images, the last directions are what duplicates differ in, and noise.
    directions = components[:, : min(_DIRECTIONS, max(count // 4, 8))]
    directions = directions / np.maximum(directions.std(axis=0), 1e-6)
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-6)
    found = []
    for start in range(0, count, _BLOCK):
        cosine = directions[start : start + _BLOCK] @ directions.T
        rows = np.arange(len(cosine))
        cosine[rows, start + rows] = -1
        near = np.argpartition(-cosine, min(_NEIGHBOURS, count - 1) - 1, axis=1)[:, :_NEIGHBOURS]
        row, column = np.nonzero(np.take_along_axis(cosine, near, axis=1) >= _LEAST_COSINE)
        found.append(np.stack([start + row, near[row, column]], axis=1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def confirm(candidates: np.ndarray, read: Read) -> Iterator[Pair]:
    """Those of the candidates whose pixels are the same, or nearly; the others are dropped."""
    images = np.unique(candidates)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        coarse = np.stack([_NOTHING, *pool.map(lambda i: coarse_look(read(i)), images.tolist())])
        rows = np.searchsorted(images, candidates) + 1
        pairs = candidates[are_alike(coarse[rows[:, 0]], coarse[rows[:, 1]])].tolist()
        look = lru_cache(_LOOKS)(lambda i: Look.of(read(i)))
        kinds = pool.map(lambda pair: kind_of(look(pair[0]), look(pair[1])), pairs)
        for (i, j), kind in zip(pairs, kinds):
            if kind is not None:
                yield Pair(i, j, kind)

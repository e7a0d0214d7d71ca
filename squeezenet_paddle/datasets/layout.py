"""Which folders of a tree are the classes, and which a split into train, val and test.

The classes are the topmost folders, where there is no reason to see it otherwise:

    images/cat/1.jpg                 also images/cat/any/thing/1.jpg: images may lie deeper
    images/download/cat/1.jpg        a folder that alone holds all the others is entered
    images/train/cat/1.jpg           train and val (or test) are the split
    images/cat/train/1.jpg           the split may lie in each class, too
    images/2024/cat/1.jpg            `cat` in each of several folders: `class_level` has to say
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

_PART_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

Folder = tuple[str, ...]  # a path, here and below from the root of the tree


@dataclass(frozen=True)
class Place:
    """Where the images of a folder belong.

    Attributes:
        class_folder: name of the folder of their class; None if they are in none.
        part: "train", "val" or "test"; None without a split.
    """

    class_folder: str | None
    part: str | None = None


@dataclass(frozen=True)
class Layout:
    """How a tree of folders is to be read.

    Attributes:
        places: of each folder that holds images itself.
        note: what is not plain about it, for the user; "" if the topmost folders are the classes.
    """

    places: Mapping[Folder, Place]
    note: str = ""


def find_layout(root: Path, folders: Collection[Folder], class_level: int | None = None) -> Layout:
    """Finds the classes and the split of a tree.

    Args:
        root: the tree, for messages.
        folders: those that hold images themselves.
        class_level: how deep the class folders lie, 1 for those in `root`; None: to be found.

    Raises:
        InputError: two levels could be the classes, or there are no folders at `class_level`.
    """
    if class_level is not None:
        return _at_level(root, folders, class_level)
    base = _entered(folders)
    inside = {folder: folder[len(base) :] for folder in folders if folder[: len(base)] == base}
    split = _split_of(root.joinpath(*base), inside.values())
    pieces: dict[Folder, tuple[str | None, Folder]] = {
        folder: (None, rest) for folder, rest in inside.items() if rest
    }
    if split:
        pieces = dict(_pieces(split, inside))
    in_classes = _splits_classes([rest for _, rest in pieces.values()]) and not split
    notes = [f"classes: the folders in {root.joinpath(*base)}"] if base else []
    if not in_classes:
        notes += _check_level(root, pieces)
        if not split:
            notes += _unused_split([rest for _, rest in pieces.values()])
    places = dict.fromkeys(folders, Place(None))
    for folder, (part, rest) in pieces.items():
        places[folder] = Place(rest[0], _part(rest[1]) if in_classes else part)
    return Layout(_without_lone_part(places), "; ".join(notes))


def _part(name: str) -> str | None:
    """The part that a folder's name stands for: train, Training, training_set, ..."""
    return _PART_NAMES.get(re.sub(r"[ _-]?(set|data|images)$", "", name.casefold()))


def _entered(folders: Collection[Folder]) -> Folder:
    """The folder that alone holds all class folders, from the root; () is the root itself."""
    base: Folder = ()
    while True:
        depth = len(base)
        below = [folder[depth:] for folder in folders if folder[:depth] == base and folder != base]
        tops = {rest[0] for rest in below}
        if len(tops) != 1 or min(map(len, below)) == 1:  # it holds images itself: a class
            return base
        base = (*base, *tops)


def _split_of(root: Path, folders: Collection[Folder]) -> dict[str, str]:
    """The part of each topmost folder that is one; {} if the tree is not split by these.

    Raises:
        InputError: it looks like a split, and has no class folders.
    """
    tops = {folder[0] for folder in folders if folder}
    parts = {top: part for top in sorted(tops) if (part := _part(top)) is not None}
    if not {"train"} < set(parts.values()):
        return {}
    classes = {top: {f[1] for f in folders if len(f) > 1 and f[0] == top} for top in parts}
    train = set().union(*(classes[top] for top, part in parts.items() if part == "train"))
    if set(parts) == tops:
        if train:
            return parts
        raise InputError(
            f"{root}: a folder for each class was expected in {', '.join(sorted(tops))}, found "
            "images only; `class_level` 1 takes these as the classes."
        )
    shared = any(train & classes[top] for top, part in parts.items() if part != "train")
    return parts if shared else {}


def _pieces(
    split: Mapping[str, str], inside: Mapping[Folder, Folder]
) -> Iterator[tuple[Folder, tuple[str | None, Folder]]]:
    """Each folder with its part and its path from the folder that holds the part's classes."""
    classes: set[str] = set()
    for top, part in sorted(split.items(), key=lambda item: item[1] != "train"):
        below = {folder: rest[1:] for folder, rest in inside.items() if rest[:1] == (top,)}
        base = _entered(below.values())
        if not classes.isdisjoint(rest[0] for rest in below.values() if rest):
            base = ()  # a part that has one of the classes alone
        for folder, rest in below.items():
            if rest[: len(base)] == base and rest != base:
                yield folder, (part, rest[len(base) :])
                if part == "train":
                    classes.add(rest[len(base)])


def _splits_classes(folders: Collection[Folder]) -> bool:
    """Whether every class has its images in folders named train, val or test."""
    parts = {_part(folder[1]) if len(folder) == 2 else None for folder in folders}
    return None not in parts and {"train"} < parts


def _unused_split(folders: Collection[Folder]) -> list[str]:
    """A note where some classes have folders train and val, and others have images beside them."""
    with_part = {f[0] for f in folders if len(f) == 2 and _part(f[1]) is not None}
    parts = {_part(f[1]) for f in folders if len(f) == 2} - {None}
    others = {f[0] for f in folders if len(f) != 2 or _part(f[1]) is None}
    if not {"train"} < parts:
        return []
    return [
        f"split: that of the folders in {_listed(sorted(with_part))} is not taken, as there are "
        f"images outside of such in {_listed(sorted(others))}"
    ]


def _check_level(root: Path, pieces: Mapping[Folder, tuple[str | None, Folder]]) -> list[str]:
    """A note where the folders below the topmost ones could be the classes, too.

    Raises:
        InputError: they recur by name in several of the topmost ones.
    """
    folders = [rest for _, rest in pieces.values()]
    tops = sorted({folder[0] for folder in folders})
    if len(tops) < 2 or min(map(len, folders)) == 1:
        return []
    holders: dict[str, set[str]] = {}
    for folder in folders:
        holders.setdefault(folder[1], set()).add(folder[0])
    if len(holders) < 2:  # cat/images, dog/images
        return []
    folder, (_, rest) = min(pieces.items())
    level = len(folder) - len(rest) + 1
    recurring = sum(len(each) > 1 for each in holders.values())
    if 2 * recurring > len(holders):
        raise InputError(
            f"{root}: two levels of folders could be the classes; `class_level` {level} takes "
            f"{_listed(tops)}, {level + 1} takes {_listed(sorted(holders))}."
        )
    return [
        f"classes: {_listed(tops)}, each with the folders in it; class_level {level + 1} would "
        f"take these: {_listed(sorted(holders))}"
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*names[:3], "..."] if len(names) > 3 else names)


def _at_level(root: Path, folders: Collection[Folder], level: int) -> Layout:
    deepest = max(map(len, folders), default=0)
    if deepest < level:
        raise InputError(
            f"`class_level` {level}: the folders with images in {root} lie at most {deepest} deep."
        )
    deep = [folder for folder in folders if len(folder) >= level]
    in_classes = _splits_classes([folder[level - 1 :] for folder in deep])
    places = dict.fromkeys(folders, Place(None))
    for folder in deep:
        names = [folder[level]] if in_classes else folder[: level - 1]
        places[folder] = Place(folder[level - 1], next(filter(None, map(_part, names)), None))
    return Layout(_without_lone_part(places), _half_known_split(places, level))


def _half_known_split(places: Mapping[Folder, Place], level: int) -> str:
    """A note where some folders above the classes are parts of a split, and others are not known.

    They could be: images/train/cat, images/dev/cat.
    """
    deep = {folder: place for folder, place in places.items() if place.class_folder is not None}
    parts = {place.part for place in deep.values()} - {None}
    unknown = [folder for folder, place in deep.items() if place.part is None]
    if not parts or not unknown:
        return ""
    other = sorted({folder[level - 2] for folder in unknown})
    if {"train"} < parts:
        return f"split: that of train, val and test; left out is what lies in {_listed(other)}"
    known = ", ".join(sorted(filter(None, parts)))
    return (
        f"split: none is taken, and the images in {known} and {_listed(other)} are mixed; a split "
        "has folders named train and val (or test)"
    )


def _without_lone_part(places: dict[Folder, Place]) -> dict[Folder, Place]:
    """The places without parts, unless there is one to train on, and another."""
    placed = [place for place in places.values() if place.class_folder is not None]
    if {"train"} < {place.part for place in placed if place.part is not None}:
        return {
            folder: place if place.part is not None else Place(None)
            for folder, place in places.items()
        }
    return {folder: Place(place.class_folder) for folder, place in places.items()}

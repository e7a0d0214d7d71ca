"""Makes list files and class names of folders of images, one folder for each class."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.image_files import IMAGE_SUFFIXES
from ..data.lists import ImageList, ids_of_names
from ..errors import InputError, describe_problems
from ..files import write_text
from .split import PARTS


@dataclass(frozen=True)
class ClassTree:
    """The images of a folder that holds one folder for each class.

    Attributes:
        classes: names in the order of the class ids, sorted.
        names: the images' paths from the folder with '/' between the parts, sorted within a
            class, one class after the other.
        labels: int64 [len(names)], class ids.
        loose: how many images lie beside the class folders and so have no class.
        others: how many files do not have the suffix of an image.
    """

    classes: Sequence[str]
    names: Sequence[str]
    labels: np.ndarray
    loose: int
    others: int


def read_tree(root: str | Path, class_name_pattern: str | None = None) -> ClassTree:
    """Finds the classes of `root` and their images, nested folders included.

    Hidden files and folders are left out. Links are followed.

    Args:
        root: the folder that holds the class folders.
        class_name_pattern: a regular expression searched for in a folder's name; its first group,
            or the whole match if it has none, is the class's name. None: the folder's name.

    Raises:
        InputError: there are fewer than two classes; a class has no image; two folders give one
            class name, or names that differ only by case; a folder does not match the pattern; a
            path cannot be written in a list file.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"`images` {root}: no such folder.")
    top = list(_visible(root))
    folders = {entry.name: entry.path for entry in top if entry.is_dir()}
    loose = sum(1 for entry in top if _is_image(entry))
    others = len(top) - len(folders) - loose
    class_of = class_names(sorted(folders), class_name_pattern)
    if len(class_of) < 2:
        found = f"only {next(iter(class_of))!r}" if class_of else f"none, and {loose} images"
        raise InputError(
            f"{root}: a folder for each of at least two classes was expected, found {found}."
        )

    names: list[str] = []
    counts, empty = [], []
    for folder in sorted(class_of, key=class_of.__getitem__):
        images: list[str] = []
        for entry, name in _walk(folders[folder], folder, frozenset()):
            if _is_image(entry):
                images.append(name)
            else:
                others += 1
        if not images:
            empty.append(folder)
        names += sorted(images)
        counts.append(len(images))
    if empty:
        raise InputError(
            f"{root}: every class needs images, found none in {describe_problems(empty)}."
        )
    unwritable = [repr(name) for name in names if not _fits_a_line(name)]
    if unwritable:
        raise InputError(
            f"{root}: a list file holds a path in one line of UTF-8 text, which these names do "
            f"not allow: {describe_problems(unwritable)}."
        )
    return ClassTree(
        sorted(class_of.values()), names, np.repeat(np.arange(len(counts)), counts), loose, others
    )


def class_names(folders: Sequence[str], pattern: str | None) -> dict[str, str]:
    """The class's name of each folder; see `read_tree` for the pattern and the errors."""
    try:
        expression = re.compile("(?s:.+)" if pattern is None else pattern)
    except re.error as error:
        raise InputError(
            f"`class_name_pattern` {pattern!r} is not a regular expression: {error}."
        ) from error
    result: dict[str, str] = {}
    mismatches, twins = [], []
    folder_of: dict[str, str] = {}
    for folder in folders:
        match = expression.search(folder)
        name = ((match[1] if expression.groups else match[0]) or "").strip() if match else ""
        if not name:
            mismatches.append(repr(folder))
            continue
        other = folder_of.setdefault(name.casefold(), folder)
        if other != folder:
            twins.append(f"{other!r} ({result[other]}) and {folder!r} ({name})")
        result[folder] = name
    if mismatches:
        source = "a folder's name" if pattern is None else f"`class_name_pattern` {pattern!r}"
        raise InputError(
            f"{source} must give a class name; none came of {describe_problems(mismatches)}."
        )
    if twins:
        raise InputError(
            "the names of two classes must differ in more than case; found "
            f"{describe_problems(twins)}."
        )
    return result


def labelled_images(root: Path, names: Sequence[str] | None) -> ImageList:
    """The images of a folder that has a folder for each class, labelled for a model.

    Args:
        root: the folder that holds the class folders.
        names: the model's class names; a folder has a whole name, or its first word. None, where
            they are unknown, is an error.

    Raises:
        InputError: see `read_tree`; or a folder is none of the classes.
    """
    if names is None:
        raise InputError(
            f"{root}: the names of its folders have to be class names of the model, and that has "
            "none; `synset_word_list` gives them."
        )
    tree, ids = read_tree(root), ids_of_names(names)
    unknown = [repr(name) for name in tree.classes if name not in ids]
    if unknown:
        raise InputError(
            f"{root}: folders named as classes of the model ({describe_problems(names)}) were "
            f"expected, found {describe_problems(unknown)}."
        )
    labels = np.array([ids[name] for name in tree.classes])[tree.labels]
    images = ImageList.of_paths([Path(name) for name in tree.names])
    return dataclasses.replace(images, root=root, labels=labels)


def write_lists(tree: ClassTree, parts: dict[str, np.ndarray], folder: str | Path) -> None:
    """Writes `PART_list.txt` for each part, and the class names as `synset_words.txt`.

    Raises:
        InputError: the folder has the list of a part that this split does not have; used
            together with this split's lists, images would be in two parts.
    """
    folder = Path(folder)
    for part in PARTS:
        stale = folder / f"{part}_list.txt"
        if part not in parts and stale.exists():
            raise InputError(
                f"{stale} is of another split, and this one has no {part} part; "
                "remove it or give another `output_dir`."
            )
    for part, indices in parts.items():
        lines = [f"{tree.names[i]} {tree.labels[i]}\n" for i in indices]
        write_text(folder / f"{part}_list.txt", "".join(lines))
    write_text(folder / "synset_words.txt", "".join(f"{name}\n" for name in tree.classes))


def table(tree: ClassTree, parts: dict[str, np.ndarray]) -> str:
    """The number of images of each class in each part as text, one line for each class."""
    columns = [np.bincount(tree.labels[parts[part]]) for part in parts]
    counts = np.stack([*columns, np.bincount(tree.labels)], axis=1)
    rows = [("class", *parts, "total")]
    rows += [(name, *map(str, row)) for name, row in zip(tree.classes, counts.tolist())]
    totals = counts.sum(axis=0)
    rows.append(("total", *map(str, totals.tolist())))
    rows.append(("share", *(f"{100 * total / totals[-1]:.1f} %" for total in totals)))
    width = max(len(row[0]) for row in rows)
    return "\n".join(
        f"{name:{width}}" + "".join(f"{cell:>9}" for cell in cells) for name, *cells in rows
    )


def _visible(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _walk(
    folder: str, name: str, above: frozenset[tuple[int, int]]
) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Everything below a folder that is not a folder, with its path from the top."""
    status = Path(folder).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise InputError(f"{folder} is a link to a folder that holds it; images would repeat.")
    for entry in _visible(folder):
        below = f"{name}/{entry.name}"
        if entry.is_dir():
            yield from _walk(entry.path, below, above | {here})
        else:
            yield entry, below


def _is_image(entry: os.DirEntry[str]) -> bool:
    return Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and entry.is_file()


def _fits_a_line(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # a name that is not UTF-8 on the disk
        return False
    return "\n" not in name and "\r" not in name

"""Makes list files and class names of folders of images, one folder for each class."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

from ..data.contents import content_hashes
from ..data.image_files import LeftOut, describe_left_out, list_images, write_left_out
from ..data.lists import ImageList, ids_of_names
from ..errors import InputError, describe_problems
from ..familiarity import REFUSALS
from ..files import write_together
from .layout import Folder, Place, find_layout
from .split import PARTS, check_shares, split

VAL_SHARE = 0.2  # where nothing is given
LOOSE = "image in no class folder"

__all__ = ["LeftOut", "describe_left_out", "write_left_out"]  # of what `read_tree` leaves out


@dataclass(frozen=True)
class ClassTree:
    """The images of a folder that holds one folder for each class.

    Attributes:
        classes: names in the order of the class ids, sorted; numbers as numbers.
        names: the images' paths from the folder with '/' between the parts, sorted within a
            class, one class after the other.
        labels: int64 [len(names)], class ids.
        parts: "train", "val" or "test" for each image; None where the folders give no split.
        left_out: what else is in the folder.
        notes: how the folders were read, where it is not plain, a line for each.
    """

    classes: Sequence[str]
    names: Sequence[str]
    labels: np.ndarray
    parts: Sequence[str] | None = None
    left_out: Sequence[LeftOut] = ()
    notes: Sequence[str] = ()


def read_tree(
    root: str | Path, class_name_pattern: str | None = None, class_level: int | None = None
) -> ClassTree:
    """Finds the classes of `root` and their images, and the split if the folders give one.

    See `layout` for which folders are the classes, and `list_images` for what is an image. A class
    without images for training is left out, and so are the folders for images of no class that
    sorting makes.

    Args:
        root: the folder that holds the class folders.
        class_name_pattern: a regular expression searched for in a folder's name; its first group,
            or the whole match if it has none, is the class's name. None: the folder's name.
        class_level: how deep the class folders lie, 1 for those in `root`; None: to be found.

    Raises:
        InputError: there are fewer than two classes; two folders give one class name, or names
            that differ only in case or in Unicode form; a folder does not match the pattern; it is
            not clear which folders are the classes; a path cannot be written in a list file.
    """
    tree = _read(Path(root), class_name_pattern, class_level)
    if len(tree.classes) < 2:
        raise InputError(
            f"{root}: a folder for each of at least two classes was expected, found {_found(tree)}."
        )
    return tree


def _found(tree: ClassTree) -> str:
    """What there is in place of classes."""
    loose = sum(each.kind == LOOSE for each in tree.left_out)
    found = f"only {tree.classes[0]!r}" if tree.classes else f"none, and {loose} images"
    others = describe_left_out([each for each in tree.left_out if each.kind != LOOSE])
    return f"{found} ({others})" if others else found


def _read(root: Path, class_name_pattern: str | None, class_level: int | None) -> ClassTree:
    """`read_tree` for any number of classes."""
    _check_is_folder(root)
    return _tree(root, *list_images(root), class_name_pattern, class_level)


def _check_is_folder(root: Path) -> None:
    if not root.is_dir():
        found = "a folder was expected, found a file" if root.exists() else "no such folder"
        raise InputError(f"`images` {root}: {found}.")


def _tree(
    root: Path,
    names: list[str],
    left_out: list[LeftOut],
    class_name_pattern: str | None,
    class_level: int | None,
) -> ClassTree:
    """The tree of images and what is left out, as `list_images` found them."""
    folders = {_parent(name): _folder_of(name) for name in names}
    layout = find_layout(root, set(folders.values()), class_level)
    places = {parent: layout.places[folder] for parent, folder in folders.items()}
    class_folders = {place.class_folder for place in places.values()} - {None, *REFUSALS}
    class_of = class_names(sorted(filter(None, class_folders)), class_name_pattern)
    trained = {p.class_folder for p in places.values() if p.part in (None, "train")}
    classes = sorted({class_of[each] for each in class_of if each in trained}, key=class_order)
    numbers = {name: number for number, name in enumerate(classes)}
    ids = {
        parent: numbers.get(class_of.get(place.class_folder or "", ""), -1)
        for parent, place in places.items()
    }
    labels = np.fromiter((ids[_parent(name)] for name in names), "int64", len(names))
    for i in np.flatnonzero(labels < 0).tolist():
        left_out.append(LeftOut(names[i], _unplaced(places[_parent(names[i])])))
    order = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
    names = [names[i] for i in order]
    unwritable = [repr(name) for name in names if not _fits_a_line(name)]
    if unwritable:
        raise InputError(
            f"{root}: a list file holds a path in one line of UTF-8 text, which these names do "
            f"not allow: {describe_problems(unwritable)}."
        )
    notes = [layout.note] if layout.note else []
    parts = [part for name in names if (part := places[_parent(name)].part) is not None]
    if set(parts) == {"train"}:  # the others had no images of its classes
        parts = []
    if parts:
        notes += _split_notes(root, classes, labels[order], np.array(parts))
    return ClassTree(classes, names, labels[order], parts or None, sorted(left_out), notes)


def _split_notes(
    root: Path, classes: Sequence[str], labels: np.ndarray, parts: np.ndarray
) -> list[str]:
    """How many images each part has, and which classes one lacks."""
    present = [part for part in PARTS if (parts == part).any()]
    counts = ", ".join(f"{np.count_nonzero(parts == part)} {part}" for part in present)
    notes = [f"split: as the folders in {root} have it, {counts}"]
    for part in present:
        sizes = np.bincount(labels[parts == part], minlength=len(classes))
        if lacking := [classes[i] for i in np.flatnonzero(sizes == 0).tolist()]:
            notes.append(f"no {part} images of {describe_problems(lacking)}")
    return notes


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _folder_of(name: str) -> Folder:
    return tuple(name.split("/")[:-1])


def _unplaced(place: Place) -> str:
    if place.class_folder is None:
        return LOOSE
    if place.class_folder in REFUSALS:
        return f"image sorted as {place.class_folder}"
    return "image of a class without training images"


def class_order(name: str) -> tuple[bool, int, str]:
    """A key that sorts class names as text, and numbers, which come first, by their value."""
    is_number = re.fullmatch("[0-9]+", name) is not None
    return not is_number, int(name) if is_number else 0, name


def class_names(folders: Sequence[str], pattern: str | None) -> dict[str, str]:
    """The class's name of each folder; see `read_tree` for the pattern and the errors.

    The names are in Unicode's composed form (NFC), whichever form the file system has.
    """
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
        name = unicodedata.normalize("NFC", name)
        other = folder_of.setdefault(unicodedata.normalize("NFC", name.casefold()), folder)
        if other != folder:
            twins.append(_twins(other, result[other], folder, name))
        result[folder] = name
    if mismatches:
        source = "a folder's name" if pattern is None else f"`class_name_pattern` {pattern!r}"
        raise InputError(
            f"{source} must give a class name; none came of {describe_problems(mismatches)}."
        )
    if twins:
        raise InputError(
            "the names of two classes must differ in more than case and Unicode form, so one has "
            f"to be renamed, or both folders joined; found {describe_problems(twins)}."
        )
    return result


def _twins(first: str, first_name: str, second: str, second_name: str) -> str:
    """Two folders and the class names that they give; escaped, where they look the same."""
    look_the_same = unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", second)
    show = ascii if look_the_same else repr
    return f"{show(first)} ({first_name}) and {show(second)} ({second_name})"


def labelled_images(
    root: Path,
    names: Sequence[str] | None,
    class_level: int | None = None,
    report: Callable[[str], object] = str,
) -> ImageList:
    """The images of a folder that has a folder for each class, labelled for a model.

    Of a split, the test part is taken, or else the validation part.

    Args:
        root: the folder that holds the class folders.
        names: the model's class names; a folder has a whole name, or its first word. None, where
            they are unknown, is an error.
        class_level: as `read_tree`; None: the topmost level whose folders all are classes.
        report: called with a line for whatever is not plain: the split, what is left out.

    Raises:
        InputError: see `read_tree`; or a folder is none of the classes.
    """
    if names is None:
        raise InputError(
            f"{root}: the names of its folders have to be class names of the model, and that has "
            "none; `synset_word_list` gives them."
        )
    ids = ids_of_names([unicodedata.normalize("NFC", name) for name in names])
    _check_is_folder(root)
    found = list_images(root)
    if class_level is None:
        class_level = _level_of(found[0], ids)
    tree = _tree(root, *found, None, class_level)
    if not tree.classes:
        raise InputError(f"{root}: a folder for each class was expected, found {_found(tree)}.")
    unknown = [repr(name) for name in tree.classes if name not in ids]
    if unknown:
        raise InputError(
            f"{root}: folders named as classes of the model ({describe_problems(names)}) were "
            f"expected, found {describe_problems(unknown)}."
        )
    for note in tree.notes:
        report(note)
    if tree.left_out:
        report(describe_left_out(tree.left_out))
    chosen = np.ones(len(tree.names), bool)
    if tree.parts is not None:
        part = "test" if "test" in tree.parts else "val"
        chosen = np.array([each == part for each in tree.parts])
        report(f"scored: the {chosen.sum()} images of the part {part}")
    labels = np.array([ids[name] for name in tree.classes])[tree.labels]
    images = ImageList.of_paths([tree.names[i] for i in np.flatnonzero(chosen).tolist()])
    return dataclasses.replace(images, root=root, labels=labels[chosen])


def _level_of(names: Sequence[str], classes: Container[str]) -> int | None:
    """The topmost level whose folders are all among `classes`; None if there is none."""
    folders = {_folder_of(name) for name in names}
    for level in range(1, max(map(len, folders), default=0) + 1):
        if all(folder[level - 1] in classes for folder in folders if len(folder) >= level):
            return level
    return None


def given_parts(
    tree: ClassTree, val_share: float | None, test_share: float | None
) -> dict[str, np.ndarray]:
    """The split that the folders give: indices into `tree.names` by part; {} if they give none.

    Raises:
        InputError: a share is given for a part that the folders have.
    """
    if tree.parts is None:
        return {}
    parts = np.array(tree.parts)
    given = {part: np.flatnonzero(parts == part) for part in PARTS if part in tree.parts}
    for name, share in (("val", val_share), ("test", test_share)):
        if share is not None and name in given:
            raise InputError(
                f"`{name}_share`: the folders have a part {name} already, of {len(given[name])} "
                "images; `images` with the folder of the training images alone splits these."
            )
    return given


def split_tree(
    tree: ClassTree,
    root: Path,
    val_share: float | None,
    test_share: float | None,
    seed: int,
    *,
    keys: Sequence[str] | None = None,
    groups: np.ndarray | None = None,
    earlier: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """The split that the folders give, as far as they do; the rest is drawn, see `split`.

    Args:
        tree: the images.
        root: the folder that their paths start from.
        val_share: None: `VAL_SHARE`, if the folders have no validation part.
        test_share: None: of the folders, or none.
        seed, groups, earlier: see `split`.
        keys: the SHA-256 of each image; None: they are read, if they are needed.

    Raises:
        InputError: see `given_parts` and `split`.
    """
    given = given_parts(tree, val_share, test_share)
    if val_share is None:
        val_share = 0.0 if "val" in given else VAL_SHARE
    shares = val_share, test_share or 0.0
    check_shares(*shares, seed)
    if not any(shares):
        return given or {"train": np.arange(len(tree.names))}
    train = given.get("train", np.arange(len(tree.names)))
    drawn = split(
        *(tree.labels[train], *shares),
        keys=(
            content_hashes([f"{root}/{tree.names[i]}" for i in train.tolist()])
            if keys is None
            else [keys[i] for i in train.tolist()]
        ),
        groups=None if groups is None else groups[train],
        seed=seed,
        earlier=earlier,
        classes=tree.classes,
    )
    parts = {**given, **{part: train[indices] for part, indices in drawn.items()}}
    return {part: parts[part] for part in PARTS if part in parts}


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
    texts = {
        f"{part}_list.txt": "".join(f"{tree.names[i]} {tree.labels[i]}\n" for i in indices)
        for part, indices in parts.items()
    }
    texts["synset_words.txt"] = "".join(f"{name}\n" for name in tree.classes)
    write_together(folder, {name: text.encode() for name, text in texts.items()})


def table(tree: ClassTree, parts: dict[str, np.ndarray]) -> str:
    """The number of images of each class in each part as text, one line for each class."""
    columns = [np.bincount(tree.labels[parts[part]], minlength=len(tree.classes)) for part in parts]
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


def _fits_a_line(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # a name that is not UTF-8 on the disk
        return False
    return "\n" not in name and "\r" not in name

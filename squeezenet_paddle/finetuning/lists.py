"""The images of a fine-tuning: from a folder for each class, or from list files, to lists.

What is split here is written into the run's directory as train_list.txt, val_list.txt and, where
the names of the classes are known, synset_words.txt, so that every tool can go on with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.lists import read_list
from ..datasets.folders import ClassTree, read_tree, split
from ..errors import InputError
from ..files import write_bytes
from ..run_dir import NAMES, TRAIN_LIST, VAL_LIST


@dataclass(frozen=True)
class Lists:
    """Which lists a run reads.

    Attributes:
        train_list, val_list: the files.
        root: the folder that their paths start from; None for that of the file.
        names: the file of the classes' names; None where they are not known.
        written: what of these has to be written first, by file name in the run's directory.
        note: what was left out, for the user; "" if nothing was.
    """

    train_list: Path
    val_list: Path
    root: Path | None
    names: Path | None
    written: Mapping[str, bytes]
    note: str = ""


def find_lists(args: argparse.Namespace) -> Lists:
    """What the flags name; writes nothing.

    Raises:
        InputError: as `read_tree`, `read_list` and `split`.
    """
    if (args.images is None) == (args.train_list is None):
        raise InputError("one of --images, a folder for each class, or --train_list was expected.")
    if args.images is None:
        return _of_lists(args)
    for flag in ("val_list", "data_dir", "synset_word_list"):
        if getattr(args, flag) is not None:
            raise InputError(f"--{flag} goes with --train_list, and --images was given.")
    folder, inside = args.images.resolve(), args.output_dir.resolve()
    if folder in (inside, *inside.parents):
        raise InputError(
            f"--output_dir {args.output_dir} lies in --images {args.images}, where its images "
            "would be a class; another directory was expected."
        )
    tree = read_tree(args.images, args.class_name_pattern)
    left_out = [
        f"{count} {what}"
        for count, what in (
            (tree.loose, f"in {args.images} itself, in no class folder"),
            (tree.others, "without the suffix of an image"),
        )
        if count
    ]
    names = "".join(f"{name}\n" for name in tree.classes).encode()
    return Lists(
        args.output_dir / TRAIN_LIST,
        args.output_dir / VAL_LIST,
        args.images,
        args.output_dir / NAMES,
        {**_split(tree, args), NAMES: names},
        f"left out: {', '.join(left_out)}" if left_out else "",
    )


def _of_lists(args: argparse.Namespace) -> Lists:
    if args.class_name_pattern is not None:
        raise InputError("--class_name_pattern goes with --images, and --train_list was given.")
    root, names = args.data_dir, args.synset_word_list
    if args.val_list is not None:
        return Lists(args.train_list, args.val_list, root, names, {})
    images = read_list(args.train_list, root, None)
    classes = [f"class {i}" for i in range(int(images.labels.max()) + 1)]
    paths = [images.name(i) for i in range(len(images))]
    used, labels = np.unique(images.labels, return_inverse=True)
    tree = ClassTree([classes[i] for i in used], paths, labels, 0, 0)
    written = _split(tree, args, used)
    lists = args.output_dir / TRAIN_LIST, args.output_dir / VAL_LIST
    return Lists(*lists, images.root, names, written)


def _split(
    tree: ClassTree, args: argparse.Namespace, ids: np.ndarray | None = None
) -> dict[str, bytes]:
    """The two lists; `ids` are the class ids of the labels, where they are others."""
    parts = split(tree, args.val_share, 0.0, args.seed)
    labels = tree.labels if ids is None else ids[tree.labels]
    return {
        file: "".join(f"{tree.names[i]} {labels[i]}\n" for i in parts[part]).encode()
        for file, part in ((TRAIN_LIST, "train"), (VAL_LIST, "val"))
    }


def write_lists(lists: Lists, folder: Path) -> None:
    """Writes what is to be written; the lists of another run are left alone.

    Raises:
        InputError: the folder has another list already.
    """
    for name, content in lists.written.items():
        path = folder / name
        if path.exists():
            if path.read_bytes() != content:
                raise InputError(
                    f"{path} is of other images, or of another --val_share or --seed; "
                    "--overwrite starts anew, another --output_dir leaves that run as it is."
                )
            continue
        write_bytes(path, content)

"""The images of a fine-tuning: from a folder for each class, or from list files, to lists.

What is split here is written into the run's directory as train_list.txt, val_list.txt and, where
the names of the classes are known, synset_words.txt, so that every tool can go on with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.contents import content_hashes
from ..data.lists import read_list, read_names
from ..datasets.folders import ClassTree, read_tree
from ..datasets.split import split
from ..errors import InputError
from ..files import write_bytes
from ..model_dir import read_info
from ..run_dir import NAMES, TRAIN_LIST, VAL_LIST
from .config import VAL_SHARE, FinetuneConfig


@dataclass(frozen=True)
class Lists:
    """Which lists a run reads.

    Attributes:
        train_list, val_list: the files.
        root: the folder that their paths start from; None for that of the file.
        names: the file of the classes' names; None where they are not known.
        class_names: these names, where the labels of a list may be names; None where they are ids.
        written: what of these has to be written first, by file name in the run's directory.
        note: what was left out, for the user; "" if nothing was.
    """

    train_list: Path
    val_list: Path
    root: Path | None
    names: Path | None
    class_names: list[str] | None
    written: Mapping[str, bytes]
    note: str = ""


def find_lists(config: FinetuneConfig) -> Lists:
    """The lists that the settings name, or those made of a folder; writes nothing.

    Raises:
        InputError: as `read_tree`, `read_list` and `split`.
    """
    data, output_dir = config.data, config.run.output_dir
    if data.train_list is not None:
        return _of_lists(config, data.train_list)
    assert data.images is not None
    folder, inside = data.images.resolve(), output_dir.resolve()
    if folder in (inside, *inside.parents):
        raise InputError(
            f"`output_dir` {output_dir} lies in `images` {data.images}, where its images would be "
            "a class; another directory was expected."
        )
    tree = read_tree(data.images, data.class_name_pattern)
    left_out = [
        f"{count} {what}"
        for count, what in (
            (tree.loose, f"in {data.images} itself, in no class folder"),
            (tree.others, "without the suffix of an image"),
        )
        if count
    ]
    names = "".join(f"{name}\n" for name in tree.classes).encode()
    return Lists(
        output_dir / TRAIN_LIST,
        output_dir / VAL_LIST,
        data.images,
        output_dir / NAMES,
        None,
        {**_split(tree, data.images, config), NAMES: names},
        f"left out: {', '.join(left_out)}" if left_out else "",
    )


def _of_lists(config: FinetuneConfig, train_list: Path) -> Lists:
    data, output_dir = config.data, config.run.output_dir
    root, names_file = data.data_dir, data.synset_word_list
    names = read_info(config.network.pretrained).names
    if names_file is not None:
        names = read_names(names_file)
    if data.val_list is not None:
        return Lists(train_list, data.val_list, root, names_file, names, {})
    classes = None if names_file is None or names is None else len(names)
    images = read_list(train_list, root, classes, names)
    paths = [images.name(i) for i in range(len(images))]
    used, labels = np.unique(images.labels, return_inverse=True)
    tree = ClassTree([f"class {i}" for i in used], paths, labels, 0, 0)
    written = _split(tree, images.root, config, used)
    return Lists(
        output_dir / TRAIN_LIST, output_dir / VAL_LIST, images.root, names_file, names, written
    )


def _split(
    tree: ClassTree, root: Path, config: FinetuneConfig, ids: np.ndarray | None = None
) -> dict[str, bytes]:
    """The two lists; `ids` are the class ids of the labels, where they are others."""
    parts = split(
        *(tree.labels, config.data.val_share or VAL_SHARE, 0.0),
        keys=content_hashes([root / name for name in tree.names]),
        seed=config.solver.seed,
        classes=tree.classes,
    )
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
                    f"{path} is of other images, or of another `val_share` or `seed`; "
                    "`overwrite` starts from scratch, another `output_dir` leaves that run as it "
                    "is."
                )
            continue
        write_bytes(path, content)

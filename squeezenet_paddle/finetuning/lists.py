"""The images of a fine-tuning: from a folder for each class, or from list files, to lists.

What is split here is written into the run's directory as train_list.txt, val_list.txt and, where
the names of the classes are known, synset_words.txt, so that every tool can go on with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..checking.check import groups_of
from ..data.contents import inspect_contents
from ..data.image_files import LeftOut, describe_left_out, write_left_out
from ..data.lists import read_list, read_names
from ..datasets.folders import VAL_SHARE, ClassTree, given_parts, read_tree, split_tree
from ..datasets.split import check_class_sizes
from ..errors import InputError, describe_problems
from ..files import write_bytes
from ..model_dir import read_info
from ..run_dir import CONTENTS, IMAGES, LEFT_OUT, NAMES, TEST_LIST, TRAIN_LIST, VAL_LIST
from .config import FinetuneConfig
from .growth import Image, Record, earlier_record, in_order_of, read_record

UNREADABLE = "image that cannot be read"


@dataclass(frozen=True)
class Images:
    """The images of a folder or a list, which are to be split.

    Attributes:
        tree: the images and their classes.
        root: the folder that their paths start from.
        hashes: the SHA-256 of each, once they have been inspected.
        ids: class ids of the classes, where they are not 0, 1, 2, ...
        names_file: the list of the classes' names, where the user has given one.
        class_names: the names that labels may be; None where they are ids.
        notes: how the folder was read, a line for each.
    """

    tree: ClassTree
    root: Path
    hashes: Sequence[str] = ()
    ids: np.ndarray | None = None
    names_file: Path | None = None
    class_names: list[str] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Lists:
    """Which lists a run reads.

    Attributes:
        train_list, val_list: the files.
        root: the folder that their paths start from; None for that of the file.
        names: the file of the classes' names; None where they are not known.
        class_names: these names, where the labels of a list may be names; None where they are ids.
        written: what of these has to be written first, by file name in the run's directory.
        record: of the images that were split; None where the user gave both lists.
        notes: how the folder was read and what was left out, a line for each.
        left_out: what in the folder is not taken.
        replaced: what `written` may replace: the same lists with the names that the images had.
    """

    train_list: Path
    val_list: Path
    root: Path | None
    names: Path | None
    class_names: list[str] | None
    written: Mapping[str, bytes]
    record: Record | None = None
    notes: Sequence[str] = ()
    left_out: Sequence[LeftOut] = ()
    replaced: Mapping[str, bytes] = field(default_factory=dict)


def read_images(config: FinetuneConfig) -> Images | Lists:
    """The images that the settings name, or the lists where both are given.

    Raises:
        InputError: as `read_tree` and `read_list`; or a class has too few images.
    """
    data = config.data
    if data.train_list is not None:
        return _of_list(config, data.train_list)
    assert data.images is not None
    folder, inside = data.images.resolve(), config.run.output_dir.resolve()
    if folder in (inside, *inside.parents):
        raise InputError(
            f"`output_dir` {config.run.output_dir} lies in `images` {data.images}, where its "
            "images would be a class; another directory was expected."
        )
    tree = read_tree(data.images, data.class_name_pattern, data.class_level)
    _check_sizes(tree, config)
    return Images(tree, data.images, notes=tree.notes)


def _of_list(config: FinetuneConfig, train_list: Path) -> Images | Lists:
    data = config.data
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
    tree = ClassTree([f"class {i}" for i in used], paths, labels)
    _check_sizes(tree, config)
    return Images(tree, images.root, (), used, names_file, names)


def _check_sizes(tree: ClassTree, config: FinetuneConfig) -> None:
    """Raises the error of `split` for classes that are too small, before their files are read."""
    given = given_parts(tree, config.data.val_share, None)
    train = given.get("train", np.arange(len(tree.names)))
    parts = [0] if "val" in given else [0, 1]
    check_class_sizes(np.bincount(tree.labels[train]), parts, tree.classes)


def inspect_images(images: Images, config: FinetuneConfig) -> Images:
    """Reads and decodes each file that is new; those that cannot be are left out.

    Raises:
        InputError: there are some, and `strict` is set; or none of a class can be.
    """
    tree, output_dir, machine = images.tree, config.run.output_dir, config.machine
    contents = inspect_contents(
        *([f"{images.root}/{name}" for name in tree.names], output_dir / CONTENTS),
        *(machine.num_workers, machine.max_pixels),
    )
    problems = contents.problems
    if not problems:
        return dataclasses.replace(images, hashes=contents.hashes)
    told = describe_problems(list(problems.values()))
    if config.data.strict:
        raise InputError(
            f"{len(problems)} of {len(tree.names)} images cannot be read, and without `strict` "
            f"they would be left out: {told}."
        )
    good = np.array([i for i in range(len(tree.names)) if i not in problems], "int64")
    lost = np.setdiff1d(tree.labels, tree.labels[good]).tolist()
    if lost:
        names = describe_problems([tree.classes[label] for label in lost])
        raise InputError(f"no image of these classes can be read: {names}; {told}.")
    left_out = [LeftOut(tree.names[i], UNREADABLE, text) for i, text in problems.items()]
    rest = dataclasses.replace(
        tree,
        names=[tree.names[i] for i in good],
        labels=tree.labels[good],
        parts=None if tree.parts is None else [tree.parts[i] for i in good],
        left_out=sorted([*tree.left_out, *left_out]),
    )
    return dataclasses.replace(images, tree=rest, hashes=[contents.hashes[i] for i in good])


def split_images(images: Images, config: FinetuneConfig, groups: np.ndarray | None = None) -> Lists:
    """Splits images into lists; those of an earlier run in the directory stay on their side.

    Args:
        images: all of them.
        config: of the fine-tuning.
        groups: int64 [N], images with the same number belong together; None: none do.

    Raises:
        InputError: as `split_tree`; or the earlier run was split with other settings.
    """
    tree, output_dir, seed = images.tree, config.run.output_dir, config.solver.seed
    settings = {
        "val_share": config.data.val_share or VAL_SHARE,
        "seed": seed,
        "group_pattern": config.data.group_pattern,
    }
    earlier = None if config.run.overwrite else earlier_record(output_dir)
    if earlier is not None:
        earlier.check_split(settings, output_dir)
    parts = split_tree(
        *(tree, images.root, config.data.val_share, None, seed),
        keys=images.hashes,
        groups=groups,
        earlier=None if earlier is None else earlier.parts,
    )
    part_of = {int(i): part for part, indices in parts.items() for i in indices}
    record: Sequence[Image] = [
        Image(name, tree.classes[label], part_of[i], images.hashes[i])
        for i, (name, label) in enumerate(zip(tree.names, tree.labels.tolist()))
        if i in part_of
    ]
    ids = range(len(tree.classes)) if images.ids is None else images.ids.tolist()
    class_ids = dict(zip(tree.classes, ids))
    replaced = {}
    current = None if config.run.overwrite else read_record(output_dir)
    if current is not None and (same := in_order_of(record, current.images)) is not None:
        record, replaced = same, _texts(current.images, class_ids)
    written = _texts(record, class_ids)
    names_file, notes = images.names_file, list(images.notes)
    if images.ids is None:
        names_file = output_dir / NAMES
        written[NAMES] = "".join(f"{name}\n" for name in tree.classes).encode()
    if tree.parts is not None and "val" not in tree.parts:
        notes.append(
            f"validation: {len(parts['val'])} of the {tree.parts.count('train')} training images, "
            "as the folders have no part val; the part test is left for a final score"
        )
    notes += _same_contents(tree, images.hashes, parts)
    if groups is not None and config.data.group_pattern is not None and tree.parts is not None:
        notes += _divided(tree, groups_of(tree.names, config.data.group_pattern), part_of)
    if tree.left_out:
        notes.append(f"{describe_left_out(tree.left_out)}; see {output_dir / LEFT_OUT}")
    return Lists(
        output_dir / TRAIN_LIST,
        output_dir / VAL_LIST,
        images.root,
        names_file,
        images.class_names,
        written,
        Record(settings, record),
        notes,
        tree.left_out,
        replaced,
    )


def _texts(images: Sequence[Image], class_ids: Mapping[str, int]) -> dict[str, bytes]:
    """The list files of images, by their names."""
    lines: dict[str, list[str]] = {}
    for image in images:
        lines.setdefault(image.part, []).append(f"{image.path} {class_ids[image.class_name]}\n")
    files = {"train": TRAIN_LIST, "val": VAL_LIST, "test": TEST_LIST}
    return {files[part]: "".join(each).encode() for part, each in lines.items()}


def _same_contents(
    tree: ClassTree, hashes: Sequence[str], parts: Mapping[str, np.ndarray]
) -> list[str]:
    """Says which images of the other parts are files of the training part, under another name."""
    trained = {hashes[i] for i in parts["train"]}
    notes = []
    for part in parts.keys() - {"train"}:
        same = [tree.names[i] for i in parts[part] if hashes[i] in trained]
        if same:
            shown = ", ".join([*same[:3], "..."] if len(same) > 3 else same)
            notes.append(
                f"{len(same)} of {len(parts[part])} {part} images are copies of training images, "
                f"so the scores are too high: {shown}"
            )
    return sorted(notes)


def _divided(tree: ClassTree, groups: np.ndarray, part_of: Mapping[int, str]) -> list[str]:
    """Says how many groups a split that the folders give divides."""
    parts: dict[int, set[str]] = {}
    for i, part in part_of.items():
        parts.setdefault(int(groups[i]), set()).add(part)
    divided = sorted(group for group, each in parts.items() if len(each) > 1)
    if not divided:
        return []
    shown = describe_problems([tree.names[group] for group in divided])
    return [
        f"{len(divided)} of {len(parts)} groups of the pattern are in more than one part, as "
        f"the folders have it, so the scores are too high; the first image of each: {shown}"
    ]


def write_lists(lists: Lists, folder: Path) -> None:
    """Writes what is to be written; lists that are not of this run are left alone.

    Raises:
        InputError: the folder has another list already.
    """
    for name, content in lists.written.items():
        path = folder / name
        present = path.read_bytes() if path.exists() else None
        if present not in (None, content, lists.replaced.get(name)):
            raise InputError(
                f"{path} is of other images, and {folder} does not say of which; `overwrite` "
                "starts from scratch, another `output_dir` leaves that list as it is."
            )
        if present != content:
            write_bytes(path, content)
    if lists.record is not None:
        write_left_out(folder / LEFT_OUT, lists.left_out)
        write_bytes(folder / IMAGES, lists.record.json())

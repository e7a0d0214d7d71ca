"""Checks the images of a fine-tuning before it starts; what it finds is told and stops nothing."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import numpy as np

from ..checking.check import Check, check, groups_of
from ..checking.inputs import suited
from ..checking.report import facts_of, write_report
from ..data.contents import read_contents
from ..data.lists import ImageList, read_list, read_names
from ..errors import describe_problems
from ..evaluation.calibrate import classifier_of
from ..features.compute import image_features, paths_of
from ..model_dir import read_info
from ..progress import say
from ..run_dir import CHECK_PAGE, CONTENTS, FEATURES
from ..temporaries import temporary_directory
from .config import FinetuneConfig
from .growth import Record
from .lists import Images, Lists


def check_images(
    images: Images, config: FinetuneConfig, earlier: Record | None
) -> tuple[np.ndarray | None, Check | None]:
    """Looks for what belongs together, and for duplicates, wrong labels and odd images.

    Args:
        images: all of them, inspected.
        config: of the fine-tuning.
        earlier: the images that were split before; the same ones need not be checked again.

    Returns:
        int64 [N], images with the same number belong on one side of the split; and what was found.
        None for both where the images are those of `earlier`, and for the second where the
        settings ask for none.

    Raises:
        InputError: `group_pattern` does not fit the images' paths.
        RunError: the features cannot be computed.
    """
    tree = images.tree
    # Where images went, others may take their side, and what belongs to these has to follow.
    if earlier is not None and earlier.contents == {
        (key, tree.classes[label]) for key, label in zip(images.hashes, tree.labels.tolist())
    }:
        return None, None
    groups = groups_of(tree.names, config.data.group_pattern)
    if not config.data.check:
        return groups, None
    listed = ImageList.of_paths(list(tree.names))
    listed = dataclasses.replace(listed, root=images.root, labels=tree.labels)
    found = _checked(listed, images.hashes, _names(images), config, tree.parts)
    return found.groups, found


def check_lists(lists: Lists, config: FinetuneConfig) -> tuple[Lists, Check | None]:
    """Checks the images of both lists together, where the user has given both.

    Returns:
        The lists, with a note of validation images that are duplicates of training images; and
        what was found, None where the settings ask for none or the run has been checked before.

    Raises:
        InputError: a list is not as it should be.
        RunError: the features cannot be computed.
    """
    if not config.data.check or (config.run.output_dir / CHECK_PAGE).exists():
        return lists, None
    names = None if lists.names is None else read_names(lists.names)
    classes = None if names is None else len(names)
    train, val = (
        read_list(file, lists.root, classes, lists.class_names)
        for file in (lists.train_list, lists.val_list)
    )
    used, labels = np.unique(np.concatenate([train.labels, val.labels]), return_inverse=True)
    listed = ImageList.of_paths([*paths_of(train), *paths_of(val)])
    listed = dataclasses.replace(listed, labels=labels.astype("int64"))
    shown = [names[i] if names else f"class {i}" for i in used.tolist()]
    hashes = read_contents(paths_of(listed), config.run.output_dir / CONTENTS).hashes
    found = _checked(listed, hashes, shown, config)
    trained, validated = np.split(found.groups, [len(train)])
    copies = [val.name(i) for i in np.flatnonzero(np.isin(validated, trained)).tolist()]
    if copies:
        note = (
            f"{len(copies)} of {len(val)} validation images are duplicates of training images, "
            f"so the scores are too high: {describe_problems(copies)}"
        )
        lists = dataclasses.replace(lists, notes=[*lists.notes, note])
    return lists, found


def _checked(
    listed: ImageList,
    hashes: Sequence[str],
    names: Sequence[str],
    config: FinetuneConfig,
    parts: Sequence[str] | None = None,
) -> Check:
    """Checks images by the features of the pretrained network, which the run's cache keeps."""
    machine = config.machine
    with contextlib.ExitStack() as stack:
        folder = config.run.output_dir / FEATURES
        if not config.features.cache:
            folder = stack.enter_context(temporary_directory())
        features, unreadable = image_features(
            *(config.network.pretrained, listed, folder),
            preprocess=suited(read_info(config.network.pretrained).preprocess, listed),
            device=machine.device,
            num_workers=machine.num_workers,
            max_pixels=machine.max_pixels,
            memo=config.run.output_dir / CONTENTS,
        )
    return check(
        *(features, listed, names),
        hashes=hashes,
        unreadable=unreadable,
        group_pattern=config.data.group_pattern,
        max_pixels=machine.max_pixels,
        classifier=classifier_of(config.network.pretrained),
        parts=parts,
    )


def _names(images: Images) -> list[str]:
    """The names of the classes in the order of the tree's labels."""
    if images.class_names is None or images.ids is None:
        return [*images.tree.classes]
    return [images.class_names[i] for i in images.ids]


def tell(found: Check, config: FinetuneConfig) -> None:
    """Writes the page about what was found, and says it in a few lines."""
    folder = config.run.output_dir
    write_report(folder, found, facts_of(found, config.network.pretrained))
    lines = list(found.lines())
    for line in lines:
        say(f"check: {line}")
    if lines:
        say(f"check: {folder / CHECK_PAGE} shows the images")

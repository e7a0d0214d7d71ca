"""Checks the images of a fine-tuning before it starts; what it finds is told and stops nothing."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np

from ..checking.check import Check, check, groups_of
from ..checking.inputs import suited
from ..checking.report import facts_of, write_report
from ..data.lists import ImageList
from ..features.compute import image_features
from ..files import temporary_directory
from ..model_dir import read_info
from ..progress import say
from ..run_dir import CHECK_PAGE, CONTENTS, FEATURES
from .config import FinetuneConfig
from .growth import Record
from .lists import Images


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
    tree, machine = images.tree, config.machine
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
    found = check(
        *(features, listed, _names(images)),
        hashes=images.hashes,
        unreadable=unreadable,
        group_pattern=config.data.group_pattern,
        max_pixels=machine.max_pixels,
    )
    return found.groups, found


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

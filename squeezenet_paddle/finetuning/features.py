"""The features of a run's two lists: cached in its directory, or computed as they are needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import numpy as np

from ..data.contents import Contents
from ..data.loader import Batches
from ..data.preprocess import EvalTransform
from ..data.sampler import Sampler
from ..device import choose_device
from ..engines.batches import FeatureEngine
from ..engines.load import load_features
from ..errors import InputError, describe_problems
from ..features.cache import FeatureFile, check_room, size_text
from ..features.compute import feature_file, fill
from ..progress import say
from ..run_dir import locked
from ..training.plan import Plan
from .loaders import CachedFeatures, ViewTransform

if TYPE_CHECKING:
    from ..network.model import SqueezeNet


def frozen_part(plan: Plan, network: SqueezeNet) -> FeatureEngine:
    """The frozen layers of a run as a function, with the weights that the network starts from."""
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    config, preprocess = plan.info.network, plan.info.preprocess
    device = choose_device(plan.config.machine.device)
    return load_features(config, state, preprocess, plan.solver.trained_from, device)


def cached(
    plan: Plan,
    views: ViewTransform,
    contents: tuple[Contents, Contents],
    folder: Path,
    network: SqueezeNet,
    on_skipped: Callable[[str], object],
) -> tuple[Batches, Batches]:
    """The features of the training and of the validation list, in batches.

    What the cache in `folder` lacks is computed first.

    Args:
        plan: of the run; it has both lists.
        views: of the training images.
        contents: of both lists.
        folder: of the cache.
        network: with the weights that it starts from, those that are frozen among them.
        on_skipped: called with a message for each image that is left out, where that is allowed.

    Raises:
        InputError: images cannot be read, or the disk has no room.
        RunError: no engine computes the network, or the cache cannot be written.
    """
    assert plan.val is not None
    frozen = frozen_part(plan, network)
    files = feature_files(plan, network, frozen, folder)
    lists, counts = (plan.train, plan.val), (views.views, 1)
    transforms = (views, EvalTransform(plan.info.preprocess))
    machine = plan.config.machine
    with locked(folder):
        for file in files:
            if problem := file.check():
                say(problem)
        lacking = [
            sum(int(np.sum(file.rows(each.hashes, view) < 0)) for view in range(count))
            for file, each, count in zip(files, contents, counts)
        ]
        total = views.views * len(plan.train) + len(plan.val)
        room = total * files[0].row_bytes
        rest = f", {sum(lacking):,} of them new" if 0 < sum(lacking) < total else ""
        gone = files[0].others([*contents[0].hashes, *contents[1].hashes])
        kept = (
            f"; {size_text(len(gone) * files[0].row_bytes)} more of {len(set(gone))} images that "
            "are gone, until that folder is removed"
        )
        say(
            f"features: {frozen.size:,} numbers by {frozen.engine} for each of {views.views} views "
            f"of {len(plan.train)} images and for {len(plan.val)} of validation{rest}; "
            f"{size_text(room)} in {folder}{kept if gone else ''}"
        )
        check_room(
            folder,
            sum(lacking) * files[0].row_bytes,
            "fewer `views`, the `head` compact, a smaller `crop_size`, or `cache` take less",
        )
        unreadable = [
            fill(file, f"features, {what}", images, each, transform, count, frozen,
                 machine.num_workers, machine.max_pixels)
            for what, file, images, each, transform, count in zip(
                ("training", "validation"), files, lists, contents, transforms, counts
            )
        ]  # fmt: skip
    for problem in _problems(plan, unreadable):
        on_skipped(problem)
    size, seed = plan.solver.batch_size // plan.solver.parts, plan.solver.seed
    samplers = (
        Sampler(len(plan.train), size, shuffle=True, seed=seed),
        Sampler(len(plan.val), size),
    )
    train, val = (
        CachedFeatures(images, file, each.hashes, count, sampler, skipped)
        for images, file, each, count, sampler, skipped in zip(
            lists, files, contents, counts, samplers, unreadable
        )
    )
    return train, val


def feature_files(
    plan: Plan, network: SqueezeNet, frozen: FeatureEngine, folder: Path
) -> tuple[FeatureFile, FeatureFile]:
    """The files of the training images' views, and of the validation images' center crops."""
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    augmentation = [dataclasses.asdict(plan.config.augmentation), plan.solver.seed]
    network_of = (frozen, plan.info.network, state, plan.solver.trained_from, plan.info.preprocess)
    return (
        feature_file(folder, "views", *network_of, augmentation),
        feature_file(folder, "center", *network_of),
    )


def _problems(plan: Plan, unreadable: Sequence[Mapping[int, str]]) -> list[str]:
    """What is wrong with each image that cannot be read.

    Raises:
        InputError: there are some, and `strict` is set; or there are no others.
    """
    assert plan.val is not None
    problems = [text for each in unreadable for _, text in sorted(each.items())]
    for each, images in zip(unreadable, (plan.train, plan.val)):
        if len(each) == len(images):
            raise InputError(
                f"none of the {len(images)} images of a list can be read: "
                f"{describe_problems(problems)}."
            )
    if problems and not plan.config.data.skip_unreadable:
        raise InputError(
            f"{len(problems)} of {len(plan.train) + len(plan.val)} images cannot be read, and "
            f"without `strict` they would be left out: {describe_problems(problems)}."
        )
    return problems

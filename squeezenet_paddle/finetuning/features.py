"""The features of a run's two lists: cached in its directory, or computed as they are needed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from ..data.lists import ImageList
from ..data.loader import Batches
from ..data.preprocess import EvalTransform
from ..data.sampler import Sampler
from ..device import choose_device
from ..engines.batches import FeatureEngine
from ..engines.load import load_features
from ..errors import InputError, describe_problems
from ..files import sha256
from ..network.stages import boundary, is_trained, state_stages
from ..progress import say
from ..run_dir import FEATURES
from ..training.plan import Plan
from .cache import FeatureFile, check_room, size_text
from .loaders import CachedFeatures, ViewTransform, fill

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
    transforms: tuple[ViewTransform, EvalTransform],
    network: SqueezeNet,
    on_skipped: Callable[[str], object],
) -> tuple[Batches, Batches]:
    """The features of the training and of the validation list, in batches.

    What the cache in the run's directory lacks is computed first.

    Args:
        plan: of the run; it has both lists.
        transforms: of both lists.
        network: with the weights that it starts from, those that are frozen among them.
        on_skipped: called with a message for each image that is left out, where that is allowed.

    Raises:
        InputError: images cannot be read, or the disk has no room.
        RunError: no engine computes the network, or the cache cannot be written.
    """
    assert plan.val is not None
    frozen, views = frozen_part(plan, network), transforms[0].views
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    train_key, val_key = keys_of(plan, state, frozen.engine)
    folder = plan.output_dir / FEATURES
    files = (
        FeatureFile(folder, "train", train_key, len(plan.train), views, frozen.size),
        FeatureFile(folder, "val", val_key, len(plan.val), 1, frozen.size),
    )
    for file in files:
        if problem := file.check():
            say(problem)
    say(
        f"features: {frozen.size:,} numbers by {frozen.engine} for each of {views} views of "
        f"{len(plan.train)} images and for {len(plan.val)} of validation; "
        f"{size_text(sum(file.bytes for file in files))} in {folder}"
    )
    check_room(folder, files)
    machine = plan.config.machine
    reading = (frozen, machine.num_workers, machine.max_pixels)
    fill(files[0], "features, training", plan.train, transforms[0], *reading)
    fill(files[1], "features, validation", plan.val, transforms[1], *reading)
    for problem in _unreadable(plan, files):
        on_skipped(problem)
    size = plan.solver.batch_size // plan.solver.parts
    sampler = Sampler(len(plan.train), size, shuffle=True, seed=plan.solver.seed)
    val_sampler = Sampler(len(plan.val), size)
    return (
        CachedFeatures(plan.train, files[0], sampler),
        CachedFeatures(plan.val, files[1], val_sampler),
    )


def keys_of(plan: Plan, state: Mapping[str, np.ndarray], engine: str) -> tuple[str, str]:
    """Hashes of everything that the features of the two lists depend on.

    Args:
        plan: of the run.
        state: arrays of its network by state-dict key.
        engine: what computes the features.
    """
    assert plan.val is not None
    config, trained_from = plan.info.network, plan.solver.trained_from
    stages = state_stages(config)
    frozen = {
        key: sha256(np.ascontiguousarray(array).tobytes())
        for key, array in state.items()
        if not is_trained(stages[key], trained_from)
    }
    network = [config.version, config.bypass, config.activation, config.data_format]
    preprocess = plan.info.preprocess.record()
    common = [engine, network, boundary(config, trained_from), frozen, preprocess]
    augmentation = [dataclasses.asdict(plan.config.augmentation), plan.solver.seed]
    return (
        _hash([*common, augmentation, _images(plan.train)]),
        _hash([*common, None, _images(plan.val)]),
    )


def _images(images: ImageList) -> str:
    """A hash of a list's images: names, sizes and times of change."""
    status: list[tuple[Any, ...]] = []
    for i in range(len(images)):
        try:
            file = images.path(i).stat()
        except OSError:
            status.append((images.name(i), None, None))
        else:
            status.append((images.name(i), file.st_size, file.st_mtime_ns))
    return _hash(status)


def _hash(value: Any) -> str:
    return sha256(json.dumps(value).encode())


def _unreadable(plan: Plan, files: tuple[FeatureFile, FeatureFile]) -> list[str]:
    """What is wrong with each image that cannot be read.

    Raises:
        InputError: there are some, and `skip_unreadable` was not given; or there are no others.
    """
    assert plan.val is not None
    problems = [text for file in files for _, text in sorted(file.unreadable.items())]
    for file, images in zip(files, (plan.train, plan.val)):
        if len(file.unreadable) == len(images):
            raise InputError(
                f"none of the {len(images)} images of a list can be read: "
                f"{describe_problems(problems)}."
            )
    if problems and not plan.config.data.skip_unreadable:
        raise InputError(
            f"{len(problems)} of {len(plan.train) + len(plan.val)} images cannot be read; "
            f"`skip_unreadable` leaves them out: {describe_problems(problems)}."
        )
    return problems

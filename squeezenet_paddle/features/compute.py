"""Features of images: computed once by an engine, and found again by what the images contain."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.contents import Contents, read_contents, signature
from ..data.decode import MAX_PIXELS
from ..data.lists import ImageList
from ..data.loader import Loader, Transform
from ..data.preprocess import Preprocess
from ..data.sampler import Sampler
from ..device import choose_device
from ..engines.batches import FeatureEngine
from ..engines.load import load_features
from ..errors import RunError
from ..files import sha256
from ..model_dir import read_info, read_weights
from ..network.config import ModelConfig
from ..network.stages import boundary, is_trained, state_stages
from ..network.weights import state_shapes
from ..progress import Progress, say
from ..run_dir import locked
from .cache import BLOCK, FeatureFile, check_room

MEMO = "contents.json"  # the hashes of the images, beside the features


def image_features(
    model_dir: Path,
    images: ImageList,
    folder: Path,
    *,
    preprocess: Preprocess | None = None,
    mirrored: bool = False,
    device: str | None = None,
    num_workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    memo: Path | None = None,
) -> tuple[np.ndarray, dict[int, str]]:
    """The means of all fires' maps for each image, which say what is on it.

    What `folder` lacks is computed and kept there. A fine-tuning of the head from the same model
    takes the same file.

    Args:
        model_dir: the network, whatever its head.
        images: the images.
        folder: of the cache.
        preprocess: None for the model's.
        mirrored: the features are the mean of those of the image and of the mirrored image.
        device, num_workers, max_pixels: as for the commands.
        memo: of `read_contents`; None for one in `folder`.

    Returns:
        float16 [N, 2560], of the center crops; and what is wrong with each image that cannot be
        read, by index, whose row is of zeros.

    Raises:
        InputError: the model is not usable, or the disk has no room.
        RunError: no engine computes the network, the cache cannot be written, or an image changed
            while it was read.
    """
    info = read_info(model_dir)
    config = dataclasses.replace(info.network, head="multiscale")
    own = read_weights(model_dir, info).state
    head = {key: np.zeros(shape, "float32") for key, shape in state_shapes(config).items()}
    state = {key: own.get(key, zeros) for key, zeros in head.items()}
    preprocess = preprocess or info.preprocess
    engine = load_features(config, state, preprocess, "head", choose_device(device))
    views = 2 if mirrored else 1
    file = feature_file(folder, "center", engine, config, state, "head", preprocess)
    with locked(folder):
        contents = read_contents(paths_of(images), memo or folder / MEMO)
        if problem := file.check():
            say(problem)
        missing = sum(int(np.sum(file.rows(contents.hashes, v) < 0)) for v in range(views))
        check_room(folder, file.row_bytes * missing)
        reading = (engine, num_workers, max_pixels)
        transform = CenterTransform(preprocess)
        unreadable = fill(file, "features", images, contents, transform, views, *reading)
    data = file.read()
    features = np.zeros((len(images), engine.size), "float16")
    for view in range(views):
        rows = file.rows(contents.hashes, view)
        features[rows >= 0] += data[rows[rows >= 0]] / views
    return features, unreadable


@dataclass(frozen=True)
class CenterTransform:
    """The center crop; where the epoch is 1, that of the mirrored image."""

    preprocess: Preprocess

    @property
    def shape(self) -> tuple[int, ...]:
        return self.preprocess.input_shape

    def __call__(self, image: np.ndarray, epoch: int, index: int, out: np.ndarray) -> None:
        self.preprocess(image[:, ::-1] if epoch else image, out)


def feature_file(
    folder: Path,
    name: str,
    engine: FeatureEngine,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    trained_from: str,
    preprocess: Preprocess,
    augmentation: Any = None,
) -> FeatureFile:
    """The file of the features before a stage, whose key holds everything that they depend on.

    Args:
        folder: where it lies.
        name: of it; where the network is cut and the preprocessing are added, so that a check and
            a training at other sizes have a file each.
        engine: what computes the features.
        config, state: the network, and its arrays by state-dict key.
        trained_from: the stage.
        preprocess: of the images.
        augmentation: what else the views depend on, as JSON has it.
    """
    stages, cut = state_stages(config), boundary(config, trained_from)
    frozen = {
        key: sha256(np.ascontiguousarray(state[key]).tobytes())
        for key in sorted(stages)
        if not is_trained(stages[key], trained_from)
    }
    network = [config.version, config.bypass, config.activation, config.data_format]
    everything = [engine.engine, network, cut, frozen, preprocess.record(), augmentation]
    name = f"{name}-{_hash([cut, preprocess.record()])[:6]}"
    return FeatureFile(folder, name, _hash(everything), engine.size)


def _hash(value: Any) -> str:
    return sha256(json.dumps(value).encode())


def paths_of(images: ImageList) -> list[Path]:
    """Where the images of a list are."""
    return [images.path(i) for i in range(len(images))]


@dataclass(frozen=True)
class _Missing(Sampler):
    """The images that lack features, for each view in the place of an epoch."""

    missing: tuple[np.ndarray, ...] = ()

    def order(self, epoch: int) -> np.ndarray:
        return self.missing[epoch]


def fill(
    file: FeatureFile,
    what: str,
    images: ImageList,
    contents: Contents,
    transform: Transform,
    views: int,
    engine: FeatureEngine,
    num_workers: int,
    max_pixels: int,
) -> dict[int, str]:
    """Computes what a file of features lacks, with a progress bar on standard error.

    Args:
        file: where they go, checked.
        what: said beside the progress bar.
        images, contents: the list, and what its files contain.
        transform: makes the sample of view v where the epoch is v.
        views: of each image.
        engine: makes features of samples.
        num_workers, max_pixels: of the reader.

    Returns:
        What is wrong with each image that cannot be read, by index.

    Raises:
        RunError: the file cannot be written, or an image changed while it was read.
    """
    lacking = [np.flatnonzero(file.rows(contents.hashes, view) < 0) for view in range(views)]
    todo = sum(map(len, lacking))
    if not todo:
        return {}
    most = max(map(len, lacking))
    sampler = _Missing(most, min(BLOCK, most), missing=tuple(lacking))
    loader = Loader(images, transform, sampler, num_workers, max_pixels, on_unreadable=str)
    total = views * len(images)
    with loader, file.writer() as writer, Progress(what, total, done=total - todo) as progress:
        done = total - todo
        for view in range(views):
            for batch in loader.epoch(view):
                if len(batch.indices):
                    features = engine.features(batch.inputs)
                    _check_unchanged(images, contents, batch.indices)
                    writer.write([contents.hashes[i] for i in batch.indices], view, features)
                done += len(batch.indices)
                progress.reach(done)
    return loader.skipped


def _check_unchanged(images: ImageList, contents: Contents, indices: np.ndarray) -> None:
    for i in indices:
        if signature(images.path(i)) != contents.signatures[i]:
            raise RunError(
                f"{images.path(i)}: changed while it was read; the same command again takes it as "
                "it is then."
            )

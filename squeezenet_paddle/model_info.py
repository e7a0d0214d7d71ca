"""What a model directory says of its weights: config.json and what belongs to it, read strictly."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .array_files import read_npy
from .data.lists import read_names
from .data.preprocess import MeanImage, Preprocess
from .errors import InputError
from .familiarity import Calibration
from .files import check_regular, read_regular
from .network.config import FIRE9_CHANNELS, ModelConfig, minimum_input_size
from .run_dir import model_dir_of

CONFIG = "config.json"
WEIGHTS = "model.pdparams"
NAMES = "synset_words.txt"
MEAN_IMAGE = "mean_image.npy"
FAMILIARITY = "familiarity.npz"
FORMAT_VERSION = 1
DIGEST = "weights_sha256"  # in config.json; directories of before it was there lack it
_LARGEST_TEXT, _LARGEST_ARRAYS = 16 << 20, 256 << 20  # bytes of a file at most
_LONGEST_NAME = 200  # of a layer

T = TypeVar("T", ModelConfig, Preprocess)


@dataclass(frozen=True)
class ModelInfo:
    """The contents of config.json and synset_words.txt.

    Attributes:
        network: which SqueezeNet.
        preprocess: how an image becomes its input.
        names: class names by id; None where unknown.
        source: where the weights came from.
        verification: how a conversion was proven; empty where it was not.
        scores: the scores of the weights, by name of the list.
        calibration: how far its answers can be trusted, and which images are none of its classes;
            None where that was not fitted.
    """

    network: ModelConfig
    preprocess: Preprocess
    names: list[str] | None = None
    source: dict[str, Any] = field(default_factory=dict)
    verification: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if self.network.data_format != self.preprocess.data_format:
            raise InputError(
                f"the network reads {self.network.data_format} and the preprocessing makes "
                f"{self.preprocess.data_format}; both must be the same."
            )

    @property
    def is_untrained(self) -> bool:
        """Whether a converter made a new classifier, which nothing has trained yet."""
        return self.source.get("classifier") == "new"

    def check_trained(self, untrained: bool) -> None:
        """Refuses an untrained classifier, unless the user asks for it.

        Raises:
            InputError: the classifier is untrained and `untrained` is False.
        """
        if self.is_untrained and not untrained:
            raise InputError(
                "the classifier of this model directory is new and untrained, so that its classes "
                "mean nothing; fine-tune it, or give `untrained` to go on."
            )


def read_info(path: str | Path) -> ModelInfo:
    """Reads config.json and synset_words.txt; needs no Paddle.

    Args:
        path: a model directory, or the directory of a training run, whose best model is read.

    Raises:
        InputError: it is no model directory, or something in it is not as expected.
    """
    path = model_dir_of(Path(path))
    file, config = path / CONFIG, read_config(path)
    network = _from_json(config["network"], ModelConfig, f"{file}, network")
    values = config["preprocess"]
    if isinstance(values, dict):
        values = {**values, "mean_image": _read_mean_image(path, values.get("mean_image"))}
    preprocess = _from_json(values, Preprocess, f"{file}, preprocess")
    if preprocess.crop_size < (smallest := minimum_input_size(network.version)):
        raise InputError(
            f"{file}, preprocess: crop_size must be at least {smallest} for SqueezeNet "
            f"v{network.version}; found {preprocess.crop_size}."
        )
    records = {}
    for key in ("source", "verification", "scores"):
        if not isinstance(config[key], dict):
            raise InputError(f"{file}, {key}: a JSON object was expected.")
        records[key] = config[key]
    name = records["source"].get("classifier_name", "conv10")
    if not (isinstance(name, str) and name.isprintable() and 0 < len(name) <= _LONGEST_NAME):
        raise InputError(f"{file}, source: classifier_name must be the name of a layer.")
    calibration = None
    if "calibration" in config:
        calibration = _read_calibration(path, config["calibration"], network.num_classes)
    names_file = path / NAMES
    names = None
    if names_file.exists():
        check_regular(names_file, "list of class names", _LARGEST_TEXT)
        names = read_names(names_file, network.num_classes)
    try:
        return ModelInfo(network, preprocess, names, **records, calibration=calibration)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """config.json, with the keys that it should have."""
    file = folder / CONFIG
    if not file.exists():
        raise InputError(f"{folder}: {_problem_of(folder)}.")
    try:
        config = json.loads(read_regular(file, "model description", _LARGEST_TEXT).decode("utf-8"))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error}).") from error
    keys = {"format_version", "network", "preprocess", "source", "verification", "scores"}
    _check_keys(config, keys, str(file), {"calibration", DIGEST})
    version = config["format_version"]
    if type(version) is not int or version != FORMAT_VERSION:
        raise InputError(
            f"{file}: format_version {FORMAT_VERSION} was expected, found {version!r}."
        )
    return config


def _problem_of(path: Path) -> str:
    """Why a path is no model directory and, if it can be told, what to give or run instead."""
    if path.is_file():
        if path.suffix in (".caffemodel", ".prototxt"):
            return f"a model directory was expected, found a Caffe file; {_conversion(path)}"
        if (path.parent / CONFIG).is_file():
            return f"a model directory was expected, found a file in one; give {path.parent}"
        return f"a directory with {CONFIG} and {WEIGHTS} was expected, found a file"
    if re.match(r"\w+:/", str(path)):
        return (
            "a model directory on this machine was expected, found a URL; download the "
            ".caffemodel file (squeezenet download), then convert it (squeezenet convert)"
        )
    if not path.is_dir():
        return "no such directory; a model directory was expected"
    problem = f"not a model directory, it has no {CONFIG}"
    if inside := sorted(str(file.parent) for file in path.glob(f"*/{CONFIG}")):
        return f"{problem}; give one of those in it: {', '.join(inside)}"
    if caffe := sorted(path.glob("*.caffemodel")):
        return f"{problem}; {_conversion(caffe[0])}"
    return problem


def _conversion(file: Path) -> str:
    caffemodel = file.with_suffix(".caffemodel")
    return (
        f"squeezenet convert --caffemodel {caffemodel} "
        f"--output_dir {file.with_suffix('')} makes one of it"
    )


def _read_mean_image(path: Path, checksum: object) -> MeanImage | None:
    """The mean image of a model directory, if config.json has the checksum of one."""
    if checksum is None:
        return None
    file = path / MEAN_IMAGE
    try:
        image = MeanImage(read_npy(read_regular(file, "mean image", _LARGEST_ARRAYS), str(file)))
    except (ValueError, TypeError) as error:
        raise InputError(f"{file}: this mean image is damaged ({error}).") from error
    if image.sha256 != checksum:
        raise InputError(f"{file}: this is another mean image than that of {CONFIG}.")
    return image


def _read_calibration(path: Path, record: Any, num_classes: int) -> Calibration:
    """The calibration of a model directory whose config.json has the block of one."""
    file = path / FAMILIARITY
    data = read_regular(file, "file of what the classes look like", _LARGEST_ARRAYS)
    try:
        calibration = Calibration.from_record(record, data)
    except InputError as error:
        raise InputError(f"{path / CONFIG}, calibration, and {file.name}: {error}") from error
    classes, _, means = calibration.familiarity.prototypes.shape
    if (classes, means) != (num_classes, FIRE9_CHANNELS):
        raise InputError(
            f"{file}: {num_classes} classes and {FIRE9_CHANNELS} means were expected, found "
            f"{classes} and {means}."
        )
    return calibration


def _check_keys(values: Any, known: set[str], where: str, optional: Set[str] = frozenset()) -> None:
    if not isinstance(values, dict):
        raise InputError(f"{where}: a JSON object was expected, found {type(values).__name__}.")
    unknown, missing = sorted(set(values) - known - optional), sorted(known - set(values))
    if unknown or missing:
        raise InputError(
            f"{where}: unknown keys: {', '.join(unknown) or 'none'}; "
            f"missing keys: {', '.join(missing) or 'none'}."
        )


def _from_json(values: Any, cls: type[T], where: str) -> T:
    """A dataclass from a JSON object with exactly its fields."""
    _check_keys(values, {f.name for f in dataclasses.fields(cls)}, where)
    try:
        return cls(**values)
    except (InputError, TypeError) as error:
        raise InputError(f"{where}: {error}") from error

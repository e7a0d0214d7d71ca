"""The model directory: a network's weights, its configuration, preprocessing and class names.

    model.pdparams     state dict, as paddle.save writes it
    model.sqz          in place of it: compressed weights, see `sqz/format.py`
    model.net          the same in Deep Compression's format, where it was asked for
    config.json        network, preprocessing, source, verification, scores, SHA-256 of the weights
    synset_words.txt   class names, where they are known
    mean_image.npy     the mean image that the preprocessing subtracts, if it subtracts one
    familiarity.npz    what the network's classes look like, where it was calibrated

Exports (see `export_record.py`) lie beside them and are removed when the weights are replaced. It
is read strictly, and written as a whole or not at all. config.json has the SHA-256 of the weights,
so that a damaged bit is not taken for a weight. Like every Paddle file, model.pdparams is a pickle;
reading it here runs nothing that is in it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .array_files import read_npy
from .data.lists import read_names
from .data.preprocess import MeanImage, Preprocess
from .errors import InputError
from .export_record import NAMES as EXPORTED
from .familiarity import Calibration
from .files import atomic_directory, check_directory, check_regular, read_regular, sha256
from .network.config import FIRE9_CHANNELS, ModelConfig, minimum_input_size
from .network.weights import check_state, read_state, state_shapes
from .run_dir import model_dir_of
from .sqz import format as sqz

if TYPE_CHECKING:
    from .network.model import SqueezeNet

CONFIG = "config.json"
WEIGHTS, COMPRESSED = "model.pdparams", "model.sqz"
NET = "model.net"  # a copy of compressed weights for other programs
NAMES = "synset_words.txt"
MEAN_IMAGE = "mean_image.npy"
FAMILIARITY = "familiarity.npz"
OPTIONAL = (NAMES, MEAN_IMAGE, FAMILIARITY, NET, *EXPORTED)
FORMAT_VERSION = 1
_DIGEST = "weights_sha256"  # in config.json; directories of before it was there lack it
# Bytes of a file at most; of weights, beside 8 for each number that the network has.
_LARGEST_TEXT, _LARGEST_ARRAYS, _LARGEST_WEIGHTS = 16 << 20, 256 << 20, 1 << 20
_LONGEST_NAME = 200  # of a layer

_log = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class Weights:
    """The contents of model.pdparams or model.sqz.

    Attributes:
        state: float32 arrays by state-dict key.
        fingerprint: checksum of all that an export depends on: the weights, the network and the
            preprocessing.
    """

    state: dict[str, np.ndarray]
    fingerprint: str


def check_target(path: Path) -> None:
    """Refuses a path that `write_model_dir` would refuse, before any work is done.

    Raises:
        InputError: `path` holds something other than a model directory.
    """
    check_directory(path, _required(path), OPTIONAL)


def _required(path: Path) -> tuple[str, str]:
    """The files that make a directory one of ours, which may be replaced."""
    return (CONFIG, COMPRESSED if (path / COMPRESSED).is_file() else WEIGHTS)


def write_model_dir(path: str | Path, info: ModelInfo, state: Mapping[str, Any]) -> None:
    """Writes a model directory under a temporary name and renames it.

    Args:
        path: an existing model directory there is replaced; anything else is left alone.
        info: the contents of config.json and synset_words.txt.
        state: tensors by state-dict key.

    Raises:
        InputError: `path` holds something other than a model directory.
    """
    import paddle

    _write(path, info, lambda folder: paddle.save(dict(state), str(folder / WEIGHTS)))


def write_compressed(
    path: str | Path, info: ModelInfo, data: bytes, net: bytes | None = None
) -> None:
    """Writes a model directory whose weights are a .sqz file; as `write_model_dir`, without Paddle.

    Args:
        path: as there.
        info: as there.
        data: the .sqz file.
        net: a file of the same weights in the format of Deep Compression, which is put beside it.
    """

    def write_weights(folder: Path) -> None:
        (folder / COMPRESSED).write_bytes(data)
        if net is not None:
            (folder / NET).write_bytes(net)

    _write(path, info, write_weights)


def _write(path: str | Path, info: ModelInfo, write_weights: Callable[[Path], object]) -> None:
    config = {
        "format_version": FORMAT_VERSION,
        "network": dataclasses.asdict(info.network),
        "preprocess": info.preprocess.record(),
        "source": info.source,
        "verification": info.verification,
        "scores": info.scores,
    }
    if info.calibration is not None:
        config["calibration"] = info.calibration.record()
    with atomic_directory(Path(path), _required(Path(path)), OPTIONAL) as temporary:
        write_weights(temporary)
        config[_DIGEST] = sha256(weights_file(temporary).read_bytes())
        if info.preprocess.mean_image is not None:
            np.save(temporary / MEAN_IMAGE, info.preprocess.mean_image.values)
        if info.calibration is not None:
            (temporary / FAMILIARITY).write_bytes(info.calibration.familiarity.to_bytes())
        if info.names is not None:
            text = "".join(f"{name}\n" for name in info.names)
            (temporary / NAMES).write_text(text, encoding="utf-8")
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_info(path: str | Path) -> ModelInfo:
    """Reads config.json and synset_words.txt; needs no Paddle.

    Args:
        path: a model directory, or the directory of a training run, whose best model is read.

    Raises:
        InputError: it is no model directory, or something in it is not as expected.
    """
    path = model_dir_of(Path(path))
    file, config = path / CONFIG, _read_config(path)
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


def _read_config(folder: Path) -> dict[str, Any]:
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
    _check_keys(config, keys, str(file), {"calibration", _DIGEST})
    version = config["format_version"]
    if type(version) is not int or version != FORMAT_VERSION:
        raise InputError(
            f"{file}: format_version {FORMAT_VERSION} was expected, found {version!r}."
        )
    return config


def weights_file(path: str | Path) -> Path:
    """The file of weights of a model directory.

    Raises:
        InputError: it has none, or two.
    """
    folder = model_dir_of(Path(path))
    files = [folder / name for name in (WEIGHTS, COMPRESSED) if (folder / name).exists()]
    if len(files) != 1:
        found = f"it has both {WEIGHTS} and {COMPRESSED}; remove one" if files else None
        raise InputError(f"{path}: {found or f'it has no {WEIGHTS} and no {COMPRESSED}'}.")
    return files[0]


def read_weights(path: str | Path, info: ModelInfo) -> Weights:
    """Reads the weights of a model directory; needs no Paddle.

    Raises:
        InputError: they cannot be read, do not fit config.json, or were changed since that was
            written.
    """
    file, shapes = weights_file(path), state_shapes(info.network)
    numbers = sum(map(math.prod, shapes.values()))
    data = read_regular(file, "file of weights", _LARGEST_WEIGHTS + 8 * numbers)
    if file.name == COMPRESSED:
        content = sqz.read(data, str(file))
        if content.network != info.network:
            raise InputError(f"{file}: it holds another network than {CONFIG} describes.")
        state = content.state
    else:
        state = read_state(data, str(file))
    check_state(shapes, state, str(file))
    digest = hashlib.sha256(data)
    _check_digest(file, digest.hexdigest())
    described = [dataclasses.asdict(info.network), info.preprocess.record()]
    digest.update(json.dumps(described).encode())
    state = {key: np.asarray(values, "float32") for key, values in state.items()}
    return Weights(state, digest.hexdigest())


def _check_digest(file: Path, digest: str) -> None:
    """Refuses weights other than those that config.json beside them was written with."""
    config = _read_config(file.parent)
    recorded = config.get(_DIGEST)
    if _DIGEST not in config:
        _tell_unproven(file)
    elif recorded != digest:
        raise InputError(
            f"{file}: these are not the weights that {CONFIG} was written with: they are damaged, "
            f"or were replaced ({_DIGEST} is {recorded!r:.70}, and theirs is {digest!r})."
        )


@functools.cache
def _tell_unproven(file: Path) -> None:
    """Says once that damage of some weights would not be seen."""
    _log.warning(
        "%s: %s is of a version that kept no %s, so that damaged weights cannot be told from good "
        "ones; converting or training it again adds it.",
        *(file, CONFIG, _DIGEST),
    )


def read_model_dir(path: str | Path) -> tuple[ModelInfo, SqueezeNet]:
    """Reads a model directory: its description, and the network with its weights.

    Args:
        path: a model directory, or the directory of a training run, whose best model is read.

    Raises:
        InputError: it is no model directory, or something in it is not as expected.
    """
    info = read_info(path)
    return info, load_network(path, info)


def load_network(path: str | Path, info: ModelInfo) -> SqueezeNet:
    """The network of a model directory with its weights, in evaluation mode.

    Raises:
        InputError: the weights cannot be read or do not fit config.json.
    """
    return network_of(info.network, read_weights(path, info).state, str(path))


def network_of(config: ModelConfig, state: Mapping[str, np.ndarray], source: str) -> SqueezeNet:
    """A network with these weights, in evaluation mode, on Paddle's current device.

    Args:
        config: which network.
        state: arrays by state-dict key.
        source: where they came from, for errors.
    """
    from .network.model import SqueezeNet, load_state

    network = SqueezeNet(config)
    load_state(network, state, source)
    network.eval()
    return network


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

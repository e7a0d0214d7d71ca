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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .export_record import NAMES as EXPORTED
from .files import atomic_directory, check_directory, read_regular, sha256
from .model_info import (
    CONFIG,
    DIGEST,
    FAMILIARITY,
    FORMAT_VERSION,
    MEAN_IMAGE,
    NAMES,
    WEIGHTS,
    ModelInfo,
    read_config,
    read_info,
)
from .network.config import ModelConfig
from .network.weights import check_state, read_state, state_shapes
from .run_dir import model_dir_of
from .sqz import reader

if TYPE_CHECKING:
    from .network.model import SqueezeNet

COMPRESSED = "model.sqz"
NET = "model.net"  # a copy of compressed weights for other programs
OPTIONAL = (NAMES, MEAN_IMAGE, FAMILIARITY, NET, *EXPORTED)
_LARGEST_WEIGHTS = 1 << 20  # bytes at most, beside 8 for each number that the network has

_log = logging.getLogger(__name__)


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
        config[DIGEST] = sha256(weights_file(temporary).read_bytes())
        if info.preprocess.mean_image is not None:
            np.save(temporary / MEAN_IMAGE, info.preprocess.mean_image.values)
        if info.calibration is not None:
            (temporary / FAMILIARITY).write_bytes(info.calibration.familiarity.to_bytes())
        if info.names is not None:
            text = "".join(f"{name}\n" for name in info.names)
            (temporary / NAMES).write_text(text, encoding="utf-8")
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


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
        content = reader.read(data, str(file))
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
    config = read_config(file.parent)
    recorded = config.get(DIGEST)
    if DIGEST not in config:
        _tell_unproven(file)
    elif recorded != digest:
        raise InputError(
            f"{file}: these are not the weights that {CONFIG} was written with: they are damaged, "
            f"or were replaced ({DIGEST} is {recorded!r:.70}, and theirs is {digest!r})."
        )


@functools.cache
def _tell_unproven(file: Path) -> None:
    """Says once that damage of some weights would not be seen."""
    _log.warning(
        "%s: %s is of a version that kept no %s, so that damaged weights cannot be told from good "
        "ones; converting or training it again adds it.",
        *(file, CONFIG, DIGEST),
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

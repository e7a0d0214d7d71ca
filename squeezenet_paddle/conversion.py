"""What converters share: a file as one of our networks, and the checks of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .network.config import ModelConfig
from .network.heads import HEADS

if TYPE_CHECKING:
    from .network.model import SqueezeNet


@dataclass(frozen=True)
class ConvertedWeights:
    """A file of weights that has passed every check.

    Attributes:
        config: the network that it fills.
        state: float32 arrays by state-dict key; without the classifier if that is to be new.
        source: format, file name, SHA-256 and whether the classifier is the file's, for
            config.json.
        notes: what the user should know of how the file was read, a sentence each.
    """

    config: ModelConfig
    state: dict[str, np.ndarray]
    source: dict[str, Any]
    notes: tuple[str, ...] = ()


def check_agreement(config: ModelConfig, source: str, **expected: object) -> None:
    """Checks what the user says of a file against what it holds; None says nothing.

    Raises:
        InputError: they disagree.
    """
    for name, value in expected.items():
        found = getattr(config, name)
        if value is not None and value != found:
            raise InputError(f"`{name}` {value}: {source} holds a network with {name} {found}.")


def blob_problems(
    name: str, weight: np.ndarray, bias: np.ndarray, weight_shape: tuple[int, ...]
) -> list[str]:
    """What is wrong with the weight and the bias of the layer `name`.

    Weights that are all the same number are wrong too: a file that was made without training, or
    whose training broke, holds them.
    """
    channels = weight_shape[0]
    problems = []
    if weight.shape != weight_shape:
        problems.append(
            f"{name} has weights {extents(weight.shape)}, {extents(weight_shape)} was expected"
        )
    if bias.shape not in ((channels,), (1, 1, 1, channels)):
        problems.append(f"{name} has a bias {extents(bias.shape)}, {channels} was expected")
    not_finite = [
        f"{name} has NaN or infinite values in its {what}"
        for what, values in (("weights", weight), ("bias", bias))
        if not np.isfinite(values).all()
    ]
    if weight.size > 1 and not not_finite and (weight == weight.flat[0]).all():
        problems.append(f"{name} is not trained: all its weights are {weight.flat[0]:g}")
    return problems + not_finite


def extents(shape: tuple[int, ...]) -> str:
    """A shape as text, e.g. "64x3x3x3"."""
    return "x".join(map(str, shape)) or "scalar"


def build_network(weights: ConvertedWeights, seed: int = 0) -> SqueezeNet:
    """The network with these weights, in evaluation mode; `seed` makes a new classifier.

    It lives on the CPU: a GPU may compute with fewer bits than a verification asks for. Paddle
    numbers all parameters of a process and saves their names; here each network starts from 0, so
    that a file is always converted to the same bytes.
    """
    import paddle

    from .network.model import SqueezeNet, load_state

    paddle.set_device("cpu")
    paddle.seed(seed)
    with paddle.utils.unique_name.guard():
        network = SqueezeNet(weights.config)
    state = dict(weights.state)
    if weights.source["classifier"] == "new":
        prefix = f"{HEADS[weights.config.head].classifier}."
        for key, value in network.state_dict().items():
            if key.startswith(prefix):
                state[key] = value.numpy()
    load_state(network, state, weights.source["file"])
    network.eval()
    return network


def check_new_classifier(ignore_classifier: bool, num_classes: int | None) -> None:
    """Refuses to leave the classifier out where the size of the new one is not known."""
    if ignore_classifier and num_classes is None:
        raise InputError("`ignore_classifier` needs `num_classes`, the size of the new classifier.")


def source_record(
    kind: str, path: Path, digest: str, ignore_classifier: bool, **more: Any
) -> dict[str, Any]:
    """What config.json says of where weights came from."""
    return {
        "format": kind,
        "file": path.name,
        "sha256": digest,
        "classifier": "new" if ignore_classifier else "converted",
        **more,
    }

"""Entry points for `paddle.hub`, which finds them in a clone of this repository:

    network = paddle.hub.load("squeezenet_paddle", "squeezenet1_1", source="local")
    predict = paddle.hub.load("squeezenet_paddle", "predictor", source="local", model_dir="mine")

Here "squeezenet_paddle" is the folder of the clone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.model_dir import read_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.model import SqueezeNet
from squeezenet_paddle.predict import Predictor

dependencies = ["paddle", "numpy", "cv2", "PIL"]


def squeezenet1_0(model_dir: str | Path | None = None, **config: Any) -> SqueezeNet:
    """SqueezeNet v1.0: newly initialised, or with the weights of a model directory.

    Args:
        model_dir: where the weights come from; the network in it has to be as asked for.
        **config: `num_classes` (1000 for a new network) and other fields of
            `squeezenet_paddle.network.config.ModelConfig`.
    """
    return _network("1.0", model_dir, config)


def squeezenet1_1(model_dir: str | Path | None = None, **config: Any) -> SqueezeNet:
    """SqueezeNet v1.1; arguments as for `squeezenet1_0`."""
    return _network("1.1", model_dir, config)


def predictor(model_dir: str | Path, **options: Any) -> Predictor:
    """Classifies images with a model directory; see `squeezenet_paddle.Predictor`."""
    return Predictor(model_dir, **options)


def _network(version: str, model_dir: str | Path | None, config: dict[str, Any]) -> SqueezeNet:
    if model_dir is None:
        return SqueezeNet(ModelConfig(version, **config))
    info, network = read_model_dir(model_dir)
    fields = dataclasses.asdict(info.network)
    for name, value in {"version": version, **config}.items():
        if fields.get(name) != value:
            raise InputError(f"{model_dir}: its {name} is {fields.get(name)}, not {value}.")
    return network

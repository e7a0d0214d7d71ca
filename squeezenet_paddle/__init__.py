"""SqueezeNet on PaddlePaddle, starting from the authors' original Caffe weights.

    from squeezenet_paddle import TrainConfig, train

    train(TrainConfig.from_settings(train_list="train_list.txt", output_dir="output/run1"))

Importing this package imports nothing else: Paddle takes seconds to load, and much of what the
package does (reading a Caffe file, checking a list, decoding images) works without it. The public
names are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluation.evaluate import evaluate
    from .finetuning.config import FinetuneConfig
    from .finetuning.run import finetune
    from .model_dir import read_model_dir
    from .network.model import squeezenet1_0, squeezenet1_1
    from .predict import Predictor
    from .training.config import TrainConfig
    from .training.run import train

__all__ = [
    "FinetuneConfig",
    "Predictor",
    "TrainConfig",
    "evaluate",
    "finetune",
    "read_model_dir",
    "squeezenet1_0",
    "squeezenet1_1",
    "train",
]
__version__ = "0.1.0"

_MODULES = {
    "FinetuneConfig": "finetuning.config",
    "Predictor": "predict",
    "TrainConfig": "training.config",
    "evaluate": "evaluation.evaluate",
    "finetune": "finetuning.run",
    "read_model_dir": "model_dir",
    "squeezenet1_0": "network.model",
    "squeezenet1_1": "network.model",
    "train": "training.run",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)

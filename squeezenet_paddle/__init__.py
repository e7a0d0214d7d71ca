"""SqueezeNet on PaddlePaddle, starting from the authors' original Caffe weights.

Importing this package imports nothing else: Paddle takes seconds to load, and much of what the
package does (reading a Caffe file, checking a list, decoding images) works without it. The public
names are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluation.evaluate import evaluate
    from .model_dir import read_model_dir
    from .network.model import squeezenet1_0, squeezenet1_1
    from .predict import Predictor

__all__ = ["Predictor", "evaluate", "read_model_dir", "squeezenet1_0", "squeezenet1_1"]
__version__ = "0.1.0"

_MODULES = {
    "Predictor": "predict",
    "evaluate": "evaluation.evaluate",
    "read_model_dir": "model_dir",
    "squeezenet1_0": "network.model",
    "squeezenet1_1": "network.model",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)

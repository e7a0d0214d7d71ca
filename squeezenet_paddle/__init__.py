"""SqueezeNet on PaddlePaddle, starting from the authors' original Caffe weights.

    from squeezenet_paddle import TrainConfig, train

    train(TrainConfig.from_settings(train_list="train_list.txt", output_dir="output/run1"))

Importing this package imports nothing else: Paddle takes seconds to load, and much of what the
package does (reading a Caffe file, checking a list, decoding images) works without it.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "squeezenet1_0": "network.model",
    "squeezenet1_1": "network.model",
    "Predictor": "predict",
    "read_info": "model_dir",
    "evaluate": "evaluation.evaluate",
    "TrainConfig": "training.config",
    "train": "training.run",
    "FinetuneConfig": "finetuning.config",
    "finetune": "finetuning.run",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    """Loads a public name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

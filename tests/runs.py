"""Small runs for tests: training on ten classes, and fine-tuning a tiny network on them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import signal
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from squeezenet_paddle.cli.config_flags import config_of
from squeezenet_paddle.data.loader import Batch, Batches
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.datasets.samples import make_sample_data
from squeezenet_paddle.finetuning.config import FinetuneConfig
from squeezenet_paddle.model_dir import ModelInfo, write_model_dir
from squeezenet_paddle.training import run as training_run
from squeezenet_paddle.training.config import TrainConfig
from squeezenet_paddle.training.inputs import image_inputs
from squeezenet_paddle.training.plan import Plan, make_plan
from squeezenet_paddle.training.run import Run

TINY = (
    *("--resize_size", "40", "--crop_size", "36", "--batch_size", "8", "--optimizer", "adam"),
    *("--lr", "1e-3", "--log_interval", "1", "--num_workers", "0", "--num_classes", "10"),
)


def make_tiny_data(folder: Path) -> Path:
    """30 training and 10 validation images of 10 classes; gives the folder."""
    make_sample_data(folder, seed=0, train=3, val=1)
    return folder


def make_image_folder(folder: Path, count: int = 5) -> Path:
    """A folder of images for each of ten classes; gives the folder of these."""
    make_sample_data(folder, seed=0, train=count, val=1)
    return folder / "train"


def make_pretrained(folder: Path) -> Path:
    """A model directory of random weights for images of 36 pixels; gives it."""
    import paddle

    from squeezenet_paddle.network.model import squeezenet1_1

    paddle.seed(0)
    network = squeezenet1_1(num_classes=7, init="xavier_normal")
    info = ModelInfo(network.config, Preprocess(resize_size=40, crop_size=36))
    write_model_dir(folder, info, network.state_dict())
    return folder


def flags(data: Path, output_dir: Path, *more: object) -> list[str]:
    """The command line of train.py for a tiny run; later flags win."""
    lists = ("--train_list", data / "train_list.txt", "--val_list", data / "val_list.txt")
    return [*map(str, lists), *TINY, "--output_dir", str(output_dir), *map(str, more)]


def finetune_flags(
    images: Path, pretrained: Path, output_dir: Path, *more: object, lr: float | None = 1e-3
) -> list[str]:
    """The command line of finetune.py for a tiny run; later flags win."""
    given = ("--images", images, "--pretrained", pretrained, "--output_dir", output_dir)
    tiny = ("--num_epochs", 3, "--batch_size", 16, "--num_workers", 0)
    rate = () if lr is None else ("--lr", lr)
    return [*map(str, (*given, *tiny, *rate, *more))]


def config(arguments: list[str]) -> TrainConfig:
    """What train.py makes of its flags."""
    return config_of(tool("train").parser().parse_args(arguments), TrainConfig)


def finetune_config(arguments: list[str]) -> FinetuneConfig:
    """What finetune.py makes of its flags."""
    return config_of(tool("finetune").parser().parse_args(arguments), FinetuneConfig)


def plan_of(arguments: list[str]) -> Plan:
    """The plan of the run that flags of train.py ask for."""
    return make_plan(config(arguments))


def train(arguments: list[str]) -> bool:
    """Trains as train.py does; whether the run came to its end."""
    return training_run.train(config(arguments)).finished


def train_until(arguments: list[str], step: int) -> bool:
    """Trains, with a Ctrl-C during the update that `step` counts; whether it came to its end."""
    from squeezenet_paddle.training.trainer import Trainer

    with Run.start(plan_of(arguments)) as run, image_inputs(run) as inputs:
        interrupting = Interrupting(inputs.train, step, run.plan.solver.parts)
        return Trainer(run, dataclasses.replace(inputs, train=interrupting)).train().finished


@dataclass
class Interrupting:
    """Batches during whose `step`-th update the trainer's handler of SIGINT is called.

    That real signals reach it is for `test_training_kill.py`, which sends them to other processes:
    here one that nobody handles would end the process that runs the tests.
    """

    batches: Batches
    step: int
    parts: int

    def __post_init__(self) -> None:
        self.images, self.sampler = self.batches.images, self.batches.sampler
        self.skipped = self.batches.skipped

    def epoch(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        updates = -(-len(self.sampler) // self.parts)
        for part, batch in enumerate(self.batches.epoch(epoch, start), start):
            update, place = divmod(part, self.parts)
            if epoch * updates + update + 1 == self.step and place == 0:
                handler = signal.getsignal(signal.SIGINT)
                # The statistics of a new head are read before training begins, where SIGINT has
                # Python's handler, or none in a process that was started in the background.
                if callable(handler) and handler is not signal.default_int_handler:
                    handler(signal.SIGINT, None)
            yield batch


def save_blank(figure: object, target: Any, **_: object) -> None:
    """Saves one white pixel in place of a figure."""
    pixel = cv2.imencode(".png", np.full((1, 1, 3), 255, np.uint8))[1].tobytes()
    if hasattr(target, "write"):
        target.write(pixel)
    else:
        Path(target).write_bytes(pixel)


def tool(name: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f"squeezenet_paddle.cli.{name}")


def weights(model_dir: Path) -> dict[str, np.ndarray]:
    """The state dict of a model directory."""
    import paddle

    return paddle.load(str(model_dir / "model.pdparams"), return_numpy=True)


def assert_same_weights(a: Path, b: Path) -> None:
    """Two model directories are equal bit for bit."""
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for key in first:
        assert np.array_equal(first[key], second[key]), key


def metrics(output_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]

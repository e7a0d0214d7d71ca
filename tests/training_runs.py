"""Small training runs for tests, in this process or in one of their own."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from squeezenet_paddle.datasets.samples import make_sample_data
from squeezenet_paddle.training.plan import Plan, make_plan

TINY = (
    *("--resize_size", "40", "--crop_size", "36", "--batch_size", "8", "--optimizer", "adam"),
    *("--lr", "1e-3", "--log_interval", "1", "--num_workers", "0", "--num_classes", "10"),
)


def make_tiny_data(folder: Path) -> Path:
    """30 training and 10 validation images of 10 classes; gives the folder."""
    make_sample_data(folder, seed=0, train=3, val=1)
    return folder


def flags(data: Path, output_dir: Path, *more: object) -> list[str]:
    """Of train.py for a tiny run; later flags win."""
    lists = ("--train_list", data / "train_list.txt", "--val_list", data / "val_list.txt")
    return [*map(str, lists), *TINY, "--output_dir", str(output_dir), *map(str, more)]


def plan_of(arguments: list[str]) -> Plan:
    """What train.py makes of its flags."""
    return make_plan(tool("train").parse_arguments(arguments))


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

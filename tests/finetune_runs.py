"""Small fine-tunings for tests: a tiny network, ten classes, three images of each."""

from __future__ import annotations

import argparse
from pathlib import Path

import paddle
from training_runs import tool

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.datasets.samples import make_sample_data
from squeezenet_paddle.model_dir import ModelInfo, write_model_dir
from squeezenet_paddle.network.model import squeezenet1_1


def make_images(folder: Path, count: int = 5) -> Path:
    """A folder for each of ten classes; gives the folder."""
    make_sample_data(folder, seed=0, train=count, val=1)
    return folder / "train"


def make_pretrained(folder: Path) -> Path:
    """A model directory of random weights for images of 36 pixels."""
    paddle.seed(0)
    network = squeezenet1_1(num_classes=7, init="xavier_normal")
    info = ModelInfo(network.config, Preprocess(resize_size=40, crop_size=36))
    write_model_dir(folder, info, network.state_dict())
    return folder


def arguments(images: Path, pretrained: Path, output_dir: Path, *more: object) -> list[str]:
    """Of finetune.py for a tiny run; later flags win."""
    given = ("--images", images, "--pretrained", pretrained, "--output_dir", output_dir)
    tiny = ("--num_epochs", 3, "--batch_size", 16, "--views", 2, "--num_workers", 0, "--lr", 1e-3)
    return [*map(str, (*given, *tiny, *more))]


def flags_of(given: list[str]) -> argparse.Namespace:
    """What finetune.py makes of its arguments."""
    return tool("finetune").parse_arguments(given)

"""Small images get a small input, unless the settings say how large it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image
from runs import finetune_flags, tool

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.model_dir import ModelInfo, read_info, write_model_dir
from squeezenet_paddle.network.model import squeezenet1_1

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights for images of 112 pixels."""
    paddle.seed(0)
    network = squeezenet1_1(num_classes=3, init="xavier_normal")
    folder = tmp_path_factory.mktemp("pretrained") / "model"
    info = ModelInfo(network.config, Preprocess(resize_size=128, crop_size=112))
    write_model_dir(folder, info, network.state_dict())
    return folder


def make_images(folder: Path, side: int) -> Path:
    """Six images of each of two classes."""
    rng = np.random.default_rng(0)
    for name, least in (("bright", 128), ("dark", 0)):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(least, least + 128, (side, side, 3), "uint8")
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("side", "flags", "expected"),
    [
        (20, (), (96, 96)),
        (25, (), (100, 100)),
        (28, (), (128, 112)),
        (20, ("--crop_size", 112), (128, 112)),
        (20, ("--resize_size", 120), (120, 112)),
        (20, ("--then", "fire9", "--then_epochs", 1, "--then_lr", 1e-4), (96, 96)),
    ],
)
def test_the_input_fits_the_images(
    side: int,
    flags: tuple[object, ...],
    expected: tuple[int, int],
    pretrained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, run = make_images(tmp_path / "images", side), tmp_path / "run"
    arguments = finetune_flags(images, pretrained, run, "--num_epochs", 1, "--no_check", *flags)
    assert tool("finetune").main(arguments) == 0
    preprocess = read_info(run).preprocess
    assert (preprocess.resize_size, preprocess.crop_size) == expected
    told = capsys.readouterr().err
    small = expected[1] < 112
    assert ("the images are small" in told) == small
    if small:
        assert f"{expected[1]} x {expected[1]} pixels in place of 112 x 112" in told
        assert tool("finetune").main(arguments) == 0  # the same command goes on with it
        assert "this run is finished" in capsys.readouterr().err

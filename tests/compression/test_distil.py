"""Training of rounded weights: on what, towards what, and that it can be killed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from networks import pixels, random_state

from squeezenet_paddle.compression.compress import Cost
from squeezenet_paddle.compression.distil import (
    BATCH,
    Settings,
    batch_of,
    distil,
)
from squeezenet_paddle.compression.memory import newest_checkpoint
from squeezenet_paddle.compression.walk import Walk
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.sqz.format import Array, Content, Indices, write

CONFIG = ModelConfig(num_classes=7, data_format="NHWC")
SIDE = 36


@pytest.fixture(scope="module")
def start() -> tuple[dict[str, np.ndarray], list[np.ndarray], Content]:
    """A network whose logits depend on the image, images, and the network rounded coarsely."""
    rng = np.random.default_rng(0)
    state = {
        key: (rng.normal(size=values.shape) * np.sqrt(2 / values[0].size)).astype("float32")
        if key.endswith(".weight")
        else values
        for key, values in random_state(CONFIG).items()
    }
    state["conv10.weight"] *= 3
    inputs = [cv2.resize(x, (40, 40)).astype("float16") for x in pixels(CONFIG, 12, 5)]
    arrays: dict[str, Array] = {}
    for key, values in state.items():
        arrays[key] = values.astype("float16")
        if key.endswith(".weight"):
            unit = np.float32(values.std() / 32)
            indices, scales = np.rint(values / (32 * unit)), np.zeros(values[0].size, "uint8")
            arrays[key] = Indices(indices.astype("int16"), unit, scales)
    return state, inputs, Content(CONFIG, arrays)


def run(start: tuple, folder: Path, threads: int, steps: int = 6, name: str = "x") -> bytes:
    state, inputs, content = start
    settings = Settings(steps, 3, checkpoint_every=3)
    newest = newest_checkpoint(folder, name)
    return write(distil(state, content, inputs, SIDE, settings, folder, name, newest, threads))[0]


def test_a_killed_run_goes_on_and_gives_the_same_file(start: tuple, tmp_path: Path) -> None:
    expected = run(start, tmp_path, threads=1)
    [checkpoint] = tmp_path.glob("*.ckpt")  # of step 3, as if the run had been killed after it
    before = checkpoint.read_bytes()
    assert run(start, tmp_path, threads=2) == expected  # whatever the number of threads
    assert run(start, tmp_path / "fresh", threads=2) == expected
    assert checkpoint.read_bytes() == before
    with pytest.raises(InputError, match="checkpoints of another compression"):
        run(start, tmp_path, threads=1, name="y")


def test_the_divergence_falls_and_the_size_stays(start: tuple, tmp_path: Path) -> None:
    state, inputs, content = start
    after = distil(state, content, inputs, SIDE, Settings(24, 0), tmp_path, "x")
    assert len(write(after)[0]) == len(write(content)[0])
    logits = [Walk(CONFIG, inputs).logits(each.state) for each in (content, after)]
    exact = Walk(CONFIG, inputs).logits(state)
    old, new = (Cost.between(exact, each).divergence for each in logits)
    assert new < 0.98 * old


def test_a_batch_follows_from_seed_and_step() -> None:
    images = list(np.random.default_rng(0).normal(size=(4, 3, 30, 30)).astype("float16"))
    batch = batch_of(images, 26, 5, 7)
    assert batch.shape == (BATCH, 3, 26, 26)
    np.testing.assert_array_equal(batch, batch_of(images, 26, 5, 7))
    assert not np.array_equal(batch, batch_of(images, 26, 5, 8))
    assert not np.array_equal(batch, batch_of(images, 26, 6, 7))

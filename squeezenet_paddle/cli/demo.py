"""Show the main job on data that this program makes itself; `make demo` runs it.

    python tools/demo.py

Makes images of ten classes, trains SqueezeNet v1.1 on them from scratch in two minutes,
evaluates it and names images. Writes a Caffe file, converts it and proves the conversion against
OpenCV's Caffe importer; then the same with the authors' weights, if they are in pretrained/ or in
$SQUEEZENET_ASSETS/caffe or can be downloaded.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ..caffe.writer import caffemodel, deploy_prototxt
from ..download import KNOWN_FILES, fetch
from ..errors import InputError
from ..files import write_bytes, write_text
from ..network.config import ModelConfig, layers
from ..network.weights import key_of
from . import common

TOOLS = Path(__file__).parents[2] / "tools"
PATTERNS = ("stripes", "checks", "rings")
SIDE = 240  # pixels
# Small images in any position, and a short run; a bias that keeps ten classes from dying at once.
RECIPE = (
    *("--resize_size", 64, "--crop_size", 64, "--mean", 118, 118, 118),
    *("--flip", 0.5, "--rotation", 180, "--border", "constant", "--dropout", 0),
    *("--optimizer", "adamw", "--lr", 0.001, "--warmup_steps", 100, "--weight_decay", 0.001),
    *("--clip_norm", 1, "--classifier_bias", 3, "--batch_size", 32, "--num_epochs", 70),
    *("--eval_interval", "10e", "--log_interval", "5e", "--save_interval", "10e"),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--output_dir", type=Path, default=Path("output/demo"), help="(default: output/demo)"
    )
    folder: Path = parser.parse_args(argv).output_dir
    folder.mkdir(parents=True, exist_ok=True)

    print("== Training from scratch on images of ten classes")
    train_and_use(folder)

    print("\n== A Caffe file of random weights, converted and proven layer by layer")
    config = ModelConfig(num_classes=len(PATTERNS))
    write_bytes(folder / "random.caffemodel", caffemodel(config, random_weights(config)))
    write_text(folder / "names.txt", "".join(f"{name}\n" for name in PATTERNS))
    images = make_images(folder)
    convert_and_use(folder, "random", config, folder / "random.caffemodel", images[0])
    evaluate = ("--test_list", folder / "list.txt")
    tool("eval", "--model_dir", folder / "random", *evaluate)

    print("\n== The authors' weights")
    real = find_real_weights()
    if real is not None:
        names = real.parent / "synset_words.txt"
        convert_and_use(folder, "squeezenet_v1.1", ModelConfig(), real, images[0], names)
    print(f"\nEverything is in {folder}; the model directories in it work with every tool.")


def train_and_use(folder: Path) -> None:
    """make_sample_data.py, then the three tools that a user's own images would go through."""
    data, run = folder / "sample", folder / "run"
    tool("make_sample_data", "--output_dir", data)
    start = time.perf_counter()
    lists = ("--train_list", data / "train_list.txt", "--val_list", data / "val_list.txt")
    names = ("--synset_word_list", data / "synset_words.txt")
    tool("train", *lists, *names, *RECIPE, "--overwrite", "--output_dir", run)
    print(f"\nTraining took {time.perf_counter() - start:.0f} s.")
    tool("eval", "--model_dir", run, "--test_list", data / "val_list.txt")
    tool("infer", "--model_dir", run, "--image", data / "val" / "ring_noise", "--top_k", 2)


def convert_and_use(
    folder: Path,
    name: str,
    config: ModelConfig,
    weights: Path,
    image: Path,
    names: Path | None = None,
) -> None:
    """caffe2paddle.py with its proof, then infer.py."""
    prototxt, names = folder / f"{name}.prototxt", names or folder / "names.txt"
    write_text(prototxt, deploy_prototxt(config, 227, 227))
    named = ("--synset_word_list", names) if names.is_file() else ()
    tool(
        *("caffe2paddle", "--caffemodel", weights, "--prototxt", prototxt),
        *("--verify", "--image", image, *named, "--output_dir", folder / name),
    )
    tool("infer", "--model_dir", folder / name, "--image", folder / "images", "--top_k", 3)


def tool(name: str, *arguments: object) -> None:
    """Shows a command and runs it."""
    command = [f"{TOOLS.name}/{name}.py", *map(str, arguments)]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    done = subprocess.run([sys.executable, TOOLS / f"{name}.py", *command[1:]], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def random_weights(config: ModelConfig) -> dict[str, np.ndarray]:
    """Normal weights with deviation sqrt(2 / fan_in), which keep the size of the maps."""
    rng, state = np.random.default_rng(0), {}
    for layer in layers(config):
        if layer.weight_shape:
            key = key_of(layer)
            deviation = np.sqrt(2 / np.prod(layer.weight_shape[1:]))
            weight = rng.normal(0, deviation, layer.weight_shape)
            state[f"{key}.weight"] = weight.astype("float32")
            state[f"{key}.bias"] = np.zeros(layer.channels, "float32")
    return state


def make_images(folder: Path) -> list[Path]:
    """A JPEG of each pattern, and a list file of them."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE * 2 * np.pi
    waves = (np.sin(8 * x), np.sin(8 * x) * np.sin(8 * y), np.sin(3 * (x**2 + y**2)))
    (folder / "images").mkdir(exist_ok=True)
    paths, lines = [], []
    for label, (name, wave) in enumerate(zip(PATTERNS, waves)):
        grey = np.rint((wave + 1) * 127.5)[:, :, None]
        pixels = (grey * np.array([0.4, 0.7, 1.0])).astype("uint8")
        paths.append(folder / "images" / f"{name}.jpg")
        write_bytes(paths[-1], cv2.imencode(".jpg", pixels)[1].tobytes())
        lines.append(f"images/{name}.jpg {label}\n")
    write_text(folder / "list.txt", "".join(lines))
    return paths


def find_real_weights() -> Path | None:
    """The authors' v1.1 where it lies already, else downloaded; None if it cannot be had."""
    known = KNOWN_FILES["squeezenet_v1.1"][0]
    target = Path("pretrained") / known.name
    assets = Path(os.environ.get("SQUEEZENET_ASSETS", "../shared")) / "caffe" / known.name
    for path in (target, assets):
        if path.is_file():
            return path
    try:
        fetch(known, target)
    except InputError as error:
        print(f"They cannot be had here, so this part is left out: {error}")
        return None
    return target

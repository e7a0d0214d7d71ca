"""Show the main jobs in under three minutes, on images that the demo draws itself.

    squeezenet demo

Trains SqueezeNet v1.1 from scratch on ten classes of drawn shapes, fine-tunes it on a folder of
images of other classes, writes a report and class activation maps, exports the model to ONNX and
Caffe, converts the Caffe file back, proven layer by layer against OpenCV, and ends with a C program
and a page for the browser. Each step shows the command that does it. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ..data.decode import read_image
from ..datasets.samples import SHAPES, TEXTURES, draw
from ..errors import RunError
from ..export_record import PAGE
from ..files import write_bytes
from ..run_dir import model_dir_of
from . import common

IMAGES_A_CLASS = 40
# Small images in any position, and a short run.
RECIPE = (
    *("--resize_size", 64, "--crop_size", 64, "--mean", 118, 118, 118),
    *("--rotation", 180, "--border", "constant", "--dropout", 0),
    *("--optimizer", "adamw", "--lr", 0.002, "--warmup_steps", 100, "--weight_decay", 0.001),
    *("--clip_norm", 1, "--batch_size", 32, "--num_epochs", 40),
    *("--eval_interval", "5e", "--log_interval", "5e", "--save_interval", "20e"),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("output/demo"),
        metavar="DIR",
        help="the folder to write into (default: output/demo)",
    )
    folder: Path = parser.parse_args(argv).output_dir
    data, trained, mine = folder / "data", folder / "trained", folder / "mine"
    own = folder / "own_images"

    print("This trains a network, fine-tunes, explains, exports and converts it: three minutes.")
    step("Draw 800 images of ten classes, and 200 of five other classes in a folder for each")
    run("make-sample-data", "--output_dir", data)
    draw_own_images(own)

    step("Train from scratch on the ten classes")
    lists = ("--train_list", data / "train_list.txt", "--val_list", data / "val_list.txt")
    names = ("--synset_word_list", data / "synset_words.txt")
    run("train", *lists, *names, *RECIPE, "--overwrite", "--output_dir", trained)

    step("Fine-tune the result on a folder of images: its own classes, a report on them")
    run("finetune", "--images", own, "--pretrained", trained, "--overwrite", "--output_dir", mine)

    step("Classify, and show where in the image the class was found")
    images = [own / shape / f"{shape}_00.jpg" for shape in SHAPES]
    run(
        "infer", "--model_dir", mine, "--image", *images, "--top_k", 1, "--explain", folder / "maps"
    )

    step("Export to ONNX, and the network trained first to Caffe; each file is run and compared")
    run("export", "--model_dir", mine, "--format", "onnx", "--image", own)
    run("export", "--model_dir", trained, "--format", "caffe", "--image", own)

    step("Convert the Caffe file back, proven layer by layer against OpenCV's Caffe importer")
    run(
        *("convert", "--caffemodel", trained / "best" / "model.caffemodel"),
        *("--prototxt", trained / "best" / "deploy.prototxt", "--verify", "--image", images[0]),
        *(*names, "--output_dir", folder / "converted"),
        shown=10,
    )
    c_program(mine, folder, images)
    page = make_page(mine, own)
    print("\nDone. Worth opening:")
    for path, what in (
        *page,
        (mine / "report" / "report.html", "what the fine-tuned model gets right and wrong"),
        (folder / "maps", "where in the images it found their classes"),
        (trained / "curves.png", "how training from scratch went"),
    ):
        print(f"  {path!s:35} {what}")
    print(f"{mine} is a model for every command: squeezenet infer --model_dir {mine} --image IMAGE")


def draw_own_images(folder: Path) -> None:
    """Shapes filled with textures that the ten classes do not have, a folder for each shape."""
    for i, shape in enumerate(SHAPES):
        (folder / shape).mkdir(parents=True, exist_ok=True)
        for k in range(IMAGES_A_CLASS):
            pixels = draw(shape, TEXTURES[(i + 2 + k % 3) % 5], np.random.default_rng((i, k)))
            path = folder / shape / f"{shape}_{k:02d}.jpg"
            write_bytes(path, cv2.imencode(".jpg", pixels)[1].tobytes())


def c_program(model_dir: Path, folder: Path, images: Sequence[Path]) -> None:
    """Exports C code, builds its program and classifies the images with it."""
    step("Export C code that needs no library, build its program, and classify with it")
    code = folder / "c"
    run("export", "--model_dir", model_dir, "--format", "c", "--output_dir", code)
    if shutil.which("cc"):
        compiler = ["cc"]
    elif importlib.util.find_spec("ziglang"):
        compiler = [sys.executable, "-m", "ziglang", "cc"]
    else:
        print("No C compiler was found, so that the program is not built.")
        return
    pixels = []
    for path in images:
        pixels.append(code / "golden" / f"{path.stem}.ppm")  # which that program reads
        write_bytes(pixels[-1], cv2.imencode(".ppm", read_image(path))[1].tobytes())
    program = code / "squeezenet"
    sources = [code / "main.c", code / "squeezenet.c"]
    show_and_run([*compiler, "-std=c99", "-O3", "-o", program, *sources, "-lm"])
    show_and_run([program, "-k", 1, "-w", code / "model.sqz", *pixels])


def make_page(model_dir: Path, images: Path) -> list[tuple[Path, str]]:
    """Exports the page where its compiler is installed; what to say of it in the end."""
    step("Export one page that classifies in a browser, offline; its engine is run and compared")
    if not all(importlib.util.find_spec(name) for name in ("ziglang", "wasmtime")):
        print("The page needs its compiler: pip install 'squeezenet_paddle[page]'.")
        return []
    run("export", "--model_dir", model_dir, "--format", "html", "--image", images)
    return [(model_dir_of(model_dir) / PAGE, "drop images on it: it classifies in the browser")]


def step(title: str) -> None:
    print(f"\n== {title}", flush=True)


def run(*command: object, shown: int = 0) -> None:
    """Shows a command of ours and runs it; see `start`."""
    words = [str(word) for word in command]
    print(f"\n$ squeezenet {shlex.join(words)}", flush=True)
    start([sys.executable, "-m", "squeezenet_paddle", *words], f"squeezenet {words[0]}", shown)


def show_and_run(command: Sequence[object]) -> None:
    """Shows any command and runs it."""
    words = [str(word) for word in command]
    print(f"\n$ {shlex.join(words)}", flush=True)
    start(words, words[0])


def start(words: Sequence[str], name: str, shown: int = 0) -> None:
    """Runs a command.

    Args:
        words: the program and its arguments.
        name: what it is called in an error.
        shown: how many of the last lines of its output are shown; 0: all, as they come.

    Raises:
        RunError: it failed.
    """
    done = subprocess.run(words, stdout=subprocess.PIPE if shown else None, text=True, check=False)
    if shown:
        print("...", *done.stdout.splitlines()[-shown:], sep="\n")
    if done.returncode:
        raise RunError(f"{name} ended with exit code {done.returncode}.")

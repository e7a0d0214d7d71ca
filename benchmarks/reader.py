"""How fast images become batches: ours, plain OpenCV and Pillow, in one run on one machine.

    python benchmarks/reader.py
    python benchmarks/reader.py --list data/photos/val_list.txt --data_dir data/photos
    python benchmarks/reader.py --only list

Without --list, images are generated. `pipeline` prints images a second on one core for decode,
resize, crop and mean, and for what training does; `loader` the total with worker processes; `list`
the time and memory of a list file of ImageNet's size.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

import cv2
import numpy as np
from PIL import Image

from squeezenet_paddle.data.augment import Augment, TrainTransform
from squeezenet_paddle.data.decode import read_image
from squeezenet_paddle.data.lists import ImageList, read_list
from squeezenet_paddle.data.loader import Loader
from squeezenet_paddle.data.preprocess import EvalTransform, Preprocess
from squeezenet_paddle.data.sampler import Sampler

MEAN = np.array([104, 117, 123], "float32")
IMAGENET_TRAIN = 1_281_167  # images in ILSVRC's training list
READ_LIST = """
import resource, sys, time
from pathlib import Path
from squeezenet_paddle.data.lists import read_list
start = time.perf_counter()
images = read_list(Path(sys.argv[1]), None, 1000)
seconds = time.perf_counter() - start
print(len(images), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", type=Path, help="a list file (default: generated images)")
    parser.add_argument("--data_dir", type=Path, help="where its paths start (default: its folder)")
    parser.add_argument("--only", choices=("list", "pipeline", "loader"), help="(default: all)")
    parser.add_argument(
        "--repeat", type=int, default=5, help="runs; the median counts (default: 5)"
    )
    parser.add_argument(
        "--sides",
        type=int,
        nargs=2,
        default=(500, 375),
        help="width and height of generated images (default: 500 375)",
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.only in (None, "list"):
            list_file(Path(folder))
        if args.only == "list":
            return
        if args.list:
            images = read_list(args.list, args.data_dir, None)
        else:
            images = generate(Path(folder), 200, *args.sides)
        sizes = [images.path(i).stat().st_size for i in range(len(images))]
        print(f"{len(images)} images, {statistics.mean(sizes) / 1e3:.0f} kB on average")
        if args.only in (None, "pipeline"):
            pipelines(images, args.repeat)
        if args.only in (None, "loader"):
            loaders(images, args.repeat)


def list_file(folder: Path) -> None:
    path = folder / "train.txt"
    with path.open("w") as file:
        for i in range(IMAGENET_TRAIN):
            wnid = f"n{1_440_764 + i % 1000:08d}"
            file.write(f"{wnid}/{wnid}_{i % 20_000}.JPEG {i % 1000}\n")
    command = [sys.executable, "-c", READ_LIST, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, seconds, megabytes = done.stdout.split()
    print(f"{int(count):,} lines in {float(seconds):.2f} s, {float(megabytes):.0f} MB")


def generate(folder: Path, count: int, width: int, height: int) -> ImageList:
    """JPEGs with the detail of photographs: smooth noise on many scales."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(count):
        image = np.zeros((height, width, 3), "float32")
        for scale in (4, 16, 64, 250):
            noise = rng.normal(0, scale**0.5 * 4, (height // scale + 2, width // scale + 2, 3))
            noise = noise.astype("float32")
            image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{i}.jpg"), np.clip(image + 120, 0, 255).astype("uint8"))
        lines.append(f"{i}.jpg 0\n")
    (folder / "list.txt").write_text("".join(lines))
    return read_list(folder / "list.txt", None, None)


def pillow_eval(path: Path) -> np.ndarray:
    """torchvision's way."""
    image = Image.open(path).convert("RGB").resize((256, 256), Image.BICUBIC)
    pixels = np.asarray(image.crop((14, 14, 241, 241)), "float32")[:, :, ::-1] - MEAN
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def opencv_eval(path: Path) -> np.ndarray:
    """The plain way."""
    image = cv2.resize(cv2.imread(str(path)), (256, 256), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray((image[14:241, 14:241] - MEAN).transpose(2, 0, 1))


def pillow_train(path: Path, rng: np.random.Generator) -> np.ndarray:
    """torchvision's RandomCrop and RandomHorizontalFlip on a resized image."""
    image = Image.open(path).convert("RGB").resize((256, 256), Image.BICUBIC)
    top, left = rng.integers(0, 30, 2)
    image = image.crop((left, top, left + 227, top + 227))
    if rng.random() < 0.5:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image, "float32")[:, :, ::-1] - MEAN
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def pipelines(images: ImageList, repeat: int) -> None:
    cv2.setNumThreads(1)
    paths = [images.path(i) for i in range(len(images))]
    preprocess = Preprocess()
    train = TrainTransform(preprocess, Augment())
    out = np.empty(preprocess.input_shape, "float32")
    rng = np.random.default_rng(0)
    ways: dict[str, Callable[[], object]] = {
        "JPEG decoding alone": lambda: [cv2.imread(str(p)) for p in paths],
        "evaluation, ours": lambda: [preprocess(read_image(p), out) for p in paths],
        "evaluation, plain OpenCV": lambda: [opencv_eval(p) for p in paths],
        "evaluation, Pillow": lambda: [pillow_eval(p) for p in paths],
        "training, ours": lambda: [train(read_image(p), 0, i, out) for i, p in enumerate(paths)],
        "training, Pillow": lambda: [pillow_train(p, rng) for p in paths],
    }
    same = all((preprocess(read_image(p)) == opencv_eval(p)).all() for p in paths)
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat):  # in turn, so that all see the same machine
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            speeds[name].append(len(paths) / (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print("one core, images a second")
    for name, speed in medians.items():
        kind = name.split(",")[0]
        ours = medians.get(f"{kind}, ours", speed)
        ratio = "" if speed == ours else f"   ours is {ours / speed:.2f}x"
        print(f"  {name:<26} {speed:8.0f}{ratio}")
    print(f"  the same bits as plain OpenCV: {'yes' if same else 'NO'}")
    share = medians["evaluation, ours"] / medians["JPEG decoding alone"]
    print(f"  the limit is JPEG decoding; evaluation runs at {share:.0%} of it")


def loaders(images: ImageList, repeat: int) -> None:
    print(f"loader, batches of 32, {os.cpu_count()} cores, images a second")
    sampler = Sampler(len(images), 32, shuffle=True)
    for name, transform in (
        ("evaluation", EvalTransform(Preprocess())),
        ("training", TrainTransform(Preprocess(), Augment())),
    ):
        for num_workers in (0, 1, 2):
            with Loader(images, transform, sampler, num_workers) as loader:
                speeds = []
                for epoch in range(repeat + 1):
                    start = time.perf_counter()
                    count = sum(len(batch.indices) for batch in loader.epoch(epoch))
                    speeds.append(count / (time.perf_counter() - start))
            speed = statistics.median(speeds[1:])  # the first waits for the processes to start
            print(f"  {name:<10} {num_workers} workers {speed:8.0f}")


if __name__ == "__main__":
    main()

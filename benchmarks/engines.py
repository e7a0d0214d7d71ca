"""Inference: our engines against what a user would pick instead, in one run on one machine.

    python benchmarks/engines.py --model_dir pretrained/squeezenet_v1.1 \\
        --list data/photos/val_list.txt --peers peers.py --peers_python .peers/bin/python

The model directory is SqueezeNet v1.1 at 227 pixels with the exports that the engines paddle and
int8 take (`tools/export.py`). Measured are a batch in memory to its logits, files to their first
five classes, and `tools/infer.py` on one image from the start of the process to its end; and it
is checked that our reader changes no prediction against plain OpenCV.

--peers is a program that measures the others with the same weights:

    peers.py forward|pipeline --peer NAME --batch_size N --threads N --repeat N [--list F --root D]

prints a line "... batch N  M ms  R images/s". Without it, ours are measured alone. Each measurement
runs in a process of its own, ours and theirs in turn, --rounds times; of the medians of the rounds
the best one counts for each, as whatever else the machine does makes a round slower.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from squeezenet_paddle.cli import common, shared_flags
from squeezenet_paddle.data.lists import ImageList, read_list
from squeezenet_paddle.data.loader import Loader
from squeezenet_paddle.data.preprocess import EvalTransform
from squeezenet_paddle.data.sampler import Sampler
from squeezenet_paddle.evaluation.metrics import TOP_K
from squeezenet_paddle.network.logits import top_k
from squeezenet_paddle.predict import Predictor, predict
from squeezenet_paddle.profiling.benchmark import NotRun, Task, machine, measure

INFER = Path(__file__).parent.parent / "tools" / "infer.py"
BATCH_SIZES = (1, 32)
STARTS = 5


@dataclass(frozen=True)
class Contest:
    """What is compared with what.

    Attributes:
        what: "forward" or "files".
        engine, precision: ours.
        peers: theirs, with the ratio that is aimed at.
    """

    what: str
    engine: str
    precision: str
    peers: dict[str, float]


CONTESTS = (
    Contest("forward", "onnxruntime", "float32", {"onnxruntime": 1.0, "openvino": 1.0}),
    Contest("forward", "paddle", "float32", {"paddle_inference": 1.5}),
    Contest("forward", "openvino", "int8", {"openvino_bf16": 1.0}),
    Contest("files", "onnxruntime", "float32", {"onnxruntime": 1.3, "torch_pil": 4.0}),
)
Rates = dict[tuple[str, int], list[float]]  # images a second of each round, by name and batch size


def main() -> None:
    parser = common.parser(__doc__)
    shared_flags.add_model_dir(parser)
    shared_flags.add_list(parser, "--list", required=True)
    shared_flags.add_data_dir(parser)
    parser.add_argument("--peers", type=Path, help="a program (default: none)")
    parser.add_argument(
        "--peers_python", type=Path, default=sys.executable, help="what runs it (default: this one)"
    )
    shared_flags.add_threads(parser)
    parser.add_argument(
        "--repeat", type=shared_flags.positive_int, default=15, help="(default: 15)"
    )
    parser.add_argument("--rounds", type=shared_flags.positive_int, default=3, help="(default: 3)")
    parser.add_argument(
        "--only", choices=("forward", "files", "start", "predictions"), help="(default: all)"
    )
    args = parser.parse_args()
    here = machine(args.threads)
    args.threads = here["threads"]
    versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
    print(f"{here['processor']}, {here['cores']} cores, {args.threads} threads, {versions}")
    images = read_list(args.list, args.data_dir, None)
    print(f"{'images a second':<30} batch    ours  {'':<18} theirs  ratio  aim")
    for contest in CONTESTS:
        if args.only in (None, contest.what):
            compete(contest, args, images)
    if args.only in (None, "start"):
        print_starts(args, images.path(0))
    if args.only in (None, "predictions"):
        print_predictions(args, images)


def compete(contest: Contest, args: argparse.Namespace, images: ImageList) -> None:
    ours: Rates = defaultdict(list)
    theirs: Rates = defaultdict(list)
    sizes = BATCH_SIZES if contest.what == "forward" else BATCH_SIZES[-1:]
    label = f"{contest.what} {contest.engine} {contest.precision}"
    for _ in range(args.rounds):
        files = images if contest.what == "files" else None
        precision, repeat = contest.precision, args.repeat if files is None else 1
        found = measure(
            Task(args.model_dir, contest.engine, precision, args.threads, sizes, repeat, files)
        )
        if isinstance(found, NotRun):
            print(found)
            return
        for row in found:
            if row.what == contest.what:
                ours[label, row.batch_size].append(row.images_per_second)
        for peer in contest.peers if args.peers else ():
            for size, rate in peer_rates(contest.what, peer, sizes, args):
                theirs[peer, size].append(rate)
    for size in sizes:
        mine = max(ours[label, size])
        line = f"{label:<30} {size:>5} {mine:>7.1f}"
        for peer, aim in contest.peers.items():
            if theirs[peer, size]:
                rate = max(theirs[peer, size])
                print(f"{line}  {peer:<18} {rate:>6.1f} {mine / rate:>5.2f}x {aim:>3.1f}x")
        if not args.peers:
            print(line)
    sys.stdout.flush()


def peer_rates(
    what: str, peer: str, sizes: tuple[int, ...], args: argparse.Namespace
) -> list[tuple[int, float]]:
    """(batch size, images a second) as the peers' program prints them."""
    command = [str(args.peers_python), str(args.peers)]
    command += ["forward" if what == "forward" else "pipeline", "--peer", peer]
    command += ["--threads", str(args.threads), "--repeat", str(args.repeat)]
    command += ["--batch_size", *map(str, sizes)]
    if what == "files":
        command += ["--list", str(args.list), "--root", str(args.data_dir or args.list.parent)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = re.findall(r"batch +(\d+) +[\d.]+ ms +([\d.]+) images/s", done.stdout)
    if not found:
        print(f"{peer}: {done.stdout.strip()}")
    return [(int(size), float(rate)) for size, rate in found]


def print_starts(args: argparse.Namespace, image: Path) -> None:
    """Seconds from the start of a process to its end."""
    infer = [str(INFER), "--model_dir", str(args.model_dir), "--image", str(image)]
    ways = {
        "infer.py, onnxruntime": [*infer, "--engine", "onnxruntime"],
        "infer.py, dynamic": [*infer, "--engine", "dynamic"],
        "import paddle": ["-c", "import paddle"],
    }
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(STARTS):
        for name, arguments in ways.items():
            start = time.perf_counter()
            command = [sys.executable, "-W", "ignore", *arguments]
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - start)
    print("seconds from the start of a process to its end, one image")
    for name, times in seconds.items():
        print(f"{name:<30} {statistics.median(times):6.2f}")


def print_predictions(args: argparse.Namespace, images: ImageList) -> None:
    """Compares the first five classes with those after plain OpenCV, image by image."""
    predictor = Predictor(args.model_dir, "cpu", "onnxruntime", threads=args.threads)
    sampler = Sampler(len(images), BATCH_SIZES[-1])
    with Loader(images, EvalTransform(predictor.info.preprocess), sampler, 2) as loader:
        answers = [answer for _, answer in predict(predictor, loader)]
    ours = [[i for i, _ in answer.top(TOP_K)] for answer in answers]
    same = 0
    for i, mine in enumerate(ours):
        image = cv2.resize(
            cv2.imread(str(images.path(i))), (256, 256), interpolation=cv2.INTER_CUBIC
        )
        pixels = image[14:241, 14:241].astype("float32") - np.array([104, 117, 123], "float32")
        logits = predictor.logits(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
        same += mine == top_k(logits, TOP_K)[0].tolist()
    print(f"the first five classes are those after plain OpenCV for {same} of {len(ours)} images")


if __name__ == "__main__":
    common.run(main)

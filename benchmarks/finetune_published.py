"""Published fine-tunings again: CIFAR-10, ETH-80, Caltech-256, each by one command on its folder.

    python tools/prepare_cifar10.py --download
    python benchmarks/finetune_published.py cifar10 --data data/cifar10 \\
        --pretrained pretrained/squeezenet_v1.1 --output_dir output/cifar10

    python benchmarks/finetune_published.py eth80 --data data/eth80 ...
    python benchmarks/finetune_published.py caltech256 --data data/256_ObjectCategories ...

    data          published    how                                       in --data
    cifar10       82.59 %      v1.1 fine-tuned, 5 epochs; test set      as prepare_cifar10.py has it
                               (its test images are kept out, and scored once at the end)
    eth80         99.08 %      a random stratified split, 10 epochs      a folder for each class
    caltech256    46.6 %       v1.1 from scratch, 90 epochs, 2 GPUs      folders such as 001.ak47

Each is a command of tools/finetune.py, which is shown; flags after `--` are added to it, such as
`-- --then fire8+ --then_epochs 3` to train fires 8 and 9 too. Printed are its result and its
seconds.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = {"cifar10": 0.8259, "eth80": 0.9908, "caltech256": 0.466}
CALTECH256 = ["--batch_size", 256, "--resize", "short_side"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=PUBLISHED)
    parser.add_argument("--data", type=Path, required=True, help="the folder")
    parser.add_argument("--pretrained", type=Path, required=True, help="a model directory")
    parser.add_argument("--output_dir", type=Path, required=True, help="of the run")
    own, more = sys.argv[1:], []
    if "--" in own:
        own, more = own[: own.index("--")], own[own.index("--") + 1 :]
    args = parser.parse_args(own)
    start = ["--pretrained", args.pretrained, "--output_dir", args.output_dir]
    command = [ROOT / "tools" / "finetune.py", *recipe(args), *start, *more]
    print(shlex.join(["python", *map(str, command)]), file=sys.stderr)
    began = time.perf_counter()
    subprocess.run([sys.executable, *map(str, command)], check=True)
    seconds = time.perf_counter() - began
    test_list = args.output_dir / "test_list.txt"
    if test_list.exists():
        score = [ROOT / "tools" / "eval.py", "--model_dir", args.output_dir]
        score += ["--test_list", test_list, "--data_dir", args.data]
        subprocess.run([sys.executable, *map(str, score)], check=True)
    print(f"\n{args.name}: {seconds:.0f} s; published: {PUBLISHED[args.name]:.2%}")


def recipe(args: argparse.Namespace) -> list[Any]:
    """The flags of finetune.py for a set of images."""
    images = ["--images", args.data]
    if args.name != "caltech256":
        return images
    return [*images, "--class_name_pattern", r"^\d+\.(.+)$", *CALTECH256]


if __name__ == "__main__":
    main()

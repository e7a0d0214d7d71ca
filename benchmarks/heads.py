"""The heads of a fine-tuning: parameters, size and accuracy of their models, in float32 and int8.

    python benchmarks/heads.py --pretrained pretrained/squeezenet_v1.1 --images data/sample/train

    python benchmarks/heads.py --pretrained pretrained/squeezenet_v1.1 --seeds 3 \\
        --images data/eth80/images --train_list data/cifar10/train_list.txt \\
        --val_list data/cifar10/val_list.txt -- --resize_size 146 --crop_size 128

Each line is a fine-tuning with the defaults by `squeezenet finetune` from a folder of classes
(split at random) or from lists, and its exports, scored by ONNX Runtime on the validation images;
means over the seeds. int8 is fitted to 64 of the training images. Flags after `--` are those of
every fine-tuning.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from squeezenet_paddle.cli import export, finetune
from squeezenet_paddle.data.lists import read_list
from squeezenet_paddle.evaluation.evaluate import score_list
from squeezenet_paddle.model_dir import read_info
from squeezenet_paddle.network.config import layers
from squeezenet_paddle.onnx.quantise import CALIBRATION_IMAGES
from squeezenet_paddle.predict import Predictor

HEADS = ("compact", "multiscale")


def main() -> None:
    own, more = sys.argv[1:], []
    if "--" in own:
        own, more = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretrained", type=Path, required=True, help="a model directory")
    parser.add_argument("--images", type=Path, help="a folder for each class")
    parser.add_argument("--train_list", type=Path, help="a list, with --val_list")
    parser.add_argument("--val_list", type=Path)
    parser.add_argument("--heads", nargs="+", default=list(HEADS), help="(compact multiscale)")
    parser.add_argument("--seeds", type=int, default=1, help="(1)")
    args = parser.parse_args(own)
    print("head        parameters   float32      int8  top-1 float32  top-1 int8  each seed")
    for head in args.heads:
        rows = [measured(args, head, seed, more) for seed in range(args.seeds)]
        parameters, *sizes = rows[0][:3]
        scores = np.array([row[3:] for row in rows])
        print(
            f"{head:<11} {parameters:>10,} {sizes[0] / 1e6:>6.2f} MB {sizes[1] / 1e6:>6.2f} MB"
            f" {scores[:, 0].mean():>14.2%} {scores[:, 1].mean():>11.2%}  "
            + ", ".join(f"{a:.2%} {b:.2%}" for a, b in scores),
            flush=True,
        )


def measured(args: argparse.Namespace, head: str, seed: int, more: list[str]) -> list[Any]:
    """Parameters, sizes of the ONNX files in bytes, and top-1 with each."""
    if args.images is not None:
        data, root = ["--images", args.images], args.images
    else:
        data = ["--train_list", args.train_list, "--val_list", args.val_list]
        root = args.train_list.parent
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        flags = [*data, "--pretrained", args.pretrained, "--output_dir", run, "--head", head]
        command(finetune, *flags, "--seed", seed, *more)
        info = read_info(run)
        lists = [args.train_list or run / "train_list.txt", args.val_list or run / "val_list.txt"]
        train, val = (read_list(each, root, info.network.num_classes) for each in lists)
        chosen = np.random.default_rng(0).permutation(len(train))[:CALIBRATION_IMAGES]
        images = [train.path(i) for i in chosen]
        command(export, "--model_dir", run, "--format", "onnx", "--image", *images[:2])
        flags = ["--model_dir", run, "--format", "onnx", "--precision", "int8", "--image", *images]
        command(export, *flags)
        result: list[Any] = [sum(layer.parameters for layer in layers(info.network))]
        result += [(run / "best" / f"{name}.onnx").stat().st_size for name in FILES.values()]
        for precision in FILES:
            predictor = Predictor(run, engine="onnxruntime", precision=precision)
            result.append(score_list(predictor, val, num_workers=0).summary()["top1"])
        return result


FILES = {"float32": "model", "int8": "model_int8"}


def command(module: Any, *flags: Any) -> None:
    """Runs a command of the project quietly."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        code = module.main([str(flag) for flag in flags])
    if code:
        sys.exit(told.getvalue())


if __name__ == "__main__":
    main()

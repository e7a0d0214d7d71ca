"""Time to a validation accuracy on a folder of images: cached features, plain loops, PyTorch.

    python benchmarks/finetune.py --images data/eth80 --pretrained pretrained/squeezenet_v1.1 \\
        --peers_python /path/to/a/python/with/torch

Four ways to train the same head (two layers on the means of all fires' maps) on a frozen SqueezeNet
v1.1, with the same split, batches, optimizer and rate, each in a process of its own:

    cached features            tools/finetune.py: the frozen part computes each view once
    no cache                   tools/finetune.py --no_cache: in each epoch, by the same engine
    plain loop                 tools/train.py --trainable head: in each epoch, by Paddle
    PyTorch                    the frozen network forward in each epoch, two reader processes

Printed are the seconds from the start of the process, all its loading included, to the first epoch
that reaches --target, and to the end of --epochs epochs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BATCH_SIZE, LR, WEIGHT_DECAY = 64, 1e-3, 2e-4
Point = tuple[float, float]  # seconds since the start, validation top-1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="a folder for each class")
    parser.add_argument("--pretrained", type=Path, help="a model directory of v1.1")
    parser.add_argument("--target", type=float, default=0.985, help="(default: 0.985)")
    parser.add_argument("--epochs", type=int, default=10, help="(default: 10)")
    parser.add_argument("--views", type=int, default=1, help="cached ones (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of split and training (default: 0)")
    parser.add_argument("--peers_python", type=Path, help="a python that has torch, numpy, cv2")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(WAYS), help="(default: all)"
    )
    parser.add_argument(
        "--torch", type=Path, help=argparse.SUPPRESS
    )  # the body of PyTorch's process
    args = parser.parse_args()
    if args.torch is not None:
        train_in_torch(json.loads(args.torch.read_text()))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(args, Path(folder))


def compare(args: argparse.Namespace, folder: Path) -> None:
    from train import machine  # the benchmark beside this one

    print(machine(), flush=True)
    split(args, folder)
    print(f"{'':<18} {'to ' + format(args.target, '.1%'):>10} {'all epochs':>11}  best top-1")
    for way in args.ways:
        points = run(way, args, folder)
        if points is None:
            print(f"{way:<18} not installed")
            continue
        reached = next((f"{s:.1f} s" for s, top1 in points if top1 >= args.target), "never")
        best = max(top1 for _, top1 in points)
        print(f"{way:<18} {reached:>10} {points[-1][0]:>9.1f} s  {best:.2%}", flush=True)


def split(args: argparse.Namespace, folder: Path) -> None:
    """Writes the lists that all ways read."""
    from squeezenet_paddle.data.contents import content_hashes
    from squeezenet_paddle.datasets.folders import read_tree, write_lists
    from squeezenet_paddle.datasets.split import split

    tree = read_tree(args.images)
    keys = content_hashes([args.images / name for name in tree.names])
    parts = split(tree.labels, 0.2, 0.0, keys=keys, seed=args.seed, classes=tree.classes)
    write_lists(tree, parts, folder)
    print(
        f"{args.images}: {len(parts['train'])} training and {len(parts['val'])} validation "
        f"images, {args.epochs} epochs of batches of {BATCH_SIZE}"
    )


def run(way: str, args: argparse.Namespace, folder: Path) -> list[Point] | None:
    """What a way reached when; None where its library is missing."""
    output = folder / way.replace(" ", "_")
    if way == "PyTorch":
        if args.peers_python is None:
            return None
        command, log = [args.peers_python, __file__, "--torch", spec(args, folder)], None
    else:
        command = [sys.executable, *WAYS[way], *common(args, folder), "--output_dir", output]
        if WAYS[way][0].name == "finetune.py":
            command += ["--views", args.views]
        log = output / "metrics.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.time()
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        sys.exit(f"{way}: {done.stderr[-2000:]}")
    lines = done.stdout.splitlines() if log is None else log.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["time"] - start, r["top1"]) for r in records if r["kind"] == "val"]


def common(args: argparse.Namespace, folder: Path) -> list[Any]:
    """Flags of finetune.py and train.py."""
    lists = ["--train_list", folder / "train_list.txt", "--val_list", folder / "val_list.txt"]
    lists += ["--data_dir", args.images, "--synset_word_list", folder / "synset_words.txt"]
    solver = ["--optimizer", "adam", "--lr", LR, "--weight_decay", WEIGHT_DECAY]
    solver += ["--batch_size", BATCH_SIZE, "--num_epochs", args.epochs, "--seed", args.seed]
    solver += ["--label_smoothing", 0]
    start = ["--pretrained", args.pretrained, "--head", "compact", "--trainable", "head"]
    return [*lists, *start, *solver, "--patience", args.epochs]


WAYS: dict[str, list[Any]] = {
    "cached features": [ROOT / "tools" / "finetune.py"],
    "no cache": [ROOT / "tools" / "finetune.py", "--no_cache"],
    "plain loop": [ROOT / "tools" / "train.py", "--iter_size", 1],
    "PyTorch": [],
}


def spec(args: argparse.Namespace, folder: Path) -> Path:
    """What PyTorch's process needs to know, in a file."""
    lists = {}
    for part in ("train", "val"):
        lines = (folder / f"{part}_list.txt").read_text().splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines]
        lists[part] = [(str(args.images / name), int(label)) for name, label in pairs]
    path = folder / "torch.json"
    given = {"lists": lists, "pretrained": str(args.pretrained), "epochs": args.epochs}
    path.write_text(json.dumps({**given, "seed": args.seed}))
    return path


def train_in_torch(given: dict[str, Any]) -> None:
    """The same head in PyTorch, as its tutorials have it: a frozen backbone, forward each epoch."""
    import cv2
    import torch
    from torch import nn

    from squeezenet_paddle.data.augment import Augment, TrainTransform
    from squeezenet_paddle.data.preprocess import EvalTransform
    from squeezenet_paddle.model_dir import read_info, read_weights
    from squeezenet_paddle.network.config import FIRES
    from squeezenet_paddle.network.heads import HEADS

    torch.manual_seed(given["seed"])
    info = read_info(Path(given["pretrained"]))
    state = read_weights(Path(given["pretrained"]), info).state

    class Images(torch.utils.data.Dataset):
        def __init__(self, pairs: list[tuple[str, int]], transform: Any) -> None:
            self.pairs, self.transform, self.epoch = pairs, transform, 0

        def __len__(self) -> int:
            return len(self.pairs)

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            path, label = self.pairs[index]
            out = np.empty(self.transform.shape, "float32")
            self.transform(cv2.imread(path), self.epoch, index, out)
            return out, label

    def conv(name: str, **geometry: Any) -> nn.Conv2d:
        weight = state[f"{name}.weight"]
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], **geometry)
        layer.weight.data = torch.from_numpy(weight.copy())
        layer.bias.data = torch.from_numpy(state[f"{name}.bias"].copy())
        return layer

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.pool = conv("conv1", stride=2), nn.MaxPool2d(3, 2, ceil_mode=True)
            for name in FIRES:
                setattr(self, f"{name}_squeeze", conv(f"{name}.squeeze1x1"))
                setattr(self, f"{name}_expand1", conv(f"{name}.expand1x1"))
                setattr(self, f"{name}_expand3", conv(f"{name}.expand3x3", padding=1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x, means = self.pool(torch.relu(self.conv1(x))), []
            for name in FIRES:
                s = torch.relu(getattr(self, f"{name}_squeeze")(x))
                expands = (getattr(self, f"{name}_expand{k}") for k in (1, 3))
                x = torch.cat([torch.relu(expand(s)) for expand in expands], 1)
                means.append(x.mean((2, 3)))
                x = self.pool(x) if name in ("fire3", "fire5") else x
            return torch.cat(means, 1)

    means = 2 * sum(expand for _, expand in FIRES.values())
    units = HEADS["compact"].units
    head = nn.Sequential(
        nn.BatchNorm1d(means),
        nn.Linear(means, units),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(units, len({label for _, label in given["lists"]["train"]})),
    )
    backbone = Backbone().eval().requires_grad_(False)
    optimizer = torch.optim.Adam(head.parameters(), LR, weight_decay=WEIGHT_DECAY)
    data = {
        "train": Images(
            given["lists"]["train"], TrainTransform(info.preprocess, Augment(), given["seed"])
        ),
        "val": Images(given["lists"]["val"], EvalTransform(info.preprocess)),
    }
    loaders = {
        part: torch.utils.data.DataLoader(
            images, BATCH_SIZE, shuffle=part == "train", num_workers=2
        )
        for part, images in data.items()
    }
    updates, step = given["epochs"] * len(loaders["train"]), 0
    for epoch in range(given["epochs"]):
        data["train"].epoch = epoch
        head.train()
        for inputs, labels in loaders["train"]:
            optimizer.param_groups[0]["lr"] = LR * (1 - step / updates)
            step += 1
            with torch.no_grad():
                features = backbone(inputs)
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(features), labels).backward()
            optimizer.step()
        head.eval()
        with torch.no_grad():
            hits = sum(
                (head(backbone(inputs)).argmax(1) == labels).sum().item()
                for inputs, labels in loaders["val"]
            )
        top1 = hits / len(data["val"])
        print(json.dumps({"kind": "val", "top1": top1, "time": time.time()}), flush=True)


if __name__ == "__main__":
    main()

"""CIFAR-10 from scratch: ImageNet's input size, the native one, a linear layer, simple bypass.

    python tools/prepare_cifar10.py --download
    python benchmarks/cifar10_table.py --data data/cifar10 --output_dir output/cifar10_table

Each row is a run of tools/train.py (Adam, cosine, flips and random crops) and a report of
tools/eval.py in a folder of its own: top-1, the F1 of every class, and where the confusion matrix
lies. A killed table goes on where it was. What was published of these four: 81.1, 60.8, 81.4 and
81.2 % of validation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LARGE = ["--resize_size", 256, "--crop_size", 224]
ROWS: dict[str, list[Any]] = {
    "224": LARGE,
    "32": ["--resize_size", 32, "--crop_size", 32],
    "224_fc": [*LARGE, "--head", "conv_fc"],
    "224_bypass": [*LARGE, "--bypass", "simple"],
}
TITLES = {
    "224": "v1.1 at 224 pixels",
    "32": "v1.1 at 32 pixels",
    "224_fc": "v1.1 at 224, linear layer",
    "224_bypass": "v1.1 at 224, simple bypass",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="as prepare_cifar10.py makes it")
    parser.add_argument("--output_dir", type=Path, required=True, help="a folder for each row")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="(all)")
    parser.add_argument("--epochs", type=int, default=30, help="(default: 30)")
    parser.add_argument("--batch_size", type=int, default=64, help="(default: 64)")
    parser.add_argument("--lr", type=float, default=5e-4, help="(default: 0.0005)")
    parser.add_argument("--warmup_steps", type=int, default=200, help="(default: 200)")
    parser.add_argument("--device", help="(default: a GPU where there is one)")
    args = parser.parse_args()
    results = {row: run(row, args) for row in args.rows}
    classes = next(iter(results.values()))["classes"]
    short = [(each["name"] or str(each["id"]))[:9] for each in classes]
    print(f"{'':<28} {'top-1':>7} {'F1':>6}  " + " ".join(f"{name:>9}" for name in short))
    for row, found in results.items():
        f1 = " ".join(f"{each['f1'] or 0:>9.3f}" for each in found["classes"])
        print(f"{TITLES[row]:<28} {found['top1']:>7.2%} {found['macro']['f1']:>6.3f}  {f1}")
    for row in results:
        print(f"confusion matrix of {TITLES[row]}: {args.output_dir / row}_report/report.html")


def run(row: str, args: argparse.Namespace) -> dict[str, Any]:
    """Trains a row, unless it is done, and scores it; the numbers of its report."""
    output, report = args.output_dir / row, args.output_dir / f"{row}_report"
    names = args.data / "synset_words.txt"
    known = ["--synset_word_list", names] if names.is_file() else []
    device = [] if args.device is None else ["--device", args.device]
    val_list = args.data / "val_list.txt"
    tool(
        "train",
        *("--train_list", args.data / "train_list.txt", "--val_list", val_list, *known, *device),
        *("--classifier_bias", 3 if row != "224_fc" else 0),
        *("--optimizer", "adam", "--lr", args.lr, "--lr_policy", "cosine"),
        *("--warmup_steps", args.warmup_steps, "--clip_norm", 1),
        *("--num_epochs", args.epochs, "--batch_size", args.batch_size, *ROWS[row]),
        *("--output_dir", output),
    )
    scored = ["--model_dir", output, "--test_list", val_list, "--report_dir", report]
    tool("eval", *scored, *device)
    return json.loads((report / "metrics.json").read_text(encoding="utf-8"))


def tool(name: str, *flags: Any) -> None:
    command = [sys.executable, ROOT / "tools" / f"{name}.py", *flags]
    print(" ".join(map(str, command[1:])), file=sys.stderr)
    subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()

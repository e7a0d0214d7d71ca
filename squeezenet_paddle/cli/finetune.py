"""Fine-tune SqueezeNet on your own images, in minutes and without a GPU.

    python tools/finetune.py --images my_images/ --pretrained pretrained/squeezenet_v1.1 \\
        --output_dir output/mine

my_images/ has a folder for each class. A fifth of each class's images is set aside for
validation. The frozen part of the network sees each augmented view of an image once; its output is
kept in output/mine/features, and a new head is trained on that, at a thousand images a second
and at a learning rate found by a short test. output/mine gets best/ and final/, which are model
directories (every tool takes `--model_dir output/mine` for the best), report/report.html, and all
that train.py writes. The same command again goes on where it was stopped or killed.

List files in place of a folder, and a second stage, which trains fires 8 and 9 too, from the result
of the first:

    python tools/finetune.py --train_list data/train_list.txt --val_list data/val_list.txt \\
        --synset_word_list data/synset_words.txt --pretrained pretrained/squeezenet_v1.1 \\
        --then fire8+ --epochs 2 --output_dir output/mine2
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from ..evaluation.report import REPORT
from ..finetuning.run import finetune
from ..finetuning.stages import add_flags
from ..run_dir import BEST, REPORT_DIR, VAL_LIST
from . import common


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    add_flags(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    found = finetune(args)
    if found is None:
        return 130
    scores, run = found.summary(), args.output_dir
    print(
        f"top-1 {scores['top1']:.2%}  top-5 {scores['top5']:.2%} on the {scores['images']} "
        f"validation images\n\n"
        f"the model:    {run / BEST}\n"
        f"its report:   {run / REPORT_DIR / REPORT}\n\n"
        f"{commands(args)}"
    )
    return 0


def commands(args: argparse.Namespace) -> str:
    """How to use the model."""
    run = shlex.quote(str(args.output_dir))
    val_list, root = args.output_dir / VAL_LIST, args.images
    if args.train_list is not None:
        val_list = args.val_list or val_list
        root = args.data_dir or args.train_list.parent
    score = f"--test_list {shlex.quote(str(val_list))} --data_dir {shlex.quote(str(root))}"
    return (
        f"python tools/infer.py --model_dir {run} --image IMAGE\n"
        f"python tools/eval.py --model_dir {run} {score}\n"
        f"python tools/export.py --model_dir {run} --format onnx"
    )

"""Fine-tune SqueezeNet on your own images, in minutes and without a GPU.

    squeezenet finetune --images my_images/ --pretrained pretrained/squeezenet_v1.1 \\
        --output_dir output/mine

my_images/ has a folder for each class. About a fifth of the images is set aside for validation,
by what they contain. The frozen part of the network sees each augmented view of an image once; its
output is kept in output/mine/features, and a new head is trained on that, at a thousand images a
second and at a learning rate found by a short test. output/mine gets best/ and final/, which are
model directories (every tool takes `--model_dir output/mine` for the best), report/report.html, and
all that train writes. The same command again goes on where it was stopped or killed.

The same command on a folder that has changed says what came, went and moved to another class,
computes the features of new images alone, leaves every image on its side of the split, trains
a head, and compares the models on the same validation images. The earlier run is kept in
output/mine/runs/1.

List files in place of a folder, and a second stage, which trains fires 8 and 9 too, from the best
model of the first:

    squeezenet finetune --train_list data/train_list.txt --val_list data/val_list.txt \\
        --synset_word_list data/synset_words.txt --pretrained pretrained/squeezenet_v1.1 \\
        --then fire8+ --then_epochs 2 --output_dir output/mine2

Added to the command of a run without it, --then goes on from that run. From Python,
`squeezenet_paddle.finetune(FinetuneConfig.from_settings(images=..., ...))` does the same.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from ..errors import InputError
from ..evaluation.report import REPORT
from ..finetuning.config import FinetuneConfig
from ..finetuning.run import finetune
from ..model_dir import read_info
from ..run_dir import REPORT_DIR, TEST_LIST, VAL_LIST
from . import common, shared_flags
from .config_flags import add_config, config_of


def parser() -> common.Parser:
    """The flags, made of the fields of `FinetuneConfig`."""
    parser = common.parser(__doc__, leading=("--images",), resumes=True)
    add_config(parser, FinetuneConfig)
    shared_flags.add_verbose(parser)
    # What is the default now.
    parser.add_argument("--skip_unreadable", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    config = config_of(args, FinetuneConfig)
    if args.skip_unreadable and config.data.strict:
        raise InputError("`strict` and `skip_unreadable` exclude each other; one was expected.")
    result = finetune(config)
    if result.evaluation is None:
        return 130
    scores, run = result.evaluation.summary(), result.output_dir
    top_k = min(5, read_info(run).network.num_classes)
    compared = "" if result.comparison is None else f"{result.comparison}\n"
    print(
        f"top-1 {scores['top1']:.2%}  top-{top_k} {scores['top5']:.2%} on the {scores['images']} "
        f"validation images\n{compared}\n"
        f"the model:    {result.model_dir}\n"
        f"its report:   {run / REPORT_DIR / REPORT}\n\n"
        f"{commands(config)}"
    )
    return 0


def commands(config: FinetuneConfig) -> str:
    """How to use the model."""
    data, run = config.data, shlex.quote(str(config.run.output_dir))
    scored, root = [config.run.output_dir / VAL_LIST], data.images
    if data.train_list is not None:
        scored = [data.val_list or scored[0]]
        root = data.data_dir or data.train_list.parent
    elif (config.run.output_dir / TEST_LIST).exists():
        scored.append(config.run.output_dir / TEST_LIST)
    lines = [
        f"infer --model_dir {run} --image IMAGE",
        *(
            f"eval --model_dir {run} --test_list {shlex.quote(str(file))} "
            f"--data_dir {shlex.quote(str(root))}"
            for file in scored
        ),
        f"export --model_dir {run} --format onnx",
    ]
    return "\n".join(f"squeezenet {line}" for line in lines)

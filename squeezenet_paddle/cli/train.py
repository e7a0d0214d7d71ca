"""Train SqueezeNet, or fine-tune a model directory, on a list file.

    python tools/train.py --train_list data/train_list.txt --val_list data/val_list.txt \\
        --output_dir output/run1

The defaults are the authors' solver: 170,000 updates of 512 images, from scratch. Fine-tuning:

    python tools/train.py --train_list data/train_list.txt --val_list data/val_list.txt \\
        --synset_word_list data/synset_words.txt --pretrained pretrained/squeezenet_v1.1 \\
        --num_epochs 8 --batch_size 32 --lr 0.002 --output_dir output/run2

--trainable head (or fire9, fire8+, ...) trains the last layers alone, more than twice as fast; with
--head multiscale these are a small network on what all fires give:

    python tools/train.py --train_list data/train_list.txt --val_list data/val_list.txt \\
        --synset_word_list data/synset_words.txt --pretrained pretrained/squeezenet_v1.1 \\
        --head multiscale --trainable head --optimizer adam --lr 0.001 --batch_size 32 \\
        --num_epochs 5 --patience 2 --output_dir output/run3

The same command again goes on from the newest checkpoint, whether the run was killed, stopped by
Ctrl-C or extended; a finished run says so. output/run2 gets best/ and final/, which are model
directories (every tool takes `--model_dir output/run2` for its best), checkpoints/, train.log,
metrics.jsonl, curves.png, and vdl/ for VisualDL.

--num_gpus N trains on N GPUs and --device cpu --num_procs N in N processes; --batch_size is that of
all of them together, and results do not depend on N. Several machines, on each of them:

    python -m paddle.distributed.launch --nnodes 2 --master HOST:PORT tools/train.py ...
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..parallel import launcher
from ..training.plan import make_plan
from ..training.run import is_finished, result, train
from . import common, training_flags


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    data = parser.add_argument_group("data")
    common.add_list(data, "--train_list", required=True)
    common.add_list(data, "--val_list")
    common.add_data_dir(data)
    common.add_synset_word_list(data)
    data.add_argument(
        "--skip_unreadable",
        action="store_true",
        help="leave out images that cannot be read, and name them (default: off)",
    )
    training_flags.add_network(parser.add_argument_group("network"))
    training_flags.add_preprocess(
        parser.add_argument_group("input", "Defaults with --pretrained: those of its model.")
    )
    training_flags.add_augmentation(parser.add_argument_group("augmentation"))
    training_flags.add_recipe(parser.add_argument_group("solver"))
    run = parser.add_argument_group("run")
    run.add_argument("--output_dir", type=Path, required=True, metavar="DIR", help="(required)")
    run.add_argument(
        "--log_interval",
        type=training_flags.interval,
        default="20",
        help="updates, or epochs as 1e (default: 20)",
    )
    run.add_argument(
        "--eval_interval", type=training_flags.interval, default="1e", help="(default: 1e)"
    )
    run.add_argument(
        "--save_interval", type=training_flags.interval, default="1e", help="(default: 1e)"
    )
    run.add_argument(
        "--keep_checkpoints",
        type=common.positive_int,
        default=3,
        help="newest to keep (default: 3)",
    )
    run.add_argument(
        "--no_resume", action="store_true", help="start anew, in an empty --output_dir"
    )
    run.add_argument(
        "--overwrite", action="store_true", help="start anew and remove what a run left there"
    )
    machine = parser.add_argument_group("machine")
    common.add_device(machine)
    common.add_processes(machine)
    common.add_reading(machine)
    machine.add_argument(
        "--to_static", action="store_true", help="train through the static graph (default: off)"
    )
    machine.add_argument("--amp", choices=("O1", "O2"), help="mixed precision (default: float32)")
    machine.add_argument(
        "--amp_dtype", choices=("float16", "bfloat16"), default="float16", help="(default: float16)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    plan = make_plan(args)
    if is_finished(plan):
        print(f"{plan.output_dir}: this run is finished; {result(plan)}")
        return 0
    if not launcher.is_started():
        count = launcher.processes(args.device, args.num_gpus, args.num_procs)
        if count > 1:
            return launcher.launch(count, "gpu" if args.num_gpus else "cpu")
    return 0 if train(plan) else 130

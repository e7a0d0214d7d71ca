"""Train SqueezeNet, or fine-tune a model directory, on a list file.

    squeezenet train --train_list data/train_list.txt --val_list data/val_list.txt \\
        --output_dir output/run1

The defaults are the authors' solver: 170,000 updates of 512 images, from scratch. Fine-tuning:

    squeezenet train --train_list data/train_list.txt --val_list data/val_list.txt \\
        --synset_word_list data/synset_words.txt --pretrained pretrained/squeezenet_v1.1 \\
        --num_epochs 8 --batch_size 32 --lr 0.002 --output_dir output/run2

--trainable head (or fire9, fire8+, ...) trains the last layers alone, more than twice as fast; with
--head compact these are a small network on what all fires give:

    squeezenet train --train_list data/train_list.txt --val_list data/val_list.txt \\
        --synset_word_list data/synset_words.txt --pretrained pretrained/squeezenet_v1.1 \\
        --head compact --trainable head --optimizer adam --lr 0.001 --batch_size 32 \\
        --num_epochs 5 --patience 2 --output_dir output/run3

The same command again goes on from the newest checkpoint, whether the run was killed, stopped by
Ctrl-C or extended; a finished run says so. output/run2 gets best/ and final/, which are model
directories (every tool takes `--model_dir output/run2` for its best), checkpoints/, settings.json
with all settings and versions, train.log, metrics.jsonl, curves.png, and vdl/ for VisualDL.

From Python, `squeezenet_paddle.train(TrainConfig.from_settings(train_list=..., ...))` does the
same, with the flags below as names.

--num_gpus N trains on N GPUs and --device cpu --num_procs N in N processes; --batch_size counts the
images of all of them together, and results do not depend on N. Several machines, on each of them:

    python -m paddle.distributed.launch --nnodes 2 --master HOST:PORT tools/train.py ...
"""

from __future__ import annotations

from collections.abc import Sequence

from ..parallel import launcher
from ..training.config import TrainConfig
from ..training.plan import make_plan
from ..training.run import TrainResult, finished_result, train
from . import common, shared_flags
from .config_flags import add_config, config_of


def parser() -> common.Parser:
    """The flags, made of the fields of `TrainConfig`."""
    parser = common.parser(__doc__, leading=("--train_list",), resumes=True)
    add_config(parser, TrainConfig)
    shared_flags.add_verbose(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    config = config_of(parser().parse_args(argv), TrainConfig)
    if not launcher.is_started():
        machine = config.machine
        count = launcher.processes(machine.device, machine.num_gpus, machine.num_procs)
        if count > 1 and finished_result(make_plan(config)) is None:
            return launcher.launch(count, "gpu" if machine.num_gpus else "cpu")
    result = train(config)
    if result.finished_before:
        print("\n".join(finished_lines(result)))
    return 0 if result.finished else 130


def finished_lines(result: TrainResult) -> list[str]:
    """What is said of a run that was finished already."""
    return [
        f"{result.output_dir}: this run is finished; {result}",
        *(common.with_flags(f"not applied: {change}") for change in result.not_applied),
    ]

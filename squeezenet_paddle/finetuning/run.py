"""A fine-tuning from its flags: pictures, features, learning rate, training, report."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

from ..comparison import variant
from ..dataset import read_list
from ..evaluation import Evaluation, evaluate
from ..loader import Batches, Loader
from ..model_dir import check_target, load_network, read_info, write_model_dir
from ..prediction import Predictor, choose_device
from ..preprocess import EvalTransform
from ..report import Report, check_report_target, write_report
from ..run_dir import BEST, CONTINUED, MODELS, entries, locked, remove
from ..sampler import Sampler
from ..training.run import is_finished, prepare, result, start_network, train_on
from .features import cached, computed
from .pictures import LISTS, Pictures, find_pictures, write_lists
from .plan import FEATURES, FIRST_STAGE, Stage, stages, with_lr

if TYPE_CHECKING:
    from ..model import SqueezeNet

REPORT_DIR = "report"
OURS = (*LISTS, FEATURES, REPORT_DIR, FIRST_STAGE, *CONTINUED, *MODELS)


def finetune(args: argparse.Namespace) -> Evaluation | None:
    """The whole of it; what the best model makes of the validation list.

    Returns:
        None if a signal ended it early.

    Raises:
        InputError, RunError: it cannot start or go on.
    """
    pictures = find_pictures(args)
    for name in MODELS:
        check_target(args.output_dir / name)
    check_report_target(args.output_dir / REPORT_DIR)
    with locked(args.output_dir):
        if args.overwrite:
            remove(entries(args.output_dir, OURS))
        write_lists(pictures, args.output_dir)
        if pictures.note:
            _say(pictures.note)
        for stage in stages(args, pictures):
            if not _run(stage):
                return None
        if args.then is not None:
            _keep_the_better(args)
        return _report(args, pictures)


def _run(stage: Stage) -> bool:
    """A stage from its start, or from where it was; False if a signal ended it early."""
    plan = stage.plan
    if is_finished(plan):
        _say(f"{plan.output_dir}: this run is finished; {result(plan)}")
        return True
    import paddle  # once everything else is right

    from ..distributed import Group

    device = choose_device(plan.device)
    paddle.set_device(device)
    found = prepare(plan)
    network, start = start_network(plan)
    with contextlib.ExitStack() as stack:
        if plan.first == "conv1":
            size = None
            loader, val_loader = _of_pictures(stage, stack)
        else:
            size = plan.info.preprocess.crop_size
            make = cached if stage.cached else computed
            loader, val_loader = make(stage, network, device, stack, _say)
        if stage.lr is None:
            plan = with_lr(plan, _find_lr(stage, network, device, loader, size))
        return train_on(plan, device, Group(), network, start, found, loader, val_loader, size)

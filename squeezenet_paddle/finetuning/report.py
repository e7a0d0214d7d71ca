"""The report of a fine-tuning: its best model on its validation images."""

from __future__ import annotations

from ..data.lists import read_list
from ..data.loader import Loader
from ..data.preprocess import EvalTransform
from ..data.sampler import Sampler
from ..evaluation.compare import variant
from ..evaluation.evaluate import Evaluation, evaluate
from ..evaluation.report import Report, write_report
from ..predict import Predictor
from ..run_dir import BEST, REPORT_DIR
from .config import FinetuneConfig
from .lists import Lists


def report(config: FinetuneConfig, lists: Lists) -> Evaluation:
    """Scores the best model as eval.py does, and writes the report."""
    output_dir, machine = config.run.output_dir, config.machine
    predictor = Predictor(output_dir, machine.device)
    info = predictor.info
    classes = info.network.num_classes
    images = read_list(lists.val_list, lists.root, classes, info.names)
    loader = Loader(
        images,
        EvalTransform(info.preprocess),
        Sampler(len(images), 32),
        machine.num_workers,
        machine.max_pixels,
        on_unreadable=str,  # they have been named before
    )
    with loader:
        evaluation = evaluate(predictor, loader, config.data.skip_unreadable)
    facts = {
        "model": str(output_dir / BEST),
        "network": f"SqueezeNet {variant(info.network)}, {classes} classes",
        "list": str(lists.val_list),
        "input": f"center crop of {info.preprocess.crop_size} pixels",
    }
    page = Report(evaluation, images, classes, info.names, facts, machine.max_pixels)
    write_report(output_dir / REPORT_DIR, page)
    return evaluation

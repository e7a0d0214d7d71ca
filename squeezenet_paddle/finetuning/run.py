"""A fine-tuning: images, features, learning rate, training, report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from ..checking.check import Check
from ..data.augment import TrainTransform
from ..data.contents import read_contents
from ..data.lists import read_list
from ..evaluation.calibrate import calibrate
from ..evaluation.evaluate import Evaluation, score_list
from ..evaluation.report import check_report_target, report_of, write_report
from ..features.compute import paths_of
from ..model_dir import check_target, load_network, read_info, write_model_dir
from ..predict import Predictor
from ..progress import say
from ..run_dir import (
    BEST,
    CONTENTS,
    FEATURES,
    FINETUNE_ENTRIES,
    FIRST_STAGE,
    MODELS,
    REPORT_DIR,
    locked,
    overwritten_entries,
    remove,
)
from ..training.inputs import Inputs, image_inputs, report_skipped
from ..training.run import Run, finished_result
from .checks import check_images, check_lists, tell
from .config import FinetuneConfig
from .features import cached, frozen_part
from .growth import Comparison, compare, earlier_record, take_directory
from .hints import balance_hint, chance_hint, stage_hint
from .input_size import with_suited_input
from .lists import Images, Lists, inspect_images, read_images, split_images, write_lists
from .loaders import ComputedFeatures, ViewTransform
from .stages import Stage, stages


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning came to.

    Attributes:
        output_dir: its directory.
        model_dir: the best model; None where a signal ended the run early.
        evaluation: of that model on the validation images; None likewise.
        comparison: with the last run before the images changed; None if there was none.
    """

    output_dir: Path
    model_dir: Path | None
    evaluation: Evaluation | None
    comparison: Comparison | None = None

    @property
    def finished(self) -> bool:
        """False if a signal ended the run early; the same call goes on from there."""
        return self.evaluation is not None

    @property
    def best(self) -> float | None:
        """Top-1 of the best model, 0..1."""
        return None if self.evaluation is None else self.evaluation.summary()["top1"]


def finetune(config: FinetuneConfig) -> FinetuneResult:
    """Fine-tunes a model on a folder of images or on lists, or goes on where it was stopped.

    Args:
        config: all settings; `FinetuneConfig.from_settings` takes them by name.

    Raises:
        InputError, RunError: it cannot start or go on.
    """
    output_dir = config.run.output_dir
    images = read_images(config)
    for name in MODELS:
        check_target(output_dir / name)
    check_report_target(output_dir / REPORT_DIR)
    with locked(output_dir):
        if config.run.overwrite:
            remove(overwritten_entries(output_dir, FINETUNE_ENTRIES, _read_by(config)))
        lists, found = _lists_of(images, config)
        taken = take_directory(output_dir, lists.record, _read_by(config))
        for note in (*lists.notes, taken):
            if note:
                say(note)
        if found is not None:
            tell(found, config)
        write_lists(lists, output_dir)  # after which the images count as checked
        config = with_suited_input(config, lists)
        once = _Once(report_skipped)
        for stage in stages(config, lists):
            with stage.errors():
                finished = _run(stage, once)
            if not finished:
                return FinetuneResult(output_dir, None, None)
        if config.network.then is not None:
            _keep_the_better(output_dir)
        return FinetuneResult(output_dir, output_dir / BEST, *_report(config, lists, once))


def _lists_of(images: Images | Lists, config: FinetuneConfig) -> tuple[Lists, Check | None]:
    """Inspects, checks and splits the images; lists of the user are checked alone."""
    if isinstance(images, Lists):
        return check_lists(images, config)
    images = inspect_images(images, config)
    record = None if config.run.overwrite else earlier_record(config.run.output_dir)
    groups, found = check_images(images, config, record)
    return split_images(images, config, groups), found


def _read_by(config: FinetuneConfig) -> dict[str, Path | None]:
    """The files and folders that a fine-tuning reads, by their settings."""
    data, pretrained = config.data, config.network.pretrained
    names = ("images", "data_dir", "train_list", "val_list", "synset_word_list")
    return {"pretrained": pretrained, **{name: getattr(data, name) for name in names}}


class _Once:
    """Passes on each message once, however many stages find an image unreadable."""

    def __init__(self, report: Callable[[str], object]) -> None:
        self._report = report
        self._seen: set[str] = set()

    def __call__(self, message: str) -> None:
        if message not in self._seen:
            self._seen.add(message)
            self._report(message)


def _run(stage: Stage, on_skipped: Callable[[str], object]) -> bool:
    """A stage from its start, or from where it was; False if a signal ended it early."""
    plan = stage.plan
    result = finished_result(plan)
    if result is not None:
        say(f"{plan.output_dir}: this run is finished; {result}")
        for change in result.not_applied:
            say(f"not applied: {change}")
        return True
    from ..training.trainer import Trainer  # once everything else is right
    from .lr_range import find_lr

    with Run.start(plan, lock=False) as run, stage_inputs(stage, run, on_skipped) as inputs:
        if stage.finds_lr:
            chosen = find_lr(run, inputs, stage.views)
            run = run.with_lr(chosen.rate)
            say(f"learning rate: {chosen.rate:g}, {chosen.how}")
        return Trainer(run, inputs).train().finished


@contextlib.contextmanager
def stage_inputs(
    stage: Stage, run: Run, on_skipped: Callable[[str], object] = report_skipped
) -> Iterator[Inputs]:
    """The features for a stage, or the images where nothing is frozen."""
    if stage.trains_all:
        with image_inputs(run, on_skipped=on_skipped) as inputs:
            yield inputs
        return
    plan = run.plan
    preprocess = plan.info.preprocess
    assert plan.val is not None
    train_contents, val_contents = (
        read_contents(paths_of(images), stage.root / CONTENTS) for images in (plan.train, plan.val)
    )
    augmented = TrainTransform(preprocess, plan.config.augmentation, plan.solver.seed)
    views = ViewTransform(augmented, stage.views, train_contents.hashes)
    if stage.cache:
        contents, folder = (train_contents, val_contents), stage.root / FEATURES
        train, val = cached(plan, views, contents, folder, run.network, on_skipped)
        yield Inputs(train, val, preprocess.crop_size)
        return
    frozen = frozen_part(plan, run.network)
    with image_inputs(run, views, on_skipped) as inputs:
        assert inputs.val is not None
        yield Inputs(
            ComputedFeatures(inputs.train, frozen),
            ComputedFeatures(inputs.val, frozen),
            preprocess.crop_size,
        )


def _keep_the_better(output_dir: Path) -> None:
    """Keeps the first stage's model as the best one, if the second stage has made it worse."""
    first, best = output_dir / FIRST_STAGE / BEST, output_dir / BEST
    info, best_info = read_info(first), read_info(best)
    if info.source == best_info.source:
        say("validation top-1 of the second stage was no better: the first is kept")
        return
    scores = [each.scores["val"]["top1"] for each in (info, best_info)]
    if scores[0] > scores[1]:
        write_model_dir(best, info, load_network(first, info).state_dict())
    kept = "first" if scores[0] > scores[1] else "second"
    say(f"validation top-1 {scores[0]:.2%}, then {scores[1]:.2%}: the {kept} is kept")


def _report(
    config: FinetuneConfig, lists: Lists, on_skipped: Callable[[str], object]
) -> tuple[Evaluation, Comparison | None]:
    """Scores the best model on the validation list, writes the report, compares with the last."""
    output_dir, machine = config.run.output_dir, config.machine
    info = read_info(output_dir)
    train, images = (
        read_list(file, lists.root, info.network.num_classes, info.names)
        for file in (lists.train_list, lists.val_list)
    )
    if info.calibration is None:
        reading = {"num_workers": machine.num_workers, "max_pixels": machine.max_pixels}
        calibrate(output_dir / BEST, train, images, config.network.pretrained, **reading)
    predictor = Predictor(output_dir, machine.device)
    evaluation = score_list(
        predictor,
        images,
        num_workers=machine.num_workers,
        max_pixels=machine.max_pixels,
        skip_unreadable=not config.data.strict,
        on_skipped=on_skipped,
    )
    report = report_of(predictor, images, evaluation, max_pixels=machine.max_pixels)
    write_report(output_dir / REPORT_DIR, report)
    names = info.names or [f"class {i}" for i in range(info.network.num_classes)]
    hints = [chance_hint(evaluation, len(train), len(names))]
    if not (hints[0] or config.solver.balance):
        hints.append(balance_hint(evaluation, names))
    if not hints[0] and config.network.trainable == "head" and config.network.then is None:
        hints.append(stage_hint(evaluation, len(train)))
    for hint in filter(None, hints):
        say(hint)
    return evaluation, compare(config, images, names, evaluation)

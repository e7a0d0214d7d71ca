"""The training runs that a fine-tuning consists of."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.lists import read_list
from ..errors import InputError, RunError
from ..network.stages import STAGES
from ..progress import say
from ..run_dir import CHECKPOINTS, FIRST_STAGE, RUN_ENTRIES, Settings, entries
from ..settings import settings_of
from ..training import checkpoint
from ..training.config import Interval, TrainConfig
from ..training.plan import TRAIN_CONTENT, VAL_CONTENT, Plan, make_plan
from .config import (
    EPOCHS,
    FEWEST_UPDATES,
    THEN_EPOCHS,
    VIEWS,
    FinetuneConfig,
    stages_frozen,
)
from .lists import Lists

STAND_IN = 1e-3  # for a learning rate that is still to be found
# What the settings of a run are called in a second stage.
THEN = {"trainable": "then", "num_epochs": "then_epochs", "lr": "then_lr"}
WARMUP = 0.1  # of the second stage; without it Adam's first updates undo what was learnt
SAVED_AFTER = 5000  # images, in whole epochs, as saving takes as long as a few hundred
LOGGED_AFTER = 5000  # images, where no layer is frozen: a minute of a core


@dataclass(frozen=True)
class Stage:
    """A training run that is part of a fine-tuning.

    Attributes:
        plan: of the run.
        root: the directory of the fine-tuning, which has the features of all stages.
        views: of each training image.
        cache: whether features are cached.
        finds_lr: the learning rate of the plan stands for one that a range test has to find.
        is_second: another stage was before it.
    """

    plan: Plan
    root: Path
    views: int
    cache: bool
    finds_lr: bool
    is_second: bool = False

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Says of errors which stage they are of, if there are two."""
        return _errors_of_second() if self.is_second else contextlib.nullcontext()

    @property
    def trains_all(self) -> bool:
        """Whether nothing is frozen, so that there are no features."""
        return self.plan.solver.trained_from == STAGES[0]


def stages(config: FinetuneConfig, lists: Lists) -> Iterator[Stage]:
    """The runs, each planned once the one before it is done.

    Raises:
        InputError: something is not as it should be.
    """
    network, solver, output_dir = config.network, config.solver, config.run.output_dir
    first = (network.trainable, network.pretrained, solver.num_epochs, solver.lr)
    if network.then is None:
        yield _stage(config, lists, output_dir, *first)
        return
    folder = output_dir / FIRST_STAGE
    stage = _stage(config, lists, folder, *first)
    if _take_over(stage.plan, output_dir):
        stage = _stage(config, lists, folder, *first)
    yield stage
    epochs = solver.then_epochs or THEN_EPOCHS
    with _errors_of_second():
        then = (network.then, folder, epochs, solver.then_lr)
        stage = _stage(config, lists, output_dir, *then, warmup=WARMUP)
    # What there is to know of the lists, the first stage has said.
    yield replace(stage, plan=replace(stage.plan, notes=()), is_second=True)


@contextlib.contextmanager
def _errors_of_second() -> Iterator[None]:
    """Puts "second stage" before errors, and names its settings in place of the first stage's."""
    try:
        yield
    except (InputError, RunError) as error:
        text = re.sub("`(\\w+)`", lambda name: f"`{THEN.get(name[1], name[1])}`", str(error))
        raise type(error)(f"second stage: {text}") from error


def _take_over(plan: Plan, output_dir: Path) -> bool:
    """Makes a run without a second stage the first stage of one with it; whether there was one.

    The checkpoints are moved last: if this is interrupted, the next call goes on with it.

    Raises:
        InputError: the run is of other settings.
    """
    newest = checkpoint.load_newest(output_dir / CHECKPOINTS)
    if newest is None:
        return False
    with checkpoint.of_a_run(output_dir):
        settings = Settings(**newest.record["settings"])
        trainable = settings.must_match["trainable"]
    if trainable != plan.settings.must_match["trainable"]:
        return False
    plan.settings.changes_since(settings, output_dir)
    plan.output_dir.mkdir(exist_ok=True)
    names = sorted(RUN_ENTRIES, key=lambda name: name == CHECKPOINTS)
    for path in entries(output_dir, tuple(names)):
        path.rename(plan.output_dir / path.name)
    say(f"{output_dir}: its run is the first stage now, in {plan.output_dir}")
    return True


def _stage(
    config: FinetuneConfig,
    lists: Lists,
    output_dir: Path,
    trainable: str,
    pretrained: Path,
    epochs: int | None,
    lr: float | None,
    warmup: float = 0.0,
) -> Stage:
    if lr is None:
        lr = _lr_of(output_dir)
    images = len(read_list(lists.train_list, lists.root, None, lists.class_names))
    updates = -(-images // config.solver.batch_size)  # of an epoch
    frozen = stages_frozen(trainable)
    if epochs is None:
        epochs = max(EPOCHS, -(-FEWEST_UPDATES // updates))
    names = {name for name, _ in settings_of(TrainConfig)}
    shared = {name: value for name, value in config.values().items() if name in names}
    stage = {
        "train_list": lists.train_list,
        "val_list": lists.val_list,
        "data_dir": lists.root,
        "synset_word_list": lists.names,
        "skip_unreadable": not config.data.strict,
        "pretrained": pretrained,
        "trainable": trainable,
        "num_epochs": epochs,
        # Features of a whole batch fit into memory; images are taken as in training.
        "iter_size": 1 if frozen else None,
        "lr": STAND_IN if lr is None else lr,
        "warmup_steps": int(warmup * epochs * updates),
        "output_dir": output_dir,
        "overwrite": False,  # what there was is gone by now
        "log_interval": Interval(1 if frozen else min(LOGGED_AFTER / images, 1), True),
        "eval_interval": Interval(max(round(epochs / EPOCHS), 1), True),
        "save_interval": Interval(max(SAVED_AFTER // images, 1), True),
        "keep_checkpoints": 2,
    }
    views = config.features.views or VIEWS
    compared = Settings({"views": views}, {})
    if lists.record is not None:  # whatever the images are called
        compared = Settings(
            {"views": views, TRAIN_CONTENT: lists.record.digest("train")},
            {VAL_CONTENT: lists.record.digest("val")},
        )
    plan = make_plan(TrainConfig.from_settings(**{**shared, **stage}), compared)
    return Stage(plan, config.run.output_dir, views, config.features.cache, lr is None)


def _lr_of(output_dir: Path) -> float | None:
    """The learning rate of the run that is there to go on, if there is one."""
    newest = checkpoint.load_newest(output_dir / CHECKPOINTS)
    if newest is None:
        return None
    with checkpoint.of_a_run(output_dir):
        return float(newest.record["settings"]["may_change"]["lr"])

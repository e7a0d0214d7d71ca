"""Every setting of a training run, from Python and on the command line. No Paddle here.

The defaults are the authors' solver.prototxt: 170,000 updates of 512 images, from scratch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..data.augment import Augment
from ..data.decode import MAX_PIXELS
from ..data.preprocess import INTERPOLATIONS, Preprocess
from ..errors import InputError
from ..network.config import CHOICES, ModelConfig
from ..network.stages import STAGES
from ..settings import MAY_CHANGE, MUST_MATCH, Checked, Tree, group, setting
from .schedule import Schedule

ORIGINAL_STEPS = 170_000  # max_iter of the authors' solver.prototxt
LARGEST_PART = 32  # images that are computed at once, unless iter_size says otherwise
LARGEST_SEED = 2**32 - 1  # of numpy and Paddle
MOST_CLASSES = 1_000_000  # whose classifier takes 2 GB, and as much for its gradients
OPTIMIZERS = ("momentum", "adam", "adamw", "rmsprop")

_must_match = partial(setting, on_resume=MUST_MATCH)
_may_change = partial(setting, on_resume=MAY_CHANGE)

TRAINABLE = ("all", *STAGES, *(f"{stage}+" for stage in STAGES))
TRAINABLE_TEXT = "head, fire9, fire8+, ..., fire2+ or all"


@dataclass(frozen=True)
class Interval:
    """A number of updates or of epochs."""

    amount: float
    epochs: bool

    @classmethod
    def parse(cls, value: object) -> Interval:
        """Reads 500 or "500", updates, and "1e" or "0.5e", epochs.

        Raises:
            ValueError: it is neither, or not above 0.
        """
        if isinstance(value, Interval):
            return value
        text = str(value)
        interval = cls(float(text[:-1]), True) if text.endswith("e") else cls(int(text), False)
        if not 0 < interval.amount < math.inf:
            raise ValueError(text)
        return interval

    def updates(self, updates_per_epoch: int) -> int:
        """The interval in updates, at least 1."""
        return max(1, round(self.amount * (updates_per_epoch if self.epochs else 1)))

    def __str__(self) -> str:
        return f"{self.amount:g}{'e' if self.epochs else ''}"


def _overrides(cls: type, name: str, help: str = "", **options: Any) -> Any:
    """A setting in place of the pretrained model's, or of the default of `cls`."""
    default = next(field.default for field in dataclasses.fields(cls) if field.name == name)
    kind = float if isinstance(default, tuple) else type(default)
    shown = " ".join(f"{x:g}" for x in default) if isinstance(default, tuple) else str(default)
    return _must_match(None, help, kind=kind, shown=shown, **options)


@dataclass(frozen=True)
class DataConfig(Checked):
    """The lists, and what is done with images that cannot be read."""

    train_list: Path = setting(
        help="a list file: 'path label' on each line, split at the last space", kind=Path
    )
    val_list: Path | None = setting(None, "the list to validate on", Path)
    data_dir: Path | None = setting(
        None,
        "the folder that the paths of the lists start from",
        Path,
        shown="the list's own folder",
    )
    synset_word_list: Path | None = setting(
        None,
        "names of the classes, one per line in the order of their ids",
        Path,
        shown="the pretrained model's, if it has any",
    )
    skip_unreadable: bool = setting(False, "leave out images that cannot be read, and name them")


@dataclass(frozen=True)
class NetworkConfig(Checked):
    """Which SqueezeNet, and the weights it starts from; None is the pretrained model's."""

    pretrained: Path | None = setting(
        None,
        "a model directory to start from, with its network and preprocessing; a classifier of "
        "another size is replaced, and so is a head other than `head`",
        Path,
        shown="none, from scratch",
    )
    num_classes: int | None = _must_match(
        None,
        "number of classes",
        int,
        at_least=1,
        at_most=MOST_CLASSES,
        shown="the names of `synset_word_list`, else the largest label + 1",
    )
    version: str | None = _overrides(ModelConfig, "version", choices=CHOICES["version"])
    bypass: str | None = _overrides(ModelConfig, "bypass", choices=CHOICES["bypass"])
    activation: str | None = _overrides(ModelConfig, "activation", choices=CHOICES["activation"])
    head: str | None = _overrides(ModelConfig, "head", choices=CHOICES["head"])
    data_format: str | None = _overrides(ModelConfig, "data_format", choices=CHOICES["data_format"])
    dropout: float | None = _overrides(ModelConfig, "dropout", at_least=0, below=1)
    init: str = _must_match(
        "caffe",
        "initialisation from scratch, and of a new classifier",
        choices=("caffe", "xavier_normal"),
    )
    classifier_bias: float | None = _must_match(
        None,
        "initial bias of a new conv10; 0 is Caffe's, with which all its ReLUs often die if there "
        "are few classes",
        float,
        shown="3 for up to 100 maps behind a ReLU, 0 for more",
    )


@dataclass(frozen=True)
class InputConfig(Checked):
    """How an image becomes the network's input; None is the pretrained model's."""

    resize: str | None = _overrides(Preprocess, "resize", choices=("squash", "short_side"))
    resize_size: int | None = _overrides(
        Preprocess, "resize_size", "in pixels; with another `crop_size`, scaled by it", at_least=1
    )
    interpolation: str | None = _overrides(
        Preprocess, "interpolation", choices=tuple(INTERPOLATIONS)
    )
    crop_size: int | None = _overrides(
        Preprocess, "crop_size", "in pixels", at_least=1, aliases=("--input_size",)
    )
    channel_order: str | None = _overrides(Preprocess, "channel_order", choices=("BGR", "RGB"))
    scale: float | None = _overrides(
        Preprocess, "scale", "value = (pixel * `scale` - `mean`) / `std`", above=0
    )
    mean: tuple[float, ...] | None = _overrides(
        Preprocess, "mean", "in the order of `channel_order`", count=3
    )
    std: tuple[float, ...] | None = _overrides(
        Preprocess, "std", "in the order of `channel_order`", count=3, above=0
    )
    mean_json: Path | None = setting(
        None, "a file with the mean, as squeezenet prepare-images --mean_json writes it", Path
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mean is not None and self.mean_json is not None:
            raise InputError("`mean` and `mean_json` both give the mean; one was expected.")


@dataclass(frozen=True)
class SolverConfig(Schedule):
    """How to train: what, for how long, and by which rule."""

    trainable: str = _must_match(
        "all",
        "what is trained, the rest stays as `pretrained` has it: head; fire9, which is fire9 and "
        "the head; fire8+, ..., fire2+; or all",
        choices=TRAINABLE,
        expected=TRAINABLE_TEXT,
    )
    head_lr_mult: float = _may_change(1.0, "factor of the learning rate for the head", above=0)
    balance: bool = _may_change(False, "weigh images so that all classes count the same")
    patience: int | None = _may_change(
        None, "end after so many evaluations without a better score", int, at_least=1
    )
    num_epochs: int | None = setting(
        None, "length of the run in epochs", int, at_least=1, shown="`max_steps`"
    )
    max_steps: int | None = _may_change(
        None, "length of the run in updates", int, at_least=1, shown=str(ORIGINAL_STEPS)
    )
    batch_size: int = _must_match(512, "images per update, over all processes", at_least=1)
    iter_size: int | None = _must_match(
        None,
        "parts in which a batch is computed, whose gradients add up",
        int,
        at_least=1,
        shown=f"so many that a part has at most {LARGEST_PART} images",
    )
    optimizer: str = _must_match("momentum", "the update rule", choices=OPTIMIZERS)
    momentum: float = _may_change(0.9, "of momentum and rmsprop", at_least=0, below=1)
    weight_decay: float = _may_change(2e-4, "of all parameters, biases too", at_least=0)
    label_smoothing: float = _may_change(
        0.0, "share of the target that is spread evenly over the classes", at_least=0, below=1
    )
    clip_norm: float | None = _may_change(
        None, "largest joint norm of the gradients", float, above=0
    )
    ema_decay: float | None = _may_change(
        None,
        "score and keep a moving average of the weights, with this decay",
        float,
        at_least=0,
        below=1,
    )
    seed: int = _must_match(0, "of everything random", at_least=0, at_most=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_epochs is not None and self.max_steps is not None:
            raise InputError("`num_epochs` and `max_steps` both give the length; one was expected.")
        if self.iter_size is not None and self.batch_size % self.iter_size:
            raise InputError(
                f"`iter_size` {self.iter_size}: a divisor of `batch_size` {self.batch_size} was "
                "expected."
            )
        if self.optimizer.startswith("adam") and self.momentum != SolverConfig.momentum:
            raise InputError(f"`momentum` is for momentum and rmsprop, found {self.optimizer}.")

    @property
    def parts(self) -> int:
        """In how many parts, all of the same size, a batch is computed."""
        if self.iter_size is not None:
            return self.iter_size
        fewest = -(-self.batch_size // LARGEST_PART)
        return next(k for k in range(fewest, self.batch_size + 1) if self.batch_size % k == 0)

    @property
    def trained_from(self) -> str:
        """The first of `STAGES` that is trained; all that follow are, too."""
        return STAGES[0] if self.trainable == "all" else self.trainable.rstrip("+")


@dataclass(frozen=True)
class DirectoryConfig(Checked):
    """Where a run is kept."""

    output_dir: Path = setting(help="directory of the run", kind=Path)
    overwrite: bool = setting(False, "start from scratch, and remove what a run left there")


@dataclass(frozen=True)
class RunConfig(DirectoryConfig):
    """Where a run is kept, and what happens when."""

    resume: bool = setting(True, "start from scratch, in an `output_dir` without a run")
    log_interval: Interval = setting(
        Interval(20, False), "updates, or epochs as in 1e, from one line of progress to the next"
    )
    eval_interval: Interval = setting(
        Interval(1, True), "updates or epochs from one evaluation to the next"
    )
    save_interval: Interval = setting(
        Interval(1, True), "updates or epochs from one checkpoint to the next"
    )
    keep_checkpoints: int = setting(3, "how many of the newest checkpoints stay", at_least=1)


@dataclass(frozen=True)
class ReadingConfig(Checked):
    """On what a run computes, and how it reads images."""

    device: str | None = setting(
        None, "cpu, gpu or gpu:N", str, shown="gpu where Paddle finds one, else cpu"
    )
    num_workers: int = setting(
        2, "processes that read images while the network runs; 0: none", at_least=0
    )
    max_pixels: int = setting(
        MAX_PIXELS, "an image of more pixels is refused before it is decoded", at_least=1
    )


@dataclass(frozen=True)
class MachineConfig(ReadingConfig):
    """On what a run computes; nothing here is meant to change what it learns."""

    num_gpus: int | None = setting(
        None, "GPUs, each with a process of its own", int, at_least=1, shown="one process"
    )
    num_procs: int | None = setting(
        None, "processes on the CPU, with `device` cpu", int, at_least=1, shown="one process"
    )
    to_static: bool = _may_change(False, "train through the static graph")
    amp: str | None = _may_change(None, "mixed precision", choices=("O1", "O2"), shown="float32")
    amp_dtype: str = _may_change("float16", "of mixed precision", choices=("float16", "bfloat16"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_gpus is not None and self.num_procs is not None:
            raise InputError("`num_gpus` and `num_procs` exclude each other; one was expected.")
        if self.amp is None and self.amp_dtype != MachineConfig.amp_dtype:
            raise InputError("`amp_dtype` is for `amp`, which was expected with it.")


@dataclass(frozen=True)
class TrainConfig(Tree):
    """A training run: `TrainConfig.from_settings(train_list=..., output_dir=..., lr=...)`.

    Attributes:
        data: the lists.
        network: which SqueezeNet, and the weights it starts from.
        input: how an image becomes the network's input.
        augmentation: what training changes at random.
        solver: how to train.
        run: where the run is kept, and what happens when.
        machine: on what it computes.

    Raises:
        InputError: a setting is not allowed, or settings contradict each other.
    """

    data: DataConfig = group(DataConfig, "data")
    network: NetworkConfig = group(NetworkConfig, "network")
    input: InputConfig = group(
        InputConfig, "input", "Defaults with `pretrained`: those of its model."
    )
    augmentation: Augment = group(Augment, "augmentation")
    solver: SolverConfig = group(SolverConfig, "solver")
    run: RunConfig = group(RunConfig, "run")
    machine: MachineConfig = group(MachineConfig, "machine")

    def __post_init__(self) -> None:
        solver = self.solver
        if solver.trained_from != STAGES[0] and self.network.pretrained is None:
            raise InputError(
                f"`trainable` {solver.trainable}: the other layers would keep their random "
                "weights; `pretrained` was expected with it."
            )
        if solver.patience is not None and self.data.val_list is None:
            raise InputError("`patience`: `val_list` was expected with it, to score the network.")

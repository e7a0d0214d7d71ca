"""Every setting of a fine-tuning, from Python and on the command line. No Paddle here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..data.augment import Augment
from ..datasets.folders import VAL_SHARE
from ..errors import InputError
from ..network.stages import STAGES
from ..settings import Checked, Tree, group, like, setting
from ..training.config import (
    TRAINABLE,
    TRAINABLE_TEXT,
    DataConfig,
    DirectoryConfig,
    InputConfig,
    NetworkConfig,
    ReadingConfig,
    SolverConfig,
)

VIEWS, THEN_EPOCHS = 2, 2  # where they are not given
EPOCHS, FEWEST_UPDATES = 30, 200  # of the first stage
FOUND = "found by a short test"

_data, _solver = partial(like, DataConfig), partial(like, SolverConfig)


@dataclass(frozen=True)
class ImagesConfig(Checked):
    """The images: a folder with a folder for each class, or list files."""

    images: Path | None = setting(
        None,
        "a folder with a folder for each class; images may lie deeper in them, and folders train, "
        "val and test are taken as the split",
        Path,
    )
    train_list: Path | None = _data("train_list", default=None)
    val_list: Path | None = _data("val_list", shown="a part of `train_list`")
    data_dir: Path | None = _data("data_dir")
    synset_word_list: Path | None = _data("synset_word_list")
    val_share: float | None = setting(
        None,
        "share of each class's images that is set aside for validation, where there is no "
        "`val_list`",
        float,
        above=0,
        below=1,
        shown=str(VAL_SHARE),
    )
    class_name_pattern: str | None = setting(
        None,
        "a regular expression searched for in a class folder's name; its first group, or the "
        "whole match, is the class's name",
        str,
        shown="the folder's name",
    )
    class_level: int | None = setting(
        None,
        "how deep the class folders lie, 1 for those in `images` itself",
        int,
        at_least=1,
        shown="found",
    )
    group_pattern: str | None = setting(
        None,
        "a regular expression searched for in an image's path; images for which its first group, "
        "or the whole match, is the same are on one side of the split",
        str,
        shown="none",
    )
    check: bool = setting(True, "do not look for duplicates and wrong labels first")
    strict: bool = setting(False, "stop where images cannot be read, in place of leaving them out")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.images is None) == (self.train_list is None):
            raise InputError(
                "one of `images`, a folder for each class, or `train_list` was expected."
            )
        own, other, names = "train_list", "images", ["class_name_pattern", "class_level"]
        if self.images is not None:
            own, other, names = other, own, ["val_list", "data_dir", "synset_word_list"]
        for name in names:
            if getattr(self, name) is not None:
                raise InputError(f"`{name}` goes with `{other}`, and `{own}` was given.")
        if self.val_list is not None and self.group_pattern is not None:
            raise InputError(
                "`group_pattern` is for the split, and `val_list` is one; one of them was expected."
            )
        if self.val_list is not None and self.val_share is not None:
            raise InputError(
                "`val_share` and `val_list` both say what validates; one was expected."
            )


@dataclass(frozen=True)
class StagesConfig(Checked):
    """The network, and which part of it is trained."""

    pretrained: Path = setting(help="the model directory to start from", kind=Path)
    head: str = setting(
        "compact",
        "conv, the original's; compact, two layers on the means of all fires' maps; "
        "multiscale, the same with 1024 hidden units in place of 128",
        choices=("conv", "compact", "multiscale"),
    )
    dropout: float | None = like(NetworkConfig, "dropout", shown="the pretrained model's")
    trainable: str = _solver(
        "trainable", default="head", help="what is trained: head, fire9, fire8+, ..., fire2+ or all"
    )
    then: str | None = setting(
        None,
        "a second stage, from the best model of the first: what it trains",
        str,
        choices=TRAINABLE,
        expected=TRAINABLE_TEXT,
    )


@dataclass(frozen=True)
class FeaturesConfig(Checked):
    """The outputs of the frozen layers, which stand in for images."""

    views: int | None = setting(
        None,
        "augmented views of each training image; epoch e sees view e modulo N. Where all layers "
        "are trained, each epoch has a view of its own",
        int,
        at_least=1,
        shown=str(VIEWS),
    )
    cache: bool = setting(True, "compute the features again in each epoch, the same ones")


@dataclass(frozen=True)
class FinetuneSolverConfig(Checked):
    """How to train."""

    num_epochs: int | None = _solver(
        "num_epochs",
        help="length in epochs, of the first stage",
        shown=f"{EPOCHS}, or so many that there are {FEWEST_UPDATES} updates",
    )
    lr: float | None = _solver(
        "lr",
        default=None,
        help="learning rate, of the first stage",
        shown=FOUND,
    )
    then_epochs: int | None = setting(
        None,
        "length of the second stage in epochs",
        int,
        at_least=1,
        shown=str(THEN_EPOCHS),
        aliases=("--epochs",),
    )
    then_lr: float | None = setting(
        None, "learning rate of the second stage", float, above=0, shown=FOUND
    )
    batch_size: int = _solver("batch_size", default=64)
    optimizer: str = _solver("optimizer", default="adam")
    weight_decay: float = _solver("weight_decay")
    label_smoothing: float = _solver("label_smoothing", default=0.1)
    head_lr_mult: float = _solver("head_lr_mult")
    balance: bool = _solver("balance")
    patience: int | None = _solver("patience", default=10)
    seed: int = _solver("seed")


@dataclass(frozen=True)
class FinetuneConfig(Tree):
    """A fine-tuning: `FinetuneConfig.from_settings(images=..., pretrained=..., output_dir=...)`.

    Raises:
        InputError: a setting is not allowed, or settings contradict each other.
    """

    data: ImagesConfig = group(ImagesConfig, "images")
    network: StagesConfig = group(StagesConfig, "network")
    features: FeaturesConfig = group(FeaturesConfig, "features")
    input: InputConfig = group(
        InputConfig, "input", "Defaults: those of the model of `pretrained`."
    )
    augmentation: Augment = group(Augment, "augmentation")
    solver: FinetuneSolverConfig = group(FinetuneSolverConfig, "solver")
    run: DirectoryConfig = group(DirectoryConfig, "run")
    machine: ReadingConfig = group(ReadingConfig, "machine")

    def __post_init__(self) -> None:
        network, features = self.network, self.features
        if network.then is None:
            for name in ("then_epochs", "then_lr"):
                if getattr(self.solver, name) is not None:
                    first = name.replace("then_", "num_" if name == "then_epochs" else "")
                    raise InputError(
                        f"`{name}` is for a second stage, and `then` was not given; for the first "
                        f"stage it is `{first}`."
                    )
        elif stages_frozen(network.then) >= stages_frozen(network.trainable):
            raise InputError(
                f"`then` {network.then}: more than what `trainable` {network.trainable} trains was "
                "expected."
            )
        if stages_frozen(network.trainable) == 0:
            refused = "views" if features.views is not None else "" if features.cache else "cache"
            if refused:
                raise InputError(
                    f"`{refused}` is for features, and where `trainable` is all there are none."
                )


def stages_frozen(trainable: str) -> int:
    """How many of `STAGES` stay as they are."""
    return 0 if trainable == "all" else STAGES.index(trainable.rstrip("+"))

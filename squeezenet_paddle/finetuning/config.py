"""Every setting of a fine-tuning, from Python and on the command line. No Paddle here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..data.augment import Augment
from ..errors import InputError
from ..network.config import STAGES
from ..settings import Checked, Tree, group, like, setting
from ..training.config import (
    TRAINABLE,
    TRAINABLE_TEXT,
    DataConfig,
    InputConfig,
    MachineConfig,
    NetworkConfig,
    RunConfig,
    SolverConfig,
)

VAL_SHARE, VIEWS, THEN_EPOCHS = 0.2, 2, 2  # where they are not given


@dataclass(frozen=True)
class ImagesConfig(Checked):
    """The images: a folder with a folder for each class, or list files."""

    images: Path | None = setting(
        None, "a folder with a folder for each class; images may lie deeper in them", kind=Path
    )
    train_list: Path | None = like(DataConfig, "train_list", None)
    val_list: Path | None = like(DataConfig, "val_list", shown="a part of `train_list`")
    data_dir: Path | None = like(DataConfig, "data_dir")
    synset_word_list: Path | None = like(DataConfig, "synset_word_list")
    val_share: float | None = setting(
        None,
        "share of each class's images that is set aside for validation, where there is no "
        "`val_list`",
        kind=float,
        above=0,
        below=1,
        shown=str(VAL_SHARE),
    )
    class_name_pattern: str | None = setting(
        None,
        "a regular expression searched for in a class folder's name; its first group, or the "
        "whole match, is the class's name",
        kind=str,
        shown="the folder's name",
    )
    skip_unreadable: bool = like(DataConfig, "skip_unreadable")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.images is None) == (self.train_list is None):
            raise InputError(
                "one of `images`, a folder for each class, or `train_list` was expected."
            )
        own, other = (
            ("images", "train_list") if self.images is not None else ("train_list", "images")
        )
        names = ("val_list", "data_dir", "synset_word_list")
        for name in names if own == "images" else ("class_name_pattern",):
            if getattr(self, name) is not None:
                raise InputError(f"`{name}` goes with `{other}`, and `{own}` was given.")
        if self.val_list is not None and self.val_share is not None:
            raise InputError(
                "`val_share` and `val_list` both say what validates; one was expected."
            )


@dataclass(frozen=True)
class StagesConfig(Checked):
    """The network, and which part of it is trained."""

    pretrained: Path = setting(help="the model directory to start from", kind=Path)
    head: str = setting(
        "multiscale",
        "conv, the original's; multiscale, two layers on the means of all fires' maps",
        choices=("conv", "multiscale"),
    )
    dropout: float | None = like(NetworkConfig, "dropout", shown="the pretrained model's")
    trainable: str = like(
        SolverConfig,
        "trainable",
        "head",
        "what is trained: head, fire9, fire8+, ..., fire2+ or all",
    )
    then: str | None = setting(
        None,
        "a second stage, from the best model of the first: what it trains",
        kind=str,
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
        kind=int,
        at_least=1,
        shown=str(VIEWS),
    )
    cache: bool = setting(True, "compute the features again in each epoch, the same ones")


@dataclass(frozen=True)
class FinetuneSolverConfig(Checked):
    """How to train."""

    num_epochs: int = like(SolverConfig, "num_epochs", 30, "length in epochs, of the first stage")
    lr: float | None = like(
        SolverConfig,
        "lr",
        None,
        "learning rate, of the first stage",
        shown="found by a short range test",
    )
    then_epochs: int | None = setting(
        None,
        "length of the second stage in epochs",
        kind=int,
        at_least=1,
        shown=str(THEN_EPOCHS),
        aliases=("--epochs",),
    )
    then_lr: float | None = setting(
        None,
        "learning rate of the second stage",
        kind=float,
        above=0,
        shown="found by a short range test",
    )
    batch_size: int = like(SolverConfig, "batch_size", 64)
    optimizer: str = like(SolverConfig, "optimizer", "adam")
    weight_decay: float = like(SolverConfig, "weight_decay")
    label_smoothing: float = like(SolverConfig, "label_smoothing")
    head_lr_mult: float = like(SolverConfig, "head_lr_mult")
    balance: bool = like(SolverConfig, "balance")
    patience: int | None = like(SolverConfig, "patience", 10)
    seed: int = like(SolverConfig, "seed")


@dataclass(frozen=True)
class FinetuneRunConfig(Checked):
    """Where the run is kept."""

    output_dir: Path = like(RunConfig, "output_dir")
    overwrite: bool = like(RunConfig, "overwrite")


@dataclass(frozen=True)
class FinetuneMachineConfig(Checked):
    """On what the run computes."""

    device: str | None = like(MachineConfig, "device")
    num_workers: int = like(MachineConfig, "num_workers")
    max_pixels: int = like(MachineConfig, "max_pixels")


@dataclass(frozen=True)
class FinetuneConfig(Tree):
    """A fine-tuning: `FinetuneConfig.from_settings(images=..., pretrained=..., output_dir=...)`.

    Attributes:
        data: the images.
        network: the network, and which part of it is trained.
        features: the outputs of the frozen layers.
        input: how an image becomes the network's input.
        augmentation: what training changes at random.
        solver: how to train.
        run: where the run is kept.
        machine: on what it computes.

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
    run: FinetuneRunConfig = group(FinetuneRunConfig, "run")
    machine: FinetuneMachineConfig = group(FinetuneMachineConfig, "machine")

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
            for name, given in (
                ("views", features.views is not None),
                ("cache", not features.cache),
            ):
                if given:
                    raise InputError(
                        f"`{name}` is for features, and where `trainable` is all there are none."
                    )


def stages_frozen(trainable: str) -> int:
    """How many of `STAGES` stay as they are."""
    return 0 if trainable == "all" else STAGES.index(trainable.rstrip("+"))

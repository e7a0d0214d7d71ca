"""The flags of a training run, and what they make: network, preprocessing, augmentation, recipe.

A flag that is not given is None here, so that its default can be what a pretrained model or the
dataclass of the same field says.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, TypeVar

from ..data.augment import BORDERS, Augment
from ..data.preprocess import INTERPOLATIONS, Preprocess
from ..errors import InputError
from ..files import read_bytes
from ..network.config import CHOICES, ModelConfig
from ..training.recipe import OPTIMIZERS
from ..training.schedule import POLICIES, Schedule
from .common import non_negative_int, positive_int, seed

ORIGINAL_STEPS = 170_000  # max_iter of the authors' solver.prototxt
LARGEST_PART = 32  # images that are computed at once, unless --iter_size says otherwise

T = TypeVar("T")


@dataclass(frozen=True)
class Interval:
    """So many updates or epochs."""

    amount: float
    epochs: bool

    def updates(self, updates_per_epoch: int) -> int:
        """At least 1."""
        factor = updates_per_epoch if self.epochs else 1
        return max(1, round(self.amount * factor))

    def __str__(self) -> str:
        return f"{self.amount:g}{'e' if self.epochs else ''}"


def interval(text: str) -> Interval:
    """An argparse type: `500` updates, or `1e`, `0.5e` epochs."""
    number, epochs = (text[:-1], True) if text.endswith("e") else (text, False)
    try:
        amount = float(number) if epochs else int(number)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"a number of updates, or of epochs as in 1e, was expected, found {text!r}"
        ) from None
    if not 0 < amount < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return Interval(amount, epochs)


def add_network(group: Any) -> None:
    """Which SqueezeNet, and its start."""
    group.add_argument(
        "--pretrained",
        type=Path,
        metavar="DIR",
        help="a model directory to start from, whose network and preprocessing are taken over; a "
        "classifier of another size is replaced, and so is a head other than --head "
        "(default: none, from scratch)",
    )
    group.add_argument(
        "--num_classes",
        type=positive_int,
        help="(default: the names of --synset_word_list, else the largest label + 1)",
    )
    for name in ("version", "bypass", "activation", "head", "data_format"):
        _add_field(group, ModelConfig, name, choices=CHOICES[name])
    _add_field(group, ModelConfig, "dropout", type=float)
    group.add_argument(
        "--init",
        choices=("caffe", "xavier_normal"),
        default="caffe",
        help="initialisation from scratch, and of a new classifier (default: caffe)",
    )
    group.add_argument(
        "--classifier_bias",
        type=float,
        help="initial bias of a new conv10; 0 is Caffe's, with which all its ReLUs often die if "
        "there are few classes (default: 3 for up to 100 maps behind a ReLU, 0 for more)",
    )


def add_preprocess(group: Any) -> None:
    """How an image becomes the network's input."""
    _add_field(group, Preprocess, "resize", choices=("squash", "short_side"))
    _add_field(group, Preprocess, "resize_size", type=positive_int, help="pixels")
    _add_field(group, Preprocess, "interpolation", choices=tuple(INTERPOLATIONS))
    _add_field(group, Preprocess, "crop_size", type=positive_int, help="pixels")
    _add_field(group, Preprocess, "channel_order", choices=("BGR", "RGB"))
    _add_field(group, Preprocess, "scale", type=float, help="value = (pixel * scale - mean) / std")
    order = "in the order of --channel_order"
    _add_field(group, Preprocess, "mean", type=float, nargs=3, help=order)
    _add_field(group, Preprocess, "std", type=float, nargs=3, help=order)
    group.add_argument(
        "--mean_json",
        type=Path,
        metavar="FILE",
        help="take the mean from there, as prepare_images.py --mean_json writes it (default: none)",
    )


def add_augmentation(group: Any) -> None:
    """What training changes at random."""
    _add_field(group, Augment, "flip", type=float, help="probability of a mirror image")
    _add_field(group, Augment, "rotation", type=float, help="largest angle in degrees")
    _add_field(group, Augment, "border", choices=tuple(BORDERS), help="what a rotation brings in")
    for name in ("brightness", "contrast", "saturation"):
        _add_field(group, Augment, name, type=float, help="factors of 1 - x to 1 + x")
    group.add_argument(
        "--resized_crop",
        action="store_true",
        default=None,
        help="a window of random area and proportions instead of a random crop (default: off)",
    )
    share = "limits of that window's share of the image"
    _add_field(group, Augment, "crop_scale", type=float, nargs=2, help=share)
    _add_field(group, Augment, "crop_ratio", type=float, nargs=2, help="of its width over height")


def add_recipe(group: Any) -> None:
    """The solver; its defaults are the authors' solver.prototxt."""
    group.add_argument(
        "--trainable",
        default="all",
        metavar="STAGES",
        help="what is trained, the rest stays as --pretrained has it: head; fire9, which is fire9 "
        "and the head; fire8+, ..., fire2+; or all (default: all)",
    )
    group.add_argument(
        "--head_lr_mult",
        type=float,
        default=1.0,
        metavar="X",
        help="what the learning rate is multiplied by for the head (default: 1)",
    )
    group.add_argument(
        "--balance",
        action="store_true",
        help="let all classes count the same, however many images they have (default: off)",
    )
    group.add_argument(
        "--patience",
        type=positive_int,
        help="end after so many evaluations without a better score (default: go on)",
    )
    length = group.add_mutually_exclusive_group()
    length.add_argument("--num_epochs", type=positive_int, help="length (default: --max_steps)")
    length.add_argument(
        "--max_steps", type=positive_int, help=f"length in updates (default: {ORIGINAL_STEPS})"
    )
    group.add_argument(
        "--batch_size",
        type=positive_int,
        default=512,
        help="images an update, over all processes (default: 512)",
    )
    group.add_argument(
        "--iter_size",
        type=positive_int,
        help="parts in which a batch is computed, whose gradients add up (default: so many that "
        f"a part has at most {LARGEST_PART} images)",
    )
    group.add_argument(
        "--optimizer", choices=OPTIMIZERS, default="momentum", help="(default: momentum)"
    )
    group.add_argument(
        "--momentum", type=float, default=0.9, help="of momentum and rmsprop (default: 0.9)"
    )
    group.add_argument(
        "--weight_decay", type=float, default=2e-4, help="of everything (default: 0.0002)"
    )
    group.add_argument("--lr", type=float, default=0.04, help="learning rate (default: 0.04)")
    _add_field(group, Schedule, "policy", flag="--lr_policy", choices=POLICIES)
    _add_field(group, Schedule, "power", type=float, help="of poly")
    _add_field(
        group,
        Schedule,
        "cosine_t_max",
        type=positive_int,
        help="updates to a restart of cosine",
        default="the length of the run",
    )
    _add_field(group, Schedule, "eta_min", type=float, help="lowest rate of cosine")
    _add_field(group, Schedule, "gamma", type=float, help="factor of step and multistep")
    _add_field(group, Schedule, "step_size", type=positive_int, help="updates, of step")
    _add_field(
        group, Schedule, "milestones", type=positive_int, nargs="+", help="updates, of multistep"
    )
    _add_field(
        group,
        Schedule,
        "warmup_steps",
        type=non_negative_int,
        help="updates in which the rate grows to that of the policy",
    )
    group.add_argument("--label_smoothing", type=float, default=0.0, help="(default: 0)")
    group.add_argument(
        "--clip_norm", type=float, help="largest joint norm of the gradients (default: none)"
    )
    group.add_argument(
        "--ema_decay",
        type=float,
        help="score and keep a moving average of the weights (default: none)",
    )
    group.add_argument("--seed", type=seed, default=0, help="of everything random (default: 0)")


def network_config(
    args: argparse.Namespace, pretrained: ModelConfig | None, num_classes: int
) -> ModelConfig:
    """The network that the flags ask for.

    Raises:
        InputError: a flag contradicts the pretrained model.
    """
    given = _given(args, ModelConfig)
    given.pop("num_classes", None)
    if pretrained is None:
        return ModelConfig(num_classes=num_classes, **given)
    for name in ("version", "bypass", "activation"):
        there = getattr(pretrained, name)
        if given.get(name, there) != there:
            raise InputError(
                f"--{name} {given[name]}: the model of --pretrained has {name} {there}."
            )
    return dataclasses.replace(pretrained, num_classes=num_classes, **given)


def preprocess(args: argparse.Namespace, base: Preprocess, data_format: str) -> Preprocess:
    """The preprocessing that the flags ask for, on top of the pretrained model's."""
    given = _given(args, Preprocess)
    if args.mean_json is not None:
        if "mean" in given:
            raise InputError("--mean and --mean_json both give the mean; one was expected.")
        order = given.get("channel_order", base.channel_order)
        scale = given.get("scale", base.scale)
        mean = _mean_of(args.mean_json)[:: 1 if order == "BGR" else -1]
        given["mean"] = tuple(value * scale for value in mean)
    return dataclasses.replace(base, **{**given, "data_format": data_format})


def augment(args: argparse.Namespace) -> Augment:
    """The augmentation that the flags ask for."""
    return Augment(**_given(args, Augment))


def schedule(args: argparse.Namespace, max_steps: int) -> Schedule:
    """The learning rate that the flags ask for."""
    given = _given(args, Schedule)
    given.pop("max_steps", None)
    if args.lr_policy is not None:
        given["policy"] = args.lr_policy
    return Schedule(max_steps=max_steps, base_lr=args.lr, **given)


def iter_size(args: argparse.Namespace) -> int:
    """Parts of a batch, all of the same size.

    Raises:
        InputError: the batch cannot be split so.
    """
    if args.iter_size is None:
        smallest = -(-args.batch_size // LARGEST_PART)
        return next(k for k in range(smallest, args.batch_size + 1) if args.batch_size % k == 0)
    if args.batch_size % args.iter_size:
        raise InputError(
            f"--iter_size {args.iter_size}: a divisor of --batch_size {args.batch_size} was "
            "expected."
        )
    return args.iter_size


def max_steps(args: argparse.Namespace, updates_per_epoch: int) -> int:
    """The length of the run in updates."""
    if args.num_epochs is not None:
        return args.num_epochs * updates_per_epoch
    return args.max_steps or ORIGINAL_STEPS


def _add_field(
    group: Any,
    cls: type,
    name: str,
    flag: str | None = None,
    help: str = "",
    default: str | None = None,
    type: Callable[[str], Any] | None = None,
    **options: Any,
) -> None:
    """A flag for the field of a dataclass, whose default its help tells."""
    if default is None:
        value = next(f.default for f in dataclasses.fields(cls) if f.name == name)
        if isinstance(value, tuple):
            default = " ".join(f"{v:.4g}" for v in value) or "none"
        else:
            default = "none" if value is None else str(value)
    if type is not None:
        options["type"] = type
        options.setdefault("metavar", "N" if type in (positive_int, non_negative_int) else "X")
    group.add_argument(
        flag or f"--{name}", default=None, help=f"{help} (default: {default})".strip(), **options
    )


def _given(args: argparse.Namespace, cls: type) -> dict[str, Any]:
    """The fields of a dataclass for which a flag was given."""
    found = {f.name: getattr(args, f.name, None) for f in dataclasses.fields(cls)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in found.items()
        if value is not None
    }


def _mean_of(path: Path) -> tuple[float, ...]:
    """B, G, R of a file that prepare_images.py wrote."""
    try:
        mean = json.loads(read_bytes(path, "file of a mean"))["mean"]
        return tuple(float(value) for value in mean)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'--mean_json {path}: a JSON object with "mean": [B, G, R] was expected.'
        ) from error

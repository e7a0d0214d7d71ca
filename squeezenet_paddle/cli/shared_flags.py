"""The flags that mean the same in every command, and the types of their values."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Callable

from ..data.lists import read_names
from ..data.preprocess import INTERPOLATIONS
from ..engines.load import ENGINES, PRECISIONS
from ..model_dir import ModelInfo
from ..training.config import DataConfig, MachineConfig
from .config_flags import add_settings


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    return _whole_number(text, 1, None)


def non_negative_int(text: str) -> int:
    """An argparse type: a whole number of at least 0."""
    return _whole_number(text, 0, None)


def seed(text: str) -> int:
    """An argparse type: a seed, as numpy and Paddle both take it."""
    return _whole_number(text, 0, 2**32 - 1)


def _whole_number(text: str, low: int, high: int | None) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number was expected, found {text!r}") from None
    if value < low:
        raise argparse.ArgumentTypeError(f"{value} is below {low}")
    if high is not None and value > high:
        raise argparse.ArgumentTypeError(f"{value} is above {high}")
    return value


def add_old_flag(group: Any, flag: str, dest: str, type: Callable[[str], Any]) -> None:
    """An earlier spelling of a flag, which still works and is not shown."""
    group.add_argument(
        flag, dest=dest, type=type, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )


def add_model_dir(group: Any, required: bool = True) -> None:
    group.add_argument(
        "--model_dir",
        type=Path,
        required=required,
        metavar="DIR",
        help="a model directory, as squeezenet convert writes it"
        + (" (required)" if required else " (default: none)"),
    )


def add_class_level(group: Any) -> None:
    group.add_argument(
        "--class_level",
        type=positive_int,
        metavar="N",
        help="how deep the class folders lie, 1 for those in --images itself (default: found)",
    )


def add_untrained(group: Any) -> None:
    group.add_argument(
        "--untrained",
        action="store_true",
        help="take a model directory whose classifier is new and untrained (default: refuse it)",
    )


def add_list(group: Any, flag: str, required: bool = False) -> None:
    group.add_argument(
        flag,
        type=Path,
        required=required,
        metavar="FILE",
        help="a list file: 'path label' on each line, or CSV with the columns image and label"
        + (" (required)" if required else " (default: none)"),
    )


def add_data_dir(group: Any) -> None:
    add_settings(group, DataConfig, "data_dir")


def add_synset_word_list(group: Any) -> None:
    group.add_argument(
        "--synset_word_list",
        type=Path,
        metavar="FILE",
        help="class names, one on each line in the order of the class ids; imagenet: the 1,000 of "
        "ILSVRC-2012 (default: the model directory's synset_words.txt, if it has one)",
    )


def add_labels(group: Any) -> None:
    """--synset_word_list of the converters, which put the names into the model directory."""
    group.add_argument(
        "--synset_word_list",
        type=Path,
        metavar="FILE",
        help="class names for the model directory: a name a line, with a WordNet id or the class "
        "number before it or not; JSON; or imagenet (default: none)",
    )


def add_new_classifier(group: Any) -> None:
    """--num_classes, --ignore_classifier and --seed of the converters."""
    group.add_argument(
        "--num_classes", type=positive_int, help="number of classes (default: as found)"
    )
    group.add_argument(
        "--ignore_classifier",
        action="store_true",
        help="leave the file's classifier out and make a new one for --num_classes (default: off)",
    )
    group.add_argument("--seed", type=seed, default=0, help="of a new classifier (default: 0)")


def add_compared_images(group: Any) -> None:
    """--image of the converters, for the proof."""
    group.add_argument(
        "--image",
        type=Path,
        nargs="+",
        default=[],
        help="images to compare on, besides a random one (default: none)",
    )
    add_verbose(group)


def add_geometry(
    group: Any, input_size: str, resize: str, resize_size: str, interpolation: str
) -> None:
    """--input_size, --resize, --resize_size and --interpolation, with their defaults as text."""
    group.add_argument(
        "--input_size", type=positive_int, help=f"side of the crop (default: {input_size})"
    )
    group.add_argument(
        "--resize",
        choices=("squash", "short_side"),
        help=f"both sides, or the shorter one, become --resize_size (default: {resize})",
    )
    group.add_argument(
        "--resize_size",
        type=positive_int,
        help=f"pixels before the crop (default: {resize_size})",
    )
    group.add_argument(
        "--interpolation", choices=tuple(INTERPOLATIONS), help=f"(default: {interpolation})"
    )


def add_min_probability(group: Any) -> None:
    group.add_argument(
        "--min_probability",
        type=share,
        metavar="P",
        help="an image is unsure if no class is as probable, 0 to 1 (default: no limit)",
    )


def share(text: str) -> float:
    """An argparse type: a number of 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number was expected, found {text!r}") from None
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def class_names(args: argparse.Namespace, info: ModelInfo) -> list[str] | None:
    """Those of --synset_word_list, else the model directory's; None where there are none."""
    if args.synset_word_list is None:
        return info.names
    return read_names(args.synset_word_list, info.network.num_classes)


def add_loading(group: Any) -> None:
    group.add_argument(
        "--batch_size", type=positive_int, default=32, help="images a batch (default: 32)"
    )
    add_reading(group)


def add_reading(group: Any) -> None:
    add_settings(group, MachineConfig, "num_workers", "max_pixels")
    add_verbose(group)


def add_verbose(group: Any) -> None:
    group.add_argument(
        "--verbose",
        action="store_true",
        help="show what the decoders of images remark, with the name of the image (default: off)",
    )


def add_device(group: Any) -> None:
    add_settings(group, MachineConfig, "device")


def add_threads(group: Any) -> None:
    group.add_argument(
        "--threads",
        type=positive_int,
        help="threads that compute, on a CPU (default: one per core that the process may use)",
    )


def add_engine(group: Any, several: bool = False) -> None:
    """--engine and --precision; or lists of them."""
    lists: dict[str, Any] = {"nargs": "+"} if several else {}
    group.add_argument(
        "--engine",
        choices=("auto", *ENGINES),
        default=["auto"] if several else "auto",
        help="what computes; auto: the fastest that is installed and agrees with the network "
        "(default: auto)",
        **lists,
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=["float32"] if several else "float32",
        help="arithmetic of the engine; int8 needs an int8 export (default: float32)",
        **lists,
    )


def add_processes(group: Any) -> None:
    add_settings(group, MachineConfig, "num_gpus", "num_procs")


def add_skip_unreadable(group: Any) -> None:
    add_settings(group, DataConfig, "skip_unreadable")

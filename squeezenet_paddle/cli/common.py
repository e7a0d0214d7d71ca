"""What the command lines share: the flags that mean the same in every tool, and how errors end.

Importing this does not load Paddle; only what a tool calls does.
"""

from __future__ import annotations

import argparse
import difflib
import io
import itertools
import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, ClassVar, NoReturn

from ..data import remarks
from ..data.lists import read_names
from ..data.preprocess import INTERPOLATIONS
from ..engines.load import ENGINES, PRECISIONS
from ..errors import InputError, RunError
from ..model_dir import ModelInfo
from ..process_settings import keep_signals_from_paddle, use_fast_cpu_settings
from ..progress import printable, say, spell_settings
from ..training.config import DataConfig, MachineConfig
from .config_flags import add_settings

# What installs a package that the base does not need.
EXTRAS = {
    "paddle": "PaddlePaddle is not installed: pip install 'squeezenet_paddle[cpu]', "
    "or 'squeezenet_paddle[gpu]' for an NVIDIA GPU.",
    **{
        package: f"{package} is not installed: pip install 'squeezenet_paddle[report]'."
        for package in ("jinja2", "matplotlib", "scipy", "sklearn")
    },
    **{
        package: f"{package} is not installed: pip install 'squeezenet_paddle[page]'."
        for package in ("ziglang", "wasmtime")
    },
}


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong, and what to type instead, in one line.

    Attributes:
        leading: the flags that arguments before all flags would be the values of, as in
            `squeezenet infer MODEL IMAGE ...`; they are named in the error.
    """

    program: ClassVar[str] = Path(sys.argv[0]).name  # as usage and errors name it
    flags: ClassVar[dict[str, str]] = {}  # setting -> flag, of the command that is running
    leading: tuple[str, ...] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        args = sys.argv[1:] if args is None else list(args)
        typed = {argument.partition("=")[0] for argument in args}
        Parser.flags = {}
        for action in self._actions:
            for flag in action.option_strings:
                shown = action.help is not argparse.SUPPRESS and action.dest not in Parser.flags
                if shown or flag in typed:
                    Parser.flags[action.dest] = flag
        self._check_flags(args)
        self._check_leading(args)
        parsed = super().parse_known_args(args, namespace)
        verbose = getattr(parsed[0], "verbose", False)
        remarks.logger.setLevel(logging.INFO if verbose else logging.WARNING)
        return parsed

    def _check_flags(self, args: Sequence[str]) -> None:
        """Refuses a flag that does not exist, before one that is required is found missing."""
        for argument in itertools.takewhile(lambda a: a != "--", args):
            flag = argument.partition("=")[0]
            if re.fullmatch(r"--?[A-Za-z][\w-]*", flag) and flag not in self._option_string_actions:
                near = difflib.get_close_matches(flag, ["--help", *self.flags.values()], 1)
                self.error(f"there is no {flag}" + (f", the nearest is {near[0]}" if near else ""))

    def _check_leading(self, args: Sequence[str]) -> None:
        values = list(itertools.takewhile(lambda a: not a.startswith("-"), args))
        if not values or any(not action.option_strings for action in self._actions):
            return
        message = f"a flag was expected before {values[0]!r}"
        if self.leading:
            *single, last = self.leading
            words = [word for pair in zip(single, values) for word in pair]
            if rest := values[len(single) :]:
                words += [last, *rest]
            message += f", as in {shlex.join(words)}"
        self.error(message)

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; --help shows what there is.")


def parser(doc: str | None, leading: tuple[str, ...] = ()) -> Parser:
    """A parser whose --help shows the module's docstring, the tool's manual; see `Parser`."""
    parser = Parser(
        prog=Parser.program,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.leading = leading
    return parser


class _Terminal(io.TextIOWrapper):
    """Standard output on a terminal, which is not to obey what stands in a class name."""

    def __init__(self, stdout: io.TextIOWrapper) -> None:
        super().__init__(stdout.buffer, stdout.encoding, stdout.errors, line_buffering=True)

    def write(self, text: str) -> int:
        return super().write(printable(text))


class _Handler(logging.Handler):
    """Prints log messages to standard error, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def run(main: Callable[[], int | None], program: str | None = None) -> NoReturn:
    """Runs a command and exits: a mistake of the user ends with one line on standard error and 2.

    A defect of ours shows its traceback.

    Args:
        main: the command.
        program: its name in usage and errors; None: the name of the file that was started.
    """
    Parser.program = program or Path(sys.argv[0]).name
    for name in ("stdout", "stderr"):  # the shell's ">&-" closes one
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    # Paddle warns at import when ccache is missing, which only matters to those who compile it.
    warnings.filterwarnings("ignore", message="No ccache found")
    os.environ.setdefault("GLOG_minloglevel", "2")
    # For the processes that read and resize (this one has loaded OpenCV): we report a bad image.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    logging.basicConfig(format="%(message)s", handlers=[_Handler()])
    use_fast_cpu_settings()
    keep_signals_from_paddle()
    remarks.separate_stderr()
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may be no text in this locale
        sys.stdout.reconfigure(errors="backslashreplace")
        if sys.stdout.isatty():
            sys.stdout = _Terminal(sys.stdout)
    try:
        sys.exit(main())
    except InputError as error:
        fail(str(error))
    except RunError as error:
        fail(str(error), code=1)
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno is None and (reason := of_gpu(error)):
            fail(f"the GPU failed: {reason}", 1)
        if error.filename is None and error.errno is None:
            raise
        fail(f"{error.filename or 'a file'}: {error.strerror}.")
    except MemoryError:
        fail("the memory does not suffice; fewer images at once need less, or fewer classes.", 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as error:
        # Ctrl-C in the second that Paddle takes to load
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            sys.exit(130)
        package = (error.name or "").partition(".")[0]
        if not isinstance(error, ModuleNotFoundError) or package not in EXTRAS:
            raise
        fail(EXTRAS[package])


def of_gpu(error: Exception) -> str:
    """What Paddle says of an error of CUDA, cuDNN or NCCL, without the stack; "" for others."""
    found = re.search(
        r"(?:\(External\)|ExternalError:)\s*(.*?)(?=\[Hint|\(at |$)", str(error), re.S
    )
    return "" if found is None else found[1].strip()


def fail(message: str, code: int = 2) -> NoReturn:
    """Ends the program with one line on standard error and an exit code."""
    text = printable(" ".join(with_flags(message).split()))
    print(f"{Parser.program}: {text}", file=sys.stderr)
    sys.exit(code)


def note(message: str) -> None:
    """Says something on standard error, above the progress bar if there is one."""
    say(f"{Parser.program}: {message}")


def with_flags(message: str) -> str:
    """Spells settings that a message names, `batch_size` or `solver.lr`, as the command's flags."""
    return re.sub(
        r"`(?:[a-z_0-9]+\.)*([a-z_0-9]+)`",
        lambda match: Parser.flags.get(match[1], match[0]),
        message,
    )


spell_settings(with_flags)


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

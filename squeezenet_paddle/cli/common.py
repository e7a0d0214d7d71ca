"""What the commands share: their parser, how they run, and how their errors end.

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
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, ClassVar, NoReturn

from ..data import remarks
from ..errors import InputError, RunError
from ..parallel.launcher import is_started
from ..process_settings import keep_signals_from_paddle, use_fast_cpu_settings
from ..processes import Stopped, raise_signals
from ..progress import printable, say, spell_settings

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
        resumes: whether the same command, given again, goes on where it was stopped.
    """

    program: ClassVar[str] = Path(sys.argv[0]).name  # as usage and errors name it
    flags: ClassVar[dict[str, str]] = {}  # setting -> flag, of the command that is running
    running_resumes: ClassVar[bool] = False  # `resumes` of the command that is running
    leading: tuple[str, ...] = ()
    resumes: bool = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        args = sys.argv[1:] if args is None else list(args)
        typed = {argument.partition("=")[0] for argument in args}
        Parser.flags, Parser.running_resumes = {}, self.resumes
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


def parser(doc: str | None, leading: tuple[str, ...] = (), resumes: bool = False) -> Parser:
    """A parser whose --help shows the module's docstring, the tool's manual; see `Parser`."""
    parser = Parser(
        prog=Parser.program,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.leading, parser.resumes = leading, resumes
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
        if not is_started():  # else the launcher ends all processes of the run
            raise_signals()
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
    except KeyboardInterrupt as error:
        stop(error)
    except ImportError as error:
        # a signal in the second that Paddle takes to load
        if isinstance(cause := error.__cause__ or error.__context__, KeyboardInterrupt):
            stop(cause)
        package = (error.name or "").partition(".")[0]
        if not isinstance(error, ModuleNotFoundError) or package not in EXTRAS:
            raise
        fail(EXTRAS[package])


def stop(error: KeyboardInterrupt) -> NoReturn:
    """Ends the program after a signal, with the exit code that a shell has for it.

    It prints one line, but after Ctrl-C only where the same command goes on.
    """
    number = error.number if isinstance(error, Stopped) else signal.SIGINT
    if Parser.running_resumes:
        fail(f"stopped by {number.name}; the same command goes on from there.", 128 + number)
    if number != signal.SIGINT:
        fail(f"stopped by {number.name}.", 128 + number)
    sys.exit(128 + number)


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

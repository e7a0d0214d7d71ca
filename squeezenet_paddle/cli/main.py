"""SqueezeNet: train, fine-tune, convert, prove, evaluate, explain and deploy.

    squeezenet VERB [FLAGS]

`squeezenet VERB --help` is the manual of a verb. In the project's folder, without an installation,
`python -m squeezenet_paddle VERB` does the same.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

# Each verb and the module of this folder that does it, in the order of a user's way.
VERBS = {
    "demo": "demo",
    "download": "download",
    "convert": "caffe2paddle",
    "convert-torch": "torch2paddle",
    "make-sample-data": "make_sample_data",
    "make-lists": "make_lists",
    "prepare-images": "prepare_images",
    "prepare-cifar10": "prepare_cifar10",
    "check-images": "check_images",
    "finetune": "finetune",
    "train": "train",
    "clean": "clean",
    "eval": "eval",
    "infer": "infer",
    "compare": "compare",
    "compress": "compress",
    "export": "export",
    "summary": "summary",
    "benchmark": "benchmark",
    "trace": "trace",
}


def main() -> None:
    """Runs the verb that the command line names, and exits."""
    verb = sys.argv[1].replace("_", "-") if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        print(f"{__doc__}\n{_table()}")
    elif verb == "--version":
        print(f"squeezenet_paddle {import_module(__package__.partition('.')[0]).__version__}")
    else:
        with _quiet_interrupt():
            from . import common  # takes a moment

        module = VERBS.get(verb, verb.replace("-", "_"))
        if module not in VERBS.values():
            near = "".join(difflib.get_close_matches(verb, VERBS, n=1))
            hint = f"did you mean {near}?" if near else "squeezenet --help lists the verbs."
            common.Parser.program = "squeezenet"
            common.fail(f"{verb}: no such verb; {hint}")
        common.run(
            lambda: import_module(f".{module}", __package__).main(sys.argv[2:]),
            f"squeezenet {verb}",
        )


@contextlib.contextmanager
def _quiet_interrupt() -> Iterator[None]:
    """Lets Ctrl-C end the process without a traceback, as there is nothing to clear up yet."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _table() -> str:
    """The verbs with the first line of their manuals, which takes no import."""
    lines = []
    for verb, module in VERBS.items():
        manual = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{module}.py").read_text()))
        lines.append(f"  {verb:18}{(manual or '').splitlines()[0]}")
    return "\n".join(lines)

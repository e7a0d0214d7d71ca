"""Remove what a rerun of train or finetune would resume from, so that it starts from scratch.

    squeezenet clean output/run1

lists the checkpoints, logs and curves of that run, and a fine-tuning's features, first stage and
lists, with their sizes, asks, and removes them; --yes does not ask. The models in best/ and final/,
a fine-tuning's report/, and runs/, the earlier runs that it keeps, stay, unless --models is given.
Hidden files that killed commands of any kind have left there, named .NAME.sqz-tmp, go too; what a
running command is writing stays.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..run_dir import LOCK, MODELS, REPORT_DIR, RUNS, entries, locked, remove, resume_entries, size
from ..temporaries import clear_leftovers, leftovers
from . import common


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument(
        "output_dir",
        type=Path,
        help="of train or finetune, or any folder, of which killed commands' files alone go",
    )
    parser.add_argument(
        "--models",
        action="store_true",
        help="remove best/, final/, report/ and runs/ too (default: keep them)",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask (default: ask)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    folder: Path = args.output_dir
    if not folder.is_dir():
        raise InputError(f"{folder}: no such directory.")
    is_run = bool(resume_entries(folder) + entries(folder, (LOCK, *MODELS)))
    with locked(folder) if is_run else contextlib.nullcontext():
        found = resume_entries(folder)
        if args.models:
            found += entries(folder, (*MODELS, REPORT_DIR, RUNS))
        hidden = leftovers(folder, below=True)
        hidden = [path for path in hidden if not {*found} & {*path.parents}]
        if not found and not hidden:
            print(f"{folder}: there is nothing that a rerun would resume from")
            return 0
        for path in (*found, *hidden):
            print(f"{size(path) / 1e6:10.1f} MB  {path}")
        if not args.yes and not confirmed():
            print("nothing was removed")
            return 1
        remove(found)
        clear_leftovers(folder, below=True)
    print(f"removed {len(found) + len(hidden)} entries")
    return 0


def confirmed() -> bool:
    """Asks at the terminal."""
    if not sys.stdin.isatty():
        raise InputError("`yes` was expected where there is no terminal to ask on.")
    return input("remove them? [y/N] ").strip().lower() in ("y", "yes")

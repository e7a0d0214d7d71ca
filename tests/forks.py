"""Processes forked from one that has loaded Paddle and computed nothing, which saves seconds each.

Python has one such process; so that it serves all who use it, it loads what any of them needs.
What a process is to run should lie in a module that loads little else, for it loads that itself.
"""

from __future__ import annotations

import multiprocessing

PRELOADED = ("training.trainer", "cli.export", "cli.finetune")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [*(f"squeezenet_paddle.{name}" for name in PRELOADED), "matplotlib.figure"]
)

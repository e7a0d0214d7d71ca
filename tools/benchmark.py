"""Runs `squeezenet_paddle.cli.benchmark`; --help shows its docstring."""

from squeezenet_paddle.cli import common
from squeezenet_paddle.cli.benchmark import main

if __name__ == "__main__":
    common.run(main)

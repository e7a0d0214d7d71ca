"""Runs `squeezenet_paddle.cli.compare`; --help shows its docstring."""

from squeezenet_paddle.cli import common
from squeezenet_paddle.cli.compare import main

if __name__ == "__main__":
    common.run(main)

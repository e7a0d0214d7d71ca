"""Runs `squeezenet_paddle.cli.compress`; --help shows its docstring."""

from squeezenet_paddle.cli import common
from squeezenet_paddle.cli.compress import main

if __name__ == "__main__":
    common.run(main)

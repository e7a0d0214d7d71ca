"""Runs `squeezenet_paddle.cli.check_images`; --help shows its docstring."""

from squeezenet_paddle.cli import common
from squeezenet_paddle.cli.check_images import main

if __name__ == "__main__":
    common.run(main)

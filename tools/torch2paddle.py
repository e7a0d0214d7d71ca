"""Runs `squeezenet_paddle.cli.torch2paddle`; --help shows its docstring."""

from squeezenet_paddle.cli import common
from squeezenet_paddle.cli.torch2paddle import main

if __name__ == "__main__":
    common.run(main)

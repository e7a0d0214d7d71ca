"""Runs `squeezenet_paddle.cli.prepare_cifar10`; --help shows its docstring."""

from squeezenet_paddle.cli import common
from squeezenet_paddle.cli.prepare_cifar10 import main

if __name__ == "__main__":
    common.run(main)

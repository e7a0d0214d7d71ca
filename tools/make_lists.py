"""Runs `squeezenet_paddle.cli.make_lists`; --help shows its docstring."""

from squeezenet_paddle.cli import common
from squeezenet_paddle.cli.make_lists import main

if __name__ == "__main__":
    common.run(main)

"""Runs `squeezenet_paddle.cli.make_sample_data`; --help shows its docstring."""

from squeezenet_paddle.cli import common
from squeezenet_paddle.cli.make_sample_data import main

if __name__ == "__main__":
    common.run(main)

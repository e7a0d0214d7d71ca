"""Runs `squeezenet_paddle.cli.caffe2paddle`; --help shows its docstring."""

from squeezenet_paddle.cli import common
from squeezenet_paddle.cli.caffe2paddle import main

if __name__ == "__main__":
    common.run(main)

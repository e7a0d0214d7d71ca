"""Runs `squeezenet_paddle.cli.finetune`; --help shows its docstring."""

from squeezenet_paddle.cli import common
from squeezenet_paddle.cli.finetune import main

if __name__ == "__main__":
    common.run(main)

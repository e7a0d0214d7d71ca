"""Print the layers of a network: name, kernel, output size, parameters, multiply-adds.

    squeezenet summary --version 1.1
    squeezenet summary --version 1.0 --bypass simple --input_size 224 --num_classes 10
    squeezenet summary --model_dir pretrained/squeezenet_v1.1

The last line has the totals.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..errors import InputError
from ..model_dir import read_info
from ..network.config import CHOICES, ModelConfig, Row, layer_table
from . import common, shared_flags


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--model_dir",))
    shared_flags.add_model_dir(parser, required=False)
    parser.add_argument("--version", choices=CHOICES["version"], help="(default: 1.1)")
    parser.add_argument("--bypass", choices=CHOICES["bypass"], help="(default: none)")
    parser.add_argument("--head", choices=CHOICES["head"], help="(default: conv)")
    parser.add_argument(
        "--num_classes", type=shared_flags.positive_int, help="number of classes (default: 1000)"
    )
    parser.add_argument(
        "--input_size",
        type=shared_flags.positive_int,
        help="side of the input in pixels (default: 227, or the model directory's)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    chosen = {
        name: getattr(args, name)
        for name in ("version", "bypass", "head", "num_classes")
        if getattr(args, name) is not None
    }
    if args.model_dir is None:
        config, size = ModelConfig(**chosen), args.input_size or 227
    else:
        if chosen:
            raise InputError(f"--{next(iter(chosen))}: the model directory says what it is.")
        info = read_info(args.model_dir)
        config, size = info.network, args.input_size or info.preprocess.crop_size
    print_table(config, layer_table(config, size, size), size)


def print_table(config: ModelConfig, rows: list[Row], size: int) -> None:
    form = "{:<20} {:<11} {:>9} {:>13} {:>11} {:>13}"
    print(
        f"SqueezeNet v{config.version}, bypass {config.bypass}, head {config.head}, "
        f"{config.num_classes} classes, input 3x{size}x{size}"
    )
    print(form.format("layer", "type", "kernel", "output", "parameters", "multiply-adds"))
    for row in rows:
        layer = row.layer
        has_window = layer.type in ("Convolution", "Pooling") and layer.kernel
        kernel = f"{layer.kernel}x{layer.kernel}/{layer.stride}" if has_window else ""
        output = f"{layer.channels}x{row.height}x{row.width}"
        counts = (f"{layer.parameters:,}", f"{row.multiply_adds:,}")
        print(form.format(layer.name, layer.type, kernel, output, *counts))
    parameters = sum(row.layer.parameters for row in rows)
    multiply_adds = sum(row.multiply_adds for row in rows)
    print(form.format("total", "", "", "", f"{parameters:,}", f"{multiply_adds:,}"))

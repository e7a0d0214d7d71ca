"""Write a model for other programs: Paddle Inference, ONNX, Caffe.

    python tools/export.py --model_dir pretrained/squeezenet_v1.1 --format onnx --image cat.jpg

writes model.onnx into the model directory, after ONNX Runtime gave the network's logits with it on
the images named (without --image, on drawn ones). The other formats:

    paddle  inference.json and inference.pdiparams (inference.pdmodel from Paddle 2): the static
            graph, with which eval.py and infer.py take --engine paddle
    caffe   deploy.prototxt and model.caffemodel, checked by OpenCV's Caffe importer

--with_preprocess puts the subtraction of the mean into the graph, which then takes pixels, uint8
[N, H, W, 3]. --precision int8 writes model_int8.onnx, whose integers are fitted to the images
named, some dozens of the kind that the model will see; the engines onnxruntime and openvino then
take --precision int8:

    python tools/export.py --model_dir pretrained/squeezenet_v1.1 --format onnx --precision int8 \\
        --image holiday/

An export belongs to the weights it was made of. Exit code 0: written; 1: the check found a
difference, nothing was written; 2: bad input.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.decode import read_image
from ..data.lists import find_images
from ..datasets import samples
from ..errors import InputError
from ..export.record import FORMATS
from ..files import check_file_target
from ..model_dir import read_info
from ..network.config import layer_table
from ..onnx.quantise import CALIBRATION_IMAGES
from ..run_dir import model_dir_of
from . import common


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    what = parser.add_argument_group("what to write")
    common.add_model_dir(what)
    common.add_untrained(what)
    what.add_argument("--format", choices=FORMATS, required=True, help="(required)")
    what.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="where the files go (default: the model directory)",
    )
    graph = parser.add_argument_group("the graph")
    graph.add_argument(
        "--input_size",
        type=common.positive_int,
        help="side of the images (default: that of the model directory)",
    )
    graph.add_argument(
        "--batch",
        type=batch,
        default="dynamic",
        help="images at a time, or dynamic, for any number (default: dynamic; 1 for Caffe)",
    )
    graph.add_argument(
        "--with_preprocess",
        action="store_true",
        help="take uint8 [N, H, W, 3] pixels and subtract the mean in the graph (default: off)",
    )
    graph.add_argument(
        "--precision",
        choices=("float32", "int8"),
        default="float32",
        help="int8 goes with the format onnx and with --image (default: float32)",
    )
    proof = parser.add_argument_group("proof")
    proof.add_argument(
        "--image",
        nargs="+",
        metavar="PATH",
        help="images to check the export on, and to fit int8 to: files, folders or globs; "
        f"{CALIBRATION_IMAGES} of them are used (default: drawn ones)",
    )
    return parser.parse_args(argv)


def batch(text: str) -> int | None:
    return None if text == "dynamic" else common.positive_int(text)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    info = read_info(args.model_dir)
    info.check_trained(args.untrained)
    size = args.input_size or info.preprocess.crop_size
    layer_table(info.network, size, size)  # refuses a size that is too small
    if args.precision == "int8" and args.image is None:
        raise InputError("--precision int8 takes --image, images to fit the integers to.")
    images = drawn() if args.image is None else named(args.image)
    output_dir = args.output_dir or model_dir_of(args.model_dir)
    check_file_target(output_dir / "exports.json")
    from ..export.export import Export, export  # Paddle, once the flags are right

    what = Export(args.format, size, args.batch, args.with_preprocess, args.precision)
    result = export(args.model_dir, info, what, images, output_dir)
    for file in result.files:
        print(f"{file}  {file.stat().st_size:,} bytes")
    print(
        f"{result.judge} on {result.images} images: largest difference "
        f"{result.difference:.3g} (relative {result.relative:.2g}), the same first class for "
        f"{result.same_top1}"
    )


def named(patterns: list[str]) -> list[np.ndarray]:
    """Images that the user named; of many, some from all over."""
    paths = find_images(patterns)
    chosen = np.linspace(0, len(paths) - 1, min(len(paths), CALIBRATION_IMAGES)).round()
    return [read_image(paths[int(i)]) for i in chosen]


def drawn() -> list[np.ndarray]:
    """Two images of each class of `sample_data`."""
    classes = samples.CLASSES * 2
    return [samples.draw(*one, np.random.default_rng((0, i))) for i, one in enumerate(classes)]

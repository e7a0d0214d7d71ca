"""Convert the original Caffe weights into a Paddle model directory.

    squeezenet convert --caffemodel pretrained/squeezenet_v1.1.caffemodel \\
        --output_dir pretrained/squeezenet_v1.1

Version, bypass and number of classes are recognised from the file. With --prototxt, the network's
description, the layers are checked too; with --verify every layer's output is compared with that of
OpenCV's Caffe importer, on a random image and on those of --image:

    squeezenet convert --caffemodel pretrained/squeezenet_v1.1.caffemodel \\
        --prototxt deploy.prototxt --verify --image cat.jpg \\
        --synset_word_list synset_words.txt --output_dir pretrained/squeezenet_v1.1

For fine-tuning on 8 classes, with a new classifier:

    squeezenet convert --caffemodel pretrained/squeezenet_v1.1.caffemodel \\
        --ignore_classifier --num_classes 8 --output_dir pretrained/for_8_classes

Exit code 0: written; 1: --verify found a difference, nothing was written; 2: bad input.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..caffe.convert import build_network, read_weights
from ..data.decode import read_image
from ..data.lists import read_names
from ..data.preprocess import CAFFE_MEAN, INTERPOLATIONS, Preprocess
from ..errors import InputError
from ..model_dir import ModelInfo, check_target, write_model_dir
from ..network.config import CHOICES, layer_table
from . import common


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    files = parser.add_argument_group("files")
    files.add_argument(
        "--caffemodel", type=Path, required=True, help="the Caffe weights (required)"
    )
    files.add_argument(
        "--output_dir", type=Path, required=True, help="the model directory to write (required)"
    )
    files.add_argument(
        "--prototxt", type=Path, help="the network's description to check (default: none)"
    )
    files.add_argument(
        "--synset_word_list",
        type=Path,
        help="class names for the model directory, one per line, or imagenet (default: none)",
    )
    network = parser.add_argument_group(
        "network (recognised from the file; an error if it is another)"
    )
    network.add_argument("--version", choices=CHOICES["version"], help="(default: as found)")
    network.add_argument("--bypass", choices=CHOICES["bypass"], help="(default: as found)")
    network.add_argument(
        "--num_classes", type=common.positive_int, help="number of classes (default: as found)"
    )
    network.add_argument(
        "--ignore_classifier",
        action="store_true",
        help="replace the file's classifier with a new one for --num_classes (default: off)",
    )
    network.add_argument(
        "--seed", type=common.seed, default=0, help="seed of a new classifier (default: 0)"
    )
    proof = parser.add_argument_group("proof")
    proof.add_argument(
        "--verify",
        action="store_true",
        help="compare every layer with OpenCV's Caffe importer; needs --prototxt (default: off)",
    )
    proof.add_argument(
        "--image",
        type=Path,
        nargs="+",
        default=[],
        help="images to compare on, besides a random one (default: none)",
    )
    common.add_verbose(proof)
    inputs = parser.add_argument_group("preprocessing (the authors' by default)")
    inputs.add_argument(
        "--input_size",
        type=common.positive_int,
        default=227,
        help="side of the crop (default: 227)",
    )
    inputs.add_argument(
        "--resize",
        choices=("squash", "short_side"),
        default="squash",
        help="both sides, or the shorter one, become --resize_size (default: squash)",
    )
    inputs.add_argument(
        "--resize_size",
        type=common.positive_int,
        help="pixels before the crop (default: --input_size * 256 / 227)",
    )
    inputs.add_argument(
        "--interpolation", choices=tuple(INTERPOLATIONS), default="cubic", help="(default: cubic)"
    )
    inputs.add_argument(
        "--mean",
        type=float,
        nargs=3,
        metavar=("B", "G", "R"),
        default=CAFFE_MEAN,
        help="subtracted from the pixels (default: 104 117 123)",
    )
    return parser.parse_args(argv)


def check_flags(args: argparse.Namespace) -> None:
    if args.verify and args.prototxt is None:
        raise InputError("--verify needs --prototxt, the network's description for OpenCV.")
    if args.verify and args.ignore_classifier:
        raise InputError("--verify compares whole networks and cannot go with --ignore_classifier.")
    if args.image and not args.verify:
        raise InputError("--image names images for --verify, which is not given.")


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    check_flags(args)
    check_target(args.output_dir)
    weights = read_weights(
        args.caffemodel,
        args.prototxt,
        args.version,
        args.bypass,
        args.num_classes,
        args.ignore_classifier,
    )
    config = weights.config
    layer_table(config, args.input_size, args.input_size)  # refuses a size that is too small
    preprocess = Preprocess(
        resize=args.resize,
        resize_size=args.resize_size or round(args.input_size * 256 / 227),
        interpolation=args.interpolation,
        crop_size=args.input_size,
        mean=tuple(args.mean),
    )
    names = None
    if args.synset_word_list is not None:
        names = read_names(args.synset_word_list, config.num_classes)
    images = [(str(path), preprocess(read_image(path))) for path in args.image]

    network = build_network(weights, args.seed)
    verification = {}
    if args.verify:
        from ..caffe import verify

        size = (args.input_size, args.input_size, 3)
        noise = np.random.default_rng(0).integers(0, 256, size, "uint8")
        judge = verify.CaffeJudge(args.prototxt, args.caffemodel)
        results = []
        for name, x in [("random", preprocess.normalise(noise)), *images]:
            results.append(verify.verify(network, judge, x[None], name))
            print(verify.format_verification(results[-1], names))
        if not all(result.passed for result in results):
            common.note("the networks differ; nothing was written.")
            return 1
        verification = verify.verification_record(results)
    info = ModelInfo(config, preprocess, names, weights.source, verification)
    write_model_dir(args.output_dir, info, network.state_dict())
    print(
        f"{args.output_dir}: SqueezeNet v{config.version}, bypass {config.bypass}, "
        f"{config.num_classes} classes, {weights.source['classifier']} classifier, "
        f"from {args.caffemodel.name}"
    )
    return 0

"""Convert Caffe weights of a SqueezeNet, the authors' or fine-tuned ones, into a model directory.

    squeezenet convert --caffemodel pretrained/squeezenet_v1.1.caffemodel \\
        --output_dir pretrained/squeezenet_v1.1

Version, bypass, number of classes, the name of the classifier and the preprocessing are read off
the file: a snapshot keeps the Data layers that it was trained with. A mean file is only named
there, and has to be given:

    squeezenet convert --caffemodel train_iter_201.caffemodel \\
        --mean_file mean.binaryproto --output_dir pretrained/shapes

With the network's description (deploy.prototxt, train_val.prototxt, or both) the layers are checked
against it, and with --verify every layer's output is compared with that of OpenCV's Caffe
importer, on a random image and on those of --image:

    squeezenet convert --caffemodel pretrained/squeezenet_v1.1.caffemodel \\
        --prototxt deploy.prototxt --verify --image cat.jpg \\
        --synset_word_list synset_words.txt --output_dir pretrained/squeezenet_v1.1

A model of NVIDIA DIGITS, a folder or the archive that it lets download, is one argument:

    squeezenet convert --digits 20170524-140310-8c0b_epoch_30.0.tar.gz \\
        --output_dir pretrained/flowers

--caffemodel also takes the authors' compressed_SqueezeNet.net. For fine-tuning on 8 classes, with a
new classifier, of a file with any layers behind fire9:

    squeezenet convert --caffemodel pretrained/squeezenet_v1.1.caffemodel \\
        --ignore_classifier --num_classes 8 --output_dir pretrained/for_8_classes

Exit code 0: written; 1: --verify found a difference, nothing was written; 2: bad input.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..caffe.convert import CaffeWeights, read_weights
from ..caffe.digits import DigitsModel, open_digits
from ..caffe.inputs import Statement, agreed, make_preprocess
from ..caffe.mean import read_mean
from ..conversion import build_network
from ..data.decode import read_image
from ..data.preprocess import Preprocess
from ..errors import InputError
from ..labels import read_labels
from ..model_dir import ModelInfo, check_target, write_model_dir
from ..network.config import CHOICES, layer_table
from ..temporaries import temporary_directory
from . import common, shared_flags

if TYPE_CHECKING:
    from ..network.model import SqueezeNet


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--caffemodel",))
    files = parser.add_argument_group("files")
    weights = files.add_mutually_exclusive_group(required=True)
    weights.add_argument(
        "--caffemodel",
        type=Path,
        metavar="FILE",
        help="Caffe weights, or the authors' compressed_SqueezeNet.net (this or --digits)",
    )
    weights.add_argument(
        "--digits",
        type=Path,
        metavar="PATH",
        help="a model of NVIDIA DIGITS: its folder, .tar.gz or .zip (this or --caffemodel)",
    )
    files.add_argument(
        "--snapshot", help="of a DIGITS model: the file or its number (default: the newest)"
    )
    files.add_argument(
        "--output_dir", type=Path, required=True, help="the model directory to write (required)"
    )
    files.add_argument(
        "--prototxt",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="descriptions of the network to check: deploy, train_val (default: none)",
    )
    shared_flags.add_labels(files)
    network = parser.add_argument_group(
        "network (recognised from the file; an error if it is another)"
    )
    network.add_argument("--version", choices=CHOICES["version"], help="(default: as found)")
    network.add_argument("--bypass", choices=CHOICES["bypass"], help="(default: as found)")
    network.add_argument(
        "--classifier",
        metavar="NAME",
        help="the layer that is the classifier, where the file has several (default: as found)",
    )
    shared_flags.add_new_classifier(network)
    proof = parser.add_argument_group("proof")
    proof.add_argument(
        "--verify",
        action="store_true",
        help="compare every layer with OpenCV's Caffe importer (default: off)",
    )
    shared_flags.add_compared_images(proof)
    inputs = parser.add_argument_group(
        "preprocessing (default: what the files say, else the authors')"
    )
    shared_flags.add_geometry(inputs, "227", "squash", "--input_size * 256 / 227", "cubic")
    mean = inputs.add_mutually_exclusive_group()
    mean.add_argument(
        "--mean",
        type=float,
        nargs=3,
        metavar=("B", "G", "R"),
        help="subtracted from the pixels (default: as the file says, else 104 117 123)",
    )
    mean.add_argument(
        "--mean_file",
        type=Path,
        metavar="FILE",
        help="the mean of the training set, .binaryproto or .npy (default: none)",
    )
    inputs.add_argument(
        "--mean_mode",
        choices=("channel", "image"),
        help="of --mean_file: subtract its mean over height and width, as pycaffe and DIGITS do, "
        "or its middle place by place, as Caffe's data layer does (default: channel)",
    )
    inputs.add_argument(
        "--scale",
        type=float,
        help="what the pixels are multiplied by after the mean is subtracted (default: as the "
        "file says, else 1)",
    )
    return parser.parse_args(argv)


def check_flags(args: argparse.Namespace) -> None:
    if args.image and not args.verify:
        raise InputError("`image` names images for `verify`, which is not given.")
    if args.snapshot is not None and args.digits is None:
        raise InputError("`snapshot` chooses one of `digits`, which is not given.")


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    check_flags(args)
    check_target(args.output_dir)
    with contextlib.ExitStack() as stack:
        digits = None
        if args.digits is not None:
            digits = stack.enter_context(open_digits(args.digits, args.snapshot))
            args.caffemodel = digits.caffemodel
            args.prototxt = [*args.prototxt, *digits.prototxts]
            args.synset_word_list = args.synset_word_list or digits.labels
        return convert(args, digits)


def convert(args: argparse.Namespace, digits: DigitsModel | None) -> int:
    weights = read_weights(
        args.caffemodel,
        args.prototxt,
        args.version,
        args.bypass,
        args.num_classes,
        args.ignore_classifier,
        args.classifier,
        args.input_size,
    )
    config = weights.config
    preprocess, notes = preprocessing(args, weights, digits)
    layer_table(config, preprocess.crop_size, preprocess.crop_size)  # refuses too small a size
    names = None
    if args.synset_word_list is not None:
        names, form = read_labels(args.synset_word_list, config.num_classes)
        notes.append(f"class names of {args.synset_word_list.name}: {form}")
    images = [(str(path), preprocess(read_image(path))) for path in args.image]
    notes = [*weights.notes, *notes]
    if digits is not None and len(digits.snapshots) > 1 and args.snapshot is None:
        notes.append(f"snapshot: {digits.caffemodel.name}, the newest of {len(digits.snapshots)}")
    for note in notes:
        print(common.with_flags(note))

    network = build_network(weights, args.seed)
    verification: dict[str, Any] | None = {}
    if args.verify:
        verification = verified(args, weights, network, preprocess, images, names)
        if verification is None:
            common.note("the networks differ; nothing was written.")
            return 1
    source = {**weights.source, "preprocess": [note.replace("`", "") for note in notes]}
    info = ModelInfo(config, preprocess, names, source, verification or {})
    write_model_dir(args.output_dir, info, network.state_dict())
    print(
        f"{args.output_dir}: SqueezeNet v{config.version}, bypass {config.bypass}, "
        f"{config.num_classes} classes, {weights.source['classifier']} classifier, "
        f"from {args.caffemodel.name}"
    )
    return 0


def preprocessing(
    args: argparse.Namespace, weights: CaffeWeights, digits: DigitsModel | None
) -> tuple[Preprocess, list[str]]:
    """The preprocessing from what the files and the flags say, and where each part is from."""
    chosen: dict[str, Any] = {
        "crop_size": args.input_size,
        "resize": args.resize,
        "resize_size": args.resize_size,
        "interpolation": args.interpolation,
        "mean": None if args.mean is None else tuple(args.mean),
        "scale": args.scale,
    }
    chosen = {name: value for name, value in chosen.items() if value is not None}
    stated = list(weights.stated)
    mean_file, mean_origin = args.mean_file, "`mean_file`"
    if digits is not None:
        stated += digits_statements(digits)
        is_known = "mean" in chosen or any(each.name == "mean" for each in stated)
        if mean_file is None and digits.mean_file is not None and not is_known:
            mean_file, mean_origin = digits.mean_file, f"{digits.mean_file.name} of DIGITS"
    overridden = set(chosen) | ({"mean", "mean_file"} if mean_file else set())
    agreement = agreed(stated, overridden)
    if args.mean_mode is not None and mean_file is None:
        raise InputError("`mean_mode` is how to subtract `mean_file`, which is not given.")
    mean_image = None if mean_file is None else read_mean(mean_file)
    mode = args.mean_mode or "channel"
    return make_preprocess(agreement, chosen, mean_image, mode, mean_origin)


def digits_statements(digits: DigitsModel) -> list[Statement]:
    said = {"resize": digits.resize, "resize_size": digits.resize_size}
    stated = [Statement(k, v, "info.json") for k, v in said.items() if v is not None]
    return [*stated, Statement("interpolation", "linear", "what DIGITS resizes with")]


def verified(
    args: argparse.Namespace,
    weights: CaffeWeights,
    network: SqueezeNet,
    preprocess: Preprocess,
    images: list[tuple[str, np.ndarray]],
    names: list[str] | None,
) -> dict[str, Any] | None:
    """Prints how every layer compares with OpenCV's; the record of it, or None if one differs."""
    from ..caffe import deploy, verify

    if weights.source["format"] != "caffemodel":
        raise InputError(f"`verify`: OpenCV does not read a file of {weights.source['format']}.")
    if not any(layer.bottoms for layer in weights.graph):
        raise InputError("`verify` needs `prototxt`, the network's description for OpenCV.")
    size = preprocess.crop_size
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), "uint8")
    layer_names = deploy.layer_names(weights.graph, weights.config, weights.names)
    if args.ignore_classifier:
        layer_names = {k: v for k, v in layer_names.items() if k not in ("conv10", "pool10")}
    results = []
    with temporary_directory() as folder:
        prototxt = args.prototxt[0] if args.prototxt else None
        if prototxt is None or not deploy.is_deploy_form(weights.graph):
            prototxt = folder / "deploy.prototxt"
            prototxt.write_text(deploy.deploy_form(weights.graph, size), encoding="utf-8")
        judge = verify.CaffeJudge(prototxt, args.caffemodel)
        for name, x in [("random", preprocess.normalise(noise)), *images]:
            results.append(verify.verify(network, judge, x[None], name, layer_names))
            print(verify.format_verification(results[-1], names))
    passed = all(result.passed for result in results)
    return verify.verification_record(results) if passed else None

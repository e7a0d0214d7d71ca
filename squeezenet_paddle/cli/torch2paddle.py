"""Convert a SqueezeNet of torchvision, its weights or fine-tuned ones, into a model directory.

    squeezenet convert-torch --checkpoint squeezenet1_1.pth --output_dir pretrained/torch_v1.1

The file holds a state dict of torchvision's squeezenet1_0 or squeezenet1_1, bare or inside of a
checkpoint: .pth or .pt in either of PyTorch's formats, or .safetensors. It is read without PyTorch,
and nothing in it is run. Images are resized and normalised as torchvision does it, unless flags
say otherwise.

--verify compares the logits with those of an ONNX file that PyTorch exported from the same network,
which ONNX Runtime runs, on a random image and on those of --image:

    torch.onnx.export(model.eval(), torch.zeros(1, 3, 224, 224), "net.onnx")    # in Python

    squeezenet convert-torch --checkpoint birds.pth --synset_word_list birds.txt \\
        --verify net.onnx --image robin.jpg --output_dir pretrained/birds

Exit code 0: written; 1: --verify found a difference, nothing was written; 2: bad input.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..conversion import ConvertedWeights, build_network
from ..data.decode import read_image
from ..data.preprocess import Preprocess
from ..errors import InputError
from ..labels import read_labels
from ..model_dir import ModelInfo, check_target, write_model_dir
from ..network.config import layer_table
from ..pytorch.convert import TORCHVISION, read_weights
from . import common, shared_flags


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--checkpoint",))
    files = parser.add_argument_group("files")
    files.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="FILE",
        help="a .pth, .pt or .safetensors file (required)",
    )
    files.add_argument(
        "--output_dir", type=Path, required=True, help="the model directory to write (required)"
    )
    shared_flags.add_labels(files)
    network = parser.add_argument_group(
        "network (recognised from the file; an error if it is another)"
    )
    network.add_argument("--version", choices=("1.0", "1.1"), help="(default: as found)")
    shared_flags.add_new_classifier(network)
    proof = parser.add_argument_group("proof")
    proof.add_argument(
        "--verify",
        type=Path,
        metavar="ONNX",
        help="compare with this file, which PyTorch exported from the same network (default: none)",
    )
    shared_flags.add_compared_images(proof)
    inputs = parser.add_argument_group("preprocessing (torchvision's by default)")
    shared_flags.add_geometry(inputs, "224", "short_side", "--input_size * 256 / 224", "area")
    for name in ("mean", "std"):
        inputs.add_argument(
            f"--{name}",
            type=float,
            nargs=3,
            metavar=("R", "G", "B"),
            help="of pixels from 0 to 1 "
            f"(default: {' '.join(f'{value:g}' for value in getattr(TORCHVISION, name))})",
        )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    if args.image and args.verify is None:
        raise InputError("`image` names images for `verify`, which is not given.")
    if args.verify is not None and args.ignore_classifier:
        raise InputError("`verify` compares logits and cannot go with `ignore_classifier`.")
    check_target(args.output_dir)
    weights = read_weights(args.checkpoint, args.version, args.num_classes, args.ignore_classifier)
    config = weights.config
    preprocess = preprocessing(args)
    layer_table(config, preprocess.crop_size, preprocess.crop_size)  # refuses too small a size
    names, notes = None, list(weights.notes)
    if args.synset_word_list is not None:
        names, form = read_labels(args.synset_word_list, config.num_classes)
        notes.append(f"class names of {args.synset_word_list.name}: {form}")
    notes.append(
        f"preprocessing: {preprocess.resize} to {preprocess.resize_size}, crop "
        f"{preprocess.crop_size}, RGB / 255, mean {numbers(preprocess.mean)}, "
        f"deviation {numbers(preprocess.std)}"
        + ("" if preprocess != TORCHVISION else ": torchvision's values, as files name none")
    )
    for note in notes:
        print(note)
    network = build_network(weights, args.seed)
    verification: dict[str, Any] = {}
    if args.verify is not None:
        verification = verified(args, weights, network, preprocess)
        if not verification:
            common.note("the networks differ; nothing was written.")
            return 1
    info = ModelInfo(config, preprocess, names, weights.source, verification)
    write_model_dir(args.output_dir, info, network.state_dict())
    print(
        f"{args.output_dir}: SqueezeNet v{config.version}, {config.num_classes} classes, "
        f"{weights.source['classifier']} classifier, from {args.checkpoint.name} "
        f"({weights.source['format']})"
    )
    return 0


def preprocessing(args: argparse.Namespace) -> Preprocess:
    """torchvision's, but for what the flags say."""
    size = args.input_size or TORCHVISION.crop_size
    chosen = {
        "crop_size": size,
        "resize_size": args.resize_size or round(size * 256 / 224),
        "resize": args.resize,
        "interpolation": args.interpolation,
        "mean": args.mean,
        "std": args.std,
    }
    return dataclasses.replace(TORCHVISION, **{k: v for k, v in chosen.items() if v is not None})


def numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def verified(
    args: argparse.Namespace, weights: ConvertedWeights, network: Any, preprocess: Preprocess
) -> dict[str, Any]:
    """Prints how the logits compare; the record of it, empty if they differ."""
    from ..pytorch import verify

    size = preprocess.crop_size
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), "uint8")
    inputs = [("random", preprocess.normalise(noise))]
    inputs += [(str(path), preprocess(read_image(path))) for path in args.image]
    results = [verify.compare(network, args.verify, x[None], name) for name, x in inputs]
    for each in results:
        same = "the same" if each.same_top1 else "another"
        print(f"{each.name}: logits differ by {each.relative:.2e} of the largest, {same} class")
    if not all(each.passed for each in results):
        return {}
    return {
        "judge": f"ONNX Runtime on {args.verify.name}",
        "tolerance": verify.TOLERANCE,
        "inputs": [dataclasses.asdict(each) for each in results],
    }

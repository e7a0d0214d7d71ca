"""Export a model: for ONNX, Paddle Inference or Caffe, as C code, as a web page, or as a bundle.

    squeezenet export --model_dir pretrained/squeezenet_v1.1 --format onnx --image cat.jpg

writes model.onnx into the model directory, after ONNX Runtime gave the network's logits with it on
the images named (without --image, on drawn ones). The other formats:

    paddle  inference.json and inference.pdiparams (inference.pdmodel from Paddle 2): the static
            graph, with which eval and infer take --engine paddle
    caffe   deploy.prototxt and model.caffemodel, checked by OpenCV's Caffe importer
    c       a folder, c/: a classifier in C99 that needs only a C compiler and resizes images as
            these commands do, with a Makefile, a program and images to check it by; --embed also
            puts the weights into the program
    html    model.html, one page with everything in it that opens in any browser without a server
            and classifies there; checked by wasmtime, compiled by ziglang (the extra `page`)

Beside ONNX, Paddle and Caffe files, labels.json holds the class names and says what each file takes
and gives. An ONNX file says the same in its metadata (input, preprocess, output, classes), a
prototxt in comments. The authors' weights and those trained from them want the channels in the
order B, G, R (OpenCV's, not Pillow's), pixels of 0 to 255, squashed to 256 x 256, the middle 227 x
227, minus the mean 104, 117, 123. ONNX and Paddle graphs give logits, of which softmax makes
probabilities; Caffe's give probabilities.

--with_preprocess moves the subtraction of the mean into the graph, which then takes pixels as they
are, uint8 [N, H, W, 3]; decoding, resizing and cropping stay outside. --precision int8 writes
model_int8.onnx, fitted to the images named, some dozens of the kind that the model will see; the
engines onnxruntime and openvino then take --precision int8:

    squeezenet export --model_dir pretrained/squeezenet_v1.1 --format onnx --precision int8 \\
        --image holiday/

A bundle is a folder or .zip file for whoever gets the model: model.onnx, with --image also
model_int8.onnx, a predict.py that needs numpy, ONNX Runtime, and Pillow or OpenCV, the page (with
the extra `page`), the C code, drawn images to check it by, and a model card:

    squeezenet export --model_dir output/mine --format bundle --output_dir mine.zip

An export is tied to the weights it was made from. Exit code 0: written; 1: the check found a
difference, nothing was written; 2: bad input.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.decode import read_image
from ..data.image_files import find_images
from ..datasets import samples
from ..errors import InputError
from ..export.bundle.bundle import PREDICT, Bundle, check_bundle_target
from ..export.bundle.card import read_scores
from ..export.c.write import GOLDEN, check_target, write_c
from ..export.export import CHECKED_IMAGES, Export, Result, export
from ..export.page.write import write_page
from ..export_record import C_FOLDER, FORMATS, PAGE, RECORD
from ..files import check_file_target
from ..model_dir import COMPRESSED, ModelInfo, read_info, weights_file
from ..network.config import layer_table
from ..onnx.quantise import CALIBRATION_IMAGES
from ..run_dir import model_dir_of
from . import common, shared_flags


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--model_dir",))
    what = parser.add_argument_group("what to write")
    shared_flags.add_model_dir(what)
    shared_flags.add_untrained(what)
    formats = (*FORMATS, "c", "html", "bundle")
    what.add_argument("--format", choices=formats, required=True, help="(required)")
    what.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="where the files go; of a bundle a folder or .zip file of its own (default: the model "
        "directory; c/ in it for C)",
    )
    what.add_argument(
        "--embed",
        action="store_true",
        help="C: also write the weights as an array, which the program then contains",
    )
    what.add_argument(
        "--report_dir",
        type=Path,
        metavar="DIR",
        help="of a bundle: the report of eval that its model card takes the scores from (default: "
        "that of finetune, where there is one)",
    )
    graph = parser.add_argument_group("the graph")
    graph.add_argument(
        "--input_size",
        type=shared_flags.positive_int,
        help="side of the images in pixels (default: that of the model directory)",
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
        help="int8 goes with --format onnx and with --image (default: float32)",
    )
    proof = parser.add_argument_group("images")
    proof.add_argument(
        "--image",
        nargs="+",
        metavar="PATH",
        help="files, folders or globs; of more images than needed, some spread evenly are used: "
        f"{CHECKED_IMAGES} to check the export, {CALIBRATION_IMAGES} to fit int8 to "
        "(default: drawn images, for the check)",
    )
    shared_flags.add_verbose(proof)
    return parser.parse_args(argv)


def batch(text: str) -> int | None:
    return None if text == "dynamic" else shared_flags.positive_int(text)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    info = read_info(args.model_dir)
    info.check_trained(args.untrained)
    size = args.input_size or info.preprocess.crop_size
    layer_table(info.network, size, size)  # refuses a size that is too small
    if args.embed and args.format != "c":
        raise InputError("`embed`: only the `format` c has it.")
    if args.report_dir is not None and args.format != "bundle":
        raise InputError("`report_dir` is for the model card of the `format` bundle.")
    if args.format == "bundle":
        write_bundle(args, info, size)
        return
    if args.format == "c":
        export_c(args, info, size)
        return
    if args.precision == "int8" and args.image is None:
        raise InputError("`precision` int8 needs `image`, images to fit the integers to.")
    if args.format == "html":
        export_page(args, info)
        return
    what = Export(args.format, size, args.batch, args.with_preprocess, args.precision)
    count = CHECKED_IMAGES if args.precision == "float32" else CALIBRATION_IMAGES
    images = drawn() if args.image is None else named(args.image, count)
    output_dir = args.output_dir or model_dir_of(args.model_dir)
    check_file_target(output_dir / "exports.json")
    result = export(args.model_dir, info, what, images, output_dir)
    for file in result.files:
        print(f"{file}  {file.stat().st_size:,} bytes")
    if args.format == "caffe" and info.calibration is not None:
        common.note("a Caffe file has no temperature, and no threshold for none of these.")
    if result.calibrated:
        print(f"int8: fitted to {result.calibrated} images")
    print(checked(result))


def checked(result: Result) -> str:
    """The line about the check of an export."""
    return (
        f"checked by {result.judge} on {result.images} images: largest difference "
        f"{result.difference:.3g} (relative {result.relative:.2g}), the same first class for "
        f"{result.same_top1}"
    )


def refuse_graph_settings(args: argparse.Namespace) -> None:
    """Refuses the settings of graphs, for formats that take an image as it is.

    Raises:
        InputError: one of them is given.
    """
    if args.batch not in (None, 1):
        raise InputError(f"`batch`: the `format` {args.format} takes one image at a time.")
    if args.with_preprocess:
        raise InputError(
            f"`with_preprocess`: the `format` {args.format} always does the preprocessing itself."
        )
    if args.precision != "float32":
        raise InputError(f"`precision` {args.precision}: only the `format` onnx has it.")


def export_c(args: argparse.Namespace, info: ModelInfo, size: int) -> None:
    """Writes the C code."""
    refuse_graph_settings(args)
    folder = args.output_dir or model_dir_of(args.model_dir) / C_FOLDER
    check_target(folder)
    info = dataclasses.replace(info, preprocess=info.preprocess.with_crop_size(size))
    images = drawn() if args.image is None else named(args.image, GOLDEN)
    written = write_c(args.model_dir, info, folder, images, args.embed)
    for file in sorted(each for each in folder.iterdir() if each.is_file()):
        print(f"{file}  {file.stat().st_size:,} bytes")
    print(
        f"memory: {written.weights_memory / 1e6:.1f} MB of weights and "
        f"{written.maps_memory / 1e6:.1f} MB of maps; check the build by: make -C {folder} check"
    )


def write_bundle(args: argparse.Namespace, info: ModelInfo, size: int) -> None:
    """Writes a bundle; --image names what int8 is fitted to."""
    if args.batch is not None or args.with_preprocess or args.precision != "float32":
        raise InputError(
            "the `format` bundle takes any number of images, has float32 and, fitted to those of "
            "`image`, int8; `batch`, `with_preprocess` and `precision` do not go with it."
        )
    if args.output_dir is None:
        raise InputError("a bundle needs `output_dir`, the name of a new folder or .zip file.")
    check_bundle_target(args.output_dir)
    scores = read_scores(args.model_dir, info, args.report_dir)
    images = drawn() if args.image is None else named(args.image, CALIBRATION_IMAGES)
    fits_int8 = args.image is not None
    bundle = Bundle(args.model_dir, info, size, images, fits_int8, scores, common.note)
    for name, bytes_ in bundle.write(args.output_dir):
        print(f"{args.output_dir / name}  {bytes_:,} bytes")
    print(f"checked by its own {PREDICT} --check")


def export_page(args: argparse.Namespace, info: ModelInfo) -> None:
    """Writes the page."""
    refuse_graph_settings(args)
    if args.input_size is not None:
        raise InputError("`input_size`: the `format` html has that of the model directory.")
    output_dir = args.output_dir or model_dir_of(args.model_dir)
    for name in (PAGE, RECORD):
        check_file_target(output_dir / name)
    images = drawn() if args.image is None else named(args.image, CHECKED_IMAGES)
    result = write_page(args.model_dir, info, images, output_dir)
    [file] = result.files
    print(f"{file}  {file.stat().st_size:,} bytes")
    print(checked(result))
    if weights_file(args.model_dir).name != COMPRESSED:
        small = f"{args.model_dir}_small"
        common.note(
            "most of the page is float32 weights; a page of under 900,000 bytes is made of what "
            f"squeezenet compress --model_dir {args.model_dir} --image IMAGES --output_dir {small} "
            "writes."
        )


def named(patterns: list[str], count: int) -> list[np.ndarray]:
    """Images that the user named; of more than `count`, some spread evenly over them."""
    paths = find_images(patterns, common.note)
    chosen = np.linspace(0, len(paths) - 1, min(len(paths), count)).round()
    return [read_image(paths[int(i)]) for i in chosen]


def drawn() -> list[np.ndarray]:
    """Two images of each class of `datasets.samples`."""
    classes = samples.CLASSES * 2
    return [samples.draw(*one, np.random.default_rng((0, i))) for i, one in enumerate(classes)]

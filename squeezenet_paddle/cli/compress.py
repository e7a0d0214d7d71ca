"""Compress a model to half a megabyte, with some hundred images that need no labels.

    squeezenet compress --model_dir pretrained/squeezenet_v1.1 --image holiday/ \\
        --output_dir pretrained/squeezenet_v1.1_small

writes a model directory with model.sqz in place of model.pdparams, which every command and the
Predictor read as any other. Nothing is trained: the weights of each layer are rounded so that its
outputs stay, and entropy-coded. The images should be like those that the model will see; some
hundred are enough, and more are better. Every fourth one is held back, at most some 160, to measure
what is lost.

--max_bytes is met by the file on disk. With --max_loss the file becomes as small as it can without
losing more than so many points of top-1. That loss is expected, not counted, as there are
no labels: what the float network holds for its own first class, minus what it holds for
the compressed network's. --test_list counts it, with the labels of a list:

    squeezenet compress --model_dir output/mine --image photos/ --max_loss 0.5 \\
        --test_list output/mine/val_list.txt --data_dir photos --output_dir output/mine_small

The printed error of a layer is that of its outputs, as a share of their deviation: half of it that
of single places, half that of averages over an image.

Killed, the same command goes on; until its end, OUTPUT_DIR.checkpoints has its state.

--method distil goes on from the rounded weights: the biases and a scale for each layer are trained
to say what the float network says of crops, mirror images and mixtures of the images; the file
keeps its size.

    squeezenet compress --model_dir pretrained/squeezenet_v1.1 --image photos/ --method distil \\
        --output_dir pretrained/squeezenet_v1.1_small
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..caffe import deep_compression
from ..compression.compress import BATCH, MAX_BYTES, STEPS, Compression, Distilled, compress, forget
from ..data.image_files import find_images
from ..data.lists import ImageList, read_list
from ..data.loader import loader_for
from ..data.preprocess import Preprocess
from ..errors import InputError
from ..evaluation.evaluate import score_list
from ..evaluation.metrics import second_k
from ..model_dir import (
    NET,
    check_target,
    read_info,
    read_weights,
    weights_file,
    write_compressed,
)
from ..predict import Predictor
from ..progress import Progress
from ..run_dir import model_dir_of
from . import common, shared_flags


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--model_dir", "--image"), resumes=True)
    what = parser.add_argument_group("what to compress")
    shared_flags.add_model_dir(what)
    shared_flags.add_untrained(what)
    what.add_argument(
        "--image",
        nargs="+",
        required=True,
        metavar="PATH",
        help="files, folders or globs of images to fit the weights to (required)",
    )
    what.add_argument(
        "--num_images",
        type=shared_flags.positive_int,
        default=768,
        help="of more images, that many spread evenly are used (default: 768)",
    )
    what.add_argument("--output_dir", type=Path, required=True, metavar="DIR", help="(required)")
    how = parser.add_argument_group("how small")
    limit = how.add_mutually_exclusive_group()
    limit.add_argument(
        "--max_bytes", type=shared_flags.positive_int, help=f"of model.sqz (default: {MAX_BYTES})"
    )
    limit.add_argument(
        "--max_loss", type=points, help="of top-1 in points, as the images have it (default: none)"
    )
    how.add_argument(
        "--to",
        choices=("sqz", "net"),
        default="sqz",
        help="net: the same weights in the format of Deep Compression too, model.net, of a v1.0 "
        "with 1,000 classes (default: sqz)",
    )
    how.add_argument(
        "--method",
        choices=("post", "distil"),
        default="post",
        help="distil trains the biases and a scale for each layer after post, to say what the "
        "float network says (default: post)",
    )
    how.add_argument(
        "--steps",
        type=shared_flags.positive_int,
        help=f"of distil, {BATCH} images each (default: {STEPS})",
    )
    how.add_argument(
        "--with_names",
        action="store_true",
        help="put the class names into model.sqz too, for readers that have it alone "
        "(default: off)",
    )
    how.add_argument("--seed", type=shared_flags.seed, default=0, help="(default: 0)")
    scores = parser.add_argument_group("scores before and after")
    shared_flags.add_list(scores, "--test_list")
    shared_flags.add_data_dir(scores)
    running = parser.add_argument_group("running")
    shared_flags.add_threads(running)
    shared_flags.add_reading(running)
    return parser.parse_args(argv)


def points(text: str) -> float:
    """An argparse type: points of top-1, above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number was expected, found {text!r}") from None
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"above 0 and at most 100 was expected, found {text}")
    return value


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    info = read_info(args.model_dir)
    info.check_trained(args.untrained)
    check_target(args.output_dir)
    if args.output_dir.resolve() == model_dir_of(args.model_dir).resolve():
        raise InputError(f"`output_dir` {args.output_dir}: this is `model_dir`, give another.")
    if args.test_list is None and args.data_dir is not None:
        raise InputError("`data_dir` is where the paths of `test_list` start, not of `image`.")
    classes, labelled = info.network.num_classes, None
    if args.test_list is not None:
        labelled = read_list(args.test_list, args.data_dir, classes, info.names)
    if args.to == "net":
        deep_compression.check(info.network)
    if args.steps is not None and args.method != "distil":
        raise InputError("`steps` are those of `method` distil.")
    weights = read_weights(args.model_dir, info)
    paths = find_images(args.image)
    chosen = np.linspace(0, len(paths) - 1, min(len(paths), args.num_images)).round()
    images = ImageList.of_paths([paths[int(i)] for i in chosen])
    distilled = None
    if args.method == "distil":
        whole = dataclasses.replace(info.preprocess, crop_size=info.preprocess.resize_size)
        distilled = Distilled(
            inputs_of(images, whole, args.num_workers, args.max_pixels),
            STEPS if args.steps is None else args.steps,
        )
    checkpoints = args.output_dir.with_name(f"{args.output_dir.name}.checkpoints")
    result = compress(
        info,
        weights.state,
        inputs_of(images, info.preprocess, args.num_workers, args.max_pixels),
        max_bytes=args.max_bytes,
        max_loss=args.max_loss,
        with_names=args.with_names,
        seed=args.seed,
        threads=args.threads,
        distilled=distilled,
        checkpoints=checkpoints,
    )
    source = {**info.source, "compressed": {**result.record(), "seed": args.seed}}
    small = dataclasses.replace(info, source=source, verification={}, scores={})
    net = deep_compression.encode(result.content.state) if args.to == "net" else None
    write_compressed(args.output_dir, small, result.data, net)
    if info.calibration is not None:
        common.note("the temperature and the threshold for none of these are those of `model_dir`.")
    print("\n".join(table(result)))
    before = weights_file(args.model_dir).stat().st_size
    print(f"{args.output_dir}: {len(result.data):,} bytes of weights, from {before:,}")
    if net is not None:
        print(f"{args.output_dir / NET}: {len(net):,} bytes")
    cost = result.cost
    print(
        f"on {cost.images} images held back: the same first class for {cost.agreement:.2%}, "
        f"divergence {cost.divergence:.4f} nats, expected loss of top-1 "
        f"{cost.expected_loss:.2f} points"
    )
    if labelled is not None:
        k = second_k(classes)
        for name, folder in (("before", args.model_dir), ("after", args.output_dir)):
            predictor = Predictor(folder, "cpu", threads=args.threads)
            scores = score_list(
                predictor, labelled, num_workers=args.num_workers, max_pixels=args.max_pixels
            ).summary()
            print(
                f"{name}: top-1 {scores['top1']:.2%}  top-{k} {scores['top5']:.2%}  "
                f"loss {scores['loss']:.4f} on {scores['images']} images"
            )

    forget(checkpoints)


def inputs_of(
    images: ImageList, preprocess: Preprocess, num_workers: int, max_pixels: int
) -> list[np.ndarray]:
    """The network's input for each image, in half precision."""
    inputs: list[np.ndarray] = []
    with (
        loader_for(images, preprocess, num_workers=num_workers, max_pixels=max_pixels) as loader,
        Progress("reading", len(images)) as progress,
    ):
        for batch in loader.epoch():
            inputs.extend(batch.inputs.astype("float16"))
            progress.reach(len(inputs))
    return inputs


def table(result: Compression) -> list[str]:
    """Lines of the table by layer, and of that by part of the file."""
    width = max(len(layer.name) for layer in result.layers)
    lines = [f"{'layer':{width}}    weights  bits/weight   zeros"]
    for layer in result.layers:
        values = layer.indices.values
        zeros = np.mean(values == 0)
        lines.append(f"{layer.name:{width}}  {values.size:9,}  {layer.bits:11.2f}  {zeros:6.1%}")
    if result.steps is None:
        errors = ["   error", *(f"  {layer.error:6.1%}" for layer in result.layers)]
        lines = [line + error for line, error in zip(lines, errors)]
    weights = sum(layer.indices.values.size for layer in result.layers)
    bits = 8 * len(result.data) / weights
    lines.append(f"{'whole file':{width}}  {weights:9,}  {bits:11.2f}")
    parts = ", ".join(f"{name} {size:,}" for name, size in result.sizes.items())
    return [*lines, f"bytes: {parts}"]

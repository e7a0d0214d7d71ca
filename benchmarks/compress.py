"""Size against loss: this project's compression, k-means, plain rounding, the authors' release.

    python benchmarks/compress.py --model_dir pretrained/squeezenet_v1.1 --image photos \\
        --test_list data/photos/val_list.txt --net compressed_SqueezeNet.net --picture curve.png

prints a line for each file: its bytes, top-1 of the list, and agreement and divergence from the
float network on the list's images, none of which should be among those of --image. The sizes of
k-means (Deep Compression's codebooks) and of plain rounding are those of ideal coders: the entropy
of the indices, the codebooks or steps, and the biases in half precision. Every method gets its
rounded weights into the same network. --net is the authors' file, which is a v1.0: its top-1 stands
beside the others, its loss is not known, as nobody has its float weights.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from squeezenet_paddle.caffe.deep_compression import CONFIG, parse
from squeezenet_paddle.cli import common, shared_flags
from squeezenet_paddle.cli.compress import inputs_of
from squeezenet_paddle.compression.compress import Cost
from squeezenet_paddle.compression.post import Compressor
from squeezenet_paddle.compression.rounding import entropy
from squeezenet_paddle.data.image_files import find_images
from squeezenet_paddle.data.lists import ImageList, read_list
from squeezenet_paddle.engines.batches import MicroBatchEngine
from squeezenet_paddle.engines.onnxruntime import compile_onnx
from squeezenet_paddle.model_dir import read_info, read_weights
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.onnx.writer import GraphInput, onnx_model
from squeezenet_paddle.sqz.format import write

State = dict[str, np.ndarray]
OURS, K_MEANS, ROUNDING, RELEASE = "ours", "k-means", "plain rounding", "the authors' release"
SIZES = [330_000, 380_000, 450_000, 560_000]
CODEBOOKS = (12, 16, 32, 64)
STEPS = (0.2, 0.35, 0.5, 0.7)  # deviations of a layer's weights


@dataclass(frozen=True)
class Point:
    """A file: its method, bytes, top-1, and what it loses against the float network."""

    method: str
    bytes: float
    top1: float
    cost: Cost | None


def parse_arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    shared_flags.add_model_dir(parser)
    parser.add_argument("--image", nargs="+", required=True, help="to fit to (required)")
    parser.add_argument("--num_images", type=shared_flags.positive_int, default=512)
    shared_flags.add_list(parser, "--test_list", required=True)
    shared_flags.add_data_dir(parser)
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=SIZES, help="of our files, in bytes"
    )
    parser.add_argument("--net", type=Path, help="the authors' release (default: left out)")
    parser.add_argument("--picture", type=Path, help="(default: none)")
    return parser.parse_args()


def k_means(state: State) -> Iterator[tuple[State, float]]:
    """Codebooks by Lloyd's algorithm, begun evenly over the range, as in Deep Compression."""
    for values in CODEBOOKS:
        result, size = biases(state)
        for key, weight in weights(state):
            flat = np.sort(weight.ravel())
            centres = np.linspace(flat[0], flat[-1], values)
            for _ in range(30):
                cuts = np.searchsorted(flat, (centres[1:] + centres[:-1]) / 2)
                means = [part.mean() if len(part) else None for part in np.split(flat, cuts)]
                centres = np.array([c if m is None else m for c, m in zip(centres, means)])
            codes = np.searchsorted((centres[1:] + centres[:-1]) / 2, weight)
            result[key] = centres[codes].astype("float32")
            size += entropy(codes) * codes.size / 8 + 4 * values
        yield result, size


def rounding(state: State) -> Iterator[tuple[State, float]]:
    """One step a layer, the same share of the deviation of its weights."""
    for share in STEPS:
        result, size = biases(state)
        for key, weight in weights(state):
            step = np.float32(share * weight.std())
            codes = np.rint(weight / step).astype("int32")
            result[key] = (codes * step).astype("float32")
            size += entropy(codes) * codes.size / 8 + 4
        yield result, size


def weights(state: State) -> list[tuple[str, np.ndarray]]:
    return [(key, values) for key, values in state.items() if values.ndim > 1]


def biases(state: State) -> tuple[State, float]:
    """The state with all small arrays in half precision, and their bytes."""
    result = {key: values.astype("float16").astype("float32") for key, values in state.items()}
    return result, 2.0 * sum(values.size for values in state.values() if values.ndim == 1)


def main() -> None:
    args = parse_arguments()
    info = read_info(args.model_dir)
    state = read_weights(args.model_dir, info).state
    labelled = read_list(args.test_list, args.data_dir, info.network.num_classes, info.names)
    judged = np.stack(inputs_of(labelled, info.preprocess, 0, 10**9)).astype("float32")
    paths = find_images(args.image)
    chosen = np.linspace(0, len(paths) - 1, min(len(paths), args.num_images)).round()
    images = ImageList.of_paths([paths[int(i)] for i in chosen])
    fitted = inputs_of(images, info.preprocess, 0, 10**9)

    def logits(config: ModelConfig, state: State) -> np.ndarray:
        size = info.preprocess.crop_size
        model = onnx_model(config, state, GraphInput(size, size), concat=False)

        def compiled(threads: int, streams: int) -> list:
            return compile_onnx(model, threads, streams)

        return MicroBatchEngine(compiled, config.num_classes).logits(judged)

    expected = logits(info.network, state)
    points = []

    def add(method: str, found: np.ndarray, size: float, config: ModelConfig) -> None:
        top1 = float((found.argmax(axis=1) == labelled.labels).mean())
        cost = Cost.between(expected, found) if config == info.network else None
        points.append(Point(method, size, top1, cost))
        said = "" if cost is None else f"{cost.agreement:8.2%}  {cost.divergence:9.4f}"
        error = math.sqrt(top1 * (1 - top1) / len(judged))
        print(f"{method:22}{size:11,.0f}  {top1:7.2%} ± {error:.2%}  {said}", flush=True)

    print(f"{'':22}{'bytes':>11}  {'top-1':>15}  {'same first':>8}  divergence")
    add("float32", expected, 4.0 * sum(v.size for v in state.values()), info.network)
    compressor = Compressor(info.network, state, fitted)
    for size in args.sizes:
        content, _ = compressor.compress(size)
        found = logits(info.network, content.state)
        add(OURS, found, len(write(content)[0]), info.network)
    for method, variants in ((K_MEANS, k_means(state)), (ROUNDING, rounding(state))):
        for each, size in variants:
            add(method, logits(info.network, each), size, info.network)
    if args.net is not None:
        release = parse(args.net.read_bytes(), str(args.net))
        add(RELEASE, logits(CONFIG, release), args.net.stat().st_size, CONFIG)
    if args.picture is not None:
        draw(points, args.picture)


def draw(points: list[Point], file: Path) -> None:
    """Top-1 and divergence over bytes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for method, style in ((OURS, "o-"), (K_MEANS, "s-"), (ROUNDING, "^-"), (RELEASE, "*")):
        some = sorted((p for p in points if p.method == method), key=lambda p: p.bytes)
        sizes, top1 = [p.bytes / 1e3 for p in some], [100 * p.top1 for p in some]
        axes[0].plot(sizes, top1, style, label=method)
        measured = [(p.bytes / 1e3, p.cost.divergence) for p in some if p.cost is not None]
        axes[1].plot([x for x, _ in measured], [y for _, y in measured], style)
    axes[0].axhline(100 * points[0].top1, color="gray", linestyle=":")
    axes[0].set(xlabel="size, KB", ylabel="top-1, % (dotted: float32, 4,942 KB)")
    axes[1].set(xlabel="size, KB", ylabel="divergence from float32, nats", yscale="log")
    axes[0].legend(loc="lower right")
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    common.run(main)

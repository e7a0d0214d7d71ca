"""Name what is in images.

    python tools/infer.py --model_dir pretrained/squeezenet_v1.1 --image cat.jpg
    python tools/infer.py --model_dir pretrained/squeezenet_v1.1 --image holiday/ 'more/*.png' \\
        --synset_word_list synset_words.txt --top_k 3 --format csv
    python tools/infer.py --model_dir pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data --format json

--explain shows where in an image its first class was found: the class activation map over the
network's crop of it, a PNG file an image in a folder, red where the class is strongest:

    python tools/infer.py --model_dir pretrained/squeezenet_v1.1 --image cat.jpg --explain maps

An image that cannot be read is named on standard error, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..data.lists import ImageList, find_images, read_list
from ..data.loader import Loader
from ..data.preprocess import EvalTransform
from ..data.sampler import Sampler
from ..errors import InputError
from ..explain import Explainer, PngFolder, explain
from ..model_dir import read_info
from ..predict import Predictor, predict
from . import common


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    what = parser.add_argument_group("what to classify")
    common.add_model_dir(what)
    common.add_untrained(what)
    which = what.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--image", nargs="+", metavar="PATH", help="files, folders or globs (default: none)"
    )
    common.add_list(which, "--test_list")
    common.add_data_dir(what)
    result = parser.add_argument_group("result")
    common.add_synset_word_list(result)
    result.add_argument(
        "--top_k", type=common.positive_int, default=5, help="classes to name (default: 5)"
    )
    result.add_argument(
        "--format", choices=tuple(WRITERS), default="text", help="of the output (default: text)"
    )
    result.add_argument(
        "--explain",
        type=Path,
        metavar="DIR",
        help="save each image with its class activation map there, beside what is there "
        "(default: none)",
    )
    running = parser.add_argument_group("running")
    common.add_loading(running)
    common.add_device(running)
    common.add_engine(running)
    return parser.parse_args(argv)


def text_lines(results: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The image, then a line a class: probability, class id, name; where its map is."""
    for result in results:
        yield result["image"]
        for item in result["classes"]:
            yield f"  {item['probability']:.4f}  {item['id']:>4}  {item['name'] or ''}".rstrip()
        if "map" in result:
            yield f"  map: {result['map']}"


def csv_lines(results: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A line an image and class, under a header."""
    results = iter(results)
    first: dict[str, Any] = next(results, {"classes": []})
    yield "image,rank,class_id,probability,name" + (",map" if "map" in first else "")
    for result in itertools.chain([first], results):
        for rank, item in enumerate(result["classes"], 1):
            line = io.StringIO()
            row = [result["image"], rank, item["id"], f"{item['probability']:.7f}", item["name"]]
            if "map" in result:
                row.append(result["map"])
            csv.writer(line, lineterminator="").writerow(row)
            yield line.getvalue()


def json_lines(results: Iterable[dict[str, Any]]) -> Iterator[str]:
    """One array, an object an image and line."""
    before = "["
    for result in results:
        yield before + json.dumps(result, ensure_ascii=False)
        before = ","
    yield "]" if before == "," else "[]"


WRITERS = {"text": text_lines, "json": json_lines, "csv": csv_lines}


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    info = read_info(args.model_dir)
    info.check_trained(args.untrained)
    classes = info.network.num_classes
    names = common.class_names(args, info)
    if args.image is not None:
        if args.data_dir is not None:
            raise InputError("--data_dir is where the paths of --test_list start, not of --image.")
        images = ImageList.of_paths(find_images(args.image))
    else:
        images = read_list(args.test_list, args.data_dir, classes, names)
    if args.explain is not None and (
        args.engine not in ("auto", "dynamic") or args.precision != "float32"
    ):
        raise InputError("--explain takes the engine dynamic, in float32, which keeps the maps.")
    maps = None if args.explain is None else PngFolder(args.explain)
    if names is None:
        print(
            "infer.py: no class names: the model directory has none and no --synset_word_list is "
            "given; classes are shown by id.",
            file=sys.stderr,
        )

    sampler = Sampler(len(images), args.batch_size)
    with Loader(
        images,
        EvalTransform(info.preprocess),
        sampler,
        args.num_workers,
        args.max_pixels,
        on_unreadable=lambda message: print(f"infer.py: {message}", file=sys.stderr),
    ) as loader:
        # The engine, once the flags are right and the readers are starting.
        predictions: Iterable[tuple[Any, ...]]
        if maps is None:
            predictions = predict(
                Predictor(args.model_dir, args.device, args.engine, args.precision),
                loader,
                args.top_k,
            )
        else:
            explainer = Explainer(args.model_dir, args.device)
            predictions = explain(explainer, loader, args.top_k, maps)
        for line in WRITERS[args.format](named(predictions, names)):
            print(line)
    if loader.skipped:
        print(
            f"infer.py: {len(loader.skipped)} of {len(images)} images cannot be read.",
            file=sys.stderr,
        )
    return 1 if loader.skipped else 0


def named(
    predictions: Iterable[tuple[Any, ...]], names: list[str] | None
) -> Iterator[dict[str, Any]]:
    """What `predict` or `explain` yields, as the objects that the formats are made of."""
    for path, top, *saved in predictions:
        classes = [{"id": i, "probability": p, "name": names[i] if names else None} for i, p in top]
        maps = {"map": str(saved[0])} if saved else {}
        yield {"image": str(path), "classes": classes, **maps}

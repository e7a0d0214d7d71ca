"""Classify images: the most likely classes of each, as text, JSON or CSV.

    squeezenet infer --model_dir pretrained/squeezenet_v1.1 --image cat.jpg
    squeezenet infer --model_dir pretrained/squeezenet_v1.1 --image holiday/ 'more/*.png' \\
        --synset_word_list synset_words.txt --top_k 3 --format csv
    squeezenet infer --model_dir pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data --format json

--explain shows where in an image the network sees evidence for its first class: a PNG file per
image, the image beside its class activation map, brightest where the evidence is strongest, with
class and probability. The darker border was not seen by the network. The map is exact for a network
with a conv10; for the head compact it is a linear approximation around the image:

    squeezenet infer --model_dir pretrained/squeezenet_v1.1 --image cat.jpg --explain maps

A model of finetune knows when an image is none of its classes: "none of these" comes first then,
with "-" in place of id and probability, and the nearest classes after it. --min_probability P calls
an image "unsure" in the same way if no class is as probable.

An image that cannot be read is named on standard error, the others are classified, and the exit
code is 1. From Python, `squeezenet_paddle.Predictor("pretrained/squeezenet_v1.1")("cat.jpg")` gives
a list of (class_id, name, probability).
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

from ..data.image_files import find_images
from ..data.lists import ImageList, read_list
from ..data.loader import Loader, loader_for
from ..errors import InputError
from ..explain import Explainer, PngFolder, explain
from ..model_dir import read_info
from ..predict import Predictor, predict
from ..progress import Progress
from . import common


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--model_dir", "--image"))
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
        "--top_k", type=common.positive_int, default=5, help="classes per image (default: 5)"
    )
    common.add_min_probability(result)
    result.add_argument(
        "--format", choices=tuple(WRITERS), default="text", help="of the output (default: text)"
    )
    result.add_argument(
        "--explain",
        type=Path,
        metavar="DIR",
        help="save each image with its class activation map there; files that exist are kept "
        "(default: none)",
    )
    running = parser.add_argument_group("running")
    common.add_loading(running)
    common.add_device(running)
    common.add_engine(running)
    return parser.parse_args(argv)


def text_lines(results: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The image, then a line per class: probability, class id, name; then the file of its map."""
    for result in results:
        yield result["image"]
        for item in result["classes"]:
            share = "-" if item["id"] is None else f"{item['probability']:.4f}"
            number = "-" if item["id"] is None else item["id"]
            yield f"  {share:<6}  {number:>4}  {item['name'] or ''}".rstrip()
        if "map" in result:
            yield f"  map: {result['map']}"


def csv_lines(results: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A header, then a line per image and class."""
    results = iter(results)
    first: dict[str, Any] = next(results, {"classes": []})
    yield "image,rank,class_id,probability,name" + (",map" if "map" in first else "")
    for result in itertools.chain([first], results):
        for rank, item in enumerate(result["classes"], 1):
            line = io.StringIO()
            share = None if item["id"] is None else f"{item['probability']:.7f}"
            row = [result["image"], rank, item["id"], share, item["name"]]
            if "map" in result:
                row.append(result["map"])
            csv.writer(line, lineterminator="").writerow(row)
            yield line.getvalue()


def json_lines(results: Iterable[dict[str, Any]]) -> Iterator[str]:
    """One array, with an object per image on a line of its own."""
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
            raise InputError("`data_dir` is where the paths of `test_list` start, not of `image`.")
        images = ImageList.of_paths(find_images(args.image, common.note))
    else:
        images = read_list(args.test_list, args.data_dir, classes, names)
    if args.explain is not None and (
        args.engine not in ("auto", "dynamic") or args.precision != "float32"
    ):
        raise InputError(
            "`explain` needs the `engine` dynamic, in float32: the others do not give the maps."
        )
    maps = None if args.explain is None else PngFolder(args.explain)
    if names is None:
        common.note("no class names: the model directory has none; `synset_word_list` gives them.")

    with loader_for(
        images,
        info.preprocess,
        args.batch_size,
        num_workers=args.num_workers,
        max_pixels=args.max_pixels,
        on_unreadable=common.note,
    ) as loader:
        # The engine, once the flags are right and the readers are starting.
        predictions: Iterable[tuple[Any, ...]]
        if maps is None:
            predictor = Predictor(
                *(args.model_dir, args.device, args.engine, args.precision),
                min_probability=args.min_probability,
            )
            predictions = predict(predictor, loader)
        else:
            explainer = Explainer(args.model_dir, args.device, args.min_probability)
            predictions = explain(explainer, loader, maps, names, args.max_pixels)
        if not sys.stdout.isatty():  # there the results themselves show how far it is
            predictions = counted(predictions, loader)
        for line in WRITERS[args.format](named(predictions, args.top_k, names)):
            print(line)
    if loader.skipped:
        common.note(f"{len(loader.skipped)} of {len(images)} images cannot be read.")
    return 1 if loader.skipped else 0


def counted(predictions: Iterable[tuple[Any, ...]], loader: Loader) -> Iterator[tuple[Any, ...]]:
    """Yields the predictions and shows how many of the loader's images are done."""
    with Progress("classifying", len(loader.images)) as progress:
        for count, prediction in enumerate(predictions, 1):
            yield prediction
            progress.reach(count + len(loader.skipped))


def named(
    predictions: Iterable[tuple[Any, ...]], k: int, names: list[str] | None
) -> Iterator[dict[str, Any]]:
    """The results of `predict` or `explain` as objects that the formats are made of."""
    for path, answer, *saved in predictions:
        classes: list[dict[str, Any]] = [
            {"id": i, "probability": p, "name": names[i] if names else None}
            for i, p in answer.top(k)
        ]
        if answer.refusal is not None:
            classes.insert(0, {"id": None, "probability": None, "name": answer.refusal})
        result = {"image": str(path), "classes": classes}
        if answer.familiarity is not None:
            result["familiarity"] = round(answer.familiarity, 4)
        if saved:
            result["map"] = str(saved[0])
        yield result

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

--image takes addresses of http and https, too. --sort_into DIR copies each image into a folder of
its class, with --link links to it, or into "none of these" or "unsure" (below a probability of 0.5,
or of --min_probability). Nothing is overwritten, and an image that lies anywhere in DIR already
stays where it is: sort, move the wrong ones by hand, sort again.

    squeezenet infer --model_dir output/mine --image holiday/ --sort_into sorted

--video FILE and --camera N give a line a second, or with --every frame a line a frame:

    squeezenet infer --model_dir output/mine --video film.mp4 --format csv > film.csv

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.image_files import find_images
from ..data.lists import ImageList, read_list
from ..data.loader import Loader, loader_for
from ..data.video import EVERY, camera_frames, video_frames
from ..data.web import fetch_image, is_url
from ..errors import ImageError, InputError
from ..explain import Explainer, PngFolder, explain
from ..model_dir import ModelInfo, read_info
from ..predict import BATCH_SIZE, Predictor, predict
from ..progress import Progress
from ..sorting import SortedFolder
from ..temporaries import temporary_directory
from ..training.config import MachineConfig
from . import common, shared_flags

TOP_K = 5  # classes of an image
UNSURE_BELOW = 0.5  # the probability of the first class, where images are sorted by it


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--model_dir", "--image"))
    what = parser.add_argument_group("what to classify")
    shared_flags.add_model_dir(what)
    shared_flags.add_untrained(what)
    which = what.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--image", nargs="+", metavar="PATH", help="files, folders, globs or URLs (default: none)"
    )
    shared_flags.add_list(which, "--test_list")
    which.add_argument("--video", type=Path, metavar="FILE", help="a video file (default: none)")
    which.add_argument(
        "--camera",
        type=shared_flags.non_negative_int,
        metavar="N",
        help="a camera, 0 for the first, until Ctrl-C (default: none)",
    )
    what.add_argument(
        "--every",
        choices=EVERY,
        help="of a video or camera: a line for the first frame of each second, or for each frame "
        "(default: second)",
    )
    shared_flags.add_data_dir(what)
    result = parser.add_argument_group("result")
    shared_flags.add_synset_word_list(result)
    result.add_argument(
        "--top_k",
        type=shared_flags.positive_int,
        help="classes per image (default: 5; of a video or camera 1)",
    )
    shared_flags.add_min_probability(result)
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
    result.add_argument(
        "--sort_into",
        type=Path,
        metavar="DIR",
        help="copy each image into a folder of its class there; nothing is overwritten "
        "(default: none)",
    )
    result.add_argument(
        "--link",
        action="store_true",
        help="with --sort_into: links in place of copies (default: copies)",
    )
    running = parser.add_argument_group("running")
    shared_flags.add_loading(running)
    shared_flags.add_device(running)
    shared_flags.add_engine(running)
    return parser.parse_args(argv)


def text_lines(results: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The image, then a line per class: probability, class id, name; then the file of its map.

    The classes of a frame have its time before them in place of the image's line.
    """
    for result in results:
        start = ""
        if "seconds" in result:
            start = f"{result['seconds']:>10.3f} s"
        else:
            yield result["image"]
        for item in result["classes"]:
            share = "-" if item["id"] is None else f"{item['probability']:.4f}"
            number = "-" if item["id"] is None else item["id"]
            yield f"{start}  {share:<6}  {number:>4}  {item['name'] or ''}".rstrip()
        if "map" in result:
            yield f"  map: {result['map']}"


def csv_lines(results: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A header, then a line per image and class."""
    results = iter(results)
    first: dict[str, Any] = next(results, {"classes": []})
    time = "seconds,frame," if "seconds" in first else ""
    yield f"image,{time}rank,class_id,probability,name" + (",map" if "map" in first else "")
    for result in itertools.chain([first], results):
        for rank, item in enumerate(result["classes"], 1):
            line = io.StringIO()
            share = None if item["id"] is None else f"{item['probability']:.7f}"
            times = [f"{result['seconds']:.3f}", result["frame"]] if time else []
            row = [result["image"], *times, rank, item["id"], share, item["name"]]
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
    names = shared_flags.class_names(args, info)
    check_combinations(args)
    if args.video is not None or args.camera is not None:
        return classify_frames(args, names)
    with temporary_directory() as folder:
        return classify_images(args, info, names, folder)


def check_combinations(args: argparse.Namespace) -> None:
    """Refuses settings that do not go together."""
    moving = "video" if args.video is not None else "camera" if args.camera is not None else None
    if args.data_dir is not None and args.test_list is None:
        raise InputError("`data_dir` is where the paths of `test_list` start, and of nothing else.")
    if args.explain is not None and (
        args.engine not in ("auto", "dynamic") or args.precision != "float32"
    ):
        raise InputError(
            "`explain` needs the `engine` dynamic, in float32: the others do not give the maps."
        )
    if args.link and args.sort_into is None:
        raise InputError("`link` goes with `sort_into`.")
    if args.every is not None and moving is None:
        raise InputError("`every` goes with `video` or `camera`.")
    for name in ("explain", "sort_into"):
        if moving is not None and getattr(args, name):
            raise InputError(f"`{name}` is for image files, and `{moving}` was given.")
    for name in ("num_workers", "max_pixels"):
        if moving is not None and getattr(args, name) != getattr(MachineConfig(), name):
            raise InputError(f"`{name}` is of reading image files, and `{moving}` was given.")
    if args.camera is not None and args.batch_size != BATCH_SIZE:
        raise InputError("`batch_size`: of a `camera`, each frame is computed when it comes.")


def classify_images(
    args: argparse.Namespace, info: ModelInfo, names: list[str] | None, folder: Path
) -> int:
    """Classifies image files; those of the web are downloaded into `folder` first."""
    urls: dict[str, str] = {}  # by the path of what was downloaded
    lost = 0
    if args.image is None:
        images = read_list(args.test_list, args.data_dir, info.network.num_classes, names)
    else:
        local = [pattern for pattern in args.image if not is_url(pattern)]
        remote = [pattern for pattern in args.image if is_url(pattern)]
        for pattern in local:
            if "://" in pattern:
                raise InputError(
                    f"`image` {pattern}: only addresses of http and https are fetched; "
                    "download it first."
                )
        if args.link and remote:
            raise InputError(f"`link`: {remote[0]} is no file that a link could lead to.")
        paths = find_images(local, common.note) if local else []
        urls, lost = download(remote, folder)
        if not paths and not urls:
            return 1
        images = ImageList.of_paths([*paths, *map(Path, urls)])
    maps = None if args.explain is None else PngFolder(args.explain)
    least = args.min_probability
    if least is None and args.sort_into is not None:
        least = UNSURE_BELOW
    into = None if args.sort_into is None else SortedFolder(args.sort_into, names, args.link)
    note_of_names(names)

    def unreadable(message: str) -> None:
        for path, url in urls.items():
            message = message.replace(path, url)
        common.note(message)

    with loader_for(
        images,
        info.preprocess,
        args.batch_size,
        num_workers=args.num_workers,
        max_pixels=args.max_pixels,
        on_unreadable=unreadable,
    ) as loader:
        # The engine, once the flags are right and the readers are starting.
        predictions: Iterable[tuple[Any, ...]]
        if maps is None:
            predictions = predict(predictor_of(args, least), loader)
        else:
            explainer = Explainer(args.model_dir, args.device, least)
            predictions = explain(explainer, loader, maps, names, args.max_pixels)
        if not sys.stdout.isatty():  # there the results themselves show how far it is
            predictions = counted(predictions, loader)
        if into is not None:
            predictions = put_into(predictions, into)
        for line in WRITERS[args.format](named(predictions, args.top_k or TOP_K, names, urls)):
            print(line)
    if into is not None:
        common.note(into.summary())
    lost += len(loader.skipped)
    if lost:
        common.note(f"{lost} of {lost - len(loader.skipped) + len(images)} images cannot be read.")
    return 1 if lost else 0


def classify_frames(args: argparse.Namespace, names: list[str] | None) -> int:
    """Classifies the frames of a video or camera, and prints each line at once."""
    note_of_names(names)
    every = args.every or EVERY[0]
    if args.video is not None:
        frames, size, name = video_frames(args.video, every), args.batch_size, str(args.video)
    else:
        frames, size, name = camera_frames(args.camera, every), 1, f"camera {args.camera}"
    first = next(frames, None)  # before the engine is loaded
    predictor, k = predictor_of(args, args.min_probability), args.top_k or 1
    everything = itertools.chain([] if first is None else [first], frames)

    def results() -> Iterator[dict[str, Any]]:
        preprocess = predictor.info.preprocess
        while batch := list(itertools.islice(everything, size)):
            answers = predictor.answers(np.stack([preprocess(frame.image) for frame in batch]))
            for frame, answer in zip(batch, answers):
                [result] = named([(name, answer)], k, names, {})
                result["classes"] = result["classes"][:k]  # as many lines for each
                yield {**result, "seconds": round(frame.seconds, 3), "frame": frame.number}

    for line in WRITERS[args.format](results()):
        print(line, flush=True)
    return 0


def predictor_of(args: argparse.Namespace, least: float | None) -> Predictor:
    where = (args.model_dir, args.device, args.engine, args.precision)
    return Predictor(*where, min_probability=least)


def note_of_names(names: list[str] | None) -> None:
    if names is None:
        common.note("no class names: the model directory has none; `synset_word_list` gives them.")


def download(urls: Sequence[str], folder: Path) -> tuple[dict[str, str], int]:
    """Downloads images: URLs by path, and how many could not be had, each of which is named."""
    found: dict[str, str] = {}
    for number, url in enumerate(urls):
        own = folder / str(number)
        own.mkdir()
        try:
            found[str(fetch_image(url, own))] = url
        except ImageError as error:
            common.note(str(error))
    return found, len(urls) - len(found)


def put_into(
    predictions: Iterable[tuple[Any, ...]], into: SortedFolder
) -> Iterator[tuple[Any, ...]]:
    """Yields the predictions and puts each image into its folder."""
    for prediction in predictions:
        path, answer = prediction[:2]
        into.add(path, answer.top(1)[0][0], answer.refusal)
        yield prediction


def counted(predictions: Iterable[tuple[Any, ...]], loader: Loader) -> Iterator[tuple[Any, ...]]:
    """Yields the predictions and shows how many of the loader's images are done."""
    with Progress("classifying", len(loader.images)) as progress:
        for count, prediction in enumerate(predictions, 1):
            yield prediction
            progress.reach(count + len(loader.skipped))


def named(
    predictions: Iterable[tuple[Any, ...]],
    k: int,
    names: list[str] | None,
    urls: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    """The results of `predict` or `explain` as objects that the formats are made of.

    Args:
        predictions: a path, an answer, and the file of a map if there is one.
        k: classes of each.
        names: of the classes.
        urls: where a path came from, if it was downloaded.
    """
    for path, answer, *saved in predictions:
        classes: list[dict[str, Any]] = [
            {"id": i, "probability": p, "name": names[i] if names else None}
            for i, p in answer.top(k)
        ]
        if answer.refusal is not None:
            classes.insert(0, {"id": None, "probability": None, "name": answer.refusal})
        result = {"image": urls.get(str(path), str(path)), "classes": classes}
        if answer.familiarity is not None:
            result["familiarity"] = round(answer.familiarity, 4)
        if saved:
            result["map"] = str(saved[0])
        yield result

"""What check-images finds of what was hidden: wrong labels and duplicates; and its time at 50,000.

    python benchmarks/check_images.py --pretrained pretrained/squeezenet_v1.1 \\
        --cifar10 data/cifar10 --eth80 data/eth80 --photos data/photos

Wrong labels: 5 % of the labels are changed at random, each to any other class. Printed are the
average precision of the ranking, its precision where the recall is 0.7 (CIFAR-10) or 0.9, and
precision and recall of what the page shows as suspects, for each of --seeds seeds. The photographs
have too few images for 1,000 classes; they are put into seven groups of ImageNet's classes.

Duplicates: of 60 images each, copies are added: the same file, the same pixels as PNG, JPEG of
quality 60, resized by 0.5 and 1.3, cropped by 5 %, mirrored. Printed is which share is found with
its original, and how many pairs are reported that were not planted.

50,000 images: features of the true size and with the classes of CIFAR-10's, mixed of those of two
images of a class each; a candidate for a duplicate is decoded from the photographs. Printed are the
seconds and the largest memory of everything but the features.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from squeezenet_paddle.checking.check import groups_of
from squeezenet_paddle.checking.duplicates import find_duplicates
from squeezenet_paddle.checking.inputs import suited
from squeezenet_paddle.checking.labels import check_labels
from squeezenet_paddle.checking.learning_curve import learning_curve
from squeezenet_paddle.checking.oddities import alike_classes, far_images
from squeezenet_paddle.checking.pixels import read_reduced
from squeezenet_paddle.checking.projection import project, project_scores
from squeezenet_paddle.data.contents import content_hashes
from squeezenet_paddle.data.decode import read_image
from squeezenet_paddle.data.lists import ImageList, read_list
from squeezenet_paddle.datasets.folders import read_tree
from squeezenet_paddle.evaluation.calibrate import classifier_of
from squeezenet_paddle.features.compute import image_features
from squeezenet_paddle.model_dir import read_info

# ImageNet's class ids, first and last: birds; fish, reptiles and smaller animals; dogs and foxes;
# other mammals; food and plants; places; what is left are things.
GROUPS = (
    ((7, 24), (80, 100), (127, 146)),
    ((0, 6), (25, 79), (107, 126), (300, 329), (389, 397)),
    ((151, 280),),
    ((101, 106), (147, 150), (281, 299), (330, 388)),
    ((923, 969), (984, 998)),
    ((970, 980),),
)
WRONG = 0.05
PLANTED = 60


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretrained", type=Path, required=True, help="a model directory")
    parser.add_argument("--cifar10", type=Path, help="a folder with train_list.txt")
    parser.add_argument("--eth80", type=Path, help="a folder for each class")
    parser.add_argument("--photos", type=Path, help="a folder with val_list.txt of ImageNet's ids")
    parser.add_argument("--seeds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--images", type=int, default=50_000, help="at scale (default: 50000)")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)"
    )
    args = parser.parse_args()
    from train import machine  # the benchmark beside this one

    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for part in args.parts:
            PARTS[part](args, Path(folder))


def data_sets(args: argparse.Namespace) -> dict[str, tuple[ImageList, str | None, float]]:
    """Images with labels, what groups them, and the recall of the target, by name."""
    sets: dict[str, tuple[ImageList, str | None, float]] = {}
    if args.cifar10 is not None:
        sets["CIFAR-10"] = read_list(args.cifar10 / "train_list.txt"), None, 0.7
    if args.eth80 is not None:
        tree = read_tree(args.eth80)
        images = ImageList.of_paths(list(tree.names))
        images = dataclasses.replace(images, root=args.eth80, labels=tree.labels)
        sets["ETH-80"] = images, None, 0.9
        sets["ETH-80, by object"] = images, r"([^/]+)-\d+-\d+", 0.9
    if args.photos is not None:
        images = read_list(args.photos / "val_list.txt")
        coarse = np.full(1000, len(GROUPS))
        for number, group in enumerate(GROUPS):
            for first, last in group:
                coarse[first : last + 1] = number
        sets["photographs"] = dataclasses.replace(images, labels=coarse[images.labels]), None, 0.9
    return sets


def features_of(args: argparse.Namespace, images: ImageList, folder: Path) -> np.ndarray:
    """Features as check-images computes them."""
    preprocess = suited(read_info(args.pretrained).preprocess, images)
    cache = folder / f"features-{preprocess.crop_size}"
    return image_features(args.pretrained, images, cache, preprocess=preprocess, mirrored=True)[0]


def reader(images: ImageList) -> Callable[[int], np.ndarray]:
    """Decodes an image by its number; after the last one come the first ones again."""
    return lambda number: read_image(images.path(number % len(images)))


def wrong_labels(args: argparse.Namespace, folder: Path) -> None:
    from sklearn.metrics import average_precision_score, precision_recall_curve

    print(f"\nwrong labels: {WRONG:.0%} changed at random")
    print(f"{'':<20}{'seed':>5}{'average':>9}{'precision at recall':>21}{'suspects':>10}", end="")
    print(f"{'precision':>11}{'recall':>8}{'estimated':>11}")
    for name, (images, pattern, target) in data_sets(args).items():
        features, classifier = features_of(args, images, folder), classifier_of(args.pretrained)
        components = project(features)
        scores = None if classifier is None else project_scores(features, classifier)
        groups = groups_of([images.name(i) for i in range(len(images))], pattern)
        classes = int(images.labels.max()) + 1
        for seed in range(args.seeds):
            labels, wrong = flipped(images.labels, classes, seed)
            found = check_labels(components, labels, groups, classes, scores=scores)
            precision, recall, _ = precision_recall_curve(wrong, found.wrong)
            average = average_precision_score(wrong, found.wrong)
            hits = wrong[found.suspects]
            best = precision[recall >= target].max()
            share = hits.mean() if len(hits) else float("nan")
            print(f"{name:<20}{seed:>5}{average:>9.3f}{best:>15.3f} at {target}", end="")
            print(f"{len(hits):>10}{share:>11.3f}{hits.sum() / wrong.sum():>8.3f}", end="")
            print(f"{found.error_rate:>11.1%}", flush=True)


def flipped(labels: np.ndarray, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels, a share of them changed, and which these are."""
    rng = np.random.default_rng(seed)
    changed = rng.choice(len(labels), round(WRONG * len(labels)), replace=False)
    result = labels.copy()
    result[changed] = (result[changed] + rng.integers(1, classes, len(changed))) % classes
    return result, np.isin(np.arange(len(labels)), changed)


def jpeg(image: np.ndarray, quality: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def cropped(image: np.ndarray) -> np.ndarray:
    """Without 5 % of either side, half of that on each end."""
    height, width = image.shape[:2]
    top, left = round(0.05 * height), round(0.05 * width)
    return image[top // 2 : height - top + top // 2, left // 2 : width - left + left // 2]


def scaled(image: np.ndarray, factor: float) -> np.ndarray:
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=kind)


COPIES = {
    "same pixels": lambda image: cv2.imencode(".png", image)[1].tobytes(),
    "JPEG 60": lambda image: jpeg(image, 60),
    "half": lambda image: jpeg(scaled(image, 0.5), 95),
    "1.3 times": lambda image: jpeg(scaled(image, 1.3), 95),
    "cropped 5 %": lambda image: jpeg(cropped(image), 95),
    "mirrored": lambda image: jpeg(image[:, ::-1], 95),
}


def duplicates(args: argparse.Namespace, folder: Path) -> None:
    print(f"\nduplicates: found of {PLANTED} planted of each kind; and pairs not planted")
    names = ("same file", *COPIES)
    print(f"{'':<13}{'images':>7}" + "".join(f"{name:>13}" for name in names) + "  not planted")
    for name, (images, pattern, _) in data_sets(args).items():
        if pattern is not None:
            continue
        paths = [images.path(i) for i in range(len(images))]
        rng = np.random.default_rng(0)
        copies: list[tuple[int, int]] = []  # the original, the kind
        target = folder / f"copies-{name}"
        target.mkdir()
        for kind, make in enumerate(names):
            for i in rng.choice(len(paths), min(PLANTED, len(paths)), replace=False).tolist():
                path = target / f"{kind}-{i}"
                if kind == 0:
                    shutil.copy(paths[i], path)
                else:
                    path.write_bytes(COPIES[make](read_image(paths[i])))
                copies.append((i, kind))
        count = len(paths)
        paths += [target / f"{kind}-{i}" for i, kind in copies]
        all_images = ImageList.of_paths([path.absolute() for path in paths])
        components = project(features_of(args, all_images, folder))
        found = find_duplicates(components, content_hashes(paths), reader(all_images))
        hits = np.zeros(len(names))
        for number, (original, kind) in enumerate(copies, count):
            hits[kind] += found.groups[number] == found.groups[original]
        origin = np.array([*range(count), *(i for i, _ in copies)])
        others = {tuple(sorted((origin[p.first], origin[p.second]))) for p in found.pairs}
        others = {(i, j) for i, j in others if i != j}
        planted = np.bincount([kind for _, kind in copies])
        row = "".join(f"{share:>13.1%}" for share in hits / planted)
        print(f"{name:<13}{count:>7}{row}  {len(others)}", flush=True)
        for i, j in sorted(others):
            print(f"{'':<20}{images.name(i)}  {images.name(j)}")


def scale(args: argparse.Namespace, folder: Path) -> None:
    if args.cifar10 is None or args.photos is None:
        return
    images, *_ = data_sets(args)["CIFAR-10"]
    photos, *_ = data_sets(args)["photographs"]
    features, labels = synthetic(features_of(args, images, folder), images.labels, args.images)
    before = memory()
    start = time.perf_counter(), time.process_time()
    times: dict[str, tuple[float, float]] = {}

    def step(name: str) -> None:
        nonlocal start
        now = time.perf_counter(), time.process_time()
        times[name], start = (now[0] - start[0], now[1] - start[1]), now

    components = project(features)
    step("projection")
    hashes = [str(i) for i in range(len(labels))]
    found = find_duplicates(
        components, hashes, reader(photos), lambda i: read_reduced(photos.path(i % len(photos)))
    )
    step("duplicates")
    classifier = classifier_of(args.pretrained)
    scores = None if classifier is None else project_scores(features, classifier)
    judged = check_labels(components, labels, found.groups, 10, scores=scores)
    step("labels")
    far_images(components, labels)
    alike_classes(judged.probabilities, labels)
    step("odd images and classes")
    learning_curve(components, labels, found.groups, 10, np.ones(len(labels), bool))
    step("learning curve")
    print(
        f"\n{len(labels):,} images of {features.shape[1]:,} features, "
        f"{features.nbytes / 1e9:.2f} GB"
    )
    times["all"] = tuple(map(sum, zip(*times.values())))
    for name, (seconds, computed) in times.items():
        print(f"  {name:<24}{seconds:>7.1f} s, {computed:>6.1f} s of a core")
    print(f"  largest memory {memory():.2f} GB, before the checks {before:.2f} GB")


def synthetic(
    features: np.ndarray, labels: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features mixed of those of two images of a class each, float16 [count, F], and labels."""
    rng = np.random.default_rng(0)
    result = np.empty((count, features.shape[1]), "float16")
    first = rng.integers(0, len(labels), count)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(labels.max() + 2))
    low, high = starts[labels[first]], starts[labels[first] + 1]
    second = order[rng.integers(low, high)]
    for start in range(0, count, 1000):
        part = slice(start, start + 1000)
        share = rng.beta(0.4, 0.4, (len(first[part]), 1)).astype("float32")
        mixed = share * features[first[part]] + (1 - share) * features[second[part]]
        result[part] = mixed * rng.normal(1, 0.1, mixed.shape).astype("float32")
    return result, labels[first]


def memory() -> float:
    """The largest memory of this process until now, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


PARTS = {"labels": wrong_labels, "duplicates": duplicates, "scale": scale}


if __name__ == "__main__":
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    main()

"""How well fine-tuned models tell images of none of their classes: AUROC, and what is refused.

    python benchmarks/unknown.py --pretrained pretrained/squeezenet_v1.1 --photos data/photos \\
        --cifar10 data/cifar10 --eth80 data/eth80 --output_dir output/unknown

Each case is a fine-tuning with the default settings, whose validation images are the known ones:

    food         photographs with ImageNet's labels: animals and vehicles against food
    cifar10 A B  eight classes of CIFAR-10 against the validation images of A and B
    eth80        the objects of ETH-80 against the photographs

The columns are the AUROC of the largest probability, of the energy (logsumexp of the logits), of
each term of the familiarity, and of the familiarity itself; what share of the unknown and of the
known images is refused; and the expected calibration error without and with the temperature. The
folders are as `make-lists` writes them, photos with a val_list.txt. A case that is done is scored
again, not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.special import logsumexp

from squeezenet_paddle import FinetuneConfig, Predictor, finetune
from squeezenet_paddle.data.lists import ImageList, imagenet_class_names, read_list
from squeezenet_paddle.data.loader import loader_for
from squeezenet_paddle.evaluation.evaluate import score_list
from squeezenet_paddle.evaluation.metrics import auroc
from squeezenet_paddle.familiarity import Calibration
from squeezenet_paddle.network.logits import softmax

FIRST_ARTEFACT = "abacus"  # animals stand before it
VEHICLES = """aircraft carrier, airliner, airship, ambulance, amphibian, balloon, beach wagon,
bicycle-built-for-two, bullet train, cab, canoe, catamaran, container ship, convertible,
electric locomotive, fire engine, fireboat, forklift, freight car, garbage truck, go-kart, golfcart,
gondola, half track, harvester, horse cart, jeep, jinrikisha, lifeboat, limousine, liner, minibus,
minivan, Model T, moped, motor scooter, mountain bike, moving van, parachute, passenger car, pickup,
police van, racer, recreational vehicle, school bus, schooner, snowmobile, snowplow, speedboat,
sports car, steam locomotive, streetcar, submarine, tank, thresher, tow truck, tractor,
trailer truck, tricycle, trimaran, trolleybus, unicycle, warplane, yawl"""
FIRST_FOOD, LAST_FOOD = "plate", "eggnog"
PLANTS = ("cardoon", "Granny Smith", "jackfruit", "hay")  # of which photographs show the plant
SCORES = ("prob", "energy", "conf", "like", "kin", "close", "overlap", "all")
PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))


@dataclasses.dataclass(frozen=True)
class Case:
    """A fine-tuning, and images of none of its classes."""

    name: str
    settings: dict[str, object]
    unknown: ImageList


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretrained", type=Path, required=True, help="(required)")
    parser.add_argument("--photos", type=Path, help="(default: without)")
    parser.add_argument("--cifar10", type=Path, help="(default: without)")
    parser.add_argument("--eth80", type=Path, help="(default: without)")
    parser.add_argument("--output_dir", type=Path, required=True, help="(required)")
    parser.add_argument("--seeds", type=int, default=3, help="splits of food (default: 3)")
    parser.add_argument("--head", default="compact", help="(default: compact)")
    args = parser.parse_args()
    columns = (*SCORES, "unknown", "known", "ece", "ece T")
    print(f"{'':<19} top-1  " + " ".join(f"{column:>7}" for column in columns), flush=True)
    for case in cases(args):
        print(f"{case.name:<19} {row(case)}", flush=True)


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """What the folders that were given allow."""
    start = {"pretrained": args.pretrained, "head": args.head}
    if args.photos is not None:
        photos = read_list(args.photos / "val_list.txt")
        group = groups()[photos.labels]
        known = group < 2
        rows = [f"{photos.name(i)} {group[i]}\n" for i in np.flatnonzero(known)]
        args.output_dir.mkdir(parents=True, exist_ok=True)
        file = args.output_dir / "animals_and_vehicles.txt"
        file.write_text("".join(rows))
        lists = {"train_list": file, "data_dir": args.photos, "val_share": 0.25}
        for seed in range(args.seeds):
            output = {"output_dir": args.output_dir / f"food_{seed}", "seed": seed}
            yield Case(f"food {seed}", {**start, **lists, **output}, some(photos, group == 2))
    if args.cifar10 is not None:
        for pair in PAIRS:
            yield Case(f"cifar10 {pair[0]} {pair[1]}", *cifar10(args, pair, start))
    if args.eth80 is not None and args.photos is not None:
        lists = {f"{part}_list": args.eth80 / f"{part}_list.txt" for part in ("train", "val")}
        settings = {**start, **lists, "output_dir": args.output_dir / "eth80"}
        yield Case("eth80", settings, photos)


def groups() -> np.ndarray:
    """int64 [1000]: 0 for an animal, 1 for a vehicle, 2 for food, 3 for anything else."""
    names = [name.partition(" ")[2].partition(",")[0] for name in imagenet_class_names()]
    result = np.full(len(names), 3)
    result[: names.index(FIRST_ARTEFACT)] = 0  # ImageNet's order is that of WordNet
    result[[names.index(name) for name in re.split(r",\s+", VEHICLES)]] = 1
    result[names.index(FIRST_FOOD) : names.index(LAST_FOOD) + 1] = 2
    result[[names.index(name) for name in PLANTS]] = 3
    return result


def cifar10(
    args: argparse.Namespace, pair: Sequence[int], start: dict[str, object]
) -> tuple[dict[str, object], ImageList]:
    """The settings for eight classes, and the validation images of the other two."""
    kept = [label for label in range(10) if label not in pair]
    name = f"cifar10_without_{pair[0]}_{pair[1]}"
    lists: dict[str, object] = {"data_dir": args.cifar10}
    for part in ("train", "val"):
        images = read_list(args.cifar10 / f"{part}_list.txt")
        file = args.output_dir / f"{name}_{part}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            f"{images.name(i)} {kept.index(label)}\n"
            for i, label in enumerate(images.labels.tolist())
            if label in kept
        ]
        file.write_text("".join(rows))
        lists[f"{part}_list"] = file
    settings = {**start, **lists, "output_dir": args.output_dir / name}
    return settings, some(images, np.isin(images.labels, pair))


def some(images: ImageList, chosen: np.ndarray) -> ImageList:
    columns = {name: getattr(images, name)[chosen] for name in ("starts", "ends", "labels")}
    return dataclasses.replace(images, **columns)


def row(case: Case) -> str:
    """Trains a case, unless it is done, and measures it."""
    config = FinetuneConfig.from_settings(**case.settings)
    finetune(config)
    run = config.run.output_dir
    predictor = Predictor(run)
    calibration = predictor.info.calibration
    assert calibration is not None
    val_list = config.data.val_list or run / "val_list.txt"
    classes = predictor.info.network.num_classes
    root = config.data.data_dir or val_list.parent
    known_images = read_list(val_list, root, classes)
    known, unknown = outputs(predictor, known_images), outputs(predictor, case.unknown)
    evaluation = score_list(predictor, known_images)
    trust = evaluation.trust
    assert trust is not None
    of_known, of_unknown = (scores(calibration, *each) for each in (known, unknown))
    numbers = [
        auroc(of_known[name], of_unknown[name]) if name in of_known else float("nan")
        for name in SCORES
    ]
    numbers += [float(calibration.refuses(*unknown).mean()), trust["refused"]]
    numbers += [trust["ece_uncalibrated"], trust["ece"]]
    top1 = evaluation.summary()["top1"]
    return f"{top1:>5.1%}  " + " ".join(f"{number:>7.3f}" for number in numbers)


def scores(
    calibration: Calibration, logits: np.ndarray, means: np.ndarray
) -> dict[str, np.ndarray]:
    """What is to tell unknown images, by column; the terms of the familiarity are standardised."""
    familiarity = calibration.familiarity
    given = logits.argmax(axis=1)
    terms = familiarity.terms(logits, means)
    terms = (terms - familiarity.center[given]) / familiarity.spread[given]
    counts = (1, 1, len(familiarity.groups), len(familiarity.axes), len(familiarity.known))
    names = [name for name, count in zip(SCORES[2:], counts) if count]
    return {
        "prob": softmax(logits).max(axis=1),
        "energy": logsumexp(logits, axis=1),
        **dict(zip(names, terms.T)),
        "all": terms.mean(axis=1),
    }


def outputs(predictor: Predictor, images: ImageList) -> tuple[np.ndarray, np.ndarray]:
    """Logits and means of all images."""
    with loader_for(images, predictor.info.preprocess) as loader:
        parts = [predictor.outputs(batch.inputs) for batch in loader.epoch()]
    logits, means = zip(*parts)
    return np.concatenate(logits), np.concatenate(means)


if __name__ == "__main__":
    main()

"""A folder that grows: what has changed since the last run in a directory, which is kept there.

    images.json   the images of the run: path, class, part and SHA-256 of each
    runs/N/       earlier runs, each with the images, lists, models and report that it had

The features stay where they are, for all runs.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.lists import ImageList
from ..errors import InputError
from ..evaluation.evaluate import Evaluation, score_list
from ..files import read_bytes, sha256
from ..predict import Predictor
from ..run_dir import (
    CHECKPOINTS,
    FIRST_STAGE,
    IMAGES,
    MODELS,
    OWN_ENTRIES,
    RUNS,
    check_not_read,
    entries,
    model_dir_of,
    remove,
)
from .config import FinetuneConfig


class Image(NamedTuple):
    """An image of a run."""

    path: str
    class_name: str
    part: str
    sha256: str


@dataclass(frozen=True)
class Record:
    """The images of a run, as `images.json` has them.

    Attributes:
        split: the settings that the split depends on, by name.
        images: in the order of the classes.
    """

    split: Mapping[str, Any]
    images: Sequence[Image]

    def json(self) -> bytes:
        """The content of the file."""
        images = ",\n".join(json.dumps(image) for image in self.images)
        return f'{{"split": {json.dumps(self.split)}, "images": [\n{images}\n]}}\n'.encode()

    def digest(self, part: str) -> str:
        """What a part contains, whatever its files are called: a SHA-256, of which order counts."""
        images = [(each.sha256, each.class_name) for each in self.images if each.part == part]
        return sha256(json.dumps(images).encode())

    @property
    def parts(self) -> dict[str, str]:
        """The part of each content."""
        return {image.sha256: image.part for image in self.images}

    @property
    def contents(self) -> set[tuple[str, str]]:
        """The contents, each with its class."""
        return {(image.sha256, image.class_name) for image in self.images}

    def check_split(self, split: Mapping[str, Any], where: Path) -> None:
        """Raises an error if a split that goes on with this one has other settings.

        Raises:
            InputError: it names them.
        """
        for name, value in split.items():
            if self.split.get(name) != value:
                raise InputError(
                    f"{where}: the images of its run were split with `{name}` "
                    f"{self.split.get(name)}, now it is {value}; `overwrite` starts from scratch, "
                    "another `output_dir` leaves that run as it is."
                )


def read_record(path: Path) -> Record | None:
    """The record of the run in a directory; None if there is none.

    Raises:
        InputError: it is damaged.
    """
    path = path / IMAGES
    if not path.exists():
        return None
    try:
        values = json.loads(read_bytes(path, "record of images"))
        images = [Image(*each) for each in values["images"]]
        if not (isinstance(values["split"], dict) and all(_are_texts(each) for each in images)):
            raise TypeError("texts were expected")
        return Record(values["split"], images)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: this record of images is damaged; remove it, and the images are split anew."
        ) from error


def _are_texts(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def earlier_record(output_dir: Path) -> Record | None:
    """The record of the run in a directory or, if it has none, of the last one that it keeps."""
    record = read_record(output_dir)
    for path in reversed(numbered_runs(output_dir)):
        record = record or read_record(path)
    return record


def numbered_runs(output_dir: Path) -> list[Path]:
    """The runs that a directory keeps, the last one last."""
    folders = [each for each in (output_dir / RUNS).glob("*") if each.name.isdecimal()]
    return sorted(folders, key=lambda each: int(each.name))


def in_order_of(images: Sequence[Image], earlier: Sequence[Image]) -> list[Image] | None:
    """The images in the order of an earlier run's; None if more than their names has changed."""
    orders = [sorted(range(len(each)), key=lambda i: each[i][::-1]) for each in (images, earlier)]
    if [images[i][1:] for i in orders[0]] != [earlier[i][1:] for i in orders[1]]:
        return None
    return [images[i] for _, i in sorted(zip(orders[1], orders[0]))]


def take_directory(
    output_dir: Path, record: Record | None, settings: Mapping[str, Path | None] | None = None
) -> str:
    """Makes way for a run with other images than the one in a directory, which is kept.

    If this is interrupted, the next call goes on with it.

    Args:
        output_dir: the directory.
        record: of the new run; None where the user gave both lists.
        settings: files and directories that the new run reads, by the settings that name them.

    Returns:
        What has changed and where the earlier run is, for the user; "" if nothing has. A run
        whose images have new names alone stays where it is.

    Raises:
        InputError: the new run reads what would be moved.
    """
    earlier = read_record(output_dir)
    if earlier is None or record is None:
        return ""
    if [each[1:] for each in earlier.images] == [each[1:] for each in record.images]:
        return _describe_renamed(earlier.images, record.images)
    text = describe_changes(earlier.images, record.images)
    present = entries(output_dir, OWN_ENTRIES)  # the record is the last one
    moving = f"the images are others than those of the run in {output_dir}; keeping it would move"
    check_not_read(present, settings or {}, moving)
    numbers = itertools.count(1)
    kept = next(output_dir / RUNS / str(n) for n in numbers if not _is_kept(output_dir, n))
    # Where a call was interrupted, the models may be in the kept run already, and the record not.
    if not kept.exists() and not entries(output_dir, (*MODELS, FIRST_STAGE, CHECKPOINTS)):
        remove(present)
        return text
    kept.mkdir(parents=True, exist_ok=True)
    for path in present:
        path.rename(kept / path.name)
    return f"{text}; the earlier run is kept in {kept}"


def _is_kept(output_dir: Path, number: int) -> bool:
    return (output_dir / RUNS / str(number) / IMAGES).exists()


def describe_changes(before: Sequence[Image], after: Sequence[Image]) -> str:
    """What came, went and moved to another class, in a line."""
    old, new = (Counter((each.sha256, each.class_name) for each in i) for i in (before, after))
    came, went = _by_content(new - old), _by_content(old - new)
    moved = sum((came & went).values())
    text = f"images: +{sum(came.values()) - moved} -{sum(went.values()) - moved}, {moved} moved"
    classes = [{each.class_name for each in images} for images in (before, after)]
    for what, names in (("new", classes[1] - classes[0]), ("gone", classes[0] - classes[1])):
        if names:
            text += f"; {what} class{'es' if len(names) > 1 else ''} {', '.join(sorted(names))}"
    return text


def _describe_renamed(before: Sequence[Image], after: Sequence[Image]) -> str:
    """How many images have another name than in the run that goes on with them; "" for none."""
    old, new = (Counter((each.sha256, each.path) for each in i) for i in (before, after))
    renamed = sum((new - old).values())
    return f"images: +0 -0, {renamed} renamed; the run goes on with them" if renamed else ""


def _by_content(images: Mapping[tuple[str, str], int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for (content, _), number in images.items():
        counts[content] += number
    return counts


@dataclass(frozen=True)
class Comparison:
    """An earlier model and the new one on the same validation images.

    Attributes:
        earlier: the run of the earlier model.
        images: how many there are.
        all_known: whether these are all; else those of the classes that the earlier model knows.
        before, after: top-1 of both, 0..1.
        mended, broken: how many the new model alone has right, and the earlier one alone.
    """

    earlier: Path
    images: int
    all_known: bool
    before: float
    after: float
    mended: int
    broken: int

    def __str__(self) -> str:
        which = "" if self.all_known else " of the classes that both know"
        return (
            f"top-1 on the same {self.images} validation images{which}: {self.before:.2%} before "
            f"(the model in {self.earlier}), {self.after:.2%} now; {self.mended} mended, "
            f"{self.broken} broken"
        )


def compare(
    config: FinetuneConfig, images: ImageList, names: Sequence[str], evaluation: Evaluation
) -> Comparison | None:
    """Scores the last model that a directory keeps on the images that the new one was scored on.

    Args:
        config: of the new run.
        images: the validation list.
        names: of its classes.
        evaluation: of the new model.

    Returns:
        None if there is no earlier model, or none of its classes is among the images.
    """
    output_dir, machine = config.run.output_dir, config.machine
    runs = [each for each in numbered_runs(output_dir) if model_dir_of(each) != each]
    if not runs:
        return None
    predictor = Predictor(runs[-1], machine.device)
    known = predictor.info.names
    if known is None:
        known = [f"class {i}" for i in range(predictor.info.network.num_classes)]
    ids = {name: number for number, name in enumerate(known)}
    labels = np.array([ids.get(name, -1) for name in names])[images.labels]
    found = evaluation.predictions
    common = found.indices[labels[found.indices] >= 0]
    if not len(common):
        return None
    part = dataclasses.replace(
        images, starts=images.starts[common], ends=images.ends[common], labels=labels[common]
    )
    before = score_list(
        predictor, part, num_workers=machine.num_workers, max_pixels=machine.max_pixels
    ).predictions
    right_before = before.top[:, 0] == before.labels
    right_after = (found.top[:, 0] == found.labels)[labels[found.indices] >= 0]
    return Comparison(
        runs[-1],
        len(common),
        len(common) == len(found),
        float(right_before.mean()),
        float(right_after.mean()),
        int(np.sum(right_after & ~right_before)),
        int(np.sum(right_before & ~right_after)),
    )

"""Writes what a check found: a page with the images, and a row for each finding.

check.html    for a browser, with everything embedded; it needs no other file
check.csv     finding, image, label, other, proposed, certainty, text
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ..data.decode import read_image
from ..errors import ImageError
from ..evaluation.pages import environment
from ..evaluation.plots import printable
from ..files import write_text
from ..run_dir import CHECK_PAGE, CHECK_TABLE
from .check import CONFLICT, DUPLICATE, LABEL, ODD, UNREADABLE, Check
from .learning_curve import LearningCurve

_THUMBNAIL = 160  # pixels of the longer side
_SHOWN = 120  # images, or sets of them, of a section; check.csv has all


class Finding(NamedTuple):
    """A row of check.csv.

    Attributes:
        finding: `DUPLICATE`, `CONFLICT`, `LABEL`, `ODD` or `UNREADABLE`.
        image: the path as the list gives it.
        label: the name of its class.
        other: of a duplicate or conflict, the first image of the set.
        proposed: the class that the image looks like, where the label looks wrong.
        certainty: the probability that the label is wrong, 0 to 1.
        text: in what way.
    """

    finding: str
    image: str
    label: str
    other: str = ""
    proposed: str = ""
    certainty: str = ""
    text: str = ""


def findings(check: Check) -> Iterator[Finding]:
    """All that was found about images, one kind after the other."""
    images, labels = check.images, check.images.labels

    def row(finding: str, i: int, *more: str) -> Finding:
        return Finding(finding, images.name(i), check.name(labels[i]), *more)

    for i, problem in sorted(check.unreadable.items()):
        yield row(UNREADABLE, i, "", "", "", problem)
    for finding, sets in ((CONFLICT, check.conflicts), (DUPLICATE, check.repeated)):
        for each in sets:
            first, *others = each.tolist()
            if finding == CONFLICT:
                yield row(finding, first, "", "", "", "the first of the set")
            for i in others:
                yield row(finding, i, images.name(first), "", "", check.kind(i))
    for i in check.labels.suspects.tolist():
        proposed, wrong = check.name(check.labels.proposed[i]), check.labels.wrong[i]
        yield row(LABEL, i, "", proposed, f"{wrong:.4f}")
    for odd in check.odd:
        yield row(ODD, odd.image, "", "", "", odd.reason)


def facts_of(check: Check, pretrained: Path) -> dict[str, str]:
    """What was checked and how, as the page shows it."""
    images, pattern = check.images, check.group_pattern
    return {
        "images": str(images.source or images.root),
        "number": f"{len(images):,} images in {len(check.classes):,} classes",
        "features": f"of {pretrained}",
        **({} if pattern is None else {"groups": f"{pattern} in the path"}),
    }


def write_report(folder: Path, check: Check, facts: Mapping[str, str]) -> None:
    """Writes check.html and check.csv.

    Args:
        folder: where to; other files there stay.
        check: what was found.
        facts: of `facts_of`.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(Finding._fields)
    writer.writerows([printable(cell) for cell in each] for each in findings(check))
    write_text(folder / CHECK_TABLE, stream.getvalue())
    write_text(folder / CHECK_PAGE, _page(check, facts))


def _page(check: Check, facts: Mapping[str, str]) -> str:
    labels, suspects = check.labels, check.labels.suspects
    small = sorted(check.small.items(), key=lambda item: item[1])
    return (
        environment(Path(__file__).parent)
        .get_template(f"{CHECK_PAGE}.j2")
        .render(
            facts=facts,
            date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            count=len(check.images),
            lines=list(check.lines()),
            shown=_SHOWN,
            conflicts=_sets(check, check.conflicts),
            conflict_count=len(check.conflicts),
            suspects=[
                {
                    **_tile(check, i),
                    "proposed": check.name(labels.proposed[i]),
                    "certainty": float(labels.wrong[i]),
                }
                for i in suspects[:_SHOWN].tolist()
            ],
            suspect_count=len(suspects),
            error_rate=labels.error_rate,
            repeated=_sets(check, check.repeated),
            repeated_count=len(check.repeated),
            odd=[
                {**_tile(check, each.image), "reason": each.reason} for each in check.odd[:_SHOWN]
            ],
            odd_count=len(check.odd),
            alike=[(check.name(a.first), check.name(a.second), a.share) for a in check.alike],
            small=[(check.name(i), number) for i, number in small],
            curve=None if check.curve is None else _drawn(check.curve),
            unreadable=[check.unreadable[i] for i in sorted(check.unreadable)],
        )
    )


def _drawn(curve: LearningCurve) -> dict[str, Any]:
    """The learning curve in the coordinates of its picture, 640 x 320, and the labels of its axes.

    The images are on a logarithmic scale.
    """
    left, right, top, bottom = 48, 620, 12, 280
    many, values, low, high = curve.line.T
    lowest = float(np.floor(10 * min(curve.accuracy.min(), low.min())) / 10)
    highest = float(np.ceil(10 * max(curve.accuracy.max(), high.max())) / 10)
    start, end = np.log(many[0]), np.log(many[-1])

    def x(count: Any) -> Any:
        return left + (right - left) * (np.log(count) - start) / (end - start)

    def y(accuracy: Any) -> Any:
        return bottom - (bottom - top) * (accuracy - lowest) / (highest - lowest)

    def path(counts: np.ndarray, accuracies: np.ndarray) -> str:
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x(counts), y(accuracies)))

    both = np.concatenate([many, many[::-1]]), np.concatenate([low, high[::-1]])
    ticks = np.linspace(lowest, highest, round((highest - lowest) * 10) + 1)
    shown = [curve.counts[0], curve.counts[len(curve.counts) // 2], curve.counts[-1], many[-1]]
    return {
        "text": str(curve),
        "line": path(many, values),
        "band": path(*both),
        "points": [(f"{x(c):.1f}", f"{y(a):.1f}") for c, a in zip(curve.counts, curve.accuracy)],
        "now": f"{x(curve.counts[-1]):.1f}",
        "rows": [(f"{y(tick):.1f}", f"{tick:.0%}") for tick in ticks[:: 1 + len(ticks) // 6]],
        "columns": [(f"{x(c):.1f}", f"{round(c):,}") for c in shown],
    }


def _sets(check: Check, sets: Sequence[np.ndarray]) -> list[list[dict[str, Any]]]:
    """The tiles of each set of duplicates, of few enough images to be looked at."""
    result, left = [], _SHOWN
    for each in sets:
        if left <= 0:
            break
        part = each[:8].tolist()
        tiles = [{**_tile(check, i), "kind": check.kind(i)} for i in part]
        tiles[0]["kind"] = f"{len(each)} images"
        result.append(tiles)
        left -= len(part)
    return result


def _tile(check: Check, index: int) -> dict[str, Any]:
    return {
        "name": check.images.name(index),
        "label": check.name(check.images.labels[index]),
        "source": _thumbnail(check, index),
    }


def _thumbnail(check: Check, index: int) -> str:
    """A small JPEG as a data URI; "" if the image has gone."""
    try:
        image = read_image(check.images.path(index), check.max_pixels)
    except ImageError:
        return ""
    scale = min(1.0, _THUMBNAIL / max(image.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"

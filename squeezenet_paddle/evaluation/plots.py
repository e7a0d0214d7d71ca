"""Figures as PNG files, drawn with matplotlib's objects; pyplot would keep every figure in memory.

Text is drawn in any script that an installed font has, and cut with an ellipsis where it is too
long.
"""

from __future__ import annotations

import functools
import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from .metrics import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST_MATRIX = 2000  # classes; the cells of a larger matrix could not be told apart
# Families that have what DejaVu Sans lacks: East Asian scripts, Devanagari, Thai and others.
FALLBACK_FONTS = (
    *("Noto Sans", "Source Han Sans", "WenQuanYi", "Droid Sans Fallback", "Unifont"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "Nirmala UI", "Leelawadee UI"),
    *("PingFang", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
)
_NAMED = 150  # classes whose names have room beside a matrix
_COUNTED = 30  # up to so many classes, the cells of a matrix are as wide as their numbers
_LONGEST_NAME = 32  # columns of a name beside a matrix
_LETTER = 0.65 / 72  # width of a letter in inches, per point of its size
_WORDNET_ID = re.compile(r"n[0-9]{8}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TILE, _GAP, _LINE = 200, 16, 17  # pixels of a contact sheet
_GREEN, _RED, _GREY = "#1b6e2c", "#b3261e", "#5f6368"


class Tile(NamedTuple):
    """An image on a contact sheet.

    Attributes:
        image: uint8 [H, W, 3], BGR.
        predicted, label, name: the lines of text below it.
    """

    image: np.ndarray
    predicted: str
    label: str
    name: str


def save_confusion_matrix(path: Path, matrix: np.ndarray, names: Sequence[str]) -> None:
    """Draws a confusion matrix, int64 [C, C] with a row per label; C is at most `LARGEST_MATRIX`.

    The colour of a cell is its share of its row. Names and counts are written while they are
    legible; with more than 150 classes the axes have class ids.
    """
    with drawing():
        _save(confusion_figure(matrix, names), path, 150 if len(matrix) <= _NAMED else 100)


def save_reliability(path: Path, calibration: Calibration) -> None:
    """Draws a reliability diagram: accuracy over confidence, and the distribution of confidence."""
    with drawing():
        _save(_reliability_figure(calibration), path, 120)


def save_contact_sheet(path: Path, title: str, tiles: Sequence[Tile], columns: int = 6) -> None:
    """Draws images in a grid, each with its three lines of text."""
    with drawing():
        _save(_contact_sheet(title, tiles, columns), path, 100, tight=False)


@contextmanager
def drawing() -> Iterator[None]:
    """Draws independently of the user's matplotlib style, in every script that has a font here."""
    import matplotlib
    from matplotlib import style

    with style.context("default"), warnings.catch_warnings():
        matplotlib.rcParams["font.family"] = ["DejaVu Sans", *fallback_families()]
        # A character that no font here has is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph")
        yield


@functools.cache
def fallback_families() -> list[str]:
    """The installed families of `FALLBACK_FONTS`, in that order."""
    from matplotlib import font_manager

    # matplotlib keeps its list of fonts in a file, which lacks those installed since.
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        with suppress(Exception):  # a damaged font
            font_manager.fontManager.addfont(path)
    names = sorted({f.name for f in font_manager.fontManager.ttflist if "Mono" not in f.name})
    return [name for start in FALLBACK_FONTS for name in names if name.startswith(start)]


def _save(figure: Figure, target: Path | io.BytesIO, dpi: int, tight: bool = True) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    extra: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.15} if tight else {}
    figure.savefig(target, format="png", dpi=dpi, metadata={"Software": None}, **extra)


def confusion_figure(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """The figure of `save_confusion_matrix`; the axes fill it, names and labels lie outside."""
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    classes, digits = len(matrix), len(str(matrix.max()))
    if classes <= _COUNTED:  # inches, and points
        cell, font = max(0.32, 0.09 * digits + 0.1, 2.4 / classes), 9.0
    elif classes <= _NAMED:
        cell, font = 0.17, 7.0
    else:
        cell, font = max(0.02, 15 / classes), 13.0
    side = cell * classes
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0, 0, 1, 1))  # the room around it is added when it is saved
    axes.set_axisbelow(True)
    axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5))
    axes.set_xlabel("predicted", size=max(font, 10.0))
    axes.set_ylabel("label", size=max(font, 10.0))

    support = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, support, out=np.zeros(matrix.shape), where=support > 0)
    rows, columns = np.nonzero(matrix)
    order = np.argsort(shares[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    if classes > _NAMED:  # cells are too small to see: the fewer, the larger the squares
        cell = max(cell, min(0.08, 0.3 * side / len(rows) ** 0.5))
        axes.tick_params(labelsize=font)
        axes.locator_params(nbins=20, integer=True)
        axes.grid(color="#eeeeee", linewidth=0.5)
    else:
        _write_names(axes, names, cell, font)
        size = 9.0 if classes <= _COUNTED else 5.5
        if digits * _LETTER * size < cell:
            _write_counts(axes, matrix, shares, size)
    # The palest blue still differs from white: one error in a thousand images is visible.
    blues = matplotlib.colormaps["Blues"](np.linspace(0.2, 1, 256))
    squares = axes.scatter(
        *(columns, rows, (cell * 72) ** 2, shares[rows, columns]),
        cmap=LinearSegmentedColormap.from_list("blues", blues),
        marker="s",
        linewidths=0,
        vmin=0,
        vmax=1,
    )
    bar = figure.add_axes((1 + 0.15 / side, 0, max(0.15, side / 60) / side, 1))
    figure.colorbar(squares, cax=bar).set_label("share of the label's images", size=max(font, 9.0))
    bar.tick_params(labelsize=max(font, 9.0))
    return figure


def _write_names(axes: Axes, names: Sequence[str], cell: float, size: float) -> None:
    """Writes names beside rows and columns, which are `cell` inches wide, and draws a grid."""
    classes = len(names)
    shown = [fitted(short_name(name), _LONGEST_NAME, columns_of) for name in names]
    text: dict[str, Any] = {"size": size, "parse_math": False}
    widest = max(map(columns_of, shown)) * _LETTER * size
    rotation = 0 if widest < cell else 90
    axes.set_xticks(range(classes), shown, rotation=rotation, **text)
    axes.set_yticks(range(classes), shown, **text)
    between = np.arange(classes - 1) + 0.5
    for lines in (axes.hlines, axes.vlines):
        lines(between, -0.5, classes - 0.5, color="#e0e0e0", linewidth=0.5, zorder=0)


def _write_counts(axes: Axes, matrix: np.ndarray, shares: np.ndarray, size: float) -> None:
    for row, column in np.argwhere(matrix).tolist():
        axes.text(
            column,
            row,
            str(matrix[row, column]),
            size=size,
            color="white" if shares[row, column] > 0.5 else "black",
            ha="center",
            va="center",
            in_layout=False,  # measuring them all would be slow and change nothing
        )


def _reliability_figure(calibration: Calibration) -> Figure:
    from matplotlib.figure import Figure

    bins = len(calibration.counts)
    edges = np.arange(bins) / bins
    figure = Figure(figsize=(6, 7))
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    accuracy = np.nan_to_num(calibration.accuracy)
    above.bar(edges, accuracy, 1 / bins, align="edge", color="#4c78a8", edgecolor="white")
    filled = calibration.counts > 0
    above.plot([0, 1], [0, 1], "--", color=_GREY, label="perfect calibration")
    points = calibration.confidence[filled], calibration.accuracy[filled]
    label = "mean confidence of the bin"
    above.plot(*points, "o", color=_RED, label=label, clip_on=False)
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    above.set_title(f"expected calibration error {calibration.error:.4f}", pad=30)
    above.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    share = calibration.counts / calibration.counts.sum()
    below.bar(edges, share, 1 / bins, align="edge", color="#9ecae9", edgecolor="white")
    below.set(xlabel="confidence: the probability of the predicted class", ylabel="share of images")
    figure.align_ylabels()
    return figure


def _contact_sheet(title: str, tiles: Sequence[Tile], columns: int) -> Figure:
    from matplotlib.figure import Figure

    columns = min(columns, max(len(tiles), 3))  # the title needs room, too
    lines = (("predicted", _RED), ("label", _GREEN), ("name", _GREY))
    rows = -(-len(tiles) // columns)
    cell = _TILE + _GAP + _LINE * len(lines) + 6
    width, top = columns * (_TILE + _GAP) + _GAP, 2 * _LINE + _GAP
    height = top + rows * cell
    sheet = np.full((height, width, 3), 255, "uint8")
    figure = Figure(figsize=(width / 100, height / 100))

    def write(
        text: str, x: int, y: int, room: int, color: str, size: float, keep_end: bool = False
    ) -> None:
        text = fitted(text, room, functools.partial(_pixels, size=size), keep_end)
        figure.text(x / width, 1 - y / height, text, color=color, parse_math=False, size=size)

    write(title, _GAP, 2 * _LINE, width - 2 * _GAP, "black", 10)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        x, y = _GAP + column * (_TILE + _GAP), top + row * cell
        image = resized(tile.image, _TILE)
        h, w = image.shape[:2]
        down, right = y + (_TILE - h) // 2, x + (_TILE - w) // 2
        sheet[down : down + h, right : right + w] = image[:, :, ::-1]
        for line, (field, color) in enumerate(lines, 1):
            bottom = y + _TILE + line * _LINE
            # The end of a path says most.
            write(getattr(tile, field), x, bottom, _TILE, color, 8, keep_end=field == "name")
    figure.figimage(sheet)
    return figure


def captioned(images: Sequence[np.ndarray], caption: str) -> bytes:
    """A PNG file: uint8 BGR images of one height side by side, with a line of text below."""
    from matplotlib.figure import Figure

    gap = np.full((len(images[0]), _GAP // 2, 3), 255, "uint8")
    row = np.concatenate([part for image in images for part in (image, gap)][:-1], axis=1)
    height, width = len(row) + 2 * _LINE, row.shape[1]
    with drawing():
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        text = fitted(caption, width, functools.partial(_pixels, size=10))
        figure.text(0, 0.5 * _LINE / height, text, size=10, parse_math=False)
        figure.figimage(row[:, :, ::-1], 0, 2 * _LINE)
        stream = io.BytesIO()
        _save(figure, stream, 100, tight=False)
    return stream.getvalue()


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """`image` with a longer side of `side` pixels and its aspect ratio."""
    scale = side / max(image.shape[:2])
    height, width = (max(1, round(n * scale)) for n in image.shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=interpolation)


def printable(text: str) -> str:
    """`text` without control characters; bytes of a file name that are not UTF-8 become \\x.."""
    safe = text.encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(" ", safe)


def short_name(name: str) -> str:
    """A class name for people: "tabby" of "n02123045 tabby" or "tabby tabby".

    Lists of names begin with an id, a WordNet id in ILSVRC's, or with the name once more.
    """
    first, _, rest = name.partition(" ")
    return rest if rest and (rest == first or _WORDNET_ID.fullmatch(first)) else name


def fitted(text: str, room: float, width: Callable[[str], float], keep_end: bool = False) -> str:
    """As much of `text` as is at most `room` wide, with an ellipsis where it is cut."""
    text = printable(text)
    if width(text) <= room:
        return text
    longest = int(room)  # a character is at least a pixel, or a column, wide
    text = text[-longest:] if keep_end else text[:longest]
    while width(shown := f"…{text.lstrip()}" if keep_end else f"{text.rstrip()}…") > room and text:
        text = text[1:] if keep_end else text[:-1]
    return shown


def columns_of(text: str) -> int:
    """Width in columns of a terminal; East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pixels(text: str, size: float) -> float:
    """Width of a line of text at 100 dots per inch, in the fonts of `drawing`."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=size)
    return _renderer().get_text_width_height_descent(text, font, ismath=False)[0]


@functools.cache
def _renderer() -> Any:
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, 100)

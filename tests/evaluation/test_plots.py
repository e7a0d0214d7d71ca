"""The figures as pixels: what is drawn where, and that nothing overlaps or is cut off."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg

from squeezenet_paddle.evaluation import plots
from squeezenet_paddle.evaluation.metrics import calibration
from squeezenet_paddle.evaluation.plots import Tile

ODD_NAMES = [
    "n02123045 tabby, tabby cat",
    "cost $5 and $6",
    r"a_b^c $\no_such{$",
    "no font has \U0010fffd",
    "größe кошка γάτα",
    "猫 日本語",
    "tab\tand\x00nul",
    "a name that is far too long to stand beside a matrix, or anywhere",
    "broken \udcff name",
    " ",
    "=1+1",
]


def matrix_of(classes: int, errors: int = 3) -> np.ndarray:
    """A diagonal of 9, class 1 without images, and `errors` single errors a row."""
    rng = np.random.default_rng(classes)
    matrix = 9 * np.eye(classes, dtype="int64")
    for row in range(classes):
        matrix[row, rng.integers(0, classes, errors)] += 1
    matrix[1] = 0
    return matrix


def rendered(figure) -> np.ndarray:
    """uint8 [H, W, 3], R, G, B, of the figure as it stands, without room around it."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3]


def ink_of_cells(matrix: np.ndarray) -> np.ndarray:
    """How far the middle of each cell is from white, 0..765; the axes fill the figure."""
    classes = len(matrix)
    with plots.drawing():
        figure = plots.confusion_figure(matrix, [str(i) for i in range(classes)])
        figure.set_dpi(150 if classes <= 150 else 100)
        pixels = rendered(figure).astype(int)
    middles = ((np.arange(classes) + 0.5) * len(pixels) / classes).astype(int)
    return 255 * 3 - pixels[middles][:, middles].sum(axis=2)


@pytest.mark.parametrize("classes", [2, 10, 100, 1000])
def test_every_cell_of_a_matrix_shows_whether_it_is_empty(classes: int) -> None:
    matrix = matrix_of(classes, errors=1)
    ink, filled = ink_of_cells(matrix), matrix > 0
    assert (ink[filled] > 60).all()
    empty = ~filled
    if classes == 1000:  # where a square is larger than a cell, and the frame hides the first ones
        near, far = (cv2.dilate(filled.astype("uint8"), np.ones((n, n))) for n in (3, 5))
        assert (ink[near > 0] > 60).all()
        empty = far == 0
        empty[[0, -1]] = empty[:, [0, -1]] = False
    assert empty.any()
    assert (ink[empty] < 60).all()  # grid lines are lighter


def test_a_larger_share_of_its_row_is_darker() -> None:
    matrix = np.zeros((200, 200), "int64")
    matrix[100, [20, 60, 100, 140]] = [1, 30, 60, 900]
    matrix[50, 100] = 3  # all of its row
    ink = ink_of_cells(matrix)
    one, thirty, sixty, most = ink[100, [20, 60, 100, 140]]
    assert 60 < one < thirty < sixty < most < ink[50, 100]


@pytest.mark.parametrize("classes", [2, 10, 31, 100])
def test_names_beside_a_matrix_do_not_overlap(classes: int) -> None:
    names = [f"{i} {ODD_NAMES[i % len(ODD_NAMES)]}" for i in range(classes)]
    with plots.drawing():
        figure = plots.confusion_figure(matrix_of(classes), names)
        figure.set_dpi(150)
        rendered(figure)
        axes = figure.axes[0]
        x = [label.get_window_extent() for label in axes.get_xticklabels()]
        y = [label.get_window_extent() for label in axes.get_yticklabels()]
        numbers = [text.get_window_extent() for text in axes.texts]
    assert len(x) == len(y) == classes
    assert all(a.x1 <= b.x0 for a, b in zip(x, x[1:]))
    assert all(a.y0 >= b.y1 for a, b in zip(y, y[1:]))
    assert len(numbers) == (matrix_of(classes) > 0).sum()
    cell = axes.get_window_extent().width / classes
    assert all(box.width < cell and box.height < cell for box in numbers)


@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
def test_nothing_is_cut_off(classes: int, tmp_path: Path) -> None:
    names = [ODD_NAMES[i % len(ODD_NAMES)] for i in range(classes)]
    matrix = matrix_of(classes) if classes > 1 else np.array([[7]])
    plots.save_confusion_matrix(tmp_path / "matrix.png", matrix, names)
    confidence = np.random.default_rng(0).uniform(0, 1, 500)
    plots.save_reliability(tmp_path / "plot.png", calibration(confidence, confidence > 0.5))
    tiles = [Tile(np.zeros((9, 9, 3), "uint8"), name, name, name) for name in names[:10]]
    plots.save_contact_sheet(tmp_path / "sheet.png", "A title " * 99, tiles)
    for file in tmp_path.iterdir():
        image = cv2.imread(str(file))
        assert (image < 128).any(), file
        for edge in (image[:4], image[-4:], image[:, :4], image[:, -4:]):
            assert (edge == 255).all(), file


def test_odd_names_are_drawn_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.save_confusion_matrix(tmp_path / "matrix.png", matrix_of(10), ODD_NAMES)
        tile = Tile(np.zeros((5, 5, 3), "uint8"), *ODD_NAMES[4:7])
        plots.save_contact_sheet(tmp_path / "sheet.png", ODD_NAMES[7], [tile])
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_a_contact_sheet_shows_every_image_in_its_proportions(tmp_path: Path) -> None:
    colors = [(0, 0, 255), (0, 255, 0), (255, 0, 0), (0, 255, 255)]
    shapes = [(40, 20), (30, 30), (600, 900), (1, 500)]
    tiles = [
        Tile(np.full((*shape, 3), color, "uint8"), "predicted", "label", "name")
        for shape, color in zip(shapes, colors)
    ]
    plots.save_contact_sheet(tmp_path / "sheet.png", "title", tiles, columns=3)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    boxes = []
    for color in colors:
        rows, columns = np.nonzero((sheet == color).all(axis=2))
        boxes.append((rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1))
    assert [box[2:] for box in boxes] == [(200, 100), (200, 200), (133, 200), (1, 200)]
    tops, lefts = [box[0] for box in boxes], [box[1] for box in boxes]
    assert lefts[0] < lefts[1] < lefts[2]
    assert tops[3] > tops[0] + 200  # in the second row
    assert lefts[3] < lefts[0]  # which is narrower than its place


def font_with(character: str, family: str, path: Path) -> None:
    """Writes a font that has one character, a triangle."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    pen.lineTo((900, 0))
    pen.lineTo((500, 800))
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "triangle"])
    builder.setupCharacterMap({ord(character): "triangle"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "triangle": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "triangle": (1000, 100)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


def drawn(text: str) -> np.ndarray:
    return cv2.imdecode(
        np.frombuffer(plots.captioned([np.zeros((9, 300, 3), "uint8")], text), "uint8"), 0
    )


def test_a_script_is_drawn_once_a_font_for_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if matplotlib's own list of fonts is older than the font."""
    plots.fallback_families.cache_clear()
    character = "\U000f1234"  # of no installed font
    box, plain = drawn(character), drawn("plain größe кошка")
    font_with(character, "Noto Sans Test", tmp_path / "test.ttf")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "test.ttf")])
    fonts = list(font_manager.fontManager.ttflist)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    plots.fallback_families.cache_clear()
    assert "Noto Sans Test" in plots.fallback_families()
    assert (drawn("plain größe кошка") == plain).all()
    ink = drawn(character)[9:] < 128
    assert (ink != (box[9:] < 128)).any()
    widths = ink.sum(axis=1)[ink.any(axis=1)]
    assert len(widths) > 5
    assert (np.diff(widths) >= 0).all()  # wider from the top down
    plots.fallback_families.cache_clear()


def test_no_font_is_asked_for_that_is_not_installed(caplog: pytest.LogCaptureFixture) -> None:
    with plots.drawing():
        for family in plots.fallback_families():
            font_manager.findfont(family, fallback_to_default=False)
    assert caplog.messages == []


def test_a_long_path_keeps_its_end() -> None:
    assert plots.fitted("a/long/path/to a cat.jpg", 11, len, keep_end=True) == "…a cat.jpg"
    assert plots.fitted("cat.jpg", 7, len, keep_end=True) == "cat.jpg"
    assert plots.fitted("cat.jpg", 1, len, keep_end=True) == "…"


@given(st.text(max_size=40), st.integers(2, 30))
def test_a_shortened_name_fits_and_begins_as_the_name(name: str, room: int) -> None:
    short = plots.fitted(name, room, plots.columns_of)
    assert plots.columns_of(short) <= room
    whole = plots.printable(name)
    if short != whole:
        assert short.endswith("…")
        assert whole.startswith(short[:-1])
        assert plots.columns_of(whole) > room


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("n02123045 tabby, tabby cat", "tabby, tabby cat"),
        ("apple apple", "apple"),
        ("golden retriever", "golden retriever"),
        ("n02123045", "n02123045"),
        ("n01 red thing", "n01 red thing"),
        ("cat", "cat"),
    ],
)
def test_short_names(name: str, short: str) -> None:
    assert plots.short_name(name) == short

"""Text in many scripts, with a font made for the purpose where DejaVu Sans has no glyph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from squeezenet_paddle import fonts
from squeezenet_paddle.fonts import draw_text, font_file

DOG = "狗"
NOBODYS = "\U0010fffd"  # a character of private use


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The one font of a system, beside a damaged one: for DOG it has a full square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square, empty = pen.glyph(), TTGlyphPen(None).glyph()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "dog"])
    builder.setupCharacterMap({ord(DOG): "dog"})
    builder.setupGlyf({".notdef": empty, "dog": square})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "dog": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Square", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path, damaged = tmp_path / "Square-Regular.ttf", tmp_path / "Sans-Regular.ttf"
    builder.save(path)
    damaged.write_bytes(path.read_bytes()[:100])
    files = [str(path), str(damaged)]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: files)
    caches = (fonts.font_file, fonts._installed)
    for cache in caches:
        cache.cache_clear()
    yield path
    for cache in caches:
        cache.cache_clear()


def drawn(text: str) -> np.ndarray:
    image = np.full((20, 100, 3), 255, "uint8")
    draw_text(image, text, left=2, baseline=15, size=12)
    return image


def test_latin_greek_and_cyrillic_letters_are_drawn_everywhere(installed: Path) -> None:
    letters = "aéØőŁΩλЖя"
    images = [drawn(letter) for letter in (*letters, NOBODYS)]
    assert all((image < 128).any() for image in images)
    assert len({image.tobytes() for image in images}) == len(letters) + 1
    assert np.array_equal(drawn("e\u0301"), drawn("é"))
    assert {Path(font_file(letter)).name for letter in letters} == {"DejaVuSans.ttf"}


def test_another_character_comes_from_a_font_that_has_it(installed: Path) -> None:
    assert font_file(DOG) == str(installed)
    image = drawn(DOG)
    assert (image[3:15, 2:14] == 0).all()  # the square of 12 pixels, from the baseline up
    image[3:15, 2:14] = 255
    assert (image == 255).all()


def test_a_text_of_two_fonts_goes_on_where_the_first_ends(installed: Path) -> None:
    black = (drawn(f"{DOG}{DOG}a") < 128).all(axis=2)
    assert black[3:15, 2:26].all()
    assert black[:, 26:36].any()


def test_what_does_not_fit_is_cut_off(installed: Path) -> None:
    image = np.full((20, 10, 3), 255, "uint8")
    draw_text(image, "a long word", left=2, baseline=15, size=12)
    assert (image < 128).any()

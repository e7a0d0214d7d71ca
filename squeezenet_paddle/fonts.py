"""Text on images, in every script that DejaVu Sans or an installed font has."""

from __future__ import annotations

import functools
import itertools
import logging
import unicodedata
from pathlib import Path

import numpy as np


def draw_text(image: np.ndarray, text: str, left: int, baseline: int, size: int) -> None:
    """Writes black text into an image; what does not fit is cut off.

    Args:
        image: uint8 [H, W, 3], changed in place.
        text: each character is taken from the first font that has it. Scripts whose letters change
            with their neighbours, such as Arabic, come out letter by letter.
        left, baseline: where it begins, in pixels.
        size: of the font, in pixels.
    """
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    x = float(left)
    for path, characters in itertools.groupby(unicodedata.normalize("NFC", text), font_file):
        part, font = "".join(characters), ImageFont.truetype(path, size)
        draw.text((x, baseline), part, "black", font, anchor="ls")
        x += font.getlength(part)
    image[:] = np.asarray(canvas)


@functools.cache
def font_file(character: str) -> str:
    """The font that draws a character; DejaVu Sans, which draws a box, if no font has it."""
    if ord(character) in _characters(_dejavu()):
        return _dejavu()
    return next((f for f in _installed() if ord(character) in _characters(f)), _dejavu())


@functools.cache
def _dejavu() -> str:
    import matplotlib  # brings it along

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@functools.cache
def _installed() -> list[str]:
    """All installed fonts, upright ones without serifs first.

    Looks for the files: matplotlib's own list is cached and lacks what was installed since.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # not that it builds that list
    from matplotlib.font_manager import findSystemFonts

    def preference(path: str) -> tuple[bool, bool, str]:
        name = Path(path).name.lower()
        return "sans" not in name, "regular" not in name, path

    return sorted(findSystemFonts(), key=preference)


@functools.cache
def _characters(path: str) -> frozenset[int]:
    """The code points in a font; none if it cannot be read or has but bitmaps."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):
        return frozenset()
    is_last_resort = "lastresort" in Path(path).name.lower()  # boxes for all characters
    return frozenset(font.get_charmap()) if font.scalable and not is_last_resort else frozenset()

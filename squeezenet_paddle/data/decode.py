"""Decodes an image file to pixels as a viewer shows them. No Paddle here.

OpenCV decodes JPEG and PNG, for speed. Pillow decodes the rest, whose orientation and transparency
OpenCV's versions treat differently; HEIC with the help of pillow-heif.
"""

from __future__ import annotations

import importlib.util
import io
import struct
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from ..errors import ImageError
from ..file_kinds import START, image_kind
from .remarks import as_remarks

MAX_PIXELS = 100_000_000

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_OTHER_FORMATS = ("GIF", "WEBP", "BMP", "TIFF")
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, RuntimeError, Image.DecompressionBombError)
_FORMATS = {"AVIF": ("AVIF",), "HEIC": ("HEIF",)}  # Pillow's names


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads and decodes an image file; see `decode`."""
    return decode(read_file(path), str(path), max_pixels)


def read_file(path: str | Path) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageError: it cannot be read.
    """
    path = Path(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot read this image ({error.strerror}).") from error
    except ValueError as error:  # a NUL in the name
        raise ImageError(f"{path}: cannot read this image ({error}).") from error


@cache
def missing_decoder(kind: str | None) -> str | None:
    """What to install to decode images of this `image_kind`; None if nothing is missing."""
    if kind == "AVIF" and not ("avif" in features.modules and features.check("avif")):
        return "pip install 'pillow>=11.3'"
    if kind == "HEIC" and importlib.util.find_spec("pillow_heif") is None:
        return "pip install 'squeezenet_paddle[heic]'"
    return None


def decode(
    data: bytes, name: str, max_pixels: int = MAX_PIXELS, *, reduced: bool = False
) -> np.ndarray:
    """Decodes a JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF or HEIC file as a viewer shows it.

    The format is found from the content, not the name. The EXIF orientation is applied,
    transparency dropped, grey, palettes and CMYK become colour, 16 bits become 8, and of an
    animation the first frame is taken. A JPEG file with damaged bytes in the middle decodes to an
    image with a damaged region, as the format gives a decoder no way to notice. What decoders
    print goes to the logger of `remarks`.

    Args:
        data: the whole file.
        name: of the image, for errors and remarks.
        max_pixels: a larger image is refused before memory is allocated for it.
        reduced: an eighth of the size will do, which takes half of the time for a JPEG file.

    Returns:
        uint8 [H, W, 3] in BGR.

    Raises:
        ImageError: it is not such a file, is cut off or damaged, or is too large; or a library
            that decodes it is not installed.
    """
    with as_remarks(name):
        width, height = _header_size(data, name)
        if width * height > max_pixels:
            raise ImageError(
                f"{name}: an image of {width}x{height} pixels is over the limit of {max_pixels:,}."
            )
        by_opencv = data.startswith((_JPEG, _PNG))
        image = _decode_opencv(data, reduced) if by_opencv else _decode_pillow(data, name)
    if image is None:
        raise ImageError(f"{name}: the image is cut off or damaged and cannot be decoded.")
    return image


def _decode_opencv(data: bytes, reduced: bool) -> np.ndarray | None:
    flags = cv2.IMREAD_COLOR
    if reduced and data.startswith(_JPEG):
        flags = cv2.IMREAD_REDUCED_COLOR_8
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _decode_pillow(data: bytes, name: str) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(data), formats=_pillow_formats(data)) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I;16"):  # Pillow would cut these values, not scale them
                grey = (np.asarray(image) >> 8).astype("uint8")
                return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
            if image.mode in ("I", "F"):  # which have no range to scale from
                raise ImageError(f"{name}: a TIFF file of 32-bit values is not read.")
            return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
    except ImageError:
        raise
    except _DAMAGED:
        return None


def _pillow_formats(data: bytes) -> tuple[str, ...]:
    """The formats that the file may have, by Pillow's names."""
    kind = image_kind(data[:START])
    if kind == "HEIC":
        _register_heif()
    return _FORMATS.get(kind or "", _OTHER_FORMATS)


@cache
def _register_heif() -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()


def _header_size(data: bytes, name: str) -> tuple[int, int]:
    """(width, height) that the header claims; JPEG and PNG are read here for speed."""
    damaged = ImageError(f"{name}: the image is cut off or damaged and cannot be decoded.")
    if data.startswith(_JPEG):
        size = _jpeg_size(data)
        if size is None:
            raise damaged
        return size
    if data.startswith(_PNG):
        size = _png_size(data)
        if size is None:
            raise damaged
        return size
    kind = image_kind(data[:START])
    if missing := missing_decoder(kind):
        raise ImageError(f"{name}: this {kind} image can be read after {missing}.")
    try:
        with Image.open(io.BytesIO(data), formats=_pillow_formats(data)) as image:
            return image.size
    except UnidentifiedImageError:
        if kind in _FORMATS:
            raise damaged from None
        raise ImageError(
            f"{name}: not an image; a JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF or HEIC file was "
            f"expected, found {_content(data)}."
        ) from None
    except Image.DecompressionBombError as error:  # above Pillow's own limit, which is fixed
        raise ImageError(f"{name}: over Pillow's own limit: {error}") from None
    except (OSError, ValueError, SyntaxError, struct.error):
        raise damaged from None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Finds the frame header (ITU-T T.81, B.2.2) by walking the marker segments."""
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) <= len(data) - 9:  # stray bytes are passed over
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a segment
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Reads IHDR; None if it is not first, or if a chunk claims more than the file holds.

    OpenCV takes memory for what a chunk claims.
    """
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    at, kind = len(_PNG), b""
    while kind != b"IEND":  # length, type, that many bytes, and a checksum
        kind = data[at + 4 : at + 8]
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if at > len(data):
            return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _content(data: bytes) -> str:
    if not data:
        return "an empty file"
    start = data[:64].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "an HTML page"
    return f"{len(data):,} bytes that start with {data[:8].hex(' ')}"

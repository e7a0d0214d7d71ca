"""Decodes an image file to pixels as a viewer shows them. No Paddle here.

OpenCV decodes JPEG and PNG, for speed. Pillow decodes the rest, whose orientation and transparency
OpenCV's versions treat differently; HEIC with the help of pillow-heif.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError, features

from ..errors import ImageError, InputError, RunError
from ..file_kinds import START, image_kind
from ..files import read_regular
from .headers import JPEG, PNG, Header, read_jpeg_header, read_png_header, without_animation
from .remarks import as_remarks

MAX_PIXELS = 100_000_000

MAX_BYTES = 500_000_000  # of a file

# Of memory, a pixel takes at most 13 bytes while it is decoded, but 17 in these formats, whose
# libraries keep copies of their own; so 1.5 GB do for all.
_COSTLY, _SHARE = ("WebP", "AVIF", "HEIC"), 0.75
_BYTES_A_PIXEL = 13
_STRIP = 256  # rows
_EXIF_ORIENTATION = 0x0112  # the tag of EXIF
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_OTHER_FORMATS = ("GIF", "WEBP", "BMP", "TIFF")
_FORMATS = {"AVIF": ("AVIF",), "HEIC": ("HEIF",)}  # Pillow's names


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads and decodes an image file; see `decode`."""
    return decode(read_file(path), str(path), max_pixels)


def read_file(path: str | Path) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageError: it cannot be read, is no regular file or too large.
    """
    try:
        return read_regular(Path(path), "image", MAX_BYTES)
    except InputError as error:
        raise ImageError(str(error)) from error


@cache
def missing_decoder(kind: str | None) -> str | None:
    """What to install to decode images of this `image_kind`; None if nothing is missing."""
    if kind == "AVIF" and not ("avif" in features.modules and features.check("avif")):
        return "pip install 'pillow>=11.3'"
    if kind == "HEIC" and importlib.util.find_spec("pillow_heif") is None:
        return "pip install 'squeezenet_paddle[heic]'"
    return None


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS, *, reduced: int = 1) -> np.ndarray:
    """Decodes a JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF or HEIC file as a viewer shows it.

    The format is found from the content, not the name. The orientation is applied: that of EXIF or,
    where it has none, of XMP, as Pillow does. Transparency is dropped; grey, palettes and CMYK
    become colour, and 16 bits become 8. Of an animation the first frame is taken; of an animated
    PNG file the image that programs without animation show. A JPEG file with damaged bytes in the
    middle decodes to an image with a damaged region, as the format gives a decoder no way to
    notice. What decoders print goes to the logger of `remarks`.

    Args:
        data: the whole file.
        name: of the image, for errors and remarks.
        max_pixels: a larger image is refused before memory is allocated for it; WebP, AVIF and HEIC
            already beyond three quarters of that, as they take more memory.
        reduced: 2, 4 or 8 where that part of the width and of the height will do; a JPEG file is
            decoded in half of the time then, other files as they are.

    Returns:
        uint8 [H, W, 3] in BGR.

    Raises:
        ImageError: it is not such a file, is cut off or damaged, or is too large; or a library
            that decodes it is not installed.
        RunError: the memory does not suffice.
    """
    with as_remarks(name), memory_errors_named(name):
        header = _header(data, name)
        _check_size(header, image_kind(data[:START]), max_pixels, name)
        try:
            if data.startswith((JPEG, PNG)):
                image = _decode_opencv(data, header, reduced if data.startswith(JPEG) else 1)
            else:
                image = _decode_pillow(data, name)
        except MemoryError:  # or a length in a damaged file
            image = None
        if image is None:  # few decoders say that it was for lack of memory
            np.empty(header.width * header.height * _BYTES_A_PIXEL, np.uint8)
            raise ImageError(f"{name}: the image is cut off or damaged and cannot be decoded.")
    return image


def _check_size(header: Header, kind: str | None, max_pixels: int, name: str) -> None:
    limit, what = max_pixels, "an image"
    if kind in _COSTLY:
        limit, what = int(max_pixels * _SHARE), f"a {kind} image"
    if header.width * header.height > limit:
        raise ImageError(
            f"{name}: {what} of {header.width}x{header.height} pixels is over the limit of "
            f"{limit:,}."
        )


@contextlib.contextmanager
def memory_errors_named(name: str) -> Iterator[None]:
    """Makes a lack of memory, while image `name` is worked on, an error that names it.

    Raises:
        RunError: the memory did not suffice.
    """
    try:
        yield
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        raise RunError(
            f"{name}: the memory does not suffice for this image; fewer `num_workers` need less."
        ) from None


def _decode_opencv(data: bytes, header: Header, reduced: int) -> np.ndarray | None:
    flags = _REDUCED[reduced]
    is_turned_by_xmp = header.xmp_orientation not in (None, 1)
    if is_turned_by_xmp:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    if data.startswith(PNG):
        data = without_animation(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    if image is None:
        return None
    stored = sorted(-(-side // reduced) for side in (header.width, header.height))
    if sorted(image.shape[:2]) != stored:  # the decoder has found another image
        return None
    return _upright(image, _orientation(data, header)) if is_turned_by_xmp else image


def _orientation(data: bytes, header: Header) -> int:
    """The orientation of a JPEG or PNG file with one in XMP; that of EXIF comes first."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as file:
            return file.getexif().get(_EXIF_ORIENTATION, header.xmp_orientation)
    except MemoryError:
        raise
    except Exception:  # of many kinds, if the file is damaged
        return 1


def _decode_pillow(data: bytes, name: str) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(data), formats=_pillow_formats(data)) as file:
            orientation = file.getexif().get(_EXIF_ORIENTATION)
            file.load()
            if file.mode in ("I", "F"):  # which have no range to scale from
                raise ImageError(f"{name}: a TIFF file of 32-bit values is not read.")
            if file.getexif().get(_EXIF_ORIENTATION) != orientation:  # Pillow turns a TIFF file
                orientation = 1
            return _upright(_pixels(file), orientation)
    except (ImageError, MemoryError):
        raise
    except Exception:  # a damaged file makes Pillow raise errors of many kinds
        return None


def _pixels(image: Image.Image) -> np.ndarray:
    """The pixels of a decoded image, BGR; strip by strip, as Pillow's copies take memory."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP):
        bottom = min(top + _STRIP, height)
        strip, out = image.crop((0, top, width, bottom)), pixels[top:bottom]
        if strip.mode.startswith("I;16"):  # Pillow would cut these values, not scale them
            out[:] = (np.asarray(strip) >> 8)[:, :, None]
        else:
            out[:] = np.asarray(strip.convert("RGB"))[:, :, ::-1]
    return pixels


def _upright(image: np.ndarray, orientation: object) -> np.ndarray:
    """Turns an image that is stored in an orientation of EXIF, 1 to 8, so that it stands."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


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


def _header(data: bytes, name: str) -> Header:
    """What the header claims; those of JPEG and PNG are read by `headers`, for speed."""
    damaged = ImageError(f"{name}: the image is cut off or damaged and cannot be decoded.")
    if data.startswith((JPEG, PNG)):
        header = (read_jpeg_header if data.startswith(JPEG) else read_png_header)(data)
        if header is None:
            raise damaged
        return header
    kind = image_kind(data[:START])
    if missing := missing_decoder(kind):
        raise ImageError(f"{name}: this {kind} image can be read after {missing}.")
    try:
        with Image.open(io.BytesIO(data), formats=_pillow_formats(data)) as image:
            return Header(*image.size)
    except UnidentifiedImageError:
        if kind in _FORMATS:
            raise damaged from None
        raise ImageError(
            f"{name}: not an image; a JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF or HEIC file was "
            f"expected, found {_content(data)}."
        ) from None
    except Image.DecompressionBombError as error:  # above Pillow's own limit, which is fixed
        raise ImageError(f"{name}: over Pillow's own limit: {error}") from None
    except MemoryError:
        raise
    except Exception:  # of many kinds
        raise damaged from None


def _content(data: bytes) -> str:
    if not data:
        return "an empty file"
    start = data[:64].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "an HTML page"
    return f"{len(data):,} bytes that start with {data[:8].hex(' ')}"

"""From an image file to the network's input. Decoding and geometry are OpenCV's; no Paddle here."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import ImageError, InputError

MAX_PIXELS = 100_000_000
INTERPOLATIONS = {
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}
CAFFE_MEAN = (104.0, 117.0, 123.0)  # B, G, R: the mean of the authors' train_val.prototxt

_PNG = b"\x89PNG\r\n\x1a\n"
_OTHER_FORMATS = ("GIF", "WEBP", "BMP", "TIFF")


@dataclass(frozen=True)
class Preprocess:
    """How a decoded picture becomes the network's input. The default is the authors'.

    Attributes:
        resize: "squash" to `resize_size` x `resize_size`, or "short_side": the shorter side
            becomes `resize_size` and the proportions stay.
        resize_size: in pixels.
        interpolation: "cubic", "linear" or "area", OpenCV's.
        crop_size: side of the center crop, in pixels.
        channel_order: "BGR" (Caffe's, and OpenCV's) or "RGB".
        scale, mean, std: value = (pixel * scale - mean) / std, with pixels 0..255; `mean` and
            `std` are given in `channel_order`.
        data_format: "NCHW" or "NHWC", the layout of a batch.
    """

    resize: str = "squash"
    resize_size: int = 256
    interpolation: str = "cubic"
    crop_size: int = 227
    channel_order: str = "BGR"
    scale: float = 1.0
    mean: tuple[float, ...] = CAFFE_MEAN
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    data_format: str = "NCHW"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("resize", ("squash", "short_side")),
            ("interpolation", tuple(INTERPOLATIONS)),
            ("channel_order", ("BGR", "RGB")),
            ("data_format", ("NCHW", "NHWC")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name} must be one of {', '.join(allowed)}; found {getattr(self, name)!r}."
                )
        for name in ("resize_size", "crop_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1; found {value!r}.")
        if self.crop_size > self.resize_size:
            raise InputError(
                f"crop_size must be at most resize_size ({self.resize_size}); "
                f"found {self.crop_size}."
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, (list, tuple)) or len(values) != 3:
                raise InputError(f"{name} must be three numbers; found {values!r}.")
            if not all(_is_number(v) for v in values):
                raise InputError(f"{name} must be three finite numbers; found {values!r}.")
            object.__setattr__(self, name, tuple(float(v) for v in values))
        if not _is_number(self.scale) or self.scale <= 0:
            raise InputError(f"scale must be a number above 0; found {self.scale!r}.")
        if min(self.std) <= 0:
            raise InputError(f"std must be three numbers above 0; found {list(self.std)}.")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of the input made of one picture."""
        size = self.crop_size
        return (3, size, size) if self.data_format == "NCHW" else (size, size, 3)

    def __call__(self, image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The input that evaluation gives the network: resize, center crop, subtract the mean.

        Args:
            image: uint8 [H, W, 3], BGR.
            out: where to write the result (a row of a batch), if not into a new array.

        Returns:
            float32 of `input_shape`.
        """
        return self.normalise(self.center_crop(self.resized(image)), out)

    def resized(self, image: np.ndarray) -> np.ndarray:
        """`image` (uint8 [H, W, 3]) at the size from which crops are taken."""
        width = height = self.resize_size
        if self.resize == "short_side":
            short, long = sorted(image.shape[:2])
            longer = int(self.resize_size * long / short)  # as torchvision rounds
            if image.shape[0] > image.shape[1]:
                height = longer
            else:
                width = longer
        return cv2.resize(image, (width, height), interpolation=INTERPOLATIONS[self.interpolation])

    def center_crop(self, image: np.ndarray) -> np.ndarray:
        """The middle `crop_size` x `crop_size` of `image`; a 256 to 227 crop starts at 14."""
        top = (image.shape[0] - self.crop_size) // 2
        left = (image.shape[1] - self.crop_size) // 2
        return image[top : top + self.crop_size, left : left + self.crop_size]

    def normalise(self, crop: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """uint8 BGR [H, W, 3] to the network's channel order, value range and layout, float32."""
        if self.channel_order == "RGB":
            crop = crop[:, :, ::-1]
        mean = np.asarray(self.mean, "float32")
        if self.scale == 1.0:
            values = crop - mean
        else:
            values = crop * np.float32(self.scale) - mean
        if self.std != (1.0, 1.0, 1.0):
            values /= np.asarray(self.std, "float32")
        if self.data_format == "NCHW":
            values = values.transpose(2, 0, 1)
        if out is None:
            return np.ascontiguousarray(values)
        out[...] = values
        return out


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads and decodes an image file; see `decode`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot read this picture ({error.strerror}).") from error
    return decode(data, str(path), max_pixels)


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes a JPEG, PNG, GIF, WebP, BMP or TIFF file as a viewer shows it.

    The format is told by the content. The EXIF orientation is applied, transparency dropped, grey
    and palettes become colour, 16 bit become 8, CMYK becomes colour, of an animation the first
    frame is taken. JPEG bytes damaged in the middle of the file decode to a picture with a
    damaged region: the format does not let a decoder tell them from a picture.

    Args:
        data: the whole file.
        name: what to call it in errors.
        max_pixels: a larger picture is refused before memory is taken for it.

    Returns:
        uint8 [H, W, 3] in BGR.

    Raises:
        ImageError: it is no such file, is cut off or damaged, or is too large.
    """
    size = _header_size(data, name)
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: a picture of {width}x{height} pixels is over the limit of {max_pixels:,}."
        )
    if data[:3] == b"GIF":  # OpenCV reads GIF from 4.12 on; Pillow always
        image = _decode_gif(data)
    else:
        image = _decode_opencv(data)
    if image is None:
        raise ImageError(f"{name}: the picture is cut off or damaged and cannot be decoded.")
    return image


def _decode_opencv(data: bytes) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None


def _decode_gif(data: bytes) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(data), formats=["GIF"]) as image:
            return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        return None


def _header_size(data: bytes, name: str) -> tuple[int, int]:
    """(width, height) that the header claims; JPEG and PNG are read here for speed."""
    damaged = ImageError(f"{name}: the picture has a damaged header and cannot be decoded.")
    if data[:2] == b"\xff\xd8":
        size = _jpeg_size(data)
        if size is None:
            raise damaged
        return size
    if data[:8] == _PNG:
        if data[12:16] != b"IHDR" or len(data) < 24:
            raise damaged
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    try:
        with Image.open(io.BytesIO(data), formats=_OTHER_FORMATS) as image:
            return image.size
    except UnidentifiedImageError:
        raise ImageError(
            f"{name}: not a picture; a JPEG, PNG, GIF, WebP, BMP or TIFF file was expected, "
            f"found {_content(data)}."
        ) from None
    except Image.DecompressionBombError as error:  # above Pillow's own limit
        raise ImageError(f"{name}: refused: {error}") from None
    except (OSError, ValueError, SyntaxError, struct.error):
        raise damaged from None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Finds the frame header (ITU-T T.81, B.2.2) by walking the marker segments."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
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


def _content(data: bytes) -> str:
    if not data:
        return "an empty file"
    start = data[:64].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "an HTML page"
    return f"{len(data):,} bytes that start with {data[:8].hex(' ')}"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)

"""Turns a decoded image into the network's input; OpenCV resizes. No Paddle here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from ..errors import InputError

INTERPOLATIONS = {
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}
LARGEST_SIZE = 2048  # pixels a side; the maps of one image of this size take about 1 GB
_LARGEST_INPUT = 1e9  # of the network, which computes in float32
LONGEST_SIDE = 64  # times the shorter; "short_side" would make gigabytes of a strip of pixels
CAFFE_MEAN = (104.0, 117.0, 123.0)  # B, G, R: the mean of the authors' train_val.prototxt


class MeanImage:
    """The mean of a training set at every place of the image; equal if its values are.

    Attributes:
        values: float32 [3, side, side], in the channel order of the preprocessing, read-only.
        sha256: checksum of the values.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.array(values, "float32")
        self.values.setflags(write=False)
        self.sha256 = hashlib.sha256(self.values.tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MeanImage) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)


@dataclass(frozen=True)
class Preprocess:
    """How a decoded image becomes the network's input; by default as the authors did it.

    Attributes:
        resize: "squash" to `resize_size` x `resize_size`, or "short_side": the shorter side
            becomes `resize_size` and the aspect ratio stays; an image more than 64 times as long
            as wide is cut to its middle first.
        resize_size: in pixels.
        interpolation: "cubic", "linear" or "area", as OpenCV has them.
        crop_size: side of the center crop, in pixels.
        channel_order: "BGR" (Caffe's, and OpenCV's) or "RGB".
        scale, mean, std: value = (pixel * scale - mean) / std, with pixels 0..255; `mean` and
            `std` are given in `channel_order`.
        data_format: "NCHW" or "NHWC", the layout of a batch.
        mean_image: what is subtracted instead of `mean`, in the same unit, if it is not None; it
            is as large as the resized image, of which it is cropped the middle.
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
    mean_image: MeanImage | None = None

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
            if type(value) is not int or not 1 <= value <= LARGEST_SIZE:
                raise InputError(
                    f"{name} must be a whole number of 1 to {LARGEST_SIZE}; found {value!r}."
                )
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
        if not (self.scale * 255 + max(map(abs, self.mean))) / min(self.std) <= _LARGEST_INPUT:
            raise InputError(
                f"scale, mean and std must make inputs of at most {_LARGEST_INPUT:g}; found "
                f"{self.scale!r}, {list(self.mean)} and {list(self.std)}."
            )

        if self.mean_image is not None:
            shape, size = self.mean_image.values.shape, self.resize_size
            if shape != (3, size, size):
                raise InputError(
                    f"resize_size must be the side of the mean image, which is "
                    f"{shape[-1]}x{shape[-2]}; found {size}."
                )
            if not np.isfinite(self.mean_image.values).all():
                raise InputError("mean_image holds NaN or infinite values.")

    def with_crop_size(self, size: int) -> Preprocess:
        """The same for another size of the crop, with `resize_size` in proportion."""
        if size == self.crop_size:
            return self
        resize_size = round(self.resize_size * size / self.crop_size)
        return replace(self, crop_size=size, resize_size=resize_size)

    def record(self) -> dict[str, Any]:
        """The fields as JSON values; `mean_image` is its checksum, and left out if it is None."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        image = values.pop("mean_image")
        return values if image is None else {**values, "mean_image": image.sha256}

    @property
    def mean_of_pixels(self) -> np.ndarray:
        """What is subtracted from the crop: float32 [3], or [crop_size, crop_size, 3]."""
        if self.mean_image is None:
            return np.array(self.mean, "float32")
        return self.center_crop(self.mean_image.values.transpose(1, 2, 0))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of the input made from one image."""
        size = self.crop_size
        return (3, size, size) if self.data_format == "NCHW" else (size, size, 3)

    def __call__(self, image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The network's input for evaluation: resize, center crop, normalise.

        Args:
            image: uint8 [H, W, 3], BGR.
            out: the array to write to (a row of a batch); None for a new one.

        Returns:
            float32 of `input_shape`.
        """
        return self.normalise(self.center_crop(self.resized(image)), out)

    def resized(self, image: np.ndarray) -> np.ndarray:
        """Resizes `image` (uint8 [H, W, 3]) to the size that crops are taken from."""
        width = height = self.resize_size
        if self.resize == "short_side":
            short, long = sorted(image.shape[:2])
            if long > short * LONGEST_SIDE:
                image, long = _middle(image, short * LONGEST_SIDE), short * LONGEST_SIDE
            longer = int(self.resize_size * long / short)  # as torchvision rounds
            if image.shape[0] > image.shape[1]:
                height = longer
            else:
                width = longer
        return cv2.resize(image, (width, height), interpolation=INTERPOLATIONS[self.interpolation])

    def center_crop(self, image: np.ndarray) -> np.ndarray:
        """The center crop, [crop_size, crop_size, 3]; that of 227 in 256 starts at 14."""
        top = (image.shape[0] - self.crop_size) // 2
        left = (image.shape[1] - self.crop_size) // 2
        return image[top : top + self.crop_size, left : left + self.crop_size]

    def ten_crops(self, image: np.ndarray) -> list[np.ndarray]:
        """The usual ten crops of a resized image: four corners, the center, and their mirrors."""
        bottom, right = (n - self.crop_size for n in image.shape[:2])
        corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
        size = self.crop_size
        crops = [image[top : top + size, left : left + size] for top, left in corners]
        crops.append(self.center_crop(image))
        return crops + [crop[:, ::-1] for crop in crops]

    def normalise(self, crop: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Converts uint8 BGR [H, W, 3] to the network's channels, range and layout, float32."""
        if self.channel_order == "RGB":
            crop = crop[:, :, ::-1]
        if self.data_format == "NCHW":
            crop = crop.transpose(2, 0, 1)
        if out is None:
            out = np.empty(crop.shape, "float32")
        mean, std = self._mean_and_std
        # One pass that converts, subtracts and changes the layout: the slow part is memory.
        if self.scale == 1.0:
            np.subtract(crop, mean, out=out)
        else:
            np.multiply(crop, np.float32(self.scale), out=out)
            np.subtract(out, mean, out=out)
        if self.std != (1.0, 1.0, 1.0):
            np.divide(out, std, out=out)
        return out

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest value of each channel that `normalise` can make, [3]."""
        shape = (self.crop_size, self.crop_size, 3)
        ends = np.stack([self.normalise(np.full(shape, each, "uint8")) for each in (0, 255)])
        across = (0, 2, 3) if self.data_format == "NCHW" else (0, 1, 2)
        return ends.min(axis=across), ends.max(axis=across)

    def denormalise(self, inputs: np.ndarray) -> np.ndarray:
        """The crops, uint8 [..., H, W, 3] in BGR, from which `normalise` made `inputs`."""
        mean, std = self._mean_and_std
        pixels = (inputs * std + mean) / np.float32(self.scale)
        if self.data_format == "NCHW":
            pixels = np.moveaxis(pixels, -3, -1)
        if self.channel_order == "RGB":
            pixels = pixels[..., ::-1]
        return np.ascontiguousarray(np.clip(np.rint(pixels), 0, 255).astype("uint8"))

    @cached_property
    def _mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        shape = (3, 1, 1) if self.data_format == "NCHW" else (3,)
        mean = self.mean_of_pixels
        if mean.ndim == 3 and self.data_format == "NCHW":
            mean = np.ascontiguousarray(mean.transpose(2, 0, 1))
        return (
            mean if mean.ndim == 3 else mean.reshape(shape),
            np.array(self.std, "float32").reshape(shape),
        )


@dataclass(frozen=True)
class EvalTransform:
    """Makes the network's input for evaluation: the center crop, or the usual ten crops.

    Attributes:
        preprocess: of the model directory.
        ten_crop: a sample is ten crops instead of one.
    """

    preprocess: Preprocess
    ten_crop: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the sample made from one image: the input's, or [10, ...]."""
        shape = self.preprocess.input_shape
        return (10, *shape) if self.ten_crop else shape

    def __call__(self, image: np.ndarray, epoch: int, index: int, out: np.ndarray) -> None:
        """Writes the sample of a decoded image to `out`; epoch and index are not used."""
        if not self.ten_crop:
            self.preprocess(image, out)
            return
        for crop, row in zip(self.preprocess.ten_crops(self.preprocess.resized(image)), out):
            self.preprocess.normalise(crop, row)


def _middle(image: np.ndarray, longest: int) -> np.ndarray:
    """The middle of an image, at most `longest` pixels in either direction."""
    top, left = (max(0, (n - longest) // 2) for n in image.shape[:2])
    return image[top : top + longest, left : left + longest]


def _is_number(value: object) -> bool:
    """Whether the value is a number that float32 can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e38

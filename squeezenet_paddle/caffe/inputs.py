"""What a Caffe file says of its input: size, mean, scale; and the preprocessing that this makes.

A snapshot keeps the Data layers that it was trained with, a train_val.prototxt has them too, and
a deploy.prototxt states the size of its input. Caffe computes (pixel - mean) * scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.preprocess import CAFFE_MEAN, MeanImage, Preprocess
from ..errors import InputError
from .mean import LARGEST_SIDE, check_mean
from .reader import CaffeLayer

AUTHORS = "the authors' values, as no file states others"
_DATA_PARAMS = ("transform_param", "data_param", "image_data_param")


@dataclass(frozen=True)
class Statement:
    """What something says of the input.

    Attributes:
        name: crop_size, mean, mean_file, scale, mirror, resize or resize_size.
        value: as `Preprocess` has it, but for `mean`, which is of pixels.
        origin: what says it, e.g. "layer 'data' of a.caffemodel".
    """

    name: str
    value: Any
    origin: str

    @property
    def text(self) -> str:
        """The value."""
        if isinstance(self.value, tuple):
            return " ".join(f"{number:g}" for number in self.value)
        return f"{self.value:g}" if isinstance(self.value, float) else str(self.value)

    def __str__(self) -> str:
        return f"{self.name} {self.text}"


def statements(caffe_layers: Sequence[CaffeLayer], source: str) -> list[Statement]:
    """What the layers of a file say of the input that their network reads.

    Raises:
        InputError: the input is not one of square colour images, or is described by numbers that
            make no sense.
    """
    result: list[Statement] = []
    blobs = _image_blobs(caffe_layers)
    for layer in caffe_layers:
        if layer.bottoms or (blobs and not blobs & set(layer.tops)):
            continue
        origin = f"layer {layer.name!r} of {source}"
        shape = _shape(layer)
        if len(shape) == 4:
            _check_channels(shape[1], origin)
            result.append(Statement("crop_size", _square(shape[3], shape[2], origin), origin))
        for param in _params(layer):
            result += _transformation(param, origin)
    return list(dict.fromkeys(result))


def _image_blobs(caffe_layers: Sequence[CaffeLayer]) -> set[str]:
    """The blobs from which the first convolution's input is made; empty where there is no graph."""
    kinds = [layer.type for layer in caffe_layers]
    if "Convolution" not in kinds:
        return set()
    at = kinds.index("Convolution")
    blobs = set(caffe_layers[at].bottoms)
    for layer in reversed(caffe_layers[:at]):
        if blobs & set(layer.tops):
            blobs |= set(layer.bottoms)
    return blobs


def _shape(layer: CaffeLayer) -> list[int]:
    """The shape that an Input, DummyData or MemoryData layer states of its first top."""
    for name in ("input_param", "dummy_data_param"):
        if _has(layer, name) and getattr(layer.message, name).shape:
            return list(getattr(layer.message, name).shape[0].dim)
    if _has(layer, "memory_data_param"):
        param = layer.message.memory_data_param
        return [1, param.channels, param.height, param.width]
    return []


def _params(layer: CaffeLayer) -> list[Any]:
    return [getattr(layer.message, name) for name in _DATA_PARAMS if _has(layer, name)]


def _has(layer: CaffeLayer, name: str) -> bool:
    fields = layer.message.DESCRIPTOR.fields_by_name
    return name in fields and layer.message.HasField(name)


def _transformation(param: Any, origin: str) -> Iterable[Statement]:
    fields = param.DESCRIPTOR.fields_by_name
    if getattr(param, "force_gray", False) or not getattr(param, "is_color", True):
        _check_channels(1, origin)
    if param.crop_size:
        yield Statement("crop_size", _square(param.crop_size, param.crop_size, origin), origin)
    if "new_height" in fields and (param.new_height or param.new_width):
        size = _square(param.new_width, param.new_height, origin)
        yield Statement("resize_size", size, origin)
    if param.mean_file:
        text = param.mean_file if isinstance(param.mean_file, str) else repr(param.mean_file)
        yield Statement("mean_file", "".join(c if c.isprintable() else "?" for c in text), origin)
    values = tuple(getattr(param, "mean_value", ()))
    if values:
        if len(values) not in (1, 3):
            raise InputError(f"{origin}: 1 or 3 mean values were expected, found {len(values)}.")
        check_mean(np.array(values), f"{origin}, mean_value")
        yield Statement("mean", tuple(float(v) for v in values * (3 // len(values))), origin)
    if param.HasField("scale") and param.scale != 1:
        if not 0 < param.scale < 1e6:
            raise InputError(f"{origin}: a scale above 0 was expected, found {param.scale:g}.")
        yield Statement("scale", float(str(np.float32(param.scale))), origin)  # as it was written
    if param.mirror:
        yield Statement("mirror", True, origin)


def _check_channels(channels: int, origin: str) -> None:
    if channels != 3:
        kind = "grey images are" if channels == 1 else f"images of {channels} channels are"
        raise InputError(f"{origin}: {kind} not supported; 3 channels (colour) were expected.")


def _square(width: int, height: int, origin: str) -> int:
    if width != height:
        raise InputError(f"{origin}: an input of {width}x{height}; only squares are supported.")
    if not 0 < width <= LARGEST_SIDE:
        raise InputError(f"{origin}: an input of {width}x{height} pixels makes no sense.")
    return width


def agreed(stated: Iterable[Statement], overridden: Iterable[str] = ()) -> dict[str, Statement]:
    """One statement a name.

    Args:
        stated: by all sources, the first of equal ones is kept.
        overridden: names of which the user says otherwise, so that a contradiction does not matter.

    Raises:
        InputError: two sources contradict each other.
    """
    result: dict[str, Statement] = {}
    for each in stated:
        before = result.setdefault(each.name, each)
        if before.value != each.value and each.name not in overridden:
            raise InputError(f"{before} ({before.origin}), but {each} ({each.origin}).")
    if "mean" in result and "mean_file" in result and "mean" not in overridden:
        mean, file = result["mean"], result["mean_file"]
        raise InputError(f"{mean} ({mean.origin}), but {file} ({file.origin}).")
    return result


def make_preprocess(
    stated: dict[str, Statement],
    chosen: dict[str, Any],
    mean_image: np.ndarray | None = None,
    mean_mode: str = "channel",
    mean_origin: str = "`mean_file`",
) -> tuple[Preprocess, list[str]]:
    """The preprocessing of a converted network, and where each part of it is from, a line each.

    Args:
        stated: what the files say, as `agreed` gives it.
        chosen: what the user says, by field of `Preprocess`, which wins; `mean` is of pixels.
        mean_image: float32 [3, H, W], of the user's mean file.
        mean_mode: "channel" subtracts its mean over height and width, as pycaffe and DIGITS deploy;
            "image" subtracts it place by place, as Caffe's data layer does.
        mean_origin: where `mean_image` is from.

    Raises:
        InputError: the numbers do not go together.
    """
    notes: list[str] = []
    defaults: list[str] = []

    def take(name: str, default: Any, default_origin: str = AUTHORS) -> Any:
        each = stated.get(name, Statement(name, default, default_origin))
        if name in chosen and name not in stated:
            each = Statement(name, chosen[name], f"`{name}`")
        elif name in chosen:
            each = Statement(
                name, chosen[name], f"`{name}`, instead of {each.text} of {each.origin}"
            )
        (defaults if each.origin == AUTHORS else notes).append(f"{each}: {each.origin}")
        return each.value

    crop_size = take("crop_size", 227)
    resize = take("resize", "squash")
    resize_size, origin = Preprocess().with_crop_size(crop_size).resize_size, AUTHORS
    if mean_image is not None and mean_image.shape[1] == mean_image.shape[2] >= crop_size:
        resize_size, origin = mean_image.shape[1], "the size of the mean image"
    resize_size = take("resize_size", resize_size, origin)
    interpolation = take("interpolation", Preprocess.interpolation)
    scale = take("scale", 1.0)
    image = mean_image if mean_mode == "image" else None
    if image is not None and image.shape != (3, resize_size, resize_size):
        raise InputError(
            f"`mean_mode` image: a mean image as large as the resized images was expected, "
            f"{resize_size}x{resize_size}; found {image.shape[2]}x{image.shape[1]}."
        )
    if mean_image is not None:
        mean = tuple(float(v) for v in mean_image.astype("float64").mean(axis=(1, 2)))
        before = stated.get("mean")
        instead = f", instead of {before} of {before.origin}" if before else ""
        kind = "mean" if mean_mode == "channel" else "mean image, with the means"
        notes.append(f"{kind} {' '.join(f'{v:g}' for v in mean)}: {mean_origin}{instead}")
    elif "mean_file" in stated and "mean" not in chosen:
        file = stated["mean_file"]
        mean = CAFFE_MEAN
        notes.append(
            f"mean 104 117 123: the authors' values; {file.origin} names the file {file.value}, "
            "which only its owner has: give `mean_file` if you have it"
        )
    else:
        mean = take("mean", CAFFE_MEAN)
    if defaults:
        named = ", ".join(each.partition(":")[0] for each in defaults)
        notes.append(f"{named}: {AUTHORS}")
    if "mirror" in stated:
        notes.append(f"mirror: {stated['mirror'].origin}; only training mirrors images")
    return (
        Preprocess(
            resize=resize,
            resize_size=resize_size,
            interpolation=interpolation,
            crop_size=crop_size,
            scale=scale,
            mean=tuple(value * scale for value in mean),
            mean_image=None if image is None else MeanImage(image * scale),
        ),
        notes,
    )

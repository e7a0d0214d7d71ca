"""Describes what an exported graph takes and returns, for those who run it without this package.

It goes into the metadata of an ONNX file, into labels.json, and into the comments of a prototxt.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..data.preprocess import Preprocess
from ..familiarity import Calibration


def describe(
    kind: str,
    preprocess: Preprocess,
    num_classes: int,
    batch: int | None = None,
    with_preprocess: bool = False,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """The description of an exported graph, JSON values by key.

    Args:
        kind: its format, "paddle", "onnx" or "caffe".
        preprocess: how an image becomes the network's input.
        num_classes: length of the output.
        batch: images at a time; None for any number, or 1 for Caffe.
        with_preprocess: the graph takes pixels.
        calibration: of the model; None where it has none.

    Returns:
        `input`: name, dtype, layout and shape. `preprocess`: what to do before the graph, by the
        fields of `Preprocess`; `steps`: the same in words. `output`: name, dtype, shape, and if
        it holds logits or probabilities. With a calibration also `calibration`: temperature,
        threshold, the second output, and what to do with them in words.
    """
    if with_preprocess:  # the rest happens in the graph
        preprocess = dataclasses.replace(
            preprocess,
            scale=1.0,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            data_format="NHWC",
            mean_image=None,
        )
    elif kind == "caffe":
        preprocess = dataclasses.replace(preprocess, data_format="NCHW")
    n = batch or (1 if kind == "caffe" else "batch")
    output = {"onnx": "logits", "caffe": "prob", "paddle": None}[kind]
    values = "probabilities" if kind == "caffe" else "logits"
    description: dict[str, Any] = {
        "input": {
            "name": "pixels" if with_preprocess else "data",
            "dtype": "uint8" if with_preprocess else "float32",
            "layout": preprocess.data_format,
            "shape": [n, *preprocess.input_shape],
        },
        "preprocess": preprocess.record(),
        "steps": _steps(preprocess, with_preprocess),
        "output": {
            "name": output,
            "dtype": "float32",
            "shape": [n, num_classes],
            "values": values,
            "note": "one number per class, by class id"
            + ("" if kind == "caffe" else "; softmax makes them probabilities"),
        },
    }
    if calibration is not None:
        description["calibration"] = _calibration(kind, calibration, n)
    return description


def _calibration(kind: str, calibration: Calibration, n: int | str) -> dict[str, Any]:
    """What an exported graph says of its second output and of what to do with it."""
    described: dict[str, Any] = {
        "temperature": calibration.temperature,
        "threshold": calibration.threshold,
        "steps": [
            "divide the logits by the temperature; softmax then gives probabilities that can be "
            "trusted",
        ],
    }
    if kind == "onnx":
        described["output"] = {"name": "familiarity", "dtype": "float32", "shape": [n, 1]}
        described["steps"].append(
            "an image whose familiarity is below the threshold is none of the classes"
        )
        return described
    shape = [n, calibration.familiarity.prototypes.shape[2]]
    described["output"] = {"name": None, "dtype": "float32", "shape": shape}
    described["steps"].append(
        "the second output holds the means of fire9's maps; squeezenet_paddle.familiarity makes "
        "the familiarity of an image of both, with familiarity.npz of the model directory, and an "
        "image whose familiarity is below the threshold is none of the classes"
    )
    return described


def _steps(preprocess: Preprocess, with_preprocess: bool) -> list[str]:
    size, crop = preprocess.resize_size, preprocess.crop_size
    order = ", ".join(preprocess.channel_order)
    whose = "OpenCV reads images so" if preprocess.channel_order == "BGR" else "Pillow's order"
    resized = f"{size} x {size} pixels, whatever the proportions"
    if preprocess.resize == "short_side":
        resized = f"{size} pixels on the shorter side, proportions kept"
    steps = [
        f"decode the image to pixels of 0 to 255 with the channels in the order {order} ({whose})",
        f"resize to {resized}: cv2.resize, INTER_{preprocess.interpolation.upper()}",
        f"take the middle {crop} x {crop} pixels, from (height - {crop}) // 2, "
        f"(width - {crop}) // 2",
    ]
    if with_preprocess:
        steps.append("give these as uint8; the graph subtracts the mean itself")
    elif preprocess.mean_image is not None:
        steps.append(
            f"as float32: (pixel * {preprocess.scale:g} - mean) / std, with the same crop of the "
            f"mean image, mean_image.npy of the model directory, and the std "
            f"{_numbers(preprocess.std)} of {order}; the metadata of an ONNX file has this crop "
            "as mean_image"
        )
    else:
        steps.append(
            f"as float32: (pixel * {preprocess.scale:g} - mean) / std, with the mean "
            f"{_numbers(preprocess.mean)} and the std {_numbers(preprocess.std)} of {order}"
        )
    return [*steps, f"stack the images to the layout {preprocess.data_format}"]


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)

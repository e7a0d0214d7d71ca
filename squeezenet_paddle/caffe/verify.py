"""Runs an input through OpenCV's Caffe importer and through our network; compares every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
from paddle import nn

from ..errors import InputError
from ..network.config import layers
from ..network.logits import softmax, top_k
from ..network.model import SqueezeNet
from ..network.weights import key_of

TOLERANCE = 1e-4  # of the largest value of the layer's output


@dataclass(frozen=True)
class Difference:
    """How far the output of a layer of ours is from Caffe's.

    Attributes:
        layer: Caffe's name. A convolution's output is compared before its activation.
        shape: of the output, NCHW.
        absolute: largest absolute difference.
        relative: `absolute` as a share of the largest absolute value of Caffe's output.
    """

    layer: str
    shape: tuple[int, ...]
    absolute: float
    relative: float


@dataclass(frozen=True)
class Verification:
    """The comparison for one input.

    Attributes:
        name: of the input.
        differences: a line a layer, in the order of computation, the output (logits) last.
        caffe_top5, our_top5: (class id, probability), largest first; empty where the trunk alone
            was compared.
    """

    name: str
    differences: list[Difference]
    caffe_top5: list[tuple[int, float]]
    our_top5: list[tuple[int, float]]

    @property
    def worst(self) -> Difference:
        """The layer with the largest relative difference; NaN counts as larger than any."""
        return max(self.differences, key=lambda d: np.inf if np.isnan(d.relative) else d.relative)

    @property
    def passed(self) -> bool:
        return self.worst.relative <= TOLERANCE


class CaffeJudge:
    """A Caffe network run by OpenCV, an importer and kernels that share nothing with ours.

    Raises:
        InputError: this OpenCV has no Caffe importer, or it refuses the files.
    """

    def __init__(self, prototxt: Path, caffemodel: Path) -> None:
        if not hasattr(cv2.dnn, "readNetFromCaffe"):
            raise InputError(
                f"this needs the Caffe importer of OpenCV 4; found OpenCV {cv2.__version__}."
            )
        try:
            self.net = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
        except cv2.error as error:
            raise InputError(
                f"{prototxt}: OpenCV cannot read this network: {error.err}."
            ) from error
        self.net.enableFusion(False)  # keeps every layer's own output

    def outputs(self, x: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        """float32 [N, 3, H, W] -> the outputs of the named layers."""
        self.net.setInput(x)
        return dict(zip(names, self.net.forward(names)))

    @property
    def ends(self) -> list[str]:
        """The layers that no other one reads."""
        return list(self.net.getUnconnectedOutLayersNames())


def verify(
    network: SqueezeNet,
    judge: CaffeJudge,
    x: np.ndarray,
    name: str,
    names: Mapping[str, str] | None = None,
) -> Verification:
    """Compares every convolution and concatenation, the logits, and what the net ends with.

    Args:
        network: ours, of the head `conv`.
        judge: the same network in OpenCV.
        x: float32 [1, 3, H, W].
        name: what to call this input in the report.
        names: our layers -> the judge's, of those to compare; None compares all, of equal names.
    """
    compared = [
        layer.name
        for layer in layers(network.config)
        if layer.type in ("Convolution", "Concat") or layer.name == "pool10"
    ]
    if names is not None:
        compared = [each for each in compared if each in names]
    names = names or {}
    asked = [names.get(each, each) for each in compared]
    caffe = judge.outputs(x, list(dict.fromkeys([*asked, *judge.ends])))
    chain = [each for each in compared if each != "pool10"]
    ours = our_outputs(network, x, chain)
    differences = [_difference(each, caffe[names.get(each, each)], ours[each]) for each in chain]
    top5: tuple[list[tuple[int, float]], ...] = ([], [])
    if "pool10" in compared:
        logits = caffe[names.get("pool10", "pool10")].reshape(len(x), -1)
        differences.append(_difference("output", logits, ours["output"]))
        top5 = (_top5(logits), _top5(ours["output"]))
        last = [_last_difference(caffe[end], ours["output"]) for end in judge.ends]
        if not any(each.relative <= TOLERANCE for each in last):  # a layer follows the logits
            differences += last
    return Verification(name, differences, *top5)


def our_outputs(network: SqueezeNet, x: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """The outputs, in NCHW, of sublayers by their Caffe names, and the logits as `output`."""
    kept: dict[str, np.ndarray] = {}
    channels_last = network.config.data_format == "NHWC"

    def keep(name: str, tensor: paddle.Tensor) -> None:
        array = tensor.numpy()
        kept[name] = array.transpose(0, 3, 1, 2) if channels_last else array

    sublayers = dict(network.named_sublayers())
    hooks = []
    for name in names:
        layer: nn.Layer = sublayers[key_of(name)]
        hooks.append(
            layer.register_forward_post_hook(lambda _, __, out, name=name: keep(name, out))
        )
    try:
        with paddle.no_grad():
            inputs = x.transpose(0, 2, 3, 1) if channels_last else x
            kept["output"] = network(paddle.to_tensor(np.ascontiguousarray(inputs))).numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def _last_difference(caffe: np.ndarray, logits: np.ndarray) -> Difference:
    """How far an end of Caffe's network is from our logits or, if that is less, probabilities."""
    caffe = caffe.reshape(len(caffe), -1)
    both = [_difference("the last blob", caffe, each) for each in (logits, softmax(logits))]
    return min(both, key=lambda each: each.relative)


def _difference(name: str, caffe: np.ndarray, ours: np.ndarray) -> Difference:
    if caffe.shape != ours.shape:
        return Difference(name, ours.shape, np.inf, np.inf)
    absolute = float(np.abs(caffe - ours).max())
    largest = float(np.abs(caffe).max())
    return Difference(name, ours.shape, absolute, absolute / largest if largest else absolute)


def _top5(logits: np.ndarray) -> list[tuple[int, float]]:
    probabilities = softmax(logits)[0]
    return [(int(i), float(probabilities[i])) for i in top_k(logits, 5)[0]]


def format_verification(result: Verification, names: list[str] | None) -> str:
    """The comparison for one input as lines of text."""
    lines = [
        f"input {result.name}",
        f"  {'layer':<20} {'output':<14} {'largest difference':>19} {'relative':>10}",
    ]
    for d in result.differences:
        shape = "x".join(map(str, d.shape[1:]))
        mark = "" if d.relative <= TOLERANCE else f"  over {TOLERANCE:g}"
        lines.append(f"  {d.layer:<20} {shape:<14} {d.absolute:>19.3e} {d.relative:>10.2e}{mark}")
    if result.caffe_top5:
        lines.append(f"  {'top-5 of Caffe (OpenCV)':<38}  top-5 of ours")
    for (caffe_id, caffe_p), (our_id, our_p) in zip(result.caffe_top5, result.our_top5):
        name = f"  {names[our_id]}" if names else ""
        lines.append(
            f"  {caffe_id:>6} {caffe_p:.7f}                        {our_id:>6} {our_p:.7f}{name}"
        )
    return "\n".join(lines)


def verification_record(results: list[Verification]) -> dict[str, Any]:
    """The entry of a verification in config.json."""
    return {
        "judge": f"OpenCV {cv2.__version__}",
        "tolerance": TOLERANCE,
        "inputs": [
            {
                "name": Path(result.name).name,
                "layers": len(result.differences),
                "worst_layer": result.worst.layer,
                "worst_relative_difference": result.worst.relative,
                "same_top5": [i for i, _ in result.caffe_top5] == [i for i, _ in result.our_top5],
            }
            for result in results
        ],
    }

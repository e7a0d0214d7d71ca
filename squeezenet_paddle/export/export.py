"""Writes the network of a model directory for other programs, and checks what was written.

Before the files get their names, the program that they are for runs them on images, and its logits
are compared with those of the network in dynamic graph. Importing this does not load Paddle.
"""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np

from .. import export_record as record
from ..caffe.writer import caffemodel, deploy_prototxt
from ..compression.int8 import quantise
from ..data.preprocess import Preprocess
from ..device import use_device
from ..engines.load import check_installed, version_of
from ..engines.onnxruntime import compile_onnx
from ..engines.paddle_inference import compile_paddle
from ..errors import InputError, RunError
from ..files import named_errors, write_together
from ..model_dir import ModelInfo, Weights, network_of, read_info, read_weights
from ..network.config import layers
from ..onnx.writer import GraphInput, onnx_model
from ..run_dir import model_dir_of
from ..temporaries import temporary_directory
from .description import describe

CHECKED_IMAGES = 32
_LARGEST_ERROR = {"float32": 1e-4, "int8": 0.3}  # between logits, as a share of the largest one

Logits = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Export:
    """The options of an export.

    Attributes:
        format: "paddle", the static graph for Paddle Inference; "onnx"; or "caffe".
        input_size: side of the images, in pixels.
        batch: images at a time; None for any number, of which Caffe's files state one.
        with_preprocess: the graph takes pixels, uint8 [N, H, W, 3] in the channel order of the
            model directory, instead of what `Preprocess` makes of them.
        precision: "float32"; or "int8", for the format onnx.
    """

    format: str
    input_size: int
    batch: int | None = None
    with_preprocess: bool = False
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.format == "caffe" and self.with_preprocess:
            raise InputError(
                "`with_preprocess`: Caffe has no layers for uint8 pixels; leave it out, or choose "
                "the `format` onnx or paddle."
            )
        if self.format != "onnx" and self.precision != "float32":
            raise InputError(f"`precision` {self.precision}: only the `format` onnx has it.")


@dataclass(frozen=True)
class Result:
    """The files of an export, and how its logits compare with those of the network.

    Attributes:
        files: what was written.
        judge: the program that ran it.
        images: how many it was checked on.
        difference: the largest difference between two logits.
        relative: the same as a share of the largest logit.
        same_top1: for how many images the first class is the same.
        calibrated: how many images int8 was fitted to; 0 for float32.
    """

    files: list[Path]
    judge: str
    images: int
    difference: float
    relative: float
    same_top1: int
    calibrated: int

    def record(self) -> dict[str, Any]:
        """The check as exports.json keeps it."""
        record = dataclasses.asdict(self)
        del record["files"]
        return record


def export(
    model_dir: Path, info: ModelInfo, what: Export, images: Sequence[np.ndarray], output_dir: Path
) -> Result:
    """Writes and checks an export.

    Args:
        model_dir: as `model_dir.py` describes it.
        info: its description.
        what: to write.
        images: decoded images, uint8 [H, W, 3] in BGR. The export is checked on the first
            `CHECKED_IMAGES` of them; int8 is fitted to all.
        output_dir: where the files go; the model directory itself, for engines to find them.

    Raises:
        InputError: the program that has to check it is not installed.
        RunError: what was written does not compute the network; no file is left.
    """
    from ..engines.dynamic import DynamicEngine  # Paddle

    preprocess = info.preprocess.with_crop_size(what.input_size)
    weights = read_weights(model_dir, info)
    use_device("cpu")
    network = network_of(info.network, weights.state, str(model_dir))
    crops = np.stack([preprocess.center_crop(preprocess.resized(image)) for image in images])
    inputs = np.stack([preprocess.normalise(crop) for crop in crops])
    checked = slice(0, CHECKED_IMAGES)
    expected = DynamicEngine(network, "cpu").logits(inputs[checked])
    calibration = None if what.format == "caffe" else info.calibration
    description = description_of(info, what)
    output_dir.mkdir(parents=True, exist_ok=True)
    with (
        temporary_directory() as folder,
        named_errors(folder),
    ):  # not in the model's, which a training may replace
        if what.format == "paddle":
            from ..engines.static_graph import save_static_graph

            files = save_static_graph(
                *(network, preprocess, what.batch, what.with_preprocess, folder),
                calibration is not None,
            )
            judge, run = _paddle_judge(files)
        elif what.format == "onnx":
            files = _write_onnx(info, weights, what, preprocess, inputs, folder)
            judge, run = _onnx_judge(files[0])
        else:
            files = _write_caffe(info, weights, what, description, folder)
            judge, run = _caffe_judge(info, *files)
        if what.with_preprocess:
            inputs = crops[:, :, :, ::-1] if preprocess.channel_order == "RGB" else crops
        found = _in_batches(run, np.ascontiguousarray(inputs[checked]), what.batch)
        difference = float(np.abs(found - expected).max())
        largest = float(np.abs(expected).max())
        result = Result(
            [output_dir / file.name for file in files],
            judge,
            len(expected),
            difference,
            difference / largest if largest else difference,
            int((found.argmax(axis=1) == expected.argmax(axis=1)).sum()),
            len(images) if what.precision == "int8" else 0,
        )
        limit = _LARGEST_ERROR[what.precision]
        if not result.relative <= limit:
            raise RunError(
                f"{judge} gives other logits than the network: they differ by "
                f"{result.relative:.2g} of the largest one, and at most {limit:g} was expected; "
                "nothing was written."
            )
        if output_dir.resolve() == model_dir_of(model_dir).resolve():
            _check_unchanged(model_dir, weights)
        write_together(output_dir, {file.name: file.read_bytes() for file in files})
    entry = {
        "fingerprint": weights.fingerprint,
        "input_size": what.input_size,
        "batch": what.batch,
        "with_preprocess": what.with_preprocess,
        "check": result.record(),
        "description": description,
    }
    kind = what.format if what.precision == "float32" else what.precision
    record.add_record(output_dir, kind, entry, [file.name for file in files])
    record.write_labels(output_dir, weights.fingerprint, info.names)
    return result


def description_of(info: ModelInfo, what: Export) -> dict[str, Any]:
    """What an export takes and returns; see `describe`."""
    preprocess = info.preprocess.with_crop_size(what.input_size)
    calibration = None if what.format == "caffe" else info.calibration
    classes = info.network.num_classes
    description = describe(
        *(what.format, preprocess, classes, what.batch, what.with_preprocess), calibration
    )
    if calibration is not None and what.input_size != info.preprocess.crop_size:
        description["calibration"]["steps"].append(
            f"temperature and threshold were fitted to images of {info.preprocess.crop_size} "
            f"pixels a side; how far they hold for {what.input_size} was not measured"
        )
    return description


def onnx_metadata(info: ModelInfo, what: Export) -> dict[str, Any]:
    """What an ONNX file says of itself: the network, its description, names, the mean image.

    The mean image, the crop that is subtracted from pixels, is base64 of an .npy file: float32
    [H, W, 3] in the channel order of the preprocessing.
    """
    metadata = {
        "network": dataclasses.asdict(info.network),
        **description_of(info, what),
        "classes": info.names,
    }
    preprocess = info.preprocess.with_crop_size(what.input_size)
    if preprocess.mean_image is not None and not what.with_preprocess:
        file = io.BytesIO()
        np.save(file, np.ascontiguousarray(preprocess.mean_of_pixels))
        metadata["mean_image"] = base64.b64encode(file.getvalue()).decode()
    return metadata


def _check_unchanged(model_dir: Path, weights: Weights) -> None:
    """Raises an error if a training has replaced the model while it was exported."""
    if read_weights(model_dir, read_info(model_dir)).fingerprint != weights.fingerprint:
        raise RunError(
            f"{model_dir}: the model was replaced by another one while it was exported; nothing "
            "was written. Export it again."
        )


def _in_batches(run: Logits, inputs: np.ndarray, batch: int | None) -> np.ndarray:
    """Logits of all images; if the batch may have any size, of one image and of the rest."""
    if batch is None:
        cuts = [inputs[:1], inputs[1:]]
        return np.concatenate([run(part) for part in cuts if len(part)])
    filled = np.resize(inputs, (-(-len(inputs) // batch) * batch, *inputs.shape[1:]))
    parts = np.split(filled, len(filled) // batch)
    return np.concatenate([run(part) for part in parts])[: len(inputs)]


def _paddle_judge(files: list[Path]) -> tuple[str, Logits]:
    graph, parameters = files
    version = version_of("paddle").partition(" ")[2]
    run = compile_paddle(graph, parameters, threads=1)
    return f"Paddle Inference {version}", lambda inputs: run(inputs)[0]


def _write_onnx(
    info: ModelInfo,
    weights: Weights,
    what: Export,
    preprocess: Preprocess,
    inputs: np.ndarray,
    folder: Path,
) -> list[Path]:
    files, quantised = [folder / record.ONNX], None
    if what.precision == "int8":
        quantised = quantise(info.network, weights.state, inputs, limits=preprocess.limits)
        files = [folder / record.ONNX_INT8]
    size = what.input_size
    graph_input = GraphInput(size, size, what.batch, preprocess if what.with_preprocess else None)
    model = onnx_model(
        info.network,
        weights.state,
        graph_input,
        quantised=quantised,
        familiarity=None if info.calibration is None else info.calibration.familiarity,
        metadata=onnx_metadata(info, what),
    )
    files[0].write_bytes(model)
    return files


def _onnx_judge(file: Path) -> tuple[str, Logits]:
    check_installed("onnxruntime", "an ONNX file is checked by ONNX Runtime")
    [run] = compile_onnx(file.read_bytes(), threads=1)
    version = version_of("onnxruntime").partition(" ")[2]
    return f"ONNX Runtime {version}", lambda inputs: run(inputs)[0]


def _write_caffe(
    info: ModelInfo, weights: Weights, what: Export, description: dict[str, Any], folder: Path
) -> list[Path]:
    size, batch = what.input_size, what.batch or 1
    files = [folder / record.PROTOTXT, folder / record.CAFFEMODEL]
    steps = "".join(f"# - {step}\n" for step in description["steps"])
    comment = f"# Input:\n{steps}# Output: prob, the probabilities of the classes\n"
    name = info.source.get("classifier_name", "conv10")  # as in the Caffe file that it came from
    text = comment + deploy_prototxt(info.network, size, size, batch, name)
    files[0].write_text(text, encoding="utf-8")
    files[1].write_bytes(caffemodel(info.network, weights.state, size, size, batch, name))
    return files


def _caffe_judge(info: ModelInfo, prototxt: Path, weights: Path) -> tuple[str, Logits]:
    from ..caffe.verify import CaffeJudge  # Paddle

    judge = CaffeJudge(prototxt, weights)
    last = layers(info.network)[-1].name

    def run(inputs: np.ndarray) -> np.ndarray:
        if info.network.data_format == "NHWC":
            inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
        return judge.outputs(inputs, [last])[last].reshape(len(inputs), -1)

    return f"OpenCV {cv2.__version__}", run

"""Writes the network of a model directory for other programs, and checks what was written.

Each file is run by the program that it is for, on images, before it gets its name, and its logits
are compared with those of the network in dynamic graph.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np
import paddle
from paddle import nn

from ..caffe.writer import caffemodel, deploy_prototxt
from ..data.preprocess import Preprocess
from ..engines.dynamic import DynamicEngine
from ..errors import InputError, RunError
from ..evaluation.metrics import top_k
from ..files import atomic_path
from ..model_dir import ModelInfo, Weights, load_network, read_weights
from ..network.config import layers
from ..network.model import SqueezeNet
from ..onnx.quantise import calibrate, to_json
from ..onnx.writer import GraphInput, onnx_model
from . import record

CHECKED_IMAGES = 32
_LARGEST_ERROR = {"float32": 1e-4, "int8": 0.3}  # between logits, as a share of the largest one

Logits = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Export:
    """What is to be written.

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
                "--with_preprocess: Caffe has no layers for uint8 pixels; leave it out, or "
                "give --format onnx or paddle."
            )
        if self.format != "onnx" and self.precision != "float32":
            raise InputError(f"--precision {self.precision} goes with --format onnx alone.")


@dataclass(frozen=True)
class Result:
    """What was written, and how it compares with the network in dynamic graph.

    Attributes:
        files: what was written.
        judge: the program that ran it.
        images: how many it ran.
        difference: the largest one between two logits.
        relative: the same as a share of the largest logit.
        same_top1: for how many images the first class is the same.
    """

    files: list[Path]
    judge: str
    images: int
    difference: float
    relative: float
    same_top1: int

    def record(self) -> dict[str, Any]:
        """What exports.json keeps of it."""
        record = dataclasses.asdict(self)
        del record["files"]
        return record


def export(
    model_dir: Path, info: ModelInfo, what: Export, images: Sequence[np.ndarray], output_dir: Path
) -> Result:
    """Writes and checks an export.

    Args:
        model_dir: as `model_dir.py` describes it.
        info: what it says.
        what: to write.
        images: decoded images, uint8 [H, W, 3] in BGR, to check it on and to quantise with.
        output_dir: where the files go; the model directory itself, for engines to find them.

    Raises:
        InputError: the program that has to check it is not installed.
        RunError: what was written does not compute the network; no file is left.
    """
    preprocess = _resized(info.preprocess, what.input_size)
    weights = read_weights(model_dir, info)
    network = load_network(model_dir, info)
    crops = np.stack([preprocess.center_crop(preprocess.resized(image)) for image in images])
    inputs = np.stack([preprocess.normalise(crop) for crop in crops])
    checked = slice(0, CHECKED_IMAGES)
    expected = DynamicEngine(network, "cpu").logits(inputs[checked])
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export.", dir=output_dir) as temporary:
        folder = Path(temporary)
        if what.format == "paddle":
            files = _write_paddle(network, what, preprocess, folder)
            judge, run = _paddle_judge(files)
        elif what.format == "onnx":
            files = _write_onnx(info, weights, what, preprocess, inputs, folder)
            judge, run = _onnx_judge(files[0])
        else:
            files = _write_caffe(info, weights, what, folder)
            judge, run = _caffe_judge(info, *files)
        if what.with_preprocess:
            inputs = crops[:, :, :, ::-1] if preprocess.channel_order == "RGB" else crops
        found = _in_batches(run, np.ascontiguousarray(inputs[checked]), what.batch)
        result = _compared(judge, expected, found, [output_dir / file.name for file in files])
        limit = _LARGEST_ERROR[what.precision]
        if not result.relative <= limit:
            raise RunError(
                f"{judge} gives other logits than the network: they differ by "
                f"{result.relative:.2g} of the largest one, and at most {limit:g} was expected; "
                "nothing was written."
            )
        for file, target in zip(files, result.files):
            with atomic_path(target) as path:
                shutil.copyfile(file, path)
    entry = {
        "fingerprint": weights.fingerprint,
        "input_size": what.input_size,
        "batch": what.batch,
        "with_preprocess": what.with_preprocess,
        "check": result.record(),
    }
    kind = what.format if what.precision == "float32" else what.precision
    record.add_record(output_dir, kind, entry, [file.name for file in files])
    return result


def _resized(preprocess: Preprocess, size: int) -> Preprocess:
    """The same for another size of the input."""
    if size == preprocess.crop_size:
        return preprocess
    resize_size = round(preprocess.resize_size * size / preprocess.crop_size)
    return dataclasses.replace(preprocess, crop_size=size, resize_size=resize_size)


def _compared(judge: str, expected: np.ndarray, found: np.ndarray, files: list[Path]) -> Result:
    difference = float(np.abs(found - expected).max())
    largest = float(np.abs(expected).max())
    same = int((top_k(found, 1) == top_k(expected, 1)).sum())
    relative = difference / largest if largest else difference
    return Result(files, judge, len(expected), difference, relative, same)


def _in_batches(run: Logits, inputs: np.ndarray, batch: int | None) -> np.ndarray:
    """Logits of all images; where any number is taken, of one alone and of the rest at once."""
    if batch is None:
        cuts = [inputs[:1], inputs[1:]]
        return np.concatenate([run(part) for part in cuts if len(part)])
    filled = np.resize(inputs, (-(-len(inputs) // batch) * batch, *inputs.shape[1:]))
    parts = np.split(filled, len(filled) // batch)
    return np.concatenate([run(part) for part in parts])[: len(inputs)]


# The static graph


class _Graph(nn.Layer):
    """The network behind what makes its input, which stays NHWC where the model directory is that.

    The network is NCHW in any case, with the same weights: oneDNN fails on Paddle's NHWC.
    """

    def __init__(self, network: SqueezeNet, preprocess: Preprocess | None) -> None:
        super().__init__()
        self._transposes = preprocess is not None or network.config.data_format == "NHWC"
        self._preprocess = preprocess
        # A dropout does nothing here, but oneDNN has none: the maps would change layout for it.
        config = dataclasses.replace(network.config, data_format="NCHW", dropout=0.0)
        self.network = SqueezeNet(config)
        self.network.set_state_dict(network.state_dict())

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if self._preprocess is not None:
            x = self._normalised(x, self._preprocess)
        return self.network(x.transpose([0, 3, 1, 2]) if self._transposes else x)

    def _normalised(self, pixels: paddle.Tensor, preprocess: Preprocess) -> paddle.Tensor:
        """The arithmetic of `Preprocess.normalise`, in the same order."""
        x = pixels.astype("float32")
        if preprocess.scale != 1.0:
            x = x * preprocess.scale
        x = x - paddle.to_tensor(preprocess.mean, "float32")
        if preprocess.std != (1.0, 1.0, 1.0):
            x = x / paddle.to_tensor(preprocess.std, "float32")
        return x


def _write_paddle(
    network: SqueezeNet, what: Export, preprocess: Preprocess, folder: Path
) -> list[Path]:
    n, size = what.batch, what.input_size
    if what.with_preprocess:
        graph = _Graph(network, preprocess)
        spec = paddle.static.InputSpec([n, size, size, 3], "uint8", "pixels")
    else:
        graph = _Graph(network, None)
        spec = paddle.static.InputSpec([n, *preprocess.input_shape], "float32", "data")
    graph.eval()
    paddle.jit.save(graph, str(folder / "inference"), input_spec=[spec])
    file = next(folder / name for name in record.GRAPHS if (folder / name).is_file())
    return [file, folder / record.PARAMETERS]


def _paddle_judge(files: list[Path]) -> tuple[str, Logits]:
    from ..engines.runtimes import paddle_run

    graph, parameters = files
    return f"Paddle Inference {paddle.__version__}", paddle_run(graph, parameters, threads=1)


# ONNX


def _write_onnx(
    info: ModelInfo,
    weights: Weights,
    what: Export,
    preprocess: Preprocess,
    inputs: np.ndarray,
    folder: Path,
) -> list[Path]:
    files, statistics = [folder / record.ONNX], None
    if what.precision == "int8":
        statistics = calibrate(info.network, weights.state, inputs)
        files = [folder / record.ONNX_INT8, folder / record.STATISTICS]
        files[1].write_text(to_json(statistics), encoding="utf-8")
    size = what.input_size
    graph_input = GraphInput(size, size, what.batch, preprocess if what.with_preprocess else None)
    model = onnx_model(info.network, weights.state, graph_input, preprocess, statistics=statistics)
    files[0].write_bytes(model)
    return files


def _onnx_judge(file: Path) -> tuple[str, Logits]:
    from ..engines.load import check_installed
    from ..engines.runtimes import onnxruntime_run

    check_installed("onnxruntime", "an ONNX file is checked by ONNX Runtime")
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}", onnxruntime_run(file.read_bytes(), threads=1)


# Caffe


def _write_caffe(info: ModelInfo, weights: Weights, what: Export, folder: Path) -> list[Path]:
    size, batch = what.input_size, what.batch or 1
    files = [folder / record.PROTOTXT, folder / record.CAFFEMODEL]
    name = info.source.get("classifier_name", "conv10")  # as in the Caffe file that it came from
    preprocess = _resized(info.preprocess, size)
    prototxt = deploy_prototxt(info.network, size, size, batch, name, preprocess)
    files[0].write_text(prototxt, encoding="utf-8")
    files[1].write_bytes(caffemodel(info.network, weights.state, size, size, batch, name))
    return files


def _caffe_judge(info: ModelInfo, prototxt: Path, weights: Path) -> tuple[str, Logits]:
    from ..caffe.verify import CaffeJudge

    judge = CaffeJudge(prototxt, weights)
    last = layers(info.network)[-1].name

    def run(inputs: np.ndarray) -> np.ndarray:
        if info.network.data_format == "NHWC":
            inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
        return judge.outputs(inputs, [last])[last].reshape(len(inputs), -1)

    return f"OpenCV {cv2.__version__}", run

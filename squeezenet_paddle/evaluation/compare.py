"""Compares models or engines on one list: scores, costs, and how often they agree."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..export_record import ONNX_INT8
from ..model_dir import ModelInfo, weights_file
from ..network.config import ModelConfig, layer_table
from ..predict import Predictor
from ..run_dir import model_dir_of
from .evaluate import Evaluation
from .metrics import TOP_K

_ROUNDS = 5


@dataclass(frozen=True)
class Candidate:
    """A model directory and the engine that runs it.

    Attributes:
        model_dir: as the user named it.
        info: its description.
        engine, precision: of the computation.
    """

    model_dir: Path
    info: ModelInfo
    engine: str
    precision: str = "float32"

    @property
    def weights_bytes(self) -> int:
        """Size of the weights file."""
        if self.precision == "int8":
            return (model_dir_of(self.model_dir) / ONNX_INT8).stat().st_size
        return weights_file(self.model_dir).stat().st_size


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        model: the model directory, as the user named it.
        network: version and variant.
        engine, precision: of the computation.
        top1, top5, loss: scores on the list.
        weights_bytes: size of the weights file.
        parameters, multiply_adds: of the network, for one input.
        images_per_second: of the network alone.
        agreement: for each row of the table, this one included, the share of images that it
            gives the same class as this one.
    """

    model: str
    network: str
    engine: str
    precision: str
    top1: float
    top5: float
    loss: float
    weights_bytes: int
    parameters: int
    multiply_adds: int
    images_per_second: float
    agreement: tuple[float, ...]


def check_comparable(paths: Sequence[Path], infos: Sequence[ModelInfo]) -> None:
    """Refuses models whose class ids mean different things.

    Raises:
        InputError: the numbers of classes differ, or the names of a class.
    """
    expected = infos[0].network.num_classes
    for path, info in zip(paths, infos):
        if info.network.num_classes != expected:
            raise InputError(
                f"models of the same classes were expected; {paths[0]} has {expected} and {path} "
                f"has {info.network.num_classes}."
            )
    named = [(path, info.names) for path, info in zip(paths, infos) if info.names is not None]
    for path, names in named[1:]:
        for class_id, (one, other) in enumerate(zip(named[0][1], names)):
            if one != other:
                raise InputError(
                    f"models of the same classes were expected; class {class_id} is {one!r} in "
                    f"{named[0][0]} and {other!r} in {path}. If the ids mean the same, give the "
                    "names as `synset_word_list`."
                )


def table(
    candidates: Sequence[Candidate], evaluations: Sequence[Evaluation], rates: Sequence[float]
) -> list[Row]:
    """The table, one row per candidate.

    Args:
        candidates: what is compared.
        evaluations: the evaluation of one list by each of them.
        rates: images per second of each of them.
    """
    predicted = [evaluation.predictions.predicted for evaluation in evaluations]
    rows = []
    for candidate, evaluation, rate, own in zip(candidates, evaluations, rates, predicted):
        network, size = candidate.info.network, candidate.info.preprocess.crop_size
        scores, layers = evaluation.summary(), layer_table(network, size, size)
        rows.append(
            Row(
                model=str(candidate.model_dir),
                network=f"{variant(network)} at {size}",
                engine=candidate.engine,
                precision=candidate.precision,
                top1=scores["top1"],
                top5=scores["top5"],
                loss=scores["loss"],
                weights_bytes=candidate.weights_bytes,
                parameters=sum(row.layer.parameters for row in layers),
                multiply_adds=sum(row.multiply_adds for row in layers),
                images_per_second=rate,
                agreement=tuple(float((own == other).mean()) for other in predicted),
            )
        )
    return rows


def variant(config: ModelConfig) -> str:
    """The version and what differs from the original, e.g. "v1.1 simple bypass"."""
    parts = [f"v{config.version}"]
    parts += [f"{config.bypass} bypass"] * (config.bypass != "none")
    parts += [config.activation] * (config.activation != "relu")
    parts += [config.head] * (config.head != "conv")
    return " ".join(parts)


def measure_rates(predictors: Sequence[Predictor], batch_size: int) -> list[float]:
    """Images per second of each network alone: medians of rounds in which all take turns."""
    shapes = [(batch_size, *predictor.info.preprocess.input_shape) for predictor in predictors]
    rng = np.random.default_rng(0)
    inputs = [rng.normal(0, 50, shape).astype("float32") for shape in shapes]
    seconds = np.empty((_ROUNDS, len(predictors)))
    for times in seconds:
        for i, (predictor, batch) in enumerate(zip(predictors, inputs)):
            start = time.perf_counter()
            predictor.logits(batch)
            times[i] = time.perf_counter() - start
    return [batch_size / median for median in np.median(seconds, axis=0)]


def text(rows: Sequence[Row], k: int = TOP_K) -> str:
    """Aligned columns; `k` is what the top-5 accuracy is called, see `metrics.second_k`."""
    cells = _cells(rows, k)
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = []
    for line in cells:
        padded = [
            cell.ljust(width) if i in _WORDS else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ]
        lines.append("  ".join(padded).rstrip() + "\n")
    return "".join(lines)


def markdown(rows: Sequence[Row], k: int = TOP_K) -> str:
    """A Markdown table, as GitHub shows it."""
    head, *body = [[cell.replace("|", r"\|") for cell in line] for line in _cells(rows, k)]
    rule = [":--" if i in _WORDS else "--:" for i in range(len(head))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *body))


def as_csv(rows: Sequence[Row], k: int = TOP_K) -> str:
    """The exact numbers, under a header that is the same for any `k`."""
    names = [f"{row.model} {row.engine} {row.precision}" for row in rows]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    fields = list(Row.__dataclass_fields__)[:-1]
    writer.writerow([*fields, *(f"agreement with {name}" for name in names)])
    for row in rows:
        writer.writerow([*(getattr(row, field) for field in fields), *row.agreement])
    return stream.getvalue()


FORMATS = {"text": text, "markdown": markdown, "csv": as_csv}

_WORDS = (1, 2, 3)  # columns of words, aligned to the left


def _cells(rows: Sequence[Row], k: int) -> list[list[str]]:
    """The rows as text, under a header."""
    head = f",model,network,engine,top-1,top-{k},loss,size,parameters,multiply-adds,images/s"
    lines = [[*head.split(","), *(f"same as {i + 1}" for i in range(len(rows)))]]
    for number, row in enumerate(rows, 1):
        lines.append(
            [
                str(number),
                row.model,
                row.network,
                f"{row.engine} {row.precision}",
                f"{row.top1:.2%}",
                f"{row.top5:.2%}",
                f"{row.loss:.4f}",
                f"{row.weights_bytes / 1e6:.2f} MB",
                f"{row.parameters:,}",
                f"{row.multiply_adds / 1e6:,.0f} M",
                f"{row.images_per_second:.1f}",
                *(f"{share:.2%}" for share in row.agreement),
            ]
        )
    return lines

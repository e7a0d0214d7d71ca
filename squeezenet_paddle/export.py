"""Writes the network of a model directory for other programs, and checks what was written.

Each file is run by the program that it is for, on real pictures, before it gets its name, and its
logits are compared with those of the network in dynamic graph.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np

from . import exported, quantisation
from .engine_choice import is_installed, version_of
from .engines import DynamicEngine
from .errors import InputError, RunError
from .files import check_file_target, write_bytes
from .metrics import top_k
from .model_dir import ModelInfo, Weights, load_network, read_info, read_weights
from .onnx_writer import GraphInput, onnx_model
from .preprocess import Preprocess
from .run_dir import model_dir_of
from .runtimes import OnnxRuntimeEngine, PaddleEngine

FORMATS = ("paddle", "onnx", "caffe")
_TOLERANCE = 1e-4  # of the largest logit
_TOLERANCE_INT8 = 0.3

Logits = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Export:
    """What is to be written.

    Attributes:
        format: one of `FORMATS`.
        input_size: side of the pictures, in pixels.
        batch: pictures at a time; None for any number.
        with_preprocess: the graph takes pixels, uint8 [N, H, W, 3] in the channel order of the
            model directory, instead of what `Preprocess` makes of them.
        precision: "float32", or "int8" for the format onnx.
    """

    format: str
    input_size: int
    batch: int | None = None
    with_preprocess: bool = False
    precision: str = "float32"

    @property
    def kind(self) -> str:
        """Under which `exports.json` notes it."""
        return self.format if self.precision == "float32" else self.precision


@dataclass(frozen=True)
class Check:
    """How a written file compares with the network in dynamic graph.

    Attributes:
        judge: the program that ran it.
        pictures: how many it ran.
        difference: the largest one between two logits.
        relative: the same as a share of the largest logit.
        same_top1: for how many pictures the first class is the same.
    """

    judge: str
    pictures: int
    difference: float
    relative: float
    same_top1: int

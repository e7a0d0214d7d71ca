"""Which engine runs a model directory, and the proof that it computes the network in it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Protocol

import cv2
import numpy as np

from . import exported, reference
from .cores import Cores
from .errors import InputError, RunError
from .model_dir import WEIGHTS, ModelInfo, load_network, read_state_of
from .onnx_writer import GraphInput, onnx_model
from .runtimes import OnnxRuntimeEngine, OpenvinoEngine, PaddleEngine

# On a CPU, fastest first: what "auto" tries, in this order.
ENGINES = {
    "onnxruntime": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
    "paddle": ("float32",),
    "dynamic": ("float32",),
}
PRECISIONS = ("float32", "bfloat16", "int8")
_EXTRAS = ("onnxruntime", "openvino")  # engines that are packages of that name
_LARGEST_ERRORS = {"float32": 1e-4, "bfloat16": 0.05, "int8": 0.3}  # relative, as `error_of` has it

_log = logging.getLogger(__name__)


class Engine(Protocol):
    """A network as a function."""

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *input] -> float32 [N, num_classes]."""

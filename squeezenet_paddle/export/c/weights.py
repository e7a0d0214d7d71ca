"""The weights file of a model directory for the C code: always a .sqz, compressed or of float32."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...files import read_bytes
from ...model_dir import COMPRESSED, ModelInfo, read_weights, weights_file
from ...sqz import format as sqz
from ...sqz import reader


def weights_of(model_dir: Path, info: ModelInfo) -> tuple[bytes, dict[str, np.ndarray]]:
    """The file, and the float32 arrays by state-dict key that it holds.

    Raises:
        InputError: the weights cannot be read or do not fit config.json.
    """
    state = read_weights(model_dir, info).state
    file = weights_file(model_dir)
    if file.name == COMPRESSED:
        data = read_bytes(file, "file of weights")
        content = reader.read(data, str(file))
        if json.dumps(content.preprocess) not in ("null", json.dumps(info.preprocess.record())):
            data, _ = sqz.write(replace(content, preprocess=info.preprocess.record()))
        return data, state
    shapes = sqz.caffe_shapes(info.network)
    arrays = {}
    for key in shapes:
        values = state[key]
        is_linear = key.endswith(".weight") and values.ndim == 2
        arrays[key] = np.ascontiguousarray(values.T if is_linear else values)
    data, _ = sqz.write(sqz.Content(info.network, arrays, info.preprocess.record()))
    return data, state

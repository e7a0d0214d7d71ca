"""Where in the image the positions of a layer look."""

from __future__ import annotations

import numpy as np

from .config import ModelConfig, layers


def centers(config: ModelConfig, layer: str, count: int) -> np.ndarray:
    """float64 [count]: the pixel of the input at the center of each row (or column) of a layer.

    It is the middle of the receptive field. In conv10 it moves by 16 pixels per step, and the first
    one does not lie half a step from the edge, where resizing would put it.

    Args:
        config: which network.
        layer: "conv10" or a fire.
        count: rows (or columns) of the layer's output.
    """
    offset, step = 0.0, 1
    for each in layers(config):
        # The branches of a fire have one center: 1x1 does not move it, 3x3 is padded.
        if each.type in ("Convolution", "Pooling") and each.kernel:
            offset += ((each.kernel - 1) / 2 - each.pad) * step
            step *= each.stride
        if each.name in (layer, f"{layer}/concat"):
            break
    return offset + step * np.arange(count)

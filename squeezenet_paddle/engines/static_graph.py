"""The static graph of a network, for Paddle Inference."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import paddle
from paddle import nn

from ..data.preprocess import Preprocess
from ..export_record import GRAPHS, PARAMETERS
from ..network.config import FIRE9_CHANNELS
from ..network.model import SqueezeNet


class _Graph(nn.Layer):
    """The network behind what makes its input.

    The network is NCHW in any case, with the same weights, as oneDNN fails on Paddle's NHWC; the
    input stays NHWC where the model directory has that.
    """

    def __init__(
        self, network: SqueezeNet, preprocess: Preprocess | None, with_means: bool
    ) -> None:
        super().__init__()
        self._with_means = with_means
        self._transposes = preprocess is not None or network.config.data_format == "NHWC"
        self._preprocess = preprocess
        # A dropout does nothing here, but oneDNN has none: the maps would change layout for it.
        config = dataclasses.replace(network.config, data_format="NCHW", dropout=0.0)
        self.network = SqueezeNet(config)
        self.network.set_state_dict(network.state_dict())

    def forward(self, x: paddle.Tensor) -> paddle.Tensor | tuple[paddle.Tensor, paddle.Tensor]:
        if self._preprocess is not None:
            x = self._normalised(x, self._preprocess)
        x = x.transpose([0, 3, 1, 2]) if self._transposes else x
        if not self._with_means:
            return self.network(x)
        features = self.network.forward_features(x)
        flat = features.ndim == 2  # the means of all fires, the last one's at the end
        means = features[:, -FIRE9_CHANNELS:] if flat else features.mean([2, 3])
        return self.network.forward_head(features), means

    def _normalised(self, pixels: paddle.Tensor, preprocess: Preprocess) -> paddle.Tensor:
        """The arithmetic of `Preprocess.normalise`, in the same order."""
        x = pixels.astype("float32")
        if preprocess.scale != 1.0:
            x = x * preprocess.scale
        x = x - paddle.to_tensor(preprocess.mean_of_pixels)
        if preprocess.std != (1.0, 1.0, 1.0):
            x = x / paddle.to_tensor(preprocess.std, "float32")
        return x


def save_static_graph(
    network: SqueezeNet,
    preprocess: Preprocess,
    batch: int | None,
    with_preprocess: bool,
    folder: Path,
    with_means: bool = False,
) -> list[Path]:
    """Writes a static graph that gives logits.

    Args:
        network: in evaluation mode.
        preprocess: how an image becomes its input.
        batch: images at a time; None for any number.
        with_preprocess: take "pixels", uint8 [N, H, W, 3], instead of "data", float32.
        folder: where the files go.
        with_means: give the means of fire9's maps, too, as a second output.

    Returns:
        The file of the graph and that of the parameters.
    """
    size = preprocess.crop_size
    if with_preprocess:
        graph = _Graph(network, preprocess, with_means)
        spec = paddle.static.InputSpec([batch, size, size, 3], "uint8", "pixels")
    else:
        graph = _Graph(network, None, with_means)
        spec = paddle.static.InputSpec([batch, *preprocess.input_shape], "float32", "data")
    graph.eval()
    paddle.jit.save(graph, str(folder / "inference"), input_spec=[spec])
    file = next(folder / name for name in GRAPHS if (folder / name).is_file())
    return [file, folder / PARAMETERS]

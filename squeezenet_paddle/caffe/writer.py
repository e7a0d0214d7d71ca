"""Writes a network as Caffe's own files: deploy.prototxt and .caffemodel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from google.protobuf import text_format

from ..network.config import Layer, ModelConfig, layers
from ..network.heads import HEADS
from ..network.weights import BATCH_NORM_EPSILON, key_of
from .schema import LayerParameter, NetParameter

_ACTIVATIONS = {"relu": "ReLU", "elu": "ELU"}
_SCALE_SUFFIX = "_scale"  # Caffe does the second half of a batch normalisation in another layer


def deploy_prototxt(
    config: ModelConfig,
    height: int,
    width: int,
    batch: int = 1,
    classifier: str = "conv10",
) -> str:
    """The network as text, with an input of batch x 3 x height x width, and a softmax at the end.

    Caffe's networks are NCHW, whatever the layout of ours.

    Args:
        config: which network.
        height, width, batch: of the input.
        classifier: the name to give to conv10.
    """
    return text_format.MessageToString(_net(config, height, width, batch, classifier))


def caffemodel(
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    height: int = 227,
    width: int = 227,
    batch: int = 1,
    classifier: str = "conv10",
) -> bytes:
    """The network with its weights, in today's `layer` format.

    Args:
        config: which network.
        state: arrays by state-dict key.
        height, width, batch: of the input that the graph in the file states.
        classifier: the name to give to conv10.
    """
    net = _net(config, height, width, batch, classifier)
    messages = {message.name: message for message in net.layer}
    for layer in layers(config):
        key = key_of(layer)
        if layer.type == "BatchNorm":
            ones = np.ones(1, "float32")  # Caffe divides mean and variance by this
            _add_blobs(
                messages[layer.name], [state[f"{key}._mean"], state[f"{key}._variance"], ones]
            )
            _add_blobs(
                messages[layer.name + _SCALE_SUFFIX],
                [state[f"{key}.weight"], state[f"{key}.bias"]],
            )
        elif layer.weight_shape:
            weight = state[f"{key}.weight"]
            if layer.type == "InnerProduct":  # which is transposed in Paddle
                weight = weight.T
            name = classifier if layer.name == "conv10" else layer.name
            _add_blobs(messages[name], [weight, state[f"{key}.bias"]])
    return net.SerializeToString()


def _add_blobs(message: LayerParameter, arrays: Iterable[np.ndarray]) -> None:
    for array in arrays:
        blob = message.blobs.add()
        blob.shape.dim.extend(array.shape)
        blob.data.append(array.astype("<f4").tobytes())


def _net(config: ModelConfig, height: int, width: int, batch: int, classifier: str) -> NetParameter:
    net = NetParameter(name=f"SqueezeNet v{config.version}")
    data = net.layer.add(name="data", type="Input", top=["data"])
    data.input_param.shape.add(dim=[batch, 3, height, width])
    activation = _ACTIVATIONS[config.activation]
    chain = layers(config)
    head = HEADS[config.head]
    for layer in chain:
        if head.dropout is not None and layer.name == head.dropout_before:
            # In place, as the authors write it.
            bottoms = layer.bottoms
            drop = net.layer.add(name=head.dropout, type="Dropout", bottom=bottoms, top=bottoms)
            drop.dropout_param.dropout_ratio = config.dropout
        message = net.layer.add(
            name=layer.name, type=layer.type, bottom=layer.bottoms, top=[layer.name]
        )
        _set_param(message, layer)
        if layer.type == "BatchNorm":
            name = layer.name + _SCALE_SUFFIX
            scale = net.layer.add(name=name, type="Scale", bottom=[layer.name], top=[layer.name])
            scale.scale_param.bias_term = True
        if layer.activated:
            folder, _, last = layer.name.rpartition("/")
            name = f"{folder}/relu_{last}" if folder else f"relu_{last}"
            net.layer.add(name=name, type=activation, bottom=[layer.name], top=[layer.name])
    net.layer.add(name="prob", type="Softmax", bottom=[chain[-1].name], top=["prob"])
    for message in net.layer:
        message.bottom[:] = [classifier if name == "conv10" else name for name in message.bottom]
        message.top[:] = [classifier if name == "conv10" else name for name in message.top]
        message.name = classifier if message.name == "conv10" else message.name
    return net


def _set_param(message: LayerParameter, layer: Layer) -> None:
    if layer.type == "Convolution":
        conv = message.convolution_param
        conv.num_output = layer.channels
        conv.kernel_size.append(layer.kernel)
        if layer.stride != 1:
            conv.stride.append(layer.stride)
        if layer.pad:
            conv.pad.append(layer.pad)
    elif layer.type == "Pooling" and layer.kernel == 0:
        message.pooling_param.pool = message.pooling_param.AVE
        message.pooling_param.global_pooling = True
    elif layer.type == "Pooling":
        message.pooling_param.pool = message.pooling_param.MAX
        message.pooling_param.kernel_size = layer.kernel
        message.pooling_param.stride = layer.stride
    elif layer.type == "Eltwise":
        message.eltwise_param.operation = message.eltwise_param.SUM
    elif layer.type == "BatchNorm":
        message.batch_norm_param.use_global_stats = True
        message.batch_norm_param.eps = BATCH_NORM_EPSILON
    elif layer.type == "InnerProduct":
        message.inner_product_param.num_output = layer.channels

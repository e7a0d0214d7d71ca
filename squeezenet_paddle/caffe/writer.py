"""Writes a network as Caffe's own files: deploy.prototxt and .caffemodel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from google.protobuf import text_format

from ..architecture import Layer, ModelConfig, layers
from ..errors import InputError
from .schema import LayerParameter, NetParameter

_ACTIVATIONS = {"relu": "ReLU", "elu": "ELU"}


def deploy_prototxt(config: ModelConfig, height: int, width: int) -> str:
    """The network as text, with an input of 1x3xheightxwidth and a softmax at the end."""
    return text_format.MessageToString(_net(config, height, width))


def caffemodel(
    config: ModelConfig, state: Mapping[str, np.ndarray], height: int = 227, width: int = 227
) -> bytes:
    """The network with its weights, in today's `layer` format.

    Args:
        config: a variant with the head `conv`.
        state: arrays by state-dict key.
        height, width: of the input that the graph in the file states.
    """
    net = _net(config, height, width)
    for layer in net.layer:
        key = layer.name.replace("/", ".")
        if layer.type != "Convolution":
            continue
        for array in (state[f"{key}.weight"], state[f"{key}.bias"]):
            blob = layer.blobs.add()
            blob.shape.dim.extend(array.shape)
            blob.data.append(array.astype("<f4").tobytes())
    return net.SerializeToString()


def _net(config: ModelConfig, height: int, width: int) -> NetParameter:
    if config.head != "conv":
        raise InputError(f"only the head 'conv' is written as a Caffe file; found {config.head!r}.")
    net = NetParameter(name=f"SqueezeNet v{config.version}")
    data = net.layer.add(name="data", type="Input", top=["data"])
    data.input_param.shape.add(dim=[1, 3, height, width])
    activation = _ACTIVATIONS[config.activation]
    for layer in layers(config):
        if layer.name == "conv10":
            # In place, as the authors write it.
            drop = net.layer.add(
                name="drop9", type="Dropout", bottom=layer.bottoms, top=layer.bottoms
            )
            drop.dropout_param.dropout_ratio = config.dropout
        message = net.layer.add(
            name=layer.name, type=layer.type, bottom=layer.bottoms, top=[layer.name]
        )
        _set_param(message, layer)
        if layer.activated:
            folder, _, last = layer.name.rpartition("/")
            name = f"{folder}/relu_{last}" if folder else f"relu_{last}"
            net.layer.add(name=name, type=activation, bottom=[layer.name], top=[layer.name])
    net.layer.add(name="prob", type="Softmax", bottom=["pool10"], top=["prob"])
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

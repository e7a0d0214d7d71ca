"""The deploy form of a network, for OpenCV to run.

It is what is left of a train_val.prototxt, or of the graph in a snapshot, without the layers that
only train, and with an input of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf import text_format

from ..network.config import ModelConfig
from .reader import CaffeLayer
from .schema import NetParameter
from .topology import Graph, describe_caffe, describe_ours

_KEPT = (
    *("Convolution", "Pooling", "ReLU", "ELU", "Concat", "Eltwise", "Dropout", "Split"),
    "Softmax",
)


def is_deploy_form(caffe_layers: Sequence[CaffeLayer]) -> bool:
    """Whether OpenCV takes these layers as they are, and knows them by their names.

    They are fed through one input and compute no loss; a blob is called as the layer that makes it.
    """
    starts = [layer.type for layer in caffe_layers if not layer.bottoms]
    known = all(layer.type in ("Input", *_KEPT) for layer in caffe_layers)
    own_names = all(
        layer.tops == (layer.name,) or layer.tops == layer.bottoms or layer.type == "Split"
        for layer in caffe_layers
        if layer.bottoms
    )
    return starts == ["Input"] and known and own_names


def deploy_form(caffe_layers: Sequence[CaffeLayer], size: int) -> str:
    """The same network as a deploy.prototxt with an input of 1 x 3 x size x size."""
    net = NetParameter(name="deploy form")
    data = net.layer.add(name="input", type="Input", top=["input"])
    data.input_param.shape.add(dim=[1, 3, size, size])
    kinds = [layer.type for layer in caffe_layers]
    first = caffe_layers[kinds.index("Convolution")]
    blobs = dict.fromkeys(first.bottoms, "input")  # blob of the file -> blob of this net
    started = False
    for layer in caffe_layers:
        started = started or layer is first
        if not (started and layer.bottoms and all(name in blobs for name in layer.bottoms)):
            continue
        bottoms = [blobs[name] for name in layer.bottoms]
        if "Dropout" in layer.type and layer.type != "Dropout":
            blobs.update(dict.fromkeys(layer.tops, bottoms[0]))
        elif layer.type in _KEPT:
            # OpenCV calls a layer by its blob, where it has another name than the layer.
            alone = len(layer.tops) == 1 and layer.tops != layer.bottoms
            tops = {top: layer.name if alone else blobs.get(top, top) for top in layer.tops}
            message = net.layer.add(
                name=layer.name, type=layer.type, bottom=bottoms, top=tops.values()
            )
            for field, value in layer.message.ListFields():
                if field.name in _PARAMS:
                    getattr(message, field.name).CopyFrom(
                        type(getattr(message, field.name)).FromString(value.SerializeToString())
                    )
            blobs.update(tops)
    return text_format.MessageToString(net)


_PARAMS = (
    *("convolution_param", "pooling_param", "relu_param", "elu_param", "concat_param"),
    *("eltwise_param", "dropout_param"),
)


def layer_names(
    caffe_layers: Sequence[CaffeLayer], config: ModelConfig, convolutions: Mapping[str, str]
) -> dict[str, str]:
    """The file's name of each of our convolutions, concatenations and pools.

    Args:
        caffe_layers: a graph under the file's names.
        config: our network.
        convolutions: ours -> the file's.
    """
    theirs = {name: ours for ours, name in convolutions.items()}
    found, expected = Graph(geometry=False), Graph(geometry=False)
    describe_caffe(caffe_layers, found, lambda layer, x: theirs.get(layer.name, layer.name))
    describe_ours(config, expected)
    names = dict(convolutions)
    for name, text in expected.texts.items():
        if name not in names and text in found.layers:
            names[name] = found.layers[text]
    return names

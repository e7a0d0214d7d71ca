"""From a Caffe file to the parameters of one of our networks, each filled exactly once."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..conversion import (
    ConvertedWeights,
    blob_problems,
    check_agreement,
    check_new_classifier,
    extents,
    source_record,
)
from ..errors import InputError, describe_problems
from ..files import read_bytes, sha256
from ..network.config import (
    CHOICES,
    FIRES,
    VERSIONS,
    ModelConfig,
    layers,
)
from ..network.weights import key_of
from . import deep_compression
from .inputs import Statement, statements
from .matching import CLASSIFIER, Match, match_layers
from .reader import CaffeLayer, parse_caffemodel, read_prototxt
from .topology import check_topology


@dataclass(frozen=True)
class CaffeWeights(ConvertedWeights):
    """A Caffe file that has passed every check.

    Attributes:
        stated: what the file and its prototxts say of their input.
        names: our convolutions -> the file's.
        graph: the layers of the prototxt, or of the file where it holds its graph, under the
            file's names; empty where neither is there.
    """

    stated: tuple[Statement, ...] = ()
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    graph: tuple[CaffeLayer, ...] = ()


def read_weights(
    caffemodel: Path,
    prototxts: Sequence[Path] = (),
    version: str | None = None,
    bypass: str | None = None,
    num_classes: int | None = None,
    ignore_classifier: bool = False,
    classifier: str | None = None,
    input_size: int | None = None,
) -> CaffeWeights:
    """Reads a .caffemodel or a .net of Deep Compression and checks it, against its prototxts too.

    Needs no Paddle.

    Args:
        caffemodel: the file of weights.
        prototxts: descriptions of the network: deploy.prototxt, train_val.prototxt.
        version, bypass, num_classes: what the user expects; None takes what the file holds.
        ignore_classifier: leave the file's classifier out; `num_classes` is that of the new one.
        classifier: the name of the layer that is the classifier, where the file has several.
        input_size: what the user says of the input; None takes what the files say.

    Raises:
        InputError: a file cannot be read, is no SqueezeNet, or is not what the user expects.
    """
    check_new_classifier(ignore_classifier, num_classes)
    if ignore_classifier and classifier is not None:
        raise InputError("`classifier` names a layer that `ignore_classifier` leaves out.")
    name = str(caffemodel)
    data = read_bytes(caffemodel, "caffemodel")
    graphs = {path: read_prototxt(path) for path in prototxts}
    if caffemodel.suffix == ".net" or deep_compression.looks_like(data):
        kind, config = "Deep Compression", deep_compression.CONFIG
        stated = _stated(graphs)
        match = Match({layer.name: layer.name for layer in _convolutions(config)})
        state = deep_compression.parse(data, name)
        if ignore_classifier:
            state = {key: v for key, v in state.items() if not key.startswith(f"{CLASSIFIER}.")}
    else:
        kind = "caffemodel"
        caffe_layers = parse_caffemodel(data, name)
        connected = _connected(caffe_layers, list(graphs.values()))
        if _has_graph(caffe_layers):
            graphs = {**graphs, caffemodel: caffe_layers}
        stated = _stated({caffemodel: caffe_layers, **graphs})
        match = match_layers(connected, name, classifier, ignore_classifier)
        sizes = _sizes(stated, input_size)
        config = _fitting(match.renamed(connected), name, ignore_classifier, sizes)
        state = convert(match.renamed(caffe_layers), name, config, ignore_classifier)
    check_agreement(config, name, version=version, bypass=bypass)
    if not ignore_classifier:
        check_agreement(config, name, num_classes=num_classes)
    for path, graph in graphs.items():
        sizes = _sizes(stated, input_size)
        stated += _checked(path, graph, match, config, ignore_classifier, sizes)
    if ignore_classifier:
        assert num_classes is not None
        config = dataclasses.replace(config, num_classes=num_classes)
    theirs = match.names.get(CLASSIFIER, CLASSIFIER)
    more = {} if theirs == CLASSIFIER else {"classifier_name": theirs}
    source = source_record(kind, caffemodel, sha256(data), ignore_classifier, **more)
    notes = match.notes()
    if config.version == "1.0-nopad":
        notes.append("v1.0 whose conv10 has no pad: our version 1.0-nopad")
    graph = next(iter(graphs.values()), [])
    return CaffeWeights(
        config, state, source, tuple(notes), tuple(stated), match.names, tuple(graph)
    )


def read_config(
    caffe_layers: Sequence[CaffeLayer], source: str, ignore_classifier: bool = False
) -> ModelConfig:
    """Recognises the SqueezeNet in a Caffe file: version, bypass, activation, number of classes.

    With `ignore_classifier` the classifier may be missing; the number of classes is then 1000.

    Raises:
        InputError: conv1 is of neither version.
    """
    found = {layer.name: layer for layer in caffe_layers if layer.blobs}
    shape = found["conv1"].blobs[0].shape
    shapes = {
        name: (v.conv1_channels, 3, v.conv1_kernel, v.conv1_kernel)
        for name, v in VERSIONS.items()
        if name != "1.0-nopad"
    }
    version = next((name for name, expected in shapes.items() if expected == shape), None)
    if version is None:
        expected = " or ".join(f"{extents(s)} (v{name})" for name, s in shapes.items())
        raise InputError(
            f"{source}: not a SqueezeNet: layer 'conv1' has weights {extents(shape)}, "
            f"{expected} was expected."
        )
    types = {layer.type for layer in caffe_layers}
    if any(f"{fire}/bypass1x1" in found for fire in FIRES):
        bypass = "complex"
    else:
        bypass = "simple" if "Eltwise" in types else "none"
    config = ModelConfig(
        version=version, bypass=bypass, activation="elu" if "ELU" in types else "relu"
    )
    if ignore_classifier or CLASSIFIER not in found:
        return config
    # A wrong shape is reported with those of the other layers; its first extent will do here.
    shape = found[CLASSIFIER].blobs[0].shape
    return dataclasses.replace(config, num_classes=max(shape[0], 1) if shape else 1)


def convert(
    caffe_layers: Sequence[CaffeLayer],
    source: str,
    config: ModelConfig,
    ignore_classifier: bool = False,
) -> dict[str, np.ndarray]:
    """The state dict of the network `config` from the layers of a Caffe file, under our names.

    Layers without weights (data, loss, split) are passed over.

    Args:
        caffe_layers: as the reader returns them.
        source: what to call the file in errors.
        config: the network to fill, as `read_config` returns it.
        ignore_classifier: leave conv10 out, whatever its size.

    Returns:
        float32 arrays by state-dict key, e.g. "fire2.squeeze1x1.weight".

    Raises:
        InputError: layers are missing, unexpected, given twice, mis-shaped, not finite or not
            trained, all listed together.
    """
    ignored = CLASSIFIER if ignore_classifier else None
    expected = {layer.name: layer for layer in _convolutions(config)}
    with_blobs = [layer for layer in caffe_layers if layer.blobs]
    counts = Counter(layer.name for layer in with_blobs)
    problems = [f"{name} is missing" for name in expected if not counts[name] and name != ignored]
    problems += [f"{name} is given {n} times" for name, n in counts.items() if n > 1]
    problems += [f"{name} is unexpected" for name in counts if name not in expected]
    state: dict[str, np.ndarray] = {}
    for layer in with_blobs:
        if layer.name in expected and layer.name != ignored:
            problems += _fill(state, layer, expected[layer.name].weight_shape)
    if problems:
        raise InputError(
            f"{source}: its weights do not fit SqueezeNet v{config.version} with bypass "
            f"{config.bypass} and {config.num_classes} classes: {describe_problems(problems)}."
        )
    return state


def _convolutions(config: ModelConfig) -> list:
    return [layer for layer in layers(config) if layer.weight_shape]


def _fill(
    state: dict[str, np.ndarray], layer: CaffeLayer, weight_shape: tuple[int, ...]
) -> list[str]:
    """Adds the weight and the bias of a layer to `state`; returns what is wrong with them."""
    if len(layer.blobs) != 2:
        return [f"{layer.name} has {len(layer.blobs)} blobs, a weight and a bias were expected"]
    problems = blob_problems(layer.name, *layer.blobs, weight_shape)
    if not problems:
        weight, bias = layer.blobs
        key = key_of(layer.name)
        state[f"{key}.weight"] = weight
        state[f"{key}.bias"] = bias.reshape(len(weight))
    return problems


def _has_graph(caffe_layers: Sequence[CaffeLayer]) -> bool:
    return any(layer.bottoms for layer in caffe_layers if layer.blobs)


def _connected(
    caffe_layers: Sequence[CaffeLayer], described: Sequence[Sequence[CaffeLayer]]
) -> list[CaffeLayer]:
    """Layers with weights and connections: the file's, else those of a prototxt with its blobs."""
    if _has_graph(caffe_layers) or not described:
        return list(caffe_layers)
    blobs = {layer.name: layer.blobs for layer in caffe_layers}
    named = {layer.name for layer in described[0]}
    return [
        *(dataclasses.replace(each, blobs=blobs.get(each.name, ())) for each in described[0]),
        *(layer for layer in caffe_layers if layer.blobs and layer.name not in named),
    ]


def _stated(graphs: Mapping[Path, Sequence[CaffeLayer]]) -> list[Statement]:
    """What all files say of the input."""
    return [each for path, graph in graphs.items() for each in statements(graph, path.name)]


def _checked(
    path: Path,
    graph: Sequence[CaffeLayer],
    match: Match,
    config: ModelConfig,
    ignore_classifier: bool,
    sizes: Sequence[int],
) -> list[Statement]:
    """Compares a file's graph with ours; returns the input size if only its last pool tells it."""
    try:
        renamed = match.renamed(graph)
        size = check_topology(renamed, config, str(path), ignore_classifier, sizes)
    except InputError as error:
        theirs = match.names.get(CLASSIFIER, CLASSIFIER)
        if theirs == CLASSIFIER:
            raise
        text = str(error).rstrip(".")
        raise InputError(f"{text} (conv10 is {theirs!r} in the file of weights).") from error
    if size is None or len(sizes) == 1:
        return []
    return [Statement("crop_size", size, f"the kernel of the last pool of {path.name}")]


def _fitting(
    caffe_layers: Sequence[CaffeLayer], source: str, ignore_classifier: bool, sizes: Sequence[int]
) -> ModelConfig:
    """The variant that fits the graph; the likeliest one where none does, or there is no graph."""
    likeliest = read_config(caffe_layers, source, ignore_classifier)
    if not _has_graph(caffe_layers):
        return likeliest
    versions = [likeliest.version, *(["1.0-nopad"] if likeliest.version == "1.0" else [])]
    others = itertools.product(versions, CHOICES["bypass"], CHOICES["activation"])
    for version, bypass, activation in [
        (likeliest.version, likeliest.bypass, likeliest.activation),
        *others,
    ]:
        config = dataclasses.replace(
            likeliest, version=version, bypass=bypass, activation=activation
        )
        try:
            check_topology(caffe_layers, config, source, ignore_classifier, sizes)
        except InputError:
            continue
        return config
    return likeliest


def _sizes(stated: Sequence[Statement], input_size: int | None) -> list[int]:
    """The input sizes that the files may be for."""
    if input_size is not None:
        return [input_size]
    return list({each.value: None for each in stated if each.name == "crop_size"}) or [227, 224]

"""Finds out which convolution of a Caffe file is which of ours, whatever their names.

Names are tried first: Caffe's, and those of the published Deep Compression and DSD prototxts. Where
they do not name all convolutions of the trunk, the graph is walked from the input: a convolution
is the one of ours that reads the same, with as many outputs and as large a kernel. The classifier
may have any name, as fine-tuning in Caffe asks for a new one: it is what reads fire9.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..conversion import extents
from ..errors import SHOWN, InputError, describe_problems
from ..network.config import CHOICES, VERSIONS, ModelConfig, layers
from .reader import CaffeLayer
from .topology import Graph, describe_caffe, input_texts

CLASSIFIER = "conv10"
_PARTS = {"conv1x1_1": "squeeze1x1", "conv1x1_2": "expand1x1", "conv3x3_2": "expand3x3"}


@dataclass(frozen=True)
class Match:
    """Which layers of a file are ours.

    Attributes:
        names: ours -> the file's, of the trunk and of the classifier, if there is one.
        by_structure: whether names were of no use.
        dropped: names of layers with weights that are left out, where the user chose the
            classifier.
    """

    names: dict[str, str]
    by_structure: bool = False
    dropped: tuple[str, ...] = ()

    def renamed(self, caffe_layers: Sequence[CaffeLayer]) -> list[CaffeLayer]:
        """The layers under our names, without those that are left out."""
        ours = {theirs: name for name, theirs in self.names.items()}
        return [
            dataclasses.replace(layer, name=ours.get(layer.name, layer.name))
            for layer in caffe_layers
            if layer.name not in self.dropped
        ]

    def notes(self) -> list[str]:
        """What the user should know of it."""
        notes = []
        if self.by_structure:
            pairs = ", ".join(f"{name} = {theirs}" for name, theirs in self.names.items())
            notes.append(f"layers found by the structure of the graph: {pairs}")
        elif self.names.get(CLASSIFIER, CLASSIFIER) != CLASSIFIER:
            notes.append(f"classifier: {self.names[CLASSIFIER]}")
        if self.dropped:
            notes.append(f"left out: {', '.join(self.dropped)}")
        return notes


def match_layers(
    caffe_layers: Sequence[CaffeLayer],
    source: str,
    classifier: str | None = None,
    ignore_classifier: bool = False,
) -> Match:
    """Finds our convolutions among the layers of a file.

    A file whose layers bear our names gives a match even if other things are wrong with it, which
    the checks of weights and graph report.

    Args:
        caffe_layers: of a caffemodel, with their graph if the file or a prototxt has it.
        source: what to call the file in errors.
        classifier: the name of the file's layer that the user chose.
        ignore_classifier: look for the trunk alone.

    Raises:
        InputError: it is no SqueezeNet, or there are two ways to match it.
    """
    with_blobs = [layer for layer in caffe_layers if layer.blobs]
    _refuse_grey(with_blobs, source)
    match = _by_name(with_blobs)
    trunk = _trunk(ModelConfig())
    missing = [name for name in trunk if name not in match.names]
    if missing and any(layer.bottoms for layer in with_blobs):
        by_structure = _by_structure(caffe_layers, source)
        if by_structure is not None:
            match, missing = by_structure, []
    if missing and (len(missing) > len(trunk) // 2 or "conv1" in missing):
        raise InputError(_not_a_squeezenet(caffe_layers, source))
    _refuse_types(caffe_layers, match, source)
    if ignore_classifier:
        names = {name: theirs for name, theirs in match.names.items() if name != CLASSIFIER}
        rest = [layer.name for layer in with_blobs if layer.name not in names.values()]
        return Match(names, match.by_structure, tuple(rest))
    return _with_classifier(match, caffe_layers, source, classifier)


def known_name(name: str) -> str:
    """Our name for a layer of the published prototxts; other names are returned as they are."""
    if name == "conv_final":
        return CLASSIFIER
    fire, _, part = name.partition("/")
    return f"{fire}/{_PARTS[part]}" if re.fullmatch("fire[2-9]", fire) and part in _PARTS else name


def _trunk(config: ModelConfig) -> list[str]:
    return [each.name for each in layers(config) if each.weight_shape and each.stage != "head"]


def _by_name(with_blobs: Sequence[CaffeLayer]) -> Match:
    ours = {CLASSIFIER, *_trunk(ModelConfig(bypass="complex"))}
    names: dict[str, str] = {}
    for layer in with_blobs:
        name = known_name(layer.name)
        if name in ours:
            names.setdefault(name, layer.name)
    return Match(names)


def _by_structure(caffe_layers: Sequence[CaffeLayer], source: str) -> Match | None:
    """The match of the graph with the trunk of some SqueezeNet; None where there is none."""
    for config in _configs():
        walk = _walk(caffe_layers, config)
        if all(name in walk.names for name in _trunk(config)):
            if walk.doubts:
                raise InputError(
                    f"{source}: two ways to match it: {describe_problems(walk.doubts)}."
                )
            order = [name for name in _trunk(config) if name in walk.names]
            return Match({name: walk.names[name] for name in order}, by_structure=True)
    return None


def _configs() -> list[ModelConfig]:
    return [
        ModelConfig(version=version, bypass=bypass, activation=activation)
        for version, bypass, activation in itertools.product(
            ("1.1", "1.0"), CHOICES["bypass"], CHOICES["activation"]
        )
    ]


@dataclass
class _Walk:
    """A walk along the graph of a file.

    Attributes:
        names: ours -> the file's.
        doubts: pairs of layers that could both be one of ours.
        reads: of each convolution of the file that is none of ours, what it reads.
    """

    names: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    reads: dict[str, str] = field(default_factory=dict)


def _walk(caffe_layers: Sequence[CaffeLayer], config: ModelConfig) -> _Walk:
    graph = Graph(geometry=_has_geometry(caffe_layers))
    inputs = input_texts(config, graph.geometry)
    ours = {
        (inputs[each.name], each.channels, each.kernel): each.name
        for each in layers(config)
        if each.weight_shape and each.name != CLASSIFIER
    }
    own_names = {known_name(layer.name) for layer in caffe_layers if layer.blobs}
    walk = _Walk()

    def rename(layer: CaffeLayer, x: str) -> str:
        shape = layer.blobs[0].shape if layer.blobs else ()
        name = ours.get((x, shape[0], shape[-1]) if len(shape) == 4 else ("", 0, 0))
        if name is None or (name in own_names and known_name(layer.name) != name):
            walk.reads[layer.name] = x
            return layer.name
        if name in walk.names:
            walk.doubts.append(f"{name} could be {walk.names[name]!r} or {layer.name!r}")
            return layer.name
        walk.names[name] = layer.name
        return name

    describe_caffe(caffe_layers, graph, rename)
    return walk


def _has_geometry(caffe_layers: Sequence[CaffeLayer]) -> bool:
    return any(
        layer.type == "Convolution" and layer.message.HasField("convolution_param")
        for layer in caffe_layers
    )


def _with_classifier(
    match: Match, caffe_layers: Sequence[CaffeLayer], source: str, chosen: str | None
) -> Match:
    """Adds the classifier to a match of the trunk."""
    trunk = {name: theirs for name, theirs in match.names.items() if name != CLASSIFIER}
    others = [layer for layer in caffe_layers if layer.blobs and layer.name not in trunk.values()]
    if chosen is not None:
        if chosen not in [layer.name for layer in others]:
            raise InputError(
                f"`classifier` {chosen}: {source} has no such layer after fire9; it has "
                f"{_listed(others)}."
            )
        dropped = tuple(layer.name for layer in others if layer.name != chosen)
        return Match({**trunk, CLASSIFIER: chosen}, match.by_structure, dropped)
    candidates = _reading_fire9(Match(trunk), caffe_layers, others)
    if not candidates:  # no graph, or one that the check of the graph will refuse
        candidates = [layer for layer in others if layer.name == match.names.get(CLASSIFIER)]
    if not candidates:
        candidates = [layer for layer in others if _is_classifier_shape(layer)]
    names = dict.fromkeys(layer.name for layer in candidates)
    if len(names) > 1:
        raise InputError(
            f"{source}: several layers could be the classifier: {_listed(candidates)}; "
            "`classifier` NAME takes one of them, `ignore_classifier` none."
        )
    if not names:
        raise InputError(
            f"{source}: no classifier, a 1x1 convolution that reads fire9's 512 maps; after fire9 "
            f"it has {_listed(others)}; `ignore_classifier` takes the trunk alone."
        )
    return Match({**trunk, CLASSIFIER: candidates[0].name}, match.by_structure)


def _reading_fire9(
    match: Match, caffe_layers: Sequence[CaffeLayer], others: Sequence[CaffeLayer]
) -> list[CaffeLayer]:
    """The 1x1 convolutions that read fire9's output, by the graph."""
    renamed = match.renamed(caffe_layers)
    for config in _configs():
        graph = Graph(geometry=_has_geometry(caffe_layers))
        describe_caffe(renamed, graph)
        fire9 = input_texts(config, graph.geometry)[CLASSIFIER]
        found = [
            layer
            for layer in others
            if graph.reads.get(layer.name) == fire9 and _is_classifier_shape(layer)
        ]
        if found:
            return found
    return []


def _is_classifier_shape(layer: CaffeLayer) -> bool:
    shape = layer.blobs[0].shape
    return len(shape) == 4 and shape[1:] == (512, 1, 1) and layer.type in ("Convolution", "")


def _listed(caffe_layers: Sequence[CaffeLayer]) -> str:
    texts = [
        f"{layer.name!r} ({layer.type or 'no type'}, {extents(layer.blobs[0].shape)})"
        for layer in caffe_layers
    ]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more or "no layer with weights"


def _refuse_grey(with_blobs: Sequence[CaffeLayer], source: str) -> None:
    shape = with_blobs[0].blobs[0].shape if with_blobs else ()
    first = [(v.conv1_channels, v.conv1_kernel) for v in VERSIONS.values()]
    if len(shape) == 4 and (shape[0], shape[-1]) in first and shape[1] in (1, 2, 4):
        kind = "grey images, of 1 channel" if shape[1] == 1 else f"images of {shape[1]} channels"
        raise InputError(
            f"{source}: layer {with_blobs[0].name!r} reads {kind}; only 3 (colour) are supported."
        )


def _refuse_types(caffe_layers: Sequence[CaffeLayer], match: Match, source: str) -> None:
    wrong = [
        f"{layer.name!r} is of the type {layer.type}"
        for layer in caffe_layers
        if layer.name in match.names.values() and layer.type not in ("Convolution", "")
    ]
    if wrong:
        raise InputError(
            f"{source}: not a SqueezeNet as it can be converted: its layer "
            f"{describe_problems(wrong)}, where Convolution was expected."
        )


def _not_a_squeezenet(caffe_layers: Sequence[CaffeLayer], source: str) -> str:
    """What was found in a file that is no SqueezeNet: how far it is one, and what comes then."""
    with_blobs = [layer for layer in caffe_layers if layer.blobs]
    if not with_blobs:
        return f"{source}: not a caffemodel with weights: none of its layers has any."
    walks = [(config, _walk(caffe_layers, config)) for config in _configs()]
    config, best = max(walks, key=lambda each: len(each[1].names))
    odd = [layer for layer in with_blobs if layer.type not in (*_TYPES_WITH_WEIGHTS, "")]
    if odd:
        return (
            f"{source}: not a SqueezeNet as it can be converted: layer {odd[0].name!r} is of the "
            f"type {odd[0].type}, which is unknown."
        )
    if not best.names:
        first = with_blobs[0]
        shapes = " or ".join(
            f"{v.conv1_channels}x3x{v.conv1_kernel}x{v.conv1_kernel} (v{name})"
            for name, v in VERSIONS.items()
            if name in ("1.0", "1.1")
        )
        return (
            f"{source}: not a SqueezeNet: its first layer with weights is "
            f"{_listed([first])}; conv1 of {shapes} was expected."
        )
    missing = next(name for name in _trunk(config) if name not in best.names)
    graph_input = input_texts(config, _has_geometry(caffe_layers))[missing]
    wanted = next(each for each in layers(config) if each.name == missing)
    reading = [layer for layer in with_blobs if best.reads.get(layer.name) == graph_input]
    rest = [layer for layer in with_blobs if layer.name not in best.names.values()]
    return (
        f"{source}: not a SqueezeNet v{config.version}: {len(best.names)} of its layers match, "
        f"then {missing} ({extents(wanted.weight_shape)}) was expected on {graph_input}; found "
        f"{_listed((reading or rest)[:3])}."
    )


_TYPES_WITH_WEIGHTS = (
    *("Convolution", "InnerProduct", "BatchNorm", "Scale", "Bias", "PReLU", "Deconvolution"),
    *("Normalize", "ConvolutionDepthwise", "Embed", "LSTM", "RNN", "Parameter"),
)

"""Assembles squeezenet.h and squeezenet.c for a network, its preprocessing and its calibration."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from string import Template

import numpy as np

from ...data.preprocess import LONGEST_SIDE
from ...model_dir import ModelInfo
from ...network.centers import centers
from ...network.config import FIRE9_CHANNELS, ModelConfig, layers, output_shapes
from ...network.heads import HEADS
from .layers import MAX_BLOCKS, Code, code_of

SOURCE = Path(__file__).parent / "source"
_MAX_SIDE = 1 << 24  # of an image


def template(name: str, **values: object) -> str:
    """A file of the folder `source`, filled in."""
    return Template((SOURCE / name).read_text(encoding="utf-8")).substitute(values)


def title(info: ModelInfo) -> str:
    """What the network is, in a line."""
    config = info.network
    variant = "" if config.bypass == "none" else f", bypass {config.bypass}"
    return (
        f"SqueezeNet v{config.version}{variant}, head {config.head}, "
        f"{config.num_classes} class{'es' * (config.num_classes > 1)}"
    )


def header(info: ModelInfo, arena: str) -> str:
    """The contents of squeezenet.h; `arena` is the size of the arena in words."""
    calibration = info.calibration
    interleaved = info.preprocess.data_format == "NHWC"
    return template(
        "squeezenet.h",
        title=title(info),
        arena=arena,
        classes=info.network.num_classes,
        side=info.preprocess.crop_size,
        layout="row by row, pixel by pixel" if interleaved else "channel by channel, row by row",
        calibrated=int(calibration is not None),
        temperature=_float(1.0 if calibration is None else calibration.temperature),
        threshold=repr(0.0 if calibration is None else calibration.threshold),
    )


def code(info: ModelInfo) -> Code:
    """What depends on the network."""
    side = info.preprocess.crop_size
    return code_of(info.network, side, scratch=20 * side + 16)


def source(info: ModelInfo) -> str:
    """The contents of squeezenet.c."""
    preprocess, head = info.preprocess, HEADS[info.network.head]
    parts = code(info)
    calibrated = info.calibration is not None
    resizes = {
        "cubic": ["resize_cubic.c", "resize_cubic_small.c"],
        "linear": ["resize_whole.c", "resize_linear.c"],
        "area": ["resize_whole.c", "resize_linear.c", "resize_area.c"],
    }
    text = [
        _opening(info),
        _fixed("kernels.c"),
        *[_fixed("bypass.c")] * (info.network.bypass != "none"),
        *[_fixed("normalise.c")] * any(x.type == "BatchNorm" for x in layers(info.network)),
        *[_fixed("linear.c")] * (head.classifier == "fc"),
        "".join(f"CONVOLUTION({step})\n" for step in parts.steps),
        _fixed("kernels_end.c"),
        parts.arrays,
        _descriptions(info),
        _fixed("reader.c"),
        _fixed("pixels.c"),
        *map(_fixed, resizes[preprocess.interpolation]),
        _fixed("input.c"),
        parts.memory,
        _fixed("net.c"),
        *[_fixed("pools_fires.c")] * head.pools_fires,
        parts.forward,
        _fixed("api.c"),
        _fixed("map_pools.c" if head.pools_fires else "map_conv10.c"),
        _fixed("familiarity.c" if calibrated else "uncalibrated.c"),
        _tables(info),
    ]
    return "\n".join(each.strip("\n") + "\n" for each in text if each)


def _fixed(name: str) -> str:
    return (SOURCE / name).read_text(encoding="utf-8")


def _opening(info: ModelInfo) -> str:
    config, preprocess, calibration = info.network, info.preprocess, info.calibration
    head = HEADS[config.head]
    defines: dict[str, object] = {
        "ELU": int(config.activation == "elu"),
        "POOLS_FIRES": int(head.pools_fires),
        "FIRE9_CHANNELS": FIRE9_CHANNELS,
        "MAX_BLOCKS": MAX_BLOCKS,
    }
    normalised = next((x for x in layers(config) if x.type == "BatchNorm"), None)
    if normalised is not None:
        name = "BN_POOLS" if head.pools_fires else "BN9"
        arrays = (f"w + {name}_{array}" for array in ("WEIGHT", "BIAS", "MEAN", "VARIANCE"))
        defines["NORMALISED"] = ", ".join([*arrays, str(normalised.channels)])
    if head.pools_fires:
        [units] = [x.channels for x in layers(config) if x.name == "fc10"]
        defines.update(POOLS=normalised.channels if normalised else 0, UNITS=units)
    else:
        defines.update(_conv10(config, preprocess.crop_size))
    defines.update(
        {
            "NAMED": int(info.names is not None),
            "INTERLEAVED": int(preprocess.data_format == "NHWC"),
            "RED_FIRST": int(preprocess.channel_order == "RGB"),
            "MEAN_IMAGE": int(preprocess.mean_image is not None),
            "SHORT_SIDE": int(preprocess.resize == "short_side"),
            "CUBIC": int(preprocess.interpolation == "cubic"),
            "AREA": int(preprocess.interpolation == "area"),
            "RESIZE_SIZE": preprocess.resize_size,
            "MAX_SIDE": _MAX_SIDE,
            "LONGEST": LONGEST_SIDE,
            "SCALE": _float(preprocess.scale),
            "MEAN": "{" + ", ".join(map(_float, preprocess.mean)) + "}",
            "STD": "{" + ", ".join(map(_float, preprocess.std)) + "}",
        }
    )
    declared = []
    if preprocess.mean_image is not None:
        declared.append("static const float mean_image[3 * SQZ_SIDE * SQZ_SIDE];")
    if calibration is not None:
        familiarity = calibration.familiarity
        count = familiarity.prototypes.shape[1]
        groups, terms = len(familiarity.groups), familiarity.center.shape[1]
        defines.update(
            PROTOTYPES=count,
            GROUPS=groups,
            KNOWN=len(familiarity.known),
            AXES=len(familiarity.axes),
            TERMS=terms,
            GROUP_SCALE=_float(float(familiarity.group_scale)),
        )
        declared += [
            "static const unsigned char prototypes[SQZ_CLASSES * PROTOTYPES * FIRE9_CHANNELS];",
            "static const double center[SQZ_CLASSES * TERMS], spread[SQZ_CLASSES * TERMS];",
        ]
        if groups:
            declared += [
                "static const signed char groups[GROUPS * FIRE9_CHANNELS];",
                "static const double group_sizes[GROUPS], usual[SQZ_CLASSES * GROUPS];",
            ]
        if len(familiarity.axes):
            declared += [
                "static const float axes[AXES * FIRE9_CHANNELS];",
                "static const double places[SQZ_CLASSES * AXES], middle[AXES], narrowing[AXES];",
            ]
        if len(familiarity.known):
            declared.append("static const double known[GROUPS];")
    if info.names is not None:
        declared.append("static const char *const names[SQZ_CLASSES];")
    return template(
        "opening.c",
        title=title(info),
        defines="".join(f"#define {name} {value}\n" for name, value in defines.items()),
        declared="".join(f"{line}\n" for line in declared),
    )


def _conv10(config: ModelConfig, side: int) -> dict[str, object]:
    shapes = output_shapes(config, side, side)
    [layer] = [x for x in layers(config) if x.name == "conv10"]
    channels, height, width = shapes["conv10"]
    first, second = centers(config, "conv10", 2).tolist()
    return {
        "CONV10": channels,
        "CONV10_HEIGHT": height - 2 * layer.pad,
        "CONV10_WIDTH": width - 2 * layer.pad,
        "CONV10_PAD": layer.pad,
        "CONV10_OFFSET": first,
        "CONV10_STEP": second - first,
    }


def _descriptions(info: ModelInfo) -> str:
    """The lines that a weights file of this network and preprocessing has."""
    network = dataclasses.asdict(info.network)
    del network["dropout"]  # which is for training
    lines = [(f"network.{key}", value) for key, value in network.items()]
    lines += [(f"preprocess.{key}", value) for key, value in info.preprocess.record().items()]
    texts = "".join(
        f"    {_string(f'{key} {json.dumps(value, ensure_ascii=False)}')},\n"
        for key, value in lines
    )
    return (
        "/* What a weights file of this network says. */\n"
        f"#define NETWORK_LINES {len(network)}\n"
        f"static const char *const description[] = {{\n{texts}}};\n"
    )


def _tables(info: ModelInfo) -> str:
    """Numbers and names, at the end, where they hide nothing."""
    parts = []
    if info.names is not None:
        names = "".join(f"    {_string(name)},\n" for name in info.names)
        parts.append(f"static const char *const names[SQZ_CLASSES] = {{\n{names}}};\n")
    if info.preprocess.mean_image is not None:
        parts.append(
            _array("float", "mean_image", map(_float, info.preprocess.mean_of_pixels.ravel()))
        )
    if info.calibration is not None:
        f = info.calibration.familiarity
        parts.append(_array("unsigned char", "prototypes", map(str, f.prototypes.ravel().tolist())))
        arrays = {"center": f.center, "spread": f.spread}
        if len(f.groups):
            parts.append(_array("signed char", "groups", map(str, f.groups.ravel().tolist())))
            arrays.update(group_sizes=f.group_sizes, usual=f.usual)
        if len(f.axes):
            parts.append(_array("float", "axes", map(_float, f.axes.ravel())))
            arrays.update(places=f.places, middle=f.middle, narrowing=f.narrowing)
        if len(f.known):
            arrays["known"] = f.known
        parts += [
            _array("double", name, map(repr, values.astype("float64").ravel().tolist()))
            for name, values in arrays.items()
        ]
    return "\n".join(parts)


def _array(kind: str, name: str, numbers: Iterable[str]) -> str:
    lines, line = [], "   "
    for number in numbers:
        if len(line) + len(number) > 97:
            lines.append(line)
            line = "   "
        line += f" {number},"
    return "\n".join([f"static const {kind} {name}[] = {{", *lines, line, "};", ""])


def _float(value: float) -> str:
    """A float32 in C."""
    text = repr(float(f"{np.float32(value):.9g}"))
    return f"{text}f"


def _string(text: str) -> str:
    """A string literal in UTF-8; bytes that are no text come from names of folders."""
    out = ""
    for char in text.encode("utf-8", "surrogateescape"):
        plain = 32 <= char < 127 and chr(char) not in '\\"?'
        out += chr(char) if plain else f"\\{char:03o}"
    return f'"{out}"'

"""Writes the folder of the C code: sources, weights, a program, images to check a build by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...export.description import describe
from ...files import atomic_directory, check_directory
from ...model_dir import ModelInfo
from ...network import numpy_forward
from ...network.config import layer_table
from . import generate
from .weights import weights_of

WEIGHTS = "model.sqz"
REQUIRED = ("squeezenet.c", "squeezenet.h", "main.c", "Makefile", "README.md", WEIGHTS, "golden")
OPTIONAL = ("model.c", "squeezenet")  # that which make makes, too
GOLDEN = 3  # pictures to check by
_GOLDEN_PIXELS = 512  # of the longer side of such a picture, at most


@dataclass(frozen=True)
class CFolder:
    """What was written.

    Attributes:
        folder: where.
        weights: bytes of the weights file.
        weights_memory, maps_memory: bytes of the arena that weights and maps take, about.
    """

    folder: Path
    weights: int
    weights_memory: int
    maps_memory: int


def check_target(folder: Path) -> None:
    """Refuses a folder that `write_c` would refuse, before any work is done.

    Raises:
        InputError: it cannot be written, or holds something other than such a folder.
    """
    check_directory(folder, REQUIRED, OPTIONAL)


def write_c(
    model_dir: Path,
    info: ModelInfo,
    folder: Path,
    images: Sequence[np.ndarray],
    embed: bool = False,
) -> CFolder:
    """Writes the C code of a model directory.

    Args:
        model_dir: as `model_dir.py` describes it.
        info: its description.
        folder: where; one that was written before is replaced, anything else is left alone.
        images: uint8 [H, W, 3] in BGR, of which the first `GOLDEN` become pictures to check by.
        embed: also write the weights as an array, model.c, and build the program with it.

    Raises:
        InputError: the weights cannot be read, or the folder cannot be written.
    """
    data, state = weights_of(model_dir, info)
    maps = 4 * generate.code(info).maps
    weights = 4 * sum(map(np.size, state.values()))
    golden = [_smaller(image) for image in images[:GOLDEN]]
    with atomic_directory(folder, REQUIRED, OPTIONAL) as temporary:
        texts = {
            "squeezenet.h": generate.header(info, _megabytes(weights + maps)),
            "squeezenet.c": generate.source(info),
            "main.c": (generate.SOURCE / "main.c").read_text(encoding="utf-8"),
            "Makefile": generate.template(
                "Makefile",
                golden=len(golden),
                embedded_files=" model.c" * embed,
                embedded_flag=" -DSQZ_EMBEDDED" * embed,
            ),
            "README.md": _readme(info, weights, maps, embed),
        }
        if embed:
            texts["model.c"] = _embedded(data)
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        (temporary / WEIGHTS).write_bytes(data)
        _write_golden(temporary / "golden", info, state, golden)
    return CFolder(folder, len(data), weights, maps)


def _write_golden(
    folder: Path, info: ModelInfo, state: dict[str, np.ndarray], images: Sequence[np.ndarray]
) -> None:
    folder.mkdir()
    check = (generate.SOURCE / "check.c").read_text(encoding="utf-8")
    (folder / "check.c").write_text(check, encoding="utf-8")
    for i, image in enumerate(images):
        height, width = image.shape[:2]
        pixels = np.ascontiguousarray(image[:, :, ::-1]).tobytes()
        (folder / f"{i}.ppm").write_bytes(f"P6\n{width} {height}\n255\n".encode() + pixels)
        x = info.preprocess(image)
        (folder / f"{i}.input").write_bytes(x.astype("<f4").tobytes())
        logits = numpy_forward.logits(info.network, state, x)
        (folder / f"{i}.logits").write_bytes(logits.astype("<f4").tobytes())


def _smaller(image: np.ndarray) -> np.ndarray:
    """The middle of an image, so that a folder stays small."""
    top, left = (max(0, (n - _GOLDEN_PIXELS) // 2) for n in image.shape[:2])
    return image[top : top + _GOLDEN_PIXELS, left : left + _GOLDEN_PIXELS]


def _embedded(data: bytes) -> str:
    lines = [", ".join(map(str, data[at : at + 24])) for at in range(0, len(data), 24)]
    numbers = ",\n    ".join(lines)
    return (
        f"/* {WEIGHTS} as an array. */\n\n#include <stddef.h>\n\n"
        "extern const unsigned char model_sqz[];\nextern const size_t model_sqz_bytes;\n\n"
        f"const unsigned char model_sqz[] = {{\n    {numbers}\n}};\n"
        "const size_t model_sqz_bytes = sizeof model_sqz;\n"
    )


def _readme(info: ModelInfo, weights: int, maps: int, embed: bool) -> str:
    preprocess, calibration = info.preprocess, info.calibration
    rows = layer_table(info.network, preprocess.crop_size, preprocess.crop_size)
    steps = describe("onnx", preprocess, info.network.num_classes)["steps"][1:-1]
    output = f"{info.network.num_classes} logits; probabilities are their softmax"
    if calibration is not None:
        output += (
            f" at the temperature {calibration.temperature:.3g}; an image whose familiarity is "
            f"below {calibration.threshold:.3g} is none of the classes"
        )
    rounds_otherwise = (preprocess.resize, preprocess.interpolation) == ("short_side", "cubic")
    return generate.template(
        "README.md",
        title=generate.title(info),
        embedded=" and, for the program, in `model.c`" * embed,
        preprocessing="; ".join(steps),
        multiply_adds=round(sum(row.multiply_adds for row in rows) / 1e6),
        arena=_megabytes(weights + maps),
        weights=_megabytes(weights),
        maps=_megabytes(maps),
        output=output,
        source=info.source.get("file", "config.json of the model directory says it"),
        pixels_note=", but for 4 values in a million that differ by 1" * rounds_otherwise,
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"

"""Writes the page of a model directory, after its engine gave the network's logits."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ... import export_record as record
from ...errors import RunError
from ...files import write_text
from ...model_dir import ModelInfo, read_weights
from ...network import numpy_forward
from ...run_dir import model_dir_of
from ..c.weights import weights_of
from ..export import CHECKED_IMAGES, Result
from .about import about
from .engine import engine
from .page import page

_LARGEST_ERROR = 1e-2  # of the largest logit: a resized pixel may round to its neighbour


def write_page(
    model_dir: Path, info: ModelInfo, images: Sequence[np.ndarray], output_dir: Path
) -> Result:
    """Writes model.html.

    Args:
        model_dir: as `model_dir.py` describes it.
        info: its description.
        images: decoded images to check the engine on, uint8 [H, W, 3] in BGR.
        output_dir: where the page goes.

    Raises:
        InputError: the weights cannot be read, or the page cannot be written.
        RunError: the engine cannot be compiled or does not compute the network; nothing is written.
    """
    import jinja2  # noqa: F401  what is missing is told before the work
    import wasmtime  # noqa: F401
    import ziglang  # noqa: F401

    from .judge import Engine

    data, state = weights_of(model_dir, info)
    code = engine(info)
    run = Engine(code, data)
    checked = images[:CHECKED_IMAGES]
    found = np.stack([run.logits(image) for image in checked])
    inputs = (info.preprocess(image) for image in checked)
    expected = np.stack([numpy_forward.logits(info.network, state, x) for x in inputs])
    difference = float(np.abs(found - expected).max())
    largest = float(np.abs(expected).max())
    target = output_dir / record.PAGE
    result = Result(
        [target],
        f"wasmtime {version('wasmtime')}",
        len(checked),
        difference,
        difference / largest if largest else difference,
        int((found.argmax(axis=1) == expected.argmax(axis=1)).sum()),
        0,
    )
    if not result.relative <= _LARGEST_ERROR:
        raise RunError(
            f"the engine of the page gives other logits than the network: they differ by "
            f"{result.relative:.2g} of the largest one; nothing was written."
        )
    text = page(_title(model_dir), info, about(info, len(data)), code, data)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_text(target, text)
    entry = {
        "fingerprint": read_weights(model_dir, info).fingerprint,
        "input_size": info.preprocess.crop_size,
        "check": result.record(),
    }
    record.add_record(output_dir, "html", entry, [target.name])
    return result


def _title(model_dir: Path) -> str:
    """The name of the model directory, or of the run that it is part of."""
    folder = model_dir_of(model_dir).resolve()
    return folder.parent.name if folder.name in ("best", "final") else folder.name

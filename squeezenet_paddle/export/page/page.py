"""Fills the template of the page: style, scripts, engine and weights in one file."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ...data.preprocess import LONGEST_SIDE
from ...evaluation.pages import environment
from ...evaluation.plots import printable
from ...familiarity import NONE
from ...model_dir import ModelInfo

_FOLDER = Path(__file__).parent


def page(
    title: str,
    info: ModelInfo,
    about: Sequence[tuple[str, str]],
    engine: bytes,
    weights: bytes,
) -> str:
    """The page, which asks no server for anything: its Content-Security-Policy forbids it.

    Args:
        title: the model's name.
        info: its description.
        about: terms and texts of the box about it.
        engine: the WebAssembly module.
        weights: the .sqz file.
    """
    from markupsafe import Markup

    names = info.names or [f"class {i}" for i in range(info.network.num_classes)]
    preprocess = info.preprocess
    settings = {
        "names": [printable(name) for name in names],
        "none": NONE,
        "resize": preprocess.resize,
        "resize_size": preprocess.resize_size,
        "crop_size": preprocess.crop_size,
        "longest_side": LONGEST_SIDE,
    }
    style, script, worker = (
        (_FOLDER / name).read_text("utf-8") for name in ("page.css", "page.js", "worker.js")
    )
    policy = (
        "default-src 'none'; img-src blob: data:; worker-src blob:; base-uri 'none'; "
        f"form-action 'none'; style-src {_source(style)}; "
        f"script-src {_source(script)} 'wasm-unsafe-eval'"
    )
    return (
        environment(_FOLDER)
        .get_template("page.html.j2")
        .render(
            title=title,
            names=settings["names"],
            about=about,
            policy=Markup(policy),
            style=Markup(style),
            script=Markup(script),
            worker=Markup(worker),
            settings=Markup(json.dumps(settings, ensure_ascii=False).replace("<", "\\u003c")),
            engine=base64.b64encode(gzip.compress(engine, mtime=0)).decode(),
            weights=base64.b64encode(weights).decode(),
        )
    )


def _source(text: str) -> str:
    """How a Content-Security-Policy names a script or style of the page itself."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

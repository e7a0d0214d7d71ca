"""Pages made of jinja2 templates, which lie beside the modules that fill them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Callable

from .plots import printable

if TYPE_CHECKING:
    import jinja2


def environment(folder: Path, escape: Callable[[str], str] | None = None) -> jinja2.Environment:
    """Templates of a folder: text is escaped, and what a template does not get is an error.

    Args:
        folder: where they lie.
        escape: how text is escaped; None as in HTML.
    """
    import jinja2

    def finish(text: str) -> str:
        return printable(text) if escape is None else escape(printable(text))

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=escape is None,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Names may hold bytes that are no text; markup is of another type.
        finalize=lambda value: finish(value) if type(value) is str else value,
    )

"""Pages made of jinja2 templates, which lie beside the modules that fill them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .plots import printable

if TYPE_CHECKING:
    import jinja2


def environment(folder: Path) -> jinja2.Environment:
    """Templates of a folder: text is escaped, and what a template does not get is an error."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Names may hold bytes that are no text; markup is of another type.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )

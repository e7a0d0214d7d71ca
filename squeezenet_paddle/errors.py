"""The errors that a user can mend. Their text is one complete sentence that names the thing."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 10  # how many problems of one kind are listed before the rest is only counted


class InputError(ValueError):
    """Something that the user gave is wrong; a tool prints the message and exits with code 2.

    A message names a setting between backticks, `batch_size` or `solver.lr`, never by a flag: the
    command line spells it as the flag that it has for it.
    """


class RunError(RuntimeError):
    """Something outside of us broke a run; a tool prints the message and exits with code 1."""


class ImageError(InputError):
    """A file that is not an image, or an image that cannot be decoded."""


def describe_problems(problems: Sequence[str]) -> str:
    """Joins the first ten problems to one line and counts the rest."""
    text = "; ".join(problem.rstrip(".") for problem in problems[:SHOWN])
    more = len(problems) - SHOWN
    return f"{text}; and {more} more" if more > 0 else text

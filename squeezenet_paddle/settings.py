"""Settings as dataclass fields that describe themselves, from Python and on the command line.

    @dataclass(frozen=True)
    class Solver(Checked):
        batch_size: int = setting(512, "images per update", at_least=1, on_resume=MUST_MATCH)

The one line gives the value its check, the flag --batch_size its help text, type and default, and
a resumed run its answer to a change. `group` puts such classes together to a tree.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import os
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError

# What a resumed run makes of a change: refuse it, or go on and name it. Others are not compared.
MUST_MATCH, MAY_CHANGE = "must_match", "may_change"

_NOUNS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What a field says of itself.

    Attributes:
        default: MISSING where a value is required; where it is None, a value may be None.
        help: what it means; other settings are named in backticks.
        kind: class of the value; one with a method `parse` takes what that takes.
        shown: the default in words; None: as it is.
        choices: the values that are allowed; () for all.
        expected: the allowed values in words; None: made of the other attributes.
        count: how many values, or "+" for one or more; None: one, not in a tuple.
        at_least, above, at_most, below: limits of a number.
        on_resume: MUST_MATCH, MAY_CHANGE, or None where a resume does not compare it.
        aliases: older flags with the same meaning, which --help does not show.
    """

    default: Any
    help: str
    kind: type
    shown: str | None = None
    choices: tuple[Any, ...] = ()
    expected: str | None = None
    count: int | str | None = None
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    on_resume: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def default_text(self) -> str:
        """The default in words."""
        return _text(self.default) if self.shown is None else self.shown

    def checked(self, name: str, value: Any) -> Any:
        """The value as one of `kind`, or a tuple of these.

        Raises:
            InputError: it is not allowed; `name` is in the message.
        """
        if value is None and self.default is None:
            return None
        if self.count is None:
            return self.checked_one(name, value)
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise InputError(f"`{name}`: several values were expected, found {value!r}.")
        values = tuple(self.checked_one(name, each) for each in value)
        if isinstance(self.count, int) and len(values) != self.count:
            raise InputError(f"`{name}`: {self.count} values were expected, found {len(values)}.")
        return values

    def checked_one(self, name: str, value: Any) -> Any:
        """`checked` for one of several values."""
        number = _converted(self.kind, value)
        if (
            number is None
            or (self.choices and number not in self.choices)
            or (self.at_least is not None and not number >= self.at_least)
            or (self.above is not None and not number > self.above)
            or (self.at_most is not None and not number <= self.at_most)
            or (self.below is not None and not number < self.below)
        ):
            raise InputError(f"`{name}`: {self._expected()} was expected, found {value!r}.")
        return number

    def _expected(self) -> str:
        if self.expected is not None:
            return self.expected
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        names = ("at_least", "above", "at_most", "below")
        given = [(name.replace("_", " "), getattr(self, name)) for name in names]
        limits = " and ".join(f"{text} {limit}" for text, limit in given if limit is not None)
        noun = _NOUNS.get(self.kind, f"a {self.kind.__name__.lower()}")
        return (
            limits if limits and self.kind is float else f"{noun} of {limits}" if limits else noun
        )


def setting(default: Any = MISSING, help: str = "", kind: type | None = None, **more: Any) -> Any:
    """A dataclass field; see `Setting`. `kind` may be left out where the default shows it."""
    if kind is None:
        kind = str if default is MISSING or "choices" in more else type(default)
    return _field(Setting(default, help, kind, **more))


def like(cls: type, name: str, **changes: Any) -> Any:
    """A setting that another class has too, with another default, help text or the like."""
    if "default" in changes:
        changes.setdefault("shown", None)
    return _field(dataclasses.replace(dict(settings_of(cls))[name], **changes))


def _field(meta: Setting) -> Any:
    return dataclasses.field(default=meta.default, metadata={"setting": meta})


def group(cls: type, title: str, note: str = "") -> Any:
    """A field that holds a class of settings, with a title and a note for a command's help."""
    metadata = {"group": cls, "title": title, "note": note}
    return dataclasses.field(default_factory=cls, metadata=metadata)


class Checked:
    """Base of frozen dataclasses of settings: a value that is not allowed is an InputError."""

    def __post_init__(self) -> None:
        for name, meta in settings_of(type(self)):
            object.__setattr__(self, name, meta.checked(name, getattr(self, name)))


class Tree:
    """Base of frozen dataclasses whose fields are groups of settings."""

    @classmethod
    def from_settings(cls: type[T], **settings: Any) -> T:
        """The tree with these settings, whichever group each is in; the others have defaults.

        Raises:
            InputError: a name is unknown, or a value is not allowed.
        """
        known = [name for name, _ in settings_of(cls)]
        for name in settings:
            if name not in known:
                near = "".join(difflib.get_close_matches(name, known, n=1))
                hint = f"; did you mean `{near}`?" if near else "."
                raise InputError(f"{cls.__name__} has no setting {name!r}{hint}")
        groups = {}
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            members = [name for name, _ in settings_of(field.metadata["group"])]
            given = {name: value for name, value in settings.items() if name in members}
            groups[field.name] = field.metadata["group"](**given)
        return cls(**groups)

    def values(self) -> dict[str, Any]:
        """All settings of all groups by their names."""
        return {name: value for part in vars(self).values() for name, value in vars(part).items()}


def settings_of(cls: type) -> Iterator[tuple[str, Setting]]:
    """The names of all settings of a class or of a tree of classes, and what they say."""
    for field in dataclasses.fields(cls):
        if "group" in field.metadata:
            yield from settings_of(field.metadata["group"])
        else:
            yield field.name, field.metadata["setting"]


def _converted(kind: type, value: Any) -> Any:
    """The value as one of `kind`; None if it is none."""
    if hasattr(kind, "parse"):
        try:
            return kind.parse(value)
        except ValueError:
            return None
    if kind is Path:
        return Path(value) if isinstance(value, (str, os.PathLike)) else None
    if kind in (int, float):
        number: Any = numbers.Integral if kind is int else numbers.Real
        fits = isinstance(value, number) and not isinstance(value, bool) and math.isfinite(value)
        return kind(value) if fits else None
    return value if isinstance(value, kind) else None


def _text(default: Any) -> str:
    if default is None or default == ():
        return "none"
    if isinstance(default, tuple):
        return " ".join(map(_text, default))
    return f"{default:.4g}" if isinstance(default, float) else str(default)

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
_LIMITS = {
    "at_least": ("at least {}", lambda value, limit: value >= limit),
    "above": ("above {}", lambda value, limit: value > limit),
    "at_most": ("at most {}", lambda value, limit: value <= limit),
    "below": ("below {}", lambda value, limit: value < limit),
}

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What a field says of itself.

    Attributes:
        help: what it means; other settings are named in backticks.
        kind: class of the value; one with a class method `parse` also takes what that takes.
        default: MISSING where a value is required; where it is None, a value may be None.
        shown: the default in words.
        choices: the values that are allowed; () for all.
        expected: what a value has to be, in words.
        count: None for one value; how many values, or "+" for one or more.
        limits: names of `_LIMITS` with their numbers.
        on_resume: MUST_MATCH, MAY_CHANGE, or None where a resume does not compare it.
        aliases: older flags with the same meaning, which --help does not show.
    """

    help: str
    kind: type
    default: Any
    shown: str
    choices: tuple[Any, ...]
    expected: str
    count: int | str | None
    limits: tuple[tuple[str, float], ...]
    on_resume: str | None
    aliases: tuple[str, ...]

    def checked(self, name: str, value: Any) -> Any:
        """The value as one of `kind`, or a tuple of these.

        Raises:
            InputError: it is not allowed; `name` is in the message.
        """
        if value is None and self.default is None:
            return None
        if self.count is None:
            return self._checked_one(name, value)
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise InputError(f"`{name}`: several values were expected, found {value!r}.")
        values = tuple(self._checked_one(name, each) for each in value)
        if isinstance(self.count, int) and len(values) != self.count:
            raise InputError(f"`{name}`: {self.count} values were expected, found {len(values)}.")
        return values

    def _checked_one(self, name: str, value: Any) -> Any:
        converted = _converted(self.kind, value)
        allowed = converted is not None and (not self.choices or converted in self.choices)
        for limit, number in self.limits:
            allowed = allowed and _LIMITS[limit][1](converted, number)
        if not allowed:
            raise InputError(f"`{name}`: {self.expected} was expected, found {value!r}.")
        return converted


def setting(
    default: Any = MISSING,
    help: str = "",
    *,
    kind: type | None = None,
    shown: str | None = None,
    choices: tuple[Any, ...] = (),
    expected: str | None = None,
    count: int | str | None = None,
    on_resume: str | None = None,
    aliases: tuple[str, ...] = (),
    **limits: float,
) -> Any:
    """A dataclass field; see `Setting`. `kind` may be left out where the default shows it."""
    if kind is None:
        kind = str if default is MISSING or choices else type(default)
    if expected is None:
        expected = " and ".join(_LIMITS[name][0].format(x) for name, x in limits.items())
        if choices:
            expected = f"one of {', '.join(choices)}"
        elif kind is int or not expected:
            noun = _NOUNS.get(kind, f"a {kind.__name__}")
            expected = f"{noun} {'of ' if 'at_least' in limits else ''}{expected}".strip()
    meta = Setting(
        help,
        kind,
        default,
        _shown(default) if shown is None else shown,
        choices,
        expected,
        count,
        tuple(limits.items()),
        on_resume,
        aliases,
    )
    return dataclasses.field(default=default, metadata={"setting": meta})


def like(
    cls: type,
    name: str,
    default: Any = MISSING,
    help: str | None = None,
    shown: str | None = None,
) -> Any:
    """A setting that another class has too, with another default or help text."""
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    meta: Setting = field.metadata["setting"]
    if default is not MISSING:
        meta = dataclasses.replace(meta, default=default, shown=_shown(default))
    if help is not None:
        meta = dataclasses.replace(meta, help=help)
    if shown is not None:
        meta = dataclasses.replace(meta, shown=shown)
    return dataclasses.field(default=meta.default, metadata={"setting": meta})


def group(cls: type, title: str, note: str = "") -> Any:
    """A field that holds a class of settings; its default is that class's.

    Args:
        cls: the class.
        title: of the group of flags in a command's help.
        note: said below the title.
    """
    metadata = {"group": cls, "title": title, "note": note}
    return dataclasses.field(default_factory=cls, metadata=metadata)


class Checked:
    """Base of frozen dataclasses of settings: a value that is not allowed is an InputError."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if meta := field.metadata.get("setting"):
                value = meta.checked(field.name, getattr(self, field.name))
                object.__setattr__(self, field.name, value)


class Tree:
    """Base of frozen dataclasses whose fields are groups of settings."""

    @classmethod
    def from_settings(cls: type[T], **settings: Any) -> T:
        """The tree with these settings, whichever group each is in; the others have defaults.

        Raises:
            InputError: a name is unknown, or a value is not allowed.
        """
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        known = {each.name: field.name for field in fields for each in _members(field)}
        for name in settings:
            if name not in known:
                near = "".join(difflib.get_close_matches(name, known, n=1))
                hint = f"; did you mean `{near}`?" if near else "."
                raise InputError(f"{cls.__name__} has no setting {name!r}{hint}")
        groups = {}
        for field in fields:
            own = {name: value for name, value in settings.items() if known[name] == field.name}
            groups[field.name] = field.metadata["group"](**own)
        return cls(**groups)

    def values(self) -> dict[str, Any]:
        """All settings of all groups by their names."""
        return {
            name: value
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            for name, value in vars(getattr(self, field.name)).items()
        }


def settings_of(cls: type) -> Iterator[tuple[str, Setting]]:
    """The names of all settings of a class or of a tree of classes, and what they say."""
    for field in dataclasses.fields(cls):
        if "group" in field.metadata:
            yield from settings_of(field.metadata["group"])
        elif "setting" in field.metadata:
            yield field.name, field.metadata["setting"]


def _members(field: dataclasses.Field[Any]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(field.metadata["group"])


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


def _shown(default: Any) -> str:
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return " ".join(map(_shown, default))
    return f"{default:.4g}" if isinstance(default, float) else str(default)

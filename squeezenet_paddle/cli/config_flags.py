"""Flags made of the fields of a configuration, and the configuration made of the flags."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import re
from collections.abc import Collection
from typing import Any, Callable, TypeVar

from ..errors import InputError
from ..settings import Setting, Tree, settings_of

T = TypeVar("T", bound=Tree)


def add_config(parser: argparse.ArgumentParser, cls: type[Tree]) -> None:
    """A group of flags for each group of settings of a configuration."""
    names = [name for name, _ in settings_of(cls)]
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        note = _with_flags(field.metadata["note"], names)
        group = parser.add_argument_group(field.metadata["title"], note or None)
        for name, setting in settings_of(field.metadata["group"]):
            _add(group, name, setting, names, argparse.SUPPRESS)


def config_of(args: argparse.Namespace, cls: type[T]) -> T:
    """The configuration that flags of `add_config` ask for; those not given have defaults.

    Raises:
        InputError: settings contradict each other.
    """
    values = {name: getattr(args, name) for name, _ in settings_of(cls) if hasattr(args, name)}
    return cls.from_settings(**values)


def add_settings(group: Any, cls: type, *names: str) -> None:
    """Flags for some settings of a class, with their defaults, for a command without a config."""
    settings = dict(settings_of(cls))
    for name in names:
        _add(group, name, settings[name], settings.keys(), settings[name].default)


def _add(group: Any, name: str, setting: Setting, names: Collection[str], default: object) -> None:
    """A flag for a setting; `names` are those of all settings, of which its help may speak."""
    negated = setting.kind is bool and setting.default is True
    options: dict[str, Any] = {"dest": name, "default": default}
    if setting.kind is bool:
        options["action"] = "store_false" if negated else "store_true"
        shown = "(default: off)"
    else:
        options["type"] = _parser_of(name, setting)
        options["nargs"] = setting.count
        required = setting.default is dataclasses.MISSING
        shown = "(required)" if required else f"(default: {setting.default_text})"
        options["required"] = required
        if setting.choices and len(setting.choices) < 8:
            options["choices"] = setting.choices
        else:
            options["metavar"] = _metavar(name, setting)
    text = _with_flags(f"{setting.help} {shown}".strip(), names)
    flag = f"--no_{name}" if negated else f"--{name}"
    group.add_argument(flag, help=text.replace("%", "%%"), **options)
    options.pop("required", None)
    for alias in setting.aliases:
        group.add_argument(alias, help=argparse.SUPPRESS, **options)


def _parser_of(name: str, setting: Setting) -> Callable[[str], Any]:
    """An argparse type: reads and checks one value."""

    def parse(text: str) -> Any:
        value: Any = text
        if setting.kind in (int, float):
            with contextlib.suppress(ValueError):  # the check names what was found
                value = setting.kind(text)
        try:
            return setting.checked_one(name, value)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error).partition(": ")[2].rstrip(".")) from None

    return parse


def _metavar(name: str, setting: Setting) -> str:
    if setting.choices:
        return "STAGES"
    if setting.kind.__name__ == "Path":
        return "FILE" if name.endswith(("list", "json")) else "DIR"
    return {"int": "N", "float": "X", "Interval": "N"}.get(setting.kind.__name__, "NAME")


def _with_flags(text: str, names: Collection[str]) -> str:
    """Spells the settings that a help text names in backticks as flags."""
    return re.sub(
        r"`([a-z_0-9]+)`", lambda match: f"--{match[1]}" if match[1] in names else match[1], text
    )

"""Reads the class names that come with a model, in the forms in which people keep them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .data.lists import read_names
from .errors import InputError
from .files import read_lines

_NUMBERED = re.compile(r"\s*(\d+)\s*[:,\t ]\s*(.*\S)\s*")
_SYNSET = re.compile(r"n\d{8}\b")


def read_labels(path: Path, num_classes: int) -> tuple[list[str], str]:
    """Class names in the order of the class ids, and the form in which the file has them.

    The forms are: a name a line, as `tench` or `n01440764 tench`; a number and a name a line, as
    `0 tench` or `0:tench`; JSON, as `["tench", ...]`, `{"0": "tench", ...}`, `{"tench": 0, ...}` or
    `{"0": ["n01440764", "tench"], ...}`. `imagenet` stands for the names of ImageNet.

    Raises:
        InputError: there are fewer or more names than classes, a blank one, or numbers other than
            0, 1, 2 and so on.
    """
    if path == Path("imagenet") and not path.is_file():
        return read_names(path, num_classes), "the 1,000 of ILSVRC-2012"
    lines = read_lines(path, "list of class names")
    if "".join(lines).lstrip().startswith(("{", "[")):
        names, form = _from_json("\n".join(lines), path), "JSON"
    else:
        names, form = _from_lines(lines, path)
    if len(names) != num_classes:
        raise InputError(
            f"{path}: {num_classes} class names were expected, found {len(names)} ({form})."
        )
    if "" in names:
        raise InputError(f"{path}: the name of class {names.index('')} is blank.")
    return names, form


def _from_lines(lines: list[str], path: Path) -> tuple[list[str], str]:
    names = [line.strip() for line in lines]
    matches = [_NUMBERED.fullmatch(name) for name in names]
    if names and all(matches):
        pairs = [(int(match[1]), match[2]) for match in matches if match]
        return _by_number(pairs, path), "a number and a name a line"
    synsets = names and all(map(_SYNSET.match, names))
    return names, "a WordNet id and a name a line" if synsets else "a name a line"


def _from_json(text: str, path: Path) -> list[str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}).") from error
    if isinstance(content, list):
        return [_name(value, path) for value in content]
    if content and all(type(value) is int for value in content.values()):  # folder -> number
        return _by_number([(number, name) for name, number in content.items()], path)
    if not all(re.fullmatch(r"\d{1,9}", key) for key in content):
        raise InputError(
            f"{path}: a JSON list of names, or an object of class ids and names, was expected."
        )
    return _by_number([(int(key), _name(value, path)) for key, value in content.items()], path)


def _name(value: Any, path: Path) -> str:
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        value = " ".join(value)  # Keras: ["n01440764", "tench"]
    if not isinstance(value, str):
        raise InputError(f"{path}: a class name was expected, found {value!r}.")
    return value.strip()


def _by_number(pairs: list[tuple[int, str]], path: Path) -> list[str]:
    numbers = sorted(number for number, _ in pairs)
    wrong = next((i for i, number in enumerate(numbers) if number != i), None)
    if wrong is not None:
        raise InputError(
            f"{path}: class ids 0 to {len(pairs) - 1} were expected, each once; "
            f"found {numbers[wrong]} where {wrong} was expected."
        )
    return [name for _, name in sorted(pairs)]

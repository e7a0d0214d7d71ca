"""Class names in every form in which people keep them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.labels import read_labels


def read(text: str, tmp_path: Path, num_classes: int = 3) -> tuple[list[str], str]:
    file = tmp_path / "labels.txt"
    file.write_text(text)
    return read_labels(file, num_classes)


PLAIN = ["tench", "great white shark", "hen"]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("tench\ngreat white shark\nhen\n", "a name a line"),
        ("0 tench\n1 great white shark\n2 hen", "a number and a name a line"),
        ("0:tench\r\n1: great white shark\r\n2:hen\r\n", "a number and a name a line"),
        ("2\then\n0\ttench\n1\tgreat white shark\n", "a number and a name a line"),
        (json.dumps(PLAIN), "JSON"),
        (json.dumps({"0": "tench", "2": "hen", "1": "great white shark"}), "JSON"),
        (json.dumps({"hen": 2, "tench": 0, "great white shark": 1}, indent=1), "JSON"),
    ],
)
def test_forms(text: str, form: str, tmp_path: Path) -> None:
    assert read(text, tmp_path) == (PLAIN, form)


def test_wordnet_ids_are_kept(tmp_path: Path) -> None:
    names = ["n01440764 tench, Tinca tinca", "n01443537 goldfish"]
    assert read("\n".join(names), tmp_path, 2) == (names, "a WordNet id and a name a line")
    keras = {str(i): name.split(" ", 1) for i, name in enumerate(names)}
    assert read(json.dumps(keras), tmp_path, 2) == (names, "JSON")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tench\nhen\n", "3 class names were expected, found 2"),
        ("0 a\n1 b\n2 c\n3 d\n", r"3 class names were expected, found 4 \(a number and"),
        ("tench\n\nhen\n", "the name of class 1 is blank"),
        ("1 a\n2 b\n3 c\n", "class ids 0 to 2 were expected, each once; found 1 where 0"),
        ("0 a\n0 b\n2 c\n", "found 0 where 1 was expected"),
        ('{"0": "a", ', "not JSON"),
        ('{"a": "b"}', "a JSON list of names, or an object of class ids and names"),
        ("[1, 2, 3]", "a class name was expected, found 1"),
        ("[]", "3 class names were expected, found 0"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(text, tmp_path)

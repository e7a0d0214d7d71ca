"""infer.py and export.py: words without flags, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from exported_models import VARIANTS, small_model_dir

from squeezenet_paddle.cli import common, export, infer
from squeezenet_paddle.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory and two images."""
    path = tmp_path_factory.mktemp("infer")
    small_model_dir(path / "model", VARIANTS[0])
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(path / name), np.full((50, 50, 3), ord(name[0]), "uint8"))
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (["--top_k", "3"], ["--top_k", "3"]),
        (["m"], ["--model_dir", "m"]),
        (["m", "a", "b"], ["--model_dir", "m", "--image", "a", "b"]),
        (["m", "a", "--top_k", "3"], ["--model_dir", "m", "--image", "a", "--top_k", "3"]),
        (["m", "--image", "a"], ["--model_dir", "m", "--image", "a"]),
        (["m", "-", "--top_k"], ["--model_dir", "m", "--image", "-", "--top_k"]),
        (["--image", "a", "m"], ["--image", "a", "m"]),
    ],
)
def test_words_before_the_first_flag_get_theirs(words: list[str], expected: list[str]) -> None:
    assert common.name_words(words, "--model_dir", "--image") == expected


def test_a_model_and_images_need_no_flags(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(folder / name) for name in ("model", "a.png", "b.png")]
    flags = ["--model_dir", words[0], "--image", *words[1:]]
    results = []
    for argv in (words, flags):
        assert infer.main([*argv, "--format", "json", "--device", "cpu"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1]
    assert [each["image"] for each in results[0]] == words[1:]
    export.main([words[0], "--format", "onnx", "--output_dir", str(folder / "out")])
    assert (folder / "out" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/a.png", "{}/b.png"], "{}/a.png: .* was expected, found a file"),
        (["{}/model", "{}/a.png", "{}/no.png", "{}/none.png"], "{}/no.png"),
        (["{}/model", "https://host/cat.jpg"], "https://host/cat.jpg"),
        (["{}/model", "-"], "-"),
        (["https://host/model", "{}/a.png"], "found a URL; download"),
        (["{}", "{}/a.png"], "give one of those in it: {}/model"),
    ],
)
def test_what_cannot_be_read_is_named(folder: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message.format(folder)):
        infer.main([each.format(folder) for each in arguments])

"""infer.py and its like: words without flags, and what is refused in one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import cv2
import numpy as np
import pytest
from networks import VARIANTS, small_model_dir

from squeezenet_paddle.cli import (
    benchmark,
    caffe2paddle,
    export,
    finetune,
    infer,
    make_lists,
    prepare_images,
    summary,
    torch2paddle,
    trace,
    train,
)
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
    ("main", "words", "flags"),
    [
        (infer.main, ["m", "a", "b"], "--model_dir m --image a b"),
        (infer.main, ["m", "--image", "a"], "--model_dir m"),
        (export.main, ["m", "--format", "onnx"], "--model_dir m"),
        (benchmark.main, ["m"], "--model_dir m"),
        (trace.main, ["m"], "--model_dir m"),
        (summary.main, ["m"], "--model_dir m"),
        (finetune.main, ["m"], "--images m"),
        (make_lists.main, ["m"], "--images m"),
        (caffe2paddle.main, ["m"], "--caffemodel m"),
        (torch2paddle.main, ["m"], "--checkpoint m"),
        (prepare_images.main, ["m", "n"], "--list m n"),
        (train.main, ["m"], "--train_list m"),
    ],
)
def test_words_without_flags_are_told_theirs(
    main: Callable[[Sequence[str]], object],
    words: list[str],
    flags: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert f"a flag was expected before 'm', as in {flags};" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/a.png", "{}/b.png"], "{}/a.png: .* was expected, found a file"),
        (["{}/model", "{}/a.png", "{}/no.png", "{}/none.png"], "{}/no.png; {}/none.png"),
        (["{}/model", "-"], "`image` -: standard input is not read"),
        (["https://host/model", "{}/a.png"], "found a URL; download"),
        (["{}", "{}/a.png"], "give one of those in it: {}/model"),
    ],
)
def test_what_cannot_be_read_is_named(folder: Path, arguments: list[str], message: str) -> None:
    model, *images = [each.format(folder) for each in arguments]
    with pytest.raises(InputError, match=message.replace("{}", str(folder))):
        infer.main(["--model_dir", model, "--image", *images])

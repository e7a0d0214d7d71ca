"""The tools as a user runs them: what they print, their exit codes, and every kind of bad input."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from caffe_files import file_with, small_caffemodel
from conftest import ROOT, Run, assert_user_error
from networks import random_state

from squeezenet_paddle.caffe import verify
from squeezenet_paddle.caffe.writer import caffemodel, deploy_prototxt
from squeezenet_paddle.cli.main import VERBS
from squeezenet_paddle.network.config import ModelConfig

CLASSES = 3
CONFIG = ModelConfig(num_classes=CLASSES)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Caffe file with its prototxt, class names, images and a list of them."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "net.caffemodel").write_bytes(caffemodel(CONFIG, random_state(CONFIG)))
    (folder / "deploy.prototxt").write_text(deploy_prototxt(CONFIG, 227, 227))
    (folder / "names.txt").write_text("n01 red thing\nn02 green thing\nn03 blue thing\n")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(5):
        name = f"image {i}.png"
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (60 + i, 80, 3), "uint8"))
        lines.append(f"{name} {i % CLASSES}\r\n")
    (folder / "list.txt").write_bytes("".join(lines).encode() + b"\r\n")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    return folder


@pytest.fixture(scope="module")
def model(files: Path, run_tool: Run) -> Path:
    """The model directory that caffe2paddle.py makes of it, with its proof."""
    done = run_tool(
        "caffe2paddle",
        *("--caffemodel", files / "net.caffemodel", "--prototxt", files / "deploy.prototxt"),
        *("--verify", "--image", files / "image 0.png"),
        *("--synset_word_list", files / "names.txt", "--output_dir", files / "model"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fire5/concat") == 2
    assert f"{CLASSES} classes" in done.stdout
    return files / "model"


def test_conversion_records_what_was_done(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    assert config["network"]["num_classes"] == CLASSES
    assert config["preprocess"]["mean"] == [104, 117, 123]
    assert config["source"]["file"] == "net.caffemodel"
    assert [i["name"] for i in config["verification"]["inputs"]] == ["random", "image 0.png"]
    assert all(i["worst_relative_difference"] < 1e-4 for i in config["verification"]["inputs"])
    assert sorted(p.name for p in model.iterdir()) == [
        "config.json",
        "model.pdparams",
        "synset_words.txt",
    ]


def test_eval(model: Path, files: Path, call_tool: Run) -> None:
    scores = files / "scores.json"
    done = call_tool(
        *("eval", "--model_dir", model, "--test_list", files / "list.txt"),
        *("--batch_size", 2, "--metrics_json", scores),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(scores.read_text())
    assert found["images"] == 5
    assert found["top5"] == 1.0  # of three classes
    assert done.stdout.startswith(f"top-1 {found['top1']:.2%}  top-3 100.00%")


def test_infer_in_every_format(model: Path, files: Path, call_tool: Run) -> None:
    images = [str(files / f"image {i}.png") for i in range(2)]
    arguments = ("infer", "--model_dir", model, "--image", *images, "--top_k", 2)
    as_json = call_tool(*arguments, "--format", "json")
    results = json.loads(as_json.stdout)
    assert [r["image"] for r in results] == images
    for result in results:
        first, second = result["classes"]
        assert first["probability"] >= second["probability"]
        assert first["name"].endswith("thing")
    as_csv = call_tool(*arguments, "--format", "csv")
    rows = list(csv.DictReader(as_csv.stdout.splitlines()))
    assert [(r["image"], r["rank"]) for r in rows] == [(p, k) for p in images for k in "12"]
    assert [int(r["class_id"]) for r in rows] == [c["id"] for r in results for c in r["classes"]]
    as_text = call_tool(*arguments)
    assert images[0] in as_text.stdout
    assert results[0]["classes"][0]["name"] in as_text.stdout
    from_list = call_tool(
        *("infer", "--model_dir", model, "--test_list", files / "list.txt", "--format", "json")
    )
    assert json.loads(from_list.stdout)[0]["classes"][0] == results[0]["classes"][0]


def test_infer_goes_on_after_a_image_that_cannot_be_read(
    model: Path, files: Path, call_tool: Run
) -> None:
    done = call_tool(
        *("infer", "--model_dir", model, "--format", "json"),
        *("--image", files / "image 0.png", files / "broken.jpg", files / "image 1.png"),
    )
    assert done.returncode == 1
    assert [Path(r["image"]).name for r in json.loads(done.stdout)] == [
        "image 0.png",
        "image 1.png",
    ]
    assert "broken.jpg: the image is cut off or damaged" in done.stderr
    assert "1 of 3 images cannot be read" in done.stderr


def test_eval_leaves_images_out_only_when_asked(model: Path, files: Path, call_tool: Run) -> None:
    (files / "bad.txt").write_text("broken.jpg 0\nimage 1.png 1\nmissing.jpg 2\n")
    arguments = ("eval", "--model_dir", model, "--test_list", files / "bad.txt")
    done = call_tool(*arguments)
    assert_user_error(done, "2 of 3 images cannot be read", "broken.jpg", "missing.jpg")
    assert done.stdout == ""
    done = call_tool(*arguments, "--skip_unreadable")
    assert done.returncode == 0
    assert "1 images  2 skipped" in done.stdout
    assert "skipped: " in done.stderr


def test_class_ids_with_a_note_where_names_are_unknown(files: Path, call_tool: Run) -> None:
    call_tool(
        *("caffe2paddle", "--caffemodel", files / "net.caffemodel"),
        *("--output_dir", files / "nameless"),
    )
    done = call_tool(
        *("infer", "--model_dir", files / "nameless", "--image", files / "image 0.png")
    )
    assert done.returncode == 0
    assert "no class names" in done.stderr
    named = call_tool(
        *("infer", "--model_dir", files / "nameless", "--image", files / "image 0.png"),
        *("--synset_word_list", files / "names.txt"),
    )
    assert "no class names" not in named.stderr
    assert " thing" in named.stdout


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("image 0.png\n", ["line 1", "a class id", "found '0.png'"]),
        ("image.png\n", ["line 1", "'path label' was expected"]),
        ("image 0.png 0\nimage 1.png 3\n", ["line 2", "0..2", "found 3"]),
        ("image 0.png -1\n", ["line 1", "found '-1'"]),
        ("image 0.png zero\n", ["line 1", "found 'zero'"]),
        ("", ["empty"]),
        ("image 0.png, 0\nimage 1.png; 1\n", ["line 2", "2 columns were expected, found 1"]),
    ],
)
def test_bad_lists(content: str, parts: list[str], model: Path, call_tool: Run) -> None:
    bad = model.parent / "bad_list.txt"
    bad.write_text(content)
    done = call_tool("eval", "--model_dir", model, "--test_list", bad)
    assert_user_error(done, "bad_list.txt", *parts)


def test_a_synset_list_of_another_length(model: Path, files: Path, call_tool: Run) -> None:
    (files / "short.txt").write_text("one\ntwo\n")
    done = call_tool(
        *("infer", "--model_dir", model, "--image", files / "image 0.png"),
        *("--synset_word_list", files / "short.txt"),
    )
    assert_user_error(done, "short.txt", "3 class names were expected", "found 2")


def test_names_of_imagenet_are_for_1000_classes(model: Path, files: Path, call_tool: Run) -> None:
    done = call_tool(
        *("infer", "--model_dir", model, "--image", files / "image 0.png"),
        *("--synset_word_list", "imagenet"),
    )
    assert_user_error(done, "imagenet: 3 class names were expected, one on each line; found 1000")


def test_paths_that_are_no_images(model: Path, files: Path, call_tool: Run) -> None:
    for path, part in (
        ("ftp://example.org/cat.jpg", "download it first"),
        ("-", "standard input is not read"),
        (files / "gone.png", "gone.png"),
        (model, "no images are in this folder"),
    ):
        done = call_tool("infer", "--model_dir", model, "--image", files / "image 0.png", path)
        assert_user_error(done, f"--image{':' if 'gone' in str(path) else ''} ", part)


def test_lists_with_commas_are_read(model: Path, files: Path, call_tool: Run) -> None:
    text = (files / "list.txt").read_text().replace(".png ", ".png, ")
    (files / "commas.txt").write_text(text)
    done = call_tool("eval", "--model_dir", model, "--test_list", files / "commas.txt")
    assert done.returncode == 0, done.stderr
    assert "5 images" in done.stdout


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (lambda: small_caffemodel()[:-1000], ["damaged or cut off"]),
        (lambda: b"", ["an empty file"]),
        (lambda: b"<html><body>Not found</body></html>", ["an HTML page"]),
        (lambda: deploy_prototxt(CONFIG, 227, 227).encode(), ["a prototxt"]),
        (lambda: np.random.default_rng(0).bytes(100_000), ["100,000 bytes"]),
        (lambda: file_with(np.nan), ["fire5/expand3x3", "NaN or infinite"]),
        (lambda: file_with(np.inf), ["fire5/expand3x3", "NaN or infinite"]),
    ],
)
def test_bad_caffemodels(content, parts: list[str], tmp_path: Path, call_tool: Run) -> None:
    file = tmp_path / "bad.caffemodel"
    file.write_bytes(content())
    done = call_tool("caffe2paddle", "--caffemodel", file, "--output_dir", tmp_path / "out")
    assert_user_error(done, "bad.caffemodel", *parts)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.caffemodel"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--num_classes", 1000], ["--num_classes 1000", "num_classes 3"]),
        (["--version", "1.0"], ["--version 1.0", "version 1.1"]),
        (["--version", "2"], ["--version", "'2'"]),
        (["--image", "a.png"], ["--image", "--verify"]),
        (["--ignore_classifier"], ["--num_classes"]),
        (["--input_size", 16], ["at least 17x17"]),
        (["--resize_size", 100], ["crop_size must be at most resize_size (100)"]),
        (["--synset_word_list", "nowhere.txt"], ["nowhere.txt", "cannot read"]),
        (["--prototxt", "nowhere.prototxt"], ["nowhere.prototxt", "cannot read"]),
        (["--batch"], ["--batch"]),
    ],
)
def test_bad_flags_of_caffe2paddle(
    arguments: list, parts: list[str], files: Path, tmp_path: Path, call_tool: Run
) -> None:
    done = call_tool(
        *("caffe2paddle", "--caffemodel", files / "net.caffemodel"),
        *("--output_dir", tmp_path / "out", *arguments),
    )
    assert_user_error(done, *parts)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_something_else_is_left_alone(
    files: Path, tmp_path: Path, call_tool: Run
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    done = call_tool(
        *("caffe2paddle", "--caffemodel", files / "net.caffemodel", "--output_dir", tmp_path)
    )
    assert_user_error(done, "holds something else")
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_failed_proof_writes_nothing(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(verify, "TOLERANCE", 0.0)  # which no two programs keep
    command = f"caffe2paddle.py --caffemodel {files}/net.caffemodel --prototxt "
    command += f"{files}/deploy.prototxt --verify --output_dir {tmp_path}/out"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "tools" / "caffe2paddle.py"), run_name="__main__")
    assert ended.value.code == 1
    assert "nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--model_dir", "nowhere"], ["nowhere", "no such directory"]),
        (["--model_dir", "."], ["not a model directory"]),
    ],
)
def test_bad_model_directories(
    arguments: list, parts: list[str], files: Path, call_tool: Run
) -> None:
    done = call_tool("eval", *arguments, "--test_list", files / "list.txt")
    assert_user_error(done, *parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--device", "tpu"], ["--device", "'tpu'"]),
        (["--device", "gpu:77"], ["gpu:77", "GPUs"]),
        (["--data_dir", "nowhere"], ["nowhere", "no such folder"]),
        (["--batch_size", "0"], ["--batch_size", "below 1"]),
    ],
)
def test_bad_flags_of_eval(
    arguments: list, parts: list[str], model: Path, files: Path, call_tool: Run
) -> None:
    done = call_tool("eval", "--model_dir", model, "--test_list", files / "list.txt", *arguments)
    assert_user_error(done, *parts)


def test_summary(model: Path, call_tool: Run) -> None:
    done = call_tool("summary", "--version", "1.1")
    assert done.stdout.splitlines()[-1].split() == ["total", "1,235,496", "387,747,520"]
    done = call_tool("summary", "--version", "1.0", "--bypass", "simple", "--input_size", 224)
    assert "1,248,424" in done.stdout.splitlines()[-1]
    assert "fire9/sum" in done.stdout
    done = call_tool("summary", "--model_dir", model)
    assert f"{CLASSES} classes" in done.stdout
    assert_user_error(call_tool("summary", "--input_size", 16), "at least 17x17")
    assert_user_error(call_tool("summary", "--model_dir", model, "--version", "1.0"), "--version")


@pytest.mark.parametrize(("verb", "module"), VERBS.items())
def test_help_is_the_manual(verb: str, module: str, call_tool: Run) -> None:
    done = call_tool(module, "--help")
    assert done.returncode == 0
    assert f"\n    squeezenet {verb}" in done.stdout


def test_real_weights_at_both_sizes(assets: Path, tmp_path: Path, call_tool: Run) -> None:
    for version, size in (("1.1", 227), ("1.1", 224), ("1.0", 227), ("1.0", 224)):
        done = call_tool(
            "caffe2paddle",
            *("--caffemodel", assets / f"caffe/squeezenet_v{version}.caffemodel"),
            *("--prototxt", assets / f"caffe/deploy_v{version}.prototxt"),
            *("--verify", "--image", assets / "data/awkward/caffe__cat.jpg"),
            *("--input_size", size, "--output_dir", tmp_path / "model"),
        )
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / "model/config.json").read_text())["verification"]
        assert [i["layers"] for i in record["inputs"]] == [26 + 8 + 1] * 2
        assert all(i["worst_relative_difference"] < 1e-4 for i in record["inputs"])
        assert all(i["same_top5"] for i in record["inputs"])


def test_names_that_this_terminal_cannot_show(model: Path, files: Path, run_tool: Run) -> None:
    image = files / "ünïcode.png"
    image.write_bytes((files / "image 0.png").read_bytes())
    done = run_tool(
        "infer", "--model_dir", model, "--image", image, env={"PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0, done.stderr
    assert r"\xfcn\xefcode.png" in done.stdout


def test_a_target_that_cannot_be_is_refused_before_the_work(
    model: Path, files: Path, call_tool: Run
) -> None:
    done = call_tool(
        *("eval", "--model_dir", model, "--test_list", files / "list.txt"),
        *("--metrics_json", files),
    )
    assert_user_error(done, "is a directory")
    assert done.stdout == ""
    done = call_tool(
        *("infer", "--model_dir", model, "--image", files / "image 0.png", "--data_dir", files)
    )
    assert_user_error(done, "--data_dir")


def test_data_dir_and_names_as_labels_in_a_csv_list(
    model: Path, files: Path, tmp_path: Path, call_tool: Run
) -> None:
    (tmp_path / "list.csv").write_text(
        "label,image\nn01,image 0.png\nn02 green thing,image 1.png\n2,image 2.png\n"
    )
    done = call_tool(
        *("eval", "--model_dir", model, "--test_list", tmp_path / "list.csv"),
        *("--data_dir", files, "--ten_crop"),
    )
    assert done.returncode == 0, done.stderr
    assert "3 images" in done.stdout

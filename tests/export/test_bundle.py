"""Bundles: predict.py, alone in a process, gives the answers of this package."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from conftest import Run, assert_user_error
from networks import calibrate_dir, network_of, random_state, small_model_dir
from PIL import Image

from squeezenet_paddle.cli.export import main
from squeezenet_paddle.data.decode import read_image
from squeezenet_paddle.data.preprocess import MeanImage, Preprocess
from squeezenet_paddle.export.bundle import bundle
from squeezenet_paddle.export.export import Export, export
from squeezenet_paddle.model_dir import ModelInfo, read_info, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.predict import Predictor

NAMES = ["Größe, 猫", "a|b <i>", "c", "d", "e"]
PREPROCESSES = {
    "authors": Preprocess(resize_size=48, crop_size=41),
    "torchvision": Preprocess(
        *("short_side", 48, "linear", 41, "RGB", 1 / 255),
        *((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ),
    "area_nhwc": Preprocess(
        resize_size=48, crop_size=41, interpolation="area", std=(2.0, 3.0, 4.0), data_format="NHWC"
    ),
    "mean_image": Preprocess(
        resize_size=48,
        crop_size=41,
        mean_image=MeanImage(np.random.default_rng(0).uniform(90, 130, (3, 48, 48))),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def without_ziglang() -> Iterator[pytest.MonkeyPatch]:
    """To compile the page takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ziglang", None)
        yield patch


def model_of(path: Path, preprocess: Preprocess) -> Path:
    """A calibrated model directory."""
    config = ModelConfig(num_classes=5, data_format=preprocess.data_format)
    write_model_dir(path, ModelInfo(config, preprocess, NAMES), random_state(config))
    return calibrate_dir(path)


def refuse_half(model_dir: Path, images: Path) -> None:
    """Sets the threshold of a model between the familiarities of images."""
    predictor = Predictor(model_dir, "cpu", "onnxruntime")
    inputs = [predictor.info.preprocess(read_image(path)) for path in sorted(images.iterdir())]
    values = sorted(answer.familiarity or 0.0 for answer in predictor.answers(np.stack(inputs)))
    gaps = np.diff(values)
    middle = 3 + int(gaps[3:-3].argmax())
    calibrate_dir(model_dir, threshold=(values[middle] + values[middle + 1]) / 2)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_of(tmp_path_factory.mktemp("bundle") / "model", PREPROCESSES["authors"])


@pytest.fixture(scope="module", name="folder")
def fixture_folder(model_dir: Path) -> Path:
    folder = model_dir.parent / "mine"
    main(["--model_dir", str(model_dir), "--format", "bundle", "--output_dir", str(folder)])
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of the kinds that decoders and resizes treat differently."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(5)

    def blobs(height: int, width: int, channels: int = 3) -> np.ndarray:
        small = rng.integers(0, 256, (5, 6, channels), "uint8")
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)

    exif = Image.Exif()
    exif[0x0112] = 6  # rotated
    Image.fromarray(blobs(60, 90)).save(folder / "rotated.jpg", exif=exif, quality=90)
    Image.fromarray(blobs(70, 50, 4), "RGBA").save(folder / "transparent.png")
    Image.fromarray(blobs(70, 50, 1)).save(folder / "grey.jpg")
    Image.fromarray(blobs(64, 80, 4), "CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(blobs(50, 50)).quantize(8).save(folder / "palette.png")
    Image.fromarray(blobs(51, 77)).save(folder / "image.webp", lossless=True)
    Image.fromarray(blobs(52, 40)).save(folder / "image.bmp")
    cv2.imwrite(str(folder / "deep.png"), blobs(66, 61).astype("uint16") * 256 + 77)
    cv2.imwrite(str(folder / "deep_grey.png"), blobs(66, 61, 1).astype("uint16") * 256 + 200)
    cv2.imwrite(str(folder / "huge.png"), blobs(1200, 2000))
    cv2.imwrite(str(folder / "half.png"), blobs(96, 96))
    cv2.imwrite(str(folder / "tiny.png"), blobs(1, 1))
    cv2.imwrite(str(folder / "strip.png"), blobs(5, 600))
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="8"/>'
    segment = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp
    plain = cv2.imencode(".jpg", blobs(40, 90))[1].tobytes()
    (folder / "xmp.jpg").write_bytes(plain[:2] + segment + plain[2:])
    (folder / "with spaces ü.jpg").write_bytes((folder / "rotated.jpg").read_bytes())
    return folder


@pytest.fixture
def lacking(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH in which to put packages that cannot be imported."""
    return tmp_path / "lacking"


def predict(
    folder: Path, *arguments: object, without: Sequence[str] = (), lacking: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs predict.py in a process of its own, which does not find this package."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PYTHONIOENCODING"] = "utf-8"
    for package in without:
        assert lacking is not None
        lacking.mkdir(exist_ok=True)
        text = f"raise ImportError('No module named {package}', name='{package}')\n"
        (lacking / f"{package}.py").write_text(text)
        environment["PYTHONPATH"] = str(lacking)
    command = [sys.executable, "-B", str(folder / "predict.py"), *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
        cwd=folder.parent,
        encoding="utf-8",
    )


def assert_same_answers(done: subprocess.CompletedProcess[str], model_dir: Path, by: float) -> int:
    """Compares JSON of predict.py with the Predictor; how many images were refused."""
    results = json.loads(done.stdout)
    predictor = Predictor(model_dir, "cpu", "onnxruntime")
    for result in results:
        expected = predictor(result["image"])
        classes = [(item["id"], item["name"]) for item in result["classes"]]
        assert classes == [(each.class_id, each.name) for each in expected], result["image"]
        shares = [item["probability"] for item in result["classes"] if item["id"] is not None]
        judge = [each.probability for each in expected if each.class_id is not None]
        np.testing.assert_allclose(shares, judge, atol=by, err_msg=result["image"])
    return sum(result["classes"][0]["id"] is None for result in results)


@pytest.mark.parametrize("kind", PREPROCESSES)
def test_the_same_answers_with_either_decoder(
    kind: str, images: Path, tmp_path: Path, lacking: Path
) -> None:
    model = model_of(tmp_path / "model", PREPROCESSES[kind])
    refuse_half(model, images)
    image = read_image(images / "half.png")
    export(model, read_info(model), Export("onnx", 41), [image], tmp_path / "mine")
    shutil.copy(Path(bundle.__file__).parent / "files" / "predict.py", tmp_path / "mine")
    count = len(list(images.iterdir()))

    done = predict(tmp_path / "mine", images, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    refused = assert_same_answers(done, model, 1e-5)
    assert 0 < refused < count == len(json.loads(done.stdout))
    done = predict(tmp_path / "mine", images, "--json", without=["cv2"], lacking=lacking)
    assert (done.returncode, done.stderr) == (0, "")
    # Cubic interpolation in numpy differs from OpenCV's by 1 in a few values.
    assert assert_same_answers(done, model, 2e-3 if "cubic" in kind else 1e-3) == refused


def test_opencv_alone_reads_jpeg_and_png(
    folder: Path, model_dir: Path, images: Path, lacking: Path
) -> None:
    done = predict(folder, images, "--json", without=["PIL"], lacking=lacking)
    assert done.returncode == 1
    assert_same_answers(done, model_dir, 1e-5)
    errors = done.stderr.splitlines()
    names = ["image.bmp", "image.webp", "xmp.jpg"]
    assert [Path(line.split(": ")[1]).name for line in errors] == names
    assert "read after pip install" in errors[0]


def test_resizing_in_numpy_is_opencvs(folder: Path) -> None:
    """On noise, where every difference shows, at sizes that are scaled up and down, and exactly."""
    code = """
import cv2 as judge, numpy as np, predict
predict.cv2 = None
rng = np.random.default_rng(0)
for kind, most in (("linear", 0), ("area", 0), ("cubic", 6)):
    for h, w, height, width in [(480, 640, 256, 256), (100, 90, 256, 256), (512, 512, 256, 256),
            (300, 401, 256, 342), (768, 1024, 256, 341), (5, 999, 48, 48), (48, 48, 48, 48)]:
        image = rng.integers(0, 256, (h, w, 3), "uint8")
        expected = judge.resize(image, (width, height),
                                interpolation=getattr(judge, f"INTER_{kind.upper()}"))
        difference = np.abs(predict.resize(image, width, height, kind).astype(int) - expected)
        assert difference.max() <= (most > 0), (kind, h, w)
        assert np.count_nonzero(difference) <= most, (kind, h, w, np.count_nonzero(difference))
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_its_own_check(folder: Path, tmp_path: Path, lacking: Path) -> None:
    done = predict(folder, "--check", without=["cv2"], lacking=lacking)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model.onnx: passed; on 3 images" in done.stdout
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    cv2.imwrite(str(damaged / "golden" / "disc_stripes.png"), np.zeros((50, 50, 3), "uint8"))
    done = predict(damaged, "--check")
    assert done.returncode == 1
    assert "model.onnx: FAILED" in done.stdout


def test_forms_of_output(folder: Path, images: Path, model_dir: Path, call_tool: Run) -> None:
    files = [images / "grey.jpg", images / "transparent.png", images / "with spaces ü.jpg"]
    done = predict(folder, *files, "--csv", "--top", 2)
    arguments = ("--model_dir", model_dir, "--top_k", 2, "--engine", "onnxruntime")
    ours = call_tool("infer", *arguments, "--format", "csv", "--image", *files)
    rows, expected = (list(csv.reader(io.StringIO(text.stdout))) for text in (done, ours))
    assert rows[0] == expected[0]
    for row, other in zip(rows, expected):
        assert row[:3] + row[4:] == other[:3] + other[4:]
    done = predict(folder, *files, "--top", 2)
    ours = call_tool("infer", *arguments, "--image", *files)
    assert done.stdout == ours.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["/nowhere"], 2, "/nowhere: cannot be read (No such file or directory)"),
        (["x" * 300], 2, "xxx: cannot be read (File name too long)"),
        ([], 2, "name an image, or give --check"),
        (["golden", "--top", "0"], 2, "at least 1 was expected"),
        (["x", "--model", "/no.onnx"], 2, "/no.onnx: there is no such file"),
        (["mine/golden", "--model", "mine/README.md"], 2, "README.md: no ONNX file that says"),
        (["--check", "mine/golden"], 2, "--check: goes without images and other options"),
        (["--check", "--top", "3"], 2, "--check: goes without images and other options"),
        (["mine/README.md", "mine/golden"], 1, "README.md: not an image, or damaged"),
    ],
)
def test_mistakes_are_one_line(folder: Path, arguments: list[str], code: int, message: str) -> None:
    done = predict(folder, *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_of_other_inputs_is_refused(folder: Path, model_dir: Path, tmp_path: Path) -> None:
    what = Export("onnx", 41, 4)
    image = np.zeros((60, 60, 3), "uint8")
    export(model_dir, read_info(model_dir), what, [image], tmp_path)
    done = predict(folder, "mine/golden", "--csv", "--model", tmp_path / "model.onnx")
    assert_user_error(done, "takes tensor(float) of [4, 3, 41, 41]")
    assert done.stdout == ""  # no head of a table


def test_a_check_that_checks_nothing_fails(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    shutil.copy(folder / "predict.py", tmp_path / "mine")
    assert_user_error(predict(tmp_path / "mine", "--check"), "has no model.onnx")
    shutil.copy(folder / "model.onnx", tmp_path / "mine")
    assert_user_error(predict(tmp_path / "mine", "--check"), "golden.json: missing or damaged")


def test_json_is_valid_in_every_locale(folder: Path, images: Path) -> None:
    command = [sys.executable, "-B", str(folder / "predict.py"), "--json", str(images / "grey.jpg")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    [result] = json.loads(done.stdout)
    assert {each["name"] for each in result["classes"]} >= set(NAMES)


def test_a_reader_that_stops_early_sees_no_traceback(folder: Path) -> None:
    command = [
        sys.executable,
        "-B",
        str(folder / "predict.py"),
        str(folder / "golden" / "disc_stripes.png"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "predict.py: the output cannot be written (No space left on device).\n"


def test_names_do_not_command_the_terminal(folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "a\x1b[31m.png"
    shutil.copy(folder / "golden" / "disc_stripes.png", image)
    done = predict(folder, image, tmp_path / "b\x1b[31m.png")
    assert "\x1b" not in done.stdout + done.stderr
    (tmp_path / "b\x1b[31m.png").write_text("no image")
    done = predict(folder, image, tmp_path / "b\x1b[31m.png")
    assert done.returncode == 1
    assert r"a\x1b[31m.png" in done.stdout
    assert r"b\x1b[31m.png: not an image" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_a_missing_package_is_named(folder: Path, lacking: Path) -> None:
    for without in (["onnxruntime"], ["cv2", "PIL"]):
        shutil.rmtree(lacking, ignore_errors=True)
        assert_user_error(
            predict(folder, "x.jpg", without=without, lacking=lacking), "pip install numpy"
        )


def test_int8_is_fitted_or_taken_from_the_model_directory(
    tmp_path: Path, images: Path, call_tool: Run
) -> None:
    model = model_of(tmp_path / "model", PREPROCESSES["authors"])
    given = ("--model_dir", model, "--format", "bundle", "--output_dir")
    done = call_tool("export", *given, tmp_path / "fitted.zip", "--image", images)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "fitted.zip") as archive:
        assert "fitted/model_int8.onnx" in archive.namelist()
        archive.extractall(tmp_path)
    assert len(predict(tmp_path / "fitted", "--check").stdout.splitlines()) == 2

    done = call_tool("export", *given, tmp_path / "none")
    assert "no model_int8.onnx: --image names images" in done.stderr
    photographs = [read_image(images / "half.png"), read_image(images / "huge.png")]
    info = read_info(model)
    export(model, info, Export("onnx", 41, precision="int8"), photographs, model)
    done = call_tool("export", *given, tmp_path / "taken")
    assert done.returncode == 0
    assert "model_int8.onnx" not in done.stderr
    runs = [
        onnxruntime.InferenceSession(str(folder / "model_int8.onnx"))
        for folder in (model, tmp_path / "taken")
    ]
    inputs = info.preprocess(photographs[0])[None]
    found, expected = (run.run(None, {"data": inputs})[0] for run in runs)
    np.testing.assert_array_equal(found, expected)
    done = predict(tmp_path / "taken", images / "half.png", "--model", "taken/model_int8.onnx")
    assert done.returncode == 0, done.stderr


def test_the_page_is_in_it_where_it_can_be_made(
    model_dir: Path,
    tmp_path: Path,
    call_tool: Run,
    without_ziglang: pytest.MonkeyPatch,
) -> None:
    given = ("--model_dir", model_dir, "--format", "bundle", "--output_dir", tmp_path / "mine")
    done = call_tool("export", *given)
    assert "no model.html: ziglang is not installed: pip install" in done.stderr
    without_ziglang.undo()
    try:
        pytest.importorskip("ziglang")
        pytest.importorskip("wasmtime")
        done = call_tool("export", *given)
    finally:
        without_ziglang.setitem(sys.modules, "ziglang", None)
    assert done.returncode == 0, done.stderr
    assert "html" not in done.stderr
    assert "<html" in (tmp_path / "mine" / "model.html").read_text("utf-8")
    assert "| model.html | " in (tmp_path / "mine" / "README.md").read_text("utf-8")
    assert not (tmp_path / "mine" / "exports.json").exists()


def test_the_model_card(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# SqueezeNet v1.1, 5 classes\n")
    assert "- 1: a\\|b \\<i\\>" in text
    assert "Not measured." in text
    assert '"none of these"; of 40 validation images' in text
    assert "4. as float32: (pixel \\* 1 - mean) / std, with the mean 104, 117, 123" in text
    assert "Not recorded." in text
    assert (folder / "c" / "squeezenet.c").is_file()
    for path in folder.iterdir():
        assert f"| {path.name}" in text
        if path.is_file() and path.name != "README.md":
            assert f"| {path.stat().st_size:,} |" in text


def test_the_model_card_takes_scores_of_the_same_weights(
    tmp_path: Path, images: Path, call_tool: Run
) -> None:
    config = ModelConfig(num_classes=3)
    model = small_model_dir(tmp_path / "run" / "best", config)
    lines = [f"{path.name} {i % 3}\n" for i, path in enumerate(sorted(images.iterdir()))]
    (tmp_path / "list.txt").write_text("".join(lines))
    done = call_tool(
        *("eval", "--model_dir", model, "--test_list", tmp_path / "list.txt"),
        *("--data_dir", images, "--report_dir", tmp_path / "report", "--engine", "onnxruntime"),
    )
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "report" / "metrics.json").read_text())
    given = ("--model_dir", model, "--format", "bundle", "--output_dir", tmp_path / "mine")
    done = call_tool("export", *given, "--report_dir", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "mine" / "README.md").read_text()
    assert f"| {len(lines)} | {numbers['top1']:.2%} |" in text
    assert "Measured on the list list.txt, with onnxruntime, float32.\n" in text
    pair = numbers["confused_pairs"][0]
    row = f"| {pair['label_name']} | {pair['predicted_name']} | {pair['images']} |"
    assert row in text
    assert "it does not know when an image is none of them" in text
    assert "also chose" not in text
    # That of the model's own run is found, and one of other weights refused.
    shutil.move(tmp_path / "report", tmp_path / "run" / "report")
    assert call_tool("export", *given).returncode == 0
    assert (tmp_path / "mine" / "README.md").read_text() == text.replace(
        "float32.\n",
        "float32.\nThe same images also chose which update of the training was "
        "kept, so that new images may score lower.\n",
    )
    small_model_dir(model, config, seed=1)
    done = call_tool("export", *given, "--report_dir", tmp_path / "run" / "report")
    assert_user_error(done, "this report is of other weights")
    assert call_tool("export", *given).returncode == 0
    assert "Not measured." in (tmp_path / "mine" / "README.md").read_text()


def test_scores_of_training(tmp_path: Path) -> None:
    config = ModelConfig(num_classes=3)
    scores = {"val": {"images": 1234, "top1": 0.5, "top5": 1.0, "loss": 0.7}}
    source = {
        "format": "trained",
        "images": 5000,
        "step": 70,
        "train_list": "train_list.txt",
        "pretrained": {
            "format": "caffemodel",
            "file": "squeezenet_v1.1.caffemodel",
            "sha256": "72b912ace512e8621f8ff168a7d72af55910d3c7c9445af8dfbff4c2ee960142",
        },
    }
    info = ModelInfo(config, PREPROCESSES["authors"], None, source, {}, scores)
    write_model_dir(tmp_path / "model", info, network_of(config).state_dict())
    given = ["--model_dir", str(tmp_path / "model"), "--format", "bundle", "--output_dir"]
    main([*given, str(tmp_path / "mine")])
    text = (tmp_path / "mine" / "README.md").read_text()
    assert "| 1,234 | 50.00% | 100.00% | 0.7000 |" in text
    assert "1. Converted from squeezenet\\_v1.1.caffemodel (SHA-256 72b9" in text
    assert "2. Fine-tuned on 5,000 images, to update 70." in text
    assert "the SqueezeNet authors' own, which is under the BSD 2-clause license" in text
    assert "Their names are not known" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a bundle needs --output_dir"),
        (["--output_dir", "{new}", "--batch", "2"], "--batch, --with_preprocess and --precision"),
        (["--output_dir", "{new}", "--report_dir", "{empty}"], "cannot read this report"),
        (["--output_dir", "{empty}/.."], "exists and holds something else"),
        (["--output_dir", "{file}"], "is a file; the name of a directory was expected"),
        (["--output_dir", "{new}", "--image", "/nowhere"], "/nowhere"),
    ],
)
def test_wrong_arguments(
    model_dir: Path, tmp_path: Path, call_tool: Run, arguments: list[str], message: str
) -> None:
    names = {name: tmp_path / name for name in ("new", "empty", "file")}
    names["empty"].mkdir()
    names["file"].write_text("")
    arguments = [argument.format(**names) for argument in arguments]
    done = call_tool("export", "--model_dir", model_dir, "--format", "bundle", *arguments)
    assert_user_error(done, message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


def test_a_report_is_for_bundles(model_dir: Path, call_tool: Run) -> None:
    done = call_tool("export", "--model_dir", model_dir, "--format", "onnx", "--report_dir", "x")
    assert_user_error(done, "--report_dir is for the model card")


def test_plain_onnx_files_carry_names_and_mean(tmp_path: Path, images: Path) -> None:
    """The metadata alone is enough, without the model directory."""
    model = model_of(tmp_path / "model", PREPROCESSES["mean_image"])
    image = read_image(images / "half.png")
    [file] = export(model, read_info(model), Export("onnx", 41), [image], tmp_path / "out").files
    metadata = onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == NAMES
    mean = np.load(io.BytesIO(base64.b64decode(json.loads(metadata["mean_image"]))))
    expected = PREPROCESSES["mean_image"].mean_of_pixels
    np.testing.assert_array_equal(mean, expected)

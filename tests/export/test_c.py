"""The C code: built here, its pixels against OpenCV, its numbers against numpy and the network."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from c_library import NATIVE, PIXELS, STRICT, CNet, compile_c, missing, tool
from conftest import Run, assert_user_error
from networks import VARIANTS, assert_same, name_of, small_calibration, small_model_dir

from squeezenet_paddle.data.preprocess import MeanImage, Preprocess
from squeezenet_paddle.explain import Explainer, heat_of
from squeezenet_paddle.export.c.write import write_c
from squeezenet_paddle.model_dir import (
    ModelInfo,
    read_info,
    read_weights,
    write_compressed,
    write_model_dir,
)
from squeezenet_paddle.network import numpy_forward
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.predict import Predictor
from squeezenet_paddle.sqz import format as sqz

CONFIGS = [
    *VARIANTS,
    ModelConfig("1.1", 5, head="multiscale"),
    ModelConfig("1.0", 3, head="compact", bypass="complex", activation="elu"),
    ModelConfig("1.0-nopad", 2),
    ModelConfig("1.0", 40, head="conv_bn"),
]


def image(height: int = 60, width: int = 50, seed: int = 0) -> np.ndarray:
    """Noise, uint8 in BGR."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), "uint8")


def rgb(bgr: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(bgr[:, :, ::-1])


def export(model_dir: Path, folder: Path, flags: tuple[str, ...]) -> CNet:
    """The C code of a model directory, built."""
    info = read_info(model_dir)
    write_c(model_dir, info, folder, [])
    return CNet(folder, info.preprocess.input_shape, info.network.num_classes, flags=flags)


def compressed(model_dir: Path, interpolation: str) -> tuple[ModelInfo, bytes]:
    """Writes a model directory of few weights, as a model.sqz of 12 KB."""
    config = ModelConfig("1.1", 5)
    info = read_info(small_model_dir(model_dir.with_name("whole"), config))
    preprocess = dataclasses.replace(
        info.preprocess, interpolation=interpolation, resize="short_side"
    )
    info = dataclasses.replace(info, preprocess=preprocess)
    rng = np.random.default_rng(0)
    arrays: dict[str, object] = {}
    for key, shape in sqz.caffe_shapes(config).items():
        if len(shape) == 1:
            arrays[key] = rng.normal(0, 0.1, shape).astype("float16")
            if "expand" in key:  # one number for all
                arrays[key][:] = 0
            continue
        values = (rng.integers(-3, 4, shape) * (rng.uniform(size=shape) < 1e-3)).astype("int16")
        scales = rng.integers(0, 9, values[0].size).astype("uint8")
        arrays[key] = sqz.Indices(values, np.float32(0.004), scales)
    data, _ = sqz.write(sqz.Content(config, arrays, info.preprocess.record()))
    write_compressed(model_dir, info, data)
    return info, data


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_every_network_gives_the_numbers_of_numpy(config: ModelConfig, tmp_path: Path) -> None:
    for crop_size in (40, 47) if config in VARIANTS[:2] else (40,):  # each rounds other pools
        model_dir = small_model_dir(tmp_path / f"m{crop_size}", config, crop_size)
        flags = NATIVE if config in (VARIANTS[0], VARIANTS[3]) and crop_size == 40 else ("-O0",)
        net = export(model_dir, tmp_path / f"c{crop_size}", flags)
        info = read_info(model_dir)
        x = info.preprocess(image())
        np.testing.assert_array_equal(net.preprocess(rgb(image())), x)
        expected = numpy_forward.logits(config, read_weights(model_dir, info).state, x)
        found = net.logits(x)
        tolerance = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
        answer = Predictor(model_dir).answers(x[None])[0]
        count = min(4, config.num_classes)
        top = net.classify(rgb(image()), count)
        assert [each[0] for each in top] == [each[0] for each in answer.top(count)]
        np.testing.assert_allclose(
            [p for _, p in top], [p for _, p in answer.top(count)], 1e-3, 1e-6
        )
        # The map of the first class, in which explain is the judge.
        logits, maps = Explainer(model_dir)(x[None])
        heat = heat_of(maps, 0, config, crop_size)
        net.preprocess(rgb(image(seed=1)))  # of the next image, which changes nothing
        assert_same(net.map(int(logits.argmax())), heat, 1e-4)


def test_images_of_none_of_the_classes(tmp_path: Path) -> None:
    pictures = [image(seed=seed) // (1 + seed) for seed in range(6)]
    for head, groups, axes in (("compact", 4, 3), ("conv", 0, 0)):
        model_dir = small_model_dir(tmp_path / head, ModelConfig("1.1", 5, head=head))
        info = read_info(model_dir)
        state = read_weights(model_dir, info).state
        inputs = np.stack([info.preprocess(each) for each in pictures])
        threshold = 0.0
        for _ in range(2):
            calibration = small_calibration(5, groups, threshold, axes)
            write_model_dir(model_dir, dataclasses.replace(info, calibration=calibration), state)
            answers = Predictor(model_dir).answers(inputs)
            threshold = float(np.median([each.familiarity for each in answers if each.familiarity]))
        net = export(model_dir, tmp_path / f"c-{head}", PIXELS)
        for picture, answer in zip(pictures, answers):
            [(first, probability)] = net.classify(rgb(picture), 1)
            assert (first, pytest.approx(probability, rel=1e-4)) == answer.top(1)[0]
            assert net.c.sqz_familiarity(net.net) == pytest.approx(answer.familiarity, abs=1e-5)
            assert net.c.sqz_is_none(net.net) == (answer.refusal is not None)
        assert {answer.refusal for answer in answers} == {None, "none of these"}


@pytest.mark.parametrize("interpolation", ["linear", "cubic", "area"])
@pytest.mark.parametrize("resize", ["squash", "short_side"])
def test_pixels_are_those_of_opencv(resize: str, interpolation: str, tmp_path: Path) -> None:
    config = ModelConfig("1.1", 2, data_format="NHWC")
    model_dir = small_model_dir(tmp_path / "m", config, 227)
    info = read_info(model_dir)
    preprocess = Preprocess(resize, 256, interpolation, 227, "RGB", 1 / 58, (2, 2.1, 1.8),
                            (1.1, 0.9, 1.0), "NHWC")  # fmt: skip
    info = dataclasses.replace(info, preprocess=preprocess)
    write_c(model_dir, info, tmp_path / "c", [])
    net = CNet(tmp_path / "c", preprocess.input_shape, 2, flags=PIXELS)
    sizes = [(1, 1), (3, 2000), (2000, 3), (227, 227), (256, 256), (512, 512), (768, 512), (2, 90),
             (300, 400), (257, 255), (1024, 300), (100, 999), (4, 2000), (5, 1)]  # fmt: skip
    # Of the longer side of a cubic resize Intel's library, which OpenCV calls on x86, rounds a few
    # values in a million to the other side.
    most = 4 if (resize, interpolation) == ("short_side", "cubic") else 0
    for height, width in sizes:
        bgr = image(height, width)
        found, expected = net.preprocess(rgb(bgr)), preprocess(bgr)
        assert int((found != expected).sum()) <= most, bgr.shape
        assert np.abs(found - expected).max() < 1 / 50  # one step of a pixel


def test_a_mean_image_is_subtracted(tmp_path: Path) -> None:
    info = read_info(small_model_dir(tmp_path / "m", ModelConfig("1.1", 2)))
    mean = np.random.default_rng(0).uniform(90, 130, (3, 48, 48))
    for order in ("BGR", "RGB"):
        preprocess = Preprocess(
            "squash", 48, "linear", 40, order, std=(2, 3, 4), mean_image=MeanImage(mean)
        )
        other = dataclasses.replace(info, preprocess=preprocess)
        write_c(tmp_path / "m", other, tmp_path / order, [])
        net = CNet(tmp_path / order, preprocess.input_shape, 2, flags=PIXELS)
        np.testing.assert_array_equal(net.preprocess(rgb(image())), preprocess(image()))


@pytest.mark.parametrize(
    ("compiler", "flags", "interpolation", "count"),
    [("gcc", "-DSQZ_PLAIN", "area", 1000), ("clang", "-march=native", "cubic", 10000)],
)
def test_damaged_weights_are_refused(
    compiler: str, flags: str, interpolation: str, count: int, tmp_path: Path
) -> None:
    info, data = compressed(tmp_path / "m", interpolation)
    write_c(tmp_path / "m", info, tmp_path / "c", [])
    assert (tmp_path / "c" / "model.sqz").read_bytes() == data
    program = tmp_path / "fuzz"
    sanitizers = ("-O1", "-g", flags, "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    driver = Path(__file__).with_name("fuzz_sqz.c")
    compile_c(compiler, *sanitizers, "-I", tmp_path / "c", "-o", program, driver)
    command = [program, tmp_path / "c" / "model.sqz", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    refused, checksums, loaded = (int(n) for n in re.findall(r"\d+", done.stdout))
    assert refused + loaded == count
    assert count / 4 < checksums < refused


def test_a_build_checks_itself_and_names_images(call_tool: Run, tmp_path: Path) -> None:
    model_dir = tmp_path / "m"
    compressed(model_dir, "linear")
    done = call_tool("export", "--model_dir", model_dir, "--format", "c", "--embed")
    assert done.returncode == 0, done.stderr
    folder = model_dir / "c"
    command = [tool("make"), "-C", str(folder), f"CC={tool('gcc')}", f"WARNINGS={' '.join(STRICT)}"]
    built = subprocess.run(
        [*command, "CFLAGS=-O0", "squeezenet", "check"], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert built.stdout.count(": 0 of") == 3
    program, golden = folder / "squeezenet", folder / "golden" / "0.ppm"
    (folder / "model.sqz").unlink()  # it is in the program
    named = subprocess.run([program, "-k", "2", golden], capture_output=True, text=True, check=True)
    assert named.stdout.splitlines()[0] == str(golden)
    assert "class " in named.stdout.splitlines()[1]
    assert len(named.stdout.splitlines()) == 3
    size = golden.read_bytes().split(b"\n")[1].decode().replace(" ", "x")
    pixels = golden.read_bytes().split(b"\n255\n", 1)[1]
    raw = subprocess.run(
        [program, "-k", "2", "-r", size], input=pixels, capture_output=True, check=True
    )
    assert raw.stdout.decode().splitlines()[1:] == named.stdout.splitlines()[1:]
    # Whatever it cannot use as it was meant, it refuses.
    for arguments, code, message in (
        (["-r", "10x10", golden], 1, "10 x 10 x 3 bytes were expected"),
        (["-r", "99999999999x4", golden], 2, "usage: "),
        (["-k", "99999999999", golden], 2, "usage: "),
        (["-w", "model.sqz", golden], 2, "model.sqz: cannot read this weights file"),
        ([folder], 1, f"{folder}: cannot read this image"),
        ([folder / "main.c", golden], 1, "main.c: no PPM or PGM file"),
    ):
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, cwd=folder
        )
        assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
        assert message in done.stderr
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [program, golden], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, "cannot be written" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("target", "emulator"),
    [
        ("aarch64-linux-musl", "qemu-aarch64"),
        pytest.param(
            "arm-linux-musleabihf",
            "qemu-arm",
            marks=pytest.mark.skipif(
                "SQUEEZENET_ALL_PROCESSORS" not in os.environ,
                reason="ziglang compiles a C library at first; SQUEEZENET_ALL_PROCESSORS=1 runs it",
            ),
        ),
    ],
)
def test_other_processors_give_the_same(target: str, emulator: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target]
    if importlib.util.find_spec("ziglang") is None:
        missing("ziglang")
    tool(emulator)
    model_dir = small_model_dir(tmp_path / "m", ModelConfig("1.0", 5))
    folder = tmp_path / "c"
    write_c(model_dir, read_info(model_dir), folder, [image(seed=i) for i in range(3)])
    files = [folder / "golden" / "check.c", folder / "squeezenet.c"]
    options = ["-O2", "-static", f"-I{folder}", "-DGOLDEN=3", "-o", str(tmp_path / "check")]
    subprocess.run([*command, *STRICT, *options, *files, "-lm"], check=True)
    done = subprocess.run(
        [emulator, tmp_path / "check"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": 0 of") == 3


def test_threads_and_plain_c_change_nothing(tmp_path: Path) -> None:
    model_dir = small_model_dir(tmp_path / "m", ModelConfig("1.1", 5, bypass="simple"))
    info = read_info(model_dir)
    write_c(model_dir, info, tmp_path / "c", [])
    x = info.preprocess(image())
    logits = []
    for flags in (
        ("-O1",),
        ("-O1", "-DSQZ_THREADS", "-fopenmp"),
        ("-O1", "-DSQZ_PLAIN"),
        NATIVE,
    ):
        net = CNet(tmp_path / "c", info.preprocess.input_shape, 5, flags=flags)
        logits.append(net.logits(x))
    np.testing.assert_array_equal(logits[0], logits[1])
    for other in logits[2:]:
        assert_same(other, logits[0])


def test_what_c_cannot_have_is_refused(call_tool: Run, tmp_path: Path) -> None:
    model_dir = small_model_dir(tmp_path / "m", ModelConfig("1.1", 5))
    arguments = ("export", "--model_dir", model_dir, "--format", "c")
    assert_user_error(call_tool(*arguments, "--batch", 4), "--batch")
    assert_user_error(call_tool(*arguments, "--with_preprocess"), "--with_preprocess")
    assert_user_error(call_tool(*arguments, "--output_dir", model_dir), "holds something else")
    inside_a_file = model_dir / "config.json" / "c"
    assert_user_error(call_tool(*arguments, "--output_dir", inside_a_file), "cannot be written")
    assert_user_error(call_tool(*arguments[:-1], "onnx", "--embed"), "--embed")
    assert not (model_dir / "c").exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    net = export(small_model_dir(tmp_path / "m", ModelConfig("1.1", 5)), tmp_path / "c", PIXELS)
    for config in (ModelConfig("1.0", 5), ModelConfig("1.1", 6), ModelConfig("1.1", 5, "simple")):
        model_dir = small_model_dir(tmp_path / "other", config)
        write_c(model_dir, read_info(model_dir), tmp_path / "d", [])
        assert net.load((tmp_path / "d" / "model.sqz").read_bytes()) == 5
    info = read_info(tmp_path / "m")
    other = dataclasses.replace(info, preprocess=Preprocess(crop_size=40))
    write_model_dir(tmp_path / "m", other, read_weights(tmp_path / "m", info).state)
    write_c(tmp_path / "m", other, tmp_path / "d", [])
    assert net.load((tmp_path / "d" / "model.sqz").read_bytes()) == 5

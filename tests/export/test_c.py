"""The C code: built here, its pixels against OpenCV, its numbers against numpy and the network."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_library import STRICT, CNet, tool
from conftest import Run, assert_user_error
from networks import VARIANTS, assert_same, name_of, small_calibration, small_model_dir

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.explain import Explainer, heat_of
from squeezenet_paddle.export.c.write import write_c
from squeezenet_paddle.model_dir import read_info, read_weights, write_model_dir
from squeezenet_paddle.network import numpy_forward
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.predict import Predictor

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


def export(model_dir: Path, folder: Path, **options: bool) -> CNet:
    """The C code of a model directory, built."""
    info = read_info(model_dir)
    write_c(model_dir, info, folder, [image(seed=i) for i in range(3)], **options)
    return CNet(folder, info.preprocess.input_shape, info.network.num_classes)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_every_network_gives_the_numbers_of_numpy(config: ModelConfig, tmp_path: Path) -> None:
    for crop_size in (40, 47):  # each rounds other pools
        model_dir = small_model_dir(tmp_path / f"m{crop_size}", config, crop_size)
        net = export(model_dir, tmp_path / f"c{crop_size}")
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
        assert_same(net.map(int(logits.argmax())), heat, 1e-4)


def test_images_of_none_of_the_classes(tmp_path: Path) -> None:
    pictures = [image(seed=seed) // (1 + seed) for seed in range(6)]
    for head, groups in (("compact", 4), ("conv", 0)):
        model_dir = small_model_dir(tmp_path / head, ModelConfig("1.1", 5, head=head))
        info = read_info(model_dir)
        state = read_weights(model_dir, info).state
        inputs = np.stack([info.preprocess(each) for each in pictures])
        threshold = 0.0
        for _ in range(2):
            calibration = small_calibration(5, groups, threshold)
            write_model_dir(model_dir, dataclasses.replace(info, calibration=calibration), state)
            answers = Predictor(model_dir).answers(inputs)
            threshold = float(np.median([each.familiarity for each in answers if each.familiarity]))
        net = export(model_dir, tmp_path / f"c-{head}")
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
    net = CNet(tmp_path / "c", preprocess.input_shape, 2)
    sizes = [(227, 227), (256, 256), (512, 512), (768, 512), (300, 400), (257, 255), (1024, 300),
             (100, 999), (4, 2000)]  # fmt: skip
    if interpolation != "cubic":
        sizes += [(1, 1), (3, 2000), (2000, 3), (2, 90), (5, 1)]
    for height, width in sizes:
        bgr = image(height, width)
        differ = int((net.preprocess(rgb(bgr)) != preprocess(bgr)).sum())
        assert differ <= (2 if interpolation == "cubic" else 0), bgr.shape


def test_a_build_checks_itself_and_names_images(call_tool: Run, tmp_path: Path) -> None:
    model_dir = small_model_dir(tmp_path / "m", ModelConfig("1.1", 5))
    done = call_tool("export", "--model_dir", model_dir, "--format", "c", "--embed")
    assert done.returncode == 0, done.stderr
    folder = model_dir / "c"
    command = [tool("make"), "-C", str(folder), f"CC={tool('gcc')}", f"WARNINGS={' '.join(STRICT)}"]
    built = subprocess.run(
        [*command, "CFLAGS=-O1", "squeezenet", "check"], capture_output=True, text=True, check=False
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


def test_what_c_cannot_have_is_refused(call_tool: Run, tmp_path: Path) -> None:
    model_dir = small_model_dir(tmp_path / "m", ModelConfig("1.1", 5))
    arguments = ("export", "--model_dir", model_dir, "--format", "c")
    assert_user_error(call_tool(*arguments, "--batch", 4), "--batch")
    assert_user_error(call_tool(*arguments, "--with_preprocess"), "--with_preprocess")
    assert_user_error(call_tool(*arguments, "--output_dir", model_dir), "holds something else")
    assert_user_error(call_tool(*arguments[:-1], "onnx", "--embed"), "--embed")
    assert not (model_dir / "c").exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    net = export(small_model_dir(tmp_path / "m", ModelConfig("1.1", 5)), tmp_path / "c")
    for config in (ModelConfig("1.0", 5), ModelConfig("1.1", 6), ModelConfig("1.1", 5, "simple")):
        model_dir = small_model_dir(tmp_path / "other", config)
        write_c(model_dir, read_info(model_dir), tmp_path / "d", [])
        assert net.load((tmp_path / "d" / "model.sqz").read_bytes()) == 5
    info = read_info(tmp_path / "m")
    other = dataclasses.replace(info, preprocess=Preprocess(crop_size=40))
    write_model_dir(tmp_path / "m", other, read_weights(tmp_path / "m", info).state)
    write_c(tmp_path / "m", other, tmp_path / "d", [])
    assert net.load((tmp_path / "d" / "model.sqz").read_bytes()) == 5

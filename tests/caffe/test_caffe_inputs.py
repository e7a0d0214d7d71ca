"""What files say of their input, and the mean files; numpy and OpenCV are the judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import wild_files as wild
from networks import random_state

from squeezenet_paddle.caffe.convert import read_weights
from squeezenet_paddle.caffe.inputs import Statement, agreed, make_preprocess, statements
from squeezenet_paddle.caffe.mean import read_mean
from squeezenet_paddle.caffe.reader import parse_caffemodel, read_prototxt
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network.config import ModelConfig

CONV = 'layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" }\n'


def said(text: str, tmp_path: Path, conv: str = CONV) -> dict[str, Any]:
    """What a prototxt states, by name."""
    file = tmp_path / "train_val.prototxt"
    file.write_text(text + conv)
    return {each.name: each.value for each in statements(read_prototxt(file), file.name)}


def data(body: str, kind: str = "Data", top: str = "data") -> str:
    return f'layer {{ name: "{top}" type: "{kind}" top: "{top}" {body} }}\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            data("transform_param { crop_size: 224 mirror: true }"),
            {"crop_size": 224, "mirror": True},
        ),
        (data("transform_param { mean_value: 128 }"), {"mean": (128.0, 128.0, 128.0)}),
        (
            data("transform_param { mean_value: 90 mean_value: 91.5 mean_value: 92 scale: 0.017 }"),
            {"mean": (90.0, 91.5, 92.0), "scale": 0.017},
        ),
        (
            data('transform_param { mean_file: "a/b.binaryproto" }'),
            {"mean_file": "a/b.binaryproto"},
        ),
        (
            data("image_data_param { new_height: 256 new_width: 256 }", "ImageData"),
            {"resize_size": 256},
        ),
        (
            "layers { name: 'data' type: DATA top: 'data' "
            "data_param { crop_size: 227 scale: 0.5 } }\n",
            {"crop_size": 227, "scale": 0.5},
        ),
        (
            "input: 'data' input_dim: 1 input_dim: 3 input_dim: 224 input_dim: 224\n",
            {"crop_size": 224},
        ),
        ("input: 'data' input_shape { dim: 1 dim: 3 dim: 96 dim: 96 }\n", {"crop_size": 96}),
        (
            data("input_param { shape { dim: 1 dim: 3 dim: 227 dim: 227 } }", "Input"),
            {"crop_size": 227},
        ),
        (
            data("memory_data_param { channels: 3 height: 64 width: 64 }", "MemoryData"),
            {"crop_size": 64},
        ),
        # The labels have a Data layer of their own, whose scale is none of pixels.
        (data("transform_param { scale: 0.004 }", top="label"), {}),
        # Training mirrors, testing does not: only training is said.
        (
            data("include { phase: TRAIN } transform_param { mirror: true crop_size: 227 }")
            + data("include { phase: TEST } transform_param { mirror: false crop_size: 227 }"),
            {"mirror": True, "crop_size": 227},
        ),
    ],
)
def test_what_a_prototxt_says(text: str, expected: dict, tmp_path: Path) -> None:
    conv = (
        CONV
        if "layers {" not in text
        else ("layers { name: 'conv1' type: CONVOLUTION bottom: 'data' top: 'conv1' }\n")
    )
    assert said(text, tmp_path, conv) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "input: 'data' input_dim: 1 input_dim: 1 input_dim: 28 input_dim: 28\n",
            "grey images are",
        ),
        ("input: 'data' input_dim: 1 input_dim: 4 input_dim: 28 input_dim: 28\n", "of 4 channels"),
        (
            "input: 'data' input_dim: 1 input_dim: 3 input_dim: 20 input_dim: 30\n",
            "an input of 30x20;",
        ),
        (data("transform_param { force_gray: true }"), "layer 'data' of train_val.prototxt: grey"),
        (
            data("image_data_param { is_color: false }", "ImageData"),
            "grey images are not supported",
        ),
        (data("transform_param { mean_value: 1 mean_value: 2 }"), "1 or 3 mean values .* found 2"),
        (data("transform_param { mean_value: 1000000000 }"), r"within 0 to 255, found 1e\+09"),
        (data("transform_param { mean_value: nan }"), "within 0 to 255, found nan"),
        (data("transform_param { scale: -1 }"), "a scale above 0 was expected, found -1"),
        (data("transform_param { crop_size: 1000000 }"), "1000000x1000000 pixels makes no sense"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        said(text, tmp_path)


def test_a_contradiction_shows_both_and_a_flag_settles_it() -> None:
    stated = [
        Statement("crop_size", 227, "layer 'data' of a.caffemodel"),
        Statement("crop_size", 224, "layer 'input' of deploy.prototxt"),
    ]
    with pytest.raises(
        InputError, match=r"crop_size 227 \(layer 'data' of a.*crop_size 224 \(.*dep"
    ):
        agreed(stated)
    preprocess, notes = make_preprocess(agreed(stated, {"crop_size"}), {"crop_size": 200})
    assert preprocess.crop_size == 200
    assert "crop_size 200: `crop_size`, instead of 227 of layer 'data' of a.caffemodel" in notes
    both = [Statement("mean", (1.0, 2.0, 3.0), "x"), Statement("mean_file", "m", "y")]
    with pytest.raises(InputError, match=r"mean 1 2 3 \(x\), but mean_file m \(y\)"):
        agreed(both)


def test_where_nothing_is_said_the_authors_values_are_used_and_named() -> None:
    preprocess, notes = make_preprocess({}, {})
    assert preprocess == Preprocess()
    (note,) = notes
    assert note == (
        "crop_size 227, resize squash, resize_size 256, interpolation cubic, scale 1, "
        "mean 104 117 123: the authors' values, as no file states others"
    )


def test_a_mean_file_is_asked_for() -> None:
    stated = agreed([Statement("mean_file", "/home/x/mean.binaryproto", "layer 'data' of a")])
    preprocess, notes = make_preprocess(stated, {})
    assert preprocess.mean == (104.0, 117.0, 123.0)
    (note,) = [note for note in notes if note.startswith("mean")]
    assert "/home/x/mean.binaryproto" in note
    assert "give `mean_file`" in note


MEAN = np.random.default_rng(0).uniform(90, 160, (3, 256, 256)).astype("float32")


def save_npy(path: Path, values: np.ndarray) -> Path:
    np.save(path, values)
    return path


@pytest.mark.parametrize("form", ["binaryproto", "npy", "npy 4", "npy values"])
def test_mean_files_against_pycaffe(form: str, tmp_path: Path) -> None:
    if form == "binaryproto":
        file = tmp_path / "mean.binaryproto"
        file.write_bytes(wild.binaryproto(MEAN))
    else:
        values = {"npy": MEAN, "npy 4": MEAN[None], "npy values": MEAN.mean(1).mean(1)}[form]
        file = save_npy(tmp_path / "mean.npy", values)
    mean = read_mean(file)
    preprocess, notes = make_preprocess({}, {"crop_size": 227}, mean)
    np.testing.assert_allclose(preprocess.mean, MEAN.mean(1).mean(1), rtol=1e-5)
    assert preprocess.resize_size == 256
    assert any("`mean_file`" in note for note in notes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (MEAN[:1], "the mean of grey images"),
        (MEAN[:2], "3 channels .* found 2x256x256"),
        (MEAN.transpose(1, 2, 0), "found 256x256x3"),
        (MEAN + 1e9, r"within 0 to 255, found 1e\+09"),
        (MEAN * np.nan, "within 0 to 255, found nan"),
        (np.array(["a"]), "found 1 of <U1"),
    ],
)
def test_a_mean_that_is_none(values: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_mean(save_npy(tmp_path / "mean.npy", values))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a mean file .* found an empty file"),
        (b"hello", "found a text file"),
        (wild.binaryproto(MEAN)[:-7], "mean"),
        (b"\x93NUMPY\x01\x00", "this .npy file is damaged"),
        (b"\x80\x04\x95.", "found a Python pickle"),
    ],
)
def test_a_file_that_is_no_mean(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mean.binaryproto"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_mean(file)


def test_a_caffemodel_is_no_mean(tmp_path: Path) -> None:
    file = tmp_path / "mean.binaryproto"
    config = ModelConfig(num_classes=2)
    file.write_bytes(wild.snapshot(config, random_state(config)))
    with pytest.raises(InputError, match="found a caffemodel"):
        read_mean(file)


def test_the_input_is_caffes() -> None:
    """(pixel - mean) * scale, as OpenCV's blob of the same image."""
    image = np.random.default_rng(0).integers(0, 256, (227, 227, 3), "uint8")
    stated = [Statement("mean", (90.0, 100.5, 110.0), "a"), Statement("scale", 0.017, "a")]
    preprocess, _ = make_preprocess(agreed(stated), {"resize_size": 227})
    blob = cv2.dnn.blobFromImage(image, 0.017, (227, 227), (90.0, 100.5, 110.0))
    np.testing.assert_allclose(preprocess(image)[None], blob, rtol=0, atol=1e-5)


def test_a_prototxt_of_another_input(tmp_path: Path) -> None:
    config = ModelConfig(num_classes=2)
    net = wild.edited_net(config, random_state(config), wild.data_layers(227))
    file = tmp_path / "net.caffemodel"
    file.write_bytes(net.SerializeToString())
    deploy = wild.edited_net(config, random_state(config))
    deploy.layer[0].input_param.shape[0].dim[2:] = [224, 224]
    prototxt = tmp_path / "deploy.prototxt"
    prototxt.write_text(wild.prototxt_of(deploy))
    with pytest.raises(InputError, match=r"crop_size 227 .* but crop_size 224 .*deploy.prototxt"):
        agreed(read_weights(file, [prototxt]).stated)


def test_a_snapshot_says_the_same_in_v1(tmp_path: Path) -> None:
    config = ModelConfig(num_classes=2)
    edits = [wild.data_layers(mean_value=[1, 2, 3], scale=0.5, mirror=True)]
    for more in ([], [wild.to_v1]):
        found = parse_caffemodel(wild.snapshot(config, random_state(config), *edits, *more), "a")
        stated = {each.name: each.value for each in statements(found, "a")}
        expected = {"crop_size": 227, "mean": (1.0, 2.0, 3.0), "scale": 0.5, "mirror": True}
        assert stated == expected

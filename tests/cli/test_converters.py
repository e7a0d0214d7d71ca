"""caffe2paddle and torch2paddle on files as people have them, with OpenCV as the judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import wild_files as wild
from caffe_files import weights_in
from conftest import Run, assert_user_error
from networks import random_state

from squeezenet_paddle.caffe.convert import read_weights
from squeezenet_paddle.cli import eval as eval_tool
from squeezenet_paddle.cli import export, infer
from squeezenet_paddle.cli.caffe2paddle import main
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.model_dir import read_info
from squeezenet_paddle.model_dir import read_weights as read_model_weights
from squeezenet_paddle.network.config import ModelConfig

CONFIG = ModelConfig(num_classes=3)
STATE = random_state(CONFIG)


def run(*argv: object) -> int:
    return main([str(each) for each in argv])


def config_of(model_dir: Path) -> dict[str, Any]:
    return json.loads((model_dir / "config.json").read_text())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(wild.snapshot(CONFIG, STATE, wild.data_layers(mean_value=[90, 100, 110])))
    return path


def test_the_real_ones_go_there_and_back(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Each by the plain command, with proof, and exported to Caffe under the file's own names."""
    folder = assets / "caffe" / "wild"
    for path, name, mean in (
        ("traffic_lights_v1.0/snapshot_iter_3817.caffemodel", "conv10_nexar", [104, 117, 123]),
        ("shapes_v1.1/train_iter_201.caffemodel", "conv10-cylinders", [104, 117, 123]),
    ):
        model = tmp_path / name
        assert run("--caffemodel", folder / path, "--verify", "--output_dir", model) == 0
        out = capsys.readouterr().out
        assert f"classifier: {name}" in out
        assert ("give --mean_file" in out) == (name == "conv10-cylinders")
        config = config_of(model)
        assert config["preprocess"]["mean"] == mean
        assert config["preprocess"]["crop_size"] == 227
        assert config["verification"]["inputs"][0]["layers"] == 35
        export.main(["--model_dir", str(model), "--format", "caffe"])
        text = (model / "deploy.prototxt").read_text()
        assert text.startswith("# Input:\n# - ")
        assert f'name: "{name}"' in text
        original = weights_in((folder / path).read_bytes())
        exported = weights_in((model / "model.caffemodel").read_bytes())
        assert set(exported) == set(original)
        for layer, blobs in original.items():
            for one, other in zip(blobs, exported[layer]):
                np.testing.assert_array_equal(one, other)


def test_the_same_file_gives_the_same_bytes(file: Path, tmp_path: Path) -> None:
    """However many networks the process has made before, whose parameters Paddle numbers."""
    for name in ("one", "two"):
        assert run("--caffemodel", file, "--output_dir", tmp_path / name) == 0
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two


def test_a_mean_file_of_the_real_one(assets: Path, tmp_path: Path) -> None:
    folder = assets / "caffe" / "wild" / "shapes_v1.1"
    argv = ["--caffemodel", folder / "train_iter_201.caffemodel"]
    argv += ["--mean_file", folder / "mean.binaryproto", "--output_dir", tmp_path / "model"]
    assert run(*argv) == 0
    mean = config_of(tmp_path / "model")["preprocess"]["mean"]
    np.testing.assert_allclose(mean, [128.986, 128.826, 128.858], atol=5e-4)


def test_the_authors_deep_compression(assets: Path, tmp_path: Path) -> None:
    argv = ["--caffemodel", assets / "caffe" / "compressed_SqueezeNet.net"]
    labels = assets / "caffe" / "synset_words.txt"
    argv += ["--synset_word_list", labels, "--prototxt", assets / "caffe" / "deploy_v1.0.prototxt"]
    assert run(*argv, "--output_dir", tmp_path / "model") == 0
    info = read_info(tmp_path / "model")
    state = read_model_weights(tmp_path / "model", info).state
    weights = [value for key, value in state.items() if key.endswith("weight")]
    density = sum(map(np.count_nonzero, weights)) / sum(value.size for value in weights)
    assert round(density, 3) == 0.334
    with pytest.raises(InputError, match="OpenCV does not read a file of Deep Compression"):
        run(*argv, "--verify", "--output_dir", tmp_path / "other")


DRESSES = {
    "plain": (),
    "renamed": (wild.rename_classifier("conv10_car"),),
    "songhan": (wild.rename(wild.songhan),),
    "numbered": (wild.numbered,),
    "data and splits": (wild.data_layers(), wild.split_everywhere),
    "augmented": (wild.augmented,),
    "V1": (wild.data_layers(), wild.rename_classifier("conv10_x"), wild.to_v1),
}


@pytest.mark.parametrize("dress", DRESSES)
@pytest.mark.parametrize("given", ["the snapshot alone", "its train_val.prototxt"])
def test_opencv_agrees_layer_by_layer(given: str, dress: str, tmp_path: Path) -> None:
    net = wild.edited_net(CONFIG, STATE, *DRESSES[dress])
    file, prototxt = tmp_path / "net.caffemodel", tmp_path / "train_val.prototxt"
    file.write_bytes(net.SerializeToString())
    prototxt.write_text(wild.prototxt_of(net))
    argv = ["--caffemodel", file, "--verify", "--output_dir", tmp_path / "model"]
    if given != "the snapshot alone":
        argv += ["--prototxt", prototxt]
    assert run(*argv) == 0
    record = config_of(tmp_path / "model")["verification"]
    assert record["inputs"][0]["layers"] == 35


def test_a_trunk_is_compared_alone(tmp_path: Path, file: Path) -> None:
    argv = ["--caffemodel", file, "--ignore_classifier", "--num_classes", 7, "--verify"]
    assert run(*argv, "--output_dir", tmp_path / "model") == 0
    record = config_of(tmp_path / "model")["verification"]
    assert record["inputs"][0]["layers"] == 33


def follow(bottom: str, kind: str, top: str = "other") -> wild.Edit:
    """Adds a layer at the end."""
    return lambda net: net.layer.add(name="other", type=kind, bottom=[bottom], top=[top])


@pytest.mark.parametrize(
    "edit", [follow("pool10", "Power", "pool10"), follow("prob", "Softmax"), follow("prob", "Exp")]
)
@pytest.mark.parametrize("verify", [[], ["--verify"]])
def test_a_layer_that_changes_the_output_is_refused(
    edit: wild.Edit, verify: list[str], tmp_path: Path
) -> None:
    (tmp_path / "net.caffemodel").write_bytes(wild.snapshot(CONFIG, STATE, edit))
    argv = ["--caffemodel", tmp_path / "net.caffemodel", *verify, "--output_dir", tmp_path / "out"]
    with pytest.raises(InputError, match=r"layer 'other' \(\w+\) follows the output"):
        run(*argv)


@pytest.mark.parametrize(
    "edit",
    [
        follow("pool10", "Flatten"),
        follow("prob", "Accuracy"),
        follow("prob", "Silence"),
        follow("prob", "MultinomialLogisticLoss"),
        follow("data", "Python"),
        wild.rename(lambda old: old.replace("pool10", "p")),
        wild.rename(lambda old: old.replace("fire5/concat", "c"), blobs=False),
    ],
)
def test_other_names_and_layers_of_no_effect_are_verified(edit: wild.Edit, tmp_path: Path) -> None:
    (tmp_path / "net.caffemodel").write_bytes(wild.snapshot(CONFIG, STATE, edit))
    argv = ["--caffemodel", tmp_path / "net.caffemodel", "--verify"]
    assert run(*argv, "--output_dir", tmp_path / "model") == 0


def test_verify_needs_a_graph(tmp_path: Path) -> None:
    file = tmp_path / "net.caffemodel"
    file.write_bytes(wild.snapshot(CONFIG, STATE, wild.drop_graph))
    with pytest.raises(InputError, match="`verify` needs `prototxt`, the network's description"):
        run("--caffemodel", file, "--verify", "--output_dir", tmp_path / "model")
    prototxt = tmp_path / "deploy.prototxt"
    prototxt.write_text(wild.prototxt_of(wild.edited_net(CONFIG, STATE)))
    argv = ["--caffemodel", file, "--prototxt", prototxt, "--verify"]
    assert run(*argv, "--output_dir", tmp_path / "model") == 0


def test_verify_sees_a_weight_that_differs(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from squeezenet_paddle.cli import caffe2paddle

    def spoiled(*args: object) -> Any:
        weights = read_weights(*args)
        weights.state["fire9.squeeze1x1.bias"][0] += 5
        return weights

    monkeypatch.setattr(caffe2paddle, "read_weights", spoiled)
    assert run("--caffemodel", file, "--verify", "--output_dir", tmp_path / "model") == 1
    assert not (tmp_path / "model").exists()


def test_flags_win_and_are_said(tmp_path: Path, file: Path, capsys: pytest.CaptureFixture) -> None:
    argv = ["--caffemodel", file, "--mean", 1, 2, 3, "--input_size", 224, "--scale", 0.5]
    assert run(*argv, "--output_dir", tmp_path / "model") == 0
    preprocess = config_of(tmp_path / "model")["preprocess"]
    found = [preprocess[key] for key in ("crop_size", "mean", "scale", "resize_size")]
    assert found == [224, [0.5, 1.0, 1.5], 0.5, 253]
    out = capsys.readouterr().out
    assert "mean 1 2 3: --mean, instead of 90 100 110 of layer 'data' of net.caf" in out


def test_a_mean_that_the_file_states_is_taken(tmp_path: Path, file: Path) -> None:
    assert run("--caffemodel", file, "--output_dir", tmp_path / "model") == 0
    assert config_of(tmp_path / "model")["preprocess"]["mean"] == [90, 100, 110]


def test_an_untrained_classifier_is_refused_or_told(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture
) -> None:
    model = tmp_path / "model"
    argv = ["--caffemodel", file, "--ignore_classifier", "--num_classes", 2]
    assert run(*argv, "--output_dir", model) == 0
    assert config_of(model)["source"]["classifier"] == "new"
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 256, (64, 64, 3), "uint8"))
    for tool, flags in (
        (infer, ["--image", str(image), "--num_workers", "0"]),
        (export, ["--format", "onnx"]),
    ):
        with pytest.raises(InputError, match="new and untrained, .* or give `untrained` to go on"):
            tool.main(["--model_dir", str(model), *flags])
        assert not tool.main(["--model_dir", str(model), *flags, "--untrained"])
    (tmp_path / "list.txt").write_text("a.png 0\n")
    flags = ["--test_list", str(tmp_path / "list.txt"), "--num_workers", "0"]
    assert eval_tool.main(["--model_dir", str(model), *flags]) == 0
    assert "new and untrained: its scores are those of chance" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--snapshot", "3"], "`snapshot` chooses one of `digits`"),
        (["--image", "a.png"], "`image` names images for `verify`"),
        (
            ["--classifier", "conv10", "--ignore_classifier", "--num_classes", "3"],
            "`classifier` n",
        ),
        (["--synset_word_list", "two.txt"], "3 class names were expected, found 2"),
        (["--mean_file", "two.txt"], "a mean file .* found a text file"),
        (["--prototxt", "mixed.prototxt"], "layers in both formats"),
        (["--prototxt", "two.txt"], "two.txt: not a prototxt|two.txt: a prototxt with layers"),
        (["--prototxt", "grey.prototxt"], "grey images are not supported"),
        (["--prototxt", "small.prototxt"], "crop_size 227 .*, but crop_size 224 .*small.prototxt"),
    ],
)
def test_bad_input_writes_nothing(
    flags: list[str], message: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.txt").write_text("a\nb\n")
    layer = wild.prototxt_of(wild.edited_net(CONFIG, STATE))
    v1 = wild.prototxt_of(wild.edited_net(CONFIG, STATE, wild.to_v1))
    Path("mixed.prototxt").write_text(v1.partition("\n")[2] + layer)
    Path("grey.prototxt").write_text(layer.replace("dim: 3\n", "dim: 1\n"))
    Path("small.prototxt").write_text(layer.replace("dim: 227", "dim: 224"))
    with pytest.raises(InputError, match=message):
        run("--caffemodel", file, "--output_dir", tmp_path / "model", *flags)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("tool", "flag", "part"),
    [
        (
            "caffe2paddle",
            "--caffemodel",
            "squeezenet convert-torch (tools/torch2paddle.py) converts it",
        ),
        ("caffe2paddle", "--digits", "this is none or damaged"),
        ("torch2paddle", "--checkpoint", "this pickle asks for posix.system"),
    ],
)
def test_a_program_ends_with_one_line(
    tool: str, flag: str, part: str, run_tool: Run, tmp_path: Path
) -> None:
    import os
    import pickle

    class Evil:
        def __reduce__(self) -> tuple:
            return os.system, ("touch evil",)

    state = wild.torch_state(CONFIG, STATE)
    bad = wild.torch_zip(state, pickled=pickle.dumps(Evil(), 2))
    path = tmp_path / "net.pth"
    path.write_bytes(bad if flag != "--digits" else wild.safetensors(state))
    done = run_tool(tool, flag, path, "--output_dir", tmp_path / "model")
    assert_user_error(done, "net.pth", part)
    assert not (tmp_path / "model").exists()


def test_names_of_strangers_do_not_command_the_terminal(tmp_path: Path, call_tool: Run) -> None:
    """Those of a prototxt's layers, and of the files in an archive."""
    red = "\x1b[31m"
    edit = follow("pool10", "Power", "pool10")
    net = wild.edited_net(CONFIG, STATE, edit)
    net.layer[-1].name = f"{red}other"
    (tmp_path / "net.caffemodel").write_bytes(net.SerializeToString())
    (tmp_path / "net.prototxt").write_text(wild.prototxt_of(net))
    members = ("snapshot_iter_1.caffemodel", f"{red}a.binaryproto", "b.binaryproto")
    job = wild.write_tar(tmp_path / "job.tar", dict.fromkeys(members, b""))
    out = ("--output_dir", tmp_path / "out")
    for argv, shown in (
        (["--caffemodel", tmp_path / "net.caffemodel"], r"\x1b[31mother"),
        (
            ["--caffemodel", tmp_path / "net.caffemodel", "--prototxt", tmp_path / "net.prototxt"],
            r"\x1b[31mother",
        ),
        (["--digits", job], r"\x1b[31ma.binaryproto"),
    ):
        done = call_tool("caffe2paddle", *argv, *out)
        assert_user_error(done, shown)
        assert "\x1b" not in done.stdout + done.stderr

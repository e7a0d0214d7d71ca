"""Caffe files as people have them: each converts to the same numbers, or says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wild_files as wild
from caffe_files import weights_in
from networks import random_state

from squeezenet_paddle.caffe.convert import read_weights
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network.config import ModelConfig

SMALL = ModelConfig(num_classes=3)
STATE = random_state(SMALL)


def save(tmp_path: Path, data: bytes, name: str = "net.caffemodel") -> Path:
    file = tmp_path / name
    file.write_bytes(data)
    return file


def small(tmp_path: Path, *edits: wild.Edit, config: ModelConfig = SMALL) -> Path:
    state = STATE if config == SMALL else random_state(config)
    return save(tmp_path, wild.snapshot(config, state, *edits))


def assert_same_state(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


KINDS: dict[str, tuple[wild.Edit, ...]] = {
    "renamed classifier": (wild.rename_classifier("conv10_nexar"),),
    "renamed blob too": (wild.rename_classifier("conv10-cylinders", blobs=True),),
    "fc10": (wild.rename_classifier("fc10"),),
    "songhan": (wild.rename(wild.songhan),),
    "prefix": (wild.rename(lambda old: f"squeezenet/{old}"),),
    "separator": (wild.rename(lambda old: old.replace("/", "_")),),
    "numbered": (wild.numbered,),
    "data layers": (wild.data_layers(mean_value=[104, 117, 123]),),
    "split layers": (wild.data_layers(), wild.split_everywhere),
    "Python augmentation": (wild.augmented,),
    "V1 renamed": (wild.rename_classifier("conv10_car"), wild.to_v1),
    "V1 data": (wild.data_layers(scale=0.5), wild.to_v1),
    "names alone": (wild.rename_classifier("conv10_output"), wild.drop_graph),
    "numbered, V1, splits": (wild.numbered, wild.split_everywhere, wild.to_v1),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_authors_weights_in_another_dress(
    version: str, kind: str, assets: Path, tmp_path: Path
) -> None:
    original = assets / "caffe" / f"squeezenet_v{version}.caffemodel"
    state = read_weights(original).state
    decoded = weights_in(original.read_bytes())  # by a decoder that is not ours
    np.testing.assert_array_equal(state["conv10.weight"].ravel(), decoded["conv10"][0])
    config = ModelConfig(version)
    weights = read_weights(save(tmp_path, wild.snapshot(config, state, *KINDS[kind])))
    assert weights.config == config
    assert_same_state(weights.state, state)


@pytest.mark.parametrize("bypass", ["none", "simple", "complex"])
@pytest.mark.parametrize("activation", ["relu", "elu"])
@pytest.mark.parametrize("version", ["1.0", "1.0-nopad", "1.1"])
def test_every_variant_is_found_by_structure(
    version: str, bypass: str, activation: str, tmp_path: Path
) -> None:
    config = ModelConfig(version, 3, bypass=bypass, activation=activation)
    weights = read_weights(small(tmp_path, wild.numbered, config=config))
    assert weights.config == config
    assert_same_state(weights.state, random_state(config))
    assert weights.notes[0].startswith("layers found by the structure of the graph: conv1 = conv_1")


def test_the_name_of_the_classifier_is_kept(tmp_path: Path) -> None:
    weights = read_weights(small(tmp_path, wild.rename_classifier("conv10_nexar")))
    assert weights.source["classifier_name"] == "conv10_nexar"
    assert weights.notes == ("classifier: conv10_nexar",)
    assert "classifier_name" not in read_weights(small(tmp_path)).source


def test_weights_without_a_graph_take_that_of_the_prototxt(tmp_path: Path) -> None:
    net = wild.edited_net(SMALL, STATE, wild.numbered)
    prototxt = tmp_path / "train_val.prototxt"
    prototxt.write_text(wild.prototxt_of(net))
    file = small(tmp_path, wild.numbered, wild.drop_graph)
    assert_same_state(read_weights(file, [prototxt]).state, STATE)
    with pytest.raises(InputError, match="not a SqueezeNet: its first layer with weights is 'con"):
        read_weights(file)


def second_classifier(name: str = "conv10_age", channels: int = 5) -> wild.Edit:
    def edit(net: Any) -> None:
        layer = net.layer.add(name=name, type="Convolution", bottom=["fire9/concat"], top=[name])
        layer.convolution_param.num_output = channels
        layer.convolution_param.kernel_size.append(1)
        add_blobs(layer, (channels, 512, 1, 1), (channels,))

    return edit


def add_blobs(layer: Any, *shapes: tuple[int, ...]) -> None:
    for shape in shapes:
        blob = layer.blobs.add()
        blob.shape.dim[:] = shape
        values = np.random.default_rng(0).normal(size=shape).astype("<f4")
        blob.data.append(values.tobytes())


def test_two_classifiers_are_both_shown_and_one_can_be_chosen(tmp_path: Path) -> None:
    file = small(tmp_path, second_classifier())
    with pytest.raises(InputError) as caught:
        read_weights(file)
    for part in ("'conv10' (Convolution, 3x512x1x1)", "'conv10_age' (Convolution, 5x512x1x1)"):
        assert part in str(caught.value)
    assert "`classifier` NAME" in str(caught.value)
    weights = read_weights(file, classifier="conv10")
    assert_same_state(weights.state, STATE)
    assert weights.notes == ("left out: conv10_age",)
    with pytest.raises(InputError, match="the output global AVE.* is missing"):
        read_weights(file, classifier="conv10_age")
    with pytest.raises(InputError, match="`classifier` fc8: .* has no such layer .*'conv10_age'"):
        read_weights(file, classifier="fc8")


def test_two_ways_to_match_the_trunk(tmp_path: Path) -> None:
    def twin(net: Any) -> None:
        layer = net.layer.add()
        layer.CopyFrom(wild.layer_of(net, "conv_3"))
        layer.name = "conv_3b"
        layer.top[:] = ["conv_3b"]

    with pytest.raises(InputError, match="two ways to match it: .*'conv_3' or 'conv_3b'"):
        read_weights(small(tmp_path, wild.numbered, twin))


# --- --ignore_classifier


def drop_head(net: Any) -> None:
    for name in ("drop9", "conv10", "relu_conv10", "pool10", "prob"):
        net.layer.remove(wild.layer_of(net, name))


def embedding(net: Any) -> None:
    """A face embedding: an inner product on fire9, normalised."""
    drop_head(net)
    layer = net.layer.add(name="fc5", type="InnerProduct", bottom=["fire9/concat"], top=["fc5"])
    add_blobs(layer, (8, 512), (8,))
    scale = net.layer.add(name="norm", type="Normalize", bottom=["fc5"], top=["norm"])
    add_blobs(scale, (8,))


def detector(net: Any) -> None:
    """Boxes from fire5 and behind fire9, as SSD and SqueezeDet have them."""
    drop_head(net)
    for name, bottom in (("fire10/squeeze1x1", "fire9/concat"), ("mbox_loc", "fire5/concat")):
        layer = net.layer.add(name=name, type="Convolution", bottom=[bottom], top=[name])
        layer.convolution_param.num_output = 6
        layer.convolution_param.kernel_size.append(3)
        add_blobs(layer, (6, 512, 3, 3), (6,))
    net.layer.add(name="boxes", type="PriorBox", bottom=["mbox_loc"], top=["boxes"])


HEADS = [drop_head, embedding, detector, second_classifier(), wild.rename_classifier("conv10_x")]


@pytest.mark.parametrize("edit", HEADS)
@pytest.mark.parametrize("renamed", [False, True])
def test_any_head_is_left_out(edit: wild.Edit, renamed: bool, tmp_path: Path) -> None:
    edits = [edit, *([wild.rename(lambda old: f"net/{old}")] if renamed else [])]
    weights = read_weights(small(tmp_path, *edits), ignore_classifier=True, num_classes=7)
    assert weights.config == ModelConfig(num_classes=7)
    trunk = {key: value for key, value in STATE.items() if not key.startswith("conv10")}
    assert_same_state(weights.state, trunk)
    if edit not in HEADS[3:]:
        with pytest.raises(InputError, match="no classifier, .*; `ignore_classifier` takes the"):
            read_weights(small(tmp_path, *edits))


# --- what comes behind conv10


def set_pool10(**values: int) -> wild.Edit:
    def edit(net: Any) -> None:
        param = wild.layer_of(net, "pool10").pooling_param
        param.Clear()
        param.pool = values.pop("pool", 1)
        for key, value in values.items():
            setattr(param, key, value)

    return edit


@pytest.mark.parametrize(("kernel", "size"), [(14, 227), (13, 224)])
def test_an_average_pool_over_the_whole_map_is_the_global_one(
    kernel: int, size: int, tmp_path: Path
) -> None:
    def no_input(net: Any) -> None:
        wild.put_first(net, {"name": "data", "type": "Data", "top": ["data"]})

    edit = set_pool10(kernel_size=kernel, stride=1)
    weights = read_weights(small(tmp_path, edit, no_input))
    assert_same_state(weights.state, STATE)
    (stated,) = weights.stated
    assert (stated.name, stated.value) == ("crop_size", size)
    crop = wild.data_layers(size)
    assert_same_state(read_weights(small(tmp_path, edit, crop)).state, STATE)
    wrong = wild.data_layers({227: 224, 224: 227}[size])
    with pytest.raises(InputError, match=rf"missing, found AVE {kernel}x{kernel} stride 1 pad 0"):
        read_weights(small(tmp_path, edit, wrong))


def no_relu(net: Any) -> None:
    net.layer.remove(wild.layer_of(net, "relu_conv10"))


def no_pool(net: Any) -> None:
    net.layer.remove(wild.layer_of(net, "pool10"))
    wild.layer_of(net, "prob").bottom[:] = ["conv10"]


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (set_pool10(pool=0, global_pooling=1), r"found global MAX\(ReLU\(conv10\)\)"),
        (set_pool10(pool=0, kernel_size=14), r"found MAX 14x14 stride 1 pad 0\(ReLU\(conv10\)\)"),
        (no_relu, r"found global AVE\(conv10\)"),
        (no_pool, r"found ReLU\(conv10\)"),
    ],
)
def test_another_end_is_told(edit: wild.Edit, found: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=found):
        read_weights(small(tmp_path, edit))


# --- what is no SqueezeNet, and weights that are none


def grey(net: Any) -> None:
    conv1 = wild.layer_of(net, "conv1")
    del conv1.blobs[:]
    add_blobs(conv1, (64, 1, 3, 3), (64,))


def quantised(net: Any) -> None:
    for layer in net.layer:
        layer.type = layer.type.replace("Convolution", "INQConvolution")


def wider(net: Any) -> None:
    layer = wild.layer_of(net, "fire6/squeeze1x1")
    del layer.blobs[:]
    add_blobs(layer, (40, 256, 1, 1), (40,))


def constant(name: str, value: float) -> wild.Edit:
    def edit(net: Any) -> None:
        blob = wild.layer_of(net, name).blobs[0]
        size = int(np.prod(list(blob.shape.dim)))
        blob.data[:] = [np.full(size, value, "<f4").tobytes()]

    return edit


def all_zero(net: Any) -> None:
    for layer in net.layer:
        for blob in layer.blobs:
            blob.data[:] = [bytes(4 * int(np.prod(list(blob.shape.dim))))]


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([grey], "layer 'conv1' reads grey images, of 1 channel; only 3"),
        ([quantised], "'conv1' is of the type INQConvolution"),
        ([quantised, wild.numbered], "type INQConvolution"),
        ([wider], "fire6/squeeze1x1 has weights 40x256x1x1, 48x256x1x1 was expected"),
        ([wider, wild.numbered], r"then fire6/squeeze1x1 \(48x256x1x1\) .*'conv_14'.*40x256x1x1"),
        (
            [constant("fire5/expand3x3", 0.0)],
            "fire5/expand3x3 is not trained: all its weights are 0",
        ),
        ([constant("conv10", 0.25)], "conv10 is not trained: all its weights are 0.25"),
        ([all_zero], "conv1 is not trained: all its weights are 0"),
    ],
)
def test_a_refusal_names_what_it_found(edits: list, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_weights(small(tmp_path, *edits))


def test_a_file_without_any_weights(tmp_path: Path) -> None:
    def empty(net: Any) -> None:
        for layer in net.layer:
            layer.ClearField("blobs")

    with pytest.raises(
        InputError, match="not a caffemodel with weights: none of its layers has an"
    ):
        read_weights(small(tmp_path, empty))


def test_graphs_that_make_no_sense(tmp_path: Path) -> None:
    def cycle(net: Any) -> None:
        wild.layer_of(net, "fire4/squeeze1x1").bottom[:] = ["fire9/concat"]

    def nobody_makes(net: Any) -> None:
        wild.layer_of(net, "fire7/squeeze1x1").bottom[:] = ["nowhere"]

    for edit, name in ((cycle, "fire4/squeeze1x1"), (nobody_makes, "fire7/squeeze1x1")):
        with pytest.raises(InputError, match=f"layer '{name}': expected .*, found .* on data"):
            read_weights(small(tmp_path, edit))
        with pytest.raises(InputError, match=f"then {name} .* was expected"):
            read_weights(small(tmp_path, edit, wild.rename(lambda old: f"a/{old}")))


def test_the_real_ones(assets: Path) -> None:
    folder = assets / "caffe" / "wild"
    lights = read_weights(folder / "traffic_lights_v1.0" / "snapshot_iter_3817.caffemodel")
    shapes = read_weights(folder / "shapes_v1.1" / "train_iter_201.caffemodel")
    assert lights.config == ModelConfig("1.0", 3)
    assert shapes.config == ModelConfig("1.1", 3)
    for weights, name, path in (
        (lights, "conv10_nexar", "traffic_lights_v1.0/snapshot_iter_3817.caffemodel"),
        (shapes, "conv10-cylinders", "shapes_v1.1/train_iter_201.caffemodel"),
    ):
        assert weights.source["classifier_name"] == name
        decoded = weights_in((folder / path).read_bytes())
        assert len(decoded) == 26
        for key, value in weights.state.items():
            layer, _, kind = key.rpartition(".")
            blob = decoded[weights.names[layer.replace(".", "/")]][kind == "bias"]
            np.testing.assert_array_equal(value.ravel(), blob)
    assert [(s.name, s.value) for s in lights.stated] == [
        ("crop_size", 227),
        ("mean", (104.0, 117.0, 123.0)),
    ]
    assert shapes.stated[1].name == "mean_file"
    assert shapes.stated[1].value.endswith("dataset_v3/mean.binaryproto")
    with pytest.raises(InputError, match="found a Caffe solver state, .* has the weights"):
        read_weights(folder / "shapes_v1.1" / "train_iter_201.solverstate")

"""From Caffe layers to parameters: strict, complete, and only for the network it says it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from caffe_files import file_with, small_caffemodel, weights_in
from mutate_caffemodel import run
from networks import random_state

from squeezenet_paddle.caffe.convert import CaffeWeights, read_weights
from squeezenet_paddle.caffe.schema import NetParameter
from squeezenet_paddle.caffe.writer import caffemodel, deploy_prototxt
from squeezenet_paddle.conversion import build_network
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network.config import ModelConfig

Edit = Callable[[NetParameter], object]


def edited(tmp_path: Path, edit: Edit, config: ModelConfig | None = None) -> Path:
    """A small valid file with one thing changed."""
    config = config or ModelConfig(num_classes=2)
    net = NetParameter.FromString(caffemodel(config, random_state(config)))
    edit(net)
    file = tmp_path / "edited.caffemodel"
    file.write_bytes(net.SerializeToString())
    return file


def layer_of(net: NetParameter, name: str) -> NetParameter:
    (found,) = [layer for layer in net.layer if layer.name == name]
    return found


def convert(path: Path, **flags: object) -> CaffeWeights:
    return read_weights(path, **flags)


def same(net: NetParameter) -> None:
    pass


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("bypass", ["none", "simple", "complex"])
@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_the_variant_is_read_off_the_file(
    version: str, bypass: str, activation: str, tmp_path: Path
) -> None:
    config = ModelConfig(version=version, bypass=bypass, activation=activation, num_classes=3)
    file = edited(tmp_path, same, config)
    prototxt = tmp_path / "deploy.prototxt"
    prototxt.write_text(deploy_prototxt(config, 227, 227))
    weights = convert(file, prototxts=[prototxt], version=version, bypass=bypass, num_classes=3)
    assert weights.config == config
    expected = random_state(config)
    assert set(weights.state) == set(expected)
    for key, value in weights.state.items():
        np.testing.assert_array_equal(value, expected[key])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"version": "1.0"}, "`version` 1.0: .* holds a network with version 1.1"),
        ({"bypass": "simple"}, "`bypass` simple: .* with bypass none"),
        ({"num_classes": 1000}, "`num_classes` 1000: .* with num_classes 2"),
        ({"ignore_classifier": True}, "`ignore_classifier` needs `num_classes`"),
    ],
)
def test_flags_only_have_to_agree(flags: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        convert(edited(tmp_path, same), **flags)


def keep_legacy(net: NetParameter) -> None:
    """All blobs in the old way: num, channels, height, width."""
    for layer in net.layer:
        for blob in layer.blobs:
            dims = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
            blob.num, blob.channels, blob.height, blob.width = dims
            blob.ClearField("shape")


def add_unrelated(net: NetParameter) -> None:
    """What a file saved while training holds besides."""
    net.layer.add(name="label", type="Data", top=["data", "label"])
    net.layer.add(name="loss", type="SoftmaxWithLoss", bottom=["pool10", "label"], top=["loss"])
    net.layer.add(name="accuracy", type="Accuracy", bottom=["pool10", "label"], top=["accuracy"])


def split_blobs(net: NetParameter) -> None:
    """Caffe saves a Split layer wherever two layers read one blob."""
    squeeze = layer_of(net, "fire2/relu_squeeze1x1")
    tops = [f"fire2/squeeze1x1_split_{i}" for i in range(2)]
    for name, top in zip(("fire2/expand1x1", "fire2/expand3x3"), tops):
        layer_of(net, name).bottom[:] = [top]
    at = list(net.layer).index(squeeze) + 1
    split = type(squeeze)(name="split", type="Split", bottom=["fire2/squeeze1x1"], top=tops)
    layers = [*net.layer[:at], split, *net.layer[at:]]
    del net.layer[:]
    net.layer.extend(layers)


def drop_graph(net: NetParameter) -> None:
    """Weights and names alone."""
    for layer in net.layer:
        layer.ClearField("bottom")
        layer.ClearField("top")
        layer.ClearField("convolution_param")
        layer.ClearField("pooling_param")


def rename_pools(net: NetParameter) -> None:
    """Layers without weights may bear any name, and need not work in place."""
    for layer in net.layer:
        if not layer.blobs:
            layer.name = f"my_{layer.name}"
    layer_of(net, "my_relu_conv1").top[:] = ["conv1_relu"]
    layer_of(net, "my_pool1").bottom[:] = ["conv1_relu"]


@pytest.mark.parametrize(
    "edit", [keep_legacy, add_unrelated, split_blobs, drop_graph, rename_pools]
)
def test_the_same_network_written_in_another_way(edit: Edit, tmp_path: Path) -> None:
    state = convert(edited(tmp_path, edit)).state
    for key, value in random_state(ModelConfig(num_classes=2)).items():
        np.testing.assert_array_equal(state[key], value)


def spoil(net: NetParameter) -> None:
    layer_of(net, "fire3/expand1x1").name = "fire3/expand1"
    del layer_of(net, "fire4/squeeze1x1").blobs[1]
    layer_of(net, "fire5/squeeze1x1").blobs[0].shape.dim[:] = [256, 32, 1, 1]
    layer_of(net, "fire6/expand1x1").blobs[1].shape.dim[:] = [1, 192]
    net.layer.add().CopyFrom(layer_of(net, "conv1"))


def test_all_that_is_wrong_is_listed_together(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        convert(edited(tmp_path, spoil))
    for part in (
        "edited.caffemodel: its weights do not fit SqueezeNet v1.1",
        "fire3/expand1x1 is missing",
        "fire3/expand1 is unexpected",
        "conv1 is given 2 times",
        "fire4/squeeze1x1 has 1 blobs, a weight and a bias were expected",
        "fire5/squeeze1x1 has weights 256x32x1x1, 32x256x1x1 was expected",
        "fire6/expand1x1 has a bias 1x192, 192 was expected",
    ):
        assert part in str(caught.value)


def set_conv(name: str, **values: object) -> Edit:
    def edit(net: NetParameter) -> None:
        param = layer_of(net, name).convolution_param
        for key, value in values.items():
            if isinstance(value, list):
                getattr(param, key)[:] = value
            else:
                setattr(param, key, value)

    return edit


def set_pool(name: str, **values: object) -> Edit:
    def edit(net: NetParameter) -> None:
        for key, value in values.items():
            setattr(layer_of(net, name).pooling_param, key, value)

    return edit


def move_pool(net: NetParameter) -> None:
    """pool3 after fire2, as a file of a third version might have it."""
    layer_of(net, "pool3").bottom[:] = ["fire2/concat"]
    layer_of(net, "fire3/squeeze1x1").bottom[:] = ["pool3"]
    layer_of(net, "fire4/squeeze1x1").bottom[:] = ["fire3/concat"]
    layers = list(net.layer)
    layers.insert(
        layers.index(layer_of(net, "fire3/squeeze1x1")),
        layers.pop(layers.index(layer_of(net, "pool3"))),
    )
    copies = [type(layer).FromString(layer.SerializeToString()) for layer in layers]
    del net.layer[:]
    net.layer.extend(copies)


def drop_relu(net: NetParameter) -> None:
    net.layer.remove(layer_of(net, "relu_conv10"))


def leak(net: NetParameter) -> None:
    layer_of(net, "fire9/relu_expand3x3").relu_param.negative_slope = 0.1


def move_to_end(net: NetParameter, *names: str) -> None:
    for name in names:
        layer = layer_of(net, name)
        net.layer.add().CopyFrom(layer)
        net.layer.remove(layer)


def swap_concat(net: NetParameter) -> None:
    layer_of(net, "fire7/concat").bottom[:] = ["fire7/expand3x3", "fire7/expand1x1"]


def concat_rows(net: NetParameter) -> None:
    layer_of(net, "fire7/concat").concat_param.axis = 2


GRAPH_ERRORS = [
    (
        set_conv("conv1", stride=[4]),
        "layer 'conv1': expected 64@3x3 stride 2 pad 0 on data, "
        "found 64@3x3 stride 4 pad 0 on data",
    ),
    (set_conv("conv1", pad=[1]), "found 64@3x3 stride 2 pad 1 on data"),
    (set_conv("conv1", stride_h=2, stride_w=1), "stride 2x1"),
    (set_conv("conv10", num_output=1000), "expected 2@1x1"),
    (set_conv("fire5/expand3x3", dilation=[2]), "pad 1 dilation 2 on"),
    (set_conv("fire5/expand3x3", group=4), "pad 1 group 4 on"),
    (set_conv("fire5/expand3x3", bias_term=False), "without bias"),
    (set_pool("pool1", kernel_size=2), "found 16@1x1 stride 1 pad 0 on MAX pool|MAX 2x2 stride 2"),
    (set_pool("pool1", round_mode=1), "MAX rounding down 3x3"),
    (set_pool("pool1", pool=1), "AVE 3x3 stride 2 pad 0"),
    (set_pool("pool10", pool=0), "the output global AVE.* is missing"),
    (move_pool, "layer 'fire3/squeeze1x1': expected .*found .*MAX 3x3 stride 2"),
    (drop_relu, r"the output global AVE\(ReLU\(conv10\)\) is missing"),
    (leak, "leaky ReLU 0.1"),
    (swap_concat, r"found .*concat\(ReLU\(fire7/expand3x3\), ReLU\(fire7/expand1x1\)\)"),
    (concat_rows, "axis 2 concat"),
]


@pytest.mark.parametrize(("edit", "message"), GRAPH_ERRORS)
def test_another_graph_with_weights_that_fit_is_refused(
    edit: Edit, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        convert(edited(tmp_path, edit))


@pytest.mark.parametrize(("edit", "message"), GRAPH_ERRORS)
def test_the_prototxt_is_checked_too(edit: Edit, message: str, tmp_path: Path) -> None:
    config = ModelConfig(num_classes=2)
    net = NetParameter.FromString(caffemodel(config, random_state(config)))
    edit(net)
    for layer in net.layer:
        layer.ClearField("blobs")
    prototxt = tmp_path / "deploy.prototxt"
    prototxt.write_text(str(net))
    with pytest.raises(InputError, match=f"deploy.prototxt: .*({message})"):
        convert(edited(tmp_path, same), prototxts=[prototxt])


def test_a_prototxt_of_the_other_version(tmp_path: Path) -> None:
    prototxt = tmp_path / "deploy.prototxt"
    prototxt.write_text(deploy_prototxt(ModelConfig(version="1.0", num_classes=2), 227, 227))
    with pytest.raises(InputError, match="not SqueezeNet v1.1 .*'conv1': expected 64@3x3.*96@7x7"):
        convert(edited(tmp_path, same), prototxts=[prototxt])


def test_a_sum_of_another_kind_is_refused(tmp_path: Path) -> None:
    def edit(net: NetParameter) -> None:
        layer_of(net, "fire5/sum").eltwise_param.coeff[:] = [1.0, 0.5]

    with pytest.raises(InputError, match="Eltwise 'fire5/sum'"):
        convert(edited(tmp_path, edit, ModelConfig(num_classes=2, bypass="simple")))


def test_a_graph_that_doubles_at_each_layer_stays_small(tmp_path: Path) -> None:
    def edit(net: NetParameter) -> None:
        for i in range(200):
            bottom = "x" if i else "fire9/concat"
            net.layer.add(name=f"s{i}", type="Eltwise", bottom=[bottom, bottom], top=["x"])
        layer_of(net, "conv10").bottom[:] = ["x"]
        move_to_end(net, "conv10", "relu_conv10", "pool10")

    with pytest.raises(InputError) as caught:
        convert(edited(tmp_path, edit))
    assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    file = tmp_path / "net.caffemodel"
    file.write_bytes(file_with(value))
    with pytest.raises(
        InputError, match="fire5/expand3x3 has NaN or infinite values in its weights"
    ):
        convert(file)


def test_a_net_of_another_architecture_is_refused(tmp_path: Path) -> None:
    def alexnet(net: NetParameter) -> None:
        del net.layer[:]
        for name, dims in (("conv1", [96, 3, 11, 11]), ("conv10", [4096, 9216])):
            layer = net.layer.add(name=name, type="Convolution")
            blob = layer.blobs.add()
            blob.shape.dim[:] = dims
            blob.data.append(np.zeros(dims, "float32").tobytes())

    with pytest.raises(
        InputError, match=r"'conv1' \(Convolution, 96x3x11x11\); .*\(v1.0\) or .*\(v1.1\) was exp"
    ):
        convert(edited(tmp_path, alexnet))


def drop_classifier(net: NetParameter) -> None:
    net.layer.remove(layer_of(net, "conv10"))


def big_classifier(net: NetParameter) -> None:
    layer_of(net, "conv10").convolution_param.num_output = 77


@pytest.mark.parametrize("edit", [same, drop_classifier, big_classifier])
def test_a_new_classifier(edit: Edit, tmp_path: Path) -> None:
    weights = convert(edited(tmp_path, edit), ignore_classifier=True, num_classes=5)
    assert weights.config.num_classes == 5
    assert len(weights.state) == 50
    assert weights.source["classifier"] == "new"
    first, again, other = (
        {k: v.numpy() for k, v in build_network(weights, seed).state_dict().items()}
        for seed in (1, 1, 2)
    )
    assert first["conv10.weight"].shape == (5, 512, 1, 1)
    assert abs(first["conv10.weight"].std() - 0.01) < 1e-3
    assert (first["conv10.bias"] == 3).all()  # few classes: alive from the start
    np.testing.assert_array_equal(first["conv10.weight"], again["conv10.weight"])
    assert (first["conv10.weight"] != other["conv10.weight"]).any()
    for key, value in weights.state.items():
        np.testing.assert_array_equal(first[key], value)


def test_hundreds_of_damaged_files() -> None:
    """A sample of what `python tests/mutate_caffemodel.py` does; limits are that script's."""
    results = run(480, seed=1)
    assert sum(results.values()) == 480
    assert min(results["refused"], results["converted"]) > 10


def test_the_decoder_of_the_tests_reads_what_was_written() -> None:
    found = weights_in(small_caffemodel())
    state = random_state(ModelConfig(num_classes=2))
    assert len(found) == 26
    for name, blobs in found.items():
        for blob, kind in zip(blobs, ("weight", "bias")):
            np.testing.assert_array_equal(blob, state[f"{name.replace('/', '.')}.{kind}"].ravel())


def test_real_files(assets: Path) -> None:
    for version in ("1.0", "1.1"):
        file = assets / "caffe" / f"squeezenet_v{version}.caffemodel"
        weights = convert(file, prototxts=[assets / "caffe" / f"deploy_v{version}.prototxt"])
        assert weights.config == ModelConfig(version=version)
        found = weights_in(file.read_bytes())
        assert sum(value.size for value in weights.state.values()) in (1_248_424, 1_235_496)
        for key, value in weights.state.items():
            name, _, kind = key.rpartition(".")
            blob = found[name.replace(".", "/")][kind == "bias"]
            np.testing.assert_array_equal(value.ravel(), blob)
        assert re.fullmatch("[0-9a-f]{64}", weights.source["sha256"])

"""SqueezeNets as people have them: the same weights under other names and in other formats."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Callable

import numpy as np
from google.protobuf import text_format

from squeezenet_paddle.caffe.schema import BlobProto, NetParameter
from squeezenet_paddle.caffe.writer import caffemodel
from squeezenet_paddle.network.config import ModelConfig, layers

State = dict[str, np.ndarray]
Edit = Callable[[Any], object]


# --- Caffe


def snapshot(config: ModelConfig, state: State, *edits: Edit) -> bytes:
    """A .caffemodel after some edits of its NetParameter."""
    return edited_net(config, state, *edits).SerializeToString()


def edited_net(config: ModelConfig, state: State, *edits: Edit) -> Any:
    net = NetParameter.FromString(caffemodel(config, state))
    for edit in edits:
        edit(net)
    return net


def prototxt_of(net: Any) -> str:
    """The network in a file as text, without its weights."""
    copy = NetParameter.FromString(net.SerializeToString())
    for layer in [*copy.layer, *copy.layers]:
        layer.ClearField("blobs")
    return text_format.MessageToString(copy)


def layer_of(net: Any, name: str) -> Any:
    (found,) = [layer for layer in net.layer if layer.name == name]
    return found


def rename(change: Callable[[str], str], blobs: bool = True) -> Edit:
    """Renames the layers, and the blobs that are called as they are."""

    def edit(net: Any) -> None:
        for layer in net.layer:
            if layer.type != "Input":
                layer.name = change(layer.name)
            if blobs:
                layer.bottom[:] = [b if b == "data" else change(b) for b in layer.bottom]
                layer.top[:] = [t if t == "data" else change(t) for t in layer.top]

    return edit


def rename_classifier(name: str, blobs: bool = False) -> Edit:
    return rename(lambda old: name if old == "conv10" else old, blobs)


def songhan(old: str) -> str:
    """The names of the published Deep Compression and DSD prototxts."""
    parts = {"squeeze1x1": "conv1x1_1", "expand1x1": "conv1x1_2", "expand3x3": "conv3x3_2"}
    fire, _, part = old.partition("/")
    return "conv_final" if old == "conv10" else f"{fire}/{parts.get(part, part)}".rstrip("/")


def numbered(net: Any) -> None:
    """Convolutions called conv_1 to conv_26, everything else by its number too."""
    names = {layer.name: f"{layer.type.lower()}_{i}" for i, layer in enumerate(net.layer)}
    convolutions = [layer.name for layer in net.layer if layer.type == "Convolution"]
    names.update({name: f"conv_{i}" for i, name in enumerate(convolutions, 1)})
    rename(lambda old: names.get(old, old))(net)


def put_first(net: Any, *new: dict[str, Any]) -> None:
    """Puts layers in place of the input."""
    rest = [type(each).FromString(each.SerializeToString()) for each in net.layer]
    del net.layer[:]
    for fields in new:
        net.layer.add(**fields)
    net.layer.extend(each for each in rest if each.type != "Input")


def data_layers(crop_size: int = 227, **transform: Any) -> Edit:
    """What a snapshot has in place of an input, and behind pool10."""

    def edit(net: Any) -> None:
        data = {"name": "data", "type": "Data", "top": ["data", "label"]}
        data["transform_param"] = {"crop_size": crop_size, **transform}
        put_first(net, data)
        split = net.layer.add(name="pool10_split", type="Split", bottom=["pool10"])
        split.top[:] = ["pool10_split_0", "pool10_split_1"]
        net.layer.remove(layer_of(net, "prob"))
        for kind, name in (("SoftmaxWithLoss", "loss"), ("Accuracy", "accuracy")):
            bottoms = [f"pool10_split_{kind == 'Accuracy':d}", "label"]
            net.layer.add(name=name, type=kind, bottom=bottoms, top=[name])
        net.layer.add(name="silence", type="Silence", bottom=["label"])

    return edit


def augmented(net: Any) -> None:
    """A Python layer that augments, between data and conv1."""
    new = {"name": "augment", "type": "Python", "bottom": ["data"], "top": ["augmented"]}
    data = {"name": "data", "type": "Data", "top": ["data", "label"]}
    data["transform_param"] = {"crop_size": 227}
    put_first(net, data, new)
    layer_of(net, "conv1").bottom[:] = ["augmented"]


def split_everywhere(net: Any) -> None:
    """A Split layer wherever two layers read one blob, as Caffe saves it."""
    copies = [type(each).FromString(each.SerializeToString()) for each in net.layer]
    result = []
    for i, each in enumerate(copies):
        result.append(each)
        for top in dict.fromkeys(each.top):
            later = copies[i + 1 :]
            if any(top in other.top for other in later):  # something works in place
                continue
            readers = [other for other in later if top in other.bottom]
            if len(readers) > 1:
                tops = [f"{top}_{each.name}_split_{n}" for n in range(len(readers))]
                split = type(each)(name=f"{top}_split", type="Split", bottom=[top], top=tops)
                for reader, name in zip(readers, tops):
                    reader.bottom[:] = [name if b == top else b for b in reader.bottom]
                result.append(split)
    del net.layer[:]
    net.layer.extend(result)


def drop_graph(net: Any) -> None:
    """Weights and names alone."""
    for layer in net.layer:
        layer.ClearField("bottom")
        layer.ClearField("top")
        layer.ClearField("convolution_param")
        layer.ClearField("pooling_param")


def to_v1(net: Any) -> None:
    """The format of 2014."""
    spelled = {"SoftmaxWithLoss": "SOFTMAX_LOSS", "ReLU": "RELU"}
    shared = ("convolution_param", "pooling_param", "concat_param", "dropout_param")
    for layer in net.layer:
        if layer.type == "Input":
            net.input.append(layer.top[0])
            net.input_dim.extend(layer.input_param.shape[0].dim)
            continue
        new = net.layers.add(name=layer.name, bottom=layer.bottom, top=layer.top)
        kinds = new.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_name
        new.type = kinds[spelled.get(layer.type, layer.type.upper())].number
        new.blobs.extend(layer.blobs)
        for name in (*shared, "transform_param"):
            if layer.HasField(name):
                getattr(new, name).CopyFrom(getattr(layer, name))
    del net.layer[:]


def binaryproto(mean: np.ndarray) -> bytes:
    """A mean image as Caffe's compute_image_mean writes it; float32 [C, H, W]."""
    channels, height, width = mean.shape
    blob = BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.append(mean.astype("<f4").tobytes())
    return blob.SerializeToString()


# --- Deep Compression


def net_file(state: State) -> bytes:
    """The .net format; each layer may have 255 values besides zero."""
    counts, bodies = [], []
    for layer in layers(ModelConfig("1.0")):
        if not layer.weight_shape:
            continue
        key = layer.name.replace("/", ".")
        weight, bias = state[f"{key}.weight"].ravel(), state[f"{key}.bias"]
        values = [v for v in np.unique(weight) if v != 0]
        code_of = {v: i for i, v in enumerate(values, 1)}
        codes, gaps, last = [], [], -1
        for at in np.flatnonzero(weight):
            while at - last - 1 > 15:
                codes.append(0)
                gaps.append(15)
                last += 16
            codes.append(code_of[weight[at]])
            gaps.append(at - last - 1)
            last = at
        codebook = np.zeros(256, "<f4")
        codebook[1 : len(values) + 1] = values
        halves = [*gaps, 0] if len(gaps) % 2 else gaps
        packed = bytes(low | high << 4 for low, high in zip(halves[::2], halves[1::2]))
        counts.append(len(codes))
        bodies.append(codebook.tobytes() + bias.astype("<f4").tobytes() + bytes(codes) + packed)
    return struct.pack("<26I", *counts) + b"".join(bodies)


# --- PyTorch, without it: its pickles are spelled opcode by opcode


def torch_names(config: ModelConfig) -> dict[str, str]:
    """Our key -> torchvision's."""
    numbers = {"1": (3, 4, 6, 7, 9, 10, 11, 12), "0": (3, 4, 5, 7, 8, 9, 10, 12)}[config.version[2]]
    names = {"conv1": "features.0", "conv10": "classifier.1"}
    for fire, number in enumerate(numbers, 2):
        for part, theirs in (("squeeze1x1", "squeeze"), *((f"expand{k}x{k}",) * 2 for k in (1, 3))):
            names[f"fire{fire}.{part}"] = f"features.{number}.{theirs}"
    return {f"{k}.{kind}": f"{v}.{kind}" for k, v in names.items() for kind in ("weight", "bias")}


def torch_state(config: ModelConfig, state: State) -> State:
    return {theirs: state[ours] for ours, theirs in torch_names(config).items()}


def _integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _string(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _tuple(*values: int) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"


def torch_pickle(state: State, wrap: tuple[str, ...] = (), legacy: bool = False) -> bytes:
    """The pickle of a state dict, inside of dicts of the keys `wrap`; storages are 0, 1 ..."""
    ordered = b"ccollections\nOrderedDict\n)R"
    body = ordered + b"("
    for i, (key, array) in enumerate(state.items()):
        strides = [int(np.prod(array.shape[n + 1 :])) for n in range(array.ndim)]
        view = b"N" if legacy else b""
        storage = b"(" + _string("storage") + b"ctorch\nFloatStorage\n" + _string(str(i))
        storage += _string("cpu") + _integer(array.size) + view + b"tQ"
        tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + _integer(0)
        tensor += _tuple(*array.shape) + _tuple(*strides) + b"\x89" + ordered + b"tR"
        body += _string(key) + tensor
    body += b"u"
    for key in reversed(wrap):
        body = b"}(" + _string("epoch") + _integer(3) + _string(key) + body + b"u"
    return b"\x80\x02" + body + b"."


def torch_zip(state: State, wrap: tuple[str, ...] = (), pickled: bytes | None = None) -> bytes:
    """What torch.save writes since 1.6."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", pickled or torch_pickle(state, wrap))
        archive.writestr("net/byteorder", "little")
        for i, array in enumerate(state.values()):
            archive.writestr(f"net/data/{i}", array.astype("<f4").tobytes())
        archive.writestr("net/version", "3\n")
    return file.getvalue()


def torch_legacy(state: State, wrap: tuple[str, ...] = ()) -> bytes:
    """What torch.save wrote before."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    heads = [0x1950A86A20F9469CFC6C, 1001, system]
    parts = [pickle.dumps(each, 2) for each in heads]
    parts.append(torch_pickle(state, wrap, legacy=True))
    parts.append(pickle.dumps([str(i) for i in range(len(state))], 2))
    for array in state.values():
        parts.append(struct.pack("<q", array.size) + array.astype("<f4").tobytes())
    return b"".join(parts)


def safetensors(state: State) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    values, at = [], 0
    for key, array in state.items():
        data = array.astype("<f4").tobytes()
        offsets = [at, at + len(data)]
        header[key] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        values.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(values)


# --- DIGITS


def digits_files(config: ModelConfig, state: State, mean: np.ndarray | None) -> dict[str, bytes]:
    """The files of a DIGITS model by name."""
    transform = {} if mean is None else {"mean_file": "/home/digits/jobs/1/mean.binaryproto"}
    edits = (rename_classifier("conv10_flowers"), data_layers(**transform))
    train = edited_net(config, state, *edits)
    deploy = edited_net(config, state, rename_classifier("conv10_flowers"))
    info = {"image dimensions": [256, 256, 3], "image resize mode": "squash", "framework": "caffe"}
    files = {
        "snapshot_iter_9.caffemodel": snapshot(
            config, {**state, "conv1.bias": state["conv1.bias"] + 1}, *edits
        ),
        "snapshot_iter_100.caffemodel": train.SerializeToString(),
        "deploy.prototxt": prototxt_of(deploy).encode(),
        "train_val.prototxt": prototxt_of(train).encode(),
        "labels.txt": "".join(f"flower {i}\n" for i in range(config.num_classes)).encode(),
        "info.json": json.dumps(info).encode(),
        "solver.prototxt": b'net: "train_val.prototxt"\n',
    }
    if mean is not None:
        files["mean.binaryproto"] = binaryproto(mean)
    return files


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path

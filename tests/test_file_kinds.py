"""Files that somebody may take for weights, told by their first bytes."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import wild_files as wild
from networks import random_state

from squeezenet_paddle.file_kinds import kind_of
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.onnx.writer import GraphInput, onnx_model
from squeezenet_paddle.pytorch.convert import TORCHVISION

CONFIG = ModelConfig(num_classes=2)
STATE = random_state(CONFIG)


def zip_of(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return file.getvalue()


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def solver_state() -> bytes:
    """iter, learned_net, two blobs of history, current_step, as Caffe's SolverState has them."""
    blob = wild.binaryproto(np.zeros((3, 2, 2), "float32"))
    history = b"\x1a" + bytes([len(blob)]) + blob
    return b"\x08\xc9\x01\x12\x0aa.caffemod" + history * 2 + b"\x20\x05"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "an empty file"),
        (wild.snapshot(CONFIG, STATE), "a caffemodel"),
        (wild.snapshot(CONFIG, STATE, wild.to_v1), "a caffemodel"),
        (solver_state(), "a Caffe solver state, which holds no network; its .caffemodel has the"),
        (wild.binaryproto(np.ones((3, 4, 4), "float32")), "a Caffe blob, as mean.binaryproto is"),
        (onnx_model(CONFIG, STATE, GraphInput(64, 64), TORCHVISION), "an ONNX model"),
        (wild.torch_zip(STATE), "a PyTorch checkpoint"),
        (wild.torch_legacy(STATE), "a PyTorch checkpoint"),
        (zip_of("net/data.pkl", "net/constants.pkl", "net/code/a.py"), "a TorchScript program"),
        (wild.safetensors(STATE), "a safetensors file"),
        (zip_of("config.json", "model.weights.h5", "metadata.json"), "a Keras model"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64) + b"keras_version", "a Keras model in HDF5"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
        (b"\x1c\0\0\0TFL3" + bytes(64), "a TensorFlow Lite model"),
        (zip_of("a.txt"), "a zip archive"),
        (b"PK\x03\x04" + bytes(30), "a damaged zip archive"),
        (tar(), "a tar archive"),
        (b"\x1f\x8b\x08" + bytes(30), "a gzip archive"),
        (npy(), "a numpy array"),
        (pickle.dumps({"a": 1}), "a Python pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
        (b"\n\n<!DOCTYPE html><html>", "an HTML page"),
        (b'name: "SqueezeNet"\nlayer { name: "a" }\n', "a prototxt"),
        (b"hello\n", "a text file"),
        (b"\x80", "1 bytes that start with 80"),
        (bytes(range(128, 256)), "128 bytes that start with 80 81 82"),
    ],
)
def test_kinds(data: bytes, kind: str) -> None:
    assert kind_of(data).startswith(kind)


def test_no_bytes_break_it() -> None:
    rng = np.random.default_rng(0)
    starts = [b"", b"PK\x03\x04", b"\x80\x02", b"\x89HDF\r\n\x1a\n", b"\x08\x01\x12\x02", b"\n\x00"]
    for i in range(2000):
        data = starts[i % len(starts)] + rng.bytes(int(rng.integers(0, 80)))
        assert kind_of(data).isprintable()

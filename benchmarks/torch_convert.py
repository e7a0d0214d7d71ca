"""Proves tools/torch2paddle.py against PyTorch and torchvision themselves.

    pip install torch torchvision
    python benchmarks/torch_convert.py --list data/val_list.txt \\
        --caffemodel pretrained/squeezenet_v1.1.caffemodel

builds torchvision's squeezenet1_0 and squeezenet1_1, with random weights or with those of a Caffe
file of that version, whose conv1 is changed so that it takes torchvision's inputs. Each is saved in
every format of torch.save and as safetensors, and converted; the weights must come back bit by bit.
The logits of the images in the list are compared with those of torchvision: of the same inputs, and
each program with its own resizing, PIL's there and OpenCV's here.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from squeezenet_paddle.caffe.convert import read_weights as read_caffe
from squeezenet_paddle.cli import torch2paddle
from squeezenet_paddle.data.decode import read_image
from squeezenet_paddle.data.lists import read_list
from squeezenet_paddle.data.preprocess import CAFFE_MEAN, INTERPOLATIONS
from squeezenet_paddle.model_dir import load_network, read_info, read_weights
from squeezenet_paddle.pytorch.convert import FIRES, TORCHVISION

with contextlib.suppress(RuntimeError):  # torchvision's GPU build takes them for granted
    operators = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        operators.define(f"{operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
from torchvision import models, transforms

BATCH = 20


def build(version: str, caffemodel: Path | None) -> Any:
    """torchvision's network in evaluation mode, and where its weights are from."""
    torch.manual_seed(0)
    make = models.squeezenet1_0 if version == "1.0" else models.squeezenet1_1
    network = make(weights=None)
    if caffemodel is None:
        for parameter in network.parameters():  # maps keep their size from layer to layer
            if parameter.ndim == 4:
                torch.nn.init.kaiming_normal_(parameter)
            else:
                torch.nn.init.normal_(parameter, 0, 0.1)
        return network.eval()
    state = read_caffe(caffemodel).state
    numbers = FIRES["1.0-nopad" if version == "1.0" else version]
    names = {"conv1": "features.0", "conv10": "classifier.1"}
    for fire, number in enumerate(numbers, 2):
        names[f"fire{fire}.squeeze1x1"] = f"features.{number}.squeeze"
        for part in ("expand1x1", "expand3x3"):
            names[f"fire{fire}.{part}"] = f"features.{number}.{part}"
    tensors = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        tensors[f"{names[layer]}.{kind}"] = torch.from_numpy(value.copy())
    adapt(tensors["features.0.weight"], tensors["features.0.bias"])
    network.load_state_dict(tensors, strict=True)
    return network.eval()


def adapt(weight: Any, bias: Any) -> None:
    """Makes conv1 take torchvision's inputs, (RGB / 255 - mean) / std, instead of Caffe's."""
    of_rgb = weight.flip(1).clone()
    mean, std = torch.tensor(TORCHVISION.mean), torch.tensor(TORCHVISION.std)
    offset = 255 * mean - torch.tensor(CAFFE_MEAN).flip(0)
    bias += (of_rgb * offset[:, None, None]).sum((1, 2, 3))
    weight.copy_(of_rgb * (255 * std)[:, None, None])


def save_all(network: Any, folder: Path) -> list[Path]:
    """The network's state dict in every format."""
    from safetensors.torch import save_file

    state = network.state_dict()
    wrapped = {f"module.{key}": value for key, value in state.items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    checkpoint = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1),
        "optimizer": optimizer.state_dict(),
        "state_dict": wrapped,
    }
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(checkpoint, folder / "checkpoint.pt")
    torch.save(network.to(memory_format=torch.channels_last).state_dict(), folder / "strided.pth")
    save_file({key: v.contiguous() for key, v in state.items()}, folder / "net.safetensors")
    return sorted(folder.iterdir())


def logits_of_torch(network: Any, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        parts = [
            network(torch.from_numpy(inputs[i : i + BATCH])) for i in range(0, len(inputs), BATCH)
        ]
    return torch.cat(parts).numpy()


def logits_of_ours(model_dir: Path, inputs: np.ndarray) -> np.ndarray:
    import paddle

    network = load_network(model_dir, read_info(model_dir))
    with paddle.no_grad():
        parts = [
            network(paddle.to_tensor(inputs[i : i + BATCH])).numpy()
            for i in range(0, len(inputs), BATCH)
        ]
    return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", type=Path, required=True, help="images with labels (required)")
    parser.add_argument(
        "--caffemodel", type=Path, nargs="*", default=[], help="Caffe weights (default: none)"
    )
    args = parser.parse_args()
    images = read_list(args.list, None, 1000)
    paths = [images.path(i) for i in range(len(images))]
    labels = np.array(images.labels)
    # torchvision's own preset, SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    theirs = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(TORCHVISION.mean, TORCHVISION.std),
        ]
    )
    of_pil = np.stack([theirs(Image.open(path).convert("RGB")).numpy() for path in paths])
    decoded = [read_image(path) for path in paths]
    of_opencv = {}
    for interpolation in INTERPOLATIONS:
        preprocess = dataclasses.replace(TORCHVISION, interpolation=interpolation)
        of_opencv[interpolation] = np.stack([preprocess(image) for image in decoded])
        difference = (
            np.abs(of_opencv[interpolation] - of_pil).mean() * np.mean(TORCHVISION.std) * 255
        )
        print(f"inputs, OpenCV {interpolation} - PIL: {difference:.2f} of 255 on average")

    versions = {read_caffe(path).config.version: path for path in args.caffemodel}
    networks = [(v, None) for v in ("1.0", "1.1")] + list(versions.items())
    for version, caffemodel in networks:
        network = build(version, caffemodel)
        expected = logits_of_torch(network, of_pil)
        source = "random weights" if caffemodel is None else caffemodel.name
        with tempfile.TemporaryDirectory() as folder:
            tensors = {key: value.numpy() for key, value in network.state_dict().items()}
            files = save_all(network, Path(folder))
            for file in files:
                target = Path(folder) / "model"
                argv = ["--checkpoint", str(file), "--output_dir", str(target)]
                with contextlib.redirect_stdout(io.StringIO()):
                    assert torch2paddle.main(argv) == 0
                state = read_weights(target, read_info(target)).state
                assert sorted(map(hash_of, state.values())) == sorted(
                    map(hash_of, tensors.values())
                )
            print(
                f"squeezenet{version.replace('.', '_')}, {source}: all weights of "
                f"{', '.join(file.name for file in files)} bit by bit"
            )
            right = int((expected.argmax(1) == labels).sum())
            cases = {"the same inputs": of_pil}
            cases.update({f"OpenCV's {name}": inputs for name, inputs in of_opencv.items()})
            for name, inputs in cases.items():
                found = logits_of_ours(target, inputs)
                relative = np.abs(found - expected).max() / np.abs(expected).max()
                same = int((found.argmax(1) == expected.argmax(1)).sum())
                print(
                    f"  {name}: logits differ by {relative:.1e} of the largest at most, the same "
                    f"first class for {same} of {len(paths)}; right: torchvision {right}, ours "
                    f"{int((found.argmax(1) == labels).sum())}"
                )


def hash_of(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


if __name__ == "__main__":
    main()

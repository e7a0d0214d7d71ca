"""The C code, ONNX Runtime, ncnn and OpenCV: one image and thread, the same weights, one run.

    pip install ncnn
    python benchmarks/c_export.py --model_dir pretrained/squeezenet_v1.1

Each is measured in a process of its own, in turn, --rounds times; of the medians of the rounds the
best one counts, as whatever else the machine does makes a round slower. Size is the stripped
program with its weights, or the installed package without them; start is a process from its start
to the logits of one image, beyond the time of the network (of the others with Python's). All times
are those in which a processor worked for the process.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import numpy as np

from squeezenet_paddle.cli import shared_flags
from squeezenet_paddle.export.c.write import write_c
from squeezenet_paddle.model_dir import read_info, read_weights
from squeezenet_paddle.network.config import Layer, ModelConfig, layers
from squeezenet_paddle.network.numpy_forward import reference_image
from squeezenet_paddle.network.weights import key_of
from squeezenet_paddle.onnx.writer import GraphInput, onnx_model
from squeezenet_paddle.profiling.benchmark import machine

Logits = Callable[[np.ndarray], np.ndarray]
PACKAGES = {"ONNX Runtime": "onnxruntime", "ncnn": "ncnn", "OpenCV": "cv2"}
REPEATS = 60


def c_code(folder: Path) -> Logits:
    """The C code, as a shared library."""
    library = ctypes.CDLL(str(folder / "squeezenet.so"))
    library.sqz_arena_bytes.restype = ctypes.c_size_t
    size = library.sqz_arena_bytes()
    arena, net = ctypes.create_string_buffer(size), ctypes.c_void_p()
    data = (folder / "c" / "model.sqz").read_bytes()
    error = library.sqz_load(
        ctypes.byref(net), data, ctypes.c_size_t(len(data)), arena, ctypes.c_size_t(size)
    )
    assert error == 0
    logits = np.empty(int((folder / "classes").read_text()), "float32")
    out = ctypes.c_void_p(logits.ctypes.data)

    def run(x: np.ndarray) -> np.ndarray:
        assert arena is not None  # it has to stay
        library.sqz_forward(net, ctypes.c_void_p(x.ctypes.data), out)
        return logits

    return run


def onnxruntime(folder: Path) -> Logits:
    """ONNX Runtime with one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(None, {"data": x[None]})[0][0]


def opencv(folder: Path) -> Logits:
    """OpenCV's dnn module with one thread."""
    import cv2

    cv2.setNumThreads(1)
    net = cv2.dnn.readNetFromONNX(str(folder / "model.onnx"))

    def run(x: np.ndarray) -> np.ndarray:
        net.setInput(x[None])
        return net.forward()[0]

    return run


def ncnn(folder: Path) -> Logits:
    """ncnn with one thread."""
    import ncnn as library

    net = library.Net()
    net.opt.num_threads = 1
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    assert net.load_param(str(folder / "net.param")) == 0
    assert net.load_model(str(folder / "net.bin")) == 0

    def run(x: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.set_light_mode(True)
        extractor.input("data", library.Mat(x))
        return np.array(extractor.extract("pool10")[1]).ravel()

    return run


def write_ncnn(folder: Path, config: ModelConfig, state: dict[str, np.ndarray]) -> None:
    """Writes net.param and net.bin of a network of the head `conv`."""
    chain = layers(config)
    readers: dict[str, int] = {}
    for layer in chain:
        for name in layer.bottoms:
            readers[name] = readers.get(name, 0) + 1
    rows, blobs = ["Input data 0 1 data"], 1
    taken: dict[str, int] = {}

    def blob(name: str) -> str:
        if readers[name] == 1:
            return name
        taken[name] = taken.get(name, -1) + 1
        return f"{name}_{taken[name]}"

    with (folder / "net.bin").open("wb") as file:
        for layer in chain:
            sources = [blob(name) for name in layer.bottoms]
            kind, values = _ncnn_layer(layer)
            rows.append(
                f"{kind} {layer.name} {len(sources)} 1 {' '.join(sources)} {layer.name} {values}"
            )
            blobs += 1
            if layer.type == "Convolution":
                file.write(bytes(4) + state[f"{key_of(layer)}.weight"].astype("<f4").tobytes())
                file.write(state[f"{key_of(layer)}.bias"].astype("<f4").tobytes())
            if (count := readers.get(layer.name, 0)) > 1:
                parts = " ".join(f"{layer.name}_{i}" for i in range(count))
                rows.append(f"Split split_{layer.name} 1 {count} {layer.name} {parts}")
                blobs += count
    text = "\n".join(["7767517", f"{len(rows)} {blobs}", *rows, ""])
    (folder / "net.param").write_text(text)


def _ncnn_layer(layer: Layer) -> tuple[str, str]:
    if layer.type == "Convolution":
        weights = int(np.prod(layer.weight_shape))
        return "Convolution", (
            f"0={layer.channels} 1={layer.kernel} 3={layer.stride} 4={layer.pad} 5=1 6={weights} "
            f"9={int(layer.activated)}"
        )
    if layer.type == "Pooling":
        return "Pooling", "0=0 1=3 2=2 5=0" if layer.kernel else "0=1 4=1"
    return layer.type, "0=0"


def prepare(folder: Path, model_dir: Path) -> None:
    """Writes the network for all programs, and builds the C code."""
    info = read_info(model_dir)
    if (info.network.head, info.network.bypass) != ("conv", "none"):
        raise SystemExit("a network of the head conv without bypass was expected")
    state = read_weights(model_dir, info).state
    side = info.preprocess.crop_size
    (folder / "model.onnx").write_bytes(
        onnx_model(info.network, state, GraphInput(side, side, 1, None))
    )
    write_ncnn(folder, info.network, state)
    write_c(model_dir, info, folder / "c", [reference_image(side)], embed=True)
    make = ["make", "-s", "-C", str(folder / "c")]
    subprocess.run([*make, "squeezenet", "check"], check=True)
    subprocess.run(["strip", str(folder / "c" / "squeezenet")], check=True)
    flags = ["-std=c99", "-O3", "-march=native", "-shared", "-fPIC"]
    target = ["-o", str(folder / "squeezenet.so"), str(folder / "c" / "squeezenet.c"), "-lm"]
    subprocess.run(["cc", *flags, *target], check=True)
    x = info.preprocess(reference_image(side))
    np.save(folder / "input.npy", np.ascontiguousarray(x))
    (folder / "classes").write_text(str(info.network.num_classes))


def child(folder: Path, name: str, repeats: int) -> None:
    """Measures one program and prints the milliseconds of an image, and saves its logits."""
    x = np.load(folder / "input.npy")
    make = {"C code": c_code, "ONNX Runtime": onnxruntime, "OpenCV": opencv, "ncnn": ncnn}
    run = make[name](folder)
    logits = run(x).copy()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run(x)
        times.append(time.process_time() - start)
    np.save(folder / f"{name}.npy", logits)
    print(1e3 * statistics.median(times) if times else 0)


def measured(folder: Path, name: str, repeats: int) -> tuple[float, float]:
    """Milliseconds of an image, and of the whole process."""
    command = [sys.executable, __file__, "--child", name, "--folder", str(folder)]
    output, whole = finished([*command, "--repeats", str(repeats)])
    return float(output), whole


def finished(command: list[str]) -> tuple[str, float]:
    """The output of a process, and the milliseconds that it computed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr}")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, 1e3 * seconds


def package_size(name: str) -> int:
    """Bytes of an installed package and of the libraries beside it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    beside = [
        each
        for each in folder.parent.glob("*.libs")
        if name in each.name or (name == "cv2" and "opencv" in each.name)
    ]
    return sum(
        f.stat().st_size for part in (folder, *beside) for f in part.rglob("*") if f.is_file()
    )


def rows(folder: Path, rounds: int) -> Iterator[str]:
    """The table."""
    names = ["C code", *[n for n, p in PACKAGES.items() if importlib.util.find_spec(p)]]
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name in names:
            best[name] = min(best.get(name, 1e9), measured(folder, name, REPEATS)[0])
    heads = f"{'ms':>8}{'x ONNX Runtime':>16}{'logits differ by':>18}{'size':>12}{'start ms':>10}"
    yield f"{'':14}{heads}"
    expected = np.load(folder / "ONNX Runtime.npy")
    for name in names:
        difference = (
            np.abs(np.load(folder / f"{name}.npy") - expected).max() / np.abs(expected).max()
        )
        if name == "C code":
            program = [str(folder / "c" / "squeezenet"), str(folder / "c" / "golden" / "0.ppm")]
            whole = min(finished(program)[1] for _ in range(10))
            begin, size = whole - best[name], Path(program[0]).stat().st_size
        else:
            whole = min(measured(folder, name, 0)[1] for _ in range(3))
            begin, size = whole - best[name], package_size(PACKAGES[name])
        yield (
            f"{name:14}{best[name]:8.2f}{best['ONNX Runtime'] / best[name]:16.2f}{difference:18.1e}"
            f"{size / 1e6:9.1f} MB{begin:10.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_dir", type=Path, default=Path("pretrained/squeezenet_v1.1"))
    parser.add_argument("--rounds", type=shared_flags.positive_int, default=5)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.folder, args.child, args.repeats)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, args.model_dir)
        facts = machine(1)
        versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
        print(f"{facts['processor']}, {facts['system']}, {versions}")
        for row in rows(folder, args.rounds):
            print(row, flush=True)


if __name__ == "__main__":
    main()

"""Writes a bundle: a folder or zip file with all that someone needs who is given a model.

    README.md             the model card
    predict.py            classifies images; needs numpy, ONNX Runtime, and Pillow or OpenCV
    model.onnx            the network, with class names and preprocessing in its metadata
    model_int8.onnx       the same in 8-bit integers, where they were fitted to images
    model.html            a page that classifies in a browser, see `export/page`
    c/                    the network in C, see `export/c`
    labels.json           class names, and what each file takes and gives
    golden/               drawn images, and the logits that each file gives for them

Before the bundle gets its name, its own predict.py checks it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import cv2
import numpy as np

from ... import export_record as record
from ...datasets import samples
from ...engines.onnxruntime import compile_onnx
from ...errors import RunError
from ...files import atomic_directory, atomic_path, check_directory, check_file_target
from ...model_dir import ModelInfo, load_network, read_weights
from ...onnx.writer import with_metadata
from ...run_dir import model_dir_of
from ..c.write import write_c
from ..export import Export, description_of, export, onnx_metadata
from ..page.write import write_page
from .card import CARD, Scores, model_card

PREDICT = "predict.py"
_PAGE_PACKAGES = ("ziglang", "wasmtime")
GOLDEN, GOLDEN_RECORD = "golden", "golden.json"
_REQUIRED = (CARD, PREDICT, record.ONNX, record.LABELS, GOLDEN)
_OPTIONAL = (record.ONNX_INT8, record.PAGE, record.C_FOLDER, "__pycache__")
_GOLDEN_SCALES = (1.0, 2.5, 1.5)  # of three drawn images: enlarged, shrunk, and in between


def check_bundle_target(path: Path) -> None:
    """Refuses what `Bundle.write` would refuse, before any work is done."""
    if _is_zip(path):
        check_file_target(path)
    else:
        check_directory(path, _REQUIRED, _OPTIONAL)


@dataclass(frozen=True)
class Bundle:
    """What goes into a bundle.

    Attributes:
        model_dir: as `model_dir.py` describes it.
        info: its description.
        input_size: side of the images, in pixels.
        images: decoded images, uint8 [H, W, 3] in BGR, to check the export on.
        fits_int8: fit 8-bit integers to these images; if not, those of the model directory are
            taken, where it has some.
        scores: for the model card; None where nothing is known.
        note: called with a line on what is left out.
    """

    model_dir: Path
    info: ModelInfo
    input_size: int
    images: Sequence[np.ndarray]
    fits_int8: bool
    scores: Scores | None
    note: Callable[[str], object]

    def write(self, output: Path) -> list[tuple[str, int]]:
        """Writes and checks it.

        Args:
            output: a zip file if it ends in .zip, or else a folder.

        Returns:
            The names of the files and their sizes in bytes.

        Raises:
            InputError: it cannot be written there.
            RunError: a file does not compute the network; nothing is left.
        """
        if not _is_zip(output):
            with atomic_directory(output, _REQUIRED, _OPTIONAL) as folder:
                return self._fill(folder)
        with atomic_path(output) as file, tempfile.TemporaryDirectory() as temporary:
            files = self._fill(Path(temporary))
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, _ in files:
                    archive.write(Path(temporary, name), f"{output.stem}/{name}")
            return files

    def _fill(self, folder: Path) -> list[tuple[str, int]]:
        what = Export("onnx", self.input_size)
        export(self.model_dir, self.info, what, self.images, folder)
        if self.fits_int8:
            int8 = Export("onnx", self.input_size, precision="int8")
            export(self.model_dir, self.info, int8, self.images, folder)
        else:
            self._copy_int8(folder)
        shutil.copyfile(Path(__file__).parent / "files" / PREDICT, folder / PREDICT)
        drawn = _drawn()
        self._write_golden(folder, drawn)
        preprocess = self.info.preprocess.with_crop_size(self.input_size)
        info = dataclasses.replace(self.info, preprocess=preprocess)
        write_c(self.model_dir, info, folder / record.C_FOLDER, list(drawn.values()))
        missing = [name for name in _PAGE_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            self.note(
                f"no {record.PAGE}: {missing[0]} is not installed: pip install "
                "'squeezenet_paddle[page]'."
            )
        else:
            write_page(self.model_dir, info, list(drawn.values()), folder)
        for name in (record.RECORD, record.STATISTICS):
            (folder / name).unlink(missing_ok=True)
        text = model_card(folder, self.info, description_of(self.info, what), self.scores)
        (folder / CARD).write_text(text, encoding="utf-8")
        _check(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]

    def _copy_int8(self, folder: Path) -> None:
        """Takes the model directory's own int8 file, with the metadata that is written today."""
        source = model_dir_of(self.model_dir)
        if "int8" not in record.read_record(source):
            self.note(f"no {record.ONNX_INT8}: `image` names images to fit the integers to.")
            return
        weights = read_weights(self.model_dir, self.info)
        entry, int8 = record.find(source, "int8", weights.fingerprint, record.ONNX_INT8)
        expected = {"input_size": self.input_size, "batch": None, "with_preprocess": False}
        if any(entry.get(key) != value for key, value in expected.items()):
            self.note(
                f"no {record.ONNX_INT8}: that of the model directory was exported with other "
                "options; `image` names images to fit the integers to."
            )
            return
        metadata = onnx_metadata(self.info, Export("onnx", self.input_size, precision="int8"))
        data = with_metadata(int8, metadata)
        (folder / record.ONNX_INT8).write_bytes(data)

    def _write_golden(self, folder: Path, drawn: Mapping[str, np.ndarray]) -> None:
        """Notes the logits that the network and the int8 file give for images, by their names."""
        from ...engines.dynamic import DynamicEngine  # Paddle

        (folder / GOLDEN).mkdir()
        for name, image in drawn.items():
            cv2.imwrite(str(folder / GOLDEN / name), image)
        preprocess = self.info.preprocess.with_crop_size(self.input_size)
        inputs = np.stack([preprocess(image) for image in drawn.values()])
        network = DynamicEngine(load_network(self.model_dir, self.info), "cpu")
        logits = {record.ONNX: network.logits(inputs)}
        if (folder / record.ONNX_INT8).is_file():
            [run] = compile_onnx((folder / record.ONNX_INT8).read_bytes(), threads=1)
            logits[record.ONNX_INT8] = run(inputs)[0]
        images = []
        for i, name in enumerate(drawn):
            rows = {file: [float(f"{v:.7g}") for v in rows[i]] for file, rows in logits.items()}
            images.append({"file": name, "logits": rows})
        text = json.dumps({"images": images}) + "\n"
        (folder / GOLDEN / GOLDEN_RECORD).write_text(text, encoding="utf-8")


def _drawn() -> dict[str, np.ndarray]:
    """Images to check by, uint8 [H, W, 3] in BGR, by the names of their files."""
    images = {}
    for i, scale in enumerate(_GOLDEN_SCALES):
        shape, texture = samples.CLASSES[3 * i]
        image = samples.draw(shape, texture, np.random.default_rng((0, i)))
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        images[f"{shape}_{texture}.png"] = image
    return images


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _check(folder: Path) -> None:
    """Runs the bundle's own check, as whoever gets it does.

    Raises:
        RunError: it fails.
    """
    command = [sys.executable, "-B", str(folder / PREDICT), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        text = " ".join(f"{done.stdout} {done.stderr}".split())
        raise RunError(f"the bundle fails its own check, and nothing was written: {text}")

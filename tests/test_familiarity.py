"""Familiarity and calibration: values by hand, the file, and what is refused when read."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import VARIANTS, small_calibration, small_model_dir

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.familiarity import Calibration, Familiarity, log_odds
from squeezenet_paddle.model_dir import load_network, read_info, read_model_dir, write_model_dir


def by_hand(f: Familiarity, logits: np.ndarray, means: np.ndarray) -> list[float]:
    """The definition of the module, image by image."""
    result = []
    weights = f.groups.astype("float64") * float(f.group_scale)
    kin = [w - weights.mean(axis=0) for w in weights]
    kin = [k / np.linalg.norm(k) for k in kin]
    for x, m in zip(logits.astype("float64"), means.astype("float64")):
        c = int(np.argmax(x))
        p = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
        terms = [np.log(p[c] / (1 - p[c]))]
        root = np.sqrt(m)
        terms.append(
            max(root @ v / np.linalg.norm(root) / np.linalg.norm(v) for v in f.prototypes[c] * 1.0)
        )
        if len(f.groups):
            shares = np.exp(2 * weights @ m) * f.group_sizes
            seen = sum(s * k for s, k in zip(shares / shares.sum(), kin))
            usual = sum(s * k for s, k in zip(f.usual[c], kin))
            terms.append(seen @ usual / np.linalg.norm(seen) / np.linalg.norm(usual))
        if len(f.axes):
            along = [axis.astype("float64") @ root / np.linalg.norm(root) for axis in f.axes]
            offsets = zip(along, f.middle, f.narrowing, f.places[c])
            terms.append(sum((u - m) ** 2 * n - (u - p) ** 2 for u, m, n, p in offsets))
        if len(f.known):
            terms.append(np.log((shares / shares.sum()) @ f.known + 1e-4))
        result.append(np.mean((np.array(terms) - f.center[c]) / f.spread[c]))
    return result


@pytest.mark.parametrize(("groups", "axes"), [(0, 0), (4, 0), (0, 3), (4, 3)])
def test_the_definition(groups: int, axes: int) -> None:
    familiarity = small_calibration(5, groups, axes=axes).familiarity
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (7, 5)).astype("float32")
    means = rng.uniform(0, 1, (7, 512)).astype("float32")
    expected = by_hand(familiarity, logits, means)
    np.testing.assert_allclose(familiarity(logits, means), expected, rtol=1e-5)
    assert familiarity(logits[:0], means[:0]).shape == (0,)
    calibration = Calibration(2.0, expected[2], familiarity, 40, 0.05, (0.1, 0.05))
    assert calibration.refuses(logits, means).tolist() == [
        value < expected[2] for value in familiarity(logits, means)
    ]


def test_certain_answers_have_finite_odds() -> None:
    assert log_odds(np.array([[0.0, np.log(3.0)], [2e4, 0.0]], "float32")).tolist() == [
        pytest.approx(np.log(3)),
        1e3,
    ]


@pytest.mark.parametrize("groups", [0, 4])
def test_files_of_earlier_versions_are_read_and_written_as_they_are(groups: int) -> None:
    old = small_calibration(5, groups, axes=0).familiarity
    names = ("prototypes", "groups", "group_scale", "group_sizes", "usual", "center", "spread")
    file = io.BytesIO()
    np.savez(file, **{name: getattr(old, name) for name in names})
    again = Familiarity.from_bytes(file.getvalue())
    for name, array in vars(old).items():
        np.testing.assert_array_equal(getattr(again, name), array)
    assert again.to_bytes() == file.getvalue()


def test_a_model_directory_keeps_it(tmp_path: Path) -> None:
    config, calibration = VARIANTS[0], small_calibration(5)
    plain = read_info(small_model_dir(tmp_path / "plain", config))
    assert plain.calibration is None
    assert "calibration" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    info = dataclasses.replace(plain, calibration=calibration)
    state = load_network(tmp_path / "plain", plain).state_dict()
    write_model_dir(tmp_path / "model", info, state)
    again = read_model_dir(tmp_path / "model")[0].calibration
    assert again is not None
    assert again.record() == calibration.record()
    for name, array in vars(calibration.familiarity).items():
        np.testing.assert_array_equal(getattr(again.familiarity, name), array)
    size = (tmp_path / "model" / "familiarity.npz").stat().st_size
    assert size < 30_000  # half a kilobyte for each prototype and group

    # Written again without one, the file goes too.
    write_model_dir(tmp_path / "model", plain, state)
    assert read_info(tmp_path / "model").calibration is None
    assert not (tmp_path / "model" / "familiarity.npz").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0}, "temperature"),
        ({"temperature": float("nan")}, "finite numbers"),
        ({"threshold": "low"}, "finite numbers"),
        ({"ece": [0.1]}, "two of ece"),
        ({"images": 1.5}, "images"),
        ({"familiarity": "0" * 64}, "another file"),
        ({"threshold": 10**400}, "finite numbers"),
        ({"temperature": 1e-60}, "finite numbers"),
        ({"extra": 1}, "an object with"),
    ],
)
def test_a_damaged_block_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = calibrated_dir(tmp_path)
    config = json.loads((path / "config.json").read_text())
    config["calibration"].update(change)
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"calibration.*{message}"):
        read_info(path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = calibrated_dir(tmp_path)
    file = path / "familiarity.npz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match="another file"):
        read_info(path)
    file.unlink()
    with pytest.raises(InputError, match="cannot read"):
        read_info(path)
    for data in (b"", b"PK\x03\x04", b"\x80\x04N."):
        with pytest.raises(InputError, match="not the arrays"):
            Familiarity.from_bytes(data)
    with pytest.raises(InputError, match=r"5 classes and 512 means were expected, found 3"):
        calibrated_dir(tmp_path / "other", classes=3) and read_info(tmp_path / "other" / "model")


def test_arrays_must_fit_each_other() -> None:
    familiarity = small_calibration(5).familiarity
    for name, array in (
        ("prototypes", familiarity.prototypes.astype("int16")),
        ("prototypes", familiarity.prototypes[:, :0]),
        ("group_sizes", familiarity.group_sizes * 0),
        ("usual", familiarity.usual[:, :2]),
        ("known", familiarity.known[:2]),
        ("known", familiarity.known[:0]),
        ("known", familiarity.known - 1),  # its logarithm would not be a number
        ("known", familiarity.known + 1),
        ("axes", familiarity.axes[:2]),
        ("places", familiarity.places[:3]),
        ("center", familiarity.center[:, :2]),
        ("spread", familiarity.spread * 0),
        ("group_scale", np.array(np.inf, "float32")),
    ):
        with pytest.raises(InputError):
            dataclasses.replace(familiarity, **{name: array})


def calibrated_dir(folder: Path, classes: int = 5) -> Path:
    """A model directory of 5 classes with a calibration."""
    path = small_model_dir(folder / "model", VARIANTS[0])
    calibration: Calibration = small_calibration(classes)
    info = dataclasses.replace(read_info(path), calibration=calibration)
    write_model_dir(path, info, load_network(path, info).state_dict())
    return path

"""Features of images: right, cached by content, and shared with a fine-tuning."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from runs import make_image_folder, make_pretrained

from squeezenet_paddle.data.decode import read_image
from squeezenet_paddle.data.lists import ImageList
from squeezenet_paddle.engines.batches import FeatureEngine
from squeezenet_paddle.errors import RunError
from squeezenet_paddle.features.compute import image_features
from squeezenet_paddle.model_dir import read_info, read_weights
from squeezenet_paddle.network import numpy_forward


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pretrained(tmp_path_factory.mktemp("pretrained") / "model")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_image_folder(tmp_path / "tiny", 1)


def listed(folder: Path) -> ImageList:
    return ImageList.of_paths(sorted(path for path in folder.rglob("*") if path.is_file()))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images an engine has computed, call by call."""
    counts: list[int] = []
    features = FeatureEngine.features

    def counted(self: FeatureEngine, inputs: np.ndarray) -> np.ndarray:
        counts.append(len(inputs))
        return features(self, inputs)

    monkeypatch.setattr(FeatureEngine, "features", counted)
    return counts


def test_they_are_the_means_of_all_fires_maps(
    images: Path, pretrained: Path, tmp_path: Path
) -> None:
    files = listed(images)
    features, unreadable = image_features(pretrained, files, tmp_path / "cache", device="cpu")
    assert features.shape == (10, 2560)
    assert not unreadable
    info = read_info(pretrained)
    state = read_weights(pretrained, info).state
    for i in (0, 7):
        x = info.preprocess(read_image(files.path(i)))
        values = numpy_forward.activations(info.network, state, x)
        fires = [values[f"fire{n}/concat"].mean(axis=(1, 2)) for n in range(2, 10)]
        np.testing.assert_allclose(features[i], np.concatenate(fires), rtol=2e-3, atol=2e-3)


def test_new_images_alone_are_computed(
    images: Path, pretrained: Path, tmp_path: Path, computed: list[int]
) -> None:
    cache = tmp_path / "cache"
    before, _ = image_features(pretrained, listed(images), cache, device="cpu")
    names = [path.name for path in sorted(images.iterdir())]
    (images / names[0]).rename(images / "renamed")
    new = images / names[1] / "new.jpg"
    shutil.copy(tmp_path / "tiny" / "val" / names[1] / "000.jpg", new)
    files = listed(images)
    after, _ = image_features(pretrained, files, cache, device="cpu")
    assert computed == [10, 1]
    rows = {files.path(i): row for i, row in enumerate(after)}
    assert np.array_equal(rows[images / "renamed" / "000.jpg"], before[0])
    assert np.array_equal(rows[images / names[9] / "000.jpg"], before[9])
    assert not any(np.array_equal(rows[new], row) for row in before)
    image_features(pretrained, listed(images), cache, device="cpu")
    assert computed == [10, 1]


def test_what_cannot_be_read_is_named_by_its_place(
    images: Path, pretrained: Path, tmp_path: Path, computed: list[int]
) -> None:
    files = listed(images)
    for i in (2, 5):
        files.path(i).write_bytes(b"no image")
    for _ in range(2):
        features, unreadable = image_features(pretrained, files, tmp_path / "cache", device="cpu")
        assert list(unreadable) == [2, 5]
        assert all(str(files.path(i)) in text for i, text in unreadable.items())
        assert np.flatnonzero(~features.any(axis=1)).tolist() == [2, 5]
    assert computed == [8]


def test_an_image_that_changes_while_it_is_read(
    images: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, features = listed(images), FeatureEngine.features

    def changing(self: FeatureEngine, inputs: np.ndarray) -> np.ndarray:
        shutil.copy(files.path(1), files.path(0))
        return features(self, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureEngine, "features", changing)
        with pytest.raises(RunError, match="000.jpg: changed while it was read"):
            image_features(pretrained, files, tmp_path / "cache", device="cpu")
    found, _ = image_features(pretrained, files, tmp_path / "cache", device="cpu")
    assert np.array_equal(found[0], found[1])


def test_other_preprocessing_has_other_features_and_each_is_kept(
    images: Path, pretrained: Path, tmp_path: Path, computed: list[int]
) -> None:
    preprocess = read_info(pretrained).preprocess
    files, cache = listed(images), tmp_path / "cache"
    found = [
        image_features(pretrained, files, cache, preprocess=each, device="cpu")[0]
        for each in (None, dataclasses.replace(preprocess, resize_size=36), preprocess)
    ]
    assert not np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    assert computed == [10, 10]

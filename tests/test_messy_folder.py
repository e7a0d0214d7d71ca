"""The benchmark's messy folder: what it says is in it is what a reader of folders makes of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from runs import make_image_folder

from benchmarks.messy_folder import JUNK, main, read_truth, score
from squeezenet_paddle.data.image_files import inspect
from squeezenet_paddle.datasets.folders import read_tree

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image_folder(tmp_path_factory.mktemp("tidy"), 12)


@pytest.mark.parametrize("layout", ["classes", "split"])
def test_it_is_read_as_it_was_meant(
    source: Path, tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--source", source, "--layout", layout, "--wrong", 0.2, "--copies", 0.3]
    flags += ["--build_only", "--output_dir", tmp_path / "messy"]
    main([*map(str, flags)])
    data = tmp_path / "messy" / "data"
    assert "built; what is wrong with it is in data/truth.csv" in capsys.readouterr().out
    truth, kinds = read_truth(data), Counter(kind for _, kind, _ in read_truth(data))
    assert kinds["wrong label"] > 5
    assert kinds["copy"] > 10
    assert kinds["unreadable"] == 2
    assert kinds["later"] == len(list((data / "inbox").iterdir())) == 10 * (12 // 6)

    tree = read_tree(data / "images")
    *known, new = read_tree(source).classes
    assert [*tree.classes] == known
    assert (set(tree.parts or ()) == {"train", "val"}) == (layout == "split")
    left_out = {each.path for each in tree.left_out}
    assert left_out == {"empty", *(name.split("/")[0] for name in JUNK)}
    found = {f"images/{name}": tree.classes[i] for name, i in zip(tree.names, tree.labels.tolist())}
    for path, kind, right in truth:
        if kind == "wrong label":
            assert found[path] != right
        elif kind == "copy":
            assert found[path] == found[right]
        elif kind == "later":
            assert (data / path).is_file()
            assert right in (*known, new)
    files = [*found]
    inspected = zip(files, inspect([data / path for path in files]))
    problems = [path for path, each in inspected if each.problem is not None]
    assert sorted(problems) == sorted(path for path, kind, _ in truth if kind == "unreadable")
    suffixes = {Path(name).suffix for name in tree.names}
    assert {".jpg", ".JPG", ".jfif", ".png", ""} <= suffixes
    assert np.bincount(tree.labels).min() > 2


def test_what_a_check_has_found_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, images = tmp_path / "check.csv", tmp_path / "images"
    table.write_text(
        "image,finding,other\na/1.jpg,label,\na/2.jpg,odd,\na/3.jpg,duplicate,a/4.jpg\n"
    )
    truth = [
        ("images/a/1.jpg", "wrong label", "b"),
        ("images/a/2.jpg", "wrong label", "b"),
        ("images/a/4.jpg", "copy", "images/a/3.jpg"),
    ]
    score(table, images, truth)
    assert capsys.readouterr().out.splitlines() == [
        "wrong label: 1 of 2 are among what the check lists",
        "copy: 1 of 1 are among what the check lists",
    ]

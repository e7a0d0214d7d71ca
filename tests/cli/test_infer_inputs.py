"""infer.py beyond image files: sorting, the web, videos."""

from __future__ import annotations

import csv
import errno
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Run, assert_user_error
from networks import VARIANTS, calibrate_dir, small_model_dir

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.predict import Predictor
from squeezenet_paddle.sorting import SortedFolder, folder_name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory, images in two folders of which two have the same name, and a film."""
    path = tmp_path_factory.mktemp("inputs")
    small_model_dir(path / "model", VARIANTS[0])
    rng = np.random.default_rng(0)
    for name in ("a/1.png", "b/1.png", "b/2.png"):
        (path / name).parent.mkdir(exist_ok=True)
        patches = rng.integers(0, 256, (4, 4, 3), "uint8")
        cv2.imwrite(str(path / name), cv2.resize(patches, (48, 48), interpolation=cv2.INTER_CUBIC))
    writer = cv2.VideoWriter(str(path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 2, (64, 48))
    for i in range(5):
        writer.write(np.full((48, 64, 3), 50 * i, "uint8"))
    writer.release()
    return path


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


def files(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir()}


@pytest.mark.parametrize("link", [False, True])
def test_sorting(folder: Path, tmp_path: Path, call_tool: Run, link: bool) -> None:
    into = tmp_path / "sorted"
    flags = ["--model_dir", folder / "model", "--image", folder / "a", folder / "b"]
    flags += ["--sort_into", into, "--min_probability", "0", *(["--link"] if link else [])]
    done = call_tool("infer", *flags)
    assert done.returncode == 0, done.stderr
    predictor = Predictor(folder / "model", "cpu")
    counts: dict[str, int] = {}
    expected = set()
    for name in ("a/1.png", "b/1.png", "b/2.png"):
        label = str(predictor(folder / name)[0].name)
        counts[label] = counts.get(label, 0) + 1
        target = f"{label}/{Path(name).name}"
        expected.add(target if target not in expected else f"{label}/{Path(name).stem}-2.png")
    assert files(into) == expected
    assert all((into / name).is_symlink() == link for name in expected)
    total = ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
    assert f"{into}: {total}" in done.stderr

    # One is moved by hand, and all stay where they are.
    first = into / min(expected)
    (into / "by hand").mkdir()
    first.rename(into / "by hand" / first.name)
    moved = files(into)
    done = call_tool("infer", *flags)
    assert f"{into}: 3 already there" in done.stderr
    assert files(into) == moved
    assert files(folder / "a") == {"1.png"}


def test_what_is_refused_has_folders_of_its_own(
    folder: Path, tmp_path: Path, call_tool: Run
) -> None:
    strict = calibrate_dir(small_model_dir(tmp_path / "strict", VARIANTS[0]), threshold=1e9)
    flags = ["--image", folder / "a", "--sort_into", tmp_path / "sorted"]
    call_tool("infer", "--model_dir", strict, *flags)
    assert files(tmp_path / "sorted") == {"none of these/1.png"}
    flags[-1] = tmp_path / "unsure"
    call_tool("infer", "--model_dir", folder / "model", *flags, "--min_probability", "1")
    assert files(tmp_path / "unsure") == {"unsure/1.png"}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    image, other = tmp_path / "1.png", tmp_path / "other" / "1.png"
    other.parent.mkdir()
    image.write_bytes(b"one")
    other.write_bytes(b"two")
    into = SortedFolder(tmp_path / "sorted", ["a/b", "c"])
    assert into.add(image, 0, None) == tmp_path / "sorted" / "a_b" / "1.png"
    assert into.add(other, 0, None) == tmp_path / "sorted" / "a_b" / "1-2.png"
    assert into.add(other, 1, None) is None
    assert (tmp_path / "sorted" / "a_b" / "1.png").read_bytes() == b"one"
    assert into.summary() == f"{tmp_path / 'sorted'}: 2 a_b, 1 already there"
    with pytest.raises(InputError, match="`sort_into`: two classes would have the folder 'a_b'"):
        SortedFolder(tmp_path / "more", ["a/b", "A\\b"])
    with pytest.raises(
        InputError, match="`sort_into` .*1.png: a folder was expected, found a file"
    ):
        SortedFolder(image, None)
    assert folder_name("../x") == "_x"
    assert folder_name(" .. ") == "_"


def test_folders_may_be_links(tmp_path: Path) -> None:
    image, sorted_into = tmp_path / "1.png", tmp_path / "sorted"
    image.write_bytes(b"one")
    (tmp_path / "elsewhere").mkdir()
    sorted_into.mkdir()
    (sorted_into / "a").symlink_to(tmp_path / "elsewhere")
    (sorted_into / "circle").symlink_to(sorted_into)
    assert SortedFolder(sorted_into, ["a"]).add(image, 0, None) == sorted_into / "a" / "1.png"
    assert SortedFolder(sorted_into, ["a"]).add(image, 0, None) is None


def test_half_a_copy_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fills_the_disk(_: Path, target: Path) -> None:
        target.write_bytes(b"on")
        raise OSError(errno.ENOSPC, "No space left on device")

    image = tmp_path / "1.png"
    image.write_bytes(b"one")
    into = SortedFolder(tmp_path / "sorted", ["a"])
    monkeypatch.setattr(shutil, "copyfile", fills_the_disk)
    with pytest.raises(InputError, match="No space left"):
        into.add(image, 0, None)
    assert files(tmp_path / "sorted") == set()


def test_urls(folder: Path, server: str, tmp_path: Path, call_tool: Run) -> None:
    url = f"{server}/b/2.png"
    flags = ["--model_dir", folder / "model", "--format", "json", "--top_k", "1"]
    done = call_tool("infer", *flags, "--image", url, folder / "a")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [each["image"] for each in results] == [str(folder / "a" / "1.png"), url]
    plain = json.loads(call_tool("infer", *flags, "--image", folder / "b" / "2.png").stdout)
    assert results[1]["classes"] == plain[0]["classes"]

    bad = [f"{server}/none.png", f"{server}/film.avi"]
    done = call_tool("infer", *flags, "--image", *bad, url)
    assert done.returncode == 1
    assert f"{bad[0]}: the server answered 404" in done.stderr
    assert f"{bad[1]}: not an image" in done.stderr
    assert "2 of 3 images cannot be read" in done.stderr
    assert [each["image"] for each in json.loads(done.stdout)] == [url]
    done = call_tool("infer", *flags, "--image", url, "--sort_into", tmp_path, "--link")
    assert_user_error(done, "--link:", "no file that a link could lead to")


def test_videos(folder: Path, call_tool: Run) -> None:
    film = folder / "film.avi"
    flags = ["--model_dir", folder / "model", "--video", film]
    done = call_tool("infer", *flags, "--every", "frame", "--format", "csv", "--batch_size", "2")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [(row["seconds"], row["frame"]) for row in rows] == [
        (f"{i / 2:.3f}", str(i)) for i in range(5)
    ]
    assert {row["image"] for row in rows} == {str(film)}
    capture = cv2.VideoCapture(str(film))
    predictor = Predictor(folder / "model", "cpu")
    for row in rows:
        best = predictor(capture.read()[1])[0]
        assert (int(row["class_id"]), row["name"]) == (best.class_id, best.name)
        assert float(row["probability"]) == pytest.approx(best.probability, abs=1e-5)
    lines = call_tool("infer", *flags).stdout.splitlines()
    assert [line[:12] for line in lines] == ["     0.000 s", "     1.000 s", "     2.000 s"]
    assert len(call_tool("infer", *flags, "--top_k", "2").stdout.splitlines()) == 6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image", "a", "--every", "frame"], "--every goes with --video or --camera"),
        (["--image", "ftp://a/b.png"], "--image ftp://a/b.png: only addresses of http and"),
        (["--image", "a", "--link"], "--link goes with --sort_into"),
        (["--video", "a.mp4", "--sort_into", "s"], "--sort_into is for image files, and --video"),
        (["--camera", "0", "--explain", "maps"], "--explain is for image files, and --camera"),
        (["--video", "a.mp4", "--num_workers", "0"], "--num_workers is of reading image files"),
        (["--camera", "0", "--max_pixels", "9"], "--max_pixels is of reading image files"),
        (["--camera", "0", "--batch_size", "9"], "--batch_size: of a --camera, each frame"),
        (["--video", "nothing.mp4"], "--video nothing.mp4: no such file"),
        (["--camera", "99"], "--camera 99: there is no such camera"),
        (["--camera", "-1"], "-1 is below 0"),
    ],
)
def test_settings_that_do_not_go_together(
    folder: Path, flags: list[str], message: str, call_tool: Run
) -> None:
    assert_user_error(call_tool("infer", "--model_dir", folder / "model", *flags), message)

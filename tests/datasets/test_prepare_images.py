"""Images resized ahead of training: their pixels, names and lists, the mean, and mistakes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
from conftest import ROOT, Run, assert_user_error
from hypothesis import given
from hypothesis import strategies as st

from squeezenet_paddle.data.decode import read_image
from squeezenet_paddle.data.lists import ImageList, read_list
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.datasets.prepare import Report, plan, prepare, statistics
from squeezenet_paddle.datasets.resize_jobs import Output, encode
from squeezenet_paddle.errors import ImageError, InputError, RunError

MADE_WITH = {"prepare.json", "prepared.txt"}
SMALL = Preprocess(resize_size=24, crop_size=21)


def draw(folder: Path, *names: str) -> Path:
    """Images of noise, each of another size, made from their names alone."""
    for name in names:
        rng = np.random.default_rng(list(name.encode()))
        height, width = rng.integers(10, 60, 2)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return folder


def listed(path: Path, *names: str) -> Path:
    """A list file of these names with labels 0, 1, 2 ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name} {label}\n" for label, name in enumerate(names)))
    return path


def prepared(
    images: Path, names: list[str], output: Output | None, mean: bool = False, workers: int = 1
) -> Report:
    """`prepare` on a list of these names."""
    path = listed(images.parent / "lists" / "list.txt", *names)
    return prepare([path], images, SMALL, output, mean, workers)


def times(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.rglob("*") if p.suffix == ".png"}


# What is written


def test_tool(tmp_path: Path, call_tool: Run) -> None:
    names = ["a/x.png", "a/y z.JPEG", "b/größe.jpg", "b/deep/x.bmp", "top.webp"]
    images = draw(tmp_path / "images", *names, "val.png")
    train = listed(tmp_path / "lists" / "train_list.txt", *names, "./a//x.png")
    val = listed(tmp_path / "lists" / "val_list.txt", "val.png", "top.webp")
    out = tmp_path / "out"
    command = (
        *("--list", train, val, "--data_dir", images, "--output_dir", out, "--format", "png"),
        *("--mean_json", tmp_path / "mean.json", "--resize_size", 24),
    )
    done = call_tool("prepare_images", *command)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads((tmp_path / "mean.json").read_text())
    mean, std = (" ".join(f"{value:.2f}" for value in found[key]) for key in ("mean", "std"))
    assert done.stdout.splitlines() == [
        "6 images: 6 written, 0 already there, 0 unreadable",
        f"6 images: mean {mean}  std {std} (B, G, R)",
    ]
    new = ["a/x.png", "a/y z.png", "b/größe.png", "b/deep/x.png", "top.png"]
    assert (out / "train_list.txt").read_text(encoding="utf-8").splitlines() == [
        *(f"{name} {label}" for label, name in enumerate(new)),
        "a/x.png 5",
    ]
    assert (out / "val_list.txt").read_text() == "val.png 0\ntop.png 1\n"
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert files == {*new, "val.png", "train_list.txt", "val_list.txt"} | MADE_WITH
    pixels = []
    for old, image in zip([*names, "a/x.png"], [*new, "a/x.png"]):
        pixels.append(cv2.resize(read_image(images / old), (24, 24), interpolation=cv2.INTER_CUBIC))
        assert (cv2.imread(str(out / image)) == pixels[-1]).all()
        assert (SMALL(read_image(out / image)) == SMALL(read_image(images / old))).all()
    values = np.stack(pixels).reshape(-1, 3).astype("float64")
    assert found == {
        "mean": pytest.approx(values.mean(0).tolist(), rel=1e-12),
        "std": pytest.approx(values.std(0).tolist(), rel=1e-12),
        "pixels": 6 * 24 * 24,
        "images": 6,
        "list": "train_list.txt",
    }
    again = call_tool("prepare_images", *command)
    assert again.stdout.splitlines()[0] == "6 images: 0 written, 6 already there, 0 unreadable"
    assert json.loads((tmp_path / "mean.json").read_text()) == found


def test_short_side_and_jpg(tmp_path: Path) -> None:
    images = draw(tmp_path / "images", "wide.png", "tall.png", "c.png")
    names = ["wide.png", "tall.png", "c.png"]
    resize = Preprocess("short_side", 30, "area", 21)
    path = listed(tmp_path / "lists" / "list.txt", *names)
    for format_ in ("png", "jpg"):
        out = tmp_path / format_
        prepare([path], images, resize, Output(out, format_), False, 1)
        for name in names:
            new = out / name.replace("png", format_)
            original, expected = read_image(images / name), resize(read_image(images / name))
            height, width = original.shape[:2]
            found = cv2.imread(str(new))
            assert min(found.shape[:2]) == 30
            assert max(found.shape[:2]) == 30 * max(height, width) // min(height, width)
            if format_ == "png":
                assert (resize(found) == expected).all()


def test_files_of_an_image() -> None:
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8), (90, 60))
    sizes, errors = [], []
    for output in (Output(Path(), "png"), Output(Path()), Output(Path(), quality=30)):
        data = encode(image, output, "a")
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        sizes.append(len(data))
        errors.append(np.abs(decoded.astype(int) - image).mean())
    assert sizes[0] > sizes[1] > 1.5 * sizes[2]
    assert 0 == errors[0] < errors[1] < 3
    assert errors[1] < errors[2]
    with pytest.raises(ImageError, match="a.png: 65501x1 pixels do not fit a jpg file"):
        encode(np.zeros((1, 65501, 3), np.uint8), Output(Path()), "a.png")


def test_mean_is_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(70)]
    images = draw(tmp_path / "images", *names)
    names += names[:5]
    resize = Preprocess("short_side", 16, "linear", 16)
    path = listed(tmp_path / "lists" / "list.txt", *names)
    found = [prepare([path], images, resize, None, True, n).statistics for n in (1, 3)]
    assert found[0] == found[1]
    pixels = np.concatenate(
        [resize.resized(read_image(images / name)).reshape(-1, 3) for name in names]
    ).astype("int64")
    mean = [Fraction(int(total), len(pixels)) for total in pixels.sum(0)]
    assert found[0] is not None
    assert found[0]["mean"] == [float(m) for m in mean]
    assert found[0]["std"] == pytest.approx(pixels.std(0).tolist(), rel=1e-12)
    assert (found[0]["pixels"], found[0]["images"]) == (len(pixels), 75)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "lists"]


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=50), st.integers(0, 40))
def test_statistics(pixels: list[tuple[int, int, int]], power: int) -> None:
    """A mean of many more pixels than float64 counts exactly is still the mean."""
    channels = list(zip(*pixels))
    histogram = np.array([np.bincount(c, minlength=256) for c in channels]) << power
    found = statistics(histogram)
    assert found["pixels"] == len(pixels) << power
    for c, values in enumerate(channels):
        mean = Fraction(sum(values), len(values))
        assert found["mean"][c] == float(mean)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        assert found["std"][c] == pytest.approx(math.sqrt(variance), rel=1e-15)


def test_csv_lists_and_names_without_a_suffix(tmp_path: Path) -> None:
    images = draw(tmp_path / "images", "a,b.png", "img.001.png", "img.002.png")
    for number in ("001", "002"):
        (images / f"img.{number}.png").rename(images / f"img.{number}")
    path = tmp_path / "lists" / "list.csv"
    path.parent.mkdir()
    path.write_text('image,label\n"a,b.png",7\nimg.001,0\nimg.002,1\n')
    out = tmp_path / "out"
    prepare([str(path)], str(images), SMALL, Output(str(out)), False, 1)
    again = read_list(out / "list.txt")
    assert [again.name(i) for i in range(3)] == ["a,b.jpg", "img.001.jpg", "img.002.jpg"]
    assert again.labels.tolist() == [7, 0, 1]
    assert all(again.path(i).is_file() for i in range(3))


# Going on


def test_what_is_done_is_skipped(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(4)]
    images, out = draw(tmp_path / "images", *names), Output(tmp_path / "out", "png")
    assert prepared(images, names[:3], out).written == 3
    first = times(out.folder)
    draw(images, "1.png")
    (out.folder / "2.png").unlink()
    assert prepared(images, names, out).written == 3
    second = times(out.folder)
    assert first["0.png"] == second["0.png"]
    assert first["1.png"] < second["1.png"]
    assert set(second) == set(names)


def test_a_kill_before_the_settings_were_written_leaves_a_folder_to_go_on_in(
    tmp_path: Path,
) -> None:
    images, out = draw(tmp_path / "images", "0.png"), Output(tmp_path / "out", "png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".a1b2c3d4.sqz-tmp").write_bytes(b"{")
    assert prepared(images, ["0.png"], out).written == 1
    assert {p.name for p in (tmp_path / "out").iterdir()} == {*MADE_WITH, "0.png", "list.txt"}


def test_images_without_a_record_are_made_again_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = draw(tmp_path / "images", "0.png", "1.png"), Output(tmp_path / "out", "png")
    prepared(images, ["0.png", "1.png"], out)
    assert capsys.readouterr().err == ""
    (tmp_path / "out" / "prepared.txt").unlink()
    assert prepared(images, ["0.png", "1.png"], out).written == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'out'}: it has images and no prepared.txt")


def test_what_is_done_is_not_told_by_its_being_there(tmp_path: Path) -> None:
    """An output that was emptied, and originals replaced by older files, are made again."""
    names = [f"{i}.png" for i in range(4)]
    images, out = draw(tmp_path / "images", *names), Output(tmp_path / "out", "png")
    prepared(images, names, out)
    os.utime(images / "0.png")  # newer
    (out.folder / "1.png").write_bytes(b"")
    other = cv2.imread(str(images / "2.png"))[::-1]
    cv2.imwrite(str(images / "2.png"), other)
    os.utime(images / "2.png", (1e9, 1e9))
    assert prepared(images, names, out).written == 3
    expected = SMALL.resized(other)
    assert np.array_equal(cv2.imread(str(out.folder / "2.png")), expected)
    assert cv2.imread(str(out.folder / "1.png")) is not None
    assert prepared(images, names, out).written == 0
    with (out.folder / "prepared.txt").open("a") as file:
        file.write("12 34")  # a line that a kill has cut
    assert prepared(images, names, out).written == 0


@pytest.mark.parametrize(
    ("resize", "output", "message"),
    [
        (Preprocess(resize_size=25, crop_size=21), {}, r"\(resize_size 24, asked 25\)"),
        (Preprocess("short_side", 24, crop_size=21), {}, r"\(resize squash, asked short_side\)"),
        (Preprocess("squash", 24, "area", 21), {}, r"\(interpolation cubic, asked area\)"),
        (SMALL, {"quality": 90}, r"\(quality 95, asked 90\)"),
        (SMALL, {"format": "png"}, r"\(format jpg, asked png; quality 95, asked None\)"),
    ],
)
def test_other_settings_need_another_folder(
    tmp_path: Path, resize: Preprocess, output: dict[str, object], message: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    settings = {"data_dir": str(tmp_path.resolve()), "resize": "squash", "resize_size": 24}
    settings.update({"interpolation": "cubic", "format": "jpg", "quality": 95})
    (out / "prepare.json").write_text(json.dumps(settings))
    path = listed(tmp_path / "list.txt", "a.png")
    with pytest.raises(InputError, match=f"other settings {message}; give another `output_dir`"):
        prepare([path], None, resize, Output(out, **output), False, 1)  # type: ignore[arg-type]


def test_folders_that_are_refused(tmp_path: Path) -> None:
    images = draw(tmp_path / "images", "a.png")
    path = listed(tmp_path / "lists" / "list.txt", "a.png")

    def refused(message: str, lists: list[Path], data_dir: Path | None, out: Path) -> None:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError, match=message):
            prepare(lists, data_dir, SMALL, Output(out), False, 1)
        assert sorted(tmp_path.rglob("*")) == before

    refused("holds the lists or images that are read", [path], images, images / ".." / "images")
    refused("holds the lists or images that are read", [path], images, path.parent)
    foreign = draw(tmp_path / "foreign", "b.png")
    refused("not empty and has no prepare.json", [path], images, foreign)
    (foreign / "prepare.json").write_text("[1, 2]")
    refused("prepare.json: not a record of settings", [path], images, foreign)
    (foreign / "prepare.json").write_text("{}")
    refused("data_dir None, asked .*images; resize None", [path], images, foreign)
    other = listed(tmp_path / "other" / "list.txt", "a.png")
    refused("2 of the lists would be written to list.txt", [path, other], images, tmp_path / "out")
    refused("`data_dir` must say where", [path, other], None, tmp_path / "out")


# Names


def test_two_images_for_one_file(tmp_path: Path) -> None:
    path = listed(tmp_path / "list.txt", "x/a.png", "x/b.jpg", "x/a.gif", "y/a.png", "x/b.JPEG")
    message = r"x/a.png and x/a.gif would both be x/a.jpg; x/b.jpg and x/b.JPEG would both be x/b"
    with pytest.raises(InputError, match=message):
        prepare([path], None, SMALL, Output(tmp_path / "out"), False, 1)
    assert not (tmp_path / "out").exists()


def test_a_path_out_of_the_folder(tmp_path: Path) -> None:
    path = listed(tmp_path / "list.txt", "a.png", "../b.png", "/c.png", "x/../../d.png")
    message = "line 2: '../b.png'; .*line 3: '/c.png'; .*line 4: 'x/../../d.png'"
    with pytest.raises(InputError, match=message):
        prepare([path], None, SMALL, Output(tmp_path / "out"), False, 1)


segment = st.text(st.sampled_from("ab."), min_size=1, max_size=3).filter(lambda s: set(s) != {"."})
suffixes = st.sampled_from([".jpg", ".png", ".JPEG", ""])
names = st.builds(
    lambda parts, suffix: "/".join(parts) + suffix,
    st.lists(segment, min_size=1, max_size=3),
    suffixes,
)


@given(st.lists(names, min_size=1, max_size=12))
def test_every_image_gets_a_file_of_its_own(listed_names: list[str]) -> None:
    images = ImageList.of_paths([Path(name) for name in listed_names])
    expected = {}
    for name in listed_names:
        path = PurePosixPath(name)
        known = path.suffix.lower() in (".jpg", ".jpeg", ".png") and path.name != path.suffix
        expected[name] = (str(path.with_suffix("")) if known else name) + ".png"
    output = Output(Path("out"), "png")
    if len(set(expected.values())) < len(expected):
        with pytest.raises(InputError, match="would both be"):
            plan([images, images], output, True)
        return
    jobs = plan([images, images], output, True)
    assert {job.source: job.target for job in jobs.values()} == expected
    assert {job.source: job.weight for job in jobs.values()} == {
        name: listed_names.count(name) for name in listed_names
    }


# Images that cannot be read, and other mishaps


def test_unreadable_images(tmp_path: Path, call_tool: Run) -> None:
    images = draw(tmp_path / "images", "good.png", "cut.png")
    (images / "cut.png").write_bytes((images / "cut.png").read_bytes()[:200])
    path = listed(tmp_path / "lists" / "list.txt", "cut.png", "good.png", "none.png")
    out = tmp_path / "out"
    flags = ("--list", path, "--data_dir", images, "--output_dir", out, "--resize", "short_side",
             "--mean_json", tmp_path / "mean.json")  # fmt: skip
    done = call_tool("prepare_images", *flags)
    names = ("cut.png: the image is cut off", "none.png: cannot read")
    assert_user_error(done, "2 of 3 images cannot be prepared", "--skip_unreadable", *names)
    assert sorted(p.name for p in out.iterdir()) == ["good.jpg", *sorted(MADE_WITH)]
    assert not (tmp_path / "mean.json").exists()

    done = call_tool("prepare_images", *flags, "--skip_unreadable")
    assert done.returncode == 0, done.stderr
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == ["skipped"] * 2
    assert all(name in done.stderr for name in names)
    first, second = done.stdout.splitlines()
    assert first == "3 images: 0 written, 1 already there, 2 unreadable"
    assert second.startswith("1 images: mean ")
    assert (out / "list.txt").read_text() == "good.jpg 1\n"
    assert json.loads((tmp_path / "mean.json").read_text())["images"] == 1


def test_a_list_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    path = listed(tmp_path / "list.txt", "a.png", "b.png")
    with pytest.raises(InputError, match="list.txt: none of its images can be read"):
        prepare([path], None, SMALL, None, True, 1, skip_unreadable=True)


def test_something_to_do_is_expected(tmp_path: Path, call_tool: Run) -> None:
    done = call_tool("prepare_images", "--list", listed(tmp_path / "list.txt", "a.png"))
    assert_user_error(done, "--output_dir or --mean_json or both were expected, found neither")


def test_an_error_of_the_disk_is_named(tmp_path: Path) -> None:
    images = draw(tmp_path / "images", "a/x.png")
    out = Output(tmp_path / "out")
    prepared(images, ["a/x.png"], out)
    (out.folder / "a" / "x.jpg").unlink()
    (out.folder / "a").rmdir()
    (out.folder / "a").touch()
    with pytest.raises(InputError, match="out/a is not a writable folder"):
        prepared(images, ["a/x.png"], out)


def worker_of(process: subprocess.Popen[str]) -> int:
    """Waits for the process to start a worker and gives its id."""
    for _ in range(3000):
        for task in Path(f"/proc/{process.pid}/task").glob("*/children"):
            for child in task.read_text().split():
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        time.sleep(0.01)
    raise AssertionError("no worker was started")


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="finds the worker in Linux's /proc"
)
def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    path = listed(tmp_path / "list.txt", *(f"{i}.png" for i in range(200)))
    command = [sys.executable, str(ROOT / "tools" / "prepare_images.py"), "--list", str(path)]
    command += ["--mean_json", str(tmp_path / "mean.json"), "--num_workers", "1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        os.kill(worker_of(process), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert len(errors.strip().splitlines()) == 1, errors
    assert "a process that resized images was killed" in errors


class Deadly(Preprocess):
    """Ends its process, as a decoder with a defect may."""

    def resized(self, image: np.ndarray) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        return image


def test_a_worker_that_dies_names_its_image(tmp_path: Path) -> None:
    images = listed(tmp_path / "list.txt", "a.png")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((9, 9, 3), "uint8"))
    with pytest.raises(RunError, match=rf"It may have been reading {tmp_path}/a\.png\."):
        prepare([images], None, Deadly(), None, True, num_workers=1)


def test_workers_do_without_paddle() -> None:
    code = (
        "import sys, runpy; runpy.run_path('tools/prepare_images.py', run_name='__mp_main__'); "
        "sys.exit('paddle' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0

"""Make the pictures of README and documentation from what their commands wrote.

    python docs/make_images.py output

Needs chromium, which takes the pictures of the report and of VisualDL's board (the extra `board`).
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from squeezenet_paddle.datasets.samples import make_sample_data

TARGET = Path(__file__).parent / "images"
TOOLS = Path(__file__).parent.parent / "tools"
BROWSER = ("chromium", "--headless", "--no-sandbox", "--hide-scrollbars")
PORT = 8047


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="with the runs mine and sample, and maps/")
    output: Path = parser.parse_args().output
    if shutil.which(BROWSER[0]) is None:
        sys.exit("chromium is not installed.")
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save(screenshot(check_page(Path(folder), output).as_uri(), 1000, 1000), "check", 800)
    report = output / "mine" / "report" / "report.html"
    save(screenshot(report.resolve().as_uri(), 1000, 1000), "report", 800)
    save(board(output), "board", 800)
    save(Image.open(output / "sample" / "curves.png"), "curves", 800)
    save(two_by_two(sorted((output / "maps").glob("*.png"))[:4], 330), "cam", 800)


def check_page(folder: Path, output: Path) -> Path:
    """The page of check-images about drawn images with mistakes that are made here."""
    make_sample_data(folder / "sample", train=24, val=1)
    (folder / "sample" / "train").rename(folder / "my_images")
    spoil(folder / "my_images")
    pretrained = (output.parent / "pretrained" / "squeezenet_v1.1").resolve()
    (folder / "pretrained").symlink_to(pretrained)
    flags = ("--images", "my_images", "--pretrained", "pretrained", "--output_dir", "check")
    command = [sys.executable, str(TOOLS / "check_images.py"), *flags]
    subprocess.run(command, check=True, cwd=folder)
    return folder / "check" / "check.html"


def spoil(images: Path) -> None:
    """Moves ten images to a wrong class, adds eleven copies and one image of a lens cap."""
    rng = np.random.default_rng(0)
    classes = sorted(images.iterdir())

    def chosen(count: int) -> list[Path]:
        return rng.choice(sorted(images.rglob("0*.jpg")), count, replace=False).tolist()

    def another(path: Path) -> Path:
        return rng.choice([each for each in classes if each != path.parent])

    for path in chosen(10):
        path.rename(another(path) / f"from_{path.parent.name}_{path.name}")
    for path in chosen(4):
        shutil.copy(path, path.with_name(f"copy_{path.name}"))
    for path in chosen(4):
        Image.open(path).reduce(2).save(path.with_name(f"small_{path.name}"))
    for path in chosen(3):
        ImageOps.mirror(Image.open(path)).save(another(path) / f"mirror_{path.name}")
    Image.new("RGB", (160, 120), (12, 12, 12)).save(images / "disc_checks" / "lens_cap.jpg")


def screenshot(url: str, width: int, height: int) -> Image.Image:
    """A page as a browser shows it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.png"
        size = f"--window-size={width},{height}"
        command = [*BROWSER, size, "--virtual-time-budget=30000", f"--screenshot={path}", url]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        return Image.open(path).copy()


def board(folder: Path) -> Image.Image:
    """VisualDL's curves of all runs in a folder."""
    command = [str(Path(sys.executable).with_name("visualdl")), "--logdir", "."]
    command += ["--host", "127.0.0.1", "--port", str(PORT), "--disable-telemetry"]
    server = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", PORT), 1).close()
                break
            except OSError:
                time.sleep(0.5)
        return screenshot(f"http://127.0.0.1:{PORT}/app/scalar", 1280, 900)
    finally:
        server.terminate()


def two_by_two(paths: list[Path], height: int) -> Image.Image:
    """Four images brought to one height, two in a row."""
    images = [Image.open(path).convert("RGB") for path in paths]
    images = [i.resize((round(i.width * height / i.height), height)) for i in images]
    width = max(image.width for image in images) + 16
    grid = Image.new("RGB", (2 * width, 2 * height + 16), "white")
    for k, image in enumerate(images):
        grid.paste(image, (k % 2 * width, k // 2 * (height + 16)))
    return grid


def save(image: Image.Image, name: str, width: int) -> None:
    """Writes a PNG of at most 256 colours and this width, which keeps it small."""
    if image.width > width:
        image = image.convert("RGB").resize((width, round(image.height * width / image.width)))
    path = TARGET / f"{name}.png"
    image.convert("RGB").quantize(256).save(path, optimize=True)
    print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

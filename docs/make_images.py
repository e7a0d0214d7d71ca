"""Make the pictures of README and documentation from what the demo wrote.

    squeezenet demo
    python docs/make_images.py output/demo

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

from PIL import Image

TARGET = Path(__file__).parent / "images"
BROWSER = ("chromium", "--headless", "--no-sandbox", "--hide-scrollbars")
PORT = 8047


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="the demo's --output_dir")
    demo: Path = parser.parse_args().demo
    if shutil.which(BROWSER[0]) is None:
        sys.exit("chromium is not installed.")
    TARGET.mkdir(exist_ok=True)
    report = demo / "mine" / "report" / "report.html"
    save(screenshot(report.resolve().as_uri(), 1000, 1000), "report", 800)
    save(board(demo), "board", 800)
    save(Image.open(demo / "trained" / "curves.png"), "curves", 800)
    save(side_by_side(sorted((demo / "maps").glob("*.png"))[:4], 220), "cam", 800)


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
    command = [str(Path(sys.executable).with_name("visualdl")), "--logdir", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(PORT), "--disable-telemetry"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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


def side_by_side(paths: list[Path], height: int) -> Image.Image:
    """Images brought to one height, in a row with a gap between."""
    images = [Image.open(path).convert("RGB") for path in paths]
    images = [i.resize((round(i.width * height / i.height), height)) for i in images]
    row = Image.new("RGB", (sum(i.width + 8 for i in images) - 8, height), "white")
    x = 0
    for image in images:
        row.paste(image, (x, 0))
        x += image.width + 8
    return row


def save(image: Image.Image, name: str, width: int) -> None:
    """Writes a PNG of at most 256 colours and this width, which keeps it small."""
    if image.width > width:
        image = image.convert("RGB").resize((width, round(image.height * width / image.width)))
    path = TARGET / f"{name}.png"
    image.convert("RGB").quantize(256).save(path, optimize=True)
    print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

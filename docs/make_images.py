"""Make the pictures of README and documentation from what their commands wrote.

    python docs/make_images.py output

Needs chromium, which takes the pictures of the report, of VisualDL's board (the extra `board`) and,
with chromium-driver and selenium, of the page for the browser.
"""

from __future__ import annotations

import argparse
import base64
import io
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
    help_text = "with the runs mine (and its model.html) and sample, report/ and maps/"
    parser.add_argument("output", type=Path, help=help_text)
    output: Path = parser.parse_args().output
    if shutil.which(BROWSER[0]) is None:
        sys.exit("chromium is not installed.")
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save(screenshot(check_page(Path(folder), output).as_uri(), 1000, 1000), "check", 800)
    report = output / "report" / "report.html"
    save(screenshot(report.resolve().as_uri(), 1000, 1000), "report", 800)
    save(board(output), "board", 800)
    save(Image.open(output / "sample" / "curves.png"), "curves", 800)
    drawn = sorted((output.parent / "data" / "sample" / "val").glob("*/000.jpg"))
    page = output / "mine" / "best" / "model.html"
    save(used_page(page, drawn, 1400, 1000, dark=False), "page", 800)
    phones = [used_page(page, drawn[:1], 360, 740, dark) for dark in (False, True)]
    save(side_by_side(phones), "page_phone", 740)
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


def used_page(page: Path, images: list[Path], width: int, height: int, dark: bool) -> Image.Image:
    """The page for the browser after images were dropped on it, with the map of one class."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which(BROWSER[0]) or ""
    for flag in BROWSER[1:]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        screen = {"width": width, "height": height, "mobile": width < 500}
        screen["deviceScaleFactor"] = 2 if width < 500 else 1
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        driver.get(page.resolve().as_uri())
        files = [
            [f"{path.parent.name}.jpg", base64.b64encode(path.read_bytes()).decode()]
            for path in images
        ]
        driver.execute_script(
            "add(arguments[0].map(([name, data]) => new File("
            "[Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name)))",
            files,
        )
        WebDriverWait(driver, 60).until(lambda d: d.execute_script("return !working"))
        driver.execute_script(
            "document.querySelector('#cards .classes button').click();"
            "if (innerWidth < 500) document.getElementById('results').scrollIntoView();"
        )
        time.sleep(1)  # the map fades in
        return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    finally:
        driver.quit()


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """Images of one height beside each other."""
    row = Image.new("RGB", (sum(i.width + 16 for i in images) - 16, images[0].height), "white")
    for k, image in enumerate(images):
        row.paste(image, (k * (image.width + 16), 0))
    return row


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

"""The page in Chromium, opened by file:// as by a double click, against what the tools say."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import Browser, chromium
from conftest import Run
from networks import calibrate_dir, small_model_dir
from PIL import Image

from squeezenet_paddle.cli.export import main as export
from squeezenet_paddle.data.decode import read_image
from squeezenet_paddle.export_record import PAGE
from squeezenet_paddle.model_dir import read_info, read_weights, write_compressed
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.predict import Predictor
from squeezenet_paddle.sqz import format as sqz

# The pixels that the worker reads of a file, in place of what its engine makes of them.
PIXELS = """
const done = arguments[arguments.length - 1];
const source = document.getElementById("worker").textContent + `
  handlers.pixels = async ({ file }) => {
    let pixels;
    engine = { room: (bytes) => (pixels = new Uint8Array(bytes)) };
    const bitmap = await decode(file);
    copyPixels(bitmap);
    return { size: [bitmap.height, bitmap.width, 3], pixels };
  };`;
const reader = new Worker(URL.createObjectURL(new Blob([source])));
reader.onmessage = ({ data: { result, error } }) => {
  reader.terminate();
  if (error) return done({ error });
  const text = Array.from(result.pixels, (value) => String.fromCharCode(value)).join("");
  done({ size: result.size, pixels: btoa(text) });
};
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
reader.postMessage({ id: 0, kind: "pixels", file: new Blob([bytes]) });
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that a decoder may get wrong, and two files that are none."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)

    def smooth(height: int, width: int, channels: int) -> np.ndarray:
        small = rng.integers(0, 256, (5, 6, channels), "uint8")
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)

    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(smooth(60, 90, 3)).save(folder / "turned.jpg", exif=turned)
    Image.fromarray(smooth(70, 50, 3)).save(folder / "a, b.png")
    Image.fromarray(smooth(64, 64, 4)).save(folder / "transparent.png")
    Image.fromarray(smooth(64, 80, 3)).quantize(16).save(folder / "palette.png")
    cv2.imwrite(str(folder / "deep.png"), smooth(40, 40, 3).astype("uint16") * 257)
    Image.fromarray(smooth(33, 1, 3)).save(folder / "narrow.png")
    Image.fromarray(smooth(90, 64, 3)).save(folder / "lossless.webp", lossless=True)
    (folder / "cut.jpg").write_bytes((folder / "turned.jpg").read_bytes()[:900])
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A model directory like those of a fine-tuning, which refuses half of the images; its page."""
    folder = tmp_path_factory.mktemp("browser") / "mine"
    calibrate_dir(small_model_dir(folder, ModelConfig("1.1", 7, head="compact")))
    predictor = Predictor(folder, "cpu", engine="onnxruntime", threads=1)
    inputs = [predictor.info.preprocess(read_image(path)) for path in sound(images)]
    familiar = np.sort([answer.familiarity for answer in predictor.answers(np.stack(inputs))])
    calibrate_dir(folder, threshold=familiar[2:4].mean().item())
    export(["--model_dir", str(folder), "--format", "html"])
    return folder


BROKEN = ("cut.jpg", "notes.txt")


def sound(images: Path) -> list[Path]:
    return sorted(path for path in images.iterdir() if path.name not in BROKEN)


def test_it_says_what_infer_says(
    browser: Browser, model: Path, images: Path, call_tool: Run
) -> None:
    browser.requests(), browser.errors()
    browser.open(model / PAGE)
    browser.drop([*sound(images), *(images / name for name in BROKEN)])
    done = call_tool("infer", "--model_dir", model, "--image", *sound(images), "--format", "csv")
    expected = list(csv.DictReader(io.StringIO(done.stdout)))
    found = list(csv.DictReader(io.StringIO(browser.js("table()"))))
    assert len(found) == len(expected)
    for ours, theirs in zip(expected, found):
        assert Path(ours["image"]).name == theirs["image"]
        assert [ours[key] for key in ("rank", "name", "class_id")] == [
            theirs[key] for key in ("rank", "name", "class_id")
        ]
        if ours["probability"]:
            assert float(theirs["probability"]) == pytest.approx(
                float(ours["probability"]), abs=2e-3
            )
    assert {row["name"] for row in found} >= {"none of these"}
    problems = browser.js("document.getElementById('problems').innerText")
    assert problems.splitlines() == [
        "cut.jpg: the image is cut off or damaged.",
        "notes.txt: not an image.",
    ]
    assert browser.errors() == []
    assert all(url.startswith(("file:", "blob:", "data:")) for url in browser.requests())


def test_its_policy_refuses_requests(browser: Browser, model: Path) -> None:
    browser.open(model / PAGE)
    refused = browser.driver.execute_async_script(
        "const done = arguments[0];"
        "document.addEventListener('securitypolicyviolation', (e) => done(e.effectiveDirective));"
        "fetch('https://example.com/').then(() => done('answered'), () => {});"
    )
    assert refused == "connect-src"
    browser.errors()  # the console tells it, too


def test_it_reads_the_pixels_that_the_tools_read(
    browser: Browser, model: Path, images: Path
) -> None:
    browser.open(model / PAGE)
    for path in sound(images):
        content = base64.b64encode(path.read_bytes()).decode()
        answer = browser.driver.execute_async_script(PIXELS, content)
        assert "error" not in answer, (path.name, answer)
        found = np.frombuffer(base64.b64decode(answer["pixels"]), "uint8").reshape(answer["size"])
        expected = read_image(path)[:, :, ::-1]
        # The decoders of JPEG need not agree to the last bit.
        worst = 2 if path.suffix == ".jpg" else 0
        assert found.shape == expected.shape, path.name
        assert np.abs(found.astype(int) - expected).max() <= worst, path.name


def test_maps_show_under_the_pointer_by_keyboard_and_of_any_class(
    browser: Browser, model: Path, images: Path
) -> None:
    from selenium.webdriver import ActionChains, Keys

    browser.open(model / PAGE)
    browser.drop([images / "a, b.png"])
    mapped = "document.querySelector('.frame').classList.contains('mapped')"
    assert not browser.js(mapped)
    rows = browser.js("document.querySelectorAll('.classes button')")
    assert len(rows) == 5
    ActionChains(browser.driver).move_to_element(rows[1]).perform()
    browser.wait(mapped)
    ActionChains(browser.driver).move_to_element(
        browser.js("document.querySelector('h1')")
    ).perform()
    browser.wait(f"!{mapped}")
    browser.driver.execute_script("document.querySelector('.picture').focus()")
    ActionChains(browser.driver).send_keys(Keys.TAB).perform()
    browser.wait(mapped)
    assert "show where it is seen" in browser.js(
        "document.activeElement.getAttribute('aria-label')"
    )
    # The class that is seventh, by its name, in the image enlarged.
    last = browser.js(
        "(([card]) => { const l = Array.from(card.result.logits);"
        "return l.indexOf(Math.min(...l)); })(answered())"
    )
    browser.driver.execute_script("document.querySelector('.picture').click()")
    browser.js("document.getElementById('any')").send_keys(f"class {last}", Keys.ENTER)
    browser.wait("document.querySelector('#large .card').pinned === 'any'")
    assert browser.errors() == []


def test_a_hundred_images_leave_the_memory_as_it_was(
    browser: Browser, model: Path, tmp_path: Path
) -> None:
    """Each takes 3.4 megabytes while it is decoded."""
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 9, 3), "uint8"), (800, 600))
    path = tmp_path / "one.jpg"
    cv2.imwrite(str(path), pixels)
    browser.open(model / PAGE)
    browser.drop([path] * 20)
    before = browser.memory()
    browser.drop([path] * 100)
    assert browser.js("answered().length") == 120
    assert browser.memory() - before < 100e6
    browser.driver.execute_script("document.getElementById('clear').click()")
    assert browser.js("document.getElementById('cards').children.length") == 0


def test_images_are_chosen_and_pasted(browser: Browser, model: Path, images: Path) -> None:
    browser.open(model / PAGE)
    chosen = sound(images)[:3]
    browser.js("document.getElementById('files')").send_keys("\n".join(map(str, chosen)))
    browser.wait("answered().length === 3")
    browser.driver.execute_script(
        "const data = new DataTransfer(); data.items.add(answered()[0].file);"
        "document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }));"
    )
    browser.wait("answered().length === 4")
    names = browser.js("answered().map((card) => card.querySelector('h3').textContent)")
    assert names == [path.name for path in (*chosen, chosen[0])]


def test_the_camera(browser: Browser, model: Path) -> None:
    browser.open(model / PAGE)
    browser.driver.execute_script("document.getElementById('camera').click()")
    browser.wait("document.querySelectorAll('#live .classes button').length === 5")
    browser.driver.execute_script("document.querySelector('#live .actions button').click()")
    browser.wait("answered().length === 1")
    browser.driver.execute_script("document.getElementById('camera').click()")
    browser.wait("document.getElementById('live').hidden")
    assert browser.errors() == []


def test_nothing_is_wider_than_a_phone(browser: Browser, model: Path, images: Path) -> None:
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.open(model / PAGE)
    browser.drop(sound(images)[:2])
    browser.driver.execute_script("document.querySelector('.picture').click()")
    assert browser.js("document.documentElement.scrollWidth") <= 360
    assert browser.js("document.getElementById('large').scrollWidth") <= 360
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_authors_network_on_photographs(
    browser: Browser, assets: Path, tmp_path: Path, call_tool: Run
) -> None:
    caffe, model, small = assets / "caffe", tmp_path / "v1.1", tmp_path / "small"
    names = ("--synset_word_list", caffe / "synset_words.txt")
    weights = ("--caffemodel", caffe / "squeezenet_v1.1.caffemodel")
    assert call_tool("caffe2paddle", *weights, *names, "--output_dir", model).returncode == 0
    info = read_info(model)
    write_compressed(small, info, rounded(model))
    done = call_tool("export", "--model_dir", small, "--format", "html")
    assert done.returncode == 0, done.stderr
    photos = []
    for path in sorted((assets / "data" / "photos" / "images").glob("*.jpg"))[:50]:
        photos.append(tmp_path / f"{path.stem}.png")
        Image.open(path).convert("RGB").resize((200, 170)).save(photos[-1], compress_level=1)
    browser.open(small / PAGE)
    browser.drop(photos)
    found = np.array(browser.js("answered().map((card) => Array.from(card.result.logits))"))
    inputs = np.stack([info.preprocess(read_image(path)) for path in photos])
    expected = Predictor(small, "cpu", engine="onnxruntime", threads=1).logits(inputs)
    assert found.shape == (50, 1000)
    largest = np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(found - expected) / largest).max() < 1e-4


def rounded(model: Path) -> bytes:
    """A .sqz file of a model's weights, each layer rounded to 255 values."""
    info = read_info(model)
    arrays: dict[str, sqz.Array] = {}
    for key, values in read_weights(model, info).state.items():
        arrays[key] = values
        if values.ndim == 4:
            unit = np.float32(np.abs(values).max() / 127 / 16)
            indices = np.rint(values / (32 * unit)).astype("int16")
            scales = np.zeros(values[0].size, "uint8")
            arrays[key] = sqz.Indices(indices, unit, scales)
    return sqz.write(sqz.Content(info.network, arrays, info.preprocess.record()))[0]

"""The page without a browser: its engine in wasmtime against the tools; what is in it; mistakes."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, assert_user_error
from networks import calibrate_dir, small_model_dir

from squeezenet_paddle.cli.common import EXTRAS
from squeezenet_paddle.data.lists import read_names
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.explain import Explainer, heat_of
from squeezenet_paddle.export.c.weights import weights_of
from squeezenet_paddle.export.page.engine import engine
from squeezenet_paddle.export.page.judge import Engine
from squeezenet_paddle.export.page.page import page
from squeezenet_paddle.export_record import PAGE, read_record
from squeezenet_paddle.model_dir import ModelInfo, read_info, write_compressed
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.predict import Predictor

COMPACT = ModelConfig("1.1", 5, head="compact")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory like those of a fine-tuning."""
    return calibrate_dir(small_model_dir(tmp_path_factory.mktemp("page") / "mine", COMPACT))


def weights_in(text: str) -> bytes:
    return base64.b64decode(re.findall(r'<script id="weights"[^>]*>([^<]*)<', text)[0])


def engine_in(text: str) -> bytes:
    return gzip.decompress(
        base64.b64decode(re.findall(r'<script id="engine"[^>]*>([^<]*)<', text)[0])
    )


def test_the_engine_of_a_page_answers_as_the_tools_do(model: Path, call_tool: Run) -> None:
    done = call_tool("export", "--model_dir", model, "--format", "html")
    assert done.returncode == 0, done.stderr
    assert "checked by wasmtime" in done.stdout
    assert "squeezenet compress" in done.stderr
    text = (model / PAGE).read_text("utf-8")
    assert f"{model / PAGE}  {len(text.encode()):,} bytes" in done.stdout
    assert list(read_record(model)) == ["html"]

    run = Engine(engine_in(text), weights_in(text))
    predictor = Predictor(model, "cpu", engine="onnxruntime", threads=1)
    explainer = Explainer(model, "cpu")
    rng = np.random.default_rng(0)
    refused = set()
    for height, width in ((48, 48), (90, 61), (1, 1), (300, 7)):
        image = rng.integers(0, 256, (height, width, 3), "uint8")
        inputs = predictor.info.preprocess(image)[None]
        [answer] = predictor.answers(inputs)
        logits = run.logits(image)
        np.testing.assert_allclose(logits, answer.logits, atol=2e-3 * np.abs(answer.logits).max())
        assert run.is_none == (answer.refusal is not None)
        refused.add(run.is_none)
        _, maps = explainer.answers(inputs)
        heat = heat_of(maps, 0, predictor.info.network, 40)
        found = run.map_of(int(logits.argmax()))
        np.testing.assert_allclose(found, heat, atol=1e-2 * np.abs(heat).max())


def test_a_page_forbids_itself_the_network_and_refers_to_none(model: Path) -> None:
    info = read_info(model)
    text = page("a <model>", info, [("Source", "a & b")], b"", b"")
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy
    assert "unsafe-eval" not in policy.replace("'wasm-unsafe-eval'", "")
    assert not re.search(r"https?://|//\w+\.\w+/", text)
    assert "a &lt;model&gt;" in text
    assert "a &amp; b" in text


def test_names_cannot_end_the_script_that_holds_them(model: Path) -> None:
    info = read_info(model)
    info.names[0] = "</script><b>\x00"
    text = page("a model", info, [], b"", b"")
    settings = re.findall(r'<script id="settings"[^>]*>(.*?)</script>', text, re.DOTALL)[0]
    assert json.loads(settings)["names"][0] == "</script><b> "


def test_all_but_the_weights_has_room(model: Path) -> None:
    """Compressed weights take a third more in base64; what is left of 900,000 bytes, or 600,000."""
    info = ModelInfo(ModelConfig(), Preprocess(), read_names(Path("imagenet"), 1000))
    text = page("squeezenet_v1.1", info, [], engine(info), bytes(450_000))
    assert len(text.encode()) < 900_000
    info = read_info(model)
    assert len(page("mine", info, [], engine(info), bytes(390_000)).encode()) < 600_000


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--batch", 4], "--batch"),
        (["--with_preprocess"], "--with_preprocess"),
        (["--precision", "int8", "--image", "x.png"], "--precision"),
        (["--input_size", 64], "--input_size"),
    ],
)
def test_settings_that_a_page_has_not_are_refused(
    model: Path, tmp_path: Path, call_tool: Run, flags: list[object], named: str
) -> None:
    arguments = ("--model_dir", model, "--format", "html", "--output_dir", tmp_path / "out")
    assert_user_error(call_tool("export", *arguments, *flags), named)
    assert not (tmp_path / "out").exists()


def test_weights_of_another_network_are_refused(
    model: Path, tmp_path: Path, call_tool: Run
) -> None:
    info = read_info(model)
    six = small_model_dir(tmp_path / "six", ModelConfig("1.1", 6, head="compact"))
    data, _ = weights_of(six, read_info(six))
    write_compressed(tmp_path / "mixed", info, data)
    done = call_tool("export", "--model_dir", tmp_path / "mixed", "--format", "html")
    assert_user_error(done, "model.sqz", "another network")
    assert not (tmp_path / "mixed" / PAGE).exists()


def test_mistakes_are_told_in_one_line_and_leave_nothing(
    model: Path, tmp_path: Path, call_tool: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    arguments = ("export", "--model_dir", model, "--format", "html", "--output_dir")
    assert_user_error(call_tool(*arguments, tmp_path / "file" / "out"), "file", "not a writable")
    out = tmp_path / "out"
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(ModuleNotFoundError, match="ziglang"):
        call_tool(*arguments, out)
    assert "squeezenet_paddle[page]" in EXTRAS["ziglang"]
    assert not out.exists()

"""Every command of README and docs runs, in order, in an empty folder, as for who has just cloned.

Blocks that cannot run here (they download, install or need ImageNet) bear the reason in a comment
above them. The files that `squeezenet download` would fetch are stood in for by a network of random
weights; to take seconds, images are fewer and trainings shorter than the commands say.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from caffe_files import random_state
from conftest import ROOT

from squeezenet_paddle.caffe.writer import caffemodel, deploy_prototxt
from squeezenet_paddle.cli.main import VERBS
from squeezenet_paddle.network.config import ModelConfig

PAGES = (
    "README.md",
    *(
        f"docs/{name}"
        for name in re.findall(
            r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE
        )
    ),
)
FENCE = re.compile(r"(?:<!-- not run: (.+?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHORTER = {
    "make-sample-data": ["--train_images", "4", "--val_images", "2"],
    "finetune": ["--num_epochs", "1"],
    "train": ["--num_epochs", "1", "--warmup_steps", "0"],
    "compress": ["--num_images", "8"],
}
# Runs the commands of a folder one after another in one process, which loads Paddle once.
DRIVER = """
import json, sys
import zlib  # before Paddle 2.6, whose own zlib ends the process of one that is loaded later
import squeezenet_paddle.__main__ as program
for number, kind, text in json.load(sys.stdin):
    print(f"@@ {number}", flush=True)
    try:
        if kind == "python":
            exec(compile(text, f"block {number}", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = [program.__file__, *text]
            program.main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"@@ {number} ended with {end.code}")
"""


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None

    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        for found in FENCE.finditer(text):
            line = text.count("\n", 0, found.start(2)) + 1
            yield Block(page, line, found[2], found[3], found[1])


def test_every_block_says_what_it_is() -> None:
    for block in blocks():
        place = f"{block.page}:{block.line}"
        assert block.language in {"sh", "python", "text", "bibtex"}, place
        if block.language == "sh" and block.not_run is None:
            for words in block.commands():
                assert words[0] == "squeezenet", f"{place}: {words[0]} needs a reason not to run"
                assert words[1] in VERBS, place


def test_commands_that_are_not_run_have_flags_that_exist(
    capsys: pytest.CaptureFixture[str],
) -> None:
    helps: dict[str, str] = {}
    for block in blocks():
        if block.language != "sh":
            continue
        for words in block.commands():
            if words[0] != "squeezenet":
                continue
            verb = words[1]
            if verb not in helps:
                with pytest.raises(SystemExit):
                    import_module(f"squeezenet_paddle.cli.{VERBS[verb]}").main(["--help"])
                helps[verb] = capsys.readouterr().out
            for flag in (word for word in words if word.startswith("--")):
                assert re.search(rf"(^|\W){flag}\b", helps[verb]), f"{block.page}: {verb} {flag}"


def test_commands_run_in_order(tmp_path: Path) -> None:
    stand_in(tmp_path / "pretrained")
    steps: list[tuple[str, str, object]] = []
    for block in blocks():
        if block.not_run is not None or block.language not in ("sh", "python"):
            continue
        place = f"{block.page}:{block.line}"
        if block.language == "python":
            steps.append((place, "python", block.text))
        else:
            for _, verb, *words in block.commands():
                steps.append((place, "squeezenet", [verb, *words, *SHORTER.get(verb, [])]))
    assert len(steps) > 20
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(steps),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def stand_in(folder: Path) -> None:
    """The files of `squeezenet download squeezenet_v1.1`, with random weights."""
    folder.mkdir()
    config = ModelConfig()
    (folder / "squeezenet_v1.1.caffemodel").write_bytes(caffemodel(config, random_state(config)))
    (folder / "squeezenet_v1.1.prototxt").write_text(deploy_prototxt(config, 227, 227))
    names = "".join(f"n{i:08d} class {i}\n" for i in range(config.num_classes))
    (folder / "synset_words.txt").write_text(names)


def test_links_lead_to_files() -> None:
    for page in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md"):
        text = (ROOT / page).read_text("utf-8")
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
            if not target.startswith("http"):
                assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_readme_is_short_and_what_it_shows_is_small() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200
    for image in (ROOT / "docs" / "images").iterdir():
        assert image.stat().st_size < 300_000, image.name

"""Training as a function: what it returns, what it leaves to read, and what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Run as RunTool
from runs import assert_same_weights, flags, make_tiny_data, metrics, tool

from squeezenet_paddle import TrainConfig
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.training import run as training_run
from squeezenet_paddle.training.config import MOST_CLASSES
from squeezenet_paddle.training.plan import make_plan

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_data(tmp_path_factory.mktemp("tiny") / "data")


def tiny(data: Path, output_dir: Path, **settings: Any) -> TrainConfig:
    """What `runs.flags` asks for, by name; paths are texts."""
    lists = {"train_list": str(data / "train_list.txt"), "val_list": str(data / "val_list.txt")}
    common = {"resize_size": 40, "crop_size": 36, "batch_size": 8, "optimizer": "adam", "lr": 1e-3}
    given = {**lists, **common, "log_interval": 1, "num_workers": 0, "num_classes": 10}
    return TrainConfig.from_settings(**{**given, "output_dir": str(output_dir), **settings})


def test_it_trains_what_the_command_trains(data: Path, tmp_path: Path, run_tool: RunTool) -> None:
    """Each in a process of its own: in one process a second run has other last bits."""
    settings = {**tiny(data, tmp_path / "python", max_steps=5).values(), "log_interval": 1}
    given = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items() if v is not None}
    given.update(eval_interval="1e", save_interval="1e")
    code = (
        "from squeezenet_paddle import TrainConfig, train\n"
        f"print(train(TrainConfig.from_settings(**{given!r})).best)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run_tool("train", *flags(data, tmp_path / "command", "--max_steps", 5)).returncode == 0
    assert_same_weights(tmp_path / "python/final", tmp_path / "command/final")
    best = max(r["top1"] for r in metrics(tmp_path / "python") if r["kind"] == "val")
    assert float(done.stdout) == best


def test_a_seed_gives_the_same_weights_on_every_device(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU has other random numbers, so they are drawn on the CPU, and the GPU is set again."""
    import paddle

    from squeezenet_paddle.network.model import SqueezeNet

    plan = make_plan(tiny(data, tmp_path / "run", max_steps=1))
    expected = training_run.start_network(plan)[0].state_dict()
    events: list[str] = []
    make = SqueezeNet.__init__

    def making(network: SqueezeNet, *given: Any) -> None:
        events.append("network")
        if events[-2] == "gpu:1":  # the numbers of a GPU
            paddle.seed(12345)
        make(network, *given)

    monkeypatch.setattr(SqueezeNet, "__init__", making)
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:1")
    monkeypatch.setattr(paddle.device, "set_device", events.append)
    found = training_run.start_network(plan)[0].state_dict()
    assert events == ["cpu", "network", "gpu:1", "network"]
    for key, tensor in expected.items():
        assert (found[key].numpy() == tensor.numpy()).all(), key


def test_the_result_of_a_run(data: Path, tmp_path: Path) -> None:
    result = training_run.train(tiny(data, tmp_path, max_steps=5))
    best = max(r["top1"] for r in metrics(tmp_path) if r["kind"] == "val")
    assert (result.best, result.step, result.finished) == (best, 5, True)
    assert result.model_dir == tmp_path / "best"
    assert not result.finished_before


def test_without_a_validation_list_the_last_model_counts(data: Path, tmp_path: Path) -> None:
    result = training_run.train(tiny(data, tmp_path, max_steps=2, val_list=None))
    assert (result.model_dir, result.best) == (tmp_path / "final", None)


def test_a_finished_run_says_which_settings_are_not_applied(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = training_run.train(tiny(data, tmp_path, max_steps=3))
    again = training_run.train(tiny(data, tmp_path, max_steps=3, lr=0.5, patience=3))
    assert again.finished_before
    assert (again.best, again.model_dir, again.step) == (first.best, first.model_dir, 3)
    assert again.not_applied == ("`lr` was 0.001, is 0.5", "`patience` was none, is 3")
    assert tool("train").main(flags(data, tmp_path, "--max_steps", 3, "--lr", 0.5)) == 0
    printed = capsys.readouterr().out
    assert "this run is finished" in printed
    assert "not applied: --lr was 0.001, is 0.5" in printed


def test_the_settings_of_a_run_can_be_read(data: Path, tmp_path: Path) -> None:
    training_run.train(tiny(data, tmp_path, max_steps=2, seed=3))
    record = json.loads((tmp_path / "settings.json").read_text())
    settings = record["settings"]
    assert {name: settings[name] for name in ("seed", "max_steps", "version", "iter_size")} == {
        "seed": 3,
        "max_steps": 2,
        "version": "1.1",  # what was not given is there, too
        "iter_size": 1,
    }
    assert settings["mean"] == [104, 117, 123]
    assert set(TrainConfig.from_settings(train_list="a", output_dir="b").values()) <= set(settings)
    assert record["versions"]["python"] == sys.version.split()[0]
    assert record["command"]
    assert record["host"]
    lines = (tmp_path / "train.log").read_text().splitlines()[:12]
    for text in ("command: ", "versions: ", "seed=3", "lr=0.001", "crop_size=36"):
        assert any(text in line for line in lines), text
    training_run.train(tiny(data, tmp_path, max_steps=3, seed=3))
    assert json.loads((tmp_path / "settings.json").read_text())["settings"]["max_steps"] == 3


def test_several_processes_are_started_from_the_command_line(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`num_procs` 2: .* from the command line"):
        training_run.train(tiny(data, tmp_path / "run", max_steps=2, num_procs=2, device="cpu"))
    assert not (tmp_path / "run").exists()


def write_list(data: Path, path: Path, labels: list[int]) -> Path:
    """A list of the images of the training list with other labels."""
    lines = (data / "train_list.txt").read_text().splitlines()
    path.write_text(
        "".join(f"{line.rsplit(' ')[0]} {label}\n" for line, label in zip(lines, labels))
    )
    return path


def test_a_list_of_one_class_is_refused(data: Path, tmp_path: Path) -> None:
    one = write_list(data, tmp_path / "list.txt", [3] * 8)
    with pytest.raises(
        InputError, match=r"list\.txt: images of at least two classes .* all have the label 3"
    ):
        training_run.train(tiny(data, tmp_path / "run", train_list=one, data_dir=data))


def test_labels_that_start_at_1_are_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And top-5 of two classes is not said to be one."""
    given = {"num_classes": None, "data_dir": data, "max_steps": 1}
    given["train_list"] = write_list(data, tmp_path / "a.txt", [1, 2] * 4)
    given["val_list"] = write_list(data, tmp_path / "b.txt", [1, 2])
    training_run.train(tiny(data, tmp_path / "run", **given))
    log = capsys.readouterr().err
    assert "note: class 0 has no images: the labels start at 1" in log
    assert "top-3 100.00%" in log


@pytest.mark.parametrize("given", [None, 10_000_000])
def test_more_classes_than_any_memory_holds(data: Path, tmp_path: Path, given: int | None) -> None:
    dates = write_list(data, tmp_path / "list.txt", [1, 20240131, 2])
    with pytest.raises(InputError) as error:
        training_run.train(
            tiny(data, tmp_path / "run", train_list=dates, data_dir=data, num_classes=given)
        )
    text = (
        "list.txt, line 2: the largest label is 20240131"
        if given is None
        else f"at most {MOST_CLASSES}"
    )
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"classifier_bias": 0}, "`classifier_bias` 3"),
        ({}, "a lower `lr`"),  # it is 3 already
        ({"head": "multiscale", "dropout": 0}, "a lower `lr`"),
    ],
)
def test_a_short_list_whose_loss_does_not_move_gets_a_hint(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, Any],
    cure: str,
) -> None:
    """After ten epochs, long before the 200th update."""
    lists = {"train_list": write_list(data, tmp_path / "a.txt", [0, 1] * 8), "data_dir": data}
    still = {"lr": 1e-12, "scale": 1e-3, "std": (1e3,) * 3, "eval_interval": 99, "max_steps": 22}
    config = tiny(data, tmp_path / "run", **lists, **still, val_list=None, **settings)
    training_run.train(config)
    hints = [line for line in capsys.readouterr().err.splitlines() if "hint" in line]
    assert len(hints) == 1
    assert (
        f"after 20 updates the loss still is that of guessing, ln(10) = {math.log(10):.2f}"
        in (hints[0])
    )
    assert cure in hints[0]


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys, squeezenet_paddle as s\n"
        "assert not {'paddle', 'cv2', 'numpy', 'argparse'} & set(sys.modules), sys.modules\n"
        "s.TrainConfig, s.train, s.FinetuneConfig, s.finetune\n"
        "assert 'paddle' not in sys.modules\n"
        "assert all(hasattr(s, name) for name in s.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""What else computes on the device: evaluation, inference, fine-tuning; and the exports."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from importlib import import_module

from .report import Check, Row
from .training import flags, sample_data, train

LIMIT = 1e-3  # of the loss, and of probabilities


def usage(check: Check) -> Iterator[Row]:
    """Trains a model, and uses it on the device and on the CPU."""
    data = sample_data(check)
    model = train(flags(check, check.folder / "run", check.device, val=True)) / "final"
    images = ("--test_list", data / "val_list.txt", "--num_workers", 0)

    def on(device: str) -> tuple[str, ...]:
        return ("--device", device, "--engine", "dynamic")

    scores = []
    for device in (check.device, "cpu"):
        path = check.folder / f"{device}.json"
        command("eval", "--model_dir", model, *images, *on(device), "--metrics_json", path)
        scores.append(json.loads(path.read_text(encoding="utf-8")))
    off = abs(scores[0]["loss"] - scores[1]["loss"])
    same = scores[0]["images"] == scores[1]["images"] and off < LIMIT * scores[1]["loss"]
    yield Row("eval", f"loss differs by {off:.1e}", same)

    answers = [
        json.loads(command("infer", "--model_dir", model, *images, *on(device), "--format", "json"))
        for device in (check.device, "cpu")
    ]
    pairs = [(one["classes"][0], other["classes"][0]) for one, other in zip(*answers)]
    off = max(abs(one["probability"] - other["probability"]) for one, other in pairs)
    agree = sum(one["id"] == other["id"] for one, other in pairs)
    yield Row(
        "infer",
        f"the same class for {agree} of {len(pairs)} images, probabilities differ by {off:.1e}",
        agree == len(pairs) and off < LIMIT,
    )

    run = check.folder / "finetuned"
    given = ("--images", data / "train", "--pretrained", model, "--output_dir", run)
    few = ("--num_epochs", 2, "--batch_size", check.size.batch, "--num_workers", 0, "--lr", 1e-3)
    then = ("--then", "all", "--then_epochs", 1, "--then_lr", 1e-4, "--no_check")
    command("finetune", *given, *few, *then, "--device", check.device)
    yield Row("finetune, the head, then all", "a model", (run / "best" / "config.json").exists())

    for form in ("onnx", "paddle", "caffe"):
        output = check.folder / form
        command("export", "--model_dir", model, "--format", form, "--output_dir", output)
        yield Row(f"export, {form}", ", ".join(sorted(p.name for p in output.iterdir())), True)


def command(verb: str, *arguments: object) -> str:
    """Runs a command in this process; what it prints."""
    main = import_module(f"squeezenet_paddle.cli.{verb}").main
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main([str(value) for value in arguments])
    if code:
        raise RuntimeError(f"{verb} ended with exit code {code}")
    return output.getvalue()

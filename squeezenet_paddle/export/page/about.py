"""What the box about the model says: network, source, accuracy, size and licence."""

from __future__ import annotations

from typing import Any

from ...model_dir import ModelInfo


def about(info: ModelInfo, weight_bytes: int) -> list[tuple[str, str]]:
    """Terms and texts about a model.

    Args:
        info: its description.
        weight_bytes: the size of its weights in the page.
    """
    network, source, calibration = info.network, info.source, info.calibration
    rows = [
        ("Network", f"SqueezeNet v{network.version}, head {network.head}"),
        ("Input", _input(info)),
        ("Source", _source(source)),
    ]
    if "compressed" in source:
        cost = source["compressed"]
        rows.append(
            (
                "Compressed",
                f"the same first class as before for {cost['agreement']:.1%} of "
                f"{cost['checked_on_images']} images",
            )
        )
    rows.append(("Accuracy", _accuracy(info)))
    if calibration is not None:
        rows.append(
            (
                "None of these",
                f"told by a threshold that refused {calibration.refused:.1%} of "
                f"{calibration.images} validation images",
            )
        )
    rows.append(("Size", f"{weight_bytes:,} bytes of weights"))
    rows.append(("Licence", f"weights: {_licence(source)}"))
    rows.append(("", "code of this page: Apache-2.0"))
    return rows


def _input(info: ModelInfo) -> str:
    preprocess = info.preprocess
    side, size = preprocess.crop_size, preprocess.resize_size
    resized = f"{size} × {size}"
    if preprocess.resize == "short_side":
        resized = f"{size} on the shorter side"
    return f"the middle {side} × {side} pixels of an image resized to {resized}"


def _source(source: dict[str, Any]) -> str:
    """Where the weights came from, from the last training back to the first file."""
    if source.get("format") == "trained":
        text = f"trained on {source.get('images', 0):,} images"
        before = source.get("pretrained")
        return f"{text}, from {_source(before)}" if before else f"{text}, from scratch"
    return str(source.get("file", "unknown"))


def _accuracy(info: ModelInfo) -> str:
    texts = [
        f"top-1 {score['top1']:.2%} on {score['images']:,} images ({name})"
        for name, score in info.scores.items()
        if isinstance(score, dict) and {"top1", "images"} <= set(score)
    ]
    return "; ".join(texts) or "not measured"


def _licence(source: dict[str, Any]) -> str:
    """The licence of weights, which is that of the first file that they come from."""
    while source.get("pretrained"):
        source = source["pretrained"]
    if source.get("format") == "trained":
        return "whoever trained them says"
    return f"that of {source.get('file', 'their source')}; the SqueezeNet authors' are BSD 2-clause"

"""A temperature and a threshold, fitted, kept, applied and reported."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Run, assert_user_error
from networks import VARIANTS, calibrate_dir, small_model_dir
from sklearn.metrics import roc_auc_score

from squeezenet_paddle.data.lists import read_list
from squeezenet_paddle.evaluation.calibrate import Observed, calibrate, fit, fit_temperature
from squeezenet_paddle.evaluation.evaluate import score_list, score_unknown
from squeezenet_paddle.evaluation.metrics import auroc
from squeezenet_paddle.model_dir import read_info
from squeezenet_paddle.predict import Predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated model of 5 classes, one of them without images, and lists."""
    path = tmp_path_factory.mktemp("calibrate")
    small_model_dir(path / "model", VARIANTS[0])
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 20), ("unknown", 6)):
        (path / part).mkdir()
        lines = []
        for i in range(count):
            patches = rng.integers(0, 256, (4, 4, 3), "uint8")
            image = cv2.resize(patches, (48, 48), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(path / part / f"{i}.png"), image)
            lines.append(f"{part}/{i}.png {i % 4}\n")
        (path / f"{part}.txt").write_text("".join(lines))
    (path / "train" / "3.png").write_bytes(b"no image")
    calibrate(path / "model", read_list(path / "train.txt"), read_list(path / "val.txt"))
    return path


def observed(count: int, seed: int) -> Observed:
    """Images of three classes that overlap: logits three times as large as they should be."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    logits = 3 * (rng.normal(0, 1, (count, 3)) + 1.5 * np.eye(3)[labels])
    means = rng.uniform(0, 1, (count, 512)) + 2 * np.eye(3, 512)[labels]
    return Observed(labels, logits.astype("float32"), means.astype("float32"))


def test_the_temperature_has_the_smallest_cross_entropy() -> None:
    val = observed(4000, 0)
    temperature = fit_temperature(val.logits, val.labels)
    assert temperature == pytest.approx(2, rel=0.1)  # 3 / 1.5, by Bayes' rule

    def loss(t: float) -> float:
        shares = np.exp(val.logits.astype("float64") / t)
        shares /= shares.sum(axis=1, keepdims=True)
        return -float(np.log(shares[np.arange(4000), val.labels]).mean())

    assert loss(temperature) <= min(loss(temperature * f) for f in (0.9, 0.99, 1.01, 1.1))
    right = np.array([[9.0, 0], [0, 9]], "float32")
    assert fit_temperature(right, np.array([0, 1])) == 1


@pytest.mark.parametrize("count", [1, 19, 20, 399])
def test_at_most_a_twentieth_is_refused(count: int) -> None:
    val = observed(count, 1)
    calibration = fit(observed(300, 2), val, np.random.default_rng(0).normal(0, 1, (1000, 512)))
    refused = calibration.refuses(val.logits, val.means)
    assert refused.mean() <= 0.05
    assert refused.sum() >= count // 40
    assert calibration.refused == pytest.approx(refused.mean())
    more = observed(2000, 4)
    if count == 399:  # others of the same kind, too
        assert calibration.refuses(more.logits, more.means).mean() == pytest.approx(0.05, abs=0.03)
    # What is unlike the training images is refused.
    strange = val.means[:, ::-1] * np.linspace(0, 3, 512, dtype="float32")
    assert calibration.refuses(np.full_like(val.logits, 0.1), strange).all()
    assert len(calibration.familiarity.to_bytes()) < 100_000


def test_the_prototypes_are_of_the_class() -> None:
    train = observed(200, 3)
    familiarity = fit(train, train).familiarity
    assert familiarity.prototypes.shape == (3, 8, 512)
    for label in range(3):
        own = np.sqrt(train.means[train.labels == label]).mean(axis=0)
        cosines = [
            own @ np.mean(p / np.linalg.norm(p, axis=1, keepdims=True), axis=0)
            for p in familiarity.prototypes.astype("float64")
        ]
        assert int(np.argmax(cosines)) == label


def test_closeness_is_the_relative_mahalanobis_distance() -> None:
    """By the covariances themselves, in all 512 directions."""
    train, images = observed(200, 3), observed(20, 5)
    found = fit(train, train).familiarity
    given = images.logits.argmax(axis=1)
    vectors, others = (np.sqrt(each.means.astype("float64")) for each in (train, images))
    vectors, others = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (vectors, others))
    means = np.stack([vectors[train.labels == label].mean(axis=0) for label in range(3)])
    within = np.cov((vectors - means[train.labels]).T, bias=True)
    within = 0.7 * within + 0.3 * np.trace(within) / 512 * np.eye(512)
    between = np.cov(means[train.labels].T, bias=True)

    def distances(offsets: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        return np.sum(offsets * np.linalg.solve(covariance, offsets.T).T, axis=1)

    expected = distances(others - vectors.mean(axis=0), within + between)
    expected -= distances(others - means[given], within)
    assert found.axes.shape == (2, 512)
    terms = found.terms(images.logits, images.means)
    np.testing.assert_allclose(terms[:, 2], expected, rtol=1e-3, atol=1e-3)


def test_groups_that_training_images_lack_do_not_overlap() -> None:
    """Of two kinds of a network's classes, the training images show one."""
    rng = np.random.default_rng(0)
    classifier = np.zeros((1000, 512))
    classifier[np.arange(1000), np.arange(1000) % 512] = 30
    classifier += rng.normal(0, 0.1, classifier.shape)
    train, strange = observed(200, 3), observed(50, 4)
    train.means[:, 256:] *= 0.01
    strange.means[:, :256] *= 0.01
    familiarity = fit(train, train, classifier).familiarity
    assert familiarity.known.min() >= 0
    assert familiarity.known.max() == 1
    own, other = (familiarity.terms(each.logits, each.means)[:, 4] for each in (train, strange))
    assert own.min() > other.max() + 1


def test_a_few_images_of_the_largest_overlap_do_not_make_it_exact() -> None:
    """A deviation near 0 would refuse whatever the pretrained network is a little less sure of."""
    rng = np.random.default_rng(0)
    classifier = np.zeros((1000, 512))
    classifier[np.arange(1000), np.arange(1000) % 512] = 30
    train, val = observed(200, 3), observed(4, 4)
    train.means[:, 8:] = val.means[:, 8:] = 0.01
    familiarity = fit(train, val, classifier + rng.normal(0, 0.1, classifier.shape)).familiarity
    overlap = familiarity.terms(val.logits, val.means)[:, 4]
    assert np.abs(overlap).max() < 0.01
    assert familiarity.spread[:, 4].min() == pytest.approx(0.05)


def test_scores_by_other_judges(folder: Path) -> None:
    predictor = Predictor(folder / "model", "cpu", "onnxruntime")
    calibration = predictor.info.calibration
    assert calibration is not None
    images = read_list(folder / "val.txt")
    evaluation = score_list(predictor, images)
    inputs = np.stack(
        [predictor.info.preprocess(cv2.imread(str(images.path(i)))) for i in range(20)]
    )
    logits, means = predictor.outputs(inputs)
    assert means is not None
    familiarity = calibration.familiarity(logits, means)
    summary = evaluation.summary()
    assert summary["refused"] == (familiarity < calibration.threshold).mean() <= 0.05
    assert summary["refused"] == calibration.refused
    for key, temperature, fitted in zip(
        ("ece_uncalibrated", "ece"), (1, calibration.temperature), calibration.ece
    ):
        shares = np.exp(logits.astype("float64") / temperature)
        shares /= shares.sum(axis=1, keepdims=True)
        best, right = shares.max(axis=1), shares.argmax(axis=1) == images.labels
        error = 0.0
        for i in range(15):
            inside = (best > i / 15) & (best <= (i + 1) / 15)
            if inside.any():
                error += inside.mean() * abs(best[inside].mean() - right[inside].mean())
        assert summary[key] == pytest.approx(error, abs=1e-5)
        assert fitted == pytest.approx(error, abs=1e-4)

    unknown = read_list(folder / "unknown.txt")
    found = score_unknown(predictor, unknown, evaluation)
    strange = np.stack(
        [predictor.info.preprocess(cv2.imread(str(unknown.path(i)))) for i in range(6)]
    )
    strangers = calibration.familiarity(*predictor.outputs(strange))  # type: ignore[arg-type]
    expected = roc_auc_score([1] * 20 + [0] * 6, np.concatenate([familiarity, strangers]))
    assert found == {
        "images": 6,
        "auroc": pytest.approx(expected),
        "refused": pytest.approx((strangers < calibration.threshold).mean()),
    }
    assert auroc(np.array([1.0, 2]), np.array([0.0, 1])) == 0.875


def test_eval_tells_it(folder: Path, tmp_path: Path, call_tool: Run) -> None:
    flags = ["--model_dir", folder / "model", "--test_list", folder / "val.txt"]
    more = ["--unknown", folder / "unknown", "--metrics_json", tmp_path / "m.json"]
    done = call_tool("eval", *flags, *more, "--report_dir", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    _, trust, unknown, _ = done.stdout.splitlines()
    scores = json.loads((tmp_path / "m.json").read_text())
    assert trust == (
        f"calibration error {scores['ece']:.4f}, without the temperature "
        f"{scores['ece_uncalibrated']:.4f}; {scores['refused']:.2%} refused as none of these"
    )
    assert unknown.startswith(f"unknown images: AUROC {scores['unknown']['auroc']:.4f}, ")
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["expected_calibration_error"] == pytest.approx(scores["ece"])
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"{scores['ece_uncalibrated']:.4f} in place of" in page
    assert "(AUROC)" in page

    done = call_tool("eval", *flags, "--ten_crop")
    assert "`ten_crop`" not in done.stderr
    assert "--ten_crop: the model's calibration is for the center crop" in done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert_user_error(call_tool("eval", *flags, *more, "--ten_crop"), "--unknown needs a model")
    done = call_tool("eval", *flags, "--unknown", folder / "nothing")
    assert_user_error(done, "--unknown: neither a file nor a folder")


def test_a_model_without_calibration(folder: Path, tmp_path: Path, call_tool: Run) -> None:
    model = small_model_dir(tmp_path / "plain", VARIANTS[0])
    flags = ["--model_dir", model, "--test_list", folder / "val.txt"]
    assert len(call_tool("eval", *flags).stdout.splitlines()) == 1
    done = call_tool("eval", *flags, "--unknown", folder / "unknown")
    assert_user_error(done, "--unknown needs a model with a calibration")


def test_none_of_these_comes_first(tmp_path: Path, folder: Path, call_tool: Run) -> None:
    model = calibrate_dir(small_model_dir(tmp_path / "model", VARIANTS[0]), threshold=1e9)
    image = folder / "val" / "0.png"
    predictor = Predictor(model, "cpu")
    none, best, *_ = predictor(image, top_k=2)
    assert (none.class_id, none.name) == (None, "none of these")
    assert none.probability != none.probability
    [logits] = predictor.logits(predictor.info.preprocess(cv2.imread(str(image)))[None])
    shares = np.exp(logits / 2.0) / np.exp(logits / 2.0).sum()  # the temperature is 2
    assert (best.class_id, best.probability) == (
        int(shares.argmax()),
        pytest.approx(float(shares.max()), rel=1e-5),
    )
    flags = ["--model_dir", model, "--image", image, "--top_k", "1"]
    assert call_tool("infer", *flags).stdout.splitlines() == [
        str(image),
        "  -          -  none of these",
        f"  {best.probability:.4f}  {best.class_id:>4}  {best.name}",
    ]
    [row, _] = csv.DictReader(call_tool("infer", *flags, "--format", "csv").stdout.splitlines())
    assert (row["rank"], row["class_id"], row["probability"], row["name"]) == (
        *("1", "", "", "none of these"),
    )
    [result] = json.loads(call_tool("infer", *flags, "--format", "json").stdout)
    assert result["classes"][0] == {"id": None, "probability": None, "name": "none of these"}
    assert result["familiarity"] < 1e9
    explained = call_tool("infer", *flags, "--explain", tmp_path / "maps").stdout.splitlines()
    assert explained[1:3] == call_tool("infer", *flags).stdout.splitlines()[1:3]


def test_unsure_is_what_no_class_is_probable_for(folder: Path, call_tool: Run) -> None:
    model, image = folder / "model", folder / "val" / "1.png"
    probability = Predictor(model, "cpu")(image, top_k=1)[-1].probability
    flags = ["--model_dir", model, "--image", image, "--top_k", "1"]
    for limit, unsure in ((probability + 1e-3, True), (probability - 1e-3, False)):
        predictions = Predictor(model, "cpu", min_probability=limit)(image)
        assert (predictions[0].name == "unsure") is unsure
        done = call_tool("infer", *flags, "--min_probability", limit)
        assert ("unsure" in done.stdout) is unsure
    assert_user_error(call_tool("infer", *flags, "--min_probability", "2"), "2 is not between")


def test_exports_are_removed(folder: Path, tmp_path: Path) -> None:
    """As they would not tell of it."""
    model = small_model_dir(tmp_path / "model", VARIANTS[0])
    (model / "labels.json").write_text("{}")
    calibrate(model, read_list(folder / "train.txt"), read_list(folder / "val.txt"))
    assert not (model / "labels.json").exists()
    assert read_info(model).calibration is not None

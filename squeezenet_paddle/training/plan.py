"""What a training configuration means for its lists and its pretrained model. No Paddle here."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.contents import summary
from ..data.list_checks import describe_other_order, describe_shared
from ..data.lists import (
    ImageList,
    class_sizes,
    describe_empty_classes,
    read_list,
    read_names,
)
from ..data.preprocess import Preprocess
from ..errors import InputError
from ..files import read_bytes, sha256
from ..model_dir import ModelInfo, read_info, weights_file
from ..network.config import ModelConfig, minimum_input_size
from ..network.heads import HEADS
from ..run_dir import Settings
from ..settings import MAY_CHANGE, MUST_MATCH, settings_of
from .config import (
    ORIGINAL_STEPS,
    InputConfig,
    Interval,
    NetworkConfig,
    SolverConfig,
    TrainConfig,
)

# Among what a resume compares.
TRAIN_CONTENT, VAL_CONTENT = "the content of `train_list`", "the content of `val_list`"


@dataclass(frozen=True)
class Plan:
    """A training run, checked as far as it can be without Paddle.

    Attributes:
        config: the settings.
        train, val: the lists.
        info: of the model directories to be written.
        settings: what a resume compares.
        notes: what the user should know of the lists, a line for each.
    """

    config: TrainConfig
    train: ImageList
    val: ImageList | None
    info: ModelInfo
    settings: Settings
    notes: tuple[str, ...] = ()

    @property
    def output_dir(self) -> Path:
        """Directory of the run."""
        return self.config.run.output_dir

    @property
    def solver(self) -> SolverConfig:
        """How to train."""
        return self.config.solver

    @property
    def updates_per_epoch(self) -> int:
        """The last update of an epoch may have fewer images."""
        return -(-len(self.train) // self.solver.batch_size)

    @property
    def max_steps(self) -> int:
        """Updates in the whole run."""
        epochs = self.solver.num_epochs
        if epochs is not None:
            return epochs * self.updates_per_epoch
        return self.solver.max_steps or ORIGINAL_STEPS

    def lr(self, step: int) -> float:
        """The learning rate of update `step`, counted from 0."""
        return self.solver.rate(step, self.max_steps)

    def updates(self, interval: Interval) -> int:
        """An interval in updates."""
        return interval.updates(self.updates_per_epoch)

    def is_done(self, step: int, not_better: int) -> bool:
        """Whether `step` updates are all, or the last `not_better` evaluations are too many."""
        patience = self.solver.patience
        if patience is not None and not_better >= patience:
            return True
        return step >= self.max_steps

    def with_lr(self, lr: float) -> Plan:
        """The same run with another learning rate."""
        solver = dataclasses.replace(self.solver, lr=lr)
        may_change = {**self.settings.may_change, "lr": lr}
        return dataclasses.replace(
            self,
            config=dataclasses.replace(self.config, solver=solver),
            settings=Settings(self.settings.must_match, may_change),
        )


def make_plan(config: TrainConfig, compared: Settings | None = None) -> Plan:
    """Reads the lists and what the pretrained model says of itself.

    Args:
        config: the settings.
        compared: what a resume compares beside them, or in place of what the lists say.

    Raises:
        InputError: something is not as it should be.
    """
    data, network = config.data, config.network
    pretrained = None if network.pretrained is None else read_info(network.pretrained)
    classes = network.num_classes
    names = None if pretrained is None else pretrained.names
    if data.synset_word_list is not None:
        names = read_names(data.synset_word_list, classes)
        classes = len(names)
    train = read_list(data.train_list, data.data_dir, classes, names)
    sizes = class_sizes(train, classes)
    classes, empty = len(sizes), describe_empty_classes(sizes)
    remarks = [empty]
    val = None
    if data.val_list is not None:
        val = read_list(data.val_list, data.data_dir, classes, names)
        remarks.append(describe_shared(train, val))
    model = _model_config(config, None if pretrained is None else pretrained.network, classes)
    usual = Preprocess() if pretrained is None else pretrained.preprocess
    preprocess = _preprocess(config.input, usual, model)
    source: dict[str, Any] = {
        "format": "trained",
        "train_list": data.train_list.name,
        "images": len(train),
        "pretrained": None if pretrained is None else pretrained.source,
    }
    if names and len(names) != classes:
        names = None
    remarks += [describe_other_order(train, names), _scaled_resize(config.input, usual, preprocess)]
    notes = tuple(f"note: {remark}" for remark in remarks if remark)
    plan = Plan(
        config, train, val, ModelInfo(model, preprocess, names, source), Settings({}, {}), notes
    )
    if config.solver.warmup_steps > plan.max_steps:
        raise InputError(
            f"`warmup_steps`: at most the {plan.max_steps} updates of the run were expected, found "
            f"{config.solver.warmup_steps}."
        )
    return dataclasses.replace(plan, settings=_settings(plan, compared or Settings({}, {})))


def _model_config(config: TrainConfig, pretrained: ModelConfig | None, classes: int) -> ModelConfig:
    """The network: the pretrained model's, or the default one, with overrides."""
    overrides = _overrides(config.network, ModelConfig)
    overrides["num_classes"] = classes
    for name in ("version", "bypass", "activation") if pretrained is not None else ():
        value = getattr(pretrained, name)
        if overrides.get(name, value) != value:
            raise InputError(
                f"`{name}` {overrides[name]}: the model of `pretrained` has {name} {value}."
            )
    model = dataclasses.replace(pretrained or ModelConfig(), **overrides)
    keeps_classifier = pretrained is not None and (
        (pretrained.head, pretrained.num_classes) == (model.head, model.num_classes)
    )
    init, bias = config.network.init, config.network.classifier_bias
    if keeps_classifier and init != NetworkConfig.init:
        raise InputError(
            f"`init` {init}: it is for new layers, and those of `pretrained` are kept, with the "
            "classifier."
        )
    if config.network.dropout is not None and HEADS[model.head].dropout is None:
        raise InputError(f"`dropout`: the head {model.head} has none.")
    if bias is not None and not HEADS[model.head].has_conv10:
        raise InputError(
            f"`classifier_bias` {bias:g}: it is that of conv10, which the head {model.head} does "
            "not have."
        )
    if bias is not None and keeps_classifier:
        raise InputError(
            f"`classifier_bias` {bias:g}: it is that of a new conv10, and the classifier of "
            "`pretrained` is kept."
        )
    return model


def _preprocess(config: InputConfig, base: Preprocess, model: ModelConfig) -> Preprocess:
    """The preprocessing: that of `base` with overrides."""
    overrides = _overrides(config, Preprocess)
    if config.mean_json is not None:
        order = overrides.get("channel_order", base.channel_order)
        mean = _mean_of(config.mean_json)[:: 1 if order == "BGR" else -1]
        overrides["mean"] = tuple(value * overrides.get("scale", base.scale) for value in mean)
    if config.crop_size is not None and config.resize_size is None and base.mean_image is None:
        base = base.with_crop_size(config.crop_size)
    preprocess = dataclasses.replace(base, **overrides, data_format=model.data_format)
    minimum = minimum_input_size(model.version)
    if preprocess.crop_size < minimum:
        raise InputError(
            f"`crop_size`: SqueezeNet v{model.version} needs at least {minimum} pixels, found "
            f"{preprocess.crop_size}."
        )
    return preprocess


def _scaled_resize(config: InputConfig, base: Preprocess, preprocess: Preprocess) -> str:
    """Says that the resize follows from the crop, where it is not the usual one; "" otherwise."""
    if config.resize_size is not None or preprocess.resize_size == base.resize_size:
        return ""
    return (
        f"images are resized to {preprocess.resize_size} pixels for a crop of "
        f"{preprocess.crop_size}, as to {base.resize_size} for one of {base.crop_size}; "
        "resize_size gives another size"
    )


def _overrides(config: object, cls: type) -> dict[str, Any]:
    """The settings that are not None, of those that are fields of `cls`."""
    values = {field.name: getattr(config, field.name, None) for field in dataclasses.fields(cls)}
    return {name: value for name, value in values.items() if value is not None}


def _mean_of(path: Path) -> tuple[float, ...]:
    """B, G, R of a file that squeezenet prepare-images wrote."""
    try:
        mean = json.loads(read_bytes(path, "file of a mean"))["mean"]
        return tuple(float(value) for value in mean)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'`mean_json` {path}: a JSON object with "mean": [B, G, R] was expected.'
        ) from error


def effective_settings(plan: Plan) -> dict[str, Any]:
    """All settings by name, with what those not given came to, as JSON has them."""
    values = {
        **plan.config.values(),
        **dataclasses.asdict(plan.info.network),
        **plan.info.preprocess.record(),
        "iter_size": plan.solver.parts,
        "max_steps": plan.max_steps,
        "trainable": "all" if plan.solver.trainable == "all" else plan.solver.trained_from,
    }
    return json.loads(json.dumps(values, default=str))


def _settings(plan: Plan, also: Settings) -> Settings:
    """What a resume compares."""
    values, pretrained = effective_settings(plan), plan.config.network.pretrained
    names: dict[str | None, dict[str, Any]] = {MUST_MATCH: {}, MAY_CHANGE: {}, None: {}}
    for name, setting in settings_of(TrainConfig):
        names[setting.on_resume][name] = values[name]
    weights = None
    if pretrained is not None:
        weights = sha256(read_bytes(weights_file(pretrained), "file of weights"))
    must_match = {
        **names[MUST_MATCH],
        "a moving average by `ema_decay`": plan.solver.ema_decay is not None,
        "the weights of `pretrained`": weights,
        TRAIN_CONTENT: _content(plan.train),
        **also.must_match,
    }
    may_change = {
        **names[MAY_CHANGE],
        VAL_CONTENT: None if plan.val is None else _content(plan.val),
        "what the images of `train_list` are": summary(plan.train),
        "what the images of `val_list` are": None if plan.val is None else summary(plan.val),
        **also.may_change,
    }
    return Settings(must_match, may_change)


def _content(images: ImageList) -> str:
    return sha256(images.text.tobytes() + images.labels.tobytes())

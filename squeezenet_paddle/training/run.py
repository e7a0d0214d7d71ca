"""A training run: its directory, device, processes, network, and the checkpoint it goes on from.

plan = make_plan(config)
with Run.start(plan) as run, image_inputs(run) as inputs:
    result = Trainer(run, inputs).train()
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..device import use_device
from ..errors import InputError
from ..model_dir import check_target, load_network, read_info, read_weights
from ..network.heads import HEADS
from ..network.stages import STAGES, state_stages
from ..parallel import launcher
from ..run_dir import (
    BEST,
    BOARD,
    CHECKPOINTS,
    FINAL,
    MODELS,
    RUN_ENTRIES,
    Settings,
    entries,
    locked,
    overwritten_entries,
    remove,
)
from ..temporaries import clear_leftovers, recover
from . import checkpoint
from .checkpoint import Checkpoint, decoded, encoded
from .config import TrainConfig
from .plan import VAL_CONTENT, Plan, make_plan

if TYPE_CHECKING:
    from ..network.model import SqueezeNet
    from ..parallel.group import Group

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a training run came to.

    Attributes:
        output_dir: its directory.
        model_dir: the best model or, without a validation list, the last one; None where a signal
            ended the run before there was any.
        best: the best validation top-1, 0..1; None where there is none.
        step: updates done.
        finished: False if a signal ended the run early; the same call goes on from there.
        finished_before: the run was finished already, and nothing was done.
        not_applied: then, how the settings differ from those that it was trained with.
    """

    output_dir: Path
    model_dir: Path | None
    best: float | None
    step: int
    finished: bool
    finished_before: bool = False
    not_applied: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.best is None:
            return f"the model directory is {self.model_dir}"
        final = self.output_dir / FINAL
        return f"best validation top-1 {self.best:.2%} in {self.model_dir}, the last in {final}"


@dataclass(frozen=True)
class Run:
    """A run that has its directory, its device and its processes; see `start`.

    Attributes:
        plan: what is trained, and how.
        device: "cpu", "gpu" or "gpu:N".
        group: the processes of the run.
        network: with the weights that the run started from.
        origin: which these are, in words.
        checkpoint: the newest one of the run; None where it starts.
    """

    plan: Plan
    device: str
    group: Group
    network: SqueezeNet
    origin: str
    checkpoint: Checkpoint | None

    @classmethod
    @contextlib.contextmanager
    def start(cls, plan: Plan, lock: bool = True) -> Iterator[Run]:
        """Joins the processes, takes the directory, and makes the network.

        Args:
            plan: the run, of which `finished_result` has said that it is not finished.
            lock: keep other runs out of the directory; False where the caller does.

        Raises:
            InputError, RunError: the run cannot start or go on.
        """
        from ..parallel.group import join  # Paddle, once everything else is right

        device = use_device(plan.config.machine.device)
        with contextlib.ExitStack() as stack:
            group = stack.enter_context(join(device))
            newest = None
            if not group.rank:
                if lock:
                    stack.enter_context(locked(plan.output_dir))
                newest = _take_directory(plan)
            sent = group.broadcast_bytes(b"" if newest is None else encoded(newest))
            newest = decoded(sent, "the first process") if sent else None
            network, origin = start_network(plan)
            group.broadcast(list(network.state_dict().values()))
            yield cls(plan, device, group, network, origin, newest)

    def with_lr(self, lr: float) -> Run:
        """The same run with another learning rate."""
        return dataclasses.replace(self, plan=self.plan.with_lr(lr))

    @property
    def headline(self) -> str:
        """What is about to be trained, on what."""
        plan, config, count = self.plan, self.plan.info.network, self.group.world_size
        solver, last, origin = plan.solver, plan.max_steps, self.origin
        if solver.trained_from != STAGES[0]:
            rest = "" if solver.trained_from == "head" else " and what follows"
            origin += f"; training {solver.trained_from}{rest} only"
        return (
            f"SqueezeNet v{config.version}, {config.num_classes} classes, {origin}; "
            f"{len(plan.train)} training and {0 if plan.val is None else len(plan.val)} validation "
            f"images; {last} updates of {solver.batch_size} "
            f"({solver.parts} x {solver.batch_size // solver.parts}), "
            f"{last / plan.updates_per_epoch:.1f} epochs; "
            f"{count} process{'es' if count > 1 else ''}"
        )


def train(config: TrainConfig) -> TrainResult:
    """Trains a network on a list of images, or goes on with a run of the same settings.

    A run in several processes is started from the command line, `squeezenet train` or
    `python -m paddle.distributed.launch`.

    Args:
        config: all settings; `TrainConfig.from_settings` takes them by name.

    Raises:
        InputError: a setting, a list or a model directory is not as it should be.
        RunError: the loss diverges, or the disk is full.
    """
    plan = make_plan(config)
    if (result := finished_result(plan)) is not None:
        return result
    machine = config.machine
    count = launcher.processes(machine.device, machine.num_gpus, machine.num_procs)
    if count > 1 and not launcher.is_started():
        name = "num_procs" if machine.num_gpus is None else "num_gpus"
        raise InputError(
            f"`{name}` {count}: a run in several processes is started from the command line, by "
            "squeezenet train; train() is one process of a run."
        )
    from .inputs import image_inputs
    from .trainer import Trainer

    with Run.start(plan) as run, image_inputs(run) as inputs:
        return Trainer(run, inputs).train()


def finished_result(plan: Plan) -> TrainResult | None:
    """Checks that the run may start or go on in its directory; its result if it is finished.

    Raises:
        InputError: the directory holds something else, or a run of other settings.
    """
    for name in MODELS:
        check_target(plan.output_dir / name)
    config = plan.config.run
    if config.overwrite or not config.resume:
        present = entries(plan.output_dir, RUN_ENTRIES)
        if present and not config.overwrite:
            raise InputError(
                f"`resume`: {plan.output_dir} holds a run already ({present[0].name}); "
                "`overwrite` removes it."
            )
        return None
    newest = checkpoint.load_newest(plan.output_dir / CHECKPOINTS)
    if newest is None:
        return None
    changes = changes_since(newest, plan)
    last = plan.max_steps
    if newest.step > last:
        raise InputError(
            f"{plan.output_dir}: this run has done {newest.step} updates, and the settings ask for "
            f"{last}."
        )
    final = plan.output_dir / FINAL
    with checkpoint.of_a_run(plan.output_dir):
        done = plan.is_done(newest.step, int(newest.record["not_better"]))
        best = newest.record["best"]
    if not done or _problem(final) or read_info(final).source.get("step") != newest.step:
        return None
    model_dir = plan.output_dir / (FINAL if best is None else BEST)
    if problem := _problem(model_dir):
        raise InputError(
            f"{problem} This run is finished, so that nothing would write the model again; "
            "`overwrite` trains it from scratch."
        )
    return TrainResult(plan.output_dir, model_dir, best, newest.step, True, True, tuple(changes))


def changes_since(newest: Checkpoint, plan: Plan) -> list[str]:
    """What the settings change of a run that they go on with, a text for each."""
    with checkpoint.of_a_run(plan.output_dir):
        return plan.settings.changes_since(Settings(**newest.record["settings"]), plan.output_dir)


def _problem(model_dir: Path) -> str:
    """What is wrong with a model directory; "" if it can be read."""
    recover(model_dir)
    try:
        read_weights(model_dir, read_info(model_dir))
    except InputError as error:
        return str(error)
    return ""


def _is_of_other_list(newest: Checkpoint, plan: Plan) -> bool:
    """Whether the best score so far is of another validation list."""
    with checkpoint.of_a_run(plan.output_dir):
        now, earlier = plan.settings.may_change, newest.record["settings"]["may_change"]
        return newest.record["best"] is not None and now[VAL_CONTENT] != earlier.get(VAL_CONTENT)


def _take_directory(plan: Plan) -> Checkpoint | None:
    """Tidies up after a run that was killed; its newest checkpoint, unless it is to be removed."""
    for folder in (plan.output_dir, *entries(plan.output_dir, (CHECKPOINTS, *MODELS, BOARD))):
        clear_leftovers(folder)
    if plan.config.run.overwrite:
        pretrained = plan.config.network.pretrained
        remove(overwritten_entries(plan.output_dir, RUN_ENTRIES, {"pretrained": pretrained}))
    newest = checkpoint.load_newest(plan.output_dir / CHECKPOINTS)
    if newest is not None:
        keep = plan.config.run.keep_checkpoints
        checkpoint.remove_older(plan.output_dir / CHECKPOINTS, newest.step, keep)
    if newest is not None and _is_of_other_list(newest, plan):
        logger.warning("`val_list` has changed; the best score so far is of another list.")
        newest.record.update(best=None, not_better=0)
    has_best = newest is not None and newest.record.get("best") is not None
    if newest is not None and has_best and (problem := _problem(plan.output_dir / BEST)):
        logger.warning(f"{problem} The best model from now on is kept in its place.")
        newest.record.update(best=None, not_better=0)
    return newest


def start_network(plan: Plan) -> tuple[SqueezeNet, str]:
    """The network with the weights it starts from, and a text that says which."""
    from ..network.model import load_state

    config = plan.config.network
    network = _new_network(plan)
    if config.pretrained is None:
        return network, f"from scratch ({config.init} initialisation)"
    info = read_info(config.pretrained)
    state = {k: v.numpy() for k, v in load_network(config.pretrained, info).state_dict().items()}
    origin = f"from {config.pretrained}"
    old, new = info.network, plan.info.network
    own = {k: v.numpy() for k, v in network.state_dict().items()}
    if old.head != new.head:
        stages = {**state_stages(old), **state_stages(new)}
        state = {k: v for k, v in state.items() if stages[k] != "head"}
        state.update({k: v for k, v in own.items() if stages[k] == "head"})
        origin += f", head {old.head} -> {new.head} (new)"
    elif old.num_classes != new.num_classes:
        prefix = f"{HEADS[new.head].classifier}."
        state.update({k: v for k, v in own.items() if k.startswith(prefix)})
        origin += f", classifier of {old.num_classes} classes -> {new.num_classes} (new)"
    load_state(network, state, str(config.pretrained))
    return network, origin


def _new_network(plan: Plan) -> SqueezeNet:
    """The network with its initial weights, which are drawn on the CPU.

    A GPU draws other numbers from the same seed.
    """
    import paddle

    from ..network.model import SqueezeNet, load_state

    device, config = paddle.device.get_device(), plan.config.network
    variant = (plan.info.network, config.init, config.classifier_bias)
    paddle.device.set_device("cpu")
    paddle.seed(plan.solver.seed)
    network = SqueezeNet(*variant)
    paddle.device.set_device(device)
    if device == "cpu":
        return network
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    network = SqueezeNet(*variant)
    load_state(network, state, "the initial weights")
    return network

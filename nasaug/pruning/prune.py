"""`prune`: remove channels or zero weights of a trained net, in steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import data as datasets
from ..arch import archfile
from ..arch.archfile import ArchFile
from ..arch.cost import cost
from ..arch.plan import Plan
from ..config.layers import arm_says, load
from ..core import tensorfile
from ..core.errors import BadInput, advice, arg, unknown, with_value
from ..core.progress import Listener, heard_by
from ..core.units import format_quantity, parse_quantity
from ..data import Data, Record
from ..nets.net import Net
from ..nets.store import load_net, save_net, teacher_digest
from ..rundirs.folder import RunDir
from ..rundirs.job import kept_as, refuse_changed
from ..rundirs.result import TrainingResult, read_result
from ..training.begin import at_path, begun_record, create_or_resume
from ..training.device import Runtime, open_runtime
from ..training.job import (
    load_data,
    task_of,
)
from ..training.options import Options
from ..training.provenance import (
    curves_of,
    other_split,
    warn_of_curves,
    warn_of_other_splits,
)
from ..training.recipe import CHANGE_NOTHING, Recipe
from ..training.teacher import Resolved, moved_teacher, resolve
from . import selection
from .setting import LR_SCALE, ROUND, STEPS, Setting
from .steps import Pruning, least_macs, net_of_other_splits, some_plan, step_job

RUN = "the folder of a finished run of train or netaug-train, like runs/train-1"


def prune(
    source: str | Path | None = None, *, target_macs: str | int | None = None, target_sparsity: float | None = None,
    unstructured: bool = False, steps: int | None = None, magnitude: str | None = None, criterion: str | None = None,
    lr_scale: float | None = None, method: str | None = None, round: int | None = None,
    data: str | Path | None = None, recipe: str | Path | None = None, set: Mapping[str, object] | Sequence[str] = (),
    seed: int | None = None, device: str = "auto", run: str | Path | None = None, resume: bool = False,
    on_event: Listener | None = None,
) -> TrainingResult:  # fmt: skip
    """Prune a trained network in steps, each followed by fine-tuning.

    Args:
        source: the folder of a finished run of train, netaug-train or prune.
        target_macs: MACs of the result, such as "1M": channels are removed; the steps' MACs form a geometric
            progression.
        target_sparsity: with `unstructured`, the share of single weights that become zero instead.
        unstructured: zero single weights instead of removing channels.
        steps: the number of pruning and fine-tuning steps; defaults to 5.
        magnitude: RandAugment's in each step: "9", "9:2" (falling) or "2:9" (rising); defaults to the recipe's view.
        criterion: what ranks channels (l1, bn) or weights (lamp, l1).
        lr_scale: multiplies the recipe's learning rate; defaults to 0.5.
        method: fine-tune with any arm of `compare`; defaults to baseline.
        round: pruned channel counts are multiples of this; defaults to 1.
        data, recipe, set, seed, device, run, resume: see `nasaug.training.options.Options`; `set` may be a mapping.
        on_event: called with each line and each step of progress (nasaug.core.progress).

    Raises BadInput, RunFault, or Stopped if a signal interrupts it.
    """
    options = Options.of(data, recipe, set, seed, device, run, resume)
    macs, path = (None if target_macs is None else str(target_macs)), (None if source is None else Path(source))
    job = PruneJob(
        path, macs, target_sparsity, unstructured, steps, magnitude, criterion, lr_scale, method, round, options
    )
    with heard_by(on_event):
        return create_or_resume(job)


@dataclass(frozen=True)
class Ready:
    """A pruning whose inputs have all been validated. `net` is the net that a new run starts from."""

    found: ArchFile
    setting: Setting
    recipe: Recipe
    data: Data
    runtime: Runtime
    net: Net | None = None
    teacher: Resolved | None = None

    @property
    def record(self) -> Record:
        return self.data.record


@dataclass(frozen=True)
class PruneJob:
    """What to prune, how far and how. None means not given."""

    source: Path | None = None
    target_macs: str | None = None
    target_sparsity: float | None = None
    unstructured: bool = False
    steps: int | None = None
    magnitude: str | None = None
    criterion: str | None = None
    lr_scale: float | None = None
    method: str | None = None
    round: int | None = None
    options: Options = Options()
    verb, extends, together = "prune", False, False

    def setting(self) -> Setting:
        """The job with defaults filled in. Raises BadInput for options that are out of range or in conflict."""
        if self.unstructured:
            if self.target_macs is not None:
                rule = f"applies to channels, {arg.unstructured} to weights"
                raise _refused("target_macs", self.target_macs, rule, "leave one of them out")
            if self.target_sparsity is None or not 0 < self.target_sparsity < 1:
                rule = f": {arg.unstructured} needs the share of weights that become zero"
                raise _refused("target_sparsity", self.target_sparsity, rule, "give above 0, below 1, like 0.9")
        elif self.target_sparsity is not None:
            remedy = f"give it too, or {arg.target_macs} instead, which removes channels"
            rule = f"needs {arg.unstructured}"
            raise _refused("target_sparsity", self.target_sparsity, rule, remedy, apart=True)
        elif self.target_macs is None:
            what = f"{arg.target_macs}, like 1M, or {arg.unstructured} {arg.target_sparsity} 0.9"
            raise BadInput(f"prune needs {what}", field="target_macs", rule="is missing", remedy=f"give {what}")
        known = selection.OF_WEIGHTS if self.unstructured else selection.CRITERIA
        criterion = self.criterion or known[0]
        if criterion not in known:
            raise unknown(arg.criterion, criterion, known)
        divisor = ROUND if self.round is None else self.round
        if divisor < 1:
            raise _refused("round", divisor, "must be at least 1", "8 suits most hardware")
        if self.unstructured and self.round is not None:
            rule = f"applies to channels, {arg.unstructured} to weights"
            raise _refused("round", divisor, rule, "leave one of them out")
        steps = STEPS if self.steps is None else self.steps
        if steps < 1:
            raise _refused("steps", steps, "must be at least 1")
        scale = LR_SCALE if self.lr_scale is None else self.lr_scale
        if not 0 < scale < math.inf:
            raise _refused("lr_scale", scale, "multiplies the recipe's lr", "give above 0, like 0.5")
        selection.magnitudes(self.magnitude, steps)
        macs = self._macs()
        source = None if self.source is None else str(self.source.resolve())
        return Setting(
            source, macs, self.target_sparsity, steps, self.magnitude, criterion, scale, self.method, divisor
        )

    def _macs(self) -> int | None:
        if self.target_macs is None:
            return None
        return int(parse_quantity(self.target_macs, "macs", argument="target_macs"))

    def prepare(self) -> Ready:
        setting, options = self.setting(), self.options
        if self.source is None:
            line = f"prune needs {arg.source}: {RUN}"
            raise BadInput(line, field="source", rule="is missing", remedy=f"give {RUN}")
        found, net, facts = finished_run(self.source)
        theirs = RunDir(self.source)
        recipe = setting.recipe(options, theirs.recipe_file, load(theirs.recipe_file, Recipe).data.name)
        runtime = open_runtime(options.device, recipe.bf16, options.profile)
        teacher = check(setting, recipe, net, found, runtime)
        data = load_data(recipe, found.plan.resolution, sources=(theirs.model_file,))
        if list(facts.get("classes", data.classes)) != list(data.classes):
            other = f"{self.source} was trained on other classes than those of {data.name}"
            raise BadInput(f"{other}; give data of the same")
        if teacher is not None:
            teacher.check_classes(lambda: data)
        # raises for a net that was trained on test images
        other_split(str(self.source), theirs.model_file, data, f"give another {arg.source}")
        warn_of_other_splits(net_of_other_splits(found, str(self.source), recipe, data))
        first = setting.step_recipe(recipe, selection.magnitudes(setting.magnitude, 2)[0])
        warn_of_curves(curves_of(first), lambda: data)
        return Ready(found, setting, recipe, data, runtime, net, teacher)

    def write(self, run: RunDir, ready: Ready) -> dict[str, Any]:
        ready.found.save(run.base_file)
        assert ready.net is not None
        save_net(run.tuned_file, ready.net, steps=[])
        run.note(teacher=teacher_digest(ready.recipe.teacher.source))
        return asdict(ready.setting)

    def restore(self, run: RunDir, kept: dict[str, Any]) -> Ready | None:
        options = self.options
        setting = kept_as(Setting, kept)
        self._check_same(setting, run.path)
        recipe = load(run.recipe_file, Recipe)
        data = recipe.data.name
        if options.recipe is None:  # the run's recipe contains the arm already
            recipe = options.settings({}, default=run.recipe_file, data=data)
        else:
            recipe = setting.recipe(options, run.recipe_file, data)
        run.check_settings(recipe, (*CHANGE_NOTHING, *moved_teacher(run.environment().get("teacher"), recipe.teacher)))
        if run.finished:
            return None
        found, runtime = archfile.read(str(run.base_file)), open_runtime(options.device, recipe.bf16, options.profile)
        recipe = at_path(recipe, options.data)
        images = load_data(recipe, found.plan.resolution, begun_record(run, recipe))
        run.go_on_with(recipe)
        return Ready(found, setting, recipe, images, runtime, teacher=resolve(found, recipe.teacher))

    def _check_same(self, setting: Setting, path: Path) -> None:
        """Raises BadInput if values differ from those the run was started with."""
        said = {
            "source": None if self.source is None else str(self.source.resolve()), "method": self.method,
            "target_macs": self._macs(), "magnitude": self.magnitude,
            "target_sparsity": self.target_sparsity, "steps": self.steps, "criterion": self.criterion,
            "lr_scale": self.lr_scale, "round": self.round,
        }  # fmt: skip
        refuse_changed(path, asdict(setting), said)
        if self.unstructured and setting.target_sparsity is None:
            raise BadInput(f"{path} was begun without {arg.unstructured}; leave it out to go on, or start anew")

    def carry_out(self, run: RunDir, ready: Ready) -> None:
        Pruning(ready.found, ready.setting, ready.recipe, ready.data, ready.runtime, run, ready.teacher).carry_through()

    def result(self, run: RunDir) -> TrainingResult:
        return read_result(run.path)


def finished_run(path: Path) -> tuple[ArchFile, Net, dict]:
    """(arch file, net, facts of the model file) of a finished training. Raises BadInput if the folder is not one."""
    if not path.is_dir():
        raise _refused("source", path, "is no folder", f"give {RUN}", apart=True)
    run = RunDir(path)
    if not run.finished:
        if run.recipe_file.is_file():
            remedy = f"go on with it by {arg.resume}, or give {RUN}"
            raise _refused("source", path, "is not finished", remedy)
        raise _refused("source", path, "holds no run", f"give {RUN}", apart=True)
    for needed in (run.model_file, run.arch_file, run.recipe_file):
        if not needed.is_file():
            rule = f"has no {needed.name}, so it is not the run of a training"
            raise _refused("source", path, rule, f"give {RUN}", apart=True)
    found, net = archfile.read(str(run.arch_file)), load_net(run.model_file)
    if found.plan != net.plan:
        both = f"{run.arch_file.name} and {run.model_file.name}"
        raise _refused("source", path, f": {both} are not of the same net", "restore them, or train again")
    result = read_result(path)
    scores = {key: score for key, score in result.scores().items() if key != result.metric.key("train")}
    kept = {**scores, "train_macs": result.train_macs, "data_key": result.data_key}
    kept["sparsity"], told = selection.sparsity(net)["prunable"], tensorfile.facts(run.model_file)
    kept["val_key"] = told.get("val_key", "")
    facts = {"source": kept, "pruned": found.pruned}
    return ArchFile(found.plan, found.name, facts=facts), net, told


def check(setting: Setting, recipe: Recipe, net: Net, found: ArchFile, runtime: Runtime) -> Resolved | None:
    """Checks that need no data; returns the recipe's teacher."""
    if recipe.teacher.source == "supernet":
        none = f"{arg.set} teacher.source='' {arg.set} teacher.macs=0 {arg.set} difficulty.policy=none"
        remedy = f"give {arg.set} teacher.source=RUN {arg.set} teacher.macs=0, or none: {none}"
        rule = "was taught by its supernet, which a pruned net is no part of"
        raise BadInput(f"{arg.source} {setting.source} {rule}; {remedy}")
    info = datasets.describe(recipe.data)
    classes = task_of(recipe, info).outputs(info)
    if classes != net.plan.classes:
        theirs = f"{recipe.data.name} has {classes} classes, {found.name} {net.plan.classes}"
        raise BadInput(f"{arg.data} {theirs}; leave {arg.data} out, or give data of the same classes")
    if setting.method and "qat.on" in arm_says(setting.method, Recipe):
        rule, remedy = "trains in int8, and pruning in float", "prune first, and train the result with qat"
        raise _refused("method", setting.method, rule, remedy)
    recipes = [setting.step_recipe(recipe, m) for m in selection.magnitudes(setting.magnitude, setting.steps)]
    teacher = resolve(found, recipe.teacher)

    def check_steps(plan: Plan) -> None:
        for of_step in recipes:
            step_job(of_step, plan, teacher, runtime, recipe.batch)

    check_steps(net.plan)
    _check_target(setting, recipe, net, found)
    if setting.target_macs:  # a plan with the final MACs: the method must work on that too
        check_steps(some_plan(net.plan, setting.target_macs, setting.round))
    return teacher


def _check_target(setting: Setting, recipe: Recipe, net: Net, found: ArchFile) -> None:
    """Raises BadInput for a target that this net cannot reach."""
    if setting.target_macs:
        start, least = cost(net.plan).macs, least_macs(net.plan, setting.round)
        multiples = f" with channels in multiples of {setting.round} ({arg.round})" if setting.round > 1 else ""
        if least >= start:
            finer = (d for d in (8, 4, 2, 1) if d < setting.round and least_macs(net.plan, d) < start)
            remedy = next((f"give less, like {d}" for d in finer), "prune another net")
            rule = f": {found.name} can lose nothing{multiples}"
            raise _refused("round", setting.round, rule, remedy, apart=True)
        if not least <= setting.target_macs < start:
            rule = f": {found.name} has {start} MACs, and its smallest possible net{multiples} {least}"
            remedy = f"give at least {least}, below {start} ({format_quantity(start, 'macs')})"
            shown = format_quantity(setting.target_macs, "macs")
            raise _refused("target_macs", setting.target_macs, rule, remedy, shown=shown, apart=True)
    else:
        zeros = found.facts["source"]["sparsity"]
        if zeros >= setting.target_sparsity:
            rule = f": {100 * zeros:.3g} % of the weights are zero already"
            least = math.ceil(1000 * zeros) / 1000  # rounded up, so that what is advised works
            remedy = f"give above {least:g}" if least < 1 else "prune another net"
            raise _refused("target_sparsity", setting.target_sparsity, rule, remedy, apart=True)
        if recipe.chosen_method().reorders:
            rule = f"reorders channels, which {arg.unstructured} cannot follow"
            raise _refused("method", recipe.method, rule, "leave it out")


def _refused(
    argument: str, value: Any, rule: str, remedy: str | None = None, *, shown: str | None = None, apart: bool = False
) -> BadInput:  # fmt: skip
    """The error about an argument's `value`, which may be `shown` in another way than Python writes it.

    The line is as `BadInput.of` writes it; `apart` puts a semicolon before a remedy that begins with "give"."""
    shown = f"{value:g}" if isinstance(value, float) else shown or str(value)
    subject = getattr(arg, argument) if value is None else f"{with_value(argument)} {shown}"
    line = subject + ("" if rule.startswith(":") else " ") + rule + advice(remedy, apart)
    return BadInput(line, field=argument, value=value, rule=rule.lstrip(": "), remedy=remedy)

"""`prune`: a trained net made smaller, or sparser, in steps, each followed by fine-tuning under its own magnitude."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from .. import data as datasets
from ..arch import archfile
from ..arch.archfile import ArchFile
from ..arch.channels import channel_groups
from ..arch.cost import cost, describe
from ..arch.plan import Plan
from ..augment import at_magnitude
from ..config.layers import load
from ..config.schedule import Constant
from ..core import tensorfile
from ..core.errors import BadInput, unknown
from ..core.metric import Metric
from ..core.progress import say
from ..core.units import format_duration, format_quantity, parse_quantity
from ..data import Data
from ..methods import Base
from ..nets.net import Net
from ..nets.store import load_net, save_net, teacher_digest
from ..rundirs.folder import RunDir
from ..rundirs.result import TrainingResult, read_result
from ..training.begin import at_path, begun_record, refuse_existing, resumed, stopping, write_job
from ..training.device import Runtime, open_runtime
from ..training.job import (
    CHECKPOINT,
    Job,
    announce,
    carry_out,
    load_data,
    make_job,
    make_scorer,
    make_trainer,
    preprocessing,
    task_of,
    test_of,
)
from ..training.provenance import (
    SEVERAL,
    curves_of,
    of_other_splits,
    other_split,
    warn_of_curves,
    warn_of_other_splits,
)
from ..training.recipe import CHANGE_NOTHING, Recipe
from ..training.scoring import Scorer
from ..training.teaching import check_teacher, moved_teacher, teacher_macs, teacher_of
from . import selection

VERB, BASE, MODEL, ARCH = "prune", "base.json", "model.safetensors", "arch.json"
TUNED, CUT = "tuned.safetensors", "cut.safetensors"  # the net after the last step that is over; that at hand, untrained


@dataclass(frozen=True)
class Asked:
    """What to prune, how far and how, beside the recipe; None: not given."""

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

    def setting(self) -> Setting:
        """The same with what is not given put in. Raises BadInput for what is out of range or in conflict."""
        if self.unstructured:
            if self.target_macs is not None:
                of = f"--target-macs {self.target_macs} is of channels, --unstructured of weights"
                raise BadInput(f"{of}; leave one of them out")
            if self.target_sparsity is None or not 0 < self.target_sparsity < 1:
                given = "" if self.target_sparsity is None else f" {self.target_sparsity:g}"
                rule = "the share of weights that become zero: give above 0, below 1, like 0.9"
                raise BadInput(f"--target-sparsity{given}: --unstructured needs {rule}")
        elif self.target_sparsity is not None:
            remedy = "give it too, or --target-macs instead, which removes channels"
            raise BadInput(f"--target-sparsity {self.target_sparsity:g} needs --unstructured; {remedy}")
        elif self.target_macs is None:
            raise BadInput("prune needs --target-macs, like 1M, or --unstructured --target-sparsity 0.9")
        known = selection.OF_WEIGHTS if self.unstructured else selection.CRITERIA
        criterion = self.criterion or known[0]
        if criterion not in known:
            raise unknown("--criterion", criterion, known)
        divisor = 1 if self.round is None else self.round
        if divisor < 1:
            raise BadInput(f"--round {divisor} must be at least 1; 8 suits most hardware")
        if self.unstructured and self.round is not None:
            raise BadInput(f"--round {divisor} is of channels, --unstructured of weights; leave one of them out")
        steps = 5 if self.steps is None else self.steps
        if steps < 1:
            raise BadInput(f"--steps {steps} must be at least 1")
        scale = 0.5 if self.lr_scale is None else self.lr_scale
        if not 0 < scale < math.inf:
            raise BadInput(f"--lr-scale {scale:g} multiplies the recipe's lr: give above 0, like 0.5")
        selection.magnitudes(self.magnitude, steps)
        macs = None if self.target_macs is None else self._macs()
        source = None if self.source is None else str(self.source.resolve())
        return Setting(
            source, macs, self.target_sparsity, steps, self.magnitude, criterion, scale, self.method, divisor
        )

    def _macs(self) -> int:
        try:
            return int(parse_quantity(self.target_macs, "macs"))
        except BadInput as error:
            raise BadInput(f"--target-macs {self.target_macs}: {error}") from None

    def check_same(self, setting: Setting, path: Path) -> None:
        """Refuses to resume with other options than the run was begun with."""
        said = {
            "from": None if self.source is None else str(self.source.resolve()), "method": self.method,
            "target-macs": None if self.target_macs is None else self._macs(), "magnitude": self.magnitude,
            "target-sparsity": self.target_sparsity, "steps": self.steps, "criterion": self.criterion,
            "lr-scale": self.lr_scale, "round": self.round,
        }  # fmt: skip
        begun = asdict(setting)
        for option, value in said.items():
            there = begun["source" if option == "from" else option.replace("-", "_")]
            if value is not None and value != there:
                differs = f"was begun with --{option} {there}, not {value}"
                raise BadInput(f"{path} {differs}; leave it out to go on, or start anew")
        if self.unstructured and setting.target_sparsity is None:
            raise BadInput(f"{path} was begun without --unstructured; leave it out to go on, or start anew")


@dataclass(frozen=True)
class Setting:
    """What `job.json` holds of a run: structured to `target_macs`, or unstructured to `target_sparsity`."""

    source: str | None
    target_macs: int | None
    target_sparsity: float | None
    steps: int
    magnitude: str | None
    criterion: str
    lr_scale: float
    method: str | None
    round: int = 1  # a group that loses channels keeps a multiple of it

    @property
    def arm(self) -> str:
        """What reports call it: all but the network and the target, which are in the name of the arch."""
        kind = "prune" if self.target_macs else "prune unstructured"
        usual = (selection.CRITERIA if self.target_macs else selection.OF_WEIGHTS)[0]
        said = {"criterion": self.criterion if self.criterion != usual else None, "magnitude": self.magnitude}
        said |= {"steps": self.steps if self.steps != 5 else None, "method": self.method}
        said |= {"lr-scale": self.lr_scale if self.lr_scale != 0.5 else None}
        said |= {"round": self.round if self.round != 1 else None}
        return ", ".join([kind, *(f"{name} {value}" for name, value in said.items() if value is not None)])

    def name(self, found: ArchFile) -> str:
        """The result's."""
        if self.target_macs:
            return f"{found.name}, pruned to {format_quantity(self.target_macs, 'macs')} MACs"
        return f"{found.name}, {100 * self.target_sparsity:g} % sparse"

    def recipe(self, common, begun: Path, data: str) -> Recipe:
        """The recipe of the whole run: that of the net's own training, plain training unless an arm says else."""
        return common.settings({"arm": self.arm}, arm=self.method or "baseline", begun=begun, data=data)

    def step_recipe(self, recipe: Recipe, magnitude: float | None) -> Recipe:
        """That of one step's fine-tuning: its part of the length, its learning rate, its magnitude."""
        views = recipe.views
        if magnitude is not None:
            train = views["train"]
            if recipe.difficulty.policy == "drive":
                raise BadInput(f"--magnitude {self.magnitude}: difficulty.policy = drive decides on it; leave one out")
            if train.policy not in ("none", "randaugment"):
                other = f"the recipe's view has policy {train.policy}, which has none"
                raise BadInput(f"--magnitude {self.magnitude}: {other}; use --set views.train.policy=randaugment")
            views = views | {"train": at_magnitude(train, Constant(magnitude))}
        return replace(recipe, times=recipe.times / self.steps, lr=recipe.lr * self.lr_scale, views=views)


# --- the command --------------------------------------------------------------------------------------------


def command(asked: Asked, common) -> TrainingResult:
    """Check everything, open the run, prune and fine-tune, and print where the result is; the run's result."""
    if common.resume:
        return _resume(asked, common)
    setting = asked.setting()
    if asked.source is None:
        raise BadInput("prune needs --from: the folder of a finished run of train or netaug-train, like runs/train-1")
    refuse_existing(common.run)
    found, net, facts = finished_run(asked.source)
    begun = asked.source / "recipe.toml"
    recipe = setting.recipe(common, begun, load(begun, Recipe).data.name)
    runtime = open_runtime(common.device, recipe.bf16, common.profile)
    _check(setting, recipe, net, found, runtime)
    data = load_data(recipe, found.plan.resolution, sources=(asked.source / MODEL,))
    if list(facts.get("classes", data.classes)) != list(data.classes):
        raise BadInput(f"{asked.source} was trained on other classes than those of {data.name}; give data of the same")
    check_teacher(found, recipe, lambda: data)
    # refuses one that was trained on test images
    other_split(str(asked.source), asked.source / MODEL, data, "give another --from")
    warn_of_other_splits(_of_other_splits(found, str(asked.source), recipe, data))
    warn_of_curves(curves_of(setting.step_recipe(recipe, selection.magnitudes(setting.magnitude, 2)[0])), lambda: data)
    with RunDir.create(VERB, recipe, common.run) as run, stopping(VERB, run):
        found.save(run.path / BASE)
        save_net(run.path / TUNED, net, steps=[])
        run.note(teacher=teacher_digest(recipe.teacher.source))
        write_job(run, VERB, data.record, **asdict(setting))
        return Pruning(found, setting, recipe, data, runtime, run).carry_through()


def _resume(asked: Asked, common) -> TrainingResult:
    with resumed(VERB, common, asked) as (run, job, common, asked):
        path = run.path
        setting = Setting(**{key: job[key] for key in Setting.__dataclass_fields__ if key in job})
        asked.check_same(setting, path)
        begun = path / "recipe.toml"
        recipe = load(begun, Recipe)
        data = recipe.data.name
        if common.recipe is None:  # what the run was begun with has the arm in it
            recipe = common.settings({}, begun=begun, data=data)
        else:
            recipe = setting.recipe(common, begun, data)
        run.check_settings(recipe, (*CHANGE_NOTHING, *moved_teacher(run.environment().get("teacher"), recipe)))
        if run.finished:
            say(f"{path} is finished already")
            return read_result(path)
        found, runtime = archfile.read(str(path / BASE)), open_runtime(common.device, recipe.bf16, common.profile)
        recipe = at_path(recipe, common.data)
        data = load_data(recipe, found.plan.resolution, begun_record(run, recipe))
        run.go_on_with(recipe)
        return Pruning(found, setting, recipe, data, runtime, run).carry_through()


def finished_run(path: Path) -> tuple[ArchFile, Net, dict]:
    """The arch file, the net and what its file says of its images, of a finished training. Raises BadInput."""
    rule = "give the folder of a finished run of train or netaug-train, like runs/train-1"
    if not path.is_dir():
        raise BadInput(f"--from {path} is no folder; {rule}")
    if not RunDir(path).finished:
        begun = (path / "recipe.toml").is_file()
        state = f"is not finished; go on with it by --resume, or {rule}" if begun else f"holds no run; {rule}"
        raise BadInput(f"--from {path} {state}")
    for name in (MODEL, ARCH, "recipe.toml"):
        if not (path / name).is_file():
            raise BadInput(f"--from {path} has no {name}, so it is not the run of a training; {rule}")
    found, net = archfile.read(str(path / ARCH)), load_net(path / MODEL)
    if found.plan != net.plan:
        raise BadInput(f"--from {path}: {ARCH} and {MODEL} are not of the same net; restore them, or train again")
    result = read_result(path)
    scores = {key: score for key, score in result.scores().items() if key != result.metric.key("train")}
    kept = {**scores, "train_macs": result.train_macs, "data_key": result.data_key}
    kept["sparsity"], told = selection.sparsity(net)["prunable"], tensorfile.facts(path / MODEL)
    kept["val_key"] = told.get("val_key", "")
    facts = {"source": kept, "pruned": found.pruned}
    return ArchFile(found.plan, found.name, facts=facts), net, told


def _of_other_splits(found: ArchFile, source: str, recipe: Recipe, data: Data) -> list[str]:
    """The net that is pruned, and a teacher, where they had other validation images."""
    others, had = of_other_splits(found, replace(recipe, init="scratch"), data), found.facts["source"]
    known = had["val_key"] == data.val_key if had.get("val_key") else had["data_key"] == data.key
    return others if known else [source, *others]


def _check(setting: Setting, recipe: Recipe, net: Net, found: ArchFile, runtime: Runtime) -> None:
    """What can be refused before the data are read."""
    if recipe.teacher.source == "supernet":
        none = "--set teacher.source='' --set teacher.macs=0 --set difficulty.policy=none"
        remedy = f"give --set teacher.source=RUN --set teacher.macs=0, or none: {none}"
        rule = "was taught by its supernet, which a pruned net is no part of"
        raise BadInput(f"--from {setting.source} {rule}; {remedy}")
    info = datasets.describe(recipe.data)
    classes = task_of(recipe, info).outputs(info)
    if classes != net.plan.classes:
        theirs = f"{recipe.data.name} has {classes} classes, {found.name} {net.plan.classes}"
        raise BadInput(f"--data {theirs}; leave --data out, or give data of the same classes")
    if setting.target_macs:
        start, least = cost(net.plan).macs, _least(net.plan, setting.round)
        multiples = f" with channels in multiples of {setting.round} (--round)" if setting.round > 1 else ""
        if least >= start:
            finer = (d for d in (8, 4, 2, 1) if d < setting.round and _least(net.plan, d) < start)
            remedy = next((f"give less, like {d}" for d in finer), "prune another net")
            raise BadInput(f"--round {setting.round}: {found.name} can lose nothing{multiples}; {remedy}")
        if not least <= setting.target_macs < start:
            rule = f"{found.name} has {start} MACs, and its smallest possible net{multiples} {least}"
            remedy = f"give at least {least}, below {start} ({format_quantity(start, 'macs')})"
            raise BadInput(f"--target-macs {format_quantity(setting.target_macs, 'macs')}: {rule}; {remedy}")
    else:
        zeros = found.facts["source"]["sparsity"]
        if zeros >= setting.target_sparsity:
            raise BadInput(
                f"--target-sparsity {setting.target_sparsity:g}: {100 * zeros:.3g} % of the weights are zero already; "
                f"give above {zeros:.3g}"
            )
        if recipe.method == "netaug":
            raise BadInput("--method netaug reorders channels, which --unstructured cannot follow; leave it out")
    last = net.plan
    if setting.target_macs:  # one of as many MACs, which a method must have room for too
        last = _some_plan(net.plan, setting.target_macs, setting.round)
    for magnitude in selection.magnitudes(setting.magnitude, setting.steps):
        for plan in (net.plan, last):
            _job(setting.step_recipe(recipe, magnitude), plan, found, runtime, recipe.batch)


def _least(plan: Plan, divisor: int) -> int:
    """The MACs of the smallest net that pruning can make of it."""
    return cost(selection.with_sizes(plan, selection.least_sizes(plan, divisor))).macs


def _some_plan(plan: Plan, macs: float, divisor: int, least: Mapping | None = None) -> Plan:
    """One of as many MACs as a step will have, which is not known before the weights of the step before are."""
    scores = {name: torch.arange(group.size) / group.size for name, group in channel_groups(plan).items()}
    return selection.smaller(plan, scores, macs, least or selection.least_sizes(plan, divisor), divisor)


def _job(
    recipe: Recipe, plan: Plan, found: ArchFile, runtime: Runtime, images: int, *, pruned: float = 0.0,
    start: Path | None = None,
) -> Job:  # fmt: skip
    """The fine-tuning of one step."""
    return make_job(
        recipe, recipe.chosen_method(), Base(plan, pruned=pruned), images=images, runtime=runtime, inherit=start,
        teacher=teacher_macs(found, recipe.teacher),
    )  # fmt: skip


# --- the work -----------------------------------------------------------------------------------------------


class Pruning:
    """A run at work: from the net of its last finished step on, through the others, to the result."""

    def __init__(
        self, found: ArchFile, setting: Setting, recipe: Recipe, data: Data, runtime: Runtime, run: RunDir
    ):
        self.found, self.setting, self.recipe = found, setting, recipe
        self.data, self.runtime, self.run = data, runtime, run
        self.scorer: Scorer = make_scorer(recipe, data, runtime)
        self.teacher = teacher_of(found, recipe, data, runtime, self.scorer)
        self.least = selection.least_sizes(found.plan, setting.round)
        self.magnitudes = selection.magnitudes(setting.magnitude, setting.steps)
        if setting.target_macs:
            self.goals = selection.targets(cost(found.plan).macs, setting.target_macs, setting.steps)
        else:  # the weights that are left, as a share
            there = 1 - found.facts["source"]["sparsity"]
            self.goals = selection.targets(there, 1 - setting.target_sparsity, setting.steps)

    def carry_through(self) -> TrainingResult:
        """All steps that are left, then the result; returns it."""
        rows = tensorfile.read(self.run.path / TUNED)[1]["steps"]
        begun = len(rows)
        for i in range(begun, self.setting.steps):
            rows = [*rows, self._step(i, rows, announced=i == begun)]
        return self._finish(rows)

    def _step(self, i: int, rows: list[dict], announced: bool) -> dict:
        """Prune, fine-tune, and save the net with the rows so far: one file, so that a kill leaves a whole step."""
        folder, title = self.run.path, f"step {i + 1} of {self.setting.steps}"
        before = self._cut(i)
        plan = load_net(folder / CUT).plan
        recipe = self.setting.step_recipe(self.recipe, self.magnitudes[i])
        pruned, images = self._pruned(plan, self.goals[i]), len(self.data.train)
        job = _job(recipe, plan, self.found, self.runtime, images, pruned=pruned, start=folder / CUT)
        trainer = make_trainer(job, self.data, self.runtime, self.scorer, teacher=self.teacher)
        if self.setting.target_sparsity:
            kept = selection.masks(trainer.net)
            trainer.optimizer.register_step_post_hook(lambda *_: selection.apply_masks(trainer.net, kept))
        metric = self.scorer.task.metric
        shown = f"validation {metric.label} {metric.show(before)} before"
        per_step = announce(trainer, title, f"{describe(cost(plan))}, {shown}")
        if announced:
            self._announce_all(i, job, per_step)
        carry_out(trainer, self.run, title)
        net = trainer.product()
        total, view = cost(plan), trainer.views["train"]
        row = {
            "step": i + 1, "macs": total.macs, "params": total.params,
            "magnitude": view.magnitude(0.0) if view.policy == "randaugment" else self.magnitudes[i],
            "sparsity": selection.sparsity(net)["prunable"], "goal": self.goals[i],
            f"{metric.key('val')}_before": before, metric.key("val"): trainer.best_score,
            metric.key("train"): trainer.best_row()[metric.key("train")],
            "epochs": trainer.step / job.length.steps_per_epoch,
            "train_macs": trainer.macs, "seconds": round(trainer.seconds, 2), "history": trainer.history,
        }  # fmt: skip
        save_net(folder / TUNED, net, steps=[*rows, row])
        return row

    def _pruned(self, plan: Plan, left: float) -> float:
        """The share of the first net of all that is gone: of its MACs, and of the weights of which `left` are left."""
        of_start = cost(plan).macs / cost(self.found.plan).macs if self.setting.target_macs else left
        return 1 - (1 - self.found.pruned) * of_start

    def _cut(self, i: int) -> float:
        """Write the pruned net that step `i` fine-tunes, unless it is there; its validation score."""
        path = self.run.path / CUT
        if path.is_file() and (state := tensorfile.read(path)[1])["step"] == i:
            return state[self.scorer.task.metric.key("val")]
        (self.run.path / CHECKPOINT).unlink(missing_ok=True)  # of the step before
        net = load_net(self.run.path / TUNED)
        if self.setting.target_macs:
            scores = selection.importance(net, self.setting.criterion)
            plan = selection.smaller(net.plan, scores, self.goals[i], self.least, self.setting.round)
            net = selection.narrowed(net, plan, scores)
        else:
            net = selection.sparsify(net, 1 - self.goals[i], self.setting.criterion)
        judged = self.scorer.calibrated(net.to(self.runtime.device), net.plan)
        val = self.scorer.score(judged, self.data.val)
        save_net(path, net, step=i, **{self.scorer.task.metric.key("val"): val})
        return val

    def _announce_all(self, i: int, job: Job, per_step: float) -> None:
        """Say how long all steps that are left take, at the rate of forward MACs of the one at hand."""
        left, plan = self.setting.steps - i, job.base.plan
        rate, seconds = per_step / (job.length.batch * job.length.macs_per_image), 0.0
        for goal, magnitude in zip(self.goals[i:], self.magnitudes[i:], strict=True):
            then = _some_plan(plan, goal, self.setting.round, self.least) if self.setting.target_macs else plan
            recipe = self.setting.step_recipe(self.recipe, magnitude)
            length = _job(recipe, then, self.found, self.runtime, len(self.data.train)).length
            seconds += length.seconds or rate * length.macs
        say(f"  all {left} steps that are left: about {format_duration(seconds)}")

    def _start(self) -> dict:
        """The cost and the figures of the net that pruning starts from, as its own run tells them."""
        return {**cost(self.found.plan)._asdict(), **self.found.facts["source"]}

    def _finish(self, rows: list[dict]) -> TrainingResult:
        """Read the test images, once, and write the result; returns it."""
        setting, run, data = self.setting, self.run, self.data
        for passed in (CHECKPOINT, CUT):
            (run.path / passed).unlink(missing_ok=True)
        net = load_net(run.path / TUNED).to(self.runtime.device)
        name, total, zeros = setting.name(self.found), cost(net.plan), selection.sparsity(net)
        others = _of_other_splits(self.found, "", self.recipe, data)
        known = {**preprocessing(data), **self.scorer.task.facts}
        save_net(run.path / MODEL, net, **known, val_key=SEVERAL if others else data.val_key)
        # zeros that a later training need not keep are none for it
        pruned = self._pruned(net.plan, 1.0)
        facts = {"data": self.recipe.data.name, "pruned_from": self.found.name, "pruned": pruned}
        ArchFile(net.plan, name, weights=run.path / MODEL, facts=facts).save(run.path / ARCH)
        test = data.finish()
        metric, test_score = self.scorer.task.metric, test_of(net, test, self.scorer, run)
        summed = {key: sum(row[key] for row in rows) for key in ("epochs", "train_macs", "seconds")}
        more = {
            "asked": asdict(setting), "sparsity": zeros, "start": self._start(),
            "steps": [{key: value for key, value in row.items() if key != "history"} for row in rows],
            **known,
        }  # fmt: skip
        result = TrainingResult(
            arm=self.recipe.arm, method=self.recipe.method, arch=name, data=data.name, data_key=data.key,
            seed=self.recipe.seed, init="inherit", **total._asdict(), metric=metric,
            val_score=rows[-1][metric.key("val")], train_score=rows[-1][metric.key("train")],
            history=tuple(_history(rows)), test_score=test_score, test_images=len(test), **summed,
            peak_memory=self.runtime.peak_memory(), device=self.runtime.describe(), more=more, path=run.path,
        )  # fmt: skip
        run.finish(result.to_json())
        say(table(rows, self._start(), metric))
        if setting.target_sparsity:
            say(
                f"{100 * zeros['prunable']:.2f} % of the weights of convolutions (not depthwise) and linear layers are "
                f"zero, {100 * zeros['all']:.2f} % of all parameters:"
            )
            layers = list(zeros)[:-2]
            say("\n".join(f"  {layer:{max(map(len, layers))}s}{100 * zeros[layer]:8.2f} %" for layer in layers))
            say(f"MACs are unchanged, {format_quantity(total.macs, 'macs')}: dense kernels multiply zeros too")
        say(
            f"test {metric.label} {metric.show(result.test_score)} on {result.test_images} images "
            f"(validation {metric.show(result.val_score)}); model, arch and figures in {run.path}"
        )
        return result


def _history(rows: list[dict]) -> list[dict]:
    """The epochs of all steps as those of one training."""
    joined, past = [], dict.fromkeys(("epoch", "step", "train_macs", "seconds"), 0)
    for row in rows:
        joined += [epoch | {key: epoch[key] + past[key] for key in past} for epoch in row["history"]]
        past = {key: joined[-1][key] for key in past}
    return joined


def table(rows: list[dict], start: dict, metric: Metric) -> str:
    """The steps for people, after what they begin with: the validation score once pruned, and once fine-tuned."""
    head = ("step", "MACs", "params", "zeros", "magnitude", "pruned", "tuned")
    lines = [head]
    shown = [i for i, name in enumerate(head) if name != "zeros" or any(row["sparsity"] for row in rows)]
    val = metric.key("val")
    for row in ({"step": "start", f"{val}_before": None, "magnitude": None, "sparsity": None, **start}, *rows):
        zeros = "-" if row["sparsity"] is None else f"{100 * row['sparsity']:.2f} %"
        pruned, tuned = ("-" if x is None else metric.show(x) for x in (row[f"{val}_before"], row[val]))
        magnitude = "-" if row["magnitude"] is None else f"{row['magnitude']:.3g}"
        counts = (format_quantity(row[key], key) for key in ("macs", "params"))
        lines.append((str(row["step"]), *counts, zeros, magnitude, pruned, tuned))
    return "\n".join(f"{line[0]:6s}" + "".join(f"{line[i]:>11s}" for i in shown[1:]) for line in lines)

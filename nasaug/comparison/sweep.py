"""`sweep`: find the augmentation magnitude that suits a network, by its size, and fit a curve to it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from ..arch import archfile
from ..arch.archfile import ArchFile
from ..arch.cost import cost
from ..arch.derived import below
from ..arch.plan import Plan, plan
from ..arch.space import Arch
from ..augment import USUAL, at_magnitude
from ..config.schedule import Schedule
from ..core import files
from ..core.errors import BadInput, RunFault, arg, unknown
from ..core.progress import Listener, heard_by, say
from ..core.streams import this_command
from ..core.units import format_quantity, parse_quantity
from ..data import Record, describe
from ..pool.storage import absolute_storage, check_storage
from ..reporting.wording import failures
from ..rundirs.folder import RunDir, without_passwords
from ..rundirs.job import kept_as
from ..training.begin import create_or_resume
from ..training.device import open_runtime
from ..training.job import job_for, task_of
from ..training.options import Options
from ..training.provenance import warn_of_curves
from ..training.recipe import Recipe
from ..training.train import fitted
from .arguments import arms_of
from .cells import (
    Cell,
    Sets,
    Setting,
    check_begun,
    check_options,
    check_registered,
    common,
    folder_name,
    joined,
    key_of,
    placed,
    plain_name,
    read_data,
    record_of,
    resumed,
)
from .pruners import PRUNERS, RIVALS, PolicyWatch, saved
from .sweep_results import FORMAT, magnitude_of, metric_of, summarise, table, write
from .trainings import resume_command, train_missing

SIZES = Path("sizes")  # the folder for the nets' arch files in a run
STEPS = 400  # rungs of the width ladder on which sizes are looked up
NEAR = 0.1  # maximum relative deviation of a net's MACs from the size asked for


def sweep(
    arch: str | os.PathLike[str] | None = None, *, sizes: str | Sequence[str | float | Path] | None = None,
    policies: str | Sequence[str | float | Path] | None = None, methods: str | Sequence[str | Path] | None = None,
    seeds: int | None = None, jobs: int | None = None, cells: str | Path | None = None,
    resolution: int | None = None, pruner: str | None = None, storage: str | None = None,
    data: str | Path | None = None, recipe: str | Path | None = None,
    set: Mapping[str, object] | Sequence[str] = (), device: str = "auto", run: str | Path | None = None,
    resume: bool = False, on_event: Listener | None = None,
) -> Sweep:  # fmt: skip
    """Find the augmentation magnitude that suits a network, by its size: a grid of trainings, a heat map, a fitted
    curve.

    Args:
        arch: the network whose widths are scaled to the sizes; defaults to mobilenetv2.
        sizes: MACs such as "0.1M", or arch files; defaults to 0.1M, 0.25M, 0.6M, 1.5M, 3M.
        policies: magnitudes (0 to 30), "from:to" over training, or a curve's file; defaults to 0, 4, 9, 14.
        methods: arms as in `compare`; defaults to baseline.
        seeds: the number of seeds for each combination; defaults to 3.
        jobs: how many trainings run at a time; defaults to one per core.
        cells: the folder for the trainings, where finished ones are reused; defaults to a folder in the run.
        resolution: image size in px; defaults to the data's.
        pruner: stops policies that look hopeless, though they might recover: median, wilcoxon or halving; none by
            default.
        storage: the URL of a storage, as for `nasaug.search`, through which further processes (`nasaug cell-worker`)
            train cells too, on this machine or others; none by default.
        data, recipe, set, device, run, resume: see `nasaug.training.options.Options`; `set` may be a mapping.
        on_event: called with each line and each step of progress (nasaug.core.progress).

    Raises BadInput, Stopped, or RunFault (also if some trainings failed: the others are still reported).
    """
    options = Options.of(data, recipe, set, None, device, run, resume)
    path, folder = (None if arch is None else archfile.path_of(arch)), (None if cells is None else Path(cells))
    job = SweepJob(
        path, joined(sizes), joined(policies), joined(methods), seeds, jobs, folder, resolution, pruner, options,
        storage,
    )  # fmt: skip
    with heard_by(on_event):
        return create_or_resume(job)


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep: the contents of sweep.json; the heat map and the curves are beside it."""

    run: Path
    summary: dict[str, Any]

    def __str__(self) -> str:
        """The table."""
        return table(self.summary, metric_of(self.summary))


@dataclass(frozen=True, kw_only=True)
class SweepSetting(Setting):
    """What a sweep's job.json stores. `nets_data` is the data set that the arch files name, `curves` holds the contents
    of the curve files among the policies, `nets` the names of the nets' files."""

    arch: str = "mobilenetv2"
    sizes: str = "0.1M,0.25M,0.6M,1.5M,3M"
    policies: str = "0,4,9,14"
    methods: str = "baseline"
    seeds: int = 3
    resolution: int | None = None
    pruner: str = "none"
    nets_data: str | None = None
    curves: dict[str, Any] = field(default_factory=dict)
    nets: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ready:
    """A sweep whose inputs have all been validated. The cells' paths may be relative to the run."""

    nets: list[ArchFile]
    policies: dict[str, Schedule]
    cells: list[Cell]
    setting: SweepSetting
    recipe: Recipe
    sets: Sets

    @property
    def record(self) -> Record:
        return record_of(self.recipe, self.nets[0], self.sets)


@dataclass(frozen=True)
class SweepJob:
    """What to sweep over. None means not given."""

    arch: str | None = None
    sizes: str | None = None
    policies: str | None = None
    methods: str | None = None
    seeds: int | None = None
    jobs: int | None = None
    cells: Path | None = None
    resolution: int | None = None
    pruner: str | None = None
    options: Options = Options()
    storage: str | None = None
    verb, extends, together = "sweep", False, False

    def __post_init__(self) -> None:
        # absolute, so that a run resumed from another working directory uses the same file
        object.__setattr__(self, "storage", self.storage and absolute_storage(self.storage))

    @property
    def _said(self) -> dict[str, Any]:
        """The sweep's own arguments that were given."""
        names = ("arch", "sizes", "policies", "methods", "seeds", "resolution", "pruner")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def _check(self) -> None:
        check_options(self, "a sweep")
        if self.pruner is not None and self.pruner not in PRUNERS:
            raise unknown(arg.pruner, self.pruner, PRUNERS)

    def prepare(self) -> Ready:
        self._check()
        options, sets, setting = self.options, Sets(), SweepSetting(**self._said, **common(self))
        setting = replace(setting, nets_data=data_of(setting.sizes))
        plain = options.settings({}, arm="baseline", data=setting.nets_data)
        nets = nets_of(setting, plain, self.arch)
        policies = magnitudes_of(setting.policies)
        setting = replace(setting, nets=[f"{net.name}.json" for net in nets], curves=_curves(policies))
        if setting.pruner != "none" and len(policies) <= RIVALS:
            rule = f"ends a policy when {RIVALS} others have ended, and this sweep has {len(policies)}"
            raise BadInput(f"{arg.pruner} {setting.pruner} {rule}; give more by {arg.policies}, or {arg.pruner} none")
        cells = make_cells(nets, policies, setting, options, sets)
        if self.cells:
            check_begun(cells)
        check_registered(cells, sets)
        if self.storage is not None:
            check_storage(self.storage, resumed=False)
        return Ready(nets, policies, cells, setting, plain, sets)

    def write(self, run: RunDir, ready: Ready) -> dict[str, Any]:
        (run.path / SIZES).mkdir()
        for net, name in zip(ready.nets, ready.setting.nets, strict=True):
            net.save(run.path / SIZES / name)
        return asdict(ready.setting)

    def restore(self, run: RunDir, kept: dict[str, Any]) -> Ready:
        self._check()
        setting = kept_as(SweepSetting, kept)
        options, begun, sets = resumed(self, run, setting, setting.nets_data, self._said)
        policies = magnitudes_of(setting.policies)
        for path, curve in _curves(policies).items():
            if setting.curves and setting.curves.get(path) != curve:
                other = f"the curve {path} is another than when {run.path} began"
                raise BadInput(f"{other}; restore it, or start anew")
        nets = [archfile.read(str(run.path / SIZES / name)) for name in setting.nets]
        return Ready(nets, policies, make_cells(nets, policies, setting, options, sets), setting, begun, sets)

    def carry_out(self, run: RunDir, ready: Ready) -> None:
        """Train every unfinished cell, and write the table, the curves and the pictures."""
        nets, setting, cells = ready.nets, ready.setting, placed(ready.cells, run)
        policies, methods = list(ready.policies), arms_of(setting.methods)
        grid = f"{len(nets)} sizes x {len(policies)} policies x {len(methods)} methods x {setting.seeds} seeds"
        followed = [(f"{arg.policies} {p}", magnitude) for p, magnitude in ready.policies.items() if _is_curve(p)]
        warn_of_curves(followed, partial(read_data, cells[0].recipe, nets[0], ready.sets))
        metric = task_of(cells[0].recipe, describe(cells[0].recipe.data)).metric
        watch = None if setting.pruner == "none" else PolicyWatch(setting.pruner, cells, run, metric)
        storage = self.storage or setting.storage
        failed = train_missing(cells, grid, run, self.options.device, self.jobs, ready.sets, watch, storage)
        done, out = [cell for cell in cells if cell.finished], watch.out if watch else {}
        summary = summarise(done, nets, policies, methods, out, metric) | {
            "failed": failed, "pruned": {"pruner": setting.pruner, **saved(cells, out)},
            "command": without_passwords(this_command()),
        }  # fmt: skip
        write(run, summary, done, metric)
        say(table(summary, metric))
        for told in failures(summary):
            say(f"failed: {told}")
        say(f"figures, heat map and curve in {run.path}: sweep.json, sweep.csv, sweep.png, curve-METHOD.json")
        if failed:
            raise RunFault(f"{len(failed)} of {len(cells)} cells failed; try them again with {resume_command(run)}")
        sizes = [net.name for net in nets]
        run.finish({"cells": len(cells), "sizes": sizes, "policies": policies, "methods": methods, "pruned": len(out)})

    def result(self, run: RunDir) -> Sweep:
        return Sweep(run.path, files.read_json(run.sweep_file, FORMAT))


# --- sizes and policies ----------------------------------------------------------------------------------------


def _items(sizes: str) -> list[str]:
    return [part.strip() for part in sizes.split(",") if part.strip()]


def data_of(sizes: str) -> str | None:
    """The data set named by the arch files among the sizes; None if they name none or several."""
    named = {archfile.read(item).facts.get("data") for item in _items(sizes) if archfile.is_path(item)}
    return named.pop() if len(named) == 1 else None


def nets_of(setting: SweepSetting, recipe: Recipe, arch: str | None = None) -> list[ArchFile]:
    """The nets to train, ascending in MACs: arch files, or the setting's `arch` with all its widths scaled to a
    size. `arch` is the argument, None if it was not given.

    Raises BadInput for a size that no width reaches, naming the nearest ones, and for duplicate nets."""
    sizes, px = setting.sizes, setting.resolution
    base = fitted(setting.arch, px, recipe)
    scaled = None
    nets: list[ArchFile] = []
    for item in _items(sizes):
        if archfile.is_path(item):
            net = fitted(item, px, recipe)
        else:
            scaled = scaled or _scaled(base.plan)
            net = _of_size(item, scaled, base)
        name = plain_name(net.name).strip(".") or "net"  # also used as a file name
        for other in nets:
            if other.plan == net.plan:
                raise BadInput(f"{arg.sizes} {item}: that is the same net as {other.name}; give each once")
            if other.name == name:
                raise BadInput(f"{arg.sizes} {item}: two nets are named {name}; give one another name in its arch file")
        if net.start is not None:
            say(f"{name}: fresh weights, as all nets of a sweep have; those in {net.start} are left aside")
        nets.append(replace(net, name=name, space=None, arch=None, supernet=None, weights=None))
    if not nets:
        raise BadInput(f"{arg.sizes} {sizes!r}: give one or more, like 0.1M,0.6M,3M")
    if arch is not None and scaled is None:
        raise BadInput(
            f"{arg.arch} {arch}: all {arg.sizes} are arch files, so it is of no use; "
            f"leave it out, or give a size"
        )
    return sorted(nets, key=lambda net: cost(net.plan).macs)


def _scaled(base: Plan) -> dict[int, Plan]:
    """The base at each width factor, by MACs; resolution and depth are unchanged."""
    space, _ = below(base, tuple(i / STEPS for i in range(1, STEPS)))
    plans = (plan(space, Arch(space.name, (w,)), base.classes) for w in space.axes[0].choices)
    return {cost(p).macs: p for p in plans}


def _of_size(asked: str, scaled: dict[int, Plan], base: ArchFile) -> ArchFile:
    try:
        macs = parse_quantity(asked, "macs")
    except BadInput as error:
        raise BadInput(
            f"{arg.sizes}: {error.line}, or the path of an arch file", value=asked, rule=error.rule,
            remedy=f"{error.remedy}, or the path of an arch file",
        ) from None  # fmt: skip
    nearest = min(scaled, key=lambda m: abs(m - macs))
    if abs(nearest - macs) > NEAR * macs:
        near = [max((m for m in scaled if m < macs), default=None), min((m for m in scaled if m > macs), default=None)]
        shown = " and ".join(format_quantity(m, "macs") for m in near if m is not None)
        whose = f"no width of {base.name} at {base.plan.resolution} px has as many MACs; the nearest: {shown}"
        raise BadInput(f"size {asked}: {whose}; give that by {arg.sizes}, or another {arg.arch} or {arg.resolution}")
    return ArchFile(scaled[nearest], f"{base.name}-{asked}")


def magnitudes_of(policies: str) -> dict[str, Schedule]:
    """The policies by name. Raises BadInput for one that is no magnitude, given twice, or named with an @."""
    names = [name.strip() for name in policies.split(",") if name.strip()]
    for name in names:
        if "@" in name:
            raise BadInput(
                f"{arg.policies} {name}: what a sweep names by METHOD@POLICY has no @; "
                f"move or rename the file"
            )
    found = {name: magnitude_of(name) for name in names}
    if not names or len(set(found.values())) < len(names):
        raise BadInput(f"{arg.policies} {policies!r}: give one or more, each once, like 0,4,9,0:9")
    return found


def _is_curve(policy: str) -> bool:
    return policy.endswith(".json")


def _curves(policies: Mapping[str, Schedule]) -> dict[str, Any]:
    """The contents of the curve files among the policies."""
    return {policy: magnitude.to_plain() for policy, magnitude in policies.items() if _is_curve(policy)}


def make_cells(
    nets: list[ArchFile], policies: Mapping[str, Schedule], setting: SweepSetting, options: Options, sets: Sets
) -> list[Cell]:
    """All cells, seed by seed; paths are relative to the run. An arm is named METHOD@POLICY.

    Raises BadInput for anything that can be rejected before training."""
    runtime = open_runtime(options.device)
    cells: list[Cell] = []
    known: dict[str, tuple[str, Path]] = {}
    methods = arms_of(setting.methods)
    plain = {method: _plain(method, setting, options) for method in methods}
    for method, recipe in plain.items():
        if recipe.data != plain[methods[0]].data:
            raise BadInput(f"{arg.methods} {method}: it changes the data; do that for all, by {arg.data} or {arg.set}")
    data = read_data(plain[methods[0]], nets[0], sets)
    for seed in range(setting.seeds):
        for net, name in zip(nets, setting.nets, strict=True):
            for method, policy in product(methods, policies):
                seeded = replace(plain[method], seed=seed, arm=f"{method}@{policy}")
                recipe = _at(seeded, policies[policy], cost(net.plan).macs)
                if seed == 0:
                    job_for(net, recipe, runtime, len(data.train)).check_teacher(partial(read_data, recipe, net, sets))
                key = key_of(net, "", recipe, data)
                # a curve may give this net the magnitude of another policy: one training serves both
                place = setting.cells_folder / folder_name(f"{net.name}_{recipe.arm}", seed, key)
                first, place = known.setdefault(key, (method, place))
                if first != method:
                    alike = f"{arg.methods}: {first} and {method} are the same training at magnitude {policy}"
                    raise BadInput(f"{alike}; leave one of them out")
                cells.append(Cell(recipe.arm, seed, recipe, SIZES / name, place))
    return cells


def _plain(method: str, setting: SweepSetting, options: Options) -> Recipe:
    """The method's recipe before a magnitude is set. Raises BadInput if the method sets its own magnitude."""
    recipe = options.settings({}, arm=method, data=setting.nets_data)
    view = recipe.views["train"]
    if recipe.difficulty.policy == "drive":
        raise BadInput(f"{arg.methods} {method}: its teacher decides on the magnitude; use compare for it")
    if view.policy == "randaugment" and view.magnitude != USUAL:
        own = f"the training view has magnitude {view.magnitude.to_plain()}"
        raise BadInput(f"{arg.methods} {method}: {own}, and a sweep's policies set it; leave it out")
    return recipe


def _at(recipe: Recipe, policy: Schedule, macs: int) -> Recipe:
    """The recipe with the policy's magnitude for a net with this many MACs."""
    try:
        view = at_magnitude(recipe.views["train"], policy.of_net(macs))
        return replace(recipe, views=recipe.views | {"train": view})
    except BadInput as error:
        raise error.within(f"{recipe.arm}: ") from None

"""The stages of a search: crop the space to the budget, train the supernet, run the study, choose a finalist."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from .. import data as datasets
from ..arch import latency
from ..arch.binding import bounds
from ..arch.blocks import BLOCKS
from ..arch.cost import (
    LABELS,
    NAMES,
    Budget,
    Cost,
    cost,
    cost_of,
    crop,
    describe,
    largest_within,
    most_macs,
    reach,
    sample_near,
    within_reach,
)
from ..arch.plan import Outputs, Plan, plan, whole
from ..arch.space import Space
from ..arch.spacefile import load
from ..core.errors import BadInput, arg
from ..core.progress import expect, say, stage, stages_of
from ..core.signals import deferred_stop
from ..core.units import format_duration, format_quantity
from ..data import Data, Info, Record
from ..methods import Base, SandwichWithin
from ..nets.net import Net
from ..nets.store import digest, load_net, save_net
from ..pool.storage import check_storage, own_storage, storage_faults
from ..rundirs.folder import RunDir
from ..training.device import Runtime, open_runtime
from ..training.job import Job, announce, load_data, make_job, make_scorer, make_trainer, task_of
from ..training.loop import Trainer
from ..training.options import Options
from ..training.provenance import curves_of, warn_of_curves
from ..training.recipe import Recipe
from ..training.to_end import train_to_end
from .candidates import Candidate
from .finalists import SHAPE, PlayOff, begun_with
from .ranges import candidates_of, macs_range, report_reach
from .results import write_results
from .shapes import KINDS, design, designs, fixed
from .study import Search

ENOUGH = 0.5  # part of the net's own epochs: of a supernet with fewer it is told how little they say
MEASURED = (  # a test compares it with the page
    "at 1M MACs on CIFAR-10 searches with one found nets of 77.9 ± 0.8 %, without 78.1 ± 0.8 "
    "(docs/results/search_wins_1M.md)"
)
ROOM = 4  # the ceiling of search.least_epochs is at least this many times the smallest net
SMALL = 64  # px; images up to this size are searched in a space of their own by default
DEFAULT, DEFAULT_SMALL = "mobilenetv2", "tiny-images"
BEFORE = "mobilenetv2-small"  # that of small images when runs did not yet record the space that "auto" stood for


@dataclass(frozen=True)
class Request:
    """What to search for, in addition to the recipe. `timeout` is in seconds. `device` predicts latencies; one that
    predicts badly, or is of another space, must be trusted explicitly."""

    budget: Budget
    storage: str | None = None
    timeout: float | None = None
    device: latency.Table | None = None
    trusted: bool = False


@dataclass(frozen=True)
class Ready:
    """A search whose inputs have all been validated."""

    recipe: Recipe
    request: Request
    runtime: Runtime
    space: Space
    data: Data
    outputs: Outputs
    ceiling: int | None = None  # MACs above which nets are left out, if that is below the budget
    over: str = ""  # why nets above it are left out: they …
    onward: tuple[str, ...] = ()  # what is said in the commands to go on with: `Options.onward`

    @property
    def budget(self) -> Budget:
        """What the nets searched keep to: the request's budget, and the ceiling."""
        return self.request.budget if self.ceiling is None else replace(self.request.budget, macs=self.ceiling)

    @property
    def record(self) -> Record:
        return self.data.record

    @property
    def largest(self) -> Plan:
        """The supernet's plan."""
        return whole(self.space, self.outputs)


def open_space(
    recipe: Recipe, info: Info, budget: Budget, outputs: Outputs | None = None, device: latency.Table | None = None
) -> Space:  # fmt: skip
    """The recipe's space, limited to the data's resolution and cropped to the budget; with the latencies of `device`
    if that is given."""
    space = replace(load(_space_of(recipe, info, BEFORE), BLOCKS), device=device)
    for axis in space.axes:
        if axis.kind == "resolution":
            within = tuple(r for r in axis.choices if r <= info.size) or axis.choices[:1]
            space = space.trimmed({axis.name: within})
    cropped = within_reach if recipe.search.crop == "reach" else crop
    return cropped(space, budget, recipe.search.headroom, info.classes if outputs is None else outputs)


def _space_of(recipe: Recipe, info: Info, small: str) -> str:
    """The space's name or path; `small` is the one that "auto" stands for on small images."""
    return recipe.space if recipe.space != "auto" else small if info.size <= SMALL else DEFAULT


def prepare(
    recipe: Recipe, request: Request, options: Options, *, begun: Record | None = None, resumed: bool = False
) -> Ready:
    """Validate everything before a run folder exists, and report what the space offers. Raises BadInput."""
    if recipe.teacher.source:  # [difficulty] needs a teacher, so this covers it
        rule = "a search trains without a teacher, so without [difficulty] too"
        raise BadInput(f"teacher.source = {recipe.teacher.source}: {rule}; give both to the training that follows")
    runtime = open_runtime(options.device, recipe.bf16, options.profile)
    info = datasets.describe(recipe.data)
    if begun is None and not resumed:
        recipe = replace(recipe, space=_space_of(recipe, info, DEFAULT_SMALL))
    outputs = task_of(recipe, info).outputs(info)
    if request.device is not None:
        _check_device(request, open_space(recipe, info, Budget(), outputs), outputs)
    space = open_space(recipe, info, request.budget, outputs, request.device)
    able = reach(space, request.budget, outputs)
    largest = plan(space, space.largest, outputs)
    say(f"space {space.name} at up to {largest.resolution} px, {info.told}:")
    _check_known(recipe, able.smallest)
    say(report_reach(able, request.budget, bounds(space, request.budget, outputs)))
    images = load_data(recipe, largest.resolution, begun)
    ready = Ready(recipe, request, runtime, space, images, outputs, onward=options.onward)
    ready = _under_ceiling(_under_latency(ready, info), info)
    warn_of_curves(curves_of(recipe), lambda: ready.data)
    if request.storage is not None:
        check_storage(request.storage, resumed)
    return ready


def _check_device(request: Request, space: Space, outputs: Outputs) -> None:
    """Raises BadInput if the latency table should not decide in this space."""
    table = request.device
    assert table is not None
    say(f"latency: {table.name}, {table}; {table.checked}")
    if request.trusted:
        table.check(latency.all_parts(space, outputs))
        return
    table.check_space(space, outputs)
    if table.checked.doubt:
        rule = f"predicts badly: {table.checked.doubt}"
        remedy = f"measure again on a quiet machine, or give {arg.trust_table}"
        raise BadInput.of(argument="device_table", value=table.name, rule=rule, remedy=remedy)


def _under_latency(ready: Ready, info: Info) -> Ready:
    """The same search without the nets that have more MACs than the latency budget allows any, so that the space is
    cropped, and candidates are drawn, as under a MAC budget of that many."""
    budget = ready.request.budget
    if budget.latency is None:
        return ready
    allowed = math.ceil(most_macs(ready.space, budget, ready.outputs))
    limit = min(budget.macs or math.inf, cost_of(ready.space, ready.space.largest, ready.outputs).macs)
    if allowed >= limit:
        return ready
    latency_budget = format_quantity(budget.latency, "milliseconds")
    say(f"within {latency_budget}: nets of up to about {format_quantity(allowed, 'macs')} MACs")
    return _lowered(ready, info, allowed, f"take longer than {latency_budget}")


def _lowered(ready: Ready, info: Info, ceiling: int, over: str) -> Ready:
    """The same search under a ceiling of MACs; `over` is why nets above it are left out."""
    ready = replace(ready, ceiling=ceiling, over=over)
    return replace(ready, space=open_space(ready.recipe, info, ready.budget, ready.outputs, ready.request.device))


def _check_known(recipe: Recipe, of_any: Cost) -> None:
    """Raises BadInput for an objective, or a cost to pick by, that is not known for the space's nets."""
    asked = {name: ("objectives", name) for name in recipe.search.objectives}
    asked[recipe.search.pick.removeprefix("min-")] = ("pick", recipe.search.pick)
    for name, (argument, value) in asked.items():
        if name in NAMES and getattr(of_any, NAMES[name]) is None:
            rule, remedy = f"needs the {LABELS[NAMES[name]]} of networks", f"give {arg.device_table}"
            raise BadInput.of(argument=argument, value=value, rule=rule, remedy=remedy)


def _under_ceiling(ready: Ready, info: Info) -> Ready:
    """The same search without the nets that the training afterwards would train for too few epochs."""
    recipe, images = ready.recipe, len(ready.data.train)
    least, limit = recipe.search.least_epochs, ready.budget.macs
    if not least or recipe.epochs != "auto" or recipe.stop != "epochs":
        return ready
    whole = open_space(recipe, info, Budget(), ready.outputs)
    cpu, seen = not ready.runtime.accelerated, least * recipe.steps_of(images) * min(recipe.batch, images)
    pays = recipe.size_for(cpu, seen / recipe.times)
    pays = max(pays, ROOM * cost(plan(whole, whole.smallest, ready.outputs)).macs)
    if pays >= (math.inf if limit is None else limit):
        return ready
    asked = recipe.macs_for(cpu, pays) * recipe.times
    say(
        f"nets above {format_quantity(pays, 'macs')} MACs are left out: with train_macs = {asked:.2g} they would be "
        f"trained for fewer than {least:g} epochs afterwards; to have them, raise it by {arg.set} train_macs=…, or "
        f"give {arg.set} search.least_epochs=0"
    )
    return _lowered(ready, info, round(pays), "would be trained for too few epochs (search.least_epochs)")


def run_search(ready: Ready, run: RunDir) -> dict:
    """Train the supernet, search it, and write the results; returns the contents of result.json."""
    config = ready.recipe.search
    shapes = ["shapes"] if _tries_shapes(ready) else []
    judged = ["supernet", "candidates"] if config.strategy == "supernet" else []
    with own_storage(run.path) as own, stages_of(*shapes, *judged, "finalists"):
        return _run_search(ready, run, ready.request.storage or own)


def _run_search(ready: Ready, run: RunDir, storage: str) -> dict:
    recipe, request, data = ready.recipe, ready.request, ready.data
    ready, search, shapes = shaped(ready, run, storage)
    if recipe.search.strategy == "halving":
        return _halve(ready, search, run, shapes)
    search.net = supernet(ready, search, run).to(ready.runtime.device)
    search.of, search.run_path = depends(ready, run), run.path
    finalists = begun_with(run.finalists_file)
    if finalists:  # the study is over, even if a resumed run has time left
        search.config = replace(search.config, trials=finalists["candidates"])
    key = search.metric.key("val")
    with stage("candidates"), deferred_stop() as pending, storage_faults(search.storage):
        ranked = search.run(pending, lambda arch, judged, macs: run.log(
            "candidate", arch=arch, macs=macs, **{key: judged.score}
        ))  # fmt: skip
    begun = time.perf_counter()
    with stage("finalists"):
        chosen = search.filled(search.finalists(ranked, data.val), data.val)
        finalists = play_off(ready, search, run).decide(chosen, run)
    seconds = search.seconds + time.perf_counter() - begun
    return write_results(
        run, recipe, search, request.budget, ranked, finalists, seconds, shapes, ready.over, ready.onward
    )


def shaped(ready: Ready, run: RunDir, storage: str) -> tuple[Ready, Search, list[Candidate]]:
    """The search, without its supernet, in the shape that was chosen first; and all shapes tried, the best first. The
    space's own design, scaled to the budgets, is always among the finalists."""
    recipe, data = ready.recipe, ready.data
    search = Search(
        ready.space, ready.budget, recipe.search,
        make_scorer(recipe, data, ready.runtime, recipe.search.calibration_images),
        data.val.take(recipe.search.score_images, 0), storage, seed=recipe.seed, timeout=ready.request.timeout,
    )  # fmt: skip
    own = design(ready.space, ready.budget, ready.outputs)
    shapes = _shapes(ready, search, run) if _tries_shapes(ready) else []
    if shapes and shapes[0].rounds:
        own = shapes[0].arch
        told = f"{search.metric.show(shapes[0].trained_score)} after {shapes[0].epochs:.2g} epochs"
    else:
        told = f"the space's own design fits the budget in it; to search all, give {arg.set} search.shapes=0"
    if own is not None:
        search.always = (own,)
        if recipe.search.shapes and not search.several:
            shape = ", ".join(f"{axis.name} {value}" for axis, value in zip(ready.space.axes, own.values, strict=True)
                              if axis.kind in KINDS and len(axis.choices) > 1)  # fmt: skip
            say(f"shape: {shape} ({told})")
            ready = replace(ready, space=fixed(ready.space, own))
            search.space = ready.space
    else:  # in the shape that changes its widths least
        search.always = tuple(designs(ready.space, ready.budget, ready.outputs, 1))
    return ready, search, shapes


def _tries_shapes(ready: Ready) -> bool:
    """Whether a shape is chosen by training. It is not if the space's own design fits the budgets in its own; nor with
    several objectives, whose front has nets of many sizes."""
    config = ready.recipe.search
    suits = design(ready.space, ready.budget, ready.outputs) is not None
    return config.shapes > 1 and len(config.objectives) < 2 and not suits


def depends(ready: Ready, run: RunDir) -> dict[str, Any]:
    """What the candidates' scores, and which of them are proposed, depend on, by name."""
    config, seed = ready.recipe.search, ready.recipe.seed
    axes = json.dumps([(axis.name, axis.choices) for axis in ready.space.axes])
    by = f"{config.by} on {config.score_images} images, {config.calibration_images} to calibrate by, seed {seed}"
    return {
        "supernet": digest(run.supernet_file), "space": hashlib.sha256(axes.encode()).hexdigest(),
        "budget": ready.budget.limits, "data": ready.data.val_key, "way of scoring": by,
        "objectives": list(config.objectives),
    }  # fmt: skip


def _shapes(ready: Ready, search: Search, run: RunDir) -> list[Candidate]:
    """The space's own design in all shapes tried, after a short training, the best first; empty if there is but one, or
    no time to try them."""
    config = ready.recipe.search
    archs = designs(ready.space, ready.budget, ready.outputs, config.shapes)
    if len(archs) < 2:
        return []
    play, tried = play_off(ready, search, run, supernet=False), [search.undecided(arch) for arch in archs]
    asked = _asked(ready)
    whole = asked if math.isfinite(asked) else _job(ready).length.macs
    of_all = sum(play.own_macs(c.cost.macs) for c in tried)
    play = replace(play, given=config.shape_share * min(whole, of_all), word=SHAPE)
    if not play.sizes([c.cost.macs for c in tried]):
        return []
    if not run.shapes_file.is_file():
        per_mac = play.seconds_per_mac(tried[0])
        say(play.estimate(per_mac, [c.cost.macs for c in tried]))
        expect("supernet", per_mac * _job(ready).length.macs)  # a first guess, until its own steps are timed
        expect("finalists", per_mac * play_off(ready, search, run).macs)
    with stage("shapes"):
        return play.decide(tried, run)


def _halve(ready: Ready, search: Search, run: RunDir, shapes: list[Candidate]) -> dict:
    """The search without a supernet."""
    begun, drawn = time.perf_counter(), search.drawn(search.config.finalists)
    play = play_off(ready, search, run)
    say(f"no supernet; {play.estimate(play.seconds_per_mac(drawn[0]))}")
    with stage("finalists"):
        finalists = play.decide(drawn, run)
    seconds = time.perf_counter() - begun
    budget = ready.request.budget
    return write_results(
        run, ready.recipe, search, budget, finalists, finalists, seconds, shapes, ready.over, ready.onward
    )


def supernet(ready: Ready, search: Search, run: RunDir) -> Net:
    """The run's supernet: trained now, or loaded if it already exists."""
    path, data, largest = run.supernet_file, ready.data, ready.largest
    if not path.is_file():
        trainer = make_trainer(_job(ready), data, ready.runtime, search.scorer, keep_best=False)
        per_step = announce(trainer, "supernet", f"largest net {describe(cost(trainer.plan))}")
        say(f"  then the search: {estimate(trainer, search)}")
        per_mac = per_step / (trainer.length.batch * trainer.length.macs_per_image)
        play = play_off(ready, search, run)
        say(f"  then {play.estimate(per_mac)}")
        if doubt := _doubt(trainer, search, play):
            say(f"  {doubt}")
        train_to_end(trainer, run, "supernet")
        facts = _facts(ready, search)
        if most := _most(ready):
            facts["most"] = most  # MACs of the largest nets that were trained
        save_net(path, trainer.average or trainer.net, **facts)
    return load_supernet(path, largest)


def _doubt(trainer: Trainer, search: Search, play: PlayOff) -> str:
    """What speaks against the supernet, if anything: losses early in a training do not say how it ends
    (docs/results/halting.md), and a supernet's are no better."""
    largest = macs_range(search.space, search.budget, trainer.plan.classes)[1]
    macs = round(min(largest, search.budget.macs or largest))
    own, epochs = play.own_macs(macs) / (macs * len(play.data.train)), trainer.length.epochs
    if search.several or not math.isfinite(own) or epochs >= ENOUGH * own:
        return ""
    return (
        f"after {epochs:.2g} epochs a supernet tells little of which of similar nets will be best after {own:.0f}: "
        f"{MEASURED}; to do without a supernet: {arg.strategy} halving {arg.set} search.shapes=0"
    )


def load_supernet(path: Path, largest: Plan) -> Net:
    net = load_net(path)
    if net.plan != largest:
        raise BadInput(f"{path} is the supernet of another search; restore the right one, or start a new run")
    return net


def _facts(ready: Ready, search: Search) -> dict[str, Any]:
    """What a file with weights says about the data that they were trained on."""
    data = ready.data
    return {"data": data.name, "classes": list(data.classes), **search.scorer.task.facts, "val_key": data.val_key}


def play_off(ready: Ready, search: Search, run: RunDir, supernet: bool = True) -> PlayOff:
    """The training that decides among the finalists, from the supernet's weights if there is one."""
    start = run.supernet_file if supernet and ready.recipe.search.strategy == "supernet" else None
    macs = _job(ready).length.macs
    return PlayOff(ready.recipe, ready.data, ready.runtime, search, start, macs, _facts(ready, search))


def _job(ready: Ready) -> Job:
    """The supernet's training; its subnets are of about the size that the budgets allow unless the recipe sets it."""
    low, high = macs_range(ready.space, ready.budget, ready.largest.classes)
    recipe, sandwich = ready.recipe, ready.recipe.sandwich
    if recipe.search.lr != "auto":
        recipe = replace(recipe, lr=recipe.search.lr)
    asked = _asked(ready)
    if math.isfinite(asked):
        recipe = replace(recipe, train_macs=recipe.search.supernet_share * asked)
    limits, space = ready.budget.beside_macs, ready.space
    most = _most(ready)
    method = SandwichWithin(
        sandwich.samples, sandwich.every, sandwich.low or low, sandwich.high or high, most, sandwich.smallest, limits
    )
    largest = largest_within(space, most, ready.outputs) if most else space.largest
    base = Base(plan(space, largest, ready.outputs), space, largest)
    return make_job(recipe, method, base, images=len(ready.data.train), runtime=ready.runtime)


def _asked(ready: Ready) -> float:
    """The forward MACs that train_macs gives to the largest net within the budgets."""
    largest = most_macs(ready.space, ready.budget, ready.outputs)
    return ready.recipe.macs_for(not ready.runtime.accelerated, largest)


def _most(ready: Ready) -> float:
    """The MACs that the largest trained net may have, where the space was not cropped to that; otherwise 0."""
    search, macs = ready.recipe.search, ready.budget.macs
    if ready.recipe.sandwich.most:
        return ready.recipe.sandwich.most
    return 0.0 if search.crop == "largest" or macs is None else search.headroom * macs


def estimate(trainer: Trainer, search: Search) -> str:
    """Estimate the duration of the study from one candidate of the budget's size, scored on the untrained supernet."""
    low, high = macs_range(search.space, search.budget, trainer.plan.classes)
    limits = search.budget.beside_macs
    arch = sample_near(search.space, Random("estimate"), (low * high) ** 0.5, high, trainer.plan.classes, limits)
    begun = time.perf_counter()
    p = plan(search.space, arch, trainer.plan.classes)
    search.scorer.score(search.scorer.calibrated(trainer.net, p), search.images)
    each = time.perf_counter() - begun
    finalist = each * len(search.scorer.data.val) / max(1, len(search.images))
    count = candidates_of(search.space, search.budget, trainer.plan.classes, search.config.trials)
    whole = each * count + finalist * min(count, search.config.finalists)
    expect("candidates", whole)
    shown = f"{count} candidates" if count == search.config.trials else f"the {count} networks within the budget"
    return f"{shown} at about {each:.1f} s, {format_duration(whole)} in all;"

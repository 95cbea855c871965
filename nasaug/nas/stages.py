"""`search`: supernet, study and finalists in one run folder, and found.json in the working folder."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from .. import data as datasets
from ..arch import archfile
from ..arch.cost import Budget, cost, crop, describe, reach, sample_near
from ..arch.plan import BLOCKS, Outputs, Plan, plan
from ..arch.space import Space
from ..arch.spacefile import load
from ..config.layers import load as load_recipe
from ..core import files
from ..core.errors import BadInput
from ..core.progress import say
from ..core.signals import deferred_stop
from ..core.units import format_duration, parse_quantity
from ..data import Data, Info, Record
from ..methods import Base, SandwichWithin
from ..nets.net import Net
from ..nets.store import load_net, save_net
from ..pool.storage import absolute_storage, check_storage, own_storage, storage_faults
from ..rundirs.folder import HIDDEN, RESULT, RunDir, without_passwords
from ..training.begin import JOB_FILE, at_path, begun_record, refuse_existing, resumed, stopping, write_job
from ..training.device import Runtime, open_runtime
from ..training.job import Job, announce, carry_out, load_data, make_job, make_scorer, make_trainer, task_of
from ..training.loop import Trainer
from ..training.provenance import curves_of, warn_of_curves
from ..training.recipe import CHANGE_NOTHING, Recipe
from .finalists import PlayOff, begun_with, forget
from .results import FOUND, SUPERNET, write_results
from .study import Search, candidates_of, macs_range, report_reach

SMALL = 64  # px up to which mobilenetv2-small is the default space


@dataclass(frozen=True)
class Request:
    """What to search for, beside the recipe. `timeout` in seconds."""

    budget: Budget
    storage: str | None = None
    timeout: float | None = None


@dataclass(frozen=True)
class Ready:
    """A search of which everything that can be refused was checked."""

    recipe: Recipe
    request: Request
    runtime: Runtime
    space: Space
    data: Data
    outputs: Outputs

    @property
    def largest(self) -> Plan:
        """The supernet's plan."""
        return plan(self.space, self.space.largest, self.outputs)


def open_space(recipe: Recipe, info: Info, budget: Budget, outputs: Outputs | None = None) -> Space:
    """The recipe's space, its resolutions at most the data's, cropped to the budget."""
    name = recipe.space
    if name == "auto":
        name = "mobilenetv2-small" if info.size <= SMALL else "mobilenetv2"
    space = load(name, BLOCKS)
    for axis in space.axes:
        if axis.kind == "resolution":
            within = tuple(r for r in axis.choices if r <= info.size) or axis.choices[:1]
            space = space.trimmed({axis.name: within})
    return crop(space, budget, recipe.search.headroom, info.classes if outputs is None else outputs)


def prepare(recipe: Recipe, request: Request, common, *, begun: Record | None = None, resumed: bool = False) -> Ready:
    """Check everything before a run folder exists, and say what the space can do. Raises BadInput."""
    if recipe.teacher.source:  # which a [difficulty] needs
        rule = "a search trains without a teacher, so without [difficulty] too"
        raise BadInput(f"teacher.source = {recipe.teacher.source}: {rule}; give both to the training that follows")
    _check_target(Path(FOUND))
    runtime = open_runtime(common.device, recipe.bf16, common.profile)
    info = datasets.describe(recipe.data)
    outputs = task_of(recipe, info).outputs(info)
    space = open_space(recipe, info, request.budget, outputs)
    able = reach(space, request.budget, outputs)
    largest = plan(space, space.largest, outputs)
    say(f"space {space.name} at up to {largest.resolution} px, {info.told}:")
    say(report_reach(able, request.budget))
    ready = Ready(recipe, request, runtime, space, load_data(recipe, largest.resolution, begun), outputs)
    warn_of_curves(curves_of(recipe), lambda: ready.data)
    if request.storage is not None:
        check_storage(request.storage, resumed)
    return ready


def _check_target(found: Path) -> None:
    if found.is_dir():
        raise BadInput(f"{found} is a folder here, so the result cannot be put in its place; move it away")
    if not os.access(found.parent, os.W_OK):
        raise BadInput(f"cannot write {found} into {Path.cwd()}: no permission; go to a folder of your own")


def run_search(ready: Ready, run: RunDir) -> dict:
    """Train the supernet, search it, write the results; returns what result.json will hold."""
    recipe, request, data = ready.recipe, ready.request, ready.data
    search = Search(
        None, ready.space, request.budget, recipe.search,
        make_scorer(recipe, data, ready.runtime, recipe.search.calibration_images),
        data.val.take(recipe.search.score_images, 0), request.storage or own_storage(run.path), recipe.seed,
        request.timeout,
    )  # fmt: skip
    search.net = supernet(ready, search, run).to(ready.runtime.device)
    finalists = begun_with(run)
    if finalists:  # stage 2 is over, whatever time a resumed run has
        search.config = replace(search.config, trials=finalists["candidates"])
    key = search.metric.key("val")
    with deferred_stop() as pending, storage_faults(search.storage):
        ranked = search.run(pending, lambda arch, score: run.log("candidate", arch=arch, **{key: score}))
    begun = time.perf_counter()
    finalists = play_off(ready, search, run).decide(search.finalists(ranked, data.val), run)
    return write_results(run, recipe, search, ranked, finalists, search.seconds + time.perf_counter() - begun)


def supernet(ready: Ready, search: Search, run: RunDir) -> Net:
    """The run's supernet, trained now or before."""
    path, data, largest = run.path / SUPERNET, ready.data, ready.largest
    if not path.is_file():
        trainer = make_trainer(_job(ready), data, ready.runtime, search.scorer, keep_best=False)
        per_step = announce(trainer, "supernet", f"largest net {describe(cost(largest))}")
        say(f"  then the search: {estimate(trainer, search)}")
        per_mac = per_step / (trainer.length.batch * trainer.length.macs_per_image)
        say(f"  {play_off(ready, search, run).estimate(per_mac)}")
        carry_out(trainer, run, "supernet")
        facts = {"data": data.name, "classes": list(data.classes), **search.scorer.task.facts, "val_key": data.val_key}
        save_net(path, trainer.average or trainer.net, **facts)
    net = load_net(path)
    if net.plan != largest:
        raise BadInput(f"{path} is the supernet of another search; restore the right one, or start a new run")
    return net


def play_off(ready: Ready, search: Search, run: RunDir) -> PlayOff:
    """What decides among the finalists."""
    macs = _job(ready).length.macs
    return PlayOff(ready.recipe, ready.data, ready.runtime, search, run.path / SUPERNET, macs)


def _job(ready: Ready) -> Job:
    """The supernet's training; its subnets are of about the size that the budgets allow unless the recipe says else."""
    low, high = macs_range(ready.space, ready.request.budget, ready.largest.classes)
    recipe, sandwich = ready.recipe, ready.recipe.sandwich
    if recipe.search.lr != "auto":
        recipe = replace(recipe, lr=recipe.search.lr)
    method = SandwichWithin(
        sandwich.samples, sandwich.every, sandwich.low or low, sandwich.high or high, ready.request.budget.beside_macs
    )
    base = Base(ready.largest, ready.space, ready.space.largest)
    return make_job(recipe, method, base, images=len(ready.data.train), runtime=ready.runtime)


def estimate(trainer: Trainer, search: Search) -> str:
    """How long stage 2 will take: one candidate of the budget's size, judged on the untrained supernet."""
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
    shown = f"{count} candidates" if count == search.config.trials else f"the {count} networks within the budget"
    return f"{shown} at about {each:.1f} s, {format_duration(whole)} in all;"


def command(common, given: dict, budget: Budget, timeout: str | None, storage: str | None) -> None:
    """Check everything, open the run (or the one to resume), search, and write found.json.

    `given` holds what the options say of the recipe, by key; None: not given."""
    request = Request(budget, storage and absolute_storage(storage), _seconds(timeout))
    if common.resume:
        return _resume(common, given, request)
    refuse_existing(common.run)
    recipe = common.settings(given)
    said = {item.partition("=")[0].strip() for item in common.set}
    if recipe.search.lr != "auto" and "lr" in said and "search.lr" not in said:
        raise BadInput("--set lr=…: the recipe gives the supernet a learning rate of its own; use --set search.lr=…")
    ready = prepare(recipe, request, common)
    with RunDir.create("search", recipe, common.run) as run, stopping("search", run):
        shown = request.storage and without_passwords(request.storage)
        asked = {"budget": request.budget.limits, "storage": shown, "timeout": request.timeout}
        write_job(run, "search", ready.data.record, **asked)
        _finish(ready, run)


def _seconds(timeout: str | None) -> float | None:
    try:
        return None if timeout is None else parse_quantity(timeout, "seconds")
    except BadInput as error:
        raise BadInput(f"--timeout {timeout}: {error}") from None


def _resume(common, given: dict, request: Request) -> None:
    """Go on with a run, to more candidates than it was begun for where more trials or another timeout are given."""
    said = {item.partition("=")[0].strip() for item in common.set}
    extend = given["search.trials"] is not None or "search.trials" in said or request.timeout is not None
    with resumed("search", common, request, extend=extend) as (run, job, common, request):
        path, begun = run.path, run.path / "recipe.toml"
        recipe = load_recipe(begun, Recipe)
        asked = common.settings(given, data=recipe.data.name, begun=begun)
        run.check_settings(asked, (*CHANGE_NOTHING, "search.trials"))
        request = _resumed(request, Request(Budget(**job["budget"]), job["storage"], job["timeout"]), path)
        trials, judged = asked.search.trials, _judged(run)
        if trials < judged:
            rule = f"{path} has judged {judged} candidates already, more than search.trials = {trials}"
            raise BadInput(f"{rule}; give at least {judged}, or start a new run")
        other = trials != recipe.search.trials or request.timeout != job["timeout"]
        if run.finished and not (other and judged < trials):
            say(f"{path} is finished already; what it found is in {path / FOUND}")
            say("for more candidates give more --trials" + (", or another --timeout" if judged < trials else ""))
            return
        asked = at_path(asked, common.data)
        ready = prepare(asked, request, common, begun=begun_record(run, recipe), resumed=True)
        run.go_on_with(asked)
        if other:
            _extend(run, ready, job, judged)
        _finish(ready, run)


def _judged(run: RunDir) -> int:
    """How many candidates the run has judged so far."""
    counted = run.result() if run.finished else begun_with(run)
    return counted["candidates"] if counted else sum(e["event"] == "candidate" for e in run.read_log())


def _extend(run: RunDir, ready: Ready, job: dict, judged: int) -> None:
    """Make it a run that was begun for so many trials and so much time, and is not finished.

    The result goes first: a run that is cut off in between goes on as it was begun."""
    trials = ready.recipe.search.trials
    if judged < trials:
        (run.path / RESULT).unlink(missing_ok=True)
        forget(run, min(judged, ready.recipe.search.finalists))
    files.write_json(run.path / JOB_FILE, job | {"timeout": ready.request.timeout})
    say(f"{run.path} has judged {judged} candidates and goes on to {trials}")


def _resumed(asked: Request, begun: Request, path: Path) -> Request:
    """What the run was begun with, under a new timeout if one is given. Raises BadInput for a difference."""
    if asked.budget.limits and asked.budget != begun.budget:
        raise BadInput(f"{path} was begun under {begun.budget}, not {asked.budget}; start a new run")
    if asked.storage is None and begun.storage and HIDDEN in begun.storage:
        raise BadInput(f"{path} keeps no passwords: give its --storage again, {begun.storage} with the password")
    if asked.storage is not None and without_passwords(asked.storage) != begun.storage:
        raise BadInput(f"{path} was begun with another --storage; leave it out, or start a new run")
    timeout = begun.timeout if asked.timeout is None else asked.timeout
    return replace(begun, timeout=timeout, storage=asked.storage or begun.storage)


def _finish(ready: Ready, run: RunDir) -> None:
    result = run_search(ready, run)
    archfile.read(str(run.path / FOUND)).save(FOUND)  # the supernet's path made relative to here
    run.finish(result)
    say(f"{FOUND} written; supernet, candidates and Pareto front (pareto.png) in {run.path}")
    say(f"next: python -m nasaug netaug-train --arch {FOUND}")

"""`search`: supernet, study and finalists in one run folder, and found.json in the working folder."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from .. import archfile, files
from .. import data as datasets
from ..archfile import ArchFile
from ..cost import Budget, cost, crop, describe, reach, sample_near
from ..data import Info
from ..engine import Trainer
from ..errors import BadInput
from ..methods import Base
from ..plan import BLOCKS, plan
from ..recipe import load as load_recipe
from ..rundir import RunDir
from ..runtime import Runtime, deferred_stop, open_runtime
from ..search import Candidate, Search, macs_range, open_storage, pareto, plot_pareto, report_reach
from ..settings import Recipe
from ..space import Space, load
from ..train import announce, carry_out, load_data, load_net, make_job, make_scorer, make_trainer, save_net, say
from ..units import format_duration, format_quantity, parse_quantity
from .begin import read_job, refuse_existing, run_to_resume, stopping, write_job

SUPERNET = "supernet.safetensors"
SMALL = 64  # px up to which mobilenetv2-small is the default space


@dataclass(frozen=True)
class Request:
    """What to search for, beside the recipe."""

    budget: Budget
    storage: str | None = None
    timeout: float | None = None


def open_space(recipe: Recipe, info: Info, budget: Budget) -> Space:
    """The recipe's space, its resolutions at most the data's, cropped to the budget."""
    name = recipe.space
    if name == "auto":
        name = "mobilenetv2-small" if info.size <= SMALL else "mobilenetv2"
    space = load(name, BLOCKS)
    for axis in space.axes:
        if axis.kind == "resolution":
            within = tuple(r for r in axis.choices if r <= info.size) or axis.choices[:1]
            space = space.trimmed({axis.name: within})
    return crop(space, budget, recipe.search.headroom, info.classes)


def check(recipe: Recipe, request: Request, runtime: Runtime) -> tuple[Space, Info]:
    """Everything that can be refused before a run folder exists; says what the space can do."""
    info = datasets.describe(recipe.data)
    if request.storage:
        open_storage(request.storage)
    space = open_space(recipe, info, request.budget)
    able = reach(space, request.budget, info.classes)
    say(f"space {space.name} at up to {plan(space, space.largest, info.classes).resolution} px, {info.classes} classes:")
    say(report_reach(able, request.budget))
    return space, info


def run_search(recipe: Recipe, request: Request, runtime: Runtime, space: Space, run: RunDir) -> Path:
    """Train the supernet, search it, write the results; returns the path of the run's found.json."""
    largest = plan(space, space.largest, datasets.describe(recipe.data).classes)
    data = load_data(recipe, largest.resolution)
    low, high = macs_range(space, request.budget, largest.classes)
    method = replace(recipe.sandwich, low=recipe.sandwich.low or low, high=recipe.sandwich.high or high)
    scorer = make_scorer(recipe, data, runtime, recipe.search.calibration_images)
    job = make_job(recipe, method, Base(largest, space, space.largest), images=len(data.train), runtime=runtime)
    supernet = run.path / SUPERNET
    search = Search(
        None, space, request.budget, recipe.search, scorer, data.val.take(recipe.search.score_images, 0),
        request.storage or f"sqlite:///{run.path / 'study.db'}", recipe.seed, request.timeout,
    )  # fmt: skip
    if not supernet.is_file():
        trainer = make_trainer(job, data, runtime, scorer, keep_best=False)
        announce(trainer, "supernet", f"largest net {describe(cost(largest))}")
        say(f"  then the search: {estimate(trainer, search)}")
        carry_out(trainer, run, "supernet")
        save_net(supernet, trainer.net, data=data.name, data_key=data.key)
    search.net = load_net(supernet).to(runtime.device)
    begun = time.perf_counter()
    with deferred_stop() as pending:
        ranked = search.run(pending, lambda arch, top1: run.log("candidate", arch=arch, val_top1=top1))
    finalists = search.finalists(ranked, data.val)
    return write_results(run, recipe, request, search, ranked, finalists, time.perf_counter() - begun)


def estimate(trainer: Trainer, search: Search) -> str:
    """How long stage 2 will take, from one candidate of the budget's size judged on the untrained supernet."""
    low, high = macs_range(search.space, search.budget, trainer.plan.classes)
    arch = sample_near(search.space, Random("estimate"), (low * high) ** 0.5, high, trainer.plan.classes)
    begun = time.perf_counter()
    p = plan(search.space, arch, trainer.plan.classes)
    search.scorer.top1(search.scorer.calibrated(trainer.net, p), search.images)
    each = time.perf_counter() - begun
    finalist = each * len(search.scorer.data.val) / max(1, len(search.images))
    whole = each * search.config.trials + finalist * search.config.finalists
    return f"{search.config.trials} candidates at about {each:.1f} s, {format_duration(whole)} in all"


def write_results(
    run: RunDir, recipe: Recipe, request: Request, search: Search, ranked: list[Candidate],
    finalists: list[Candidate], seconds: float,
) -> Path:  # fmt: skip
    """found.json, candidates.json, the Pareto front as PNG and JSON, result.json, and the table."""
    best, space, classes = finalists[0], search.space, search.net.plan.classes
    facts = {
        "budget": search.budget.limits, "val_top1": best.full_top1, "score_top1": best.val_top1,
        "data": recipe.data.name, "recipe_space": recipe.space,
    }  # fmt: skip
    found = ArchFile(
        plan(space, best.arch, classes), f"{space.name}:{space.id(best.arch)}", space, best.arch,
        (run.path / SUPERNET).resolve(), facts,
    )  # fmt: skip
    found.save(run.path / "found.json")
    row = [_row(space, c) for c in ranked]
    files.write_json(run.path / "candidates.json", {"format": "nasaug-candidates/1", "candidates": row})
    front = [_row(space, c) for c in pareto(ranked)]
    files.write_json(run.path / "pareto.json", {"format": "nasaug-pareto/1", "front": front})
    plot_pareto(run.path / "pareto.png", ranked, search.budget)
    say(table(space, finalists))
    run.finish({
        "found": found.name, "val_top1": best.full_top1, **best.cost._asdict(), "candidates": len(ranked),
        "finalists": [_row(space, c) for c in finalists], "search_seconds": round(seconds, 1),
        "budget": search.budget.limits, "data": recipe.data.name, "seed": recipe.seed,
    })  # fmt: skip
    return run.path / "found.json"


def _row(space: Space, c: Candidate) -> dict:
    return {
        "id": space.id(c.arch), "val_top1": c.val_top1, "full_val_top1": c.full_top1, **c.cost._asdict(),
        "choices": space.choices(c.arch),
    }  # fmt: skip


def table(space: Space, finalists: list[Candidate]) -> str:
    """The best few for people."""
    lines = [f"{'arch':12s}{'val top-1':>10s}{'scored':>9s}{'MACs':>9s}{'params':>9s}{'SRAM':>9s}{'flash':>9s}{'px':>5s}"]
    for c in finalists:
        px = space.choices(c.arch).get("resolution", space.resolution)
        lines.append(
            f"{space.id(c.arch):12s}{c.full_top1:9.2f}%{c.val_top1:8.2f}%{format_quantity(c.cost.macs, 'macs'):>9s}"
            f"{format_quantity(c.cost.params, 'params'):>9s}{format_quantity(c.cost.peak, 'bytes'):>9s}"
            f"{format_quantity(c.cost.flash, 'bytes'):>9s}{px:>5}"
        )
    return "\n".join(lines)


def publish(run_found: Path, target: Path) -> None:
    """Put found.json into the working folder, replaced whole, its supernet's path made relative to there."""
    found = archfile.read(str(run_found))
    if target.is_dir():
        raise BadInput(f"{target} is a folder; the found architecture is in {run_found}")
    found.save(target)


def command(common, given: dict, budgets: dict, timeout: str | None, storage: str | None) -> None:
    """Check everything, open the run (or the one to resume), search, and write found.json."""
    if common.resume:
        return _resume(common)
    refuse_existing(common.run)
    sets = tuple(f"{key}={value}" for key, value in given.items() if value is not None)
    recipe = common.settings(sets=sets)
    seconds = None if timeout is None else parse_quantity(timeout, "seconds")
    request = Request(Budget.parse(**budgets), storage, seconds)
    runtime = open_runtime(common.device, recipe.bf16)
    space, _ = check(recipe, request, runtime)
    with RunDir.create("search", recipe, common.run) as run, stopping("search", run):
        write_job(run, "search", budget=request.budget.limits, storage=storage, timeout=seconds)
        _finish(recipe, request, runtime, space, run)


def _resume(common) -> None:
    path = run_to_resume("search", common.run)
    with RunDir.resume(path) as run, stopping("search", run):
        job = read_job(path, "search")
        recipe = load_recipe(path / "recipe.toml", Recipe)
        request = Request(Budget(**job["budget"]), job["storage"], job["timeout"])
        runtime = open_runtime(common.device, recipe.bf16)
        space, _ = check(recipe, request, runtime)
        _finish(recipe, request, runtime, space, run)


def _finish(recipe: Recipe, request: Request, runtime: Runtime, space: Space, run: RunDir) -> None:
    found = run_search(recipe, request, runtime, space, run)
    publish(found, Path("found.json"))
    say(f"found.json written; supernet, candidates and Pareto front (pareto.png) in {run.path}")
    say("next: python -m nasaug netaug-train --arch found.json")

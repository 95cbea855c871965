"""`compare`: several ways to train one network, each with the same seeds, and what can be said of the difference."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..arch import archfile
from ..arch.archfile import ArchFile
from ..config.layers import arm_says, load
from ..core import files
from ..core.errors import BadInput, RunFault, unknown
from ..core.progress import say
from ..core.streams import command_line
from ..nets.store import digest
from ..reporting import wording
from ..rundirs.folder import RunDir, without_passwords
from ..training.begin import (
    at_path,
    begun_record,
    other_data,
    refuse_existing,
    refuse_others,
    resumed,
    stopping,
    write_job,
)
from ..training.device import open_runtime
from ..training.job import job_for
from ..training.recipe import CHANGE_NOTHING, Recipe
from ..training.train import BASE, Request, fitted, refuse_other_net
from . import report
from .cells import (
    Cell,
    Sets,
    check_begun,
    check_options,
    folder_name,
    held,
    key_of,
    read_data,
    resume_command,
    train_missing,
)

DEFAULT = "baseline,netaug,gradaug,aug-constant,aug-rising,aug-falling"
SEEDS, MATCH = 5, "epochs"
STOPS = {"epochs": "epochs", "compute": "macs", "seconds": "seconds"}
CELLS = Path("cells")


@dataclass(frozen=True)
class Asked:
    """What to compare, and how, beside the recipe; None: not given."""

    arch: str | None
    methods: str | None
    seeds: int | None
    match: str | None
    jobs: int | None
    cells: Path | None
    resolution: int | None
    from_scratch: bool


def command(asked: Asked, common) -> None:
    """Check everything, train every cell that is not there yet, and write the table, the figures and the page."""
    check_options(asked, common, "a comparison")
    if asked.match is not None and asked.match not in STOPS:
        raise unknown("--match", asked.match, STOPS)
    said = [item for item in common.set if item.partition("=")[0].strip() == "epochs"]
    if asked.match not in (None, MATCH) and said:
        ends = {"compute": "train_macs", "seconds": "max_seconds"}[asked.match]
        raise BadInput(f"--set {said[0]}: with --match {asked.match} trainings end by {ends}; give that instead")
    arms, sets = arms_of(DEFAULT if asked.methods is None else asked.methods), Sets()
    if common.resume:
        with resumed("compare", common, asked) as (run, job, common, asked):
            sets.begun = begun_record(run, load(run.path / "recipe.toml", Recipe))
            setting, common, found = _resumed(asked, arms, common, run, job)
            cells = make_cells(found, setting, common, sets)
            return _finish(found, cells, setting, common, run, asked.jobs, sets)
    if asked.arch is None:
        raise BadInput("compare needs --arch: an arch file like found.json, or a named architecture")
    refuse_existing(common.run)
    of_arch = archfile.read(asked.arch).facts.get("data")
    plain = common.settings({}, arm="baseline", data=of_arch)
    found = fitted(Request("compare", asked.arch, None, asked.from_scratch, asked.resolution), plain)
    setting = {
        "arms": arms, "seeds": SEEDS if asked.seeds is None else asked.seeds, "match": asked.match or MATCH,
        "from_scratch": asked.from_scratch, "set": list(common.set), "recipe": common.recipe, "data": common.data,
        "arch_data": of_arch, "cells": None if asked.cells is None else str(asked.cells.resolve()),
    }  # fmt: skip
    cells = make_cells(found, setting, common, sets)  # refuses what cannot be, before anything is written
    if asked.cells:
        check_begun(cells)
    with RunDir.create("compare", plain, common.run) as run, stopping("compare", run):
        found.save(run.path / BASE)
        write_job(run, "compare", read_data(plain, found, sets).record, **setting)
        _finish(found, cells, setting, common, run, asked.jobs, sets)


# not those between an arm's values, or in an array or a table
_BETWEEN_ARMS = re.compile(r",(?!\s*[\w.-]+\s*=)(?![^\[]*\])(?![^{]*\})")


def arms_of(methods: str) -> list[str]:
    """The arms by name. Raises BadInput for one that is not known, or is named twice."""
    arms = [arm.strip() for arm in _BETWEEN_ARMS.split(methods) if arm.strip()]
    if not arms:
        raise BadInput(f"--methods {methods!r} names no arm; give some, like baseline,netaug")
    for i, arm in enumerate(arms):
        if arm in arms[:i]:
            raise BadInput(f"--methods names {arm!r} twice; name each arm once")
        arm_says(arm, Recipe)
    return arms


def make_cells(found: ArchFile, setting: dict, common, sets: Sets) -> list[Cell]:
    """All cells, seed by seed, so that a comparison cut short has whole seeds; their paths are relative to the run.

    Raises BadInput for what cannot be compared, as far as can be told before a training."""
    runtime = open_runtime(common.device)
    init = {"init": "scratch"} if setting["from_scratch"] else {}
    arms, of_arch = setting["arms"], setting.get("arch_data")
    plain = {arm: common.settings(init, arm=arm, data=of_arch) for arm in arms}
    for arm in arms[1:]:
        if plain[arm].data != plain[arms[0]].data:
            raise BadInput(f"arms {arms[0]!r} and {arm!r} use different data; change those for all, by --data or --set")
    data = read_data(plain[arms[0]], found, sets)
    images = len(data.train)
    given = {arm: init | {"stop": STOPS[setting["match"]]} for arm in arms}
    if setting["match"] == "epochs":
        auto = {arm: replace(r, times=1.0) for arm, r in plain.items() if r.epochs == "auto"}
        fewest = min((job_for(found, r, runtime, images).length.epochs for r in auto.values()), default=0)
        given |= {arm: given[arm] | {"epochs": fewest} for arm in auto}
    elif setting["match"] == "compute" and runtime.accelerated and plain[arms[0]].train_macs == "auto":
        raise BadInput("--match compute needs to know how much: give --set train_macs=1e15, say")
    cells, seen, start = [], {}, digest(found.start)
    for seed in range(setting["seeds"]):
        for arm in arms:
            recipe = common.settings(given[arm] | {"seed": seed, "arm": arm}, arm=arm, data=of_arch)
            if seed == 0:
                job_for(found, recipe, runtime, images).check_teacher(partial(read_data, recipe, found, sets))
            key = key_of(found, start, recipe, data)
            if seen.setdefault(key, arm) != arm:
                raise BadInput(f"arms {seen[key]!r} and {arm!r} are the same training; leave one of them out")
            where = Path(setting["cells"]) if setting["cells"] else CELLS
            cells.append(Cell(arm, seed, recipe, Path(BASE), where / folder_name(arm, seed, key)))
    return cells


def _resumed(asked: Asked, arms: list[str], common, run: RunDir, setting: dict) -> tuple[dict, Any, ArchFile]:
    """The settings that a comparison was begun with, the options that say them, and its network. Raises BadInput,
    naming what differs, for others."""
    begun = load(run.path / "recipe.toml", Recipe)
    now = {
        "data": other_data(common.data, begun),
        "methods": None if asked.methods is None else arms, "seeds": asked.seeds, "match": asked.match,
        "from-scratch": asked.from_scratch or None, "set": held(common.set) or None, "recipe": common.recipe,
        "cells": None if asked.cells is None else str(asked.cells.resolve()),
    }  # fmt: skip
    said = {"methods": setting["arms"], "from-scratch": setting["from_scratch"], "set": held(setting["set"])}
    refuse_others(run.path, setting | said, now)
    begun = at_path(begun, common.data)
    data = setting["data"] if common.data is None else common.data  # loading them checks that they are the same
    common = replace(common, set=(*setting["set"], *common.set), recipe=setting["recipe"], data=data)
    # of a recipe edited since, say
    run.check_settings(common.settings({}, arm="baseline", data=setting.get("arch_data")), CHANGE_NOTHING)
    base = run.path / BASE
    found = archfile.read(str(base))
    if found.start is not None and not found.start.is_file() and not setting["from_scratch"]:
        gone = f"{found.start} is missing, from which the trainings of {run.path} start"
        raise BadInput(f"{gone}; restore it, or start anew with --from-scratch")
    px = found.plan.resolution if asked.resolution is None else asked.resolution
    again = Request("compare", str(base) if asked.arch is None else asked.arch, None, asked.from_scratch, px)
    refuse_other_net(run.path, found, fitted(again, begun), asked, begun)
    return setting, common, found


def _finish(
    found: ArchFile, cells: list[Cell], setting: dict, common, run: RunDir, jobs: int | None, sets: Sets
) -> None:
    cells = [replace(cell, arch=run.path / cell.arch, path=run.path / cell.path) for cell in cells]
    what = f"{len(setting['arms'])} arms x {setting['seeds']} seeds, matched by {setting['match']}"
    failed = train_missing(cells, what, run, common.device, jobs, sets)
    done = [cell.path for cell in cells if cell.finished]
    runs = report.read_runs(done)
    facts = {"failed": failed, "commands": _commands(run)}
    if setting["cells"]:
        facts[report.ELSEWHERE] = list(map(str, done))
    summary = report.summarise(runs, None, setting["match"], facts)
    report.write(run.path, summary, runs)
    say(wording.table(summary))
    say(f"table, figures and page in {run.path}: comparison.html")
    if failed:
        names = ", ".join(f"{f['arm']} (seed {f['seed']})" for f in failed)
        some = f"{len(failed)} of {len(cells)} cells failed"
        raise RunFault(f"{some}: {names}; try them again with {resume_command(run)}")
    run.finish({"arms": setting["arms"], "seeds": setting["seeds"], "match": setting["match"], "cells": len(cells)})


def _commands(run: RunDir) -> list[str]:
    """The command line that began the comparison, and this one where it goes on."""
    begun = files.read_json(run.path / "env.json", "nasaug-env/1")["command"]
    return list(dict.fromkeys([begun, without_passwords(command_line(*sys.orig_argv))]))

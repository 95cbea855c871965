"""`compare`: several ways to train one network, each with the same seeds, and what can be said of the difference."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .. import archfile, files
from ..archfile import ArchFile
from ..data import Data, describe
from ..engine import time_steps
from ..errors import BadInput, RunFault, unknown
from ..recipe import arm_says, dump, to_dict
from ..rundir import RunDir, without_passwords
from ..runtime import Runtime, open_runtime
from ..settings import Recipe
from ..train import job_for, load_data, make_scorer, make_trainer, say, teacher_of
from ..units import format_duration
from . import report
from .begin import read_job, refuse_existing, run_to_resume, stopping, write_job
from .train import BASE, Request, fitted

DEFAULT = "baseline,netaug,gradaug,aug-constant,aug-rising,aug-falling"
MATCHES = ("epochs", "compute", "seconds")
STOPS = {"epochs": "epochs", "compute": "macs", "seconds": "seconds"}
CELLS, KILL_AFTER_S = "cells", 120.0


@dataclass(frozen=True)
class Asked:
    """What to compare, and how, beside the recipe."""

    arch: str | None
    methods: str
    seeds: int
    match: str
    jobs: int | None
    cells: Path | None
    resolution: int | None
    from_scratch: bool


@dataclass(frozen=True)
class Cell:
    """One training: an arm with a seed, in a folder of its own whose name tells its settings."""

    arm: str
    seed: int
    recipe: Recipe
    path: Path

    @property
    def finished(self) -> bool:
        return RunDir(self.path).finished


def command(asked: Asked, common) -> None:
    """Check everything, train every cell that is not there yet, and write the table, the figures and the page."""
    arms = arms_of(asked)
    if common.resume:
        path = run_to_resume("compare", common.run)
        with RunDir.resume(path) as run, stopping("compare", run):
            return _finish(_resumed(asked, arms, common, run), common, run, asked.jobs)
    if asked.arch is None:
        raise BadInput("compare needs --arch: an arch file like found.json, or a named architecture")
    refuse_existing(common.run)
    plain = settings(common, {}, "baseline", archfile.read(asked.arch).facts.get("data"))
    found = fitted(Request("compare", asked.arch, None, asked.from_scratch, asked.resolution), plain)
    setting = {
        "arms": arms, "seeds": asked.seeds, "match": asked.match, "data": plain.data.name,
        "from_scratch": asked.from_scratch, "set": list(common.set), "recipe": common.recipe,
        "cells": None if asked.cells is None else str(asked.cells.resolve()),
    }  # fmt: skip
    make_cells(found, setting, common, Path("."))  # refuses what cannot be, before anything is written
    with RunDir.create("compare", plain, common.run) as run, stopping("compare", run):
        found.save(run.path / BASE)
        write_job(run, "compare", **setting)
        _finish(setting, common, run, asked.jobs)


_BETWEEN_ARMS = re.compile(r",(?!\s*[\w.-]+\s*=)(?![^\[]*\])")  # not those between an arm's values, or in an array


def arms_of(asked: Asked) -> list[str]:
    """The arms by name. Raises BadInput for one that is not known, or is named twice."""
    if asked.match not in MATCHES:
        raise unknown("--match", asked.match, MATCHES)
    if asked.seeds < 1 or (asked.jobs is not None and asked.jobs < 1):
        raise BadInput(f"--seeds {asked.seeds} and --jobs {asked.jobs} must be at least 1")
    arms = [arm.strip() for arm in _BETWEEN_ARMS.split(asked.methods) if arm.strip()]
    if not arms:
        raise BadInput(f"--methods {asked.methods!r} names no arm; give some, like baseline,netaug")
    for i, arm in enumerate(arms):
        if arm in arms[:i]:
            raise BadInput(f"--methods names {arm!r} twice; name each arm once")
        arm_says(arm, Recipe)
    return arms


def settings(common, given: dict, arm: str, data: str | None) -> Recipe:
    """The recipe of an arm: plain training where it names no method."""
    whole = arm if "method" in arm_says(arm, Recipe) else f"baseline+{arm}"
    return common.settings(given, arm=whole, data=data)


def make_cells(found: ArchFile, setting: dict, common, folder: Path) -> list[Cell]:
    """All cells, seed by seed, so that a comparison cut short has whole seeds."""
    runtime = open_runtime(common.device)
    init = {"init": "scratch"} if setting["from_scratch"] else {}
    data = setting["data"]
    plain = {arm: settings(common, init, arm, data) for arm in setting["arms"]}
    images = train_images(next(iter(plain.values())))
    given = init | {"stop": STOPS[setting["match"]]}
    if setting["match"] == "epochs":
        dearest = min(job_for(found, replace(r, times=1.0), runtime, images).length.epochs for r in plain.values())
        given |= {"epochs": dearest} if all(r.epochs == "auto" for r in plain.values()) else {}
    elif setting["match"] == "compute" and runtime.accelerated and plain[setting["arms"][0]].train_macs == "auto":
        raise BadInput("--match compute needs to know how much: give --set train_macs=1e15, say")
    cells, seen = [], {}
    where = Path(setting["cells"]) if setting["cells"] else folder / CELLS
    for seed in range(setting["seeds"]):
        for arm in setting["arms"]:
            recipe = settings(common, given | {"seed": seed, "arm": arm}, arm, data)
            job_for(found, recipe, runtime, images)
            key = _key(found, recipe)
            if seen.setdefault(key, arm) != arm:
                raise BadInput(f"arms {seen[key]!r} and {arm!r} are the same training; leave one of them out")
            slug = re.sub(r"[^A-Za-z0-9.=_-]+", "_", arm)[:60]
            cells.append(Cell(arm, seed, recipe, where / f"{slug}-s{seed}-{key[:8]}"))
    return cells


def train_images(recipe: Recipe) -> int:
    """How many images an epoch has, as far as can be told without reading them: for the number of epochs."""
    return recipe.data.train_images or len(load_data(recipe, 32 if describe(recipe.data).streamed else None).train)


def _key(found: ArchFile, recipe: Recipe) -> str:
    """Hash of all that a cell's result depends on, but for its arm's name."""
    table = to_dict(recipe)
    del table["arm"]
    text = json.dumps([table, found.plan.to_dict(), str(found.supernet)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _resumed(asked: Asked, arms: list[str], common, run: RunDir) -> dict:
    """The settings that a comparison was begun with. Raises BadInput, naming what differs, for others."""
    setting = read_job(run.path, "compare")
    now = {"match": asked.match, "seeds": asked.seeds, "arms": arms}
    told = {"match": asked.match != "epochs", "seeds": asked.seeds != 5, "arms": asked.methods != DEFAULT}
    for key, value in now.items():
        if told[key] and setting[key] != value:
            raise BadInput(
                f"{run.path} was begun with {key} = {setting[key]}, not {value}; leave it out to go on, or start anew"
            )
    for key, value in (("set", list(common.set)), ("recipe", common.recipe), ("data", common.data)):
        if value and setting[key] != value:
            begun = f"{run.path} was begun with {key} = {setting[key]}, not {value}"
            raise BadInput(f"{begun}; leave it out, or start anew")
    return setting


def _finish(setting: dict, common, run: RunDir, jobs: int | None) -> None:
    common = replace(common, set=tuple(setting["set"]), recipe=setting["recipe"], data=None, seed=None)
    found = archfile.read(str(run.path / BASE))
    cells = make_cells(found, setting, common, run.path)
    runtime = open_runtime(common.device)
    jobs = jobs or (1 if runtime.accelerated else max(1, len(os.sched_getaffinity(0))))
    left = [cell for cell in cells if not cell.finished]
    many = f"{len(setting['arms'])} arms x {setting['seeds']} seeds"
    say(f"{many}, matched by {setting['match']}: {len(cells)} cells, {len(cells) - len(left)} there already")
    failed = []
    if left:
        seconds = estimate(found, left, runtime, jobs)
        say(f"about {format_duration(sum(seconds.values()) / jobs)}, {jobs} at a time")
        failed = carry_out(left, run.path / BASE, common.device, jobs, seconds)
    done = [cell.path for cell in cells if cell.finished]
    if not done:
        raise RunFault(f"no cell was finished; the first failed with: {failed[0]['error']}")
    runs = report.read_runs(done)
    facts = {"failed": failed, "commands": [without_passwords(shlex.join(sys.orig_argv))]}
    summary = report.summarise(runs, None, setting["match"], facts)
    report.write(run.path, summary, runs)
    say(report.table(summary))
    say(f"table, figures and page in {run.path}: comparison.html")
    if failed:
        names = ", ".join(f"{f['arm']} (seed {f['seed']})" for f in failed)
        again = f"nasaug compare --resume --run {run.path}"
        raise RunFault(f"{len(failed)} of {len(cells)} cells failed: {names}; try them again with {again}")
    run.finish({"arms": setting["arms"], "seeds": setting["seeds"], "match": setting["match"], "cells": len(cells)})


def estimate(found: ArchFile, cells: list[Cell], runtime: Runtime, jobs: int) -> dict[Path, float]:
    """Seconds that each cell will take, from a few timed steps of each arm, one thread where several run at once."""
    threads, timed, sets, loading = torch.get_num_threads(), {}, {}, {}
    starting = time.process_time()  # what this process needed so far, each cell's will need
    if jobs > 1:
        torch.set_num_threads(1)
    for cell in cells:
        if cell.arm not in timed:
            key = repr(cell.recipe.data)
            if key not in sets:
                begun = time.perf_counter()
                sets[key] = load_data(cell.recipe, found.plan.resolution)
                loading[key] = starting + time.perf_counter() - begun
            timed[cell.arm] = loading[key] + _arm_seconds(found, cell.recipe, sets[key], runtime)
    torch.set_num_threads(threads)
    return {cell.path: timed[cell.arm] for cell in cells}


def _arm_seconds(found: ArchFile, recipe: Recipe, data: Data, runtime: Runtime) -> float:
    scorer = make_scorer(recipe, data, runtime)
    job = job_for(found, recipe, runtime, len(data.train))
    trainer = make_trainer(job, data, runtime, scorer, teacher=teacher_of(found, recipe, data, runtime, scorer))
    begun = time.perf_counter()
    trainer.end_epoch()
    judging = time.perf_counter() - begun
    training = job.length.seconds or time_steps(trainer, 4) * job.length.steps
    return training + judging * max(1, job.length.epochs)


def carry_out(cells: list[Cell], base: Path, device: str, jobs: int, seconds: dict[Path, float]) -> list[dict]:
    """Train the cells in processes of their own, `jobs` at a time; those that failed, each with the reason.

    A stop is handed on to all that run, which save what they have; raises Stopped then."""
    waiting, running, failed = list(cells), [], []
    begun, total = time.monotonic(), sum(seconds.values())
    done = 0.0
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                running.append((cell, _start(cell, base, device, jobs)))
            time.sleep(0.1)
            for cell, process in [pair for pair in running if pair[1].poll() is not None]:
                running.remove((cell, process))
                done += seconds[cell.path]
                if process.returncode or not cell.finished:
                    failed.append({"arm": cell.arm, "seed": cell.seed, "error": _last_line(_log(cell))})
                    told = f"failed: {failed[-1]['error']}"
                else:
                    told = f"validation {RunDir(cell.path).result()['val_top1']:.2f} %"
                left = (time.monotonic() - begun) / done * (total - done)
                say(f"{cell.arm}, seed {cell.seed}: {told}; about {format_duration(left)} left")
    finally:
        for _, process in running:
            process.send_signal(signal.SIGTERM)
        for _, process in running:
            try:
                process.wait(KILL_AFTER_S)
            except subprocess.TimeoutExpired:
                process.kill()
    return failed


def _log(cell: Cell) -> Path:
    return cell.path.with_suffix(cell.path.suffix + ".log")


def _start(cell: Cell, base: Path, device: str, jobs: int) -> subprocess.Popen:
    """A session of its own: what the terminal sends is handed on once, by `carry_out`."""
    cell.path.parent.mkdir(parents=True, exist_ok=True)
    told = ["--resume"]
    if not (cell.path / "job.json").is_file():
        recipe = cell.path.with_suffix(cell.path.suffix + ".toml")
        files.write_whole(recipe, dump(cell.recipe))
        told = ["--arch", str(base), "--recipe", str(recipe)]
    one = {"OMP_NUM_THREADS": "1"} if jobs > 1 else {}
    with open(_log(cell), "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "nasaug", "train", *told, "--run", str(cell.path), "--device", device],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=os.environ | one,
            start_new_session=True,
        )  # fmt: skip


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
    return next((line for line in reversed(lines) if line.strip()), "it told nothing")

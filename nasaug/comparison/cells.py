"""The trainings of a comparison or sweep: each in its own process and folder, several at a time, resumable."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..arch import archfile
from ..arch.archfile import ArchFile
from ..config.layers import differing, dump, flatten, load, to_dict
from ..core import files, own
from ..core.errors import BadInput, RunFault, arg, told_by
from ..core.progress import say
from ..core.streams import nasaug_command
from ..core.units import format_duration
from ..data import Data, Record, describe, whole_of
from ..kernels import choice
from ..nets.store import digest, teacher_digest
from ..pool.processes import Queue, Watch, Work, run_all, together
from ..pool.queue import SharedQueue
from ..pool.shared import SharedStudy
from ..pool.storage import storage_faults
from ..reporting import wording
from ..rundirs.folder import HIDDEN, RunDir, cores, without_passwords
from ..rundirs.job import FORMAT as JOB_FORMAT
from ..rundirs.job import refuse_changed
from ..rundirs.result import BY_DATA, Length, read_result
from ..tasks import chosen
from ..training.begin import PARENT, at_path, begun_record, other_data
from ..training.device import Runtime, open_runtime
from ..training.job import Job, job_for, load_data, make_scorer, make_trainer, start_of, task_of
from ..training.options import Options
from ..training.provenance import curves_of, sources_of, warn_of_curves
from ..training.recipe import CHANGE_NOTHING, Recipe
from ..training.start import inherited_from
from ..training.start import named as start_named
from ..training.timing import time_steps

CELLS = Path("cells")  # the folder for the trainings in a run
THREADS = "threads"  # the study's note of how many threads each training has
LONGEST = 60  # characters of an arm's name in a file name
LONGEST_START = 10.0  # CPU seconds that starting a process takes at most
# keys in which an existing cell may differ: runs and images may have moved, and the cell's key covers their contents
MAY_DIFFER = ("arm", "teacher.source", "init", "data.name", *CHANGE_NOTHING)


@dataclass
class Sets:
    """The data sets read so far, by their settings, so that each is read once. `begun`: a resumed run's record."""

    begun: Record | None = None
    read: dict[str, Data] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One training: an arm and a seed, in its own folder, whose name identifies its settings."""

    arm: str
    seed: int
    recipe: Recipe
    arch: Path  # the network's arch file
    path: Path
    length: Length | None = None  # if its arm is trained at several

    @property
    def kind(self) -> str:
        """The label shared by all cells that differ only in seed and length."""
        return self.arm if self.arch.stem == "base" else f"{self.arch.stem}, {self.arm}"

    @property
    def title(self) -> str:
        length = "" if self.length is None else f", {wording.length(*self.length)}"
        return f"{self.kind}{length}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        return RunDir(self.path).finished


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What job.json stores of any job with many trainings, with defaults filled in."""

    seeds: int
    cells: str | None = None  # the folder for the trainings, absolute; None: in the run
    set: list[str] = field(default_factory=list)
    recipe: str | None = None
    data: str | None = None
    storage: str | None = None  # the URL, without its password, of the study that several processes share

    @property
    def cells_folder(self) -> Path:
        """The folder for the trainings; a relative path is in the run."""
        return CELLS if self.cells is None else Path(self.cells)


def common(asked: Any) -> dict[str, Any]:
    """The fields of a `Setting` that are taken from a job as they were given."""
    options, cells = asked.options, None if asked.cells is None else str(asked.cells.resolve())
    storage = asked.storage and without_passwords(asked.storage)
    said = {"set": list(options.set), "recipe": options.recipe, "data": options.data}
    return {"cells": cells, "storage": storage, **said}


def resumed(
    asked: Any, run: RunDir, setting: Setting, of_nets: str | None, said: Mapping[str, Any]
) -> tuple[Options, Recipe, Sets]:
    """The options to go on with, the run's recipe, and its data sets. `of_nets` is the data set that the arch files
    name, `said` the job's own arguments (None: not given).

    Raises BadInput for arguments that differ from those the run was begun with, a recipe that was edited since, or
    images that have moved to a place that is not given."""
    given, recipe = asked.options, load(run.recipe_file, Recipe)
    sets = Sets(begun_record(run, recipe))
    now = common(asked) | {"set": _fixed(given.set) or None, "data": other_data(given.data, recipe)} | said
    refuse_changed(run.path, {name: getattr(setting, name) for name in now} | {"set": _fixed(setting.set)}, now)
    if asked.storage is None and HIDDEN in (setting.storage or ""):
        told = f"give its {arg.storage} again, {setting.storage} with the password"
        raise BadInput(f"{run.path} keeps no passwords: {told}")
    recipe = at_path(recipe, given.data)
    data = setting.data if given.data is None else given.data  # loading checks that the images are the same
    options = replace(given, set=(*setting.set, *given.set), recipe=setting.recipe, data=data)
    # the recipe file may have been edited since
    run.check_settings(options.settings({}, arm="baseline", data=of_nets), CHANGE_NOTHING)
    return options, recipe, sets


def placed(cells: Iterable[Cell], run: RunDir) -> list[Cell]:
    """The cells with paths in the run, where they were relative to it."""
    return [replace(cell, arch=run.path / cell.arch, path=run.path / cell.path) for cell in cells]


def joined(given: str | Sequence[object] | None) -> str | None:
    """An argument for several values as one text, as on the command line."""
    return given if given is None or isinstance(given, str) else ",".join(map(str, given))


def check_begun(cells: list[Cell]) -> None:
    """Raises BadInput if an existing folder was trained with other settings than its cell's.

    The key leaves out defaults, so a version of nasaug with other defaults gives the same key to other settings."""
    for cell in cells:
        if RunDir(cell.path).job_file.is_file():
            differs = differing(load(RunDir(cell.path).recipe_file, Recipe), cell.recipe, aside=MAY_DIFFER)
            if differs:
                remedy = f"remove it, or start anew with other {arg.cells}"
                raise BadInput(f"{cell.path} was trained with {', '.join(differs)}; {remedy}")


def check_options(asked: Any, whose: str) -> None:
    """Raises BadInput for options that do not suit a job of many trainings; `whose` names it in the message."""
    common = asked.options
    for argument in ("seeds", "jobs"):
        value = getattr(asked, argument)
        if value is not None and value < 1:
            raise BadInput.of(argument=argument, value=value, rule="must be at least 1")
    if common.seed is not None:
        raise BadInput(f"{arg.seed} {common.seed}: {whose} has several, 0 and up; say how many with {arg.seeds}")
    if common.profile:
        many = f"{whose} has many trainings, each with a log of its own"
        raise BadInput(f"{arg.profile}: {many}; give it for a single training")
    if asked.cells is not None and asked.cells.exists() and not asked.cells.is_dir():
        raise BadInput(f"{arg.cells} {asked.cells} is not a folder; give one, or a new name")


def check_registered(cells: list[Cell], sets: Sets) -> None:
    """Raises BadInput if a cell's method or task is registered in a module that the cells' own processes would not
    import."""
    for recipe in {cell.arm: cell.recipe for cell in cells}.values():
        task = chosen(recipe.task, sets.read[repr(recipe.data)].info)
        for kind, name, used in (("method", recipe.method, type(recipe.chosen_method())), ("task", task.name, task)):
            module = used.__module__
            if not own.imports(module):
                rule = f"is registered in {module}, which the trainings' own processes do not import"
                remedy = f"set {own.IMPORT}={module} in the environment"
                if module == "__main__":
                    rule = "is registered in a script, which the trainings' own processes do not run"
                    remedy = f"put it into a module that Python finds, and set {own.IMPORT}=MODULE in the environment"
                raise BadInput.of(field=kind, value=name, rule=rule, remedy=remedy)


def _fixed(sets: Sequence[str]) -> list[str]:
    """The overrides of recipe keys that must stay the same on resuming."""
    return [item for item in sets if item.partition("=")[0].strip() not in CHANGE_NOTHING]


def read_data(recipe: Recipe, found: ArchFile, sets: Sets) -> Data:
    key = repr(recipe.data)
    if key not in sets.read:
        sources = sources_of(found, recipe).values()
        sets.read[key] = load_data(recipe, found.plan.resolution, None, sources, sets.begun)
    return sets.read[key]


def record_of(recipe: Recipe, found: ArchFile, sets: Sets) -> Record:
    """Which image is in which split before fewer of them are trained on, as each cell does by its own recipe."""
    return read_data(replace(recipe, data=whole_of(recipe.data)), found, sets).record


def key_of(found: ArchFile, start: str, recipe: Recipe, data: Data) -> str:
    """SHA-256 hex digest of everything that a cell's result depends on, except its arm's name.

    Weights to start from (`start` is their digest), a teacher and an image folder enter by content, since files move
    and change."""
    usual = flatten(to_dict(Recipe()))  # left out, so that adding a key in a later version does not change the digest
    said, aside = flatten(to_dict(recipe)), ("arm", *CHANGE_NOTHING)
    table = {key: value for key, value in said.items() if key not in aside and value != usual.get(key)}
    if len(data.record.files):
        table["data.name"] = data.record.whole_key
        table.pop("data.targets", None)  # the record's key covers the targets
    if teacher := teacher_digest(recipe.teacher.source):
        table["teacher.source"] = teacher
    if start_named(recipe.init):
        table["init"] = digest(inherited_from(found, recipe.init))
    elif found.start is None:  # weights are fresh whether or not init says so
        table.pop("init", None)
    what = [table, found.plan.to_dict(), start, *([found.pruned] if found.pruned else [])]
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def plain_name(arm: str, among: Iterable[str] = ()) -> str:
    """An arm as part of a file name; with a hash if it is cut short or clashes with another arm in `among`."""
    name = _replaced(arm)
    if len(name) <= LONGEST and all(other == arm or _replaced(other) != name for other in among):
        return name
    told_apart = hashlib.sha256(arm.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name[:LONGEST]}-{told_apart}"


def _replaced(arm: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=_-]+", "_", arm)


def folder_name(arm: str, seed: int, key: str) -> str:
    """A cell's folder name: readable, plus the start of its key."""
    return f"{plain_name(arm)}-s{seed}-{key[:8]}"


def jobs_for(runtime: Runtime, asked: int | None) -> int:
    """How many trainings run at a time: `asked`, or one per core, or one on an accelerator."""
    return asked or (1 if runtime.accelerated else cores())


def estimate(cells: list[Cell], runtime: Runtime, jobs: int, sets: Sets) -> dict[Path, float]:
    """Seconds that each cell will take, from a few timed steps of each arm; single-threaded if several run at once.

    An arm is timed at one of its lengths; its time at the others is taken to be proportional."""
    # A cell's process starts as this one did, so the CPU seconds that this one has used so far tell how long that
    # takes: on the command line. A Python session may have worked for hours before, hence the limit.
    starting = min(time.process_time(), LONGEST_START)
    threads = torch.get_num_threads()
    if jobs > 1:
        torch.set_num_threads(1)
    try:
        timed = _kinds_seconds(cells, runtime, sets)
    finally:
        torch.set_num_threads(threads)
    return {cell.path: starting + timed[cell.kind] * _times(cell, cells, sets) for cell in cells}


def _times(cell: Cell, cells: list[Cell], sets: Sets) -> float:
    """The cell's length as a multiple of that of the first cell of its kind."""
    first = next(other for other in cells if other.kind == cell.kind)
    if cell.length is not None and cell.length.unit in BY_DATA and cell.recipe.stop == "epochs":
        steps, those = (_steps(each.recipe, sets) for each in (cell, first))
        return steps / those if steps and those else 1.0
    if cell.length is None or first.length is None or not cell.length.value or not first.length.value:
        return 1.0
    return cell.length.value / first.length.value


def _steps(recipe: Recipe, sets: Sets) -> float:
    """The steps of a training whose data were read and whose epochs are given; else 0."""
    data = sets.read.get(repr(recipe.data))
    return recipe.epochs * recipe.steps_of(len(data.train)) if data and recipe.epochs != "auto" else 0.0


def _kinds_seconds(cells: list[Cell], runtime: Runtime, sets: Sets) -> dict[str, float]:
    """Seconds of the first cell of each kind, without the start of its process."""
    timed: dict[str, float] = {}
    told: set[str] = set()
    for cell in cells:
        if cell.kind not in timed:
            found = archfile.read(str(cell.arch))
            timed[cell.kind] = 0.0
            try:
                data = read_data(cell.recipe, found, sets)
                job = job_for(found, cell.recipe, runtime, len(data.train))
                _, start = start_of(found, job, data)
                if start not in told:
                    told.add(start)
                    say(f"  {cell.kind}: {start}")
                timed[cell.kind] += _arm_seconds(job, data, runtime)
            except Exception as error:  # the cell itself will fail without affecting the others
                say(f"{cell.kind}: how long it takes cannot be told ({told_by(error)})")
    return timed


def _arm_seconds(job: Job, data: Data, runtime: Runtime) -> float:
    trainer = make_trainer(job, data, runtime, make_scorer(job.recipe, data, runtime))
    begun = time.perf_counter()
    trainer.end_epoch()
    judging = time.perf_counter() - begun
    step = time_steps(trainer)
    training = job.length.seconds or step * job.length.steps
    epochs = training / step / job.length.steps_per_epoch
    return training + judging * max(1, epochs / trainer.every)


def train_missing(
    cells: list[Cell], what: str, run: RunDir, device: str, jobs: int | None, sets: Sets, watch: Watch | None = None,
    storage: str | None = None,
) -> list[dict]:  # fmt: skip
    """Announce the cells and the estimated time, train the unfinished ones, and return those that failed. With a
    `storage`, other processes may train some of them.

    Cells with the same folder, which differ only in their arms' names, are trained once. Raises RunFault if no cell is
    finished afterwards."""
    check_begun(cells)
    cells = list({cell.path: cell for cell in reversed(cells)}.values())[::-1]  # the first of each folder
    watch, runtime = watch or Watch(), open_runtime(device)
    left = [cell for cell in cells if not cell.finished and not watch.hopeless(cell)]
    there = sum(cell.finished for cell in cells)
    out = len(cells) - there - len(left)
    say(f"{what}: {len(cells)} cells, {there} there already" + (f", {out} pruned" if out else ""))
    run.log("begin", cells=len(cells), left=len(left))
    if not left:
        return []
    curves = dict.fromkeys(curve for cell in left for curve in curves_of(cell.recipe))
    warn_of_curves(curves, partial(read_data, left[0].recipe, archfile.read(str(left[0].arch)), sets))
    jobs = jobs_for(runtime, jobs)
    seconds = estimate(left, runtime, jobs, sets)
    sets.read.clear()  # each process reads its own
    say(f"about {format_duration(together(list(seconds.values()), jobs))}, {min(jobs, len(left))} at a time")
    works: list[Work] | Queue = [work_of(cell, device, seconds[cell.path]) for cell in left]
    with contextlib.ExitStack() as faults:
        threads = 1 if jobs > 1 else torch.get_num_threads()
        if storage is not None:
            faults.enter_context(storage_faults(storage))
            works, threads = _shared(works, cells, run, storage, threads, watch)
        failed = [
            {"arm": work.about.arm, **_length_of(work.about), "seed": work.about.seed, "error": error}
            for work, error in run_all(works, jobs, environment_of(run, threads), watch)
        ]
    if not any(cell.finished for cell in cells):
        said = f"no cell was finished; the first failed with: {failed[0]['error']}"
        raise RunFault(f"{said}; try again with {resume_command(run)}")
    return failed


def _length_of(cell: Cell) -> dict[str, Any]:
    return {} if cell.length is None else {"length": cell.length._asdict()}


def _shared(
    works: list[Work], cells: list[Cell], run: RunDir, storage: str, threads: int, watch: Watch
) -> tuple[Queue, int]:
    """The queue in the storage, and how many threads each training has; that is as many as when the run began."""
    direction = task_of(cells[0].recipe, describe(cells[0].recipe.data)).metric.direction
    study = SharedStudy(storage, [direction])
    threads = study.facts.get(THREADS, threads)
    study.note(THREADS, threads)
    environment_of(run, threads)  # noted before another process can join
    queue = SharedQueue(study, works, score_of, lambda work: watch.ended(work.about))
    names = "\n".join(sorted(cell.path.name for cell in cells))
    queue.lead({"cells": hashlib.sha256(names.encode()).hexdigest()}, run.path)
    say(f"further processes can train some of them: {nasaug_command('cell-worker', '--run', run.path)}")
    return queue, threads


def score_of(work: Work) -> float:
    return read_result(work.path).val_score


def environment_of(run: RunDir, threads: int, leads: bool = True) -> dict[str, str]:
    """The environment that makes all cells with this many threads use the same kernels, also after resuming, and the
    run's splits. Unless this process `leads`, it is only read."""
    noted = run.environment().get("cells", {})
    if leads and str(threads) not in noted:
        noted |= {str(threads): choice.for_cells(threads)}
        run.note(cells=noted)
    return {"OMP_NUM_THREADS": str(threads), PARENT: str(run.path.resolve()), **noted[str(threads)]}


def resume_command(run: RunDir) -> str:
    """The command that resumes a run."""
    verb = files.read_json(run.job_file, JOB_FORMAT)["verb"]
    return nasaug_command(verb, "--resume", "--run", run.path)


def work_of(cell: Cell, device: str, seconds: float) -> Work:
    def begin() -> list[str]:
        recipe = cell.path.with_suffix(cell.path.suffix + ".toml")
        files.write_with_names(recipe, dump(cell.recipe))
        return ["train", "--arch", str(cell.arch), "--recipe", str(recipe), *where]

    def go_on() -> list[str]:
        said = flatten(to_dict(cell.recipe))
        named = ("teacher.source",) if teacher_digest(cell.recipe.teacher.source) else ()
        held = (f"--set={key}={json.dumps(said[key])}" for key in (*CHANGE_NOTHING, *named))
        # the data may have moved
        return ["train", "--resume", *held, "--data", cell.recipe.data.name, *where]

    def told() -> str:
        result = read_result(cell.path)
        return f"validation {result.metric.show(result.val_score)}"

    where = ("--run", str(cell.path), "--device", device)
    return Work(cell.title, cell.path, begin, go_on, seconds, told, cell)

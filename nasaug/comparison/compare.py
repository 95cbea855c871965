"""`compare`: train one network in several ways with the same seeds, and test the differences."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from ..arch import archfile
from ..arch.archfile import ArchFile
from ..config.layers import arm_says
from ..core import files
from ..core.errors import BadInput, RunFault, arg, unknown, with_value
from ..core.progress import Listener, heard_by, say
from ..core.streams import this_command
from ..data import Record
from ..nets.store import digest
from ..pool.storage import absolute_storage, check_storage
from ..reporting import wording
from ..rundirs.folder import RunDir, without_passwords
from ..rundirs.job import kept_as
from ..rundirs.result import Length
from ..tasks import chosen
from ..training.begin import create_or_resume
from ..training.device import open_runtime
from ..training.job import job_for
from ..training.options import Options
from ..training.recipe import Recipe
from ..training.start import check_start
from ..training.start import named as start_named
from ..training.train import fitted, refuse_other_net
from . import report
from .arguments import LENGTHS, MATCH, STOPS, amounts_of, arms_of, lengths_of, share_of
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
    read_data,
    record_of,
    resumed,
)
from .trainings import resume_command, train_missing

DEFAULT = "baseline,netaug,gradaug,aug-constant,aug-rising,aug-falling"
SEEDS = 5
BASE = RunDir(Path()).base_file  # the network's arch file, relative to the run


def compare(
    arch: str | os.PathLike[str] | None = None, *, methods: str | Sequence[str | Path] | None = None,
    seeds: int | None = None, match: str | None = None, lengths: str | Sequence[float | str] | None = None,
    data_fraction: str | float | Sequence[float] | None = None, shots: str | int | Sequence[int] | None = None,
    jobs: int | None = None, cells: str | Path | None = None, from_scratch: bool = False,
    resolution: int | None = None, storage: str | None = None, data: str | Path | None = None,
    recipe: str | Path | None = None, set: Mapping[str, object] | Sequence[str] = (), device: str = "auto",
    run: str | Path | None = None, resume: bool = False, on_event: Listener | None = None,
) -> Comparison:  # fmt: skip
    """Train one network in several ways with the same seeds, and report which of them help.

    Args:
        arch: an arch file's path (found.json), a named architecture, or what `nasaug.search` returned.
        methods: the arms, as a list or separated by commas; defaults to baseline, netaug, gradaug and three schedules.
        seeds: the number of seeds per arm; defaults to 5, the minimum for a verdict.
        match: what all arms get equal amounts of: epochs (default), compute (train_macs each) or seconds (max_seconds
            each).
        lengths: how long to train each arm, as a list or separated by commas: epochs, or with match = "compute" forward
            MACs ("2T"), or with "seconds" times ("5m"). Each arm is trained at each length, and compared with the first
            (or baseline) at the same length and at the same training compute. Defaults to one length, the recipe's.
        data_fraction, shots: train each arm on each of these shares of the training images, or on so many of each
            class, and compare it with the first (or baseline) on as many.
        jobs: how many trainings run at a time; defaults to one per core.
        cells: the folder for the trainings, where finished ones with the same settings are reused; defaults to a folder
            in the run.
        from_scratch: use fresh weights instead of those that the arch file names.
        resolution: image size in px; defaults to the arch file's, or to the data's for a named architecture.
        storage: the URL of a storage, as for `nasaug.search`, through which further processes (`nasaug cell-worker`)
            train cells too, on this machine or others; none by default.
        data, recipe, set, device, run, resume: see `nasaug.training.options.Options`; `set` may be a mapping.
        on_event: called with each line and each step of progress (nasaug.core.progress).

    Raises BadInput, Stopped, or RunFault (also if some trainings failed: the others are still reported).
    """
    options = Options.of(data, recipe, set, None, device, run, resume)
    path, folder = (None if arch is None else archfile.path_of(arch)), (None if cells is None else Path(cells))
    shares, each = (joined([x] if isinstance(x, (int, float)) else x) for x in (data_fraction, shots))
    job = CompareJob(
        path, joined(methods), seeds, match, joined(lengths), shares, each, jobs, folder, resolution, from_scratch,
        options, storage,
    )  # fmt: skip
    with heard_by(on_event):
        return create_or_resume(job)


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison: the contents of comparison.json, and the page beside it."""

    run: Path
    summary: dict[str, Any]

    @property
    def page(self) -> Path:
        return RunDir(self.run).comparison_page

    def __str__(self) -> str:
        """The table."""
        return wording.table(self.summary)


@dataclass(frozen=True, kw_only=True)
class CompareSetting(Setting):
    """What a comparison's job.json stores. `arch_data` is the data set that the arch file names; `lengths` ascend and
    are empty if there is one, the recipe's."""

    arms: list[str]
    seeds: int = SEEDS
    match: str = MATCH
    from_scratch: bool = False
    arch_data: str | None = None
    lengths: list[float] = field(default_factory=list)
    data_fraction: list[float] = field(default_factory=list)
    shots: list[int] = field(default_factory=list)

    @property
    def all_lengths(self) -> list[Length]:
        """The lengths or amounts of data that each arm is trained at, ascending; empty: one, the recipe's."""
        at: dict[str, Sequence[float]] = {"fraction": self.data_fraction, "shots": self.shots}
        at[STOPS[self.match]] = self.lengths
        return [Length(unit, value) for unit, values in at.items() for value in values]

    @property
    def methods(self) -> list[str]:
        """The arms, by the name of the argument that gives them."""
        return self.arms


@dataclass(frozen=True)
class Ready:
    """A comparison whose inputs have all been validated. The cells' paths may be relative to the run."""

    found: ArchFile
    cells: list[Cell]
    setting: CompareSetting
    recipe: Recipe
    sets: Sets

    @property
    def record(self) -> Record:
        return record_of(self.recipe, self.found, self.sets)


@dataclass(frozen=True)
class CompareJob:
    """What to compare, and how. None means not given."""

    arch: str | None = None
    methods: str | None = None
    seeds: int | None = None
    match: str | None = None
    lengths: str | None = None
    data_fraction: str | None = None
    shots: str | None = None
    jobs: int | None = None
    cells: Path | None = None
    resolution: int | None = None
    from_scratch: bool = False
    options: Options = Options()
    storage: str | None = None
    verb, extends, together = "compare", False, False

    def __post_init__(self) -> None:
        # absolute, so that a run resumed from another working directory uses the same file
        object.__setattr__(self, "storage", self.storage and absolute_storage(self.storage))

    def _check(self) -> None:
        check_options(self, "a comparison")
        if self.match is not None and self.match not in STOPS:
            raise unknown(arg.match, self.match, STOPS)
        said = {item.partition("=")[0].strip(): item for item in self.options.set}
        if self.lengths is not None:
            for key in (*LENGTHS.values(), "times"):
                if key in said:
                    raise BadInput(
                        f"{arg.set} {said[key]}: {arg.lengths} {self.lengths} says how long to train; "
                        f"leave one of them out"
                    )
        amounts = {"lengths": self.lengths, "data_fraction": self.data_fraction, "shots": self.shots}
        one, *others = [name for name, value in amounts.items() if value is not None] or [""]
        if others:
            rule = f"and {with_value(others[0])} {amounts[others[0]]} would both tell the runs of an arm apart"
            raise BadInput.of(argument=one, value=amounts[one], rule=rule, remedy="leave one of them out")
        for key in ("data.fraction", "data.shots"):
            if key in said and one in ("data_fraction", "shots"):
                raise BadInput(
                    f"{arg.set} {said[key]}: {with_value(one)} {amounts[one]} says how many images to train on; "
                    f"leave one of them out"
                )
        if self.match not in (None, MATCH) and "epochs" in said:
            raise BadInput(
                f"{arg.set} {said['epochs']}: with {arg.match} {self.match} trainings end by {LENGTHS[self.match]}; "
                f"give that instead"
            )

    def prepare(self) -> Ready:
        self._check()
        lengths, amounts = self._lengths(self.match or MATCH) or [], self._amounts
        arms, options, sets = arms_of(DEFAULT if self.methods is None else self.methods), self.options, Sets()
        if self.arch is None:
            raise BadInput(f"compare needs {arg.arch}: an arch file like found.json, or a named architecture")
        of_arch = archfile.read(self.arch).facts.get("data")
        plain = options.settings({}, arm="baseline", data=of_arch)
        found = fitted(self.arch, self.resolution, plain)
        setting = CompareSetting(
            arms=arms, seeds=SEEDS if self.seeds is None else self.seeds, match=self.match or MATCH,
            from_scratch=self.from_scratch, arch_data=of_arch, lengths=lengths,
            data_fraction=amounts["data_fraction"] or [], shots=amounts["shots"] or [], **common(self),
        )  # fmt: skip
        cells = make_cells(found, setting, options, sets)  # also validates every arm, before anything is written
        if self.cells:
            check_begun(cells)
        check_registered(cells, sets)
        if self.storage is not None:
            check_storage(self.storage, resumed=False)
        return Ready(found, cells, setting, plain, sets)

    def _lengths(self, match: str) -> list[float] | None:
        return None if self.lengths is None else lengths_of(self.lengths, match)

    @property
    def _amounts(self) -> dict[str, list[Any] | None]:
        """The amounts of data, by the setting's field; None: not given."""
        asked: dict[str, tuple[str | None, Callable[[str], float]]] = {
            "data_fraction": (self.data_fraction, share_of), "shots": (self.shots, int),
        }  # fmt: skip
        return {name: None if text is None else amounts_of(name, text, kind) for name, (text, kind) in asked.items()}

    def write(self, run: RunDir, ready: Ready) -> dict[str, Any]:
        ready.found.save(run.base_file)
        return asdict(ready.setting)

    def restore(self, run: RunDir, kept: dict[str, Any]) -> Ready:
        self._check()
        setting = kept_as(CompareSetting, kept)
        said = {
            "methods": None if self.methods is None else arms_of(self.methods), "seeds": self.seeds,
            "match": self.match, "from_scratch": self.from_scratch or None,
            "lengths": self._lengths(self.match or setting.match), **self._amounts,
        }  # fmt: skip
        options, begun, sets = resumed(self, run, setting, setting.arch_data, said)
        found = archfile.read(str(run.base_file))
        own = start_named(begun.init) or setting.from_scratch
        if found.start is not None and not found.start.is_file() and not own:
            gone = f"{found.start} is missing, from which the trainings of {run.path} start"
            raise BadInput(f"{gone}; restore it, or start anew with {arg.from_scratch}")
        refuse_other_net(run, found, self.arch, self.resolution, begun)
        return Ready(found, make_cells(found, setting, options, sets), setting, begun, sets)

    def carry_out(self, run: RunDir, ready: Ready) -> None:
        """Train every unfinished cell, and write the table, the figures and the page."""
        cells, setting = placed(ready.cells, run), ready.setting
        what = "lengths" if setting.lengths else "amounts of data"
        several = f" x {len(setting.all_lengths)} {what}" if setting.all_lengths else ""
        what = f"{len(setting.arms)} arms{several} x {setting.seeds} seeds, matched by {setting.match}"
        storage = self.storage or setting.storage
        failed = train_missing(cells, what, run, self.options.device, self.jobs, ready.sets, storage=storage)
        done = [cell.path for cell in cells if cell.finished]
        runs = report.read_runs(done)
        facts = {"failed": failed, "commands": _commands(run)}
        if setting.cells:
            facts[report.ELSEWHERE] = list(map(str, done))
        summary = report.summarise(runs, None, setting.match, facts)
        report.write(run.path, summary, runs)
        say(wording.table(summary))
        say(f"table, figures and page in {run.path}: {run.comparison_page.name}")
        if failed:
            names = ", ".join(f"{wording.label(f)} (seed {f['seed']})" for f in failed)
            some = f"{len(failed)} of {len(cells)} cells failed"
            raise RunFault(f"{some}: {names}; try them again with {resume_command(run)}")
        amounts = {"lengths": setting.lengths, "data_fraction": setting.data_fraction, "shots": setting.shots}
        lengths = {name: values for name, values in amounts.items() if values}
        told = {"arms": setting.arms, "seeds": setting.seeds, "match": setting.match, **lengths, "cells": len(cells)}
        run.finish(told)

    def result(self, run: RunDir) -> Comparison:
        return Comparison(run.path, files.read_json(run.comparison_file, report.FORMAT))


def _check_lengths(plain: Mapping[str, Recipe]) -> None:
    """Raises BadInput for arms that set their length themselves, beside lengths for all."""
    for arm, recipe in plain.items():
        said, keys = arm_says(arm, Recipe), (*LENGTHS.values(), "times")
        key = next((key for key in keys if key in said), None)
        if key:
            raise BadInput(
                f"arm {arm!r} sets {key} = {said[key]:g}, but {arg.lengths} says how long to train every arm; "
                f"leave the arm out, and give its length there"
            )
        if recipe.times != 1:
            rule = f"multiplies the lengths, which {arg.lengths} gives as they are"
            raise BadInput.of(field="times", value=recipe.times, rule=rule, remedy="set it to 1 in the recipe")


def make_cells(found: ArchFile, setting: CompareSetting, options: Options, sets: Sets) -> list[Cell]:
    """All cells, seed by seed, so that an interrupted comparison has complete seeds, and the short lengths first; paths
    are relative to the run.

    Raises BadInput for anything that can be rejected before training."""
    runtime = open_runtime(options.device)
    init: dict[str, object] = {"init": "scratch"} if setting.from_scratch else {}
    arms, of_arch = setting.arms, setting.arch_data
    plain = {arm: options.settings(init, arm=arm, data=of_arch) for arm in arms}
    for arm in arms[1:]:
        if plain[arm].data != plain[arms[0]].data:
            raise BadInput(
                f"arms {arms[0]!r} and {arm!r} use different data; "
                f"change those for all, by {arg.data} or {arg.set}"
            )
    if setting.lengths:
        _check_lengths(plain)
    unknown_macs = setting.match == "compute" and plain[arms[0]].train_macs == "auto" and not setting.lengths
    if unknown_macs and runtime.accelerated:
        raise BadInput(f"{arg.match} compute needs to know how much: give {arg.set} train_macs=1e15, say")
    cells: list[Cell] = []
    seen: dict[str, str] = {}
    start = digest(found.start)
    lengths: list[Length | None] = [*setting.all_lengths] or [None]
    for length in lengths:
        own = init | _said_by(length)
        here = {arm: options.settings(own, arm=arm, data=of_arch) for arm in arms} if length else plain
        data = read_data(here[arms[0]], found, sets)
        images = len(data.train)
        given = {arm: own | {"stop": STOPS[setting.match]} for arm in arms}
        if setting.match == "epochs" and not setting.lengths:
            auto = {arm: replace(r, times=1.0) for arm, r in here.items() if r.epochs == "auto" and r.method != "qat"}
            fewest = min((job_for(found, r, runtime, images).length.epochs for r in auto.values()), default=0)
            given |= {arm: given[arm] | {"epochs": fewest} for arm in auto}
        for seed, arm in product(range(setting.seeds), arms):
            recipe = options.settings(given[arm] | {"seed": seed, "arm": arm}, arm=arm, data=of_arch)
            if seed == 0 and length == lengths[0]:
                if start_named(recipe.init):
                    check_start(found, recipe.init, chosen(recipe.task, data.info))
                job_for(found, recipe, runtime, images).check_teacher(partial(read_data, recipe, found, sets))
            key = key_of(found, start, recipe, data)
            if seen.setdefault(key, arm) != arm:
                raise BadInput(f"arms {seen[key]!r} and {arm!r} are the same training; leave one of them out")
            cells.append(Cell(arm, seed, recipe, BASE, setting.cells_folder / folder_name(arm, seed, key), length))
    return cells


def _said_by(length: Length | None) -> dict[str, object]:
    """The recipe key that gives a training its length, or its amount of data."""
    keys = {STOPS[match]: key for match, key in LENGTHS.items()}
    return {} if length is None else {keys.get(length.unit, f"data.{length.unit}"): length.value}


def _commands(run: RunDir) -> list[str]:
    """The command lines that started the comparison and, if it was resumed, that resumed it."""
    begun = run.environment()["command"]
    return list(dict.fromkeys([begun, without_passwords(this_command())]))

"""`search`: supernet, study and finalists in one run folder, and found.json in the working directory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..arch import archfile, latency
from ..arch.archfile import ArchFile
from ..arch.cost import Budget, cost
from ..arch.plan import Plan
from ..config.layers import load
from ..core import files
from ..core.errors import BadInput, arg, nearest
from ..core.launch import launched
from ..core.progress import Listener, heard_by, say
from ..core.streams import nasaug_command
from ..core.units import parse_quantity
from ..pool.storage import absolute_storage
from ..rundirs.folder import HIDDEN, RunDir, without_passwords
from ..rundirs.job import refuse_changed
from ..training.begin import at_path, begun_record, create_or_resume
from ..training.device import open_runtime
from ..training.options import Options
from ..training.recipe import CHANGE_NOTHING, OBJECTIVES, Recipe
from ..training.skipped import note_skipped
from .finalists import begun_with, forget
from .results import FOUND
from .stages import Ready, Request, prepare, run_search


def search(
    budget: Budget | None = None, *, mac_budget: str | int | None = None, param_budget: str | int | None = None,
    sram_budget: str | int | None = None, flash_budget: str | int | None = None, space: str | Path | None = None,
    strategy: str | None = None, trials: int | None = None, sampler: str | None = None,
    headroom: float | None = None, timeout: str | None = None,
    objectives: str | Sequence[str] | None = None, pick: str | None = None,
    latency_budget: str | float | None = None, device_table: str | Path | None = None, trust_table: bool = False,
    storage: str | None = None, data: str | Path | None = None, recipe: str | Path | None = None,
    set: Mapping[str, object] | Sequence[str] = (), seed: int | None = None, device: str = "auto",
    run: str | Path | None = None, resume: bool = False, on_event: Listener | None = None,
) -> Found:  # fmt: skip
    """Train a supernet, search it under a budget, and write found.json into the working directory.

    Args:
        budget: upper limits as numbers. Each can also be given with a suffix: mac_budget="25M", param_budget="500k",
            sram_budget="64KB" (peak activation memory in int8), flash_budget="1MB" (weights in int8),
            latency_budget="3ms" (as `device_table` predicts).
        space: a search space's name or the path of a TOML file; defaults to the recipe's.
        strategy: supernet (default), or halving: train networks on their own, without a supernet.
        trials, sampler, headroom: the recipe's search.trials, search.sampler (tpe, nsga2, random), search.headroom.
        timeout: time limit of the search stage, such as "10m".
        objectives: what to search for, "accuracy" (default) or with costs to keep low beside it, such as
            "accuracy,macs,sram" or a list: the search then looks for their Pareto front (`Found.front`).
        pick: the net of the front that is found: best (default), knee, min-macs, min-params, min-sram, min-flash or
            min-latency.
            With resume=True it chooses again from a finished search.
        device_table: the latency table of the device, written by `nasaug.latency_table`.
        trust_table: use it although it predicts badly or was made for another space.
        storage: any Optuna storage URL; defaults to a file in the run's folder.
        data, recipe, set, seed, device, run, resume: see `nasaug.training.options.Options`; `set` may be a mapping.
        on_event: called with each line and each step of progress (nasaug.core.progress).

    Raises BadInput, RunFault, or Stopped if a signal interrupts it.
    """
    texts = {
        "macs": mac_budget, "params": param_budget, "peak": sram_budget, "flash": flash_budget,
        "latency": latency_budget,
    }  # fmt: skip
    given = {key: None if value is None else str(value) for key, value in texts.items()}
    limits = (Budget() if budget is None else budget).limits | Budget.parse(**given).limits
    options = Options.of(data, recipe, set, seed, device, run, resume)
    said = None if space is None else str(space)
    named = objectives if objectives is None or isinstance(objectives, str) else ",".join(objectives)
    table = None if device_table is None else Path(device_table)
    job = SearchJob(
        Budget(**limits), said, trials, sampler, headroom, timeout, storage, options, strategy, named, pick, table,
        trust_table,
    )  # fmt: skip
    with heard_by(on_event):
        return create_or_resume(job)


@dataclass(frozen=True)
class Found:
    """The result of a search. Accepted wherever the path of an arch file is: `nasaug.train(found)`."""

    run: Path
    """The run's folder: supernet, candidates.json, pareto.json, pareto.png, front/ and search.html."""
    arch: ArchFile
    """The network, its position in the space, and what is known about it (arch.facts)."""
    result: dict[str, Any]
    """The contents of result.json."""

    @property
    def plan(self) -> Plan:
        return self.arch.plan

    @property
    def front(self) -> list[ArchFile]:
        """The nets of the Pareto fronts, of finalists and of candidates, in the order of their MACs."""
        nets = map(archfile.read, map(str, RunDir(self.run).front_folder.glob("*.json")))
        return sorted(nets, key=lambda net: (cost(net.plan).macs, net.name))

    def __fspath__(self) -> str:
        return str(RunDir(self.run).found_file)


@dataclass(frozen=True)
class SearchJob:
    """What to search for, and how. None means not given. `timeout` is a string such as "10m", and `objectives` one
    such as "accuracy,macs"."""

    budget: Budget = Budget()
    space: str | None = None
    trials: int | None = None
    sampler: str | None = None
    headroom: float | None = None
    timeout: str | None = None
    storage: str | None = None
    options: Options = Options()
    strategy: str | None = None
    objectives: str | None = None
    pick: str | None = None
    device_table: Path | None = None
    trust_table: bool = False
    leave_found: bool = True
    """Whether found.json is written into the working directory too."""
    verb, together = "search", True

    def __post_init__(self) -> None:
        # absolute, so that a run resumed from another working directory uses the same file
        object.__setattr__(self, "storage", self.storage and absolute_storage(self.storage))

    @property
    def sets(self) -> dict[str, object]:
        """The recipe keys that the job sets."""
        return {
            "space": self.space, "search.trials": self.trials, "search.sampler": self.sampler,
            "search.headroom": self.headroom, "search.strategy": self.strategy, "search.objectives": self._objectives,
            "search.pick": self.pick,
        }  # fmt: skip

    @property
    def request(self) -> Request:
        table = None if self.device_table is None else latency.read(self.device_table)
        return Request(self.budget, self.storage, self._seconds, table, self.trust_table)

    @property
    def _seconds(self) -> float | None:
        return None if self.timeout is None else parse_quantity(self.timeout, "seconds", argument="timeout")

    @property
    def _objectives(self) -> list[str] | None:
        if self.objectives is None:
            return None
        named = [name.strip() for name in self.objectives.split(",")]
        for name in named:
            if name not in OBJECTIVES:
                rule = f"names no objective {name!r}"
                remedy = nearest(name, OBJECTIVES) or "give some like accuracy,macs"
                raise BadInput.of(
                    argument="objectives", value=self.objectives, rule=rule, choices=OBJECTIVES, remedy=remedy
                )
        return named

    @property
    def extends(self) -> bool:
        """Whether more trials, another timeout or another pick are given, with which a finished search goes on."""
        said = any(map(self.options.said, ("search.trials", "search.pick")))
        return said or any(given is not None for given in (self.trials, self.timeout, self.pick))

    def prepare(self) -> Ready:
        if self.budget.latency is not None and self.device_table is None:
            value, rule = f"{self.budget.latency:g}ms", f"needs {arg.device_table}"
            remedy = "make one with nasaug latency-table"
            raise BadInput.of(argument="latency_budget", value=value, rule=rule, remedy=remedy)
        if self.trust_table and self.device_table is None:
            raise BadInput(f"{arg.trust_table} has no table to trust; give {arg.device_table}, or leave it out")
        request, recipe, said = self.request, self.options.settings(self.sets), self.options.said
        self._check_used(recipe)
        if recipe.search.lr != "auto" and said("lr") and not said("search.lr"):
            rule = "the recipe gives the supernet a learning rate of its own"
            raise BadInput(f"{arg.set} lr=…: {rule}; use {arg.set} search.lr=…")
        _check_writable(Path(FOUND))
        return prepare(recipe, request, self.options)

    def _check_used(self, recipe: Recipe) -> None:
        """Raises BadInput for an argument that a search without a supernet would ignore, or one that several processes
        cannot share."""
        if self.storage is not None and launched()[1] > 1:
            rule = "cannot be used by processes that torchrun started, because each keeps the study itself"
            raise BadInput.of(
                argument="storage", value=without_passwords(self.storage), rule=rule, remedy="leave it out"
            )
        given = {"trials": self.trials, "sampler": self.sampler, "timeout": self.timeout, "storage": self.storage}
        unused = [name for name, value in given.items() if value is not None]
        if recipe.search.strategy == "halving" and unused:
            rule = "has no use in a search without a supernet (search.strategy = halving), which proposes no candidates"
            raise BadInput.of(argument=unused[0], value=given[unused[0]], rule=rule, remedy="leave it out")

    def write(self, run: RunDir, ready: Ready) -> dict[str, Any]:
        request = ready.request
        shown = request.storage and without_passwords(request.storage)
        kept = {
            "budget": request.budget.limits, "storage": shown, "timeout": request.timeout,
            "accelerated": ready.runtime.accelerated, "onward": list(ready.onward),
        }  # fmt: skip
        if request.device is None:
            return kept
        files.write_json(run.latency_file, request.device.content)
        return kept | {"trust_table": request.trusted}

    def restore(self, run: RunDir, kept: dict[str, Any]) -> Ready | None:
        """Also accepts a larger number of trials, another timeout or another pick than the run was started with."""
        path, recipe = run.path, load(run.recipe_file, Recipe)
        self._check_used(recipe)
        asked = self.options.settings(self.sets, data=recipe.data.name, default=run.recipe_file)
        run.check_settings(asked, (*CHANGE_NOTHING, "search.trials", "search.pick"))
        request = self.resumed(kept, run)
        proposes = recipe.search.strategy != "halving"  # else there are no candidates that could be more
        trials, judged = asked.search.trials, _judged(run)
        if proposes and trials < judged:
            rule = f"{path} has judged {judged} candidates already, more than search.trials = {trials}"
            raise BadInput(f"{rule}; give at least {judged}, or start a new run")
        other = proposes and (trials != recipe.search.trials or request.timeout != kept["timeout"])
        again = asked.search.pick != recipe.search.pick
        if run.finished and not (other and judged < trials or again):
            longer = f", or another {arg.timeout}" if judged < trials else ""
            more = f"; for more candidates give more {arg.trials}{longer}" if proposes else ""
            say(f"what was found is in {run.found_file}{more}")
            return None
        self.check_device(run, kept)
        _check_writable(Path(FOUND))
        asked = at_path(asked, self.options.data)
        if again and run.start_file.is_file() and not run.front_folder.is_dir():
            rule = f"{path} was searched by a version of nasaug that kept the weights of the net found alone"
            raise BadInput(f"{rule}; leave {arg.pick} out, or start a new run")
        ready = prepare(asked, request, self.options, begun=begun_record(run, recipe), resumed=True)
        ready = replace(ready, onward=ready.onward or tuple(kept.get("onward", ())))
        if again:  # what remains is to choose: what was judged and trained is known
            run.result_file.unlink(missing_ok=True)
            run.start_file.unlink(missing_ok=True)
        if other:
            _extend(run, ready, kept, judged)
        run.go_on_with(asked)
        return ready

    def resumed(self, kept: dict[str, Any], run: RunDir) -> Request:
        """The original request, with the new timeout if one is given. Raises BadInput for any other difference."""
        path, table = run.path, latency.read(run.latency_file) if run.latency_file.is_file() else None
        asked, begun = self.request, Request(
            Budget(**kept["budget"]), kept["storage"], kept["timeout"], table, kept.get("trust_table", False)
        )
        if "trust_table" in kept and table is None:
            raise BadInput(f"{run.latency_file} is missing, by which the run was begun; restore it, or start a new run")
        if asked.device is not None and (table is None or asked.device.content != table.content):
            rule = f"is not the table that {path} was begun with"
            raise BadInput.of(argument="device_table", value=asked.device.name, rule=rule, remedy="leave it out")
        if asked.budget.limits and asked.budget != begun.budget:
            raise BadInput(f"{path} was begun under {begun.budget}, not {asked.budget}; start a new run")
        if asked.storage is None and begun.storage and HIDDEN in begun.storage:
            raise BadInput(
                f"{path} keeps no passwords: "
                f"give its {arg.storage} again, {begun.storage} with the password"
            )
        refuse_changed(path, kept, {"storage": asked.storage and without_passwords(asked.storage)})
        timeout = begun.timeout if asked.timeout is None else asked.timeout
        return replace(begun, timeout=timeout, storage=asked.storage or begun.storage)

    def check_device(self, run: RunDir, kept: dict[str, Any]) -> None:
        """Raises BadInput on another kind of device, if the recipe leaves the lengths of trainings to nasaug: they, and
        the nets that are worth training, would be others."""
        recipe = load(run.recipe_file, Recipe)
        begun = kept.get("accelerated")  # not noted by older versions
        if begun is None or recipe.train_macs != "auto":
            return
        if begun != open_runtime(self.options.device).accelerated:
            kind = "an accelerator" if begun else "a CPU"
            remedy = "go on where there is one" if begun else f"give {arg.device} cpu"
            rule = f"was begun on {kind}, for which the lengths of its trainings were chosen"
            raise BadInput(f"{run.path} {rule}; {remedy}, or start a new run with {arg.set} train_macs=…")

    def carry_out(self, run: RunDir, ready: Ready) -> None:
        result = run_search(ready, run)
        if ready.runtime.ranks.first and self.leave_found:  # with the supernet's path relative to the working directory
            archfile.read(str(run.found_file)).save(FOUND)
        run.finish(result | note_skipped(ready.data, run, ready.runtime.ranks))
        if not self.leave_found:
            return
        judged = "supernet, candidates, " if ready.recipe.search.strategy == "supernet" else ""
        say(f"{FOUND} written; {judged}Pareto front (pareto.png) and page (search.html) in {run.path}")
        say(f"next: {nasaug_command('netaug-train', '--arch', FOUND, *ready.onward)}")

    def result(self, run: RunDir) -> Found:
        return Found(run.path, archfile.read(str(run.found_file)), run.result())


def _check_writable(found: Path) -> None:
    if found.is_dir():
        raise BadInput(f"{found} is a folder here, so the result cannot be put in its place; move it away")
    if not os.access(found.parent, os.W_OK):
        raise BadInput(f"cannot write {found} into {Path.cwd()}: no permission; go to a folder of your own")


def _judged(run: RunDir) -> int:
    """The number of candidates that the run has judged so far."""
    counted = run.result() if run.finished else begun_with(run.finalists_file)
    return counted["candidates"] if counted else sum(e["event"] == "candidate" for e in run.read_log())


def _extend(run: RunDir, ready: Ready, kept: dict[str, Any], judged: int) -> None:
    """Change the run into an unfinished one with the new number of trials and timeout.

    The result is deleted first: if interrupted in between, the run resumes with its original settings."""
    trials = ready.recipe.search.trials
    if judged < trials:
        run.result_file.unlink(missing_ok=True)
        forget(run)
    files.write_json(run.job_file, kept | {"timeout": ready.request.timeout})
    say(f"{run.path} has judged {judged} candidates and goes on to {trials}")

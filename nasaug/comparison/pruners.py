"""Stopping hopeless policies of a sweep early, by applying Optuna's pruners to validation scores during training."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ..core import files
from ..core.metric import Metric
from ..pool.processes import Watch
from ..rundirs.folder import RunDir
from ..rundirs.result import read_result
from .cells import Cell

PRUNERS = ("none", "median", "wilcoxon", "halving")
FORMAT = "nasaug-pruned/1"
RIVALS = 2  # policies that must have finished before another is judged
POLL_S = 2.0


Policy = tuple[str, str, str]  # (size, method, policy name)


def parts(cell: Cell) -> Policy:
    method, _, policy = cell.arm.rpartition("@")
    return cell.arch.stem, method, policy


class Race:
    """The policies of one size, method and seed, as trials of an Optuna study that receives their validation scores.

    Only the second half of a training counts, because strong augmentation learns slower at first and would be judged by
    that. The last epoch is not judged: stopping there would save nothing."""

    def __init__(self, pruner: str, whole: int, metric: Metric):
        """`whole` is the number of epochs of a training."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.pruner, self.whole, self._key = pruner, whole, metric.key("val")
        self.done: dict[str, dict[int, float]] = {}  # finished policies: epoch to validation score
        with _quietly():  # the Wilcoxon pruner is experimental
            self._study = optuna.create_study(direction=metric.direction, pruner=_optunas(pruner, whole))
        self._trials: dict[str, Any] = {}
        self._known: dict[str, int] = {}  # the last epoch reported to the study, by policy

    def end(self, policy: str, rows: Sequence[dict], score: float) -> None:
        """Record that a policy's training has finished. It may be told twice: two processes can have been given it."""
        if policy in self.done:
            return
        self.loses_at(policy, rows)
        self._study.tell(self._trials[policy], score)
        self.done[policy] = {row["epoch"]: row[self._key] for row in rows}

    def loses_at(self, policy: str, rows: Sequence[dict]) -> dict | None:
        """Report new epochs to the study; returns the epoch row at which its pruner would stop the policy, or None.

        Only the latest epoch counts, since a policy that was behind may have caught up; with halving the first one
        counts, since each rung is passed once."""
        known = self._known.get(policy, 0)
        new = [row for row in rows if row["epoch"] > known and 2 * row["epoch"] >= self.whole]
        if policy not in self._trials:
            self._trials[policy] = self._study.ask()
        losing = [row for row in new if self._stops(self._trials[policy], row) and row["epoch"] < self.whole]
        self._known[policy] = max([known, *(row["epoch"] for row in new)])
        if len(self.done) < RIVALS or not losing:
            return None
        if self.pruner == "halving":
            return losing[0]
        return losing[-1] if losing[-1] is new[-1] else None

    def _stops(self, trial: Any, row: dict) -> bool:
        """Whether the pruner would stop the trial at this epoch."""
        trial.report(row[self._key], row["epoch"])
        with _quietly():  # warnings about epochs that the best trial lacks, when trainings end by the clock
            return trial.should_prune()


def _optunas(name: str, whole: int) -> Any:
    """Optuna's pruner. The rungs of halving double, so only one lies in the second half: half of the epochs.

    Wilcoxon's p threshold is no true probability here, because successive epochs of one training are not independent.
    """
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner(n_startup_trials=RIVALS)
    if name == "wilcoxon":
        return pruners.WilcoxonPruner()
    return pruners.SuccessiveHalvingPruner(min_resource=math.ceil(whole / 2), reduction_factor=2)


def _quietly() -> Any:
    return warnings.catch_warnings(action="ignore")


class PolicyWatch(Watch):
    """Tracks the pruned policies, in the sweep's own folder because its cells may be shared.

    A policy that is pruned with one seed is out for that size with all seeds, so that it is never judged on fewer seeds
    than its rivals. The last remaining policy of a size is never pruned."""

    def __init__(self, pruner: str, cells: Sequence[Cell], run: RunDir, metric: Metric):
        self.metric, self.pruner, self.path = metric, pruner, run.pruned_file
        self.policies = {parts(cell) for cell in cells}
        self.out: dict[Policy, dict] = {}
        self._races: dict[tuple[str, str, int], Race] = {}
        self._next_look: dict[Path, float] = {}
        if self.path.is_file():
            entries = files.read_json(self.path, FORMAT)["pruned"]
            self.out = {(entry["size"], entry["method"], entry["policy"]): entry for entry in entries}
        for cell in sorted(cells, key=lambda cell: not cell.finished):
            self.ended(cell)

    def ended(self, cell: Cell) -> None:
        """Update the race with a cell that is not training: its result, or its epochs so far if it was pruned."""
        size, method, policy = parts(cell)
        race = self._race(cell)
        if cell.finished:
            result = read_result(cell.path)
            rows = result.history
            if race is None:
                race = self._races[size, method, cell.seed] = Race(self.pruner, rows[-1]["epoch"], self.metric)
            race.end(policy, rows, result.val_score)
        elif race and (size, method, policy) in self.out:
            race.loses_at(policy, epochs_of(cell))

    def hopeless(self, cell: Cell) -> str | None:
        policy = parts(cell)
        if policy not in self.out and self._due(cell) and self._has_rivals(policy):
            row = self._race(cell).loses_at(policy[2], epochs_of(cell))
            if row:
                self._prune(cell, row)
        return why(self.out[policy], self.metric) if policy in self.out else None

    def _race(self, cell: Cell) -> Race | None:
        size, method, _ = parts(cell)
        return self._races.get((size, method, cell.seed))

    def _has_rivals(self, policy: Policy) -> bool:
        return any(other[:2] == policy[:2] and other != policy for other in self.policies - self.out.keys())

    def _due(self, cell: Cell) -> bool:
        """Whether enough rivals have finished for a comparison, and the log was not read within the last POLL_S
        seconds.
        """
        race, now = self._race(cell), time.monotonic()
        if race is None or len(race.done) < RIVALS or now < self._next_look.get(cell.path, 0.0):
            return False
        self._next_look[cell.path] = now + POLL_S
        return not cell.finished

    def _prune(self, cell: Cell, row: dict) -> None:
        size, method, policy = parts(cell)
        race, epoch = self._race(cell), row["epoch"]
        self.out[size, method, policy] = {
            "size": size, "method": method, "policy": policy, "seed": cell.seed, "pruner": self.pruner,
            "epoch": epoch, "epochs": race.whole, self.metric.key("val"): row[self.metric.key("val")],
            "rivals": {name: there[epoch] for name, there in race.done.items() if epoch in there},
        }  # fmt: skip
        files.write_json(self.path, {"format": FORMAT, "pruned": list(self.out.values())})


def epochs_of(cell: Cell) -> list[dict]:
    """The epochs that a training has logged so far."""
    return [event for event in RunDir(cell.path).read_log() if event["event"] == "epoch"]


def why(entry: dict, metric: Metric) -> str:
    """The reason why a policy was pruned, as part of a line."""
    rivals = ", ".join(f"{name}: {metric.number(score)}" for name, score in entry["rivals"].items())
    at = f"epoch {entry['epoch']} of {entry['epochs']}, seed {entry['seed']}"
    shown = metric.show(entry[metric.key("val")])
    return f"pruned at {at}: validation {shown}, the others there {rivals or 'have none'}"


def saved(cells: Sequence[Cell], out: dict[Policy, dict]) -> dict[str, float]:
    """The number of trainings skipped or cut short, and an estimate of the training seconds saved.

    Each is assumed to take as long as the finished trainings of the same size and method."""
    results = {cell.path: read_result(cell.path).seconds for cell in cells if cell.finished}
    cut, seconds = [cell for cell in cells if not cell.finished and parts(cell) in out], 0.0
    for cell in cut:
        like = [results[c.path] for c in cells if c.finished and parts(c)[:2] == parts(cell)[:2]]
        spent = [row["seconds"] for row in epochs_of(cell)]
        seconds += max(0.0, fmean(like) - max(spent, default=0.0)) if like else 0.0
    return {"policies": len(out), "cells": len(cut), "of": len(cells), "seconds": seconds}

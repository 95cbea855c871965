"""`latency-table`: a device's latencies by measurement, fitted, checked on networks not used in the fit, and written.

Whole networks are timed rather than single layers: a layer alone takes longer than within a network, where its
neighbours are fused with it, its data are in the cache, and the call is made once. The terms of nasaug.arch.latency are
fitted to those times by non-negative least squares of the relative errors (Lawson and Hanson 1974, chapter 23). A table
from elsewhere, of layers and their milliseconds, is fitted in the same way.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from ..arch.blocks import BLOCKS
from ..arch.cost import cost, cost_of, sample_near
from ..arch.latency import (
    FORMAT,
    TERMS,
    Part,
    Table,
    all_parts,
    corners,
    parts,
    rows,
    space_hash,
    terms,
)
from ..arch.plan import Plan, plan
from ..arch.space import Arch, Space
from ..arch.spacefile import load
from ..core import files
from ..core.errors import BadInput, arg
from ..core.progress import Listener, Progress, heard_by, say
from ..core.signals import Pending, Stopped, deferred_stop
from ..core.streams import nasaug_command
from . import layer_rows, timing
from .timing import BACKENDS, VISITS, Clock, device, figure, swept, torch_threads, version

PART_FORMAT = "nasaug-latency-part/1"
FITTED, LEAST_FITTED, CHECKED = 240, 40, 40  # networks that the terms are fitted to, and on which they are checked
EACH = 4  # networks at least that have a layer of each kind
MULTIPLES = (1, 4, 8, 16)  # of channels, among which cross-validation decides
FOLDS = 6
KEPT_EVERY = 10  # timings between two writes of the file with what is measured so far
OUTLIER, MOST_OUT = 4, 5  # left out of a fit: errors over so many times the median, of at most so many percent


def latency_table(
    space: str | Path, out: str | Path, *, backend: str = "onnxruntime", threads: int = 1, networks: int = FITTED,
    from_csv: str | Path | None = None, csv_template: bool = False, device_name: str | None = None,
    resume: bool = False, on_event: Listener | None = None,
) -> Table | None:  # fmt: skip
    """Measure how long the networks of a space take on this machine, and write the table that predicts it.

    Args:
        space: a search space's name or the path of a TOML file.
        out: the table's file, .json. What is measured so far lies beside it in a file that ends in .part.
        backend: onnxruntime or torch (eager). Both run float32 networks with folded batch norms, one image at a time.
        threads: of the back end.
        networks: how many the prediction is fitted to; 40 more check it.
        from_csv: make the table from this file's layers and milliseconds instead, measured elsewhere.
        csv_template: only write such a file, .csv, without milliseconds, to `out`; returns None.
        device_name: what to call the device; with `from_csv` required.
        resume: go on with an interrupted measurement.
        on_event: called with each event (nasaug.core.progress).

    Raises BadInput, MissingExtra, or Stopped if a signal interrupts it.
    """
    with heard_by(on_event):
        return _latency_table(
            load(str(space), BLOCKS), str(space), Path(out), backend, threads, networks, from_csv, csv_template,
            device_name, resume,
        )  # fmt: skip


def _latency_table(
    space: Space, given: str, out: Path, backend: str, threads: int, networks: int, from_csv: str | Path | None,
    csv_template: bool, device_name: str | None, resume: bool,
) -> Table | None:  # fmt: skip
    if csv_template:
        _check_out(out, ".csv")
        count = layer_rows.write_template(out, space)
        say(f"{out}: {count} layers of space {space.name}; fill in the milliseconds, then give it as {arg.from_csv}")
        return None
    _check_out(out, ".json")
    if from_csv is not None:
        if device_name is None:
            rule, remedy = f"needs {arg.device_name}", "say whose figures they are"
            raise BadInput.of(argument="from_csv", value=from_csv, rule=rule, remedy=remedy)
        content = _imported(space, Path(from_csv), device_name, threads)
    else:
        for argument, value, least in (("threads", threads, 1), ("networks", networks, LEAST_FITTED)):
            if value < least:
                raise BadInput.of(argument=argument, value=value, rule=f"must be at least {least}")
        measurement = Measurement(space, given, out, backend, threads, networks, device_name or device(), resume)
        content = measurement.run()
    Table(content, str(from_csv or out)).check(all_parts(space, OUTPUTS))
    files.write_json(out, content)
    table = Table(content, str(out))
    if from_csv is None:
        measurement.path.unlink(missing_ok=True)  # not before: the table could have been refused, or the disk be full
    say(f"{out}: {table}, space {space.name}")
    say(f"checked on {table.checked}")
    if table.checked.doubt:
        say(f"warning: this table predicts badly: {table.checked.doubt}; search refuses it without {arg.trust_table}")
    return table


OUTPUTS = 10  # of the networks measured; other numbers are predicted like other widths


def _check_out(out: Path, ending: str) -> None:
    """Raises BadInput unless the file can be written, and replaces nothing but a file of its kind."""
    if out.suffix != ending:
        raise BadInput.of(argument="out", value=out, rule=f"must end in {ending}")
    if not os.access(out.parent, os.W_OK):
        raise BadInput.of(argument="out", value=out, rule="lies in a folder that cannot be written to or is not there")
    if out.exists() and ending == ".csv":
        raise BadInput.of(argument="out", value=out, rule="exists already", remedy="give another name", apart=True)
    if out.exists():
        try:
            files.read_json(out, FORMAT)
        except BadInput as error:
            rule = f"exists and is no latency table ({error})"
            raise BadInput.of(argument="out", value=out, rule=rule, remedy="give another name", apart=True) from None


# --- the networks -------------------------------------------------------------------------------------------


def drawn(space: Space, count: int) -> list[Arch]:
    """Different networks of all sizes: the smallest, the largest, and others whose log MACs are roughly uniform, among
    them several with every kind of layer."""
    low, high = (cost_of(space, end, OUTPUTS).macs for end in (space.smallest, space.largest))
    found: dict[Plan, Arch] = {}
    for arch in (space.smallest, space.largest):
        found.setdefault(plan(space, arch, OUTPUTS), arch)
    for i in range(20 * count):
        if len(found) >= count:
            break
        arch = sample_near(space, Random(f"latency/{i}"), low, high, OUTPUTS)
        found.setdefault(plan(space, arch, OUTPUTS), arch)
    have = _kinds(found)
    for arch in corners(space):
        p = plan(space, arch, OUTPUTS)
        if p not in found and any(have.get(kind, 0) < EACH for kind in _kinds([p])):
            found[p] = arch
            have = _kinds(found)
    return list(found.values())


def _kinds(plans: Iterable[Plan]) -> dict[tuple, int]:
    """The number of networks that have each kind of part."""
    counts: dict[tuple, int] = {}
    for p in plans:
        for kind in {(part.kind, part.kernel) for block in p.blocks for part in parts(block)}:
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def reference_of(plans: Sequence[Plan]) -> Plan:
    """The network that all others are timed beside: a third of them are smaller."""
    return sorted(plans, key=lambda p: cost(p).macs)[len(plans) // 3]


# --- the measurement ----------------------------------------------------------------------------------------


@dataclass
class Measurement:
    """Times networks, and keeps what it has found in a file after each few."""

    space: Space
    given: str  # what the space was named by
    out: Path
    backend: str
    threads: int
    networks: int
    device: str
    resume: bool

    @property
    def path(self) -> Path:
        """The file with what is measured so far."""
        return self.out.with_name(f"{self.out.name}.part")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must be the same in a measurement that goes on."""
        return {
            "space": {"name": self.space.name, "hash": space_hash(self.space)}, "device": self.device,
            "backend": {"name": self.backend, "version": version(self.backend)}, "threads": self.threads,
            "networks": self.networks,
        }  # fmt: skip

    def run(self) -> dict[str, Any]:
        """The table's content, once everything is measured."""
        versioned = f"{BACKENDS.get(self.backend)} {self.identity['backend']['version']}"  # checks the back end
        seen, seconds = self._begun()
        count = CHECKED + self.networks
        archs = drawn(self.space, count)
        order = [*archs[:2], *Random("latency").sample(archs[2:], len(archs[2:]))]
        # networks to check are between others in time, and never the ends, which would be extrapolated
        step = max(1, len(order) // CHECKED)
        check = set(order[2::step][:CHECKED])
        plans = [plan(self.space, arch, OUTPUTS) for arch in order]
        say(
            f"timing {len(order)} networks of space {self.space.name} in {versioned} "
            f"on {self.threads} thread{'s' if self.threads > 1 else ''}, "
            f"{len(check)} of them to check the prediction; nothing else should run meanwhile"
        )
        visits = [2 * VISITS if arch in check else VISITS for arch in order]
        try:
            with torch_threads(self.threads), deferred_stop() as pending:
                seconds = self._time(plans, visits, seen, seconds, pending)
        except Stopped as stop:
            if self.path.exists():
                stop.resume = self._command
            raise
        return self.content(order, plans, seen, check) | {"seconds": round(seconds, 1)}

    def _begun(self) -> tuple[list[list[list[float]]], float]:
        """The timings so far, and how long they took."""
        if not self.path.exists():
            if self.resume:
                raise BadInput(f"{self.path} is not there, so there is nothing to go on with; leave out {arg.resume}")
            return [], 0.0
        kept = files.read_json(self.path, PART_FORMAT)
        if not self.resume:
            rule = f"{self.path} holds an unfinished measurement"
            raise BadInput(f"{rule}; go on with it by {arg.resume}, or delete it")
        other = [key for key, value in self.identity.items() if kept.get(key) != value]
        if other:
            key = other[0]
            rule = f"{self.path} was begun with another {key} ({kept.get(key)}, not {self.identity[key]})"
            raise BadInput(f"{rule}; give the same, or delete it and start anew")
        return kept["timings"], kept["seconds"]

    @property
    def _command(self) -> str:
        """What goes on with this measurement."""
        given = {
            "space": self.given, "out": self.out, "backend": self.backend, "threads": self.threads,
            "networks": self.networks, "device-name": self.device,
        }  # fmt: skip
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        return nasaug_command("latency-table", "--resume", *words)

    def _time(
        self, plans: Sequence[Plan], visits: Sequence[int], seen: list, before: float, pending: Pending
    ) -> float:  # fmt: skip
        """Append the timings that are missing; returns the seconds of all."""
        seen += [[] for _ in range(len(plans) - len(seen))]
        begun, done = time.perf_counter(), sum(map(len, seen))
        with Progress("latency", sum(visits), begun=min(done, sum(visits)), unit="timings") as bar:

            def keep() -> float:
                seconds = before + time.perf_counter() - begun
                content = {"format": PART_FORMAT, **self.identity, "timings": seen, "seconds": seconds}
                files.write_json(self.path, content)
                return seconds

            def after() -> None:
                nonlocal done
                done += 1
                bar.update(min(done, sum(visits)))
                if done % KEPT_EVERY == 0 or pending.signum is not None:
                    keep()
                pending.check()

            if done < sum(visits):
                swept(Clock(reference_of(plans), self.backend, self.threads), plans, visits, seen, after)
            return keep()

    def content(self, archs: Sequence[Arch], plans: Sequence[Plan], seen: Sequence, check: set[Arch]) -> dict[str, Any]:
        """The table's content, without its time."""
        usual = median(reference for each in seen for _, reference in each)
        times = [figure(each, usual) for each in seen]
        fit_to = [i for i, arch in enumerate(archs) if arch not in check]
        left = [i for i, arch in enumerate(archs) if arch in check]
        lots = [[part for block in p.blocks for part in parts(block)] for p in plans]
        model = fit([lots[i] for i in fit_to], [times[i] for i in fit_to], constant=True)
        halves = [(figure(seen[i][::2], usual), figure(seen[i][1::2], usual)) for i in left]
        macs = [cost(p).macs for p in plans]
        line = np.polynomial.Polynomial.fit(
            [math.log(macs[i]) for i in fit_to], [math.log(times[i]) for i in fit_to], 1
        )
        by_macs = compared([math.exp(line(math.log(macs[i]))) for i in left], [times[i] for i in left])
        checked = compared([model.of(lots[i]) for i in left], [times[i] for i in left])
        noise = float(np.mean([abs(a - b) / ((a + b) / 2) for a, b in halves]))
        speeds = [reference for each in seen for _, reference in each]
        return {
            "format": FORMAT, **self.identity,
            "how": {
                "image": "one, float32", "weights": "random", "norms": "folded", "visits": VISITS,
                "warm_up": timing.WARM_UP, "runs": [timing.LEAST_RUNS, timing.MOST_RUNS],
                "drift": round(float(np.percentile(speeds, 90) / np.percentile(speeds, 10)), 3),
            },
            "checked": {"of": "networks", "number": len(left), **checked, "noise": noise, "by_macs": by_macs},
            "reference": {"milliseconds": usual, "plan": reference_of(plans).to_dict()},
            "model": model.to_dict(),
            "measured": [
                {"milliseconds": round(times[i], 5), "checks": arch in check, "choices": self.space.choices(arch)}
                for i, arch in enumerate(archs)
            ],
        }  # fmt: skip


# --- the fit ------------------------------------------------------------------------------------------------


class Model(NamedTuple):
    """Milliseconds per unit of each column."""

    constant: float
    multiple: int
    columns: dict[tuple, tuple[float, ...]]  # by kind and kernel: of TERMS
    kernels: dict[Any, list[int]]

    def of(self, lot: Iterable[Part]) -> float:
        total = self.constant
        for part in lot:
            amounts = terms(part, self.multiple)
            for row in rows(part, self.kernels[part.kind]):
                total += sum(c * a for c, a in zip(self.columns[row], amounts, strict=True))
        return total

    def to_dict(self) -> dict[str, Any]:
        return {
            "constant": self.constant, "multiple": self.multiple,
            "rows": [
                {"layer": kind.op, "stride": kind.stride, "activation": kind.act, "kernel": kernel,
                 **dict(zip(TERMS, values, strict=True))}
                for (kind, kernel), values in self.columns.items()
            ],
        }  # fmt: skip


def fit(lots: Sequence[Sequence[Part]], times: Sequence[float], constant: bool) -> Model:
    """The model that predicts these times of these lots of parts with the least relative error. How many channels the
    device works on at a time is decided by cross-validation."""
    return _fit(lots, times, constant, _best_multiple(lots, times, constant))


def _best_multiple(lots: Sequence[Sequence[Part]], times: Sequence[float], constant: bool) -> int:
    errors = {m: np.mean(np.abs(cross_validated(lots, times, constant, m) / times - 1)) for m in MULTIPLES}
    return min(errors, key=lambda m: errors[m])


def cross_validated(
    lots: Sequence[Sequence[Part]], times: Sequence[float], constant: bool, multiple: int
) -> np.ndarray:  # fmt: skip
    """Each time as predicted by a fit to the other folds."""
    matrix, _ = _matrix(lots, constant, multiple)
    scaled, predicted = matrix / np.array(times)[:, None], np.zeros(len(lots))
    for fold in range(FOLDS):
        out = np.arange(len(lots)) % FOLDS == fold
        predicted[out] = matrix[out] @ _nnls(scaled[~out])
    return predicted


def _fit(lots: Sequence[Sequence[Part]], times: Sequence[float], constant: bool, multiple: int) -> Model:
    matrix, columns = _matrix(lots, constant, multiple)
    found = _nnls(matrix / np.array(times)[:, None])
    values = {row: tuple(map(float, found[at : at + len(TERMS)])) for row, at in columns.items()}
    return Model(float(found[-1]), multiple, values, _kernels(lots))


def _nnls(scaled: np.ndarray) -> np.ndarray:
    """Non-negative weights of the columns, whose sums are to be 1; rows that are far off at first are left out."""
    from scipy.optimize import nnls

    size = np.linalg.norm(scaled, axis=0)
    size[size == 0] = 1

    def found(lines: np.ndarray) -> np.ndarray:
        return nnls(lines / size, np.ones(len(lines)), maxiter=100 * lines.shape[1])[0] / size

    off = np.abs(scaled @ found(scaled) - 1)
    return found(scaled[off <= max(OUTLIER * np.median(off), np.percentile(off, 100 - MOST_OUT))])


def _kernels(lots: Iterable[Iterable[Part]]) -> dict[Any, list[int]]:
    found: dict[Any, set[int]] = {}
    for lot in lots:
        for part in lot:
            found.setdefault(part.kind, set()).add(part.kernel)
    return {kind: sorted(found[kind]) for kind in sorted(found)}


def _matrix(
    lots: Sequence[Sequence[Part]], constant: bool, multiple: int
) -> tuple[np.ndarray, dict[tuple, int]]:  # fmt: skip
    """The terms of each lot [n, columns], the last column for what does not depend on the parts; and where the columns
    of each kind and kernel begin."""
    kernels = _kernels(lots)
    columns = {
        (kind, kernel): len(TERMS) * i
        for i, (kind, kernel) in enumerate((kind, kernel) for kind in kernels for kernel in kernels[kind])
    }
    matrix = np.zeros((len(lots), len(TERMS) * len(columns) + 1))
    matrix[:, -1] = constant
    for i, lot in enumerate(lots):
        for part in lot:
            amounts = terms(part, multiple)
            for row in rows(part, kernels[part.kind]):
                matrix[i, columns[row] : columns[row] + len(TERMS)] += amounts
    return matrix, columns


def compared(predicted: Sequence[float], measured: Sequence[float]) -> dict[str, float]:
    """How well the predictions fit: mean relative error, R², and both rank correlations, 0 where all are equal."""
    from scipy.stats import kendalltau, spearmanr

    p, m = np.array(predicted), np.array(measured)
    error = float(np.mean(np.abs(p / m - 1)))
    if np.ptp(p) == 0 or np.ptp(m) == 0:
        return {"mean_error": error, "r2": 0.0, "spearman": 0.0, "kendall": 0.0}
    return {
        "mean_error": error,
        "r2": float(1 - ((p - m) ** 2).sum() / ((m - m.mean()) ** 2).sum()),
        "spearman": float(spearmanr(p, m).statistic), "kendall": float(kendalltau(p, m).statistic),
    }  # fmt: skip


# --- tables from elsewhere ----------------------------------------------------------------------------------


def _imported(space: Space, path: Path, name: str, threads: int) -> dict[str, Any]:
    """The content of a table of layers measured elsewhere, checked by cross-validation over its layers."""
    measured = layer_rows.read(path)
    lots, times = [[part] for part, _ in measured], [ms for _, ms in measured]
    if len(lots) < 2 * FOLDS:
        raise BadInput(f"{path} has {len(lots)} layers; give at least {2 * FOLDS}")
    multiple = _best_multiple(lots, times, False)
    model = _fit(lots, times, False, multiple)
    checked = compared(list(cross_validated(lots, times, False, multiple)), times)
    return {
        "format": FORMAT, "space": {"name": space.name, "hash": space_hash(space)}, "device": name,
        "backend": {"name": "figures from", "version": path.name}, "threads": threads,
        "checked": {"of": "layers", "number": len(lots), **checked}, "model": model.to_dict(),
        "measured": [part._asdict() | {"milliseconds": ms} for part, ms in measured],
    }  # fmt: skip

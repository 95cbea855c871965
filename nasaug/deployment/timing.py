"""How long networks take on this machine, measured in rounds, beside a reference network that shows its speed.

A machine's speed drifts: its clock changes, and others use its caches. So each network is timed several times, with
others between, each time between two timings of the reference, and what the machine lost is divided out. On a quiet
machine that changes nothing.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ..arch.latency import Table
from ..arch.plan import Plan
from ..core.errors import BadInput, arg, unknown
from ..int8.measure import Session, latency, timings
from ..int8.onnxfile import need_onnx, to_onnx
from ..nets.fold import fold
from ..nets.net import Net

BACKENDS = {"onnxruntime": "ONNX Runtime", "torch": "torch"}
WARM_UP, LEAST_RUNS, MOST_RUNS, SECONDS = 3, 9, 500, 0.06  # of one timing
REFERENCE_SECONDS = 0.02
VISITS, MORE_VISITS = 3, 4  # timings of a network, one a sweep over all; more of it where they differ by over SPREAD
SPREAD = 0.15
ROUNDS = 10  # of a network that is measured alone

Runner = Callable[[], Any]


def device() -> str:
    """This machine's processor, with the number of its cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    cores = os.cpu_count() or 1
    return f"{name}, {cores} core{'s' if cores > 1 else ''}"


def version(backend: str) -> str:
    """The library's version. Raises MissingExtra if it is not installed, BadInput if the name is unknown."""
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS, field="backend")
    if backend == "torch":
        return torch.__version__
    need_onnx("timing networks in ONNX Runtime", "onnxruntime")
    import onnxruntime

    return onnxruntime.__version__


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch uses this many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def runner(plan: Plan, backend: str, threads: int) -> Runner:
    """Runs the network, its batch norms folded, on one image of noise; its weights are random."""
    image = np.random.default_rng(0).standard_normal((1, 3, plan.resolution, plan.resolution), dtype=np.float32)
    net = Net(plan).calibrate([torch.from_numpy(image).expand(2, -1, -1, -1)]).eval()
    folded = fold(net)
    if backend == "torch":
        x = torch.from_numpy(image)

        def run() -> Any:
            with torch.inference_mode():
                return folded(x)

        return run
    session = Session(to_onnx(folded, plan.resolution, net.plan.blocks[-1].out).SerializeToString(), threads)
    return lambda: session.run(image)


def timed(run: Runner, seconds: float) -> float:
    """The median time of a run in milliseconds."""
    return median(timings(run, seconds, WARM_UP, LEAST_RUNS, MOST_RUNS))


class Clock:
    """Times networks against a reference network."""

    def __init__(self, reference: Plan, backend: str, threads: int):
        self.backend, self.threads = backend, threads
        self._reference = runner(reference, backend, threads)
        timed(self._reference, SECONDS)

    def timed(self, plan: Plan) -> tuple[float, float]:
        """One timing of a network: milliseconds, and those of the reference around it."""
        return self._visit(runner(plan, self.backend, self.threads))

    def _visit(self, run: Runner) -> tuple[float, float]:
        own, reference = self.around(run)
        return median(own), reference

    def around(self, run: Runner) -> tuple[list[float], float]:
        """The milliseconds of runs of a network, and those of the reference before and after."""
        before = timed(self._reference, REFERENCE_SECONDS)
        own = timings(run, SECONDS, WARM_UP, LEAST_RUNS, MOST_RUNS)
        return own, (before + timed(self._reference, REFERENCE_SECONDS)) / 2


def swept(
    clock: Clock, plans: Sequence[Plan], visits: Sequence[int], seen: Sequence[list],
    after: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Time all networks in sweeps, so that timings of the same network lie minutes apart: a machine has phases that a
    network and the reference do not feel alike. Appends to `seen`, for each network the timings so far; `after` is
    called after each one, and may raise.

    A network gets `visits` timings, an equal number in each of VISITS sweeps, and up to MORE_VISITS if they differ."""
    for sweep in range(VISITS + MORE_VISITS):
        for plan, least, found in zip(plans, visits, seen, strict=True):
            wanted = least * (sweep + 1) // VISITS
            if sweep >= VISITS:
                wanted = least + (sweep - VISITS + 1) * (_spread(found) > SPREAD)
            while len(found) < wanted:
                found.append(list(clock.timed(plan)))
                after()


def _spread(seen: Sequence[Sequence[float]]) -> float:
    """The relative distance of the quartiles of the corrected timings."""
    low, middle, high = np.percentile([own / reference for own, reference in seen], [25, 50, 75])
    return float((high - low) / middle)


def figure(seen: Sequence[Sequence[float]], usual: float) -> float:
    """Milliseconds of a network: the median of its timings, each on a machine on which the reference takes `usual`."""
    return median(own * usual / reference for own, reference in seen)


def measured(plan: Plan, table: Table | None = None) -> dict[str, float]:
    """Milliseconds that one image takes on this machine, in the table's back end with its threads, by default in ONNX
    Runtime with one: the median, the 95th percentile and, if the table has a reference network, `corrected_ms`, the
    median at the speed that the machine had when the table was made.

    Raises BadInput if the table is of another device or version."""
    backend, threads = "onnxruntime", 1
    if table is not None:
        backend, threads = table.backend["name"], table.threads
        here, there = device(), table.device
        if here == there and backend in BACKENDS:
            here, there = f"{backend} {version(backend)}", f"{backend} {table.backend['version']}"
        if here != there:
            rule, remedy = f"is of {there}, but this is {here}", f"leave out {arg.measure}, or make a table here"
            raise BadInput.of(argument="device_table", value=table.name, rule=rule, remedy=remedy, apart=True)
    version(backend)
    reference = None if table is None else table.reference
    with torch_threads(threads):
        run = runner(plan, backend, threads)
        if reference is None:
            found = latency(run, threads)
            return {"median_ms": found.median_ms, "p95_ms": found.p95_ms}
        clock = Clock(reference.plan, backend, threads)
        rounds = [clock.around(run) for _ in range(ROUNDS)]
    middle, p95 = np.percentile([ms for own, _ in rounds for ms in own], [50, 95]).tolist()
    corrected = figure([(median(own), around) for own, around in rounds], reference.milliseconds)
    return {"median_ms": round(middle, 4), "p95_ms": round(p95, 4), "corrected_ms": round(corrected, 4)}

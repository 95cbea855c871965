"""The measurements of benchmarks/gpu.py. A section is a generator of (name, figures); figures yielded before an error
or a timeout are kept.

Steps that are compared run the same nets: the step number determines what is drawn, and the same few numbers are
repeated. Float32 means TF32 where the GPU has it, except in comparisons with the CPU. `cudnn.benchmark` is off
everywhere, as in nasaug.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import math
import os
import platform
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import mean, median
from typing import NamedTuple

import numpy as np
import plain
import published_netaug as published
import torch
import torch.nn.functional as F
from PIL import Image
from timing import TINY, made_up
from torch import Tensor

import nasaug
from nasaug import augment
from nasaug.arch import archfile, cost, plan, spacefile
from nasaug.augment import View
from nasaug.data import Data
from nasaug.data.split import MemorySplit
from nasaug.data.stream import StreamSplit
from nasaug.methods import Base, Baseline, GradAug, Method, NetAug, Sandwich
from nasaug.nets.net import Net
from nasaug.tasks import Classify, Target
from nasaug.training.device import Runtime, open_runtime
from nasaug.training.length import Length, Training
from nasaug.training.loop import Step, Trainer
from nasaug.training.scoring import SMALL_BATCH, Scorer

ROOT = Path(__file__).resolve().parent.parent
Rows = Iterator[tuple[str, object]]

AGREES = 1e-3  # relative to a loss: a few steps with another summation order may differ by this
UPDATES_AGREE = 0.05  # relative to the norm of the weight updates: gradients amplify rounding to 0.01
GRADIENTS_AGREE = {"float32": 1e-3, "bf16": 2e-2}  # relative to the gradient, or the difference of two eager runs
SCORES_AGREE = 1.0  # points of top-1
COMPUTE_GOAL, LOADER_GOAL = 2.0, 1.167  # step time of NetAug over plain; the second is published, on 16 GPUs
LEAST_BATCH = 16
SEEDS = 16
PHOTO, QUALITY, TEXTURE = (500, 375), 90, 90  # as in benchmarks/streaming.py: about ImageNet's bytes per file


class Skipped(Exception):
    """A section does not apply here; the message says why."""


class Shape(NamedTuple):
    resolution: int
    batch: int
    classes: int

    def __str__(self) -> str:
        return f"{self.resolution} px, batch {self.batch}"


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    shapes: tuple[Shape, ...] = (Shape(32, 128, 10), Shape(160, 256, 1000), Shape(32, 1024, 10))
    drawn: int = 8  # steps whose nets are drawn beforehand
    rounds: int = 5
    agreement: Shape = Shape(32, 64, 10)
    compared: int = 4  # steps whose losses are compared
    loader: Shape = Shape(160, 128, 1000)
    sleeps: tuple[int, ...] = (1, 2, 4, 8)  # simulated loader's time per batch, in plain steps
    fed: int = 12  # steps that the loader feeds
    photos: int = 64  # different JPEG files
    epoch: int = 100_000  # images per epoch, repeating these files
    stream_seconds: float = 5.0  # for each of three streams
    candidates: int = 8
    calibration: int = 1024
    scored: int = 1000


TRIAL = Sizes(
    shapes=(Shape(16, 4, 10),), drawn=1, rounds=1, agreement=Shape(16, 4, 10), compared=1, loader=Shape(16, 4, 10),
    sleeps=(2,), fed=1, photos=2, epoch=64, stream_seconds=0.1, candidates=2, calibration=64, scored=64,
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """The device, and how much is measured."""

    device: str  # "cuda" or "cpu"
    sizes: Sizes

    def runtime(self, bf16: bool = False) -> Runtime:
        return open_runtime(self.device, bf16)

    @property
    def accelerated(self) -> bool:
        return self.device != "cpu"

    def without_bf16(self) -> str:
        """Why bf16 is not measured; empty if it is."""
        if not self.accelerated:
            return "skipped: nasaug runs in bf16 on a GPU alone"
        emulated = not torch.cuda.is_bf16_supported(including_emulation=False)
        return "skipped: this GPU has no bf16 of its own" if emulated else ""


# --- what is trained ------------------------------------------------------------------------------------------


@functools.cache
def methods(shape: Shape) -> dict[str, tuple[Method, Base]]:
    """The four training methods, and the base net of each: mobilenetv2-tiny, and for the sandwich rule a supernet of a
    single resolution under mobilenetv2-tiny's MACs as the budget, built as a search builds it."""
    base = Base(archfile.read(TINY, resolution=shape.resolution, classes=shape.classes).plan)
    macs = cost.cost(base.plan).macs
    space = spacefile.load("mobilenetv2-small" if shape.resolution <= 32 else "mobilenetv2", plan.BLOCKS)
    axis = next(axis for axis in space.axes if axis.kind == "resolution")
    space = cost.crop(space.trimmed({axis.name: (shape.resolution,)}), cost.Budget(macs=macs), 6.0, shape.classes)
    supernet = Base(plan.plan(space, space.largest, shape.classes), space, space.largest)
    return {
        "plain": (Baseline(), base),
        "NetAug": (NetAug(ladder="factors", width_until=1.0, sort=False), base),
        "sandwich": (Sandwich(samples=2, every=1, low=macs / 8, high=1.2 * macs), supernet),
        "GradAug": (GradAug(), base),
    }


def trainer_of(method: Method, base: Base, data: Data, runtime: Runtime, batch: int) -> Trainer:
    """A trainer with a practically endless training, so that NetAug widens widths in every measured step.

    Residual blocks start as identities and the learning rate is small. At a usual rate, rounding alone makes losses
    differ by several percent after three steps, which would hide a real error."""
    classes = base.plan.classes
    space, arch = method.space(base)
    task, net = Classify(classes, 0.1), Net(plan.plan(space, space.largest, classes))
    net.start_as_identities()
    return Trainer(
        net, method, space, arch, task=task, data=data,
        views={"train": View()}, training=Training(epochs=100_000, batch=batch, lr=2e-5, warmup=0.0),
        length=Length(100_000, 1, 0.0, batch), runtime=runtime, scorer=Scorer(data, task, runtime, 256), seed=0,
    )  # fmt: skip


def images_of(shape: Shape, batch: int) -> Data:
    return made_up(batch, 16, shape.resolution)


def batch_of(data: Data, batch: int, device: torch.device | str = "cpu", number: int = 0) -> tuple[Tensor, Tensor]:
    x, y, _ = next(data.train.batches(batch, seed=0, epoch=number))
    return x.to(device), y.to(device)


Bank = list[list[plan.Plan]]  # the plans that each of a few steps runs


def bank_of(trainer: Trainer, drawn: int, x: Tensor, y: Tensor) -> Bank:
    """The plans of the first `drawn` steps. These few nets stand for all that a training draws, so of several seeds the
    one whose MACs are nearest to the seeds' mean is taken."""
    banks = {}
    for trainer.seed in range(SEEDS):
        banks[trainer.seed] = plans_of(trainer, drawn, x, y)
    macs = {seed: macs_of(bank) for seed, bank in banks.items()}
    trainer.seed = min(macs, key=lambda seed: abs(macs[seed] - mean(macs.values())))
    return banks[trainer.seed]


def macs_of(bank: Bank) -> float:
    """Mean MACs per step."""
    return mean(sum(cost.cost(p).macs for p in plans) for plans in bank)


def plans_of(trainer: Trainer, drawn: int, x: Tensor, y: Tensor) -> Bank:
    """The plans that each of the first `drawn` steps runs."""
    rows = []
    for i in range(drawn):
        trainer.step = i
        passes = Step(trainer, x, y).passes
        rows.append([plan.plan(trainer.space, each.arch, trainer.plan.classes) for each in passes])
    trainer.step = 0
    return rows


# --- how it is timed ------------------------------------------------------------------------------------------


class Time(NamedTuple):
    """Seconds per step, and the share of that time in which the CPU was issuing work or waiting for a copy. If the
    share is near 1, the GPU may have waited for the CPU."""

    seconds: float
    asking: float


Job = Callable[[], object]


def alternate(jobs: dict[str, Job], calls: int, rounds: int, until: float, settle: Job) -> dict[str, list[Time]]:
    """Times of each job in alternating rounds: fewer than `rounds` if time runs out, but at least one. A job makes
    `calls` steps and must be warmed up."""
    times: dict[str, list[Time]] = {name: [] for name in jobs}
    for _ in range(rounds):
        started = time.monotonic()
        for name, job in jobs.items():
            settle()
            begun = time.perf_counter()
            job()
            asked = time.perf_counter()
            settle()
            whole = time.perf_counter() - begun
            times[name].append(Time(whole / calls, (asked - begun) / whole))
        if 2 * time.monotonic() - started > until:
            break
    return times


def warmed(jobs: dict[str, Job]) -> tuple[dict[str, Job], dict[str, str]]:
    """Run each job once; returns the jobs that work, and the errors of the others."""
    well, faults = {}, {}
    for name, job in jobs.items():
        try:
            job()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            faults[name] = fault(error)
        else:
            well[name] = job
    return well, faults


def fault(error: Exception) -> str:
    """The error and the line that raised it: a lent machine is gone when the result is read."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"


def warm(jobs: dict[str, Job]) -> None:
    for job in jobs.values():
        job()


def told(rows: list[Time], batch: int) -> dict:
    seconds = median(row.seconds for row in rows)
    asking = median(row.asking for row in rows)
    return {"ms": 1e3 * seconds, "images_per_second": batch / seconds, "asking": asking, "rounds": len(rows)}


def over(times: dict[str, list[Time]], slow: str, fast: str) -> float:
    """Time of one job over that of another, the median over rounds of the ratio within a round."""
    return median(a.seconds / b.seconds for a, b in zip(times[slow], times[fast], strict=True))


def fitted(measure: Callable[[int], dict], batch: int) -> dict:
    """`measure(batch)`; the batch is halved until it fits the GPU's memory."""
    while True:
        try:
            return measure(batch)
        except torch.OutOfMemoryError:
            if batch < 2 * LEAST_BATCH:
                raise
        free()  # after the handler, whose traceback holds the tensors
        batch //= 2


def tried(measure: Callable[[], dict]) -> dict:
    """The case's figures, or its error: one failing case must not prevent the later ones."""
    try:
        return measure()
    except Exception as error:
        return {"error": fault(error)}
    finally:
        free()


def free() -> None:
    """Free the GPU memory of networks that are no longer used."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Full float32 instead of TF32, to compare with a CPU. Enter it after `open_runtime`, which allows TF32."""
    places = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    try:
        yield
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed


# --- sections -------------------------------------------------------------------------------------------------


def environment(bench: Bench, until: float) -> Rows:
    """Where this ran."""
    yield "device", bench.runtime().describe()
    yield "python", platform.python_version()
    yield "torch", torch.__version__
    yield "nasaug", nasaug.__version__
    yield "system", platform.platform()
    yield "cores", len(os.sched_getaffinity(0))
    yield "kernels of the CPU", os.environ.get("NASAUG_KERNELS") or "compiled"
    if not bench.accelerated:
        return
    yield "cuda", torch.version.cuda
    yield "cudnn", torch.backends.cudnn.version()
    yield "capability", ".".join(map(str, torch.cuda.get_device_capability()))
    free_bytes, whole = torch.cuda.mem_get_info()
    yield "memory_gb", {"free": free_bytes / 1e9, "whole": whole / 1e9}
    yield "multiprocessors", torch.cuda.get_device_properties(0).multi_processor_count
    tool = shutil.which("nvidia-smi")
    if tool:
        asked = "--query-gpu=driver_version,name,clocks.max.sm,power.limit"
        ran = subprocess.run([tool, asked, "--format=csv,noheader"], capture_output=True, text=True, timeout=20)
        yield "driver", (ran.stdout or ran.stderr).strip()


def agreement(bench: Bench, until: float) -> Rows:
    """The same few steps on CPU and device in float32 without TF32; then in bf16, whose losses must be finite.

    Each loss is the mean over the steps so far, as the trainer reports it."""
    shape, many = bench.sizes.agreement, bench.sizes.compared
    data = images_of(shape, shape.batch * 2)
    yield "tolerance", AGREES

    yield "tolerance of the weights' change", UPDATES_AGREE

    def train(name: str, runtime: Runtime) -> tuple[list[dict[str, float]], Tensor]:
        trainer, rows = trainer_of(*methods(shape)[name], data, runtime, shape.batch), []
        before = weights(trainer.net)
        for i in range(many):
            trainer.train_step(*batch_of(data, shape.batch, number=i))
            rows.append(trainer.losses())
        return rows, weights(trainer.net) - before

    known, runtime = {}, bench.runtime()

    def compare(name: str) -> dict:
        known[name], change = train(name, open_runtime("cpu"))
        with exact():
            there, changed = train(name, runtime)
        worst, off = apart(known[name], there), distance(change, changed)
        return {
            "cpu": known[name], "device": there, "largest_relative": worst, "change_apart": off,
            "agrees": worst <= AGREES and off <= UPDATES_AGREE,
        }  # fmt: skip

    def halved(name: str) -> dict:
        there, _ = train(name, bench.runtime(bf16=True))
        return {"device": there, "largest_relative": apart(known[name], there)}

    for name in methods(shape):
        yield name, tried(functools.partial(compare, name))
    if bench.without_bf16():
        yield "bf16", bench.without_bf16()
        return
    for name in known:
        yield f"{name}, bf16", tried(functools.partial(halved, name))


def apart(one: list[dict[str, float]], two: list[dict[str, float]]) -> float:
    """The largest relative difference of the losses."""
    return max(abs(a[key] - b[key]) / max(abs(a[key]), 1e-9) for a, b in zip(one, two, strict=True) for key in a)


def weights(net: Net) -> Tensor:
    """All weights in one vector, on the CPU."""
    return torch.cat([p.detach().cpu().flatten() for p in net.parameters()]).double()


def distance(one: Tensor, two: Tensor) -> float:
    """Distance of two vectors relative to the first one's norm."""
    return ((one - two).norm() / one.norm()).item()


def steps(bench: Bench, until: float) -> Rows:
    """Steps of the published structure, of ordinary torch networks in NCHW, of nasaug (channels-last), and of nasaug in
    bf16.

    nasaug's steps start from the raw uint8 batch on the device and include making the view; the others start from a
    finished view. Ordinary networks share no weights: each net of a step has its own, and its own optimiser step."""
    yield "goal", {"netaug_over_plain": COMPUTE_GOAL}
    if bench.without_bf16():
        yield "bf16", bench.without_bf16()
    shapes = bench.sizes.shapes
    for i, shape in enumerate(shapes):
        end = time.monotonic() + (until - time.monotonic()) / (len(shapes) - i)
        yield str(shape), tried(functools.partial(fitted, functools.partial(steps_of, bench, shape, end), shape.batch))


def steps_of(bench: Bench, shape: Shape, until: float, batch: int) -> dict:
    runtime, drawn = bench.runtime(), bench.sizes.drawn
    data = images_of(shape, batch)
    x, y = batch_of(data, batch, runtime.device)
    jobs: dict[str, Job] = {}
    macs = {}
    for name, (method, base) in methods(shape).items():
        trainer = trainer_of(method, base, data, runtime, batch)
        bank = bank_of(trainer, drawn, x, y)
        macs[name] = macs_of(bank)
        if name in ("plain", "NetAug"):
            jobs[f"published/{name}"] = published_job(name, bank, batch, runtime.device)
        jobs[f"NCHW/{name}"] = torch_job(bank, batch, runtime.device)
        jobs[f"nasaug/{name}"] = steps_job(trainer, x, y, drawn)
        if not bench.without_bf16():
            half = trainer_of(method, base, data, bench.runtime(bf16=True), batch)
            half.seed = trainer.seed
            jobs[f"nasaug bf16/{name}"] = steps_job(half, x, y, drawn)
    jobs["view"] = view_job(data, x, drawn)
    if bench.accelerated:
        torch.cuda.reset_peak_memory_stats()
    jobs, faults = warmed(jobs)
    times = alternate(jobs, drawn, bench.sizes.rounds, until, runtime.synchronize)
    variants = dict.fromkeys(name.partition("/")[0] for name in jobs if name != "view")
    shown = {job: told(rows, batch) for job, rows in times.items()}
    return {
        **({"error": faults} if faults else {}),
        "batch": batch, "peak_memory_gb": runtime.peak_memory() / 1e9, "mean_macs": macs,
        "netaug_over_plain_macs": macs["NetAug"] / macs["plain"],
        "netaug_over_plain": {
            v: over(times, f"{v}/NetAug", f"{v}/plain") for v in variants if {f"{v}/NetAug", f"{v}/plain"} <= set(jobs)
        },
        "times_as_fast_as_published": {
            f"{v}, {name}": over(times, f"published/{name}", f"{v}/{name}")
            for v in variants if v != "published" for name in ("plain", "NetAug")
            if {f"published/{name}", f"{v}/{name}"} <= set(jobs)
        },
        "steps": shown,
    }  # fmt: skip


def published_job(name: str, bank: Bank, batch: int, device: torch.device) -> Job:
    """The published structure, slicing the same widths."""
    first = bank[0][0]
    x = torch.randn(batch, 3, first.resolution, first.resolution, device=device)
    y = torch.randint(first.classes, (batch,), device=device)
    net = published.make(first.classes)[name == "NetAug"].to(device)
    optimizer = published.sgd(net)
    channels = [[_channels(p) for p in plans] for plans in bank]

    def plainly() -> None:
        for _ in bank:
            published.plain_step(net, optimizer, x, y)

    def augmented() -> None:
        for both in channels:
            optimizer.zero_grad()
            for widths in both:
                published.set_active(net, widths)
                F.cross_entropy(net(x), y, label_smoothing=0.1).backward()
            optimizer.step()

    return augmented if name == "NetAug" else plainly


def _channels(p: plan.Plan) -> list[int]:
    """A plan's widths as the published code orders them."""
    return [layer.out for layer in p.layers if layer.op == "conv" and not layer.depthwise]


def torch_job(bank: Bank, batch: int, device: torch.device) -> Job:
    """Each plan of each step as an ordinary network of its own, one after the other."""
    nets = {p: plain.PlainNet(p).to(device) for plans in bank for p in plans}
    optimizers = {p: published.sgd(net) for p, net in nets.items()}
    x = {p.resolution: torch.randn(batch, 3, p.resolution, p.resolution, device=device) for p in nets}
    y = torch.randint(bank[0][0].classes, (batch,), device=device)

    def job() -> None:
        for plans in bank:
            for p in plans:
                published.plain_step(nets[p], optimizers[p], x[p.resolution], y)

    return job


def steps_job(trainer: Trainer, x: Tensor, y: Tensor, drawn: int) -> Job:
    def job() -> None:
        for i in range(drawn):
            trainer.step = i  # determines what is drawn
            trainer.train_step(x, y)

    return job


def view_job(data: Data, x: Tensor, drawn: int) -> Job:
    """Making the view, which only nasaug's steps include."""

    def job() -> None:
        for i in range(drawn):
            augment.make_view(View(), x, torch.Generator().manual_seed(i), mean=data.mean, std=data.std)

    return job


def graphs(bench: Bench, until: float, capture: Callable | None = None) -> Rows:
    """A bank of nets drawn beforehand: each step's passes captured as one CUDA graph, against the same passes eager.

    An experiment: nasaug itself has no CUDA graphs. A graph holds the zeroing of the gradients and the
    forward and backward passes of the base and one wider net; the optimiser's step is eager in both. `capture` turns a
    function into its replay."""
    if capture is None and not bench.accelerated:
        raise Skipped("CUDA graphs need a CUDA device")
    capture = capture or captures()
    kinds = ["float32", *([] if bench.without_bf16() else ["bf16"])]
    cases = [(shape, kind) for shape in bench.sizes.shapes for kind in kinds]
    for i, (shape, kind) in enumerate(cases):
        end = time.monotonic() + (until - time.monotonic()) / (len(cases) - i)
        measure = functools.partial(graphs_of, bench, shape, kind, end, capture)
        yield f"{shape}, {kind}", tried(functools.partial(fitted, measure, shape.batch))


class Passes:
    """Forward and backward of some plans on one batch, into gradient buffers at fixed addresses."""

    def __init__(self, trainer: Trainer, x: Tensor, y: Tensor):
        self.net, self.runtime, self.task = trainer.net, trainer.runtime, trainer.task
        self.optimizer, self.x, self.y = trainer.optimizer, x, y
        self.gradients = [p.grad for p in trainer.net.parameters()]

    def __call__(self, plans: Iterable[plan.Plan]) -> None:
        torch._foreach_zero_(self.gradients)
        for p in plans:
            with self.runtime.autocast():
                out = self.net(self.x, p)
            self.task.loss(out, Target(self.y)).backward()

    def gradient(self, work: Job) -> Tensor:
        """The gradient that `work` leaves in the buffers."""
        torch._foreach_zero_(self.gradients)
        work()
        return torch.cat([g.flatten() for g in self.gradients]).double()


def captures() -> Callable[[Job], Job]:
    """Captures functions on a dedicated stream with a shared memory pool and returns their replays.

    The function is warmed up on that same stream, because an autograd node left from another stream would tie the
    capture to that stream."""
    stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def capture(work: Job) -> Job:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                work()
        stream.synchronize()
        gc.collect()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            work()
        return graph.replay

    return capture


def graphs_of(bench: Bench, shape: Shape, kind: str, until: float, capture: Callable, batch: int) -> dict:
    runtime, drawn = bench.runtime(kind == "bf16"), bench.sizes.drawn
    data = images_of(shape, batch)
    raw, y = batch_of(data, batch, runtime.device)
    fresh = augment.make_view(View(), raw, torch.Generator().manual_seed(0), mean=data.mean, std=data.std)
    x = fresh.clone(memory_format=torch.preserve_format)
    ways, begun, held = methods(shape), time.perf_counter(), _held(bench)
    passes, bank, replays = {}, {}, {}
    for name in ("plain", "NetAug"):
        trainer = trainer_of(*ways[name], data, runtime, batch)
        bank[name] = bank_of(trainer, drawn if name == "NetAug" else 1, raw, y)
        passes[name] = Passes(trainer, x, y)
        replays[name] = [capture(lambda run=passes[name], plans=plans: run(plans)) for plans in bank[name]]
    runtime.synchronize()
    capturing, holds = time.perf_counter() - begun, _held(bench) - held

    def eager(name: str) -> Job:
        def job() -> None:
            for i in range(drawn):
                passes[name](bank[name][i % len(bank[name])])
                passes[name].optimizer.step()

        return job

    def replayed(name: str) -> Job:
        def job() -> None:
            for i in range(drawn):
                x.copy_(fresh)  # a graph reads its batch from the captured address
                replays[name][i % len(bank[name])]()
                passes[name].optimizer.step()

        return job

    off, noise = [], []
    for name, run in passes.items():
        for plans, replay in zip(bank[name], replays[name], strict=True):
            here, again = (run.gradient(lambda run=run, plans=plans: run(plans)) for _ in range(2))
            off.append(distance(here, run.gradient(replay)))
            noise.append(distance(here, again))
    worst, noisy = (torch.tensor(values).max().item() for values in (off, noise))  # NaN if any is NaN
    jobs = {f"{way}/{name}": make(name) for way, make in (("eager", eager), ("graphs", replayed)) for name in passes}
    warm(jobs)
    times = alternate(jobs, drawn, bench.sizes.rounds, until, runtime.synchronize)
    return {
        "batch": batch, "bank": drawn, "seconds_to_capture": capturing, "gb_held": holds / 1e9,
        "gradients_apart": worst, "eager_runs_apart": noisy,
        "gradients_agree": worst <= max(GRADIENTS_AGREE[kind], 3 * noisy),
        "netaug_over_plain": {way: over(times, f"{way}/NetAug", f"{way}/plain") for way in ("eager", "graphs")},
        "times_as_fast": {name: over(times, f"eager/{name}", f"graphs/{name}") for name in passes},
        "steps": {name: told(rows, batch) for name, rows in times.items()},
    }  # fmt: skip


def _held(bench: Bench) -> int:
    return torch.cuda.memory_reserved() if bench.accelerated else 0


def loader(bench: Bench, until: float) -> Rows:
    """NetAug over plain when steps wait for data: from a thread that only sleeps, and from nasaug's own stream of JPEG
    files, which are generated here and decoded by one process per core."""
    shape, runtime, sizes = bench.sizes.loader, bench.runtime(), bench.sizes
    yield "goal", {"netaug_over_plain": LOADER_GOAL}
    yield (
        "simulated",
        (
            "a thread that sleeps a fixed time a batch and keeps up to two ready, as decoding processes on other cores "
            "would; each batch is then copied to the device"
        ),
    )
    trainers: dict[str, Trainer] = {}

    def alone(batch: int) -> dict:
        data = images_of(shape, batch)
        trainers.update({name: trainer_of(*methods(shape)[name], data, runtime, batch) for name in ("plain", "NetAug")})
        x, y = batch_of(data, batch)
        for trainer in trainers.values():
            bank_of(trainer, sizes.drawn, x, y)
        jobs = {name: steps_job(trainer, x, y, sizes.drawn) for name, trainer in trainers.items()}
        warm(jobs)
        times = alternate(jobs, sizes.drawn, sizes.rounds, until, runtime.synchronize)
        steps = {f"{name}_ms": told(rows, batch)["ms"] for name, rows in times.items()}
        return {"batch": batch, **steps, "netaug_over_plain": over(times, "NetAug", "plain")}

    yield "no loader", (unfed := fitted(alone, shape.batch))
    x, y = batch_of(trainers["plain"].data, unfed["batch"])
    for factor in sizes.sleeps:
        taken, seconds = {}, factor * unfed["plain_ms"] / 1e3
        for name, trainer in trainers.items():
            trainer.step = 0
            batches = asleep(x, y, seconds, sizes.fed + 2)
            taken[name] = paced(batches, trainer.train_step, runtime, 1, math.inf)
        shown = {"batch_ms": 1e3 * seconds, **{f"{name}_ms": 1e3 * s for name, s in taken.items()}}
        yield f"a batch in {factor} x a plain step", shown | {"netaug_over_plain": taken["NetAug"] / taken["plain"]}
    with tempfile.TemporaryDirectory() as folder:
        yield "JPEG stream", tried(functools.partial(streamed, bench, unfed["batch"], Path(folder)))


def asleep(x: Tensor, y: Tensor, seconds: float, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same batch `count` times, each ready `seconds` after the one before."""
    ready: queue.Queue = queue.Queue(maxsize=2)

    def produce() -> None:
        for _ in range(count):
            time.sleep(seconds)
            ready.put((x, y))

    threading.Thread(target=produce, daemon=True).start()
    for _ in range(count):
        yield ready.get()


def paced(batches: Iterator, work: Callable, runtime: Runtime, skip: int, seconds: float) -> float:
    """Seconds per batch, waiting plus work, after the first `skip` batches, until the batches or `seconds` run out."""
    begun, counted = 0.0, 0
    for i, batch in enumerate(batches):
        work(*batch[:2])
        if i < skip:
            continue
        if i == skip:
            runtime.synchronize()
            begun = time.perf_counter()
            continue
        counted += 1
        if time.perf_counter() - begun > seconds:
            break
    runtime.synchronize()
    return (time.perf_counter() - begun) / counted


def streamed(bench: Bench, batch: int, folder: Path) -> dict:
    shape, sizes, runtime = bench.sizes.loader, bench.sizes, bench.runtime()
    workers = min(16, len(os.sched_getaffinity(0))) if bench.accelerated else 0
    names, mean_bytes = photographs(folder, sizes.photos)
    files = np.array([name.encode() for name in names] * math.ceil(sizes.epoch / len(names)))[: sizes.epoch]
    labels = torch.arange(len(files)) % shape.classes
    train = StreamSplit(str(folder), files, labels, size=shape.resolution, workers=workers)
    small = MemorySplit(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    classes = tuple(map(str, range(shape.classes)))
    data = Data("made-up photographs", classes, flip=True, train=train, val=small, test=small)

    def rate(work: Callable) -> float:
        with contextlib.closing(train.batches(batch, seed=0, epoch=0)) as batches:
            return paced(batches, work, runtime, 2 * workers, sizes.stream_seconds)

    alone = rate(lambda x, y: None)
    taken = {}
    for name in ("plain", "NetAug"):
        trainer = trainer_of(*methods(shape)[name], data, runtime, batch)
        taken[name] = rate(trainer.train_step)
    return {
        "workers": workers, "bytes": mean_bytes, "photo": list(PHOTO), "loader_images_per_second": batch / alone,
        **{f"{name}_images_per_second": batch / s for name, s in taken.items()},
        "loader_binds_plain": taken["plain"] < 1.1 * alone, "netaug_over_plain": taken["NetAug"] / taken["plain"],
    }  # fmt: skip


def photographs(folder: Path, count: int) -> tuple[list[str], float]:
    """JPEG files of smooth shapes with fine texture: their names and mean size in bytes."""
    rng, names = np.random.default_rng(0), []

    def noise(high: int, width: int, height: int) -> np.ndarray:
        made = Image.fromarray(rng.integers(0, high, (height, width, 3), dtype=np.uint8))
        return np.asarray(made.resize(PHOTO, Image.Resampling.BICUBIC)).astype(np.int16)

    for i in range(count):
        pixels = noise(256, 16, 12) + noise(TEXTURE, PHOTO[0] // 2, PHOTO[1] // 2) - TEXTURE // 2
        names.append(f"{i:05}.jpg")
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / names[-1], quality=QUALITY)
    return names, mean((folder / name).stat().st_size for name in names)


def candidates(bench: Bench, until: float) -> Rows:
    """Subnets near 1M MACs of the default search's space, each extracted, calibrated and evaluated: by nasaug, and by
    ordinary torch networks in NCHW. Also compares the scores with the CPU's."""
    sizes, runtime = bench.sizes, bench.runtime()
    space = cost.crop(spacefile.load("mobilenetv2-small", plan.BLOCKS), cost.Budget(macs=1_000_000), 6.0, 10)
    archs = [cost.sample_near(space, Random(i), 5e5, 1e6, 10) for i in range(sizes.candidates)]
    plans = [plan.plan(space, arch, 10) for arch in archs]
    data = made_up(2 * sizes.calibration, sizes.scored)

    def judge(runtime: Runtime) -> tuple[Job, Net]:
        net = Net(plan.plan(space, space.largest, 10), 1).to(runtime.device)
        scorer = Scorer(data, Classify(10), runtime, sizes.calibration)
        return lambda: [scorer.judged(scorer.calibrated(net, p), data.val) for p in plans], net

    ours, net = judge(runtime)
    split = data.train.take(sizes.calibration, 0)

    def prepared(split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for pixels, labels in split.ordered(SMALL_BATCH):
            x = augment.evaluation(pixels.to(runtime.device), mean=data.mean, std=data.std)
            yield augment.resize(x, size).contiguous(), labels.to(runtime.device)

    def plainly() -> list:
        rows = []
        for p in plans:
            small = plain.PlainNet(p).to(runtime.device)
            small.load_state_dict(net.narrow(p).state_dict(), strict=False)
            plain.calibrate(small, [x for x, _ in prepared(split, p.resolution)])
            with torch.inference_mode():
                rows.append([small(x).argmax(1) == y for x, y in prepared(data.val, p.resolution)])
        return rows

    jobs = {"nasaug": ours, "NCHW": plainly}
    warm(jobs)
    times = alternate(jobs, len(plans), sizes.rounds, until, runtime.synchronize)
    yield "images", {"calibration": sizes.calibration, "scored": sizes.scored}
    yield "a minute", {name: 60 / median(row.seconds for row in rows) for name, rows in times.items()}
    yield "times as fast as NCHW", over(times, "NCHW", "nasaug")
    with exact():
        there = [Classify(10).score(correct) for correct in ours()]
    here = [Classify(10).score(correct) for correct in judge(open_runtime("cpu"))[0]()]
    worst = max(abs(a - b) for a, b in zip(here, there, strict=True))
    shown = {"cpu": here, "device": there, "largest_points": worst, "agrees": worst <= SCORES_AGREE}
    yield "scores", shown | {"tolerance_points": SCORES_AGREE}


def tests(bench: Bench, until: float) -> Rows:
    """The tests marked for a GPU, in a separate process, because a crash may leave the device unusable."""
    if not bench.accelerated:
        raise Skipped("they need a CUDA device")
    if importlib.util.find_spec("pytest") is None:
        raise Skipped("pytest is not installed")
    command = [
        sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider",
        "--continue-on-collection-errors", "tests",
    ]  # fmt: skip
    yield "command", "python " + " ".join(command[1:])
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    limit = max(1.0, until - time.monotonic() - 2)
    with tempfile.TemporaryFile("w+") as output:
        try:
            code = subprocess.run(
                command, cwd=ROOT, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, stdout=output,
                stderr=subprocess.STDOUT, timeout=limit,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = f"cut off after {limit:.0f} s"
        output.seek(0)
        lines = [line.rstrip() for line in output if line.strip()]
    yield "exit", code
    yield "closing line", lines[-1] if lines else ""
    yield "failures", [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if code != 0:
        yield "last lines", lines[-60:]

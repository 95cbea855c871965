"""Every speed that nasaug claims, as ratios taken in one run: a table, and JSON with --json PATH.

    python benchmarks/bench.py [--threads 2] [--rounds 5] [--only steps,supernet,kernels,candidate,cost,help,memory]

Rounds of the things compared alternate, so that a drift of the machine's speed meets them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from unittest.mock import patch

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as `python -m nasaug` does
sys.path.insert(0, str(Path(__file__).parent))

import published_netaug as published  # noqa: E402
import torch  # noqa: E402

from nasaug import archfile, cost, data, elastic, kernels, native, plan, spacefile  # noqa: E402
from nasaug.around import Ladders, around  # noqa: E402
from nasaug.augment import View  # noqa: E402
from nasaug.data.split import MemorySplit  # noqa: E402
from nasaug.engine import Trainer  # noqa: E402
from nasaug.methods import Base, Baseline, NetAug, Sandwich  # noqa: E402
from nasaug.net import Net  # noqa: E402
from nasaug.runtime import open_runtime  # noqa: E402
from nasaug.scoring import Scorer  # noqa: E402
from nasaug.tasks import Classify  # noqa: E402
from nasaug.training import Training, length_of  # noqa: E402

TINY = "mobilenetv2-tiny"
BATCH, SIZE = 128, 32


def made_up(train: int, val: int = 256) -> data.Data:
    """Random colour images of SIZE px in ten classes."""
    g = torch.Generator().manual_seed(0)

    def split(n: int) -> MemorySplit:
        pixels = torch.randint(0, 256, (n, 3, SIZE, SIZE), dtype=torch.uint8, generator=g)
        return MemorySplit(pixels, torch.arange(n) % 10)

    return data.Data("made-up", tuple("0123456789"), flip=True, train=split(train), val=split(val), test=split(16))


def tiny(resolution: int = SIZE) -> plan.Plan:
    return archfile.read(TINY, resolution=resolution, classes=10).plan


def our_step(method, images: data.Data, base: Base | None = None) -> Callable[[], None]:
    """A whole training step of nasaug, from the raw uint8 batch on: view, passes, optimiser."""
    runtime, task, training = open_runtime("cpu"), Classify(10, 0.1), Training(epochs=1000)
    scorer = Scorer(images, task, runtime, 256)
    base = base or Base(tiny())
    covered, arch = method.space(base)
    length = length_of(training, method, covered, arch, base.plan, len(images.train), True)
    net = Net(plan.plan(covered, covered.largest, 10))
    trainer = Trainer(
        net, method, covered, arch, task=task, data=images, views={"train": View()}, training=training,
        length=length, runtime=runtime, scorer=scorer, seed=0,
    )  # fmt: skip
    x, y, _ = next(images.train.batches(BATCH, seed=0, epoch=0))
    return lambda: trainer.train_step(x, y)


def published_steps() -> dict[str, Callable[[], None]]:
    x, y = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(10, (BATCH,))
    (plain, elastic), rng = published.make(), Random(0)
    one, two = published.sgd(plain), published.sgd(elastic)
    return {
        "published baseline": lambda: published.plain_step(plain, one, x, y),
        "published NetAug": lambda: published.netaug_step(elastic, two, x, y, rng),
    }


def alternate(jobs: dict[str, Callable[[], None]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds a call of each job in each round, after one round of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            begun = time.perf_counter()
            for _ in range(calls):
                job()
            times[name].append((time.perf_counter() - begun) / calls)
    return {name: rows[1:] for name, rows in times.items()}


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """How many times faster, median over rounds of the ratio within a round."""
    return median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def bench_steps(rounds: int) -> list[tuple[str, str]]:
    images = made_up(1024)
    jobs = published_steps() | {
        "nasaug baseline": our_step(Baseline(), images),
        "nasaug NetAug": our_step(NetAug(ladder="factors", width_until=1.0, sort=False), images),
    }
    times = alternate(jobs, rounds, 4)
    rows = [(name, f"{BATCH / median(t):.0f} images/s") for name, t in times.items()]
    ratios = {
        "baseline step, times as fast as published (reach 2.4)": ("published baseline", "nasaug baseline"),
        "NetAug step, times as fast as published (reach 2)": ("published NetAug", "nasaug NetAug"),
        "NetAug / baseline in time": ("nasaug NetAug", "nasaug baseline"),
    }
    return rows + [(name, f"{ratio(times, *pair):.2f}") for name, pair in ratios.items()]


def bench_supernet(rounds: int) -> list[tuple[str, str]]:
    """The default search's supernet at 1M MACs, on made-up images: whole cycles of its steps, layers fused or not."""
    small = spacefile.load("mobilenetv2-small", plan.BLOCKS)
    space = cost.crop(small, cost.Budget(macs=1_000_000), 6.0, 10)
    method = Sandwich(low=125_000, high=1_200_000)
    base = Base(plan.plan(space, space.largest, 10), space, space.largest)
    fused = our_step(method, made_up(1024), base)

    def unfused() -> None:
        with patch.object(elastic, "fusible", lambda *given: False):
            fused()

    times = alternate({"fused": fused, "unfused": unfused}, rounds, method.every)
    return [
        ("supernet at 1M MACs", f"{BATCH / median(times['fused']):.0f} images/s"),
        (
            "supernet, one compiled node a layer: times as fast as torch's operations",
            f"{ratio(times, 'unfused', 'fused'):.2f}",
        ),
    ]


def bench_kernels(rounds: int) -> list[tuple[str, str]]:
    """Compiled kernels against torch's operations, by shape: how many times as fast."""
    if native.library() is None:
        return [("compiled kernels", "none: no C compiler")]
    rows = []
    for channels, kernel, size, stride in (
        (18, 3, 16, 1), (48, 3, 16, 1), (112, 3, 16, 1), (96, 3, 8, 1), (144, 3, 4, 2), (240, 3, 4, 1), (336, 3, 2, 1),
        (96, 5, 16, 1), (96, 5, 8, 1), (288, 5, 4, 1), (96, 7, 8, 1),
    ):  # fmt: skip
        layer = plan.Layer("dw", "conv", channels, channels, size, size, kernel, stride, channels, act="relu6")
        x = torch.randn(BATCH, channels, size * stride, size * stride).to(memory_format=torch.channels_last)
        y = torch.randn(BATCH, channels, size, size).to(memory_format=torch.channels_last)
        grad, weight = torch.randn_like(y), torch.randn(channels, 1, kernel, kernel)
        for_weight, one, zero = torch.zeros_like(weight), torch.ones(channels), torch.zeros(channels)
        to, none = (zero.clone(), zero.clone()), (None, None, 0.0)
        _, mean, rstd = native.norm_act(y, layer, one, zero, none, 1e-5)
        given = (grad, x, weight, None, *kernels.geometry(layer), (True, True, False))
        kept, *_ = kernels.torch_norm_act(y, layer, one, zero, none, 1e-5)
        jobs = {
            "norm": partial(native.norm_act, y, layer, one, zero, none, 1e-5),
            "torch norm": partial(kernels.torch_norm_act, y, layer, one, zero, none, 1e-5),
            "back": partial(native.norm_act_back, grad, y, layer, one, zero, mean, rstd, to),
            "torch back": partial(kernels.torch_norm_act_back, grad, y, kept, layer, one, mean, rstd, 1e-5, to),
            "depthwise": partial(native.depthwise_back, grad, x, weight, layer, for_weight, True),
            "torch depthwise": partial(torch.ops.aten.convolution_backward, *given),
        }
        times = alternate(jobs, rounds, 10)
        gains = [f"{ratio(times, f'torch {name}', name):.1f}" for name in ("norm", "back", "depthwise")]
        note = "" if native.serves_depthwise(x, layer) else " (torch's used)"
        shape = f"{channels} channels, {kernel} x {kernel}, {size} px, stride {stride}"
        name = f"{shape}: norm, its gradient, depthwise gradient{note}"
        rows.append((name, " / ".join(gains)))
    return rows


def bench_candidate(rounds: int) -> list[tuple[str, str]]:
    """A candidate's evaluation: narrow, calibrate on 1,024, judge 5,000 images; cached batches, as in a search."""
    images = made_up(1024, 5000)
    scorer = Scorer(images, Classify(10), open_runtime("cpu"), 1024)
    small = tiny()
    wide, _ = around(small, Ladders((1.0, 1.8, 2.6), (1.0, 1.6, 2.2, 2.8)))
    larger = plan.plan(wide, wide.sample(Random(1)), 10)
    net = Net(plan.plan(wide, wide.largest, 10))
    jobs = {
        "tiny": lambda: scorer.top1(scorer.calibrated(net, small), images.val),
        "larger": lambda: scorer.top1(scorer.calibrated(net, larger), images.val),
    }
    times = alternate(jobs, rounds, 1)
    predicted = cost.cost(larger).macs / cost.cost(small).macs
    taken = 1 / ratio(times, "tiny", "larger")
    return [
        ("candidate, mobilenetv2-tiny at 32 px (reach 2 s)", f"{median(times['tiny']):.2f} s"),
        (f"candidate of {predicted:.1f} x its MACs, time over predicted (reach 1.2)", f"{taken / predicted:.2f}"),
    ]


def bench_cost(rounds: int) -> list[tuple[str, str]]:
    small = spacefile.load("mobilenetv2-small", plan.BLOCKS)
    rng = Random(0)
    archs = [small.sample(rng) for _ in range(2000)]
    times = alternate({"cost": lambda: [cost.cost_of(small, a, 10) for a in archs]}, rounds, 1)
    return [("cost model, architectures/s (reach 5000)", f"{len(archs) / median(times['cost']):.0f}")]


def bench_help(rounds: int) -> list[tuple[str, str]]:
    def run(*command: str) -> Callable[[], None]:
        return lambda: subprocess.run([sys.executable, *command], check=True, capture_output=True)

    times = alternate({"help": run("-m", "nasaug", "--help"), "torch": run("-c", "import torch")}, rounds, 1)
    return [("--help over `import torch`, time (reach 0.4)", f"{1 / ratio(times, 'torch', 'help'):.2f}")]


def bench_memory(rounds: int) -> list[tuple[str, str]]:
    """Peak resident memory over that before the step: a NetAug step against its widest pass alone."""
    peaks = [float(subprocess.run(
        [sys.executable, __file__, "--peak", kind], check=True, capture_output=True, text=True
    ).stdout) for kind in ("netaug", "wide")]  # fmt: skip
    return [("NetAug step, peak memory over its widest pass alone (reach 1.1)", f"{peaks[0] / peaks[1]:.2f}")]


def peak(kind: str) -> None:
    """Print the kB by which two steps raise this process's resident memory at their peak (Linux)."""

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key))

    class Widest(NetAug):
        def nets(self, draw):
            passes = [draw.base, draw.space.largest]
            return passes if kind == "netaug" else passes[1:]

        def losses(self, step):
            x, y = step.view("train")
            for arch in self.nets(step):
                yield "loss", step.loss(step.run(x, arch), y)

    step = our_step(Widest(ladder="factors"), made_up(256))
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, that of the imports, is forgotten
    before = status("VmRSS")
    step()
    step()
    print(status("VmHWM") - before)


SECTIONS = {
    "steps": bench_steps, "supernet": bench_supernet, "kernels": bench_kernels, "candidate": bench_candidate,
    "cost": bench_cost, "help": bench_help, "memory": bench_memory,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", choices=("netaug", "wide"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        return peak(options.peak)
    rows = [row for name in options.only.split(",") for row in SECTIONS[name](options.rounds)]
    for name, value in rows:
        print(f"{name:95s}{value:>18s}")
    if options.json:
        options.json.write_text(json.dumps(dict(rows), indent=1) + "\n")


if __name__ == "__main__":
    main()

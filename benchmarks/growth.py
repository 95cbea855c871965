"""How cost grows: step time with MACs and batch size, search time with trials; and an estimate for ImageNet.

    python benchmarks/growth.py [--threads 2] [--rounds 5]

Writes docs/results/growth.md. For memory against the number of passes see benchmarks/bench.py (section memory).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("GOMP_SPINCOUNT", "3000")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from bench import processor  # noqa: E402
from cells import write  # noqa: E402
from speed_steps import default_space, our_step, tiny  # noqa: E402
from timing import BATCH, SIZE, TINY, alternate, made_up  # noqa: E402

from nasaug.arch import cost, plan  # noqa: E402
from nasaug.arch.derived import Ladders, around  # noqa: E402
from nasaug.core.signals import Pending  # noqa: E402
from nasaug.methods import Base, Baseline, NetAug  # noqa: E402
from nasaug.nas.study import Search  # noqa: E402
from nasaug.nets.net import Net  # noqa: E402
from nasaug.tasks import Classify  # noqa: E402
from nasaug.training.device import open_runtime  # noqa: E402
from nasaug.training.recipe import SearchConfig  # noqa: E402
from nasaug.training.scoring import Scorer  # noqa: E402

WIDER = (1.0, 1.4, 1.8, 2.2, 2.6)
BATCHES = (8, 32, 128)
TRIALS = (25, 50, 100, 200)
IMAGENET, EPOCHS = 1_271_167, 155  # training images minus 10,000 for validation; the published length


def line(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """(intercept, slope, R squared) of a least-squares fit."""
    slope, intercept = np.polyfit(x, y, 1)
    left = np.asarray(y) - (intercept + slope * np.asarray(x))
    return intercept, slope, 1 - float((left**2).sum() / ((np.asarray(y) - np.mean(y)) ** 2).sum())


def step_by_macs(rounds: int) -> tuple[list[str], dict]:
    images, jobs, macs = made_up(1024), {}, []
    for factor in WIDER:
        space, _ = around(tiny(), Ladders((1.0, factor) if factor > 1 else (1.0,), (1.0,), 8))
        p = plan.plan(space, space.largest, 10)
        macs.append(cost.cost(p).macs / 1e6)
        jobs[f"{factor:g}"] = our_step(Baseline(), images, Base(p))
    times = alternate(jobs, rounds, 4)
    ms = [1000 * median(rows) for rows in times.values()]
    start, each, r2 = line(macs, ms)
    table = zip(WIDER, macs, ms, strict=True)
    rows = [f"| {f:g} x | {m:.2f} | {t:.1f} | {start + each * m:.1f} |" for f, m, t in table]
    text = [
        f"A plain training step of {TINY} at {SIZE} px and of wider versions of it, batch {BATCH}:", "",
        "| widths | MACs (M) | ms | line |", "| --- | --- | --- | --- |", *rows, "",
        f"The fitted line: {start:.1f} ms plus {each:.1f} ms per million MACs of one image (R² {r2:.3f}).", "",
    ]  # fmt: skip
    return text, {"macs": macs, "ms": ms, "overhead_ms": start, "ms_per_million": each, "r2": r2}


def step_by_batch(rounds: int) -> tuple[list[str], dict]:
    """The fixed cost of a step, whatever its batch size: Python, slices, the optimiser."""
    images, rows, figures = made_up(1024), [], {}
    jobs = {
        (name, batch): our_step(method, images, None, batch)
        for name, method in (
            ("plain", Baseline()), ("NetAug", NetAug(ladder="factors", sort=False, width_until=1.0))
        )
        for batch in BATCHES
    }  # fmt: skip
    times = alternate(jobs, rounds, 4)
    for name in ("plain", "NetAug"):
        ms = [1000 * median(times[name, batch]) for batch in BATCHES]
        start, each, r2 = line(BATCHES, ms)
        rows.append(f"| {name} | {' | '.join(f'{t:.1f}' for t in ms)} | {start:.1f} | {each:.3f} | {r2:.3f} |")
        figures[name] = {"batches": BATCHES, "ms": ms, "overhead_ms": start, "ms_an_image": each, "r2": r2}
    text = [
        f"Step time in ms by batch size, {TINY} at {SIZE} px; a fitted line separates the fixed cost of a step from "
        "the cost per image:", "",
        f"| training | {' | '.join(f'{batch} images' for batch in BATCHES)} | fixed | an image | R² |",
        "| --- | --- | --- | --- | --- | --- | --- |", *rows, "",
    ]  # fmt: skip
    return text, figures


def search_by_trials() -> tuple[list[str], dict]:
    images, base = made_up(2048, 1000), default_space()
    scorer, net = Scorer(images, Classify(10), open_runtime("cpu"), 1024), Net(base.plan, 1)
    seconds = {}
    for trials in (TRIALS[0], *TRIALS):  # the first one twice, for warm-up
        with tempfile.TemporaryDirectory() as folder:
            search = Search(
                base.space, cost.Budget(macs=1_000_000), SearchConfig(trials=trials), scorer, images.val,
                f"sqlite:///{folder}/study.db", net=net,
            )  # fmt: skip
            begun = time.perf_counter()
            search.run(Pending(), lambda *_: None)
            seconds[trials] = time.perf_counter() - begun
    shared = prefix_share([plan.plan(base.space, arch, 10) for arch in search.scores])
    start, each, r2 = line(list(seconds), list(seconds.values()))
    rows = [f"| {n} | {s:.1f} | {start + each * n:.1f} |" for n, s in seconds.items()]
    text = [
        "A search by TPE at 1M MACs, default space, candidates scored on 1,000 images after calibration on 1,024:", "",
        "| trials | seconds | line |", "| --- | --- | --- |", *rows, "",
        f"The fitted line: {start:.1f} s plus {each:.3f} s per trial (R² {r2:.3f}).", "",
        f"{100 * shared:.1f} % of the MACs of {TRIALS[-1]} candidates lie in a prefix shared with an earlier candidate "
        "(the same resolution, and the same choices up to a block); caching all activations could save at most that.",
        "",
    ]  # fmt: skip
    return text, {"seconds": seconds, "r2": r2, "shared_prefix": shared}


def prefix_share(plans: list[plan.Plan]) -> float:
    """Share of all MACs that lie in the longest prefix of blocks that each plan shares with an earlier one."""
    seen, saved, total = set(), 0, 0
    for p in plans:
        for end in range(len(p.blocks), 0, -1):
            if p.blocks[:end] in seen:
                saved += sum(cost.block_cost(b).macs for b in p.blocks[:end])
                break
        total += cost.cost(p).macs
        seen |= {p.blocks[:end] for end in range(1, len(p.blocks) + 1)}
    return saved / total


def imagenet(rounds: int, threads: int) -> tuple[list[str], dict]:
    size, batch = 144, 32
    images, p = made_up(2 * batch, 16, size), tiny(size)
    jobs = {
        "baseline": our_step(Baseline(), images, Base(p), batch),
        "NetAug": our_step(NetAug(ladder="factors", sort=False, width_until=1.0), images, Base(p), batch),
    }
    rates = {name: batch / median(rows) for name, rows in alternate(jobs, rounds, 2).items()}
    days = {name: IMAGENET * EPOCHS / rate / 86400 for name, rate in rates.items()}
    rows = [f"| {name} | {rates[name]:.0f} | {days[name]:.0f} |" for name in jobs]
    text = [
        f"{TINY} at {size} px on {threads} threads, and how long {EPOCHS} epochs of ImageNet would take at that rate, "
        "without decoding:", "", "| training | images/s | days |", "| --- | --- | --- |", *rows, "",
        f"No GPU was available. Eight GPUs would take {IMAGENET * EPOCHS / 8 / 3600:,.0f} / r hours, where r is one "
        "GPU's images per second, if decoding keeps up.",
    ]  # fmt: skip
    return text, {"rates": rates, "days": days}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    parts = step_by_macs(o.rounds), step_by_batch(o.rounds), search_by_trials(), imagenet(o.rounds, o.threads)
    head = ["`python benchmarks/growth.py`", "", f"{processor()}, {o.threads} threads.", ""]
    figures = dict(zip(("steps", "batches", "search", "imagenet"), (f for _, f in parts), strict=True))
    write("growth", "How cost grows", [*head, *(text for lines, _ in parts for text in lines)], figures)


if __name__ == "__main__":
    main()

"""Throughput of the search: candidates evaluated, architectures costed."""

from __future__ import annotations

import copy
import warnings
from random import Random
from statistics import median

import plain
import torch
from plain import PlainNet
from speed_steps import default_space, tiny
from timing import Row, alternate, made_up, ratio

from nasaug import augment
from nasaug.arch import cost, plan, spacefile
from nasaug.arch.derived import Ladders, around
from nasaug.nets.net import Net
from nasaug.tasks import Classify
from nasaug.training.device import open_runtime
from nasaug.training.scoring import SMALL_BATCH, Scorer

CALIBRATION, SCORED = 1024, 1000


def candidates(rounds: int) -> list[Row]:
    """Eight subnets near 1M MACs, each extracted, calibrated and evaluated: as a search does it, and one by one with
    plain NCHW networks, preparing the calibration images anew each time. The scores must agree."""
    images, base = made_up(2048, SCORED), default_space()
    scorer, net = Scorer(images, Classify(10), open_runtime("cpu"), CALIBRATION), Net(base.plan, 1)
    archs = [cost.sample_near(base.space, Random(i), 5e5, 1e6, 10) for i in range(8)]
    plans = [plan.plan(base.space, arch, 10) for arch in archs]
    agreed: list[float] = []

    def ours() -> list[torch.Tensor]:
        return [torch.cat(scorer.judged(scorer.calibrated(net, p), images.val)) for p in plans]

    def prepared(split, size: int):
        for pixels, labels in split.ordered(SMALL_BATCH):
            x = augment.resize(augment.evaluation(pixels, mean=images.mean, std=images.std), size)
            yield x.contiguous(), labels

    def plainly() -> list[torch.Tensor]:
        rows = []
        for p in plans:
            small = PlainNet(p)
            small.load_state_dict(net.narrow(p).state_dict(), strict=False)
            plain.calibrate(small, [x for x, _ in prepared(scorer.calibration, p.resolution)])
            with torch.inference_mode():
                rows.append(torch.cat([small(x).argmax(1) == y for x, y in prepared(images.val, p.resolution)]))
        return rows

    for a, b in zip(ours(), plainly(), strict=True):
        agreed.append(100 * abs(a.float().mean() - b.float().mean()).item())
    times = alternate({"ours": ours, "plain": plainly}, rounds, 1)
    return [
        Row("candidates near 1M MACs, judged on 1,000 images", 60 * len(plans) / median(times["ours"]), "a minute"),
        Row("search, times as many candidates a minute as one by one plainly", ratio(times, "plain", "ours"), reach=3),
        Row("largest difference of their scores", max(agreed), "points", reach=1.0, most=True),
    ]


def candidate(rounds: int) -> list[Row]:
    """One full evaluation: narrow, calibrate on 1,024 images, score 5,000; cached batches, as in a search."""
    images = made_up(1024, 5000)
    scorer = Scorer(images, Classify(10), open_runtime("cpu"), 1024)
    small = tiny()
    wide, _ = around(small, Ladders((1.0, 1.8, 2.6), (1.0, 1.6, 2.2, 2.8)))
    larger = plan.plan(wide, wide.sample(Random(1)), 10)
    net = Net(plan.plan(wide, wide.largest, 10))
    jobs = {
        "tiny": lambda: scorer.score(scorer.calibrated(net, small), images.val),
        "larger": lambda: scorer.score(scorer.calibrated(net, larger), images.val),
    }
    times = alternate(jobs, rounds, 1)
    predicted = cost.cost(larger).macs / cost.cost(small).macs
    taken = 1 / ratio(times, "tiny", "larger")
    return [
        Row("a candidate on 5,000 images, mobilenetv2-tiny at 32 px", median(times["tiny"]), "s", reach=2, most=True),
        Row(f"a candidate of {predicted:.1f} x its MACs, time over what those predict", taken / predicted, reach=1.2,
            most=True),
    ]  # fmt: skip


def cost_model(rounds: int) -> list[Row]:
    """Arch to Cost, lowering included, against thop on the already built network. A space caches lowered blocks, so the
    cache is warmed with the same number of architectures before the first round, whatever the number of rounds."""
    from thop import profile

    space, rng = spacefile.load("mobilenetv2-small", plan.BLOCKS), Random(0)
    archs = [space.sample(rng) for _ in range(2000)]
    new = iter([[space.sample(rng) for _ in range(2000)] for _ in range(rounds + 1)])  # no architecture is costed twice
    for _ in range(5):
        for arch in (space.sample(rng) for _ in archs):
            cost.cost_of(space, arch, 10)
    built = PlainNet(plan.plan(space, archs[0], 10))
    image = torch.randn(1, 3, built.plan.resolution, built.plan.resolution)

    def with_thop() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            profile(copy.deepcopy(built), (image,), verbose=False)

    jobs = {"cost": lambda: [cost.cost_of(space, a, 10) for a in next(new)], "thop": with_thop}
    times = alternate(jobs, rounds, 1)
    return [
        Row("cost model, one core", len(archs) / median(times["cost"]), "architectures/s", reach=5000),
        Row("cost model, times as fast as thop on the built network", len(archs) * ratio(times, "thop", "cost"),
            reach=400),
    ]  # fmt: skip

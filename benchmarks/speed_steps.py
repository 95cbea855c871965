"""Training steps against the published code and against ordinary torch networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from random import Random
from statistics import median
from unittest.mock import patch

import published_netaug as published
import torch
from plain import PlainNet
from timing import BATCH, SIZE, TINY, Job, Row, alternate, made_up, ratio

from nasaug.arch import archfile, cost, plan, spacefile
from nasaug.augment import View
from nasaug.comparison.sweep import _scaled
from nasaug.data import Data
from nasaug.kernels import build, choice
from nasaug.methods import Base, Baseline, Draw, GradAug, Method, NetAug, Sandwich
from nasaug.nets.layers import BatchStats
from nasaug.nets.net import Net
from nasaug.tasks import Classify
from nasaug.training.device import open_runtime
from nasaug.training.length import Training, length_of
from nasaug.training.loop import Step, Trainer
from nasaug.training.scoring import Scorer

AS_TORCH = ", times as fast as torch's operations"


def tiny(resolution: int = SIZE) -> plan.Plan:
    return archfile.read(TINY, resolution=resolution, classes=10).plan


def trainer_of(method: Method, images: Data, base: Base | None = None) -> Trainer:
    """nasaug's trainer of a net (mobilenetv2-tiny), ready for steps."""
    runtime, task, training = open_runtime("cpu"), Classify(10, 0.1), Training(epochs=1000)
    base = base or Base(tiny())
    covered, arch = method.space(base)
    length = length_of(training, method, covered, arch, base.plan, len(images.train), True)
    return Trainer(
        Net(plan.plan(covered, covered.largest, 10)), method, covered, arch, task=task, data=images,
        views={"train": View()}, training=training, length=length, runtime=runtime,
        scorer=Scorer(images, task, runtime, 256), seed=0,
    )  # fmt: skip


def our_step(method: Method, images: Data, base: Base | None = None, batch: int = BATCH) -> Job:
    """A whole training step of nasaug, starting from the raw uint8 batch: view, passes, optimiser."""
    trainer = trainer_of(method, images, base)
    x, y, _ = next(images.train.batches(batch, seed=0, epoch=0))
    return lambda: trainer.train_step(x, y)


def published_steps() -> dict[str, Job]:
    x, y = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(10, (BATCH,))
    (plain, elastic), rng = published.make(), Random(0)
    one, two = published.sgd(plain), published.sgd(elastic)
    return {
        "published baseline": lambda: published.plain_step(plain, one, x, y),
        "published NetAug": lambda: published.netaug_step(elastic, two, x, y, rng),
    }


def by_torch(job: Job) -> Job:
    """The same with torch's operations in place of every compiled kernel."""

    def run() -> None:
        with choice.forced(False):
            job()

    return run


def steps(rounds: int) -> list[Row]:
    images = made_up(1024)
    method = partial(NetAug, ladder="factors", sort=False)
    jobs = published_steps() | {
        "baseline": our_step(Baseline(), images),
        "NetAug": our_step(method(width_until=1.0), images),
        "NetAug, expand ratios alone": our_step(method(width_until=0.0), images),
        "baseline by torch's operations": by_torch(our_step(Baseline(), images)),
        "NetAug by torch's operations": by_torch(our_step(method(width_until=1.0), images)),
    }
    times = alternate(jobs, rounds, 4)
    rows = [Row(f"{name}, {TINY} at {SIZE} px", BATCH / median(t), "images/s") for name, t in times.items()]
    as_torch = [
        Row(f"NetAug step{AS_TORCH}", ratio(times, "NetAug by torch's operations", "NetAug"), reach=1.7),
        Row(f"baseline step{AS_TORCH}", ratio(times, "baseline by torch's operations", "baseline"), reach=1.5),
    ]
    wide, expand = (ratio(times, name, "baseline") for name in ("NetAug", "NetAug, expand ratios alone"))
    return [
        *rows,
        Row("NetAug step, times as fast as the published structure", ratio(times, "published NetAug", "NetAug"),
            reach=3, goal=4),
        Row("baseline step, times as fast as torch eager in NCHW", ratio(times, "published baseline", "baseline"),
            reach=3),
        *([] if build.library() is None else as_torch),
        Row("NetAug over baseline in time, widths augmented", wide, reach=4.0, goal=3.0, most=True),
        Row("NetAug over baseline in time, over a run", (wide + expand) / 2, reach=2.9, goal=2.3, most=True),
    ]  # fmt: skip


def gradaug(rounds: int) -> list[Row]:
    """GradAug's step against the sum of its four passes, forward and backward, each timed alone in the same rounds."""
    trainer = trainer_of(GradAug(), made_up(1024))
    x, y, _ = next(trainer.data.train.batches(BATCH, seed=0, epoch=0))
    jobs: dict[str, Job] = {"step": lambda: trainer.train_step(x, y)}
    step = Step(trainer, x, y)
    view, target = step.view("train")
    passes = trainer.method.passes(step)
    nets = [each.arch for each in passes]
    soft = step.soft(step.run(view, nets[0]))
    with patch.object(GradAug, "passes", lambda self, draw: passes):
        for i, arch in enumerate(nets):
            def one(arch=arch, full=i == 0) -> None:
                out = step.run(view, arch)
                (step.loss(out, target) if full else step.match(out, soft)).backward()

            jobs[f"pass {i}"] = one
        times = alternate(jobs, rounds, 4)
    alone = [sum(times[f"pass {i}"][r] for i in range(len(nets))) for r in range(rounds)]
    over = median(whole / parts for whole, parts in zip(times["step"], alone, strict=True))
    return [
        Row(f"GradAug, {TINY} at {SIZE} px", BATCH / median(times["step"]), "images/s"),
        Row("GradAug step, time over that of its four passes alone", over, reach=1.15, most=True),
    ]


def chained(rounds: int) -> list[Row]:
    """Steps with consecutive blocks as one node against each block as its own, by size of the net."""
    if build.library() is None:
        return []
    images, sizes, rows = made_up(1024), _scaled(tiny()), []
    for macs in (100_000, 300_000, 1_000_000):
        near = min(sizes, key=lambda m: abs(m - macs))
        for name, method in (("plain", Baseline()), ("NetAug", NetAug(ladder="factors"))):
            step = our_step(method, images, Base(sizes[near]))

            def alone(step=step) -> None:
                with patch("nasaug.nets.net.chains", lambda p, x: zip(p.blocks)):
                    step()

            times = alternate({"together": step, "alone": alone}, rounds, 20)
            title = f"{name} step, {near / 1e6:.1f}M MACs, consecutive blocks as one node"
            rows.append(Row(f"{title}: times as fast as each on its own", ratio(times, "alone", "together"), reach=1.0))
    return rows


def default_space() -> Base:
    """The default search's space at 1M MACs, with its largest net as the base."""
    space = cost.crop(spacefile.load("mobilenetv2-small", plan.BLOCKS), cost.Budget(macs=1_000_000), 6.0, 10)
    return Base(plan.plan(space, space.largest, 10), space, space.largest)


def supernet(rounds: int) -> list[Row]:
    """The published sandwich step (largest, smallest, two samples) against four networks of those sizes in turn."""
    images, base = made_up(1024), default_space()
    method = Sandwich(samples=2, every=1, low=125_000, high=1_200_000)
    trainer = trainer_of(method, images, base)
    x, y, _ = next(images.train.batches(BATCH, seed=0, epoch=0))
    drawn = [method.passes(draw_of(trainer, i)) for i in range(4)]  # what the timed steps draw repeatedly
    turn = cycle(drawn)

    def sandwich() -> None:
        passes = next(turn)
        with patch.object(Sandwich, "passes", lambda self, draw: passes):
            trainer.train_step(x, y)

    jobs: dict[str, Job] = {"sandwich": sandwich}
    ours = [[_own(p, images, x, y) for p in _plans(base, passes)] for passes in drawn]
    theirs = [[_torchs(p) for p in _plans(base, passes)] for passes in drawn]
    jobs["separate"] = _in_turn(ours)
    jobs["separate, torch"] = _in_turn(theirs)
    times = alternate(jobs, rounds, len(drawn))
    return [
        Row("supernet at 1M MACs, sandwich step of four nets", BATCH / median(times["sandwich"]), "images/s"),
        Row("sandwich step, times as fast as four separate nets of nasaug", ratio(times, "separate", "sandwich"),
            reach=1.0),
        Row("sandwich step, times as fast as four separate torch nets", ratio(times, "separate, torch", "sandwich")),
    ]  # fmt: skip


def draw_of(trainer: Trainer, step: int) -> Draw:
    return Draw(trainer.space, trainer.base, 10, step, 0.0, Random(f"bench/{step}"))


def _plans(base: Base, passes) -> list[plan.Plan]:
    return [plan.plan(base.space, each.arch, 10) for each in passes]


def _in_turn(groups: list[list[Job]]) -> Job:
    turn = cycle(groups)

    def job() -> None:
        for step in next(turn):
            step()

    return job


def _own(p: plan.Plan, images: Data, x, y) -> Job:
    trainer = trainer_of(Baseline(), images, Base(p))
    return lambda: trainer.train_step(x, y)


def _torchs(p: plan.Plan) -> Callable[[], None]:
    net, x, y = PlainNet(p), torch.randn(BATCH, 3, p.resolution, p.resolution), torch.randint(10, (BATCH,))
    optimizer = published.sgd(net)
    return lambda: published.plain_step(net, optimizer, x, y)


def kernels_by_shape(rounds: int) -> list[Row]:
    """Speed-up of a compiled block over separate layers, forward and backward, by shape."""
    if build.library() is None:
        return []
    rows = []
    for size, cin, hidden, out, kernel, stride in (
        (16, 8, 48, 8, 3, 2), (16, 14, 170, 14, 3, 1), (8, 14, 150, 29, 5, 1), (4, 29, 300, 29, 3, 1),
        (2, 43, 500, 43, 3, 1), (1, 56, 336, 56, 3, 1),
    ):  # fmt: skip
        net = Net(plan.from_specs([
            plan.Spec("first", "conv", cin, kernel=1, act="relu6"),
            plan.Spec("block", "inverted", out, hidden, kernel, stride, "relu6"),
            plan.Spec("pool", "pool"), plan.Spec("classifier", "linear", 10),
        ], size, 10)).train()  # fmt: skip
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
        block = net.plan.blocks[1]
        x = torch.randn(BATCH, cin, size, size).to(memory_format=torch.channels_last).requires_grad_()
        grad = torch.randn(BATCH, out, *block.out_size).to(memory_format=torch.channels_last)

        def whole(net=net, block=block, x=x, grad=grad) -> None:
            net._block(block, x, BatchStats()).backward(grad)

        def by_layers(whole=whole) -> None:
            with patch("nasaug.nets.net.fused_blocks", lambda *given: None):
                whole()

        times = alternate({"whole": whole, "layers": by_layers, "torch": by_torch(whole)}, rounds, 10)
        shape = f"block {cin} -> {hidden} -> {out}, {kernel} x {kernel}, {size} px, stride {stride}"
        rows += [
            Row(f"{shape}: times as fast as compiled layers", ratio(times, "layers", "whole")),
            Row(f"{shape}: as torch's operations", ratio(times, "torch", "whole")),
        ]
    return rows

"""Which learning rate suits the supernet: how good its subnets are after a short training, by lr and samples.

    python benchmarks/supernet_lr.py [--macs 6e11] [--arms 0.04:2,0.12:2,0.4:2]

An arm is lr:samples. Fashion-MNIST, the default space cropped to 1M MACs; mean calibrated validation top-1 (2,000
images) of 40 fixed subnets with log MACs about uniform from 0.125M to 1.2M.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from random import Random
from statistics import mean

from cells import write

from nasaug.apps.search import open_space
from nasaug.cost import Budget, sample_near
from nasaug.data import describe
from nasaug.engine import Trainer
from nasaug.methods import Base
from nasaug.plan import plan
from nasaug.recipe import load
from nasaug.runtime import open_runtime
from nasaug.search import macs_range
from nasaug.settings import Recipe
from nasaug.train import load_data, make_job, make_scorer, make_trainer
from nasaug.training import Length

SUBNETS, IMAGES = 40, 2000
BUDGET = Budget(macs=1_000_000)


def short_training(lr: float, samples: int, macs: float) -> tuple[Trainer, float, float]:
    """A supernet trained for `macs` forward MACs, part of an epoch or several, with the schedule over them."""
    recipe = load("small", Recipe, (f"lr={lr}", f"sandwich.samples={samples}"))
    space = open_space(recipe, describe(recipe.data), BUDGET)
    largest, runtime = plan(space, space.largest, 10), open_runtime("cpu")
    data = load_data(recipe, largest.resolution)
    low, high = macs_range(space, BUDGET, 10)
    method = replace(recipe.sandwich, low=low, high=high)
    job = make_job(recipe, method, Base(largest, space, space.largest), images=len(data.train), runtime=runtime)
    steps = int(macs / (job.length.macs_per_image * recipe.batch))
    job = replace(job, length=Length(1, steps, job.length.macs_per_image, recipe.batch))
    scorer = make_scorer(recipe, data, runtime, recipe.search.calibration_images)
    trainer = make_trainer(job, data, runtime, scorer, keep_best=False)
    for epoch in range(steps):
        for images, labels, _ in data.train.batches(recipe.batch, seed=0, epoch=epoch):
            if trainer.step == steps:
                return trainer, low, high
            trainer.train_step(images, labels)
    return trainer, low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--macs", type=float, default=6e11)
    parser.add_argument("--arms", default="0.04:2,0.12:2,0.4:2")
    o = parser.parse_args()
    lines = [
        f"`python benchmarks/supernet_lr.py --macs {o.macs:g} --arms {o.arms}`", "",
        f"Mean over {SUBNETS} fixed subnets of 0.125M to 1.2M MACs, one seed.", "",
        "| lr | samples | steps | largest net, top-1 | subnets, mean top-1 |", "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    figures = {}
    for arm in o.arms.split(","):
        lr, samples = arm.split(":")
        trainer, low, high = short_training(float(lr), int(samples), o.macs)
        val = trainer.data.val.take(IMAGES, 0)

        def score(arch, trainer=trainer, val=val) -> float:
            p = plan(trainer.space, arch, 10)
            return trainer.scorer.top1(trainer.scorer.calibrated(trainer.net, p), val)

        space = trainer.space
        scores = [score(sample_near(space, Random(f"subnet/{i}"), low, high, 10)) for i in range(SUBNETS)]
        figures[arm] = {"largest": score(space.largest), "subnets": scores}
        row = f"{lr} | {samples} | {trainer.step} | {figures[arm]['largest']:.1f} % | {mean(scores):.1f} %"
        lines.append(f"| {row} |")
    write("supernet_lr", "The supernet's learning rate", lines, figures)


if __name__ == "__main__":
    main()

"""Which settings suit the supernet: accuracy of its subnets after a short training, for each arm.

    python benchmarks/supernet.py [--macs 3e11] [ARM ...]

An arm is a list of settings joined by commas, like `search.lr=0.4,sandwich.every=1`; `plain` is short for
`zero_init_residual=false`. Fashion-MNIST with the recipe `small` (with random crops), the default space cropped to 1M
MACs. Reports the mean calibrated validation top-1 (2,000 images) of 40 fixed subnets, about log-uniform in MACs from
0.125M to 1.2M. An arm that is already in the results, trained for the same MACs, is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import mean

from cells import RESULTS, write

from nasaug.arch.cost import Budget, sample_near
from nasaug.arch.plan import plan
from nasaug.config.layers import load
from nasaug.data import describe
from nasaug.methods import Base
from nasaug.nas.ranges import macs_range
from nasaug.nas.stages import open_space
from nasaug.training.device import open_runtime
from nasaug.training.job import load_data, make_job, make_scorer, make_trainer
from nasaug.training.length import Length
from nasaug.training.loop import Trainer
from nasaug.training.recipe import Recipe

SUBNETS, IMAGES = 40, 2000
BUDGET = Budget(macs=1_000_000)
RULE = "sandwich.every=1,sandwich.samples=2"  # the published rule
ARMS = (f"plain,{RULE}", f"plain,{RULE},search.lr=0.4", RULE, "plain", "sandwich.every=4")


def short_training(arm: str, macs: float) -> tuple[Trainer, float, float]:
    """A supernet trained for `macs` forward MACs (any number of epochs), with the schedule scaled to that length."""
    sets = ["zero_init_residual=false" if item == "plain" else item for item in arm.split(",")]
    recipe = load("small", Recipe, sets)
    space = open_space(recipe, describe(recipe.data), BUDGET)
    largest, runtime = plan(space, space.largest, 10), open_runtime("cpu")
    data = load_data(recipe, largest.resolution)
    low, high = macs_range(space, BUDGET, 10)
    method = replace(recipe.sandwich, low=low, high=high)
    recipe = replace(recipe, lr=recipe.search.lr)
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


def measure(arm: str, macs: float) -> dict:
    begun = time.perf_counter()
    trainer, low, high = short_training(arm, macs)
    seconds, space = time.perf_counter() - begun, trainer.space
    val = trainer.data.val.take(IMAGES, 0)

    def score(arch) -> float:
        p = plan(space, arch, 10)
        return trainer.scorer.score(trainer.scorer.calibrated(trainer.net, p), val)

    scores = [score(sample_near(space, Random(f"subnet/{i}"), low, high, 10)) for i in range(SUBNETS)]
    return {"steps": trainer.step, "seconds": seconds, "largest": score(space.largest), "subnets": scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arms", nargs="*", default=ARMS)
    parser.add_argument("--macs", type=float, default=3e11)
    o = parser.parse_args()
    kept = RESULTS / "supernet.json"
    figures = json.loads(Path(kept).read_text()) if kept.is_file() else {}
    for arm in o.arms:
        figures.setdefault(f"{o.macs:g}", {}).setdefault(arm, None)
        figures[f"{o.macs:g}"][arm] = figures[f"{o.macs:g}"][arm] or measure(arm, o.macs)
        lines = [
            "`python benchmarks/supernet.py`", "",
            f"Mean over {SUBNETS} fixed subnets of 0.125M to 1.2M MACs, one seed, random crops. `plain`: residual "
            "blocks do not start as identities; `sandwich.every=1`: the published rule.", "",
            "| settings | forward MACs | steps | seconds | largest net, top-1 | subnets, mean top-1 |",
            "| --- | --- | --- | --- | --- | --- |",
        ]  # fmt: skip
        for macs, rows in figures.items():
            lines += [
                f"| {name} | {macs} | {r['steps']} | {r['seconds']:.0f} | {r['largest']:.1f} % "
                f"| {mean(r['subnets']):.1f} % |"
                for name, r in rows.items() if r
            ]  # fmt: skip
        write("supernet", "Settings for training the supernet", lines, figures)


if __name__ == "__main__":
    main()

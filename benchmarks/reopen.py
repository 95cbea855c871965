"""Reopens a finished search to evaluate more with its supernet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nasaug.arch import archfile
from nasaug.arch.cost import Budget
from nasaug.arch.plan import plan
from nasaug.config.layers import load
from nasaug.core.files import read_json
from nasaug.data import Data
from nasaug.nas.study import Search
from nasaug.nets.store import load_net
from nasaug.training.device import open_runtime
from nasaug.training.job import load_data, make_scorer
from nasaug.training.recipe import Recipe


@dataclass(frozen=True)
class Finished:
    """A finished search's recipe, data and space; `search` starts a new study on its supernet."""

    recipe: Recipe
    data: Data
    found: archfile.ArchFile
    budget: Budget
    supernet: Path

    def search(self, storage: str, seed: int = 0, **config) -> Search:
        r = self.recipe
        scorer = make_scorer(r, self.data, open_runtime("cpu"), r.search.calibration_images)
        return Search(
            self.found.space, self.budget, replace(r.search, **config), scorer,
            self.data.val.take(r.search.score_images, 0), storage, seed=seed, net=load_net(self.supernet),
        )  # fmt: skip


def reopen(run: Path) -> Finished:
    recipe = load(run / "recipe.toml", Recipe)
    found = archfile.read(str(run / "found.json"))
    budget = Budget(**read_json(run / "job.json", "nasaug-job/1")["budget"])
    largest = plan(found.space, found.space.largest, found.plan.classes)
    return Finished(recipe, load_data(recipe, largest.resolution), found, budget, run / "supernet.safetensors")

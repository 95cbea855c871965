"""A finished search, opened again to ask more of its supernet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nasaug import archfile
from nasaug.cost import Budget
from nasaug.data import Data
from nasaug.files import read_json
from nasaug.models import load_net
from nasaug.plan import plan
from nasaug.recipe import load
from nasaug.runtime import open_runtime
from nasaug.search import Search
from nasaug.settings import Recipe
from nasaug.train import load_data, make_scorer


@dataclass(frozen=True)
class Finished:
    """A finished search's recipe, data and space; `search` makes a new study on its supernet."""

    recipe: Recipe
    data: Data
    found: archfile.ArchFile
    budget: Budget
    supernet: Path

    def search(self, storage: str, seed: int = 0, **config) -> Search:
        r = self.recipe
        scorer = make_scorer(r, self.data, open_runtime("cpu"), r.search.calibration_images)
        return Search(
            load_net(self.supernet), self.found.space, self.budget, replace(r.search, **config), scorer,
            self.data.val.take(r.search.score_images, 0), storage, seed,
        )  # fmt: skip


def reopen(run: Path) -> Finished:
    recipe = load(run / "recipe.toml", Recipe)
    found = archfile.read(str(run / "found.json"))
    budget = Budget(**read_json(run / "job.json", "nasaug-job/1")["budget"])
    largest = plan(found.space, found.space.largest, found.plan.classes)
    return Finished(recipe, load_data(recipe, largest.resolution), found, budget, run / "supernet.safetensors")

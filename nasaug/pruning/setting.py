"""The settings of a pruning run with all defaults filled in: stored in its job.json and used by each step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..arch.archfile import ArchFile
from ..augment import at_magnitude
from ..config.schedule import Constant
from ..core.errors import BadInput, arg
from ..core.units import format_quantity
from ..training.options import Options
from ..training.recipe import Recipe
from . import selection

STEPS, LR_SCALE, ROUND = 5, 0.5, 1  # defaults of a pruning's arguments


@dataclass(frozen=True)
class Setting:
    """The contents of a run's job.json: structured pruning to `target_macs`, or unstructured to `target_sparsity`."""

    source: str | None
    target_macs: int | None
    target_sparsity: float | None
    steps: int
    magnitude: str | None
    criterion: str
    lr_scale: float
    method: str | None
    round: int = ROUND  # pruned channel counts are multiples of this

    @property
    def arm(self) -> str:
        """The arm's name in reports: all settings except network and target, which are in the arch's name."""
        kind = "prune" if self.target_macs else "prune unstructured"
        usual = (selection.CRITERIA if self.target_macs else selection.OF_WEIGHTS)[0]
        said = {"criterion": self.criterion if self.criterion != usual else None, "magnitude": self.magnitude}
        said |= {"steps": self.steps if self.steps != STEPS else None, "method": self.method}
        said |= {"lr-scale": self.lr_scale if self.lr_scale != LR_SCALE else None}
        said |= {"round": self.round if self.round != ROUND else None}
        return ", ".join([kind, *(f"{name} {value}" for name, value in said.items() if value is not None)])

    def name(self, found: ArchFile) -> str:
        """The resulting network's name."""
        if self.target_macs:
            return f"{found.name}, pruned to {format_quantity(self.target_macs, 'macs')} MACs"
        return f"{found.name}, {100 * self.target_sparsity:g} % sparse"

    def recipe(self, options: Options, begun: Path, data: str) -> Recipe:
        """The recipe of the whole run: that of the net's own training, with plain training unless an arm is given."""
        recipe = options.settings({"arm": self.arm}, arm=self.method or "baseline", default=begun, data=data)
        if not options.said("trunk") and recipe.trunk != "train":  # a pruned trunk has to be trained
            recipe = replace(recipe, trunk="train")
        return recipe

    def step_recipe(self, recipe: Recipe, magnitude: float | None) -> Recipe:
        """The recipe of one step's fine-tuning: its share of the length, its learning rate, its magnitude."""
        views = recipe.views
        if magnitude is not None:
            train = views["train"]
            if recipe.difficulty.policy == "drive":
                raise BadInput(
                    f"{arg.magnitude} {self.magnitude}: difficulty.policy = drive decides on it; "
                    f"leave one out"
                )
            if train.policy not in ("none", "randaugment"):
                other = f"the recipe's view has policy {train.policy}, which has none"
                raise BadInput(
                    f"{arg.magnitude} {self.magnitude}: {other}; "
                    f"use {arg.set} views.train.policy=randaugment"
                )
            views = views | {"train": at_magnitude(train, Constant(magnitude))}
        return replace(recipe, times=recipe.times / self.steps, lr=recipe.lr * self.lr_scale, views=views)

"""What every long job may be asked beside its own fields: the data, the recipe, the seed, the device, the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import BadInput

if TYPE_CHECKING:
    from .recipe import Recipe


@dataclass(frozen=True)
class Options:
    """None: not given."""

    data: str | None = None
    """fashion-mnist (default), cifar10, cifar100, imagenet, digits, or the path of an image folder."""
    recipe: str | None = None
    """A recipe's name or path; default: the data's own, else `small`."""
    set: tuple[str, ...] = ()
    """Recipe keys that are overridden, like "epochs=2"."""
    seed: int | None = None
    """Seed of weights, order, views and draws; default 0."""
    device: str = "auto"
    """auto, cpu or cuda."""
    run: Path | None = None
    """The run's folder; default: the next free runs/VERB-N."""
    resume: bool = False
    """Go on with `run`, or with the verb's last unfinished run."""
    profile: bool = False
    """Time the stages of training, and tell the rate of each at its end."""

    @classmethod
    def of(
        cls, data: str | Path | None, recipe: str | Path | None, set: Mapping[str, object] | Sequence[str],
        seed: int | None, device: str, run: str | Path | None, resume: bool,
    ) -> Options:  # fmt: skip
        """From what callers in Python write: paths of either kind, recipe keys as a mapping."""
        items = _sets(set) if isinstance(set, Mapping) else tuple(set)
        named, chosen = (None if path is None else str(path) for path in (data, recipe))
        return cls(named, chosen, items, seed, device, None if run is None else Path(run), resume)

    def said(self, key: str) -> bool:
        """Whether `set` overrides this recipe key."""
        return any(_key(item) == key for item in self.set)

    def settings(
        self, given: Mapping[str, object], *, arm: str | None = None, data: str | None = None,
        begun: Path | None = None,
    ) -> Recipe:  # fmt: skip
        """The resolved recipe under what the job's fields give by recipe key (None: not given).

        `arm` is a difference to the recipe, like "netaug+mixup", of plain training where it names no method; `data` is
        what to take where neither the option nor a recipe names it, `begun` the recipe where none is given."""
        from ..config.layers import arm_says, load
        from .recipe import Recipe, default_recipe

        options = _sets({"data.name": self.data, "seed": self.seed, **given})
        for key in (*map(_key, options), *(() if arm is None else ("method",))):
            if self.said(key):
                raise BadInput(f"--set {key}=… says what the command or an option says too; leave it out")
        for item in self.set:
            if _key(item) == "data.name":  # which would leave the recipe that of other data
                raise BadInput(f"--set {item}: name the data by --data, which takes the recipe that is theirs too")
        default = begun or default_recipe(self.data or data or "fashion-mnist")
        recipe = default if self.recipe is None else self.recipe
        arms = () if arm is None else (arm,) if "method" in arm_says(arm, Recipe) else ("baseline", arm)
        return load(recipe, Recipe, self.set, arms, under=_sets({"data.name": data}), options=options)


def _sets(values: Mapping[str, object]) -> tuple[str, ...]:
    """What is given, as `set` takes it: JSON's strings and numbers are TOML's."""
    return tuple(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in values.items() if v is not None)


def _key(item: str) -> str:
    return item.partition("=")[0].strip()

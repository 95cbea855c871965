"""Options that all long jobs share: data, recipe, seed, device, run directory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.layers import OPTIONS, arm_says, flatten, load
from ..core.errors import BadInput, arg, with_value

if TYPE_CHECKING:
    from .recipe import Recipe


# the arguments that set a recipe key, by the key
ARGUMENTS = {
    "data.name": "data", "seed": "seed", "space": "space", "search.trials": "trials", "search.sampler": "sampler",
    "search.strategy": "strategy", "search.headroom": "headroom", "search.objectives": "objectives",
    "search.pick": "pick",
    "netaug.aug_compute": "aug_compute", "data.fraction": "data_fraction", "data.shots": "shots",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """None means not given."""

    data: str | None = None
    """fashion-mnist (default), cifar10, cifar100, imagenet, imagenet21k-p, food101, flowers102, cars, cub200, pets,
    digits, or the path of an image folder."""
    recipe: str | None = None
    """A recipe's name or path; defaults to the data set's own, else `small`."""
    set: tuple[str, ...] = ()
    """Overrides of recipe keys, like "epochs=2"."""
    seed: int | None = None
    """Seed for initial weights, image order, augmentation and sampling; default 0."""
    device: str = "auto"
    """auto, cpu or cuda."""
    run: Path | None = None
    """The run's folder; default: the next free runs/VERB-N."""
    resume: bool = False
    """Resume `run`, or the verb's last unfinished run."""
    profile: bool = False
    """Time the stages of training and report their rates at the end."""
    on_bad_image: str | None = None
    """error (default) or skip: what becomes of training images that cannot be read."""

    def __post_init__(self) -> None:
        if self.on_bad_image is not None:  # a short form, which jobs with many trainings pass on to each of them
            object.__setattr__(self, "set", (*self.set, *_sets({"data.on_bad_image": self.on_bad_image})))
            object.__setattr__(self, "on_bad_image", None)

    @classmethod
    def of(
        cls, data: str | Path | None, recipe: str | Path | None, set: Mapping[str, object] | Sequence[str],
        seed: int | None, device: str, run: str | Path | None, resume: bool,
    ) -> Options:  # fmt: skip
        """From Python arguments: paths as str or Path, `set` as a mapping, a sequence of "key=value" or one of these.

        Raises BadInput for a value in `set` that no recipe can have, like None."""
        items = _given(set) if isinstance(set, Mapping) else (set,) if isinstance(set, str) else tuple(set)
        named, chosen = (None if path is None else str(path) for path in (data, recipe))
        return cls(named, chosen, items, seed, device, None if run is None else Path(run), resume)

    @property
    def onward(self) -> tuple[str, ...]:
        """The words of a command line with which the training of a found net keeps to these options: its arch file
        names the data, and neither recipe nor keys. Those of the search alone are left out."""
        kept = [item for item in self.set if not _key(item).startswith("search.")]
        named = () if self.recipe is None else ("--recipe", self.recipe)
        return (*named, *(word for item in kept for word in ("--set", item)))

    def said(self, key: str) -> bool:
        """Whether `set` overrides this recipe key."""
        return any(_key(item) == key for item in self.set)

    def settings(
        self, given: Mapping[str, object], *, arm: str | None = None, data: str | None = None,
        default: Path | str | None = None,
    ) -> Recipe:  # fmt: skip
        """The resolved recipe, with the recipe keys that the job's fields set in `given` (None means not given).

        `arm` is a difference to the recipe, like "netaug+mixup"; if it names no method, the method is baseline. `data`
        is the fallback if neither the option nor the recipe names any, `default` the recipe if none is given."""
        from .recipe import Recipe, default_recipe

        options = _sets({"data.name": self.data, "seed": self.seed, **given})
        for key in (*map(_key, options), *(() if arm is None else ("method",))):
            if self.said(key):
                raise BadInput(f"{arg.set} {key}=… is given by another argument too; leave it out")
        for item in self.set:
            if _key(item) == "data.name":  # --data also selects the matching default recipe, --set would not
                raise BadInput(
                    f"{arg.set} {item}: "
                    f"name the data with {arg.data}, which also selects their recipe"
                )
        task = next((item.partition("=")[2].strip(" '\"") for item in self.set if _key(item) == "task"), "")
        default = default or default_recipe(self.data or data or "fashion-mnist", task)
        recipe = default if self.recipe is None else self.recipe
        says = {"method"} if arm is None else arm_says(arm, Recipe).keys()
        if "method" not in says and "qat.on" in says:  # alone: the phase in int8 is the training
            options = (*options, 'method="qat"')
            says |= {"method"}
            for key in filter(self.said, ("epochs", "lr")):
                rule = "is of the training before qat, which takes a tenth of it; here qat is alone"
                raise BadInput(f"{arg.set} {key}=… {rule}; set qat.{key} instead", field=key, rule=rule)
        arms = () if arm is None else (arm,) if "method" in says else ("baseline", arm)
        try:
            return load(recipe, Recipe, self.set, arms, under=_sets({"data.name": data}), options=options)
        except BadInput as error:
            raise _of_argument(error) from error


def _of_argument(error: BadInput) -> BadInput:
    """The error, about the function's argument if that sets the recipe key."""
    start, argument = f"{OPTIONS}: {error.field} = ", ARGUMENTS.get(error.field or "")
    if argument is None or not error.line.startswith(start):
        return error
    line = f"{with_value(argument)} {error.line.removeprefix(start)}"
    return BadInput(line, value=error.value, rule=error.rule, choices=error.choices, remedy=error.remedy)


def _given(values: Mapping[str, object]) -> tuple[str, ...]:
    """A caller's mapping of recipe keys as items. Raises BadInput for a value that no recipe can have."""
    for key, value in flatten(dict(values)).items():
        if value is None:
            rule, remedy = "a value is None", "leave the key out"
            raise BadInput(f"{arg.set} {key}: {rule}; {remedy}", field=key, rule=rule, remedy=remedy)
        try:
            _sets({key: value})
        except TypeError as error:
            rule, remedy = f"is of type {type(value).__name__}", "give a number, a text, True or False, or a list"
            raise BadInput.of(field=key, value=value, rule=rule, remedy=remedy) from error
    return _sets(values)


def _sets(values: Mapping[str, object]) -> tuple[str, ...]:
    """The values that are not None as "key=value" items, the keys of a nested table joined by dots.

    JSON strings, numbers and arrays are valid TOML; paths become strings."""
    given = ((key, value) for key, value in flatten(dict(values)).items() if value is not None)
    return tuple(f"{key}={json.dumps(value, ensure_ascii=False, default=os.fspath)}" for key, value in given)


def _key(item: str) -> str:
    return item.partition("=")[0].strip()

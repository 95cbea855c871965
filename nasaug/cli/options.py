"""Command-line options shared by several verbs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token

from ..core.files import read_bytes, to_json
from ..core.launch import launched
from ..training.options import Options
from .names import DataName, Device, RecipeName

RUN = Group("Run", sort_key=2)


def whole(kind: type, tokens: Sequence[Token]) -> int:
    """Parse an integer; cyclopts by itself would round 1.5 to 2."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


Whole = Annotated[int | None, Parameter(converter=whole)]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]


def option(argument: str) -> str:
    """The option that gives a function's argument."""
    return {"source": "--from"}.get(argument, "--" + argument.replace("_", "-"))


@Parameter(name="*")
@dataclass(frozen=True)
class Common(Options):
    """Options of every long-running command."""

    data: Annotated[DataName, Parameter(group=RUN)] = None
    """fashion-mnist (default), cifar10, cifar100, imagenet, imagenet21k-p, food101, flowers102, cars, cub200, pets,
    digits, or the path of an image folder."""
    recipe: Annotated[RecipeName, Parameter(group=RUN)] = None
    """A recipe's name or path; default: the data's own, else `small`."""
    set: Annotated[tuple[str, ...], Parameter(group=RUN, negative="", show_default=False)] = ()
    """Override a recipe key, like `--set epochs=2` or `--set netaug.ladder=factors`; repeatable."""
    seed: Annotated[int | None, Parameter(group=RUN, converter=whole)] = None
    """Seed for initial weights, image order, augmentation and sampling; default 0."""
    device: Annotated[Device, Parameter(group=RUN)] = "auto"
    """auto, cpu or cuda."""
    run: Annotated[Path | None, Parameter(group=RUN)] = None
    """The run's folder; default: the next free runs/VERB-N."""
    resume: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False
    """Resume --run, or the verb's last unfinished run."""
    on_bad_image: Annotated[str | None, Parameter(group=RUN)] = None
    """Training images that cannot be read: error (default), or skip: others take their places, and they are counted."""
    profile: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False
    """Time the stages of training and show their rates at the end."""
    json: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False
    """Print the result as JSON; all else goes to stderr."""


USUAL = Common()


def print_json(value: Any) -> None:
    """Print what --json asks for: one JSON value, an object for one thing and a list for several."""
    print(to_json(value, indent=1))


FILES = {"compare": "comparison.json", "sweep": "sweep.json"}  # where a run keeps its result; else result.json


def carry_out(job: Any, common: Common) -> None:
    """Do the job of a verb; with --json print its run and the result that is written there."""
    from ..training.begin import create_or_resume

    result = create_or_resume(job)
    if common.json and launched()[0] == 0:
        run = Path(getattr(result, "run", None) or result.path)
        written = read_bytes(run / FILES.get(job.verb, "result.json"))
        print_json({"run": str(run), **json.loads(written)})

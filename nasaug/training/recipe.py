"""The recipe's schema: everything that a run needs, in one frozen dataclass, each table owned by its module."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import field, fields, make_dataclass
from functools import lru_cache, partial
from typing import Annotated, Literal

from annotated_types import Ge, Predicate

from ..augment import View
from ..augment.transform import Transform
from ..config.schedule import Constant
from ..core import files
from ..core.checked import Auto, Count, NotNegative, Positive, Told, checked
from ..core.errors import BadInput
from ..data import DataConfig, names
from ..methods import METHODS, GradAug, Method, NetAug, Sandwich
from ..nets.regularisers import Noise
from .difficulty import Difficulty
from .length import Training
from .teacher import TeacherConfig

UNCROPPED = Told("must be 0 (do not crop the space) or at least 1")


@checked("search")
class SearchConfig:
    """The second stage of a search: the recipe's `[search]` table."""

    trials: Count = 100
    """Candidates evaluated; those turned away by the budget and repeated ones do not count."""
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    score_images: Count = 1000
    """Validation images on which a candidate is scored."""
    calibration_images: Annotated[int, Ge(2)] = 1024
    finalists: Count = 8
    """Scored again on the whole validation split: of each resolution in turn the largest (in MACs) that ties with its
    best, and the best. Found is the best of them after a short training, each on its own."""
    finalist_macs: NotNegative | Auto = "auto"
    """Forward MACs of that training, all finalists together; auto: a fifth of the supernet's; 0: none, and found is
    the largest that ties with the best."""
    lr: Positive | Auto = "auto"
    """The supernet's learning rate; auto: the recipe's lr."""
    headroom: Annotated[float, Predicate(lambda times: times == 0 or times >= 1), UNCROPPED] = 6.0
    """The supernet's largest net costs at most this many times the MAC budget; 0: the space is not cropped."""


# What a resumed run may do otherwise than it was begun with, and cells of other values have in common: how images are
# read, which an order and crops drawn by (seed, epoch, place) do not depend on. Not data.memory_mb: streamed images are
# cropped otherwise than those in memory.
CHANGE_NOTHING = ("data.workers", "data.keep_decoded")


BUILT_IN = ("baseline", "netaug", "gradaug")  # the methods whose tables `Recipe` has


@checked()
class Recipe(Training):
    """Everything a run needs, resolved. The optimiser's keys are at the top level."""

    seed: Annotated[int, Ge(0)] = 0
    arm: str = ""
    """What a comparison calls this training; empty: the method's name."""
    method: Literal["baseline", "netaug", "gradaug"] = "netaug"
    task: str = "auto"
    """What is learnt: classify, or regress (a number an image); auto: what follows from the data."""
    init: Literal["auto", "inherit", "scratch"] = "auto"
    """Start from the weights that the arch file names (a supernet's, a trained or a pruned net's), or fresh; auto:
    inherit where it names some."""
    space: str = "auto"
    """A search space's name or path; auto: mobilenetv2-small up to 64 px, else mobilenetv2."""
    bf16: bool = False
    """bfloat16 autocast on an accelerator."""
    data: DataConfig = field(default_factory=DataConfig)
    views: dict[str, View] = field(default_factory=lambda: {"train": View()})
    transforms: dict[str, Transform] = field(default_factory=dict)
    """What a method does to a view's images for some of its passes: `thin` is GradAug's."""
    noise: Noise = field(default_factory=Noise)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    difficulty: Difficulty = field(default_factory=Difficulty)
    netaug: NetAug = field(default_factory=NetAug)
    gradaug: GradAug = field(default_factory=GradAug)
    sandwich: Sandwich = field(default_factory=Sandwich)
    search: SearchConfig = field(default_factory=SearchConfig)

    def __post_init__(self):
        if "train" not in self.views:
            line = "the recipe has no [views.train], which every method needs; add that table"
            raise BadInput(line, field="views.train", rule="every method needs it", remedy="add that table")
        self._check_difficulty(self.difficulty.policy, self.views["train"])
        self.chosen_method().check_views(self.views)

    def _check_difficulty(self, policy: str, view: View) -> None:
        refused = partial(BadInput.of, field="difficulty.policy", value=policy)
        if policy != "none" and not self.teacher.source:
            raise refused(rule="needs a teacher", remedy="give teacher.source, a run's folder or supernet")
        if policy == "drive" and (view.policy != "randaugment" or not isinstance(view.magnitude, Constant)):
            seen = f"{view.magnitude.to_plain()} of policy {view.policy}"
            remedy = 'give views.train.policy = "randaugment", and a number as views.train.magnitude'
            raise refused(rule=f"moves RandAugment's magnitude from a number on, not {seen}", remedy=remedy)
        if policy == "weight" and (view.mixup or view.cutmix):
            mixed = "mixup" if view.mixup else "cutmix"
            rule = f"says what each image counts, and {mixed} makes one of two"
            raise refused(rule=rule, remedy="leave one of them out")
        if policy == "keep" and not view.varies:
            rule = "chooses among versions of an image, and views.train makes all alike"
            raise refused(rule=rule, remedy="vary them")

    def teacher_passes(self, views: Set[str]) -> int:
        """How often the teacher sees each image of a step whose passes see these `views`: to judge `[views.train]`, and
        once for each view of which its soft output is a target, unless it has judged just these images: those of a
        view that mixes are mixed later."""
        judged = self.difficulty.candidates if self.difficulty.policy == "keep" else int(bool(self.difficulty))
        train, soft = self.views["train"], int(self.teacher.soft > 0)
        again = soft * int(not judged or train.mixup > 0 or train.cutmix > 0)
        return soft * len(views - {"train"}) + (judged + again if "train" in views else 0)

    def chosen_method(self) -> Method:
        """The training method's own table."""
        return getattr(self, self.method) if hasattr(self, self.method) else METHODS[self.method]()

    # --- what `config.layers` asks a schema for -------------------------------------------------------------------

    @staticmethod
    def complete() -> type[Recipe]:
        """The schema with all methods that are registered by now: `method` takes their names, `[NAME]` is their table.

        Raises BadInput for one with the name of a key that recipes have."""
        return _with_methods(tuple(METHODS.items()))

    @staticmethod
    def arms() -> dict[str, dict]:
        """The arms that need no file: the methods that were registered from outside, by name."""
        return {name: {"method": name} for name in METHODS if name not in BUILT_IN}


@lru_cache
def _with_methods(methods: tuple[tuple[str, type[Method]], ...]) -> type[Recipe]:
    """`Recipe` itself where it has all of these."""
    more = [(name, cls) for name, cls in methods if name not in BUILT_IN]
    if not more:
        return Recipe
    for name, _ in more:
        if hasattr(Recipe, name) or name in {each.name for each in fields(Recipe)}:
            raise BadInput(f"the method {name!r} has the name of a recipe's key; register it by another name")
    names = tuple(name for name, _ in methods)
    aside = {"left_out_if_usual": True}  # so that runs of other methods can be read where this one is not registered
    tables = [(name, cls, field(default_factory=cls, metadata=aside)) for name, cls in more if fields(cls)]
    usual = next(each.default for each in fields(Recipe) if each.name == "method")
    method = ("method", Literal[names], field(default=usual))
    return make_dataclass("Recipe", [method, *tables], bases=(Recipe,), frozen=True, namespace={"__module__": __name__})


def default_recipe(data: str) -> str:
    """The recipe that belongs to a data set: one of its name where there is one, else `small`.

    A folder has none, whatever it is called: one named "cifar" would be trained as WideResNets were."""
    named = files.bundled("recipes") / f"{data}.toml"
    return data if data in names() and named.is_file() else "small"

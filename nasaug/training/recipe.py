"""The recipe's schema: everything a run needs, in one frozen dataclass. Each table is defined by its own module."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import field, fields, make_dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from annotated_types import Ge, Le, Predicate

from ..arch.cost import NAMES
from ..augment import View
from ..augment.transform import Transform
from ..config.schedule import Constant
from ..core import files
from ..core.checked import Auto, Count, NotNegative, Positive, Told, checked
from ..core.errors import BadInput
from ..data import DataConfig, boxes, names
from ..methods import METHODS, QAT, GradAug, Method, NetAug, Sandwich
from ..nets.regularisers import Noise
from ..tasks.segment import SegmentConfig
from .difficulty import Difficulty
from .length import Training
from .teacher import TeacherConfig

ACCURACY = "accuracy"
OBJECTIVES = (ACCURACY, *NAMES)
PICKS = ("best", "knee", *(f"min-{name}" for name in NAMES))
if TYPE_CHECKING:
    Objective: TypeAlias = str
    Pick: TypeAlias = str
else:
    Objective, Pick = Literal[OBJECTIVES], Literal[PICKS]
EACH_ONCE = Told("must have accuracy, and each objective once")

UNCROPPED = Told("must be 0 (do not crop the space) or at least 1")


@checked("search")
class SearchConfig:
    """The search stage: the recipe's `[search]` table."""

    strategy: Literal["supernet", "halving"] = "supernet"
    """supernet: train one, search it, and train its best subnets as `finalists`; halving: finalists are drawn by size
    instead and trained from fresh weights, with the MACs of the supernet as well."""
    trials: Count = 100
    """Candidates to evaluate, not counting those over budget and duplicates."""
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    """Optuna's sampler that proposes candidates."""
    objectives: Annotated[
        tuple[Objective, ...], Predicate(lambda named: ACCURACY in named and len(set(named)) == len(named)), EACH_ONCE
    ] = (ACCURACY,)
    """accuracy (what `by` ranks) alone, or with costs that are to be low too: macs, params, sram, flash. With several,
    the search looks for their Pareto front, and finalists are chosen, and go on, along it."""
    pick: Pick = "best"
    """Which of the finalists is found: the best; the knee of their front, which lies farthest from the line between its
    ends; or the net of the front with the lowest cost (min-macs and so on)."""
    predicted: Annotated[float, Ge(0), Le(1)] = 0.0
    """The share of the sampler's candidates that a Gaussian process fitted to the scores so far proposes instead."""
    score_images: Count = 1000
    """Number of validation images on which a candidate is scored."""
    by: Literal["score", "loss"] = "score"
    """What ranks candidates and finalists: the task's metric, or the mean loss on the same validation images (of
    finalists, the mean of that and their training loss), which tells nets of similar accuracy apart with less noise."""
    calibration_images: Annotated[int, Ge(2)] = 1024
    """Training images for the statistics of each candidate's norms."""
    finalists: Count = 8
    """Number of candidates scored again on the whole validation split: for each resolution the largest (in MACs) that
    ties with its best, and of the better half those that are most unlike each other. Each is then trained on its own,
    and the best one is found."""
    filled: bool = False
    """Raise the finalists' choices, rung by rung, until no larger net of the same shape (resolution and strides) is
    within the budgets. With costs as objectives, or without a budget, they stay as they are."""
    rounds: Count = 1
    """Rounds of that training: after each, the better half goes on for as long as it was trained so far (successive
    halving, Jamieson and Talwalkar, AISTATS 2016). With too few MACs there are fewer rounds."""
    schedule: Annotated[float, Ge(1)] = 1.0
    """The length of a finalist's schedule as a multiple of its rounds, which are then halted before its end; at most
    that of the net's own training. 1: the last round ends with the schedule."""
    finalist_macs: NotNegative | Auto = "auto"
    """Forward MACs of that training for all finalists together; auto: finalist_share of the supernet's; 0: no training,
    and the largest finalist that ties with the best is found."""
    finalists_from: Literal["supernet", "scratch"] = "supernet"
    """What weights a finalist's training starts from: its slice of the supernet, or fresh ones, by which the supernet's
    favourites have no lead over nets that it served badly."""
    finalist_share: Positive = 0.2
    """The finalists' MACs as a multiple of the supernet's, with finalist_macs = auto."""
    least_epochs: NotNegative = 0.0
    """Leave out nets that the training afterwards (train_macs) would train for fewer epochs than this, whatever the
    budget allows; 0: none."""
    shapes: Annotated[int, Ge(0)] = 0
    """Choose the shape (resolution and strides) first: that of the space's own design, if it fits the budget with
    widths of two thirds to 1.5 times its own; otherwise that design, scaled to the budget, is trained in so many
    shapes, in `rounds` rounds, and the search goes on in the best one alone; 0, or several objectives: search all
    shapes together."""
    shape_share: Positive = 0.4
    """The forward MACs of that, as a multiple of train_macs where that limits training; otherwise of the supernet's."""
    lr: Positive | Auto = "auto"
    """The supernet's learning rate; auto: the recipe's lr."""
    supernet_share: Positive = 1.0
    """The supernet's forward MACs as a multiple of train_macs, where that limits its training."""
    headroom: Annotated[float, Predicate(lambda times: times == 0 or times >= 1), UNCROPPED] = 6.0
    """The supernet's largest net costs at most this multiple of the MAC budget; 0: the space is not cropped."""
    crop: Literal["largest", "reach"] = "largest"
    """How `headroom` is kept. largest: by dropping top choices until the space's largest net is within it; reach: by
    dropping only choices that no net within it can have, and drawing the largest nets that are trained within it."""


_ASIDE = {"left_out_if_usual": True}  # a table that recipes only mention if it is used
INT8_SHARE = 0.1  # length and learning rate of the phase in int8, as parts of the recipe's

# Keys that do not affect results: they may change when a run is resumed, and cells that differ in them are shared. They
# only control how images are read; order and crops are drawn from (seed, epoch, place). data.memory_mb is not among
# them, because streamed images are cropped differently from those in memory.
CHANGE_NOTHING = ("data.workers", "data.keep_decoded", "data.on_bad_image")


BUILT_IN = ("baseline", "netaug", "gradaug", "qat")  # the methods that have tables in `Recipe`


@checked()
class Recipe(Training):
    """Everything a run needs, fully resolved. The optimiser's keys are at the top level."""

    seed: Annotated[int, Ge(0)] = 0
    """Of initial weights, the order of images, augmentation and sampling."""
    arm: str = ""
    """The name of this training in a comparison; empty: the method's name."""
    method: Literal["baseline", "netaug", "gradaug", "qat"] = "netaug"
    """How a network is trained: plainly, inside wider nets, with thinner slices of itself, in int8; or a method of your
    own."""
    task: str = "auto"
    """The task: classify, regress (one number per image), detect (boxes) or segment (boxes and masks); auto: determined
    by the data, never segment."""
    init: str = "auto"
    """What to start from: inherit: the weights that the arch file names (of a supernet, a trained or a pruned net);
    scratch: fresh ones; auto: inherit if it names any. Or a finished run's folder, or torchvision:NAME: its trunk, and
    its head if it is for the same classes."""
    space: str = "auto"
    """A search space's name or path; auto: tiny-images up to 64 px, else mobilenetv2."""
    bf16: bool = False
    """bfloat16 autocast on an accelerator."""
    data: DataConfig = field(default_factory=DataConfig)
    views: dict[str, View] = field(default_factory=lambda: {"train": View()})
    transforms: dict[str, Transform] = field(default_factory=dict)
    """Transforms that a method applies to a view's images in some of its passes: `thin` is GradAug's."""
    noise: Noise = field(default_factory=Noise)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    difficulty: Difficulty = field(default_factory=Difficulty)
    netaug: NetAug = field(default_factory=NetAug)
    gradaug: GradAug = field(default_factory=GradAug)
    qat: QAT = field(default_factory=QAT, metadata=_ASIDE)
    segment: SegmentConfig = field(default_factory=SegmentConfig, metadata=_ASIDE)
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
            raise refused(rule=f"adjusts RandAugment's magnitude, starting from a number, not {seen}", remedy=remedy)
        if policy == "weight" and (view.mixup or view.cutmix):
            mixed = "mixup" if view.mixup else "cutmix"
            rule = f"weights each image, but {mixed} mixes two images into one"
            raise refused(rule=rule, remedy="leave one of them out")
        if policy == "keep" and not view.varies:
            rule = "chooses among versions of an image, but views.train makes them all the same"
            raise refused(rule=rule, remedy="add augmentation there")

    def teacher_passes(self, views: Set[str]) -> int:
        """Teacher passes per image in a step whose own passes see these `views`.

        The teacher judges the difficulty of `[views.train]`, and computes a soft target for each view. For the training
        view it reuses the logits of the judgement, unless mixup or CutMix change the images afterwards."""
        judged = self.difficulty.candidates if self.difficulty.policy == "keep" else int(bool(self.difficulty))
        train, soft = self.views["train"], int(self.teacher.soft > 0)
        again = soft * int(not judged or train.mixup > 0 or train.cutmix > 0)
        return soft * len(views - {"train"}) + (judged + again if "train" in views else 0)

    def chosen_method(self) -> Method:
        """The table of the training method."""
        return getattr(self, self.method) if hasattr(self, self.method) else METHODS[self.method]()

    @property
    def ends_in_int8(self) -> bool:
        """Whether the last or only phase of the training is `qat`."""
        return self.qat.on or self.method == "qat"

    def in_int8(self) -> Recipe:
        """The recipe of that phase."""
        own, auto = self.qat, self.qat.epochs == "auto"
        length = {"times": self.times * INT8_SHARE} if auto else {"times": 1.0, "stop": "epochs", "epochs": own.epochs}
        rate = self.lr * INT8_SHARE if own.lr == "auto" else own.lr
        return replace(self, method="qat", lr=rate, **length)

    # --- hooks that `config.layers` looks for in a schema ---------------------------------------------------------

    @staticmethod
    def complete() -> type[Recipe]:
        """The schema including all methods registered so far: `method` accepts their names, `[NAME]` is their table.

        Raises BadInput if a method has the name of an existing recipe key."""
        return _with_methods(tuple(METHODS.items()))

    @staticmethod
    def arms() -> dict[str, dict]:
        """Arms defined without a file: the methods registered by user code, by name."""
        return {name: {"method": name} for name in METHODS if name not in BUILT_IN}


@lru_cache
def _with_methods(methods: tuple[tuple[str, type[Method]], ...]) -> type[Recipe]:
    """`Recipe`, extended by the methods that are not built in."""
    more = [(name, cls) for name, cls in methods if name not in BUILT_IN]
    if not more:
        return Recipe
    for name, _ in more:
        if hasattr(Recipe, name) or name in {each.name for each in fields(Recipe)}:
            raise BadInput(f"the method {name!r} has the name of a recipe key; register it under another name")
    names = tuple(name for name, _ in methods)
    # left out if usual: runs of other methods must be readable where this method is not registered
    with_keys = [(name, cls) for name, cls in more if fields(cls)]  # type: ignore[arg-type]
    tables = [(name, cls, field(default_factory=cls, metadata=_ASIDE)) for name, cls in with_keys]
    usual = next(each.default for each in fields(Recipe) if each.name == "method")
    method = ("method", Literal[names], field(default=usual))
    return make_dataclass("Recipe", [method, *tables], bases=(Recipe,), frozen=True, namespace={"__module__": __name__})


def default_recipe(data: str, task: str = "") -> str:
    """The default recipe of a data set: the one of the same name if it exists, else `small`.

    Folders with boxes get `detect` (`segment`, if that is the `task` asked for), and others always `small`: an image
    folder that happens to be called "cifar" must not get the WideResNet recipe."""
    if data not in names() and boxes.there(data):
        return "segment" if task == "segment" else "detect"
    named = files.bundled("recipes") / f"{data}.toml"
    return data if data in names() and named.is_file() else "small"

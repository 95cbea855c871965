"""Dataclasses checked by pydantic: what they refuse, the messages, and that they remain dataclasses."""

import copy
import dataclasses
import pickle
from dataclasses import field, replace
from typing import Annotated, ClassVar, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt, MinLen, Predicate

from nasaug.augment import View
from nasaug.augment.transform import Transform
from nasaug.config.layers import load
from nasaug.config.schedule import Constant, Linear
from nasaug.core.checked import Auto, Count, NotNegative, Positive, Told, checked, rises
from nasaug.core.errors import BadInput
from nasaug.data import DataConfig
from nasaug.methods import GradAug, NetAug, Sandwich, SandwichWithin
from nasaug.nets.regularisers import Noise
from nasaug.training.difficulty import Difficulty
from nasaug.training.length import Training
from nasaug.training.recipe import Recipe, SearchConfig
from nasaug.training.teacher import TeacherConfig

CONFIGS = (
    DataConfig, Difficulty, GradAug, NetAug, Noise, Recipe, Sandwich, SandwichWithin, SearchConfig, TeacherConfig,
    Training, Transform, View,
)  # fmt: skip


@checked("part")
class Part:
    passes: ClassVar[int] = 2
    share: Annotated[float, Gt(0), Le(1), Told("is a share", "give above 0, to 1")] = 1.0
    least: Annotated[int, Ge(2)] = 2
    below: Annotated[float, Ge(0), Lt(1)] = 0.0
    within: Annotated[float, Gt(0), Le(1)] = 0.5
    amid: Annotated[float, Gt(0), Lt(1)] = 0.5
    top: Annotated[float, Le(9)] = 9.0
    under: Annotated[float, Lt(9)] = 8.0
    rate: Positive = 1.0
    weight: NotNegative = 1.0
    epochs: Count | Auto = "auto"
    kind: Literal["wide", "deep"] = "wide"
    steps: Annotated[tuple[int, ...], Predicate(rises), Told("must rise")] = (1, 2)
    names: Annotated[tuple[str, ...], MinLen(1), Told(": name some")] = ("a",)
    flag: bool = False

    def __post_init__(self):
        if self.flag and self.kind == "deep":
            raise BadInput.of(field="part.flag", value=self.flag, rule="does not go with part.kind = deep")


@checked()
class Whole:
    part: Part = field(default_factory=Part)
    parts: dict[str, Part] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"share": 0}, "part.share = 0 is a share: give above 0, to 1"),
        ({"share": float("nan")}, "part.share = NaN is a share: give above 0, to 1"),
        ({"share": "1"}, 'part.share = "1": must be a valid number; give above 0, to 1'),
        ({"share": True}, "part.share = true: must be a valid number; give above 0, to 1"),
        ({"least": 1}, "part.least = 1 must be at least 2"),
        ({"least": 2.0}, "part.least = 2.0: must be a valid integer"),
        ({"least": True}, "part.least = true: must be a valid integer"),
        ({"least": "25M"}, 'part.least = "25M": must be a valid integer'),
        ({"below": 1}, "part.below = 1 must be from 0 to below 1"),
        ({"within": 0}, "part.within = 0 must be above 0, to 1"),
        ({"amid": 0}, "part.amid = 0 must be between 0 and 1"),
        ({"top": 10}, "part.top = 10 must be at most 9"),
        ({"under": 9}, "part.under = 9 must be below 9"),
        ({"rate": 0}, "part.rate = 0 must be above 0"),
        ({"rate": float("inf")}, "part.rate = Infinity: must be a finite number"),
        ({"weight": -0.5}, "part.weight = -0.5 must be at least 0"),
        ({"epochs": 0}, "part.epochs = 0 must be at least 1, or auto"),
        ({"epochs": "aut"}, "part.epochs = \"aut\": must be a valid integer or 'auto'; did you mean auto?"),
        ({"kind": "wid"}, "part.kind = \"wid\": must be 'wide' or 'deep'; did you mean wide?"),
        ({"steps": (2, 1)}, "part.steps = [2, 1] must rise"),
        ({"steps": (1, "x")}, 'part.steps.1 = "x": must be a valid integer'),
        ({"names": ()}, "part.names = []: name some"),
        ({"shar": 1}, "unknown key 'part.shar'; did you mean part.share"),
        ({"flag": True, "kind": "deep"}, "part.flag = true does not go with part.kind = deep"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_about_the_field(wrong, line):
    with pytest.raises(BadInput) as refused:
        Part(**wrong)
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)
    assert refused.value.field == line.split(" = ")[0].removeprefix("unknown key '").partition("'")[0]
    with pytest.raises(BadInput, match="part"):
        replace(Part(), **wrong)


def test_an_error_has_its_parts():
    def parts(**wrong):
        with pytest.raises(BadInput) as refused:
            Part(**wrong)
        error = refused.value
        return error.field, error.value, error.rule, error.choices, error.remedy

    assert parts(share=0) == ("part.share", 0, "is a share", (), "give above 0, to 1")
    assert parts(kind="wid") == ("part.kind", "wid", "must be 'wide' or 'deep'", ("wide", "deep"), "did you mean wide?")
    assert parts(least=1) == ("part.least", 1, "must be at least 2", (), None)
    assert parts(epochs=0) == ("part.epochs", 0, "must be at least 1, or auto", ("auto",), None)
    assert parts(names=()) == ("part.names", (), "name some", (), None)
    assert parts(shar=1)[:3] == ("part.shar", "part.shar", "unknown key") and "part.share" in parts(shar=1)[3]


def test_the_first_of_many_faults_is_told_and_others_of_its_union_are_not():
    with pytest.raises(BadInput, match="^part.least = 1 must be at least 2$"):
        Part(epochs=-1, least=1)


def test_it_is_a_frozen_dataclass():
    part = Part(0.5, least=3, steps=[1, 4])
    assert part == Part(share=0.5, least=3, steps=(1, 4)) and hash(part) == hash(copy.copy(part))
    assert pickle.loads(pickle.dumps(part)) == part
    assert [f.name for f in dataclasses.fields(Part)][:2] == ["share", "least"]
    assert dataclasses.fields(Part)[1].default == 2 and dataclasses.asdict(part)["steps"] == (1, 4)
    assert not hasattr(part, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        part.share = 0.1
    with pytest.raises(TypeError, match="one value each for: share, least"):
        Part(*range(15))
    with pytest.raises(TypeError, match="one value each"):
        Part(0.5, share=0.5)


def test_a_whole_number_becomes_a_float():
    assert type(Part(rate=2).rate) is float


def test_a_part_of_another_kind_is_refused():
    with pytest.raises(BadInput, match="part = 3: must be"):
        Whole(part=3)
    with pytest.raises(BadInput, match="parts.a = 3: must be"):
        Whole(parts={"a": 3})


@pytest.mark.parametrize("config", CONFIGS)
def test_the_configs_are_checked(config):
    """Every field is checked, and its default is itself a valid value."""
    assert config(**{f.name: getattr(config(), f.name) for f in dataclasses.fields(config)}) == config()
    for one in dataclasses.fields(config):
        with pytest.raises(BadInput) as refused:
            config(**{one.name: object()})
        assert refused.value.field.split(".")[-1] == one.name and refused.value.rule
    with pytest.raises(BadInput, match="unknown key '.*nonsense'"):
        config(nonsense=1)


@pytest.mark.parametrize(
    ("config", "wrong", "said"),
    [
        (NetAug, {"share": 0}, ("netaug.share", 0, "must be a part of a step's images", "give above 0, to 1")),
        (NetAug, {"width_factors": [1.0, 1.0]}, ("netaug.width_factors", (1.0, 1.0))),
        (NetAug, {"kernel_more": [0, 1]}, ("netaug.kernel_more", (0, 1), "must rise from 0, like 0, 2")),
        (NetAug, {"augmented": 0}, ("netaug.augmented", 0, "must be at least 1", None)),
        (GradAug, {"resolutions": [0.5, 1.5]}, ("gradaug.resolutions", (0.5, 1.5))),
        (GradAug, {"weight": Linear(1, -1)}, ("gradaug.weight", Linear(1, -1), "reaches -1", "give at least 0")),
        (Noise, {"dropblock_size": 4}, ("noise.dropblock_size", 4)),
        (DataConfig, {"background": "no"}, ("data.background", "no", "is not a colour")),
        (DataConfig, {"val_images": 0}, ("data.val_images", 0, "must be at least 1", None)),
        (SearchConfig, {"headroom": 0.5}, ("search.headroom", 0.5)),
        (View, {"crop": 0.6}, ("crop", 0.6, "is not a share of the image's size", "give 0 (none) to 0.5")),
        (View, {"mixup": 1.0, "cutmix": 1.0}, ("mixup", 1.0)),
        (TeacherConfig, {"macs": 5}, ("teacher.macs", 5.0)),
        (Recipe, {"seed": -1}, ("seed", -1, "must be at least 0", None)),
        (Recipe, {"views": {}}, ("views.train", None, "every method needs it", "add that table")),
        (Training, {"momentum": 1}, ("momentum", 1, "must be from 0 to below 1", None)),
    ],
)
def test_the_errors_of_the_configs_name_their_field(config, wrong, said):
    with pytest.raises(BadInput) as refused:
        config(**wrong)
    error = refused.value
    assert (error.field, error.value, error.rule, error.remedy)[: len(said)] == said


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    """Like a user's own method."""

    size: Count = 1


@checked()
class Holder:
    plain: Plain = field(default_factory=Plain)
    either: Part | int | None = None
    several: tuple[Part, ...] = ()


@pytest.mark.parametrize(
    ("item", "line"),
    [
        ("plain.size=0", "set: plain.size = 0 must be at least 1"),
        ("plain.size=x", 'set: plain.size = "x": must be a valid integer'),
        ("plain.siz=1", "set: unknown key 'plain.siz'; did you mean plain.size? choices: plain.size"),
        ("either.share=0", "set: either.share = 0 is a share: give above 0, to 1"),
        ("several=[{}, {least=1}]", "set: several.1.least = 1 must be at least 2"),
        ("several=[{leas=1}]", "set: unknown key 'several.0.leas'; did you mean several.0.least"),
    ],
)
def test_a_recipes_parts_are_checked_wherever_they_are(item, line):
    with pytest.raises(BadInput) as refused:
        load(None, Holder, [item])
    assert str(refused.value).startswith(line)


def test_python_may_write_a_schedule_as_a_recipe_does():
    assert NetAug(weight=2).weight == Constant(2.0)
    assert View(policy="randaugment", magnitude={"kind": "linear", "start": 9, "end": 0}).magnitude == Linear(9, 0)

"""Errors in a recipe: the message names the full key and where it was set; the exception has the parts."""

import pytest

from nasaug.config.layers import load
from nasaug.core.errors import BadInput
from nasaug.training.recipe import Recipe


def refusal(*sets):
    with pytest.raises(BadInput) as refused:
        load(None, Recipe, sets)
    return refused.value


@pytest.mark.parametrize(
    ("item", "line", "parts"),
    [
        ("netaug.share=0", "set: netaug.share = 0 must be a part of a step's images: give above 0, to 1",
         ("netaug.share", 0, "must be a part of a step's images", (), "give above 0, to 1")),
        ("views.train.crop=9", "set: views.train.crop = 9 is not a share of the image's size: give 0 (none) to 0.5",
         ("views.train.crop", 9, "is not a share of the image's size", (), "give 0 (none) to 0.5")),
        ("views.weak.magnitude=31", "set: [views.weak] magnitude = 31 reaches 31: give 0 to 30",
         ("views.weak.magnitude",)),
        ("method=gradog", "set: method = \"gradog\": must be 'baseline', 'netaug', 'gradaug' or 'qat'; did you",
         ("method", "gradog", "must be 'baseline', 'netaug', 'gradaug' or 'qat'",
          ("baseline", "netaug", "gradaug", "qat"))),
        ("epochs=0", "set: epochs = 0 must be at least 1, or auto", ("epochs", 0)),
        ("search.finalist_macs=-1", "set: search.finalist_macs = -1 must be at least 0, or auto",
         ("search.finalist_macs", -1)),
        ("lr=nan", "set: lr = NaN: must be a finite number", ("lr",)),
        ("netaug.augmented=0", "set: netaug.augmented = 0 must be at least 1", ("netaug.augmented", 0)),
        ("netaug.wide_view=strong", "set: netaug.wide_view = strong is not a view of the recipe; choices: train; or "
         "add [views.strong] beside [views.train]", ("netaug.wide_view", "strong")),
        ("difficulty.policy=keep", "set: difficulty.policy = keep needs a teacher: give teacher.source",
         ("difficulty.policy", "keep", "needs a teacher")),
        ("views.train.cropp=1", "set: unknown key 'views.train.cropp'; did you mean views.train.crop",
         ("views.train.cropp", "views.train.cropp", "unknown key")),
        ("transforms.thin.rotat=1", "set: unknown key 'transforms.thin.rotat'; did you mean transforms.thin.rotate",
         ("transforms.thin.rotat",)),
        ("netaug.weight.kind=linaer", "set: [netaug.weight] unknown kind of schedule 'linaer'",
         ("netaug.weight.kind", "linaer")),
        ("netaug.weight={kind='steps',at=[2],values=[1,0]}", "set: [netaug.weight] at must ascend between 0 and 1",
         ("netaug.weight.at", [2.0], "must ascend between 0 and 1")),
        ("netaug.weight=x", 'set: netaug.weight = "x": a schedule must be a number', ("netaug.weight", "x")),
        ("data.background=no", "set: data.background = no is not a colour: give white", ("data.background", "no")),
        ("a\udce9=1", r"set: unknown key 'a\udce9'; ", ("a\udce9",)),
        ("data.nam\udce9=1", r"set: unknown key 'data.nam\udce9'; did you mean data.name", ("data.nam\udce9",)),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_its_key_and_its_parts(item, line, parts):
    error = refusal(item)
    assert str(error).startswith(line) and "\n" not in str(error)
    assert (error.field, error.value, error.rule, error.choices, error.remedy)[: len(parts)] == parts


def test_unknown_names_of_recipes_and_arms_are_about_an_argument():
    with pytest.raises(BadInput) as refused:
        load("smal", Recipe)
    assert (refused.value.field, refused.value.value) == ("recipe", "smal") and "small" in refused.value.choices
    with pytest.raises(BadInput) as refused:
        load(None, Recipe, (), ["mixpu"])
    assert (refused.value.field, refused.value.value) == ("method", "mixpu")


def test_a_private_sign_in_a_text_stays_what_it_is():
    """Private-use characters stand in for bytes that are not UTF-8 while pydantic reads the recipe."""
    assert load(None, Recipe, ["arm=a\U0010d800"]).arm == "a\U0010d800"
    assert load(None, Recipe, ["arm=a\ud800"]).arm == "a\ud800"

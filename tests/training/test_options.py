"""Options: what Python callers write becomes what the command line would say."""

from pathlib import Path

import pytest

from nasaug.core.errors import BadInput
from nasaug.training.options import Options


def test_a_mapping_of_recipe_keys_is_what_set_would_say():
    given = {"epochs": 2, "netaug": {"share": 0.5, "kinds": ["width"]}, "views.train.flip": False}
    options = Options.of(Path("photos"), None, given, 3, "cpu", "r", False)
    assert options.set == ("epochs=2", "netaug.share=0.5", 'netaug.kinds=["width"]', "views.train.flip=false")
    assert (options.data, options.seed, options.run) == ("photos", 3, Path("r"))
    recipe = Options.of("digits", None, given, 3, "cpu", None, False).settings({}, arm="netaug")
    assert (recipe.epochs, recipe.netaug.share, recipe.netaug.kinds, recipe.seed) == (2, 0.5, ("width",), 3)
    assert recipe.views["train"].flip is False and recipe.data.name == "digits"


@pytest.mark.parametrize(
    ("given", "field"), [({"netaug": {"share": 0}}, "netaug.share"), ({"epoch": 2}, "epoch"), (["lr"], None)]
)
def test_a_wrong_key_or_value_is_refused_by_its_name(given, field):
    with pytest.raises(BadInput) as refused:
        Options.of("digits", None, given, None, "cpu", None, False).settings({}, arm="netaug")
    assert field is None or refused.value.field == field


def given_as(set):
    return Options.of("digits", None, set, None, "cpu", None, False).set


def test_paths_and_a_single_item_are_taken_as_they_are_meant():
    assert given_as({"teacher": {"source": Path("runs/train-1")}}) == ('teacher.source="runs/train-1"',)
    assert given_as("epochs=2") == ("epochs=2",) and given_as(["epochs=2"]) == ("epochs=2",)


@pytest.mark.parametrize(
    ("set", "told"),
    [({"epochs": None}, "set epochs: a value is None; leave the key out"),
     ({"netaug": {"share": None}}, "set netaug.share: a value is None; leave the key out"),
     ({"epochs": object}, "epochs = .* is of type type: give a number, a text")],
)  # fmt: skip
def test_what_no_recipe_can_have_is_refused(set, told):
    with pytest.raises(BadInput, match=told) as refused:
        given_as(set)
    assert refused.value.field == ("netaug.share" if "netaug" in set else "epochs") and refused.value.rule


def test_an_error_of_a_key_that_an_argument_sets_is_about_the_argument():
    options = Options.of("digits", None, (), None, "cpu", None, False)
    with pytest.raises(BadInput) as refused:
        options.settings({"netaug.aug_compute": -1}, arm="netaug")
    error = refused.value
    assert (error.field, error.value, error.rule) == ("aug_compute", -1, "must be at least 0")
    assert str(error) == "aug_compute = -1 must be at least 0"
    with pytest.raises(BadInput) as refused:  # its own key in `set` stays a key
        Options.of("digits", None, {"netaug": {"aug_compute": -1}}, None, "cpu", None, False).settings({}, arm="netaug")
    assert refused.value.field == "netaug.aug_compute"


def test_the_commands_to_go_on_with_keep_the_recipe_and_all_keys_but_those_of_the_search():
    said = Options(recipe="mine.toml", set=("epochs=2", " search.trials=4", "space=mine.toml"), on_bad_image="skip")
    kept = ("epochs=2", "space=mine.toml", 'data.on_bad_image="skip"')
    assert said.onward == ("--recipe", "mine.toml", *(word for item in kept for word in ("--set", item)))
    assert Options(data="photos", seed=3).onward == ()

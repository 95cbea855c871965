"""Options: what Python callers write becomes what the command line would say."""

from pathlib import Path

import pytest

from nasaug.core.errors import BadInput
from nasaug.training.options import Options


def test_a_mapping_of_recipe_keys_is_what_set_would_say():
    given = {"epochs": 2, "netaug": {"share": 0.5, "kinds": ["width"]}, "views.train.flip": False, "bf16": None}
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

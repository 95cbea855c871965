"""What a search says beforehand of a supernet that is trained too briefly to choose."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from nasaug.arch.plan import plan
from nasaug.core.errors import arg
from nasaug.nas.stages import _doubt
from support.searches import SPACE, search_of

IMAGES = 1000


def told(tmp_path, supernet, own, **options):
    """Of a supernet trained for so many epochs, where the net found will be trained for `own`."""
    search = search_of(tmp_path / "study")
    search.config = replace(search.config, **options)
    trainer = SimpleNamespace(plan=plan(SPACE, SPACE.largest, 10), length=SimpleNamespace(epochs=supernet))
    play = SimpleNamespace(own_macs=lambda macs: own * IMAGES * macs, data=SimpleNamespace(train=range(IMAGES)))
    return _doubt(trainer, search, play)


def test_a_supernet_of_few_epochs_is_doubted_and_halving_recommended(tmp_path):
    assert told(tmp_path, 8.0, 30.0) == (
        "after 8 epochs a supernet cannot tell which of similar nets will be best after 30 "
        f"(docs/explanation/ranking.md); NetAug needs it, for plain training {arg.strategy} halving is as good"
    )


@pytest.mark.parametrize(
    ("supernet", "own", "options"),
    [(15.0, 30.0, {}), (8.0, math.inf, {}), (8.0, 30.0, {"objectives": ("accuracy", "macs")})],
)
def test_it_is_not_where_it_is_trained_for_long_or_nothing_is_known(tmp_path, supernet, own, options):
    assert told(tmp_path, supernet, own, **options) == ""

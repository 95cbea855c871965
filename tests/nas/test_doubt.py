"""What a search says beforehand of a supernet that is trained too briefly to choose."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from nasaug.arch.plan import plan
from nasaug.core.errors import arg
from nasaug.nas.stages import MEASURED, _doubt
from support.pages import ROOT
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
        "after 8 epochs a supernet tells little of which of similar nets will be best after 30: "
        f"{MEASURED}; to do without a supernet: {arg.strategy} halving {arg.set} search.shapes=0"
    )


def test_what_it_says_of_halving_is_on_the_page_that_it_names():
    (path,) = re.findall(r"docs/results/\w+\.md", MEASURED)
    with_one, without = re.findall(r"[\d.]+ ± [\d.]+", MEASURED)
    cells = [line.split("|") for line in (ROOT / path).read_text().splitlines() if "±" in line]
    rows = {name.strip(): validation for _, name, validation, *_ in cells}

    def rounded(cell):
        value, interval = re.findall(r"[\d.]+", cell)[:2]
        return f"{float(value):.1f} ± {float(interval):.1f}"

    assert (with_one, without) == (rounded(rows["`search`"]), rounded(rows["(c) successive halving"]))


@pytest.mark.parametrize(
    ("supernet", "own", "options"),
    [(15.0, 30.0, {}), (8.0, math.inf, {}), (8.0, 30.0, {"objectives": ("accuracy", "macs")})],
)
def test_it_is_not_where_it_is_trained_for_long_or_nothing_is_known(tmp_path, supernet, own, options):
    assert told(tmp_path, supernet, own, **options) == ""

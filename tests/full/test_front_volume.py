"""Searches of several objectives: samplers that learn widen the front more than random draws."""

import math
from dataclasses import replace

import pytest

from support.searches import MEDIUM, run, search_of


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "tpe+predictor"])
def test_samplers_that_learn_widen_the_front(tmp_path, sampler):
    """The area beyond a point that all reach, of log MACs and score, over three seeds."""

    def area(sampler, seed):
        search = search_of(tmp_path / f"{sampler}{seed}", sampler=sampler, trials=60, seed=seed)
        search.config = replace(search.config, objectives=("accuracy", "macs"))
        front = search.front(run(search))
        edges = [*(math.log(c.cost.macs) for c in front), math.log(MEDIUM.macs)]
        return sum((c.score - 50) * (right - left) for c, left, right in zip(front, edges, edges[1:], strict=False))

    learned, drawn = (sum(area(kind, seed) for seed in range(3)) for kind in (sampler, "random"))
    assert learned > drawn

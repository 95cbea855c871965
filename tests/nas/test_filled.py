"""Finalists whose choices are raised until the budget is full."""

from dataclasses import replace

import pytest

from nasaug.arch.cost import Budget, cost_of, neighbours
from nasaug.arch.plan import plan
from nasaug.training.scoring import Judged
from support.searches import IMAGES, MEDIUM, RESOLUTION, SPACE, run, search_of

VAL = range(IMAGES + 1)
WIDTH = SPACE.index["s1.width"]


def finished(storage, filled=True, **options):
    search = search_of(storage, **options)
    search.config = replace(search.config, filled=filled)
    ranked = run(search)
    return search, search.finalists(ranked, VAL)


def larger(arch, budget):
    """Networks of the same resolution that are one rung above, and within the budget."""
    least = cost_of(SPACE, arch, 10).macs
    costs = {each: cost_of(SPACE, each, 10) for each in neighbours(SPACE, arch)}
    return {
        plan(SPACE, each, 10) for each, c in costs.items()
        if c.macs > least and budget.holds(c) and each.values[RESOLUTION] == arch.values[RESOLUTION]
    }  # fmt: skip


@pytest.mark.parametrize("budget", [MEDIUM, Budget(macs=300_000), Budget(flash=3000), Budget(macs=150_000, peak=1500)])
@pytest.mark.parametrize("seed", range(2))
def test_filled_finalists_are_as_large_as_the_budget_allows(tmp_path, budget, seed):
    search, finalists = finished(tmp_path / "study", budget=budget, seed=seed)
    filled = search.filled(finalists, VAL)
    assert len(filled) == len(finalists)
    nets = {plan(SPACE, c.arch, 10) for c in filled}
    assert len(nets) == len(filled)
    taken = nets | {plan(SPACE, c.arch, 10) for c in finalists}
    for before, c in zip(finalists, filled, strict=True):
        assert c.arch.values[RESOLUTION] == before.arch.values[RESOLUTION]
        assert budget.holds(c.cost) and c.cost == cost_of(SPACE, c.arch, 10) and c.cost.macs >= before.cost.macs
        assert larger(c.arch, budget) <= taken
    assert search.filled(finalists, VAL) == filled  # a resumed run has the same


def test_a_finalist_that_was_raised_is_judged_anew(tmp_path):
    search, finalists = finished(tmp_path / "study")
    search.judged.clear()
    filled = search.filled(finalists, VAL)
    raised = [c for before, c in zip(finalists, filled, strict=True) if c.arch != before.arch]
    assert raised and {c.arch for c in raised} <= set(search.judged)
    assert all(c.full_score == search._judge(c.arch, VAL).score for c in filled)
    assert all(c is before for before, c in zip(finalists, filled, strict=True) if c.arch == before.arch)


@pytest.mark.parametrize("favoured", [WIDTH, SPACE.index["s1.b1.expand"]])
def test_the_choice_that_the_scores_favour_is_raised_first(tmp_path, favoured):
    search, _ = finished(tmp_path / "study", trials=60)
    search.scores = {
        arch: Judged(50.0 + 10 * SPACE.axes[favoured].choices.index(arch.values[favoured]), 1.0)
        for arch in search.scores
    }
    low = SPACE.trimmed({"resolution": (8,), "s1.depth": (1,)}).smallest
    raised = search.filled([search.undecided(low)], VAL)[0].arch
    # as high as it would be with this choice alone
    best = 0
    for rung, value in enumerate(SPACE.axes[favoured].choices):
        values = list(low.values)
        values[favoured] = value
        alone = low._replace(values=tuple(values))
        if MEDIUM.holds(cost_of(SPACE, alone, 10)):
            best = rung
    assert best > 0
    assert SPACE.axes[favoured].choices.index(raised.values[favoured]) == best


@pytest.mark.parametrize("options", [{"filled": False}, {"budget": Budget()}])
def test_they_stay_as_they_are(tmp_path, options):
    search, finalists = finished(tmp_path / "study", **options)
    assert search.filled(finalists, VAL) == finalists


def test_with_several_objectives_they_stay_as_they_are(tmp_path):
    search = search_of(tmp_path / "study")
    search.config = replace(search.config, filled=True, objectives=("accuracy", "macs"))
    finalists = search.finalists(run(search), VAL)
    assert search.filled(finalists, VAL) == finalists


def test_what_is_drawn_without_a_supernet_is_filled_too(tmp_path):
    search = search_of(tmp_path / "study")
    plain = search.drawn(4)
    search.config = replace(search.config, filled=True)
    filled = search.drawn(4)
    assert len({plan(SPACE, c.arch, 10) for c in filled}) == len(filled) == len(plain)
    assert [c.arch for c in filled] == [c.arch for c in search.drawn(4)]
    assert sum(c.cost.macs for c in filled) > sum(c.cost.macs for c in plain)
    assert all(search.budget.holds(c.cost) and c.score is None for c in filled)
    taken = {plan(SPACE, c.arch, 10) for c in (*plain, *filled)}
    assert all(larger(c.arch, MEDIUM) <= taken for c in filled)

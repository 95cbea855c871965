"""Several objectives at once: fronts, their knee, the study, which finalists go on, and which net is picked."""

from dataclasses import replace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.arch.binding import bounds
from nasaug.arch.cost import Budget, Cost, Reach, cost_of, reach
from nasaug.arch.space import Arch
from nasaug.core.errors import BadInput
from nasaug.core.metric import WORST
from nasaug.nas.candidates import Candidate
from nasaug.nas.finalists import FRONT, PlayOff
from nasaug.nas.front import knee, spread, unbeaten
from nasaug.nas.ranges import report_reach
from nasaug.nas.results import panels_of, plot_search
from nasaug.nas.stages import _check_known
from nasaug.pool.storage import open_storage
from nasaug.rundirs.folder import RunDir
from nasaug.training.recipe import Recipe, SearchConfig
from nasaug.training.scoring import Judged
from support.searches import MEDIUM, RESOLUTION, SPACE, run, search_of
from support.toys import CPU, toy_data

THREE = ("accuracy", "macs", "sram")


def itself(point):
    return point


def beats(one, two):
    return one != two and all(a <= b for a, b in zip(one, two, strict=True))


points = st.lists(st.tuples(*[st.integers(0, 5)] * 3), max_size=30)


@given(points)
@settings(max_examples=200)
def test_the_front_of_three_objectives_is_all_that_no_other_beats(those):
    front = unbeaten(those, itself)
    assert sorted(front) == sorted({p for p in those if not any(beats(q, p) for q in those)})


@given(points)
def test_in_the_order_of_spread_no_net_comes_after_one_that_it_beats(those):
    order = spread(those, itself)
    assert sorted(order) == sorted(those)
    assert not any(beats(later, earlier) for i, earlier in enumerate(order) for later in order[i:])


def test_a_front_is_spread_from_its_best_end_to_the_other_and_then_into_the_widest_gap():
    front = [(x, 10 - x) for x in (0, 1, 2, 5, 8, 9, 10)]
    assert spread(front, itself)[:3] == [(10, 0), (0, 10), (5, 5)]
    assert spread([*front, (6, 6)], itself)[-1] == (6, 6)  # beaten by (5, 5)


@pytest.mark.parametrize(
    ("front", "chosen"),
    [
        ([(0, 10), (1, 4), (5, 2), (10, 0)], (1, 4)),  # 0.35 from the line between the ends, the other 0.21
        ([(0, 100), (1, 99), (1000, 0)], (1, 99)),  # 0.006 from the line, on the side of better nets
        ([(0, 100), (99, 99), (100, 0)], (100, 0)),  # on the other side
        ([(0, 10), (10, 0)], (10, 0)), ([(3, 3)], (3, 3)),
        ([(0, 9, 9), (9, 0, 9), (9, 9, 0), (3, 3, 3)], (3, 3, 3)),
    ],
)  # fmt: skip
def test_the_knee_is_farthest_from_the_line_between_the_ends(front, chosen):
    assert knee(front, itself) == chosen


def several(search, objectives=THREE, **keys):
    search.config = replace(search.config, objectives=objectives, **keys)
    return search


@pytest.mark.parametrize("sampler", ["nsga2", "tpe+predictor"])
def test_a_study_of_three_objectives_resumes_exactly_and_keeps_to_the_budgets(tmp_path, sampler):
    budget = Budget(macs=150_000, params=3_000)
    whole, parts = (several(search_of(tmp_path / name, sampler=sampler, budget=budget, trials=26)) for name in "ab")
    ranked = run(whole)
    parts.config = replace(parts.config, trials=22)
    run(parts)
    parts = several(search_of(tmp_path / "b", sampler=sampler, budget=budget, trials=26))
    assert [c.arch for c in run(parts)] == [c.arch for c in ranked] and len(parts.judged) == 4
    study = optuna.load_study(storage=open_storage(whole.storage), study_name="nasaug")
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    for trial in study.trials:
        spent = cost_of(SPACE, whole._arch(trial.params), 10)
        assert trial.values[1:] == [spent.macs, spent.peak]
        assert (trial.values[0] > 0) == budget.holds(spent)
    assert [c.score for c in ranked] == sorted((c.score for c in ranked), reverse=True)


def finalists_of(*rows):
    """Candidates from (MACs, rank, rounds)."""
    return [Candidate(Arch("s", (i,)), Cost(macs, macs, 10 - i, 1), -rank, 1.0, -rank, rounds=rounds, rank=rank)
            for i, (macs, rank, rounds) in enumerate(rows)]  # fmt: skip


def test_the_rules_choose_among_the_front_of_the_last_round(tmp_path):
    search = several(search_of(tmp_path / "study"), THREE[:2])
    nets = finalists_of((800, -9.0, 2), (200, -8.0, 2), (100, -1.0, 2), (300, -7.0, 2), (10, -9.9, 1))
    assert [c.cost.macs for c in search.front(nets)] == [100, 200, 800]
    chosen = {}
    for rule in ("best", "knee", "min-macs", "min-sram"):
        search.config = replace(search.config, pick=rule)
        first, *rest = search.picked(nets)
        chosen[rule] = first.cost.macs
        assert rest == [c for c in nets if c is not first]
    assert chosen == {"best": 800, "knee": 200, "min-macs": 100, "min-sram": 100}
    lost = [replace(c, trained_score=search.metric.worst) for c in nets]
    assert search.picked(lost) == lost  # all diverged: nothing to choose from


def test_finalists_are_spread_along_the_front_at_each_resolution(tmp_path, monkeypatch):
    search = several(search_of(tmp_path / "study", trials=40))
    ranked = run(search)
    monkeypatch.setattr(search, "_judge", lambda arch, split: Judged(search.scores[arch].score, 1.0))
    chosen = search.finalists(ranked, range(10**6))
    fronts = {
        px: {c.arch for c in search.front([c for c in ranked if c.arch.values[RESOLUTION] == px])} for px in (8, 12, 16)
    }
    assert [sum(c.arch in front for c in chosen) for front in fronts.values()] == [2, 1, 1]
    assert max(c.cost.macs for c in chosen) > 2 * min(c.cost.macs for c in chosen)


def test_enough_nets_have_all_rounds_for_a_front_with_trained_figures(tmp_path):
    config = SearchConfig(rounds=4, finalist_macs=1e12, objectives=THREE)
    search = several(search_of(tmp_path / "study"))
    last = PlayOff(Recipe(search=config, batch=16), toy_data(train=96), CPU, search, None, 1e12)
    assert last.sizes([100] * 24) == [24, 12, FRONT] and last.sizes([100] * 5) == [5]
    assert last._counted([24, 12, 6]) == "24 finalists, then 12 and 6 along the front"
    assert replace(last, word="shape").sizes([100] * 24) == [24, 12, 6, 3]


def test_the_smallest_net_does_not_go_on_where_its_training_diverged(tmp_path, monkeypatch):
    config = SearchConfig(rounds=2, finalist_macs=1e12, objectives=THREE, by="loss", pick="min-macs")
    search = several(search_of(tmp_path / "study", trials=9), by="loss", pick="min-macs")
    given = sorted(run(search), key=lambda c: c.cost.macs)
    last = PlayOff(Recipe(search=config, batch=16), toy_data(train=96), CPU, search, None, 1e12)
    rounds = []

    def train(self, c, *_):
        rounds.append(c.arch)
        return Judged(0.0, WORST) if c.arch == given[0].arch else Judged(70.0, 3.0 - c.cost.macs / 1e6)

    monkeypatch.setattr(PlayOff, "_train", train)
    with RunDir.create("search", last.recipe, tmp_path / "run") as folder:
        decided = last.decide(given, folder)
    assert {c.arch: rounds.count(c.arch) for c in decided} == {c.arch: c.rounds for c in decided}
    assert sum(c.rounds == 2 for c in decided) == FRONT and decided[-1].arch == given[0].arch
    assert decided[0].cost.macs == min(c.cost.macs for c in decided if c.rounds == 2)


def test_pairs_of_three_objectives_are_drawn(tmp_path):
    search = several(search_of(tmp_path / "study", trials=8))
    ranked = run(search)
    trained = [replace(c, trained_score=80.0, rounds=1, epochs=3.0) for c in ranked[:3]]
    drawn = panels_of(search, ranked, trained, Budget(macs=150_000, peak=2048))
    said = [(panel.ylabel.partition(",")[0], panel.x.plain, panel.limit) for panel in drawn["scored"]]
    assert said == [("validation top-1 (%)", "MACs (millions)", 0.15), ("validation top-1 (%)", "peak SRAM (KB)", 2),
                    ("MACs (millions)", "peak SRAM (KB)", 2)]  # fmt: skip
    assert [len(panel.front) for panel in drawn["scored"]] == [len(search.front(ranked))] * 3
    plot_search(tmp_path / "pareto.png", drawn)
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")


# --- before a search --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [("macs",), ("accuracy", "macs", "macs"), ()])
def test_objectives_are_accuracy_and_costs_each_once(named):
    with pytest.raises(BadInput, match="search.objectives.*must have accuracy, and each objective once"):
        SearchConfig(objectives=named)


def test_an_objective_that_is_not_known_for_the_nets_is_refused_with_the_remedy():
    recipe, smallest = Recipe(search=SearchConfig(objectives=THREE, pick="min-flash")), Cost(1, 1, 1, 1)
    _check_known(recipe, smallest)
    with pytest.raises(BadInput, match="^objectives = sram needs the peak SRAM of networks: give device_table"):
        _check_known(recipe, smallest._replace(peak=None))
    with pytest.raises(BadInput, match="^pick = min-flash needs the flash of networks: give device_table"):
        _check_known(recipe, smallest._replace(flash=None))


def test_what_each_of_several_budgets_leaves_out_and_which_one_binds():
    able = Reach(Cost(1, 1, 1, 1), Cost(1, 1, 1, 1), Cost(9, 9, 9999, 9), feasible=0.1, samples=100)
    assert bounds(SPACE, MEDIUM, 10) == ()
    tight = Budget(macs=10**9, peak=1500)
    macs, peak = bounds(SPACE, tight, 10, samples=100)
    assert (macs.key, macs.over, macs.alone) == ("macs", 0, 0) and macs.used < 0.01
    assert peak.key == "peak" and peak.over == peak.alone > 0.5 and 0.7 < peak.used <= 1
    said = report_reach(able, tight, (macs, peak)).splitlines()[4:]
    assert said[0].startswith("  left out: 0 % by MACs (0 % by that alone), ") and "% by peak SRAM (" in said[0]
    assert said[1].startswith("  binding: peak SRAM; the largest nets within all budgets use ")
    both = bounds(SPACE, Budget(macs=150_000, params=3_000), 10, samples=100)
    shared = 1 - reach(SPACE, Budget(macs=150_000, params=3_000), 10, samples=100).feasible - sum(b.alone for b in both)
    assert all(b.over == pytest.approx(b.alone + shared) for b in both)
    loose = Budget(macs=10**9, params=10**9)
    assert "binding: none;" in report_reach(able, loose, bounds(SPACE, loose, 10, samples=10))

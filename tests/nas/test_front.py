"""Results of a search: finalists, shares by resolution, and the Pareto front."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.arch.cost import Budget, Cost, cost_of, reach
from nasaug.arch.plan import plan
from nasaug.arch.space import Arch
from nasaug.core.errors import written
from nasaug.nas.candidates import Candidate, pareto
from nasaug.nas.ranges import report_reach
from nasaug.nas.results import panels_of, plot_search
from nasaug.nas.study import Search
from nasaug.nets.net import Net
from nasaug.reporting.pictures import CLOSEST, widened
from nasaug.tasks import Classify
from nasaug.training.recipe import SearchConfig
from nasaug.training.scoring import Judged
from support.searches import MEDIUM, RESOLUTION, SAMPLERS, SPACE, recorded, run, search_of
from support.spaces import SPACES
from support.toys import scorer_of, toy_data


def test_ties_are_ranked_by_macs_and_finalists_by_the_whole_validation_split(tmp_path, monkeypatch):
    search, whole = search_of(tmp_path / "study", trials=12), range(10**15)
    monkeypatch.setattr(search, "_judge", lambda arch, split: Judged(70.0, 1.0))
    ranked = run(search)
    macs = [c.cost.macs for c in ranked]
    assert macs == sorted(macs) and {c.full_score for c in ranked} == {None}
    monkeypatch.setattr(search, "_judge", lambda arch, split: Judged(search._cost(arch).macs * (split is whole), 1.0))
    monkeypatch.setattr(Classify, "standard_error", lambda self, score, images: 0.0)
    best = search.finalists(ranked, whole)
    assert [c.full_score for c in best] == sorted((c.cost.macs for c in best), reverse=True)
    of = {r: [c.cost.macs for c in ranked if c.arch.values[RESOLUTION] == r] for r in (8, 12, 16)}
    assert len(best) == 4 and {max(row) for row in of.values()} <= {c.full_score for c in best}  # all tie


def fake_candidates(*rows):
    """Candidates from (resolution, MACs, score) rows; the first value of each arch is its index."""
    values = [(i, *[0] * (RESOLUTION - 1), px) for i, (px, _, _) in enumerate(rows)]
    return [Candidate(Arch("s", v), Cost(macs, 1, 1, 1), s) for v, (_, macs, s) in zip(values, rows, strict=True)]


def test_found_is_the_largest_of_the_finalists_that_tie_with_the_best(tmp_path, monkeypatch):
    search, whole = search_of(tmp_path / "study", trials=12), range(5000)
    search.images = range(1000)  # a standard error of 1.14 points at 85 %, and of 0.50 on the whole split
    ranked = fake_candidates(
        (8, 40, 85.0), (8, 30, 84.9), (8, 10, 84.5), (8, 60, 84.0), (8, 50, 83.9), (8, 90, 83.8)
    )
    full = {0: 84.6, 1: 85.0, 2: 84.55, 3: 84.4, 4: 99.0, 5: 99.0}
    monkeypatch.setattr(search, "_judge", lambda arch, split: Judged(full[arch.values[0]], 1.0))
    names = [c.arch.values[0] for c in search.finalists(ranked, whole)]
    assert names == [0, 1, 2, 3]  # 3 is larger, but too far from the best, as was 5; 2 is smaller
    search.config = replace(search.config, finalists=1)
    assert [c.arch.values[0] for c in search.finalists(ranked, whole)] == [3]  # the largest that ties with the best


def test_finalists_come_from_each_resolution(tmp_path, monkeypatch):
    search = search_of(tmp_path / "study")
    search.images = range(1000)
    ranked = fake_candidates(
        (12, 40, 85.0), (12, 50, 84.5), (12, 10, 84.4), (8, 20, 80.0), (16, 30, 70.0), (16, 9, 69.9)
    )
    monkeypatch.setattr(search, "_judge", lambda arch, split: Judged(100.0 - arch.values[0], 1.0))
    for count, names in {3: [1, 3, 4], 4: [0, 1, 3, 4], 5: [0, 1, 3, 4, 5], 6: [0, 1, 2, 3, 4, 5]}.items():
        search.config = replace(search.config, finalists=count)
        assert sorted(c.arch.values[0] for c in search.finalists(ranked, range(10**15))) == names


def test_of_the_better_half_those_that_differ_most_become_finalists(tmp_path, monkeypatch):
    search = search_of(tmp_path / "study")
    search.images = range(10**15)
    monkeypatch.setattr(search, "_judge", lambda arch, split: Judged(50.0, 1.0))
    near = [(0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 1, 0), *((i, i, i, i) for i in range(2, 6))]  # the best first
    ranked = [
        Candidate(Arch("s", (*v, *[0] * (RESOLUTION - 4), 8)), Cost(9, 1, 1, 1), 90.0 - i, loss=float(i), rank=float(i))
        for i, v in enumerate(near)
    ]  # fmt: skip
    for count, names in {2: [0, 3], 3: [0, 2, 3], 4: [0, 1, 2, 3], 5: [0, 1, 2, 3, 4], 7: [*range(7)]}.items():
        search.config = replace(search.config, finalists=count)
        assert sorted(near.index(c.arch.values[:4]) for c in search.finalists(ranked, range(10**15))) == names


def test_of_one_finalist_it_is_the_supernets_choice_not_the_one_that_is_always_there(tmp_path, monkeypatch):
    search = search_of(tmp_path / "study")
    ranked = fake_candidates((8, 40, 85.0), (8, 30, 60.0))
    search.images, search.always = range(1000), (ranked[1].arch,)
    monkeypatch.setattr(search, "_judge", lambda arch, split: Judged(85.0 - arch.values[0], 1.0))
    for count, names in {1: [0], 2: [0, 1]}.items():
        search.config = replace(search.config, finalists=count)
        assert [c.arch.values[0] for c in search.finalists(ranked, range(5000))] == names


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_resolution_has_its_share_of_the_candidates(tmp_path, sampler):
    """Even though scores fall with the resolution; a resolution with no net within the budget gets none."""
    search = search_of(tmp_path / "study", sampler=sampler, trials=60)
    run(search)
    of = {r: sum(arch.values[RESOLUTION] == r for arch in search.judged) for r in (8, 12, 16)}
    assert min(of.values()) >= 10
    rows = [params["resolution"] for _, params, _, _ in recorded(search)]
    assert all(sorted(rows[i : i + 3]) == [0, 1, 2] for i in range(0, len(rows) - 2, 3))
    least = cost_of(SPACE, SPACE.trimmed({"resolution": (12,)}).smallest, 10).macs
    small = search_of(tmp_path / "small", sampler=sampler, trials=20, budget=Budget(macs=least))
    run(small)
    assert {arch.values[RESOLUTION] for arch in small.judged} == {8, 12}


def test_the_standard_error_is_the_binomials():
    task = Classify(4)
    assert task.standard_error(80.0, 100) == pytest.approx(4.0)
    assert task.standard_error(100.0, 10) == task.standard_error(0.0, 10) == 0


def candidates(pairs):
    return [Candidate(Arch("s", (i,)), Cost(macs, 1, 1, 1), top1) for i, (macs, top1) in enumerate(pairs)]


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8))))
@settings(max_examples=200)
def test_the_front_is_every_candidate_that_no_other_beats(pairs):
    front = [(c.cost.macs, c.score) for c in pareto(candidates(pairs), Classify.metric)]
    unbeaten = {
        (m, t) for m, t in pairs if not any((n <= m and u > t) or (n < m and u >= t) for n, u in pairs)
    }
    assert front == sorted(unbeaten)


def test_a_tie_is_on_the_front_once_at_the_fewest_macs():
    front = pareto(candidates([(5, 60.0), (3, 60.0), (3, 60.0), (3, 50.0), (9, 61.0), (1, 20.0)]), Classify.metric)
    assert [c.arch.values for c in front] == [(5,), (1,), (4,)]
    assert pareto([], Classify.metric) == []


def test_the_front_as_a_picture(tmp_path):
    shown, search = candidates([(10**6, 60.0), (2 * 10**6, 70.0)]), search_of(tmp_path / "study")
    trained = [replace(c, trained_score=80.0 - i, rounds=2 - i, epochs=3.0) for i, c in enumerate(shown)]
    drawn = panels_of(search, shown, trained, Budget(macs=10**6))
    assert {name: [len(panel.front) for panel in row] for name, row in drawn.items()} == {"trained": [0], "scored": [2]}
    plot_search(tmp_path / "pareto.png", drawn)
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["pareto.png"]
    plot_search(tmp_path / "nothing.png", panels_of(search, [], shown, Budget()))  # neither scored nor trained
    assert not (tmp_path / "nothing.png").exists()


def test_what_the_space_can_do_in_words():
    text = report_reach(reach(SPACE, MEDIUM, 10, samples=100), MEDIUM)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["smallest", "middle", "largest"]
    assert "% of 100 uniform samples" in lines[3] and "MACs <= 150k" in lines[3]
    *same, last = report_reach(reach(SPACE, Budget(), 10, samples=100), Budget()).splitlines()
    assert same == lines[:3] and last.startswith("  no budget is given,") and "give mac_budget …" in written(last)


def test_a_candidate_is_judged_as_the_narrowed_and_calibrated_net(tmp_path):
    data = toy_data(train=64, val=50)
    space = SPACES["squeeze"]
    net, scorer = Net(plan(space, space.largest, 4), seed=1).train(), scorer_of(data)
    config = SearchConfig(trials=4, sampler="random", finalists=2)
    images = data.val.take(30, 0)
    search = Search(space, Budget(), config, scorer, images, f"journal:{tmp_path}/study", net=net)
    ranked = run(search)
    for c in ranked:
        small = net.narrow(plan(space, c.arch, 4))
        small.calibrate([x for x, _ in scorer.batches(scorer.calibration, small.plan.resolution)]).eval()
        assert c.score == scorer.score(small, images)
    assert len({c.score for c in ranked}) > 1
    for c in search.finalists(ranked, data.val):
        assert c.full_score == scorer.score(scorer.calibrated(net, plan(space, c.arch, 4)), data.val)


def test_a_costs_axis_spans_enough_for_nets_of_nearly_one_cost():
    low, high = widened(0.994, 1.0)
    assert high / low == pytest.approx(CLOSEST) and low < 0.994 and high > 1.0
    assert widened(0.2, 1.0) == (0.2, 1.0)

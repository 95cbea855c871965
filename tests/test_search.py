"""The search: budgets, caching, samplers, resuming exactly, and the front; most of it on made-up scores."""

import time
from dataclasses import replace
from types import SimpleNamespace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scoring import scorer_of, toy_data
from test_space import SPACES, made, stage

from nasaug.arch.cost import Budget, Cost, cost_of, reach
from nasaug.arch.plan import plan
from nasaug.arch.space import Arch
from nasaug.core.errors import BadInput
from nasaug.core.signals import Pending, Stopped
from nasaug.nas.study import (
    ASKS,
    STALE,
    STARTUP,
    Candidate,
    Search,
    macs_range,
    pareto,
    plot_pareto,
    report_reach,
)
from nasaug.nets.net import Net
from nasaug.pool.storage import check_storage, open_storage
from nasaug.tasks import Classify
from nasaug.training.recipe import SearchConfig

SPACE = made({
    "name": "seven axes",
    "resolution": [8, 12, 16],
    "stage": [
        stage("stem", "conv", width=[8, 16, 24], kernel=[3, 5], stride=2, act="relu"),
        stage("s1", "inverted", width=[8, 16, 24, 32], depth=[1, 2], expand=[2, 3, 4, 6], kernel=3),
        stage("pool", "pool"),
    ],
})
MEDIUM = Budget(macs=150_000)
RESOLUTION = SPACE.index["resolution"]
IMAGES = 10**6  # judged on: so many that scores which differ do not tie
SAMPLERS = ("tpe", "nsga2", "random")
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


class MadeUp(Search):
    """Scores come from the choices: larger ones are better, and a small resolution; many are equal."""

    def _score(self, arch, split):
        self.judged.append(arch)
        rungs = {a: a.choices.index(v) for a, v in zip(self.space.axes, arch.values, strict=True)}
        return 60.0 + sum(-2 * n if axis.kind == "resolution" else n for axis, n in rungs.items())


def search_of(storage, *, sampler="tpe", trials=30, budget=MEDIUM, space=SPACE, seed=0, timeout=None):
    """`storage`: a journal (quick) where it has no suffix, else an SQLite file (the default)."""
    net = SimpleNamespace(plan=plan(space, space.largest, 10))
    config = SearchConfig(trials=trials, sampler=sampler, finalists=4)
    url = f"sqlite:///{storage}" if storage.suffix else f"journal:{storage}"
    scorer = SimpleNamespace(task=Classify(10))
    search = MadeUp(net, space, budget, config, scorer, range(IMAGES), url, seed, timeout)
    search.judged = []
    return search


def run(search, pending=None):
    return search.run(pending or Pending(), lambda arch, top1: None)


def recorded(search):
    """What the storage holds: (state, choices, value, constraints) of each trial, in order."""
    study = optuna.load_study(storage=open_storage(search.storage), study_name="nasaug")
    return [(t.state.name, t.params, t.value, t.constraints) for t in study.trials]


# --- budgets and the cache ----------------------------------------------------------------------------------


@every_sampler
def test_it_ends_with_as_many_candidates_as_asked_for_all_within_every_budget(tmp_path, sampler):
    budget = Budget(macs=150_000, params=3_000)
    search = search_of(tmp_path / "study", sampler=sampler, budget=budget)
    found = run(search)
    assert len(found) == len(search.judged) == len(set(search.judged)) == 30
    assert all(budget.holds(c.cost) and c.cost == cost_of(SPACE, c.arch, 10) for c in found)
    rows = recorded(search)
    turned_away = [row for row in rows if max(row[3].values()) > 0]
    assert turned_away and {(state, value) for state, _, value, _ in turned_away} == {("COMPLETE", 0.0)}
    assert all(set(constraints) == {"macs", "params"} for _, _, _, constraints in rows)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)


@every_sampler
def test_what_was_judged_before_is_answered_from_the_cache(tmp_path, sampler):
    stages = [stage("stem", "conv", width=[8, 16], kernel=[1, 3]), stage("pool", "pool")]
    space = made({"resolution": [8, 12], "stage": stages})
    search = search_of(tmp_path / "study", sampler=sampler, trials=8, budget=Budget(), space=space)
    found = run(search)
    assert len(search.judged) == len(set(search.judged)) == len(found) == 8
    values = {}
    for _, params, value, _ in recorded(search):
        assert values.setdefault(tuple(params.items()), value) == value > 0
    assert len(recorded(search)) > len(values) == 8  # some were asked for again


@every_sampler
@pytest.mark.parametrize(
    ("choices", "budget", "nets"),
    [
        ({}, Budget(), 1),
        ({"resolution": [8, 12]}, Budget(), 2),
        ({"resolution": [8, 12], "kernel": [1, 3]}, Budget(), 4),
        ({"resolution": [8, 12], "width": [8, 16, 24]}, Budget(10**9, peak=1584), 3),
    ],
)
def test_a_space_of_fewer_nets_than_trials_ends_the_search_when_all_are_judged(
    tmp_path, capsys, sampler, choices, budget, nets
):
    given = {"resolution": 8, "width": 8, "kernel": 3} | choices
    stages = [stage("stem", "conv", width=given["width"], kernel=given["kernel"]), stage("pool", "pool")]
    space = made({"resolution": given["resolution"], "stage": stages})
    search = search_of(tmp_path / "study", sampler=sampler, trials=100, budget=budget, space=space)
    assert len(run(search)) == search.goal == nets and len(recorded(search)) < nets * (STALE + 1)
    assert f"search {nets}/{nets} " in capsys.readouterr().err


# of SPACE's networks 2 to 6 % are within, and none of those that have the most MACs
TIGHT = [Budget(10**9, peak=1500), Budget(1_000_000, peak=1500), Budget(peak=1100), Budget(2_000_000, params=1500),
         Budget(400_000, flash=1500)]  # fmt: skip
every_tight = pytest.mark.parametrize("budget", TIGHT, ids=str)


@every_sampler
@every_tight
def test_a_loose_mac_budget_beside_a_tight_one_leaves_no_architecture_out(tmp_path, sampler, budget):
    search = search_of(tmp_path / "study", sampler=sampler, trials=24, budget=budget)
    found = run(search)
    assert len(found) == 24 and all(budget.holds(c.cost) for c in found)


@pytest.mark.parametrize("macs", [1_611_584, 5_000_000, 10**9])
def test_a_budget_above_all_that_the_space_has_is_no_reason_to_draw_its_largest_alone(tmp_path, macs):
    search = search_of(tmp_path / "study", sampler="random", budget=Budget(macs), trials=40)
    run(search)
    assert len(recorded(search)) < 60
    assert run(search_of(tmp_path / "least", sampler="random", budget=Budget(1_611_584), trials=40)) == run(search)


@every_tight
def test_what_a_search_draws_is_within_all_budgets_but_that_of_macs(tmp_path, budget):
    search = search_of(tmp_path / "study", budget=budget)
    drawn = [search._draw(number, *search.range()) for number in range(40)]
    assert len(set(drawn)) > 12 and all(budget.beside_macs.holds(cost_of(SPACE, arch, 10)) for arch in drawn)


@every_sampler
def test_what_is_not_judged_yet_is_sought_after_many_asks_for_nothing_new(tmp_path, sampler, monkeypatch):
    """Also where there are more networks than can be known, and by a resumed search as by one that was not stopped."""
    monkeypatch.setattr("nasaug.nas.study.KNOWN", 3)
    draw = Search._draw
    monkeypatch.setattr(MadeUp, "_draw", lambda search, number, low, high: draw(search, number, 1, 1))  # the smallest
    whole = search_of(tmp_path / "whole", sampler=sampler, trials=4)
    found = run(whole)
    assert len(found) == 4 and STALE < len(recorded(whole)) < 4 * ASKS
    for asks in (STALE - 5, 3):
        with pytest.raises(Stopped):
            run(search_of(tmp_path / "parts", sampler=sampler, trials=4), StopAfter(asks))
    assert run(search_of(tmp_path / "parts", sampler=sampler, trials=4)) == found


def test_networks_that_differ_in_skipped_blocks_alone_are_one(tmp_path):
    search = search_of(tmp_path / "study", sampler="nsga2", trials=60, budget=Budget())
    run(search)
    assert all(SPACE.canonical(arch) == arch for arch in search.judged)
    assert len({SPACE.id(arch) for arch in search.judged}) == 60
    shallow = [params["s1.b2.expand"] for _, params, _, _ in recorded(search) if not params["s1.depth"]]
    assert any(shallow)  # some were asked for with choices of a block that is not there


def test_choices_that_come_to_one_width_are_one_network(tmp_path):
    stages = [
        stage("stem", "conv", width=8, kernel=3, act="relu"),
        stage("s1", "basic", width=[8, 16], depth=[1, 2], expand=[0.5, 0.75, 1], kernel=3, act="relu", first="project"),
        stage("pool", "pool"),
    ]
    space = made({"divisor": 8, "resolution": [8, 12], "stage": stages})
    search = search_of(tmp_path / "study", sampler="random", trials=15, budget=Budget(), space=space)
    found = run(search)
    asked = set()
    for _, params, _, _ in recorded(search):
        choices = tuple(axis.choices[params.get(axis.name, 0)] for axis in space.axes)
        asked.add(space.canonical(Arch(space.name, choices)))
    networks = {plan(space, arch, 10) for arch in asked}
    assert len(asked) > len(networks) == len(found) == len({plan(space, c.arch, 10) for c in found}) == 15


def test_where_nothing_is_within_the_budget_it_ends_and_says_so(tmp_path):
    for sampler in SAMPLERS:
        search = search_of(tmp_path / sampler, sampler=sampler, trials=2, budget=Budget(params=100))
        with pytest.raises(BadInput, match="no architecture within"):
            run(search)
        assert search.judged == [] == recorded(search)


def test_a_timeout_ends_it_with_what_was_found(tmp_path):
    class Slow(MadeUp):
        def _score(self, arch, split):
            time.sleep(0.05)
            return super()._score(arch, split)

    search = search_of(tmp_path / "study", trials=1000, timeout=0.4)
    search.__class__ = Slow
    found = run(search)
    assert 1 <= len(found) == len(search.judged) < 20


# --- samplers -----------------------------------------------------------------------------------------------


@every_sampler
def test_the_seed_decides_the_sequence(tmp_path, sampler):
    seeds = {"one": 3, "same": 3, "other": 4}
    one, same, other = (search_of(tmp_path / name, sampler=sampler, seed=s) for name, s in seeds.items())
    for search in (one, same, other):
        run(search)
    assert recorded(one) == recorded(same) and one.judged == same.judged
    assert one.judged != other.judged


def test_all_samplers_begin_with_the_same_draws_by_size_and_then_go_their_ways(tmp_path):
    searches = [search_of(tmp_path / sampler, sampler=sampler, trials=40) for sampler in SAMPLERS]
    for search in searches:
        run(search)
    tpe, nsga2, random = (search.judged for search in searches)
    assert tpe[:STARTUP] == nsga2[:STARTUP] == random[:STARTUP]
    assert tpe[STARTUP:] != nsga2[STARTUP:] != random[STARTUP:] != tpe[STARTUP:]
    low, high = macs_range(SPACE, MEDIUM, 10)
    for macs in (cost_of(SPACE, arch, 10).macs for arch in random):
        assert low / 2 <= macs <= MEDIUM.macs <= high  # drawn by size to the end


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_samplers_that_learn_find_better_candidates_than_they_began_with(tmp_path, sampler, monkeypatch):
    monkeypatch.setattr("nasaug.nas.study.EXPLORE", 10**9)  # what the sampler asks for, and nothing else
    search = search_of(tmp_path / "study", sampler=sampler, trials=80, space=SPACES["squeeze"])
    scores = {c.arch: c.score for c in run(search)}
    first, last = search.judged[:STARTUP], search.judged[-STARTUP:]
    before, after = (sum(scores[arch] for arch in judged) / STARTUP for judged in (first, last))
    assert after > before + 1


def test_every_fourth_candidate_stays_drawn_between_half_the_budget_and_all_of_it(tmp_path, monkeypatch):
    search, drawn, draw = search_of(tmp_path / "study", trials=STARTUP + 12), [], Search._draw
    monkeypatch.setattr(search, "_draw", lambda *given: drawn.append(given) or draw(search, *given))
    run(search)
    later = [given for given in drawn if given[1:] != search.range()]
    assert len(drawn) - len(later) >= STARTUP and len(later) >= 2
    assert all(number % 4 == 0 and (low, high) == (75_000, 150_000) for number, low, high in later)


@pytest.mark.parametrize("budget", [Budget(params=40_000), Budget(macs=10**9), Budget(macs=150_000, params=10**6)])
def test_what_is_explored_fits_the_budget(tmp_path, budget):
    """Without a MAC budget as at the start; with one between half of it and all, within the space."""
    search = search_of(tmp_path / "study", budget=budget)
    low, high = search.range()
    top = min(budget.macs or 0, float(cost_of(SPACE, SPACE.largest, 10).macs))
    assert search._explored() == ((top / 2, top) if budget.macs else (low, high))


def test_macs_to_draw_between():
    smallest, largest = (float(cost_of(SPACE, arch, 10).macs) for arch in (SPACE.smallest, SPACE.largest))
    assert macs_range(SPACE, Budget(), 10) == (smallest, largest)
    assert macs_range(SPACE, Budget(params=10**6), 10) == (smallest, largest)
    assert macs_range(SPACE, Budget(macs=800_000), 10) == (100_000, 960_000)
    assert macs_range(SPACE, Budget(macs=10**7), 10) == (largest / 8, largest)
    assert macs_range(SPACE, Budget(macs=10**9), 10) == (largest / 8, largest)
    assert macs_range(SPACE, Budget(macs=20_000), 10) == (smallest, 24_000)
    assert macs_range(SPACE, Budget(macs=800_000, peak=26_624), 10) == (100_000, 960_000)  # which all have
    within = 61_344  # the most MACs of the 72 networks of at most 1,500 bytes
    assert macs_range(SPACE, Budget(peak=1500), 10) == (smallest, 1.2 * within)
    assert macs_range(SPACE, Budget(macs=10**9, peak=1500), 10) == (smallest, 1.2 * within)
    assert macs_range(SPACE, Budget(macs=50_000, peak=1500), 10) == (smallest, 60_000)


# --- stopping and going on ----------------------------------------------------------------------------------


class StopAfter(Pending):
    """A signal that comes before ask number `count`."""

    def __init__(self, count):
        self.left = count

    def check(self):
        if not self.left:
            raise Stopped(15)
        self.left -= 1


@every_sampler
def test_stopped_and_resumed_is_the_uninterrupted_sequence(tmp_path, sampler):
    """Stopped among the draws by size, at their end, and twice while the sampler learns."""
    whole = search_of(tmp_path / "whole", sampler=sampler, trials=60)
    found, judged = run(whole), []
    for asks in (7, 14, 30, 1):
        part = search_of(tmp_path / "parts.db", sampler=sampler, trials=60)
        with pytest.raises(Stopped):
            run(part, StopAfter(asks))
        judged += part.judged
    rest = search_of(tmp_path / "parts.db", sampler=sampler, trials=60)
    assert run(rest) == found
    assert judged + rest.judged == whole.judged  # nothing judged twice, nothing left out
    assert recorded(rest) == recorded(whole)


def test_a_finished_search_judges_nothing_more(tmp_path):
    found = run(search_of(tmp_path / "study.db"))
    again = search_of(tmp_path / "study.db")
    assert run(again) == found and again.judged == []


def test_a_candidate_that_was_being_judged_when_the_process_died_is_judged_again(tmp_path):
    class Dies(MadeUp):
        def _score(self, arch, split):
            if len(self.judged) == 5:
                raise KeyboardInterrupt
            return super()._score(arch, split)

    whole, killed = search_of(tmp_path / "whole"), search_of(tmp_path / "killed.db")
    run(whole)
    killed.__class__ = Dies
    with pytest.raises(KeyboardInterrupt):
        run(killed)
    assert {row[0] for row in recorded(killed)} == {"COMPLETE"}  # no trial is left running
    rest = search_of(tmp_path / "killed.db")
    run(rest)
    assert killed.judged + rest.judged == whole.judged and recorded(rest) == recorded(whole)


def test_a_storage_that_holds_another_runs_study_is_refused_unless_resumed(tmp_path):
    """Its scores are of another supernet, and of what was within another budget."""
    search = search_of(tmp_path / "study.db", trials=2)
    check_storage(search.storage, resumed=False)
    run(search)
    with pytest.raises(BadInput, match="another run's study"):
        check_storage(search.storage, resumed=False)
    check_storage(search.storage, resumed=True)


def test_a_storage_that_cannot_be_used_is_refused_in_one_line(tmp_path):
    for url in ("nonsense", "sqlite:////no/such/folder/study.db", "nodatabase://x"):
        with pytest.raises(BadInput, match="--storage") as refused:
            open_storage(url)
        assert "\n" not in str(refused.value)


# --- results ------------------------------------------------------------------------------------------------


def test_ties_are_ranked_by_macs_and_finalists_by_the_whole_validation_split(tmp_path, monkeypatch):
    search, whole = search_of(tmp_path / "study", trials=12), range(10**15)
    monkeypatch.setattr(search, "_score", lambda arch, split: 70.0)
    ranked = run(search)
    macs = [c.cost.macs for c in ranked]
    assert macs == sorted(macs) and {c.full_score for c in ranked} == {None}
    monkeypatch.setattr(search, "_score", lambda arch, split: search._cost(arch).macs * (split is whole))
    monkeypatch.setattr(Classify, "standard_error", lambda self, score, images: 0.0)
    best = search.finalists(ranked, whole)
    assert [c.full_score for c in best] == sorted((c.cost.macs for c in best), reverse=True)
    of = {r: [c.cost.macs for c in ranked if c.arch.values[RESOLUTION] == r] for r in (8, 12, 16)}
    assert len(best) == 4 and {max(row) for row in of.values()} <= {c.full_score for c in best}  # all tie


def fake_candidates(*rows):
    """Of (resolution, MACs, score); their first value is their place."""
    values = [(i, *[0] * (RESOLUTION - 1), px) for i, (px, _, _) in enumerate(rows)]
    return [Candidate(Arch("s", v), Cost(macs, 1, 1, 1), s) for v, (_, macs, s) in zip(values, rows, strict=True)]


def test_found_is_the_largest_of_the_finalists_that_tie_with_the_best(tmp_path, monkeypatch):
    search, whole = search_of(tmp_path / "study", trials=12), range(5000)
    search.images = range(1000)  # a standard error of 1.14 points at 85 %, and of 0.50 on the whole split
    ranked = fake_candidates(
        (8, 40, 85.0), (8, 30, 84.9), (8, 10, 84.5), (8, 60, 84.0), (8, 50, 83.9), (8, 90, 83.8)
    )
    full = {0: 84.6, 1: 85.0, 3: 84.4, 4: 84.6, 2: 99.0, 5: 99.0}
    monkeypatch.setattr(search, "_score", lambda arch, split: full[arch.values[0]])
    names = [c.arch.values[0] for c in search.finalists(ranked, whole)]
    assert names == [4, 1, 0, 3]  # 3 is larger, but too far from the best; 5 was so already; 2 is smaller
    search.config = replace(search.config, finalists=1)
    assert [c.arch.values[0] for c in search.finalists(ranked, whole)] == [3]  # the largest that ties with the best


def test_finalists_come_from_each_resolution_in_turn(tmp_path, monkeypatch):
    search = search_of(tmp_path / "study")
    search.images = range(1000)
    ranked = fake_candidates(
        (12, 40, 85.0), (12, 50, 84.5), (12, 10, 84.4), (8, 20, 80.0), (16, 30, 70.0), (16, 9, 69.9)
    )
    monkeypatch.setattr(search, "_score", lambda arch, split: 100.0 - arch.values[0])
    for count, names in {3: [1, 3, 4], 4: [0, 1, 3, 4], 5: [0, 1, 3, 4, 5], 6: [0, 1, 2, 3, 4, 5]}.items():
        search.config = replace(search.config, finalists=count)
        assert sorted(c.arch.values[0] for c in search.finalists(ranked, range(10**15))) == names


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_resolution_has_its_share_of_the_candidates(tmp_path, sampler):
    """Though its score falls with the resolution; one at which nothing is within the budget has none."""
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
    shown = candidates([(10**6, 60.0), (2 * 10**6, 70.0)])
    plot_pareto(tmp_path / "pareto.png", shown, Budget(macs=10**6), shown[0], Classify.metric)
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["pareto.png"]


def test_what_the_space_can_do_in_words():
    text = report_reach(reach(SPACE, MEDIUM, 10, samples=100), MEDIUM)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["smallest", "middle", "largest"]
    assert "% of 100 uniform samples" in lines[3] and "MACs <= 150k" in lines[3]


def test_a_candidate_is_judged_as_the_narrowed_and_calibrated_net(tmp_path):
    data = toy_data(train=64, val=50)
    space = SPACES["squeeze"]
    net, scorer = Net(plan(space, space.largest, 4), seed=1).train(), scorer_of(data)
    config = SearchConfig(trials=4, sampler="random", finalists=2)
    images = data.val.take(30, 0)
    search = Search(net, space, Budget(), config, scorer, images, f"journal:{tmp_path}/study")
    ranked = run(search)
    for c in ranked:
        small = net.narrow(plan(space, c.arch, 4))
        small.calibrate([x for x, _ in scorer.batches(scorer.calibration, small.plan.resolution)]).eval()
        assert c.score == scorer.score(small, images)
    assert len({c.score for c in ranked}) > 1
    for c in search.finalists(ranked, data.val):
        assert c.full_score == scorer.score(scorer.calibrated(net, plan(space, c.arch, 4)), data.val)


@pytest.mark.parametrize(
    ("key", "value"),
    [("trials", 0), ("score_images", 0), ("finalists", 0), ("calibration_images", 1), ("headroom", 0.5),
     ("headroom", -1.0), ("finalist_macs", -1.0), ("finalist_macs", float("inf"))],
)  # fmt: skip
def test_impossible_search_settings_are_refused_by_name(key, value):
    with pytest.raises(BadInput, match=f"search.{key}"):
        SearchConfig(**{key: value})

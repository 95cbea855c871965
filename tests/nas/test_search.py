"""The search: budgets, caching, samplers and exact resumption, mostly with synthetic scores."""

import time
from dataclasses import replace

import pytest

from nasaug.arch.cost import Budget, cost_of
from nasaug.arch.plan import plan
from nasaug.arch.space import Arch
from nasaug.core.errors import BadInput
from nasaug.core.progress import heard_by
from nasaug.core.signals import Pending, Stopped
from nasaug.nas.ranges import macs_range
from nasaug.nas.study import ASKS, STALE, STARTUP, Search
from nasaug.training.recipe import SearchConfig
from nasaug.training.scoring import Judged
from support.searches import MEDIUM, SAMPLERS, SPACE, MadeUp, every_sampler, recorded, run, search_of
from support.spaces import SPACES, made, stage

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
    assert len(recorded(search)) > len(values) == 8  # some were proposed again


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
    tmp_path, sampler, choices, budget, nets
):
    given = {"resolution": 8, "width": 8, "kernel": 3} | choices
    stages = [stage("stem", "conv", width=given["width"], kernel=given["kernel"]), stage("pool", "pool")]
    space = made({"resolution": given["resolution"], "stage": stages})
    search = search_of(tmp_path / "study", sampler=sampler, trials=100, budget=budget, space=space)
    heard = []
    with heard_by(heard.append):
        assert len(run(search)) == search.goal == nets and len(recorded(search)) < nets * (STALE + 1)
    assert (heard[-1].title, heard[-1].done, heard[-1].total) == ("candidates", nets, nets)


# 2 to 6 % of SPACE's networks are within, none of them among those with the most MACs
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
    """Also with more networks than can be enumerated, and alike in a resumed and an uninterrupted search."""
    monkeypatch.setattr("nasaug.nas.ranges.KNOWN", 3)
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
    assert any(shallow)  # some were proposed with choices for a skipped block


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


@pytest.mark.parametrize(("by", "sampler"), [("score", "tpe"), ("loss", "tpe"), ("loss", "tpe+predictor")])
def test_candidates_are_ranked_by_what_is_asked_for_and_a_resumed_search_knows_both(tmp_path, by, sampler):
    class Opposed(MadeUp):
        """A better score comes with a worse loss."""

        def _judge(self, arch, split):
            score = super()._judge(arch, split).score
            return Judged(score, score / 10)

    def ranked(trials, path):
        search = search_of(path, sampler=sampler, trials=trials)
        search.__class__, search.config = Opposed, replace(search.config, by=by)
        return search, run(search)

    _, whole = ranked(30, tmp_path / "whole.db")
    ranked(24, tmp_path / "part.db")
    again, parted = ranked(30, tmp_path / "part.db")
    assert parted == whole and len(again.judged) == 6
    scores = [c.score for c in whole]
    assert scores == sorted(scores, reverse=by == "score")
    assert all(c.loss == (c.score / 10 if by == "loss" else None) for c in whole)


def test_a_timeout_ends_it_with_what_was_found(tmp_path):
    class Slow(MadeUp):
        def _judge(self, arch, split):
            time.sleep(0.05)
            return super()._judge(arch, split)

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
    judged = {sampler: search.judged for sampler, search in zip(SAMPLERS, searches, strict=True)}
    assert len({tuple(archs[:STARTUP]) for archs in judged.values()}) == 1
    assert len({tuple(archs[STARTUP:]) for archs in judged.values()}) == len(SAMPLERS)
    random = judged["random"]
    low, high = macs_range(SPACE, MEDIUM, 10)
    for macs in (cost_of(SPACE, arch, 10).macs for arch in random):
        assert low / 2 <= macs <= MEDIUM.macs <= high  # drawn by size to the end


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_samplers_that_learn_find_better_candidates_than_they_began_with(tmp_path, sampler, monkeypatch):
    monkeypatch.setattr("nasaug.nas.study.EXPLORE", 10**9)  # only what the sampler proposes
    search = search_of(tmp_path / "study", sampler=sampler, trials=80, space=SPACES["squeeze"])
    scores = {c.arch: c.score for c in run(search)}
    first, last = search.judged[:STARTUP], search.judged[-STARTUP:]
    before, after = (sum(scores[arch] for arch in judged) / STARTUP for judged in (first, last))
    assert after > before + 1


def test_every_fourth_candidate_stays_drawn_close_below_the_budget(tmp_path, monkeypatch):
    search, drawn, draw = search_of(tmp_path / "study", trials=STARTUP + 12), [], Search._draw
    monkeypatch.setattr(search, "_draw", lambda *given: drawn.append(given) or draw(search, *given))
    run(search)
    later = [given for given in drawn if given[1:] != search.range()]
    assert len(drawn) - len(later) >= STARTUP and len(later) >= 2
    assert all(number % 4 == 0 and (low, high) == (112_500, 150_000) for number, low, high in later)


@pytest.mark.parametrize("budget", [Budget(params=40_000), Budget(macs=10**9), Budget(macs=150_000, params=10**6)])
def test_what_is_explored_fits_the_budget(tmp_path, budget):
    """Without a MAC budget as at the start; with one, close below it, within the space."""
    search = search_of(tmp_path / "study", budget=budget)
    low, high = search.range()
    top = min(budget.macs or 0, float(cost_of(SPACE, SPACE.largest, 10).macs))
    assert search._explored() == ((0.75 * top, top) if budget.macs else (low, high))


def test_macs_to_draw_between():
    smallest, largest = (float(cost_of(SPACE, arch, 10).macs) for arch in (SPACE.smallest, SPACE.largest))
    assert macs_range(SPACE, Budget(), 10) == (smallest, largest)
    assert macs_range(SPACE, Budget(params=10**6), 10) == (smallest, largest)
    assert macs_range(SPACE, Budget(macs=800_000), 10) == (100_000, 960_000)
    assert macs_range(SPACE, Budget(macs=10**7), 10) == (largest / 8, largest)
    assert macs_range(SPACE, Budget(macs=10**9), 10) == (largest / 8, largest)
    assert macs_range(SPACE, Budget(macs=20_000), 10) == (smallest, 24_000)
    assert macs_range(SPACE, Budget(macs=800_000, peak=26_624), 10) == (100_000, 960_000)  # which all nets satisfy
    within = 61_344  # the most MACs of the 72 networks of at most 1,500 bytes
    assert macs_range(SPACE, Budget(peak=1500), 10) == (smallest, 1.2 * within)
    assert macs_range(SPACE, Budget(macs=10**9, peak=1500), 10) == (smallest, 1.2 * within)
    assert macs_range(SPACE, Budget(macs=50_000, peak=1500), 10) == (smallest, 60_000)


# --- stopping and going on ----------------------------------------------------------------------------------


class StopAfter(Pending):
    """A signal that arrives before ask number `count`."""

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
    assert judged + rest.judged == whole.judged  # nothing evaluated twice or omitted
    assert recorded(rest) == recorded(whole)


def test_a_finished_search_judges_nothing_more(tmp_path):
    found = run(search_of(tmp_path / "study.db"))
    again = search_of(tmp_path / "study.db")
    assert run(again) == found and again.judged == []


def test_a_candidate_that_was_being_judged_when_the_process_died_is_judged_again(tmp_path):
    class Dies(MadeUp):
        def _judge(self, arch, split):
            if len(self.judged) == 5:
                raise KeyboardInterrupt
            return super()._judge(arch, split)

    whole, killed = search_of(tmp_path / "whole"), search_of(tmp_path / "killed.db")
    run(whole)
    killed.__class__ = Dies
    with pytest.raises(KeyboardInterrupt):
        run(killed)
    assert [row[0] for row in recorded(killed)][-2:] == ["FAIL", "WAITING"]  # it is left to the next process
    rest = search_of(tmp_path / "killed.db")
    run(rest)
    counted = [row for row in recorded(rest) if row[0] != "FAIL"]
    assert killed.judged + rest.judged == whole.judged and counted == recorded(whole)


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [("trials", 0), ("score_images", 0), ("finalists", 0), ("calibration_images", 1), ("headroom", 0.5),
     ("headroom", -1.0), ("finalist_macs", -1.0), ("finalist_macs", float("inf"))],
)  # fmt: skip
def test_impossible_search_settings_are_refused_by_name(key, value):
    with pytest.raises(BadInput, match=f"search.{key}"):
        SearchConfig(**{key: value})

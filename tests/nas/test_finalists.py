"""The play-off: the length of each finalist's training, who wins, and what remains after a stop."""

from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import torch

from nasaug.arch.cost import Budget, cost_of
from nasaug.arch.plan import plan
from nasaug.core import files, tensorfile
from nasaug.core.errors import Diverged
from nasaug.core.metric import WORST
from nasaug.nas import results
from nasaug.nas.candidates import Candidate
from nasaug.nas.finalists import FORMAT, LEAST, PlayOff, begun_with, forget
from nasaug.nas.results import agreement
from nasaug.nas.study import Search
from nasaug.nets import store
from nasaug.nets.net import Net
from nasaug.rundirs.folder import RunDir
from nasaug.tasks import Classify
from nasaug.training.recipe import Recipe, SearchConfig
from nasaug.training.scoring import Judged
from support.spaces import SPACES
from support.toys import CPU, scorer_of, toy_data

SPACE, METRIC = SPACES["squeeze"], Classify.metric
BATCH = 16
MACS = (100, 300)


def play_off(macs, *, images=96, supernet_macs=0.0, path=Path("none")):
    recipe = Recipe(batch=BATCH, lr=0.02, search=SearchConfig(finalist_macs=macs))
    data = toy_data(train=images)
    scorer = scorer_of(data)
    search = Search(SPACE, Budget(), recipe.search, scorer, data.val, "sqlite://")
    return PlayOff(recipe, data, CPU, search, path, supernet_macs)


def lengths(last, macs=MACS):
    """The first round's, or None where the finalists are not trained."""
    counts = last.sizes(macs)
    return last.lengths(macs[: counts[0]], counts[0], len(counts)) if counts else None


@pytest.mark.parametrize(
    ("steps", "epochs", "each"), [(1, 1, 1), (5, 1, 5), (6, 1, 6), (8, 1, 6), (9, 2, 6), (18, 3, 6)]
)
def test_all_are_trained_for_as_many_steps_whole_epochs_or_a_part_of_one(steps, epochs, each):
    for length, macs in zip(lengths(play_off(float(sum(MACS) * BATCH * steps))), MACS, strict=True):
        assert (length.epochs, length.steps_per_epoch) == (epochs, each)
        assert (length.batch, length.macs_per_image) == (BATCH, macs)


def test_they_are_not_trained_where_it_is_not_asked_for_or_tells_nothing():
    step = float(sum(MACS) * BATCH)
    assert lengths(play_off(0.0)) is None and lengths(play_off(step - 1)) is None
    assert lengths(play_off(1e9), MACS[:1]) is None  # nothing to decide
    auto = {n: lengths(play_off("auto", supernet_macs=n * step * 5)) for n in (LEAST - 1, LEAST + 0.5)}
    assert auto[LEAST - 1] is None and auto[LEAST + 0.5][0].epochs == round(LEAST / 6)


def in_rounds(rounds, macs="auto", **keys):
    """A play-off of so many rounds whose supernet's MACs are given in steps of one net of 100 MACs."""
    last = play_off(macs, supernet_macs=keys.pop("steps", 0) * 100 * BATCH / 0.2)
    return replace(last, recipe=replace(last.recipe, search=replace(last.recipe.search, rounds=rounds), **keys))


def test_each_round_has_half_the_nets_of_the_one_before_and_an_equal_part_of_the_macs():
    last, macs = in_rounds(4, steps=4 * 24 * LEAST), [100] * 24
    assert last.sizes(macs) == [24, 12, 6, 3] and in_rounds(1, steps=24 * LEAST).sizes(macs) == [24]
    spent = [sum(each.macs for each in last.lengths(macs[:n], n, 4)) for n in (24, 12, 6, 3)]
    assert spent == pytest.approx([last.macs / 4] * 4, rel=0.05)
    assert in_rounds(9, 1e9).sizes(macs[:5]) == [5, 3, 2]
    fewer = {steps: in_rounds(4, steps=steps * LEAST).sizes(macs) for steps in (95, 36, 35, 12, 11, 5)}
    assert fewer == {95: [12, 6, 3], 36: [12, 6, 3], 35: [6, 3], 12: [6, 3], 11: [3], 5: [3]}
    assert in_rounds(4, steps=2 * LEAST).sizes(macs) == []


def test_suggested_nets_join_the_first_round_where_there_are_macs_for_them():
    macs = [100] * 12
    for steps, counts in {36 * LEAST: [24, 6, 3], 35 * LEAST: [12, 6, 3], 71 * LEAST: [24, 6, 3]}.items():
        last = in_rounds(3, steps=2 * steps)
        last = replace(last, recipe=replace(last.recipe, search=replace(last.recipe.search, suggested=12)))
        assert last.sizes(macs) == counts and last.sizes(macs[:1]) == []
        assert replace(last, word="shape").sizes(macs) == [12, 6, 3]
        assert sum(each.macs for each in last.lengths(macs, 24, 3)) == pytest.approx(last.macs / 3 / 2, rel=0.05)
    assert last._counted([24, 6, 3], 12) == "12 finalists and 12 nets that their results suggest, then the best 6 and 3"


def test_suggested_nets_are_new_and_lie_within_the_budget_and_the_best_by_all_results_go_on(tmp_path, monkeypatch):
    trained = []

    def loss(self, c, length, run, title, name, number):
        trained.append(c.arch)
        return Judged(50.0, 9.0 - c.cost.params / c.cost.macs + 1e-3 * Random(f"{name}/{number}").random())

    monkeypatch.setattr(PlayOff, "_train", loss)
    budget = Budget(macs=cost_of(SPACE, SPACE.largest, 4).macs * 2 // 3)
    last = in_rounds(2, 1e12)
    last = replace(last, recipe=replace(last.recipe, search=replace(last.recipe.search, suggested=6, by="loss")))
    last.search.config, last.search.budget = last.recipe.search, budget
    given = [c for c in finalists(*dict.fromkeys(SPACE.sample(Random(i)) for i in range(12)))
             if budget.holds(c.cost)][:4]  # fmt: skip
    with RunDir.create("search", last.recipe, tmp_path / "run") as run:
        decided = last.decide(given, run)
        assert trained[:4] == [c.arch for c in given] and len(trained) == len(set(trained[:10])) + 2
        rounds = files.read_json(run.finalists_file, FORMAT)["rounds"]
        assert [len(each) for each in rounds] == [10, 2]
        cut = dict(list(rounds[0].items())[:7])  # as if stopped while the eighth was trained
        files.write_json(run.finalists_file, {"format": FORMAT, "candidates": 0, "rounds": [cut]})
        before = trained[:]
        trained.clear()
        assert last.decide(given, run) == decided and trained == before[7:]
    assert all(budget.holds(c.cost) for c in decided) and [c.rounds for c in decided] == [2, 2, *[1] * 8]
    new = [c for c in decided if c.arch not in {each.arch for each in given}]
    assert len(new) == 6 and {c.full_score for c in new} == {None}
    assert min(c.rank for c in new) < min(c.rank for c in decided if c not in new)


def test_one_lucky_measurement_does_not_decide(tmp_path):
    search = play_off(1e9).search
    search.config = replace(search.config, by="loss")
    archs = list(dict.fromkeys(SPACE.sample(Random(i)) for i in range(40)))
    truth = {arch: -cost_of(SPACE, arch, 4).params / 100 for arch in archs}
    noise = 0.7 * (max(truth.values()) - min(truth.values()))
    told = {arch: Judged(50.0, truth[arch] + noise * (Random(i).random() - 0.5)) for i, arch in enumerate(archs)}
    smooth = search.smoothed(told | {SPACE.largest: Judged(search.metric.worst, WORST)})
    assert smooth.pop(SPACE.largest, None) == float("inf")
    off = {
        name: sum((values[arch] - truth[arch]) ** 2 for arch in smooth)
        for name, values in {"smoothed": smooth, "told": {a: j.loss for a, j in told.items()}}.items()
    }
    assert off["smoothed"] < 0.6 * off["told"]


def test_a_net_whose_own_training_is_limited_by_its_macs_is_trained_for_fewer_steps():
    epoch = 100 * 6 * BATCH
    last = in_rounds(1, 40.0 * epoch, train_macs=10.0 * epoch, max_epochs=5, min_steps=0)
    lengths = last.lengths([50, 100, 200, 400], 4, 1)
    steps = [each.epochs * each.steps_per_epoch for each in lengths]
    assert steps[0] == steps[1] == steps[2]  # 5 epochs, not 20, 10 and 5
    assert steps[3] == pytest.approx(steps[0] / 2, abs=3)  # 2.5, in whole epochs of 6 steps
    equal = replace(last, recipe=replace(last.recipe, epochs=7)).lengths([50, 400], 2, 1)
    assert equal[0].steps == equal[1].steps


def test_the_better_half_goes_on_from_its_own_weights_and_the_winners_are_kept(tmp_path):
    path, net = tmp_path / "supernet.safetensors", Net(plan(SPACE, SPACE.largest, 4), seed=1)
    store.save_net(path, net, classes=["a", "b", "c", "d"], data="toys")
    archs = [SPACE.smallest, *(SPACE.sample(Random(i)) for i in range(5)), SPACE.largest]
    given = finalists(*dict.fromkeys(archs))[:4]
    last = play_off(4e7, path=path)
    last = replace(last, recipe=replace(last.recipe, search=replace(last.recipe.search, rounds=2, by="loss")))
    last.search.config = last.recipe.search
    with RunDir.create("search", last.recipe, tmp_path / "run") as run:
        decided = last.decide(given, run)
        assert last.decide(given, run) == decided  # from what finalists.json says
        stages = [event["stage"] for event in run.read_log() if event["event"] == "epoch"]
        rounds = files.read_json(run.finalists_file, FORMAT)["rounds"]
        left = {p.name for p in run.path.iterdir() if p.suffix == ".safetensors"}
        start = store.load_net(run.start_file)
        assert tensorfile.facts(run.start_file)["data"] == "toys"
        forget(run)
        assert not run.finalists_file.exists() and not run.start_file.exists()
        assert not [event for event in run.read_log() if "stage" in event]
    assert [c.rounds for c in decided] == [2, 2, 1, 1] and {len(each) for each in rounds} == {4, 2}
    assert left == {"start.safetensors"}
    assert set(stages) == {f"finalist {i} of {n}, round {r} of 2" for n, r in ((4, 1), (2, 2)) for i in range(1, n + 1)}
    for number, count in enumerate((4, 2)):
        losses = {name: loss for name, (_, loss) in rounds[number].items()}
        members = [c for c in decided if SPACE.id(c.arch) in losses]
        assert len(members) == count
        ended = [losses[SPACE.id(c.arch)] for c in members if c.rounds == number + 1]
        assert ended == sorted(ended)
    winner = plan(SPACE, decided[0].arch, 4)
    scorer = last.search.scorer
    assert start.plan == net.plan and scorer.score(scorer.calibrated(start, winner), last.data.val) == pytest.approx(
        decided[0].trained_score
    )
    assert not same_weights(start.narrow(winner), net.narrow(winner))


def same_weights(one, other):
    return all(torch.equal(t, other.state_dict()[name]) for name, t in one.named_parameters())


def test_finalists_of_a_run_from_before_rounds_keep_their_scores(tmp_path):
    with RunDir.create("search", Recipe(), tmp_path / "run") as run:
        files.write_json(run.finalists_file, {"format": "nasaug-finalists/1", "candidates": 7, "top1": {"a": 50.0}})
        assert begun_with(run.finalists_file) == {"format": FORMAT, "candidates": 7, "rounds": [{"a": [50.0, WORST]}]}


def finalists(*archs):
    return [Candidate(a, cost_of(SPACE, a, 4), 50.0 - i, 60.0 - i) for i, a in enumerate(archs)]


def test_the_best_trained_one_is_found_and_what_was_trained_is_not_trained_again(tmp_path, monkeypatch):
    trained = []
    top1 = {SPACE.smallest: 80.0, SPACE.largest: 90.0}
    monkeypatch.setattr(PlayOff, "_train", lambda self, c, *_: trained.append(c.arch) or Judged(top1[c.arch], 1.0))
    last, given = play_off(1e9), finalists(SPACE.smallest, SPACE.largest)
    with RunDir.create("search", last.recipe, tmp_path / "run") as run:
        decided = last.decide(given, run)
        assert [c.arch for c in decided] == [SPACE.largest, SPACE.smallest] and trained == list(top1)
        assert [c.trained_score for c in decided] == [90.0, 80.0]
        assert [replace(c, trained_score=None, rounds=0, epochs=0.0, rank=None) for c in decided] == given[::-1]
        assert last.decide(given, run) == decided and len(trained) == 2
        top1[SPACE.smallest] = 90.0
        (run.path / "finalists.json").unlink()
        assert last.decide(given, run)[0].arch == SPACE.largest  # of equals, the larger
        assert play_off(0.0).decide(given, run) == given


def test_one_that_diverges_comes_last_and_where_all_do_they_stay_as_they_are(tmp_path, monkeypatch):
    left = {SPACE.largest}

    def trained(trainer, *_):
        if trainer.plan == plan(SPACE, SPACE.smallest, 4) or not left:
            raise Diverged("the base loss is nan")
        trainer.history.append({"val_top1": 70.0, "val_loss": 1.0})

    monkeypatch.setattr("nasaug.nas.finalists.train_to_end", trained)
    path = tmp_path / "supernet.safetensors"
    store.save_net(path, Net(plan(SPACE, SPACE.largest, 4), seed=1))
    last, given = play_off(1e8, path=path), finalists(SPACE.smallest, SPACE.largest)
    with RunDir.create("search", last.recipe, tmp_path / "run") as run:
        decided = [(c.arch, c.trained_score) for c in last.decide(given, run)]
        assert decided == [(SPACE.largest, 70), (SPACE.smallest, 0)]
    left.clear()
    with RunDir.create("search", last.recipe, tmp_path / "other") as run:
        assert last.decide(given, run) == given


@pytest.mark.parametrize("start", ["supernet", "scratch"])
def test_a_finalists_training_starts_where_it_is_told_and_is_judged_on_the_whole_validation_split(tmp_path, start):
    """At a negligible learning rate its weights are unchanged. What is found starts from the supernet either way: with
    the finalist's weights as its slice if they came from there, otherwise as the supernet left it."""
    path, net = tmp_path / "supernet.safetensors", Net(plan(SPACE, SPACE.largest, 4), seed=1)
    store.save_net(path, net)
    last = play_off(1e8, path=path)
    search = replace(last.recipe.search, finalists_from=start)
    recipe = replace(last.recipe, lr=1e-30, weight_decay=0.0, zero_init_residual=False, search=search)
    last = replace(last, recipe=recipe)
    given = finalists(SPACE.smallest, SPACE.largest)
    with RunDir.create("search", last.recipe, tmp_path / "run") as run:
        decided = last.decide(given, run)
        left = {p.name for p in run.path.iterdir()}
        events = [event for event in run.read_log() if event["event"] == "epoch"]
    scorer = last.search.scorer
    for c in decided:
        own = plan(SPACE, c.arch, 4)
        begun = net if start == "supernet" else Net(own, seed=last.recipe.seed)
        assert c.trained_score == scorer.score(scorer.calibrated(begun, own), last.data.val)
    assert (store.load_net(run.start_file).plan == net.plan) if start == "supernet" else not run.start_file.exists()
    assert not any(name.startswith("finalist-") for name in left) and "finalists.json" in left
    assert {event["stage"] for event in events} == {"finalist 1 of 2", "finalist 2 of 2"}


def test_the_supernets_ranking_of_the_finalists_is_told_as_kendalls_tau():
    def judged(*pairs):
        return [Candidate(SPACE.largest, cost_of(SPACE, SPACE.largest, 4), 0.0, *pair) for pair in pairs]

    agreed = agreement(judged((80, 85), (81, 86), (82, 87), (83, 88)), METRIC)
    assert agreed == {"n": 4, "tau": 1.0, "p": pytest.approx(2 / 24)}
    assert agreement(judged((80, 88), (81, 87), (82, 86)), METRIC)["tau"] == -1.0
    assert agreement(judged((80, 88), (81, 87), (82, None)), METRIC) is None
    assert agreement(judged((80, 88), (80, 87), (80, 86)), METRIC) is None


def test_only_finalists_that_were_trained_did_worse_in_their_training():
    """The page and the line about a net that uses little of its budget count no others."""
    found, trained, untrained = (
        SimpleNamespace(cost=SimpleNamespace(macs=macs), trained_score=score)
        for macs, score in ((100, 90.0), (200, 80.0), (300, None))
    )
    budget = Budget(macs=400)
    told = results.little_used([found, trained, untrained], budget, budget)
    assert told.endswith("100 of the 400 MACs: a larger finalist of up to 200 did worse in training")
    assert "no larger net" in results.little_used([found, untrained], budget, budget)


def test_a_net_that_uses_little_because_the_space_was_cut_is_explained_by_what_cut_it():
    found = SimpleNamespace(cost=SimpleNamespace(macs=100), trained_score=90.0)
    told = results.little_used([found], Budget(macs=150), Budget(macs=400), "take longer than 3 ms")
    assert told == "the net found uses 100 of the 400 MACs: nets above 150 take longer than 3 ms"

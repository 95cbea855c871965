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
from nasaug.nas.finalists import FORMAT, LEAST, Course, PlayOff, begun_with, forget
from nasaug.nas.results import agreement
from nasaug.nas.study import Search
from nasaug.nets import store
from nasaug.nets.net import Net
from nasaug.rundirs.folder import RunDir
from nasaug.tasks import Classify
from nasaug.training.length import Length
from nasaug.training.recipe import Recipe, SearchConfig
from nasaug.training.scoring import Judged
from support.spaces import SPACES
from support.toys import CPU, scorer_of, toy_data

SPACE, METRIC = SPACES["squeeze"], Classify.metric
BATCH = 16
MACS = (100, 300)


def play_off(macs, *, images=96, supernet_macs=0.0, path=Path("none"), schedule=1.0):
    recipe = Recipe(batch=BATCH, lr=0.02, search=SearchConfig(finalist_macs=macs, schedule=schedule))
    data = toy_data(train=images)
    scorer = scorer_of(data)
    search = Search(SPACE, Budget(), recipe.search, scorer, data.val, "sqlite://")
    return PlayOff(recipe, data, CPU, search, path, supernet_macs)


def courses(last, macs=MACS, counts=None):
    """Those of the first round's nets, or None where the finalists are not trained."""
    counts = counts or last.sizes(macs)
    return [last.course(each, macs[: counts[0]], counts) for each in macs[: counts[0]]] if counts else None


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("steps", [1, 2, 5, 6, 8, 9, 18])
def test_all_are_trained_for_as_many_steps_of_a_schedule_that_is_longer_if_asked(steps, times):
    """An epoch has 6 steps, or fewer in a shorter schedule."""
    last = play_off(float(sum(MACS) * BATCH * steps), schedule=float(times))
    for course, macs in zip(courses(last), MACS, strict=True):
        assert course.ends == (steps,) and course.length.steps == times * steps
        each = course.length.steps_per_epoch, course.length.batch, course.length.macs_per_image
        assert each == (min(6, times * steps), BATCH, macs)


def test_they_are_not_trained_where_it_is_not_asked_for_or_tells_nothing():
    step = float(sum(MACS) * BATCH)
    assert courses(play_off(0.0)) is None and courses(play_off(step - 1)) is None
    assert courses(play_off(1e9), MACS[:1]) is None  # nothing to decide
    auto = {n: courses(play_off("auto", supernet_macs=n * step * 5)) for n in (LEAST - 1, LEAST + 0.5)}
    assert auto[LEAST - 1] is None and auto[LEAST + 0.5][0].ends == (LEAST,)


def test_why_they_are_not_trained_is_told_with_the_steps_that_they_would_have():
    """Three in one round, the fewest that could be trained; with two of them there would be enough."""
    last = in_rounds(2, steps=3 * LEAST - 1)
    assert last.sizes([100] * 5) == [] and last._why_not([100] * 5).startswith(f"with {LEAST - 1} steps each, fewer")


def in_rounds(rounds, macs="auto", **keys):
    """A play-off of so many rounds whose supernet's MACs are given in steps of one net of 100 MACs."""
    last = play_off(macs, supernet_macs=keys.pop("steps", 0) * 100 * BATCH / 0.2)
    return replace(last, recipe=replace(last.recipe, search=replace(last.recipe.search, rounds=rounds), **keys))


def test_each_round_has_half_the_nets_of_the_one_before_and_doubles_their_steps():
    last, macs = in_rounds(4, steps=(24 + 12 + 2 * 6 + 4 * 3) * LEAST), [100] * 24
    assert last.sizes(macs) == [24, 12, 6, 3] and in_rounds(1, steps=24 * LEAST).sizes(macs) == [24]
    course = courses(last, macs)[0]
    assert course.ends == (LEAST, 2 * LEAST, 4 * LEAST, 8 * LEAST) and course.length.steps == 8 * LEAST
    assert sum(n * course.macs(i) for i, n in enumerate((24, 12, 6, 3))) == pytest.approx(last.macs)
    assert in_rounds(9, 1e9).sizes(macs[:5]) == [5, 3, 2]
    fewer = {steps: in_rounds(4, steps=steps * LEAST).sizes(macs) for steps in (60, 59, 24, 23, 9, 8, 3)}
    assert fewer == {60: [24, 12, 6, 3], 59: [12, 6, 3], 24: [12, 6, 3], 23: [6, 3], 9: [6, 3], 8: [3], 3: [3]}
    assert in_rounds(4, steps=2 * LEAST).sizes(macs) == []


def test_a_net_whose_own_training_is_limited_by_its_macs_is_trained_for_fewer_steps():
    epoch = 100 * 6 * BATCH
    last = in_rounds(1, 40.0 * epoch, train_macs=10.0 * epoch, max_epochs=5, min_steps=0)
    steps = [each.length.steps for each in courses(last, [50, 100, 200, 400])]
    assert steps[0] == steps[1] == steps[2]  # 5 epochs, not 20, 10 and 5
    assert steps[3] == pytest.approx(steps[0] / 2, abs=1)
    equal = courses(replace(last, recipe=replace(last.recipe, epochs=7)), [50, 400])
    assert equal[0].length.steps == equal[1].length.steps


def test_no_finalist_is_trained_for_longer_than_the_net_itself_will_be():
    last = in_rounds(2, 1e12, max_epochs=5, min_steps=0)
    for schedule in (1.0, 2.0):
        last = replace(last, recipe=replace(last.recipe, search=replace(last.recipe.search, schedule=schedule)))
        course = courses(last, [100, 200, 300, 400])[0]
        assert course.ends == (15, 30) and course.length.steps == 5 * 6
    assert courses(replace(last, recipe=replace(last.recipe, epochs=3)), MACS)[0].length.steps == 3 * 6
    longer = replace(last, recipe=replace(last.recipe, stop="seconds"))
    assert courses(longer, MACS)[0].length.steps > 1e6


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


def test_a_finalist_has_one_training_that_is_halted_after_each_round(tmp_path):
    """Halted and killed in between, it ends as in one go; its loss is that of validation and of the last epoch."""
    last, c = play_off(1e9, path=None), finalists(SPACE.largest)[0]
    whole, parts = course_of(20), course_of(7, 12, 20)
    with RunDir.create("search", last.recipe, tmp_path / "run") as run:
        once = last._train(c, whole, run, "once", "once", 0)
        halted = [last._train(c, parts, run, f"round {i}", "halted", i) for i in range(3)]
        weights = [store.load_net(run.path / f"finalist-{name}-trained.safetensors") for name in ("once", "halted")]
        rows = [event for event in run.read_log() if event["event"] == "epoch"]
    assert same_weights(*weights) and once.score == halted[-1].score
    assert [row["step"] for row in rows if row["stage"] == "once"] == [6, 12, 18, 20]
    assert [row["step"] for row in rows if row["stage"] != "once"] == [6, 7, 12, 18, 20]
    val, *late = [(row["val_loss"], row["loss_base"]) for row in reversed(rows) if row["stage"] == "once"][:2]
    assert once.loss == pytest.approx((val[0] + (2 * val[1] + 6 * late[0][1]) / 8) / 2)
    assert halted[-1].loss == pytest.approx(once.loss)
    told = {row["stage"]: row["train_macs"] for row in rows}  # of each round alone, so that they add up
    assert sum(macs for stage, macs in told.items() if stage != "once") == pytest.approx(told["once"])


def course_of(*ends):
    return Course(Length(ends[-1] / 6, 6, 100, BATCH), ends)


@pytest.mark.parametrize("version", [2, 3])
def test_unfinished_rounds_of_a_version_that_trained_otherwise_begin_again(version, tmp_path):
    with RunDir.create("search", Recipe(), tmp_path / "run") as run:
        rounds = [{"a": [50.0, 1.0]}]
        begun = {"format": f"nasaug-finalists/{version}", "candidates": 7, "rounds": rounds}
        files.write_json(run.finalists_file, begun)
        assert begun_with(run.finalists_file) == {
            2: {"format": FORMAT, "candidates": 7, "rounds": []}, 3: begun
        }[version]  # fmt: skip
        last, given = play_off(4e7, path=None), finalists(SPACE.smallest, SPACE.largest)
        stale = run.path / last._checkpoint(SPACE.id(SPACE.smallest))
        stale.write_bytes(b"of another training")
        assert {c.rounds for c in last.decide(given, run)} == {1}
        kept = files.read_json(run.finalists_file, FORMAT)
        assert "a" not in kept["rounds"][0] and kept["candidates"] == 7


def test_finished_rounds_of_a_version_that_trained_otherwise_are_kept(tmp_path, monkeypatch):
    last, given = play_off(4e7, path=None), finalists(SPACE.smallest, SPACE.largest)
    monkeypatch.setattr(PlayOff, "_train", lambda *_: pytest.fail("trained again"))
    with RunDir.create("search", Recipe(), tmp_path / "run") as run:
        rounds = [{SPACE.id(c.arch): [50.0 + i, 2.0 - i] for i, c in enumerate(given)}]
        files.write_json(run.finalists_file, {"format": "nasaug-finalists/3", "candidates": 7, "rounds": rounds})
        assert last.decide(given, run)[0].arch == SPACE.largest


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

    def trained(trainer, *_, **__):
        if trainer.plan == plan(SPACE, SPACE.smallest, 4) or not left:
            raise Diverged("the base loss is nan")
        trainer.history.append({"step": 1, "val_top1": 70.0, "val_loss": 1.0, "loss_base": 1.0})

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
    """At a negligible learning rate its weights are unchanged. What is found starts from the supernet with the
    finalist's own weights as its slice, wherever they came from."""
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
        if c is decided[0]:
            kept = store.load_net(run.start_file)
            assert kept.plan == net.plan
            for ours, theirs in zip(kept.narrow(own).parameters(), begun.narrow(own).parameters(), strict=True):
                assert ours.allclose(theirs)
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

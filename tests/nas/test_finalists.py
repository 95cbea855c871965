"""The play-off: the length of each finalist's training, who wins, and what remains after a stop."""

from dataclasses import replace
from pathlib import Path

import pytest

from nasaug.arch.cost import Budget, cost_of
from nasaug.arch.plan import plan
from nasaug.core.errors import Diverged
from nasaug.nas.finalists import LEAST, PlayOff
from nasaug.nas.results import agreement
from nasaug.nas.study import Candidate, Search
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
    return last.lengths(macs[: counts[0]], len(counts)) if counts else None


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
        assert [replace(c, trained_score=None, rounds=0, epochs=0.0) for c in decided] == given[::-1]
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


def test_a_finalist_is_trained_from_the_supernets_weights_and_judged_on_the_whole_validation_split(tmp_path):
    """At a negligible learning rate it is unchanged."""
    path, net = tmp_path / "supernet.safetensors", Net(plan(SPACE, SPACE.largest, 4), seed=1)
    store.save_net(path, net)
    last = play_off(1e8, path=path)
    last = replace(last, recipe=replace(last.recipe, lr=1e-30, weight_decay=0.0))
    given = finalists(SPACE.smallest, SPACE.largest)
    with RunDir.create("search", last.recipe, tmp_path / "run") as run:
        decided = last.decide(given, run)
        left = {p.name for p in run.path.iterdir()}
        events = [event for event in run.read_log() if event["event"] == "epoch"]
    scorer = last.search.scorer
    for c in decided:
        assert c.trained_score == scorer.score(scorer.calibrated(net, plan(SPACE, c.arch, 4)), last.data.val)
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

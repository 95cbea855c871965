"""The single evaluation protocol for all networks."""

from random import Random

import pytest
import torch
import torch.nn.functional as F

from nasaug import augment
from nasaug.arch.blocks import Spec
from nasaug.arch.plan import from_specs, plan
from nasaug.nets.net import Net
from nasaug.training import scoring
from support.spaces import SPACES
from support.toys import numbers, scorer_of, toy_data


def supernet(name="squeeze"):
    space = SPACES[name]
    return space, Net(plan(space, space.largest, 4), seed=1).train()


# --- calibration images -------------------------------------------------------------------------------------


def test_calibration_images_are_training_images_drawn_once_each():
    data = toy_data(train=200, val=100)
    drawn = numbers(scorer_of(data, 120).calibration)
    assert len(drawn) == len(set(drawn)) == 120
    assert set(drawn) <= set(numbers(data.train)) and not set(drawn) & set(numbers(data.val))
    assert drawn != sorted(drawn)  # a random choice, not the first 120
    every = numbers(scorer_of(data, 500).calibration)  # all images, if there are fewer
    assert sorted(every) == numbers(data.train)


def test_the_seed_decides_which_and_nothing_else_does():
    data = toy_data(train=200)
    drawn = numbers(scorer_of(data, 50, seed=3).calibration)
    torch.manual_seed(11)
    assert numbers(scorer_of(toy_data(train=200), 50, seed=3).calibration) == drawn
    assert set(numbers(scorer_of(data, 50, seed=4).calibration)) != set(drawn)


@pytest.mark.parametrize("resolution", [16, 12])
def test_a_net_is_calibrated_on_all_of_them_as_evaluation_sees_them_at_its_own_resolution(resolution):
    data = toy_data(train=700)
    scorer = scorer_of(data, 600)  # three batches, the last one short
    space, net = supernet()
    p = plan(space, space.arch(space.choices(space.smallest) | {"resolution": resolution}), 4)
    small = scorer.calibrated(net, p)
    raw = torch.cat([images for images, _ in scorer.calibration.ordered(600)])
    x = augment.resize(augment.evaluation(raw, data.mean, data.std), resolution)
    maps = F.conv2d(x, net.stem.weight[:8], None, 2, 1)
    assert torch.allclose(small.stem.norm.running_mean, maps.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(small.stem.norm.running_var, maps.var((0, 2, 3)), rtol=1e-5)


def test_a_last_batch_of_one_image_is_no_fault():
    """A small net ends in maps of one pixel, where a batch of one image has no variance."""
    data = toy_data(train=scoring.SMALL_BATCH + 8, size=4)
    convolutions = [Spec(name, "conv", 4, 0, 3, 2) for name in ("stem", "last")]
    net = Net(from_specs([*convolutions, Spec("pool", "pool"), Spec("classifier", "linear", 4)], 4, 4))
    scorer = scorer_of(data, scoring.SMALL_BATCH + 1)
    assert 0 <= scorer.score(scorer.calibrated(net, net.plan), data.val) <= 100


def test_judging_leaves_the_judged_net_as_it_was():
    data, (_, net) = toy_data(), supernet()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    small = scorer_of(data).calibrated(net, net.plan)
    assert net.training and not small.training
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


# --- top-1 --------------------------------------------------------------------------------------------------


def test_every_image_is_judged_once_and_counts_the_same():
    data = toy_data(val=scoring.SMALL_BATCH + 44)
    scorer, (space, net) = scorer_of(data), supernet()
    small = scorer.calibrated(net, plan(space, space.smallest, 4))
    right = torch.cat(scorer.judged(small, data.val))
    raw, labels = next(data.val.ordered(len(data.val)))
    x = augment.resize(augment.evaluation(raw, data.mean, data.std), small.plan.resolution)
    wanted = small(x).argmax(1) == labels
    assert torch.equal(right, wanted) and len(right) == len(data.val)
    assert scorer.score(small, data.val) == pytest.approx(100 * wanted.float().mean().item())
    assert 0 < wanted.sum() < len(wanted)


def test_a_score_depends_on_nothing_that_was_judged_before():
    data, (space, net) = toy_data(), supernet()
    plans = [plan(space, space.sample(Random(seed)), 4) for seed in range(4)]
    scorer = scorer_of(data)
    scores = [scorer.score(scorer.calibrated(net, p), data.val) for p in plans]
    again = [scorer.score(scorer.calibrated(net, p), data.val) for p in reversed(plans)]
    fresh = scorer_of(data)
    assert scores == again[::-1] == [fresh.score(fresh.calibrated(net, p), data.val) for p in plans]


# --- prepared images are kept -------------------------------------------------------------------------------


@pytest.fixture
def prepared(monkeypatch):
    """Counts the images that go through the evaluation transforms."""
    counted, evaluation = [], augment.evaluation

    def counting(images, mean, std):
        counted.append(len(images))
        return evaluation(images, mean, std)

    monkeypatch.setattr(scoring.augment, "evaluation", counting)
    return counted


def test_images_are_prepared_once_for_each_resolution(prepared):
    data, (space, net) = toy_data(), supernet()
    scorer = scorer_of(data, 64)
    plans = [plan(space, space.sample(Random(seed)), 4) for seed in range(6)]
    assert {p.resolution for p in plans} == {12, 16}
    for p in plans:
        scorer.score(scorer.calibrated(net, p), data.val)
    assert sum(prepared) == 2 * (64 + len(data.val))


def test_what_does_not_fit_in_memory_is_prepared_anew_with_the_same_result(prepared, monkeypatch):
    data, (_, net) = toy_data(val=65), supernet()
    kept, scorer = scorer_of(data, 64), scorer_of(data, 64)
    score = kept.score(kept.calibrated(net, net.plan), data.val)
    monkeypatch.setattr(scoring, "CACHED", 64 * 3 * 4 * 16**2)  # just enough for the calibration images in float32
    prepared.clear()
    assert [scorer.score(scorer.calibrated(net, net.plan), data.val) for _ in range(2)] == [score, score]
    assert sum(prepared) == 64 + 2 * 65


def test_what_all_resolutions_together_hold_is_bounded(prepared, monkeypatch):
    scorer, of_one = scorer_of(toy_data()), 40 * 3 * 4 * 16**2
    monkeypatch.setattr(scoring, "CACHED_IN_ALL", of_one + of_one // 2)
    seen = {px: [x for x, _ in scorer.batches(scorer.data.val, px)] for px in (16, 15, 15, 16)}
    assert sum(prepared) == 3 * 40 and seen[15][0].shape[-1] == 15  # 15 px twice: no room was left for them


def test_splits_are_never_mixed_up_even_when_one_takes_the_place_of_another_in_memory():
    data = toy_data()
    scorer = scorer_of(data)
    for place in range(40):
        split = data.train.subset(torch.tensor([place]))
        (_, labels), = scorer.batches(split, 16)
        assert labels.tolist() == split.labels.tolist()
        del split  # the next split may reuse its address

"""Length of a training: epochs, steps, MACs or seconds."""

import math
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from nasaug.arch.cost import cost, cost_of
from nasaug.arch.plan import plan
from nasaug.arch.space import Named
from nasaug.core.errors import BadInput
from nasaug.methods import Base, Baseline, NetAug, Sandwich
from nasaug.training.length import Length, Training, length_of
from support.spaces import made, stage
from support.trainers import base_of, run_to_the_end, trainer_of


def length(method, base, training, images=960, cpu=True):
    space, arch = method.space(base)
    return length_of(training, method, space, arch, base.plan, images, cpu)


def test_epochs_follow_from_the_compute_asked_for():
    base = base_of()
    macs = cost(base.plan).macs
    for asked, epochs in ((7 * 960 * macs, 7), (7.4 * 960 * macs, 7), (1, 1), (1e15, 30)):
        found = length(Baseline(), base, Training(train_macs=asked, batch=96, min_steps=0))
        assert (found.epochs, found.steps_per_epoch, found.macs_per_image) == (epochs, 10, macs)
        assert found.macs == epochs * 960 * macs and found.steps == 10 * epochs
    assert length(Baseline(), base, Training(train_macs=1e15, max_epochs=5, min_steps=0)).epochs == 5
    assert length(Baseline(), base, Training(train_macs=1e15, epochs=2)).epochs == 2


def test_without_a_wish_a_cpu_has_three_trillion_macs_and_a_gpu_all_epochs():
    base = base_of()
    images = round(3e12 / 12 / cost(base.plan).macs)
    assert length(Baseline(), base, Training(), images).epochs == 12
    assert length(Baseline(), base, Training(), images, cpu=False).epochs == 30


def test_a_larger_net_has_more_macs_on_a_cpu_but_sees_fewer_images():
    given = [Training().macs_for(True, macs) for macs in (1e4, 1e6, 2e6, 5e6, 1e9)]
    assert given == pytest.approx([3e12, 3e12, 4.8e12, 7.5e12, 11.964e12], rel=1e-4)
    assert Training(train_macs=1e9).macs_for(True, 1e9) == 1e9
    assert math.isinf(Training().macs_for(False, 1e9))


@pytest.mark.parametrize("seen", [1e5, 5.5e5, 1.1e6, 3e6, 1e9])
def test_the_largest_net_that_sees_so_many_images_has_compute_for_just_these(seen):
    for training in (Training(), Training(train_macs=5e12)):
        size = training.size_for(True, seen)
        assert training.macs_for(True, size) / size == pytest.approx(seen)
    assert math.isinf(Training().size_for(False, seen))


@pytest.mark.parametrize(
    ("images", "steps"), [(45_000, 30 * 351), (8_600, 30 * 67), (8_500, 31 * 66), (540, 2000), (130, 2000), (20, 2000)]
)
@pytest.mark.parametrize("stop", ["epochs", "macs"])
def test_few_images_are_trained_on_for_two_thousand_steps_where_compute_allows(images, steps, stop):
    """max_epochs is meant for many images; with few it would use only a fiftieth of the available compute."""
    found = length(Baseline(), base_of(), Training(stop=stop), images, cpu=False)
    assert found.steps == steps


def test_the_least_steps_are_no_more_than_the_compute_and_no_rule_for_epochs_that_are_given():
    base = base_of()
    epoch = 512 * cost(base.plan).macs  # 4 steps of 128 of the 540 images
    assert length(Baseline(), base, Training(train_macs=90.2 * epoch), 540).epochs == 90
    assert length(Baseline(), base, Training(train_macs=1e15), 540).epochs == 500
    assert length(Baseline(), base, Training(train_macs=1e15, min_steps=161), 540).epochs == 41
    assert length(Baseline(), base, Training(train_macs=1e15, max_epochs=700), 540).epochs == 700
    assert length(Baseline(), base, Training(epochs=3), 540).epochs == 3
    assert length(Baseline(), base, Training(train_macs=1e15, times=0.2), 540).epochs == 100


def test_augmented_nets_enter_by_their_mean():
    base, method = base_of(), NetAug(ladder="factors", width_until=0.5)
    space, arch = method.space(base)
    wide = []
    for seed in range(2000):
        free = ("width", "expand") if seed % 2 else ("expand",)
        wide.append(cost_of(space, space.sample(Random(seed), low=arch, free=free), 4).macs)
    mean = sum(wide) / len(wide)
    found = length(method, base, Training())
    assert found.macs_per_image == pytest.approx(cost(base.plan).macs + mean, rel=0.05)
    assert found == length(method, base, Training())  # seeded
    assert mean > 1.5 * cost(base.plan).macs


def test_fewer_images_than_a_batch_are_one_smaller_batch():
    found = length(Baseline(), base_of(), Training(batch=128), images=50)
    assert (found.batch, found.steps_per_epoch) == (50, 1)
    assert Length(3, 4, 10.0, 8).macs == 3 * 4 * 8 * 10


@pytest.mark.parametrize(
    ("key", "value"),
    [("epochs", 0), ("max_epochs", 0), ("min_steps", -1), ("train_macs", 0.5), ("batch", 1), ("calibration_images", 1),
     ("lr", 0.0), ("lr", -1.0), ("warmup", 1.0), ("label_smoothing", 1.0), ("momentum", 1.0),
     ("momentum", -0.1), ("weight_decay", -1e-4)],
)  # fmt: skip
def test_impossible_training_settings_are_refused_by_name(key, value):
    with pytest.raises(BadInput, match=key):
        Training(**{key: value})


def test_a_training_of_so_many_macs_ends_within_a_step_of_them():
    base, method = base_of(), Baseline()
    space, arch = method.space(base)
    each = cost(base.plan).macs * 16
    for steps in (1, 7, 23):
        training = Training(batch=16, stop="macs", train_macs=float(each * steps))
        trainer = run_to_the_end(trainer_of(method, base, training=training))
        assert trainer.step == steps and trainer.macs == each * steps
        assert trainer.history[-1]["step"] == steps
    assert trainer.learning_rate() == pytest.approx(0.0, abs=1e-6)
    with_teacher = length_of(training, method, space, arch, base.plan, 96, True, lambda views: cost(base.plan).macs)
    assert with_teacher.steps == round(23 / 2)


def test_a_method_whose_nets_are_drawn_trains_until_the_macs_are_reached():
    training = Training(batch=16, stop="macs", train_macs=2e7)
    trainer = run_to_the_end(trainer_of(NetAug(ladder="factors"), training=training))
    last = trainer.macs - trainer.history[-1]["train_macs"]
    assert last == 0 and 2e7 <= trainer.macs < 2e7 + 16 * cost(trainer.net.plan).macs


def test_times_multiplies_any_length():
    base, method = base_of(), Baseline()
    space, arch = method.space(base)

    def length(**more):
        return length_of(Training(batch=16, **more), method, space, arch, base.plan, 96, True)

    assert length(epochs=2, times=3.0).epochs == 6 and length(epochs=2, times=1.5).steps == 18
    assert length(stop="seconds", max_seconds=8.0, times=2.0).seconds == 16.0
    macs = dict(stop="macs", train_macs=1e9)
    assert length(**macs, times=2.0).steps == pytest.approx(2 * length(**macs).steps, abs=1)


def test_a_training_of_so_many_seconds_ends_with_them_and_its_learning_rate_at_zero():
    training = Training(batch=16, lr=0.1, stop="seconds", max_seconds=0.4)
    trainer = run_to_the_end(trainer_of(Baseline(), training=training))
    assert 0.4 <= trainer.seconds < 2 and trainer.progress == 1.0
    assert trainer.learning_rate() == pytest.approx(0.0, abs=1e-6)
    trainer.seconds = 0.0
    assert 0 < trainer.learning_rate() < 0.1
    trainer.seconds = 0.2
    assert trainer.learning_rate() == pytest.approx(0.05, rel=0.1)


def test_the_steps_that_a_method_draws_are_drawn_once(monkeypatch):
    base, method, calls = base_of(), NetAug(ladder="factors", width_until=0.5), []
    passes = NetAug.passes
    monkeypatch.setattr(NetAug, "passes", lambda *args: calls.append(1) or passes(*args))
    first = length(method, base, Training(batch=7))
    calls.clear()
    assert length(replace(method), base, Training(batch=7)) == first and not calls
    assert length(replace(method, augmented=2), base, Training(batch=7)) != first and calls


def test_spaces_whose_named_architectures_differ_have_lengths_of_their_own():
    """They are equal otherwise, but half of a sandwich's nets start from a named one."""
    stages = [stage("stem", "conv", width=[8, 16, 24, 32], kernel=[3, 5, 7]), stage("pool", "pool")]
    space = made({"resolution": 32, "stage": stages})
    named = replace(space, archs={"wide": Named(space.largest, 10)})
    base = Base(plan(space, space.largest, 10), space, space.largest)
    found = [length(Sandwich(), replace(base, space=each), Training()) for each in (space, named)]
    assert space == named and found[0] != found[1]


def test_a_method_that_cannot_be_hashed_has_a_length_too():
    @dataclass(frozen=True)
    class Listed(Baseline):
        some: list = field(default_factory=list)

    assert length(Listed(), base_of(), Training()) == length(Baseline(), base_of(), Training())

"""Whole trainings: learning, evaluation, what is kept, and the timing of steps."""

from functools import partial

import pytest

from nasaug.core import tensorfile
from nasaug.core.errors import BadInput
from nasaug.core.signals import Pending
from nasaug.methods import Baseline, NetAug
from nasaug.training.length import Training, evaluate_every
from nasaug.training.loop import Trainer, fit
from nasaug.training.scoring import Judged
from nasaug.training.timing import time_steps
from support.nets import same
from support.toys import toy_data
from support.trainers import base_of, run_to_the_end, train, trainer_of

# --- timing ------------------------------------------------------------------------------------------------


def test_timing_a_few_steps_leaves_no_trace():
    trainer = train(trainer_of(NetAug()), 2)
    trainer.end_epoch()
    tensors = {name: t.clone() for name, t in trainer.tensors().items()}
    state, twin = trainer.state(), trainer.state()
    assert time_steps(trainer) > 0
    assert same(trainer.tensors(), tensors) and trainer.state() == state == twin


@pytest.mark.parametrize("stop", ["epochs", "macs", "seconds"])
@pytest.mark.parametrize("every", [1, 2, 4, 9])
def test_steps_are_timed_all_over_training_in_whole_cycles(stop, every, monkeypatch):
    """NetAug's first steps are the most expensive; timing only those would overestimate the training."""
    training = Training(epochs=12, batch=16, stop=stop, train_macs=1e9, max_seconds=9.0)
    trainer, seen = trainer_of(NetAug(ladder="factors", every=every), training=training), []
    original = Trainer.train_step

    def train_step(trainer, *batch):
        seen.append((trainer.progress, trainer.step % every))
        original(trainer, *batch)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    time_steps(trainer)
    places = {1: 4, 2: 4, 4: 2, 9: 1}[every]
    assert [cycle for _, cycle in seen[1:]] == list(range(every)) * places
    evenly = [(i + 0.5) / places for i in range(places)]
    assert [p for p, _ in seen[1::every]] == pytest.approx(evenly, abs=0.1)


# --- whole trainings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [Baseline(), NetAug(ladder="factors")], ids=["baseline", "netaug"])
def test_a_training_learns_and_counts_what_it_said_it_would_cost(method):
    training = Training(epochs=8, batch=16, lr=0.1)
    trainer = run_to_the_end(trainer_of(method, data=toy_data(train=128, val=60), training=training))
    assert trainer.step == trainer.length.steps == 64
    assert trainer.macs == pytest.approx(trainer.length.macs, rel=0 if isinstance(method, Baseline) else 0.25)
    assert trainer.best_score == max(row["val_top1"] for row in trainer.history) > 60  # chance: 25
    first, last = trainer.history[0], trainer.history[-1]
    assert last["loss_base"] < first["loss_base"]
    assert [row["step"] for row in trainer.history] == list(range(8, 65, 8))
    assert last["train_macs"] == trainer.macs
    product = trainer.product()
    assert product.plan == base_of().plan and not product.training
    assert trainer.scorer.score(product, trainer.data.val) == trainer.best_score


def test_the_product_is_the_narrowed_base_of_the_epoch_that_was_best_on_validation(monkeypatch):
    trainer = trainer_of(NetAug(), training=Training(epochs=3, batch=16, lr=0.05))
    scores, kept = iter([10.0, 30.0, 30.0]), []
    monkeypatch.setattr(trainer.scorer, "measured", lambda net, split: Judged(next(scores), 1.0))

    def on_epoch(row):
        kept.append(trainer.scorer.calibrated(trainer.net, trainer.plan).state_dict())

    fit(trainer, Pending(), save=lambda: None, on_epoch=on_epoch, tick=lambda trainer: None)
    assert trainer.best_score == 30.0
    assert same(trainer.product().state_dict(), kept[2]) and not same(kept[1], kept[2])


def test_few_images_are_evaluated_seldom_and_the_last_epoch_always():
    trainer = trainer_of(Baseline(), training=Training(epochs=5, batch=16, evaluate_every=2))
    told = []
    fit(trainer, Pending(), save=lambda: None, on_epoch=told.append, tick=lambda trainer: None)
    assert [row["epoch"] for row in told] == [2, 4, 5] and told == trainer.history
    every = partial(evaluate_every, Training())
    assert every(epochs=8, images=45_000, judged=12_048) == 1
    assert every(epochs=150, images=1000, judged=7000) == 10  # 7,000 of the 750 that an epoch may have
    assert every(epochs=40, images=1000, judged=7000) == 4  # at least ten evaluations
    assert every(epochs=4, images=1000, judged=7000) == 1
    assert every(epochs=500, images=540, judged=100) == 13  # of 4 steps: 50 steps apart
    assert every(epochs=2000, images=20, judged=10) == 50
    assert every(epochs=60, images=4000, judged=100) == 2  # of 31 steps
    with pytest.raises(BadInput, match="evaluate_every = 0"):
        Training(evaluate_every=0)


def test_train_accuracy_is_read_on_clean_training_images():
    trainer = run_to_the_end(trainer_of(Baseline(), data=toy_data(train=128, val=60)))
    row = trainer.history[-1]
    small = trainer.scorer.calibrated(trainer.net, trainer.plan)
    assert row["train_top1"] == trainer.scorer.score(small, trainer.scorer.seen)
    assert len(trainer.scorer.seen) == 60


# --- checkpoints ----------------------------------------------------------------------------------------------------


class Renamed(Baseline):
    """Plain training under another name."""


def test_a_checkpoint_of_another_method_is_refused_and_one_that_names_none_is_taken(tmp_path):
    path, own = tmp_path / "checkpoint.safetensors", train(trainer_of(Baseline()), 2)
    own.save(path)
    with pytest.raises(BadInput, match="belongs to another run"):
        trainer_of(Renamed()).load(path)
    tensors, state = tensorfile.read(path)
    assert state.pop("method") == "Baseline"
    tensorfile.write(path, tensors, state)  # as before the method was recorded
    resumed = trainer_of(Baseline())
    resumed.load(path)
    assert same(resumed.tensors(), own.tensors()) and resumed.step == 2

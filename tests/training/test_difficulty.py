"""The difficulty of an image to a teacher: keeping versions, weighting images, driving the magnitude."""

from dataclasses import replace
from random import Random

import pytest
import torch
import torch.nn.functional as F

from nasaug.augment import View, make_view, resize
from nasaug.config.schedule import Constant, Linear
from nasaug.core.errors import BadInput, Diverged
from nasaug.methods import Baseline
from nasaug.tasks import Classify, Target
from nasaug.training.difficulty import Difficulty
from nasaug.training.recipe import Recipe
from nasaug.training.step import Step
from nasaug.training.teacher import TeacherConfig
from support.trainers import batch_of, run_to_the_end, teacher_for, trainer_of


def judged(policy, view=None, **more):
    difficulty = Difficulty(policy, **more)
    trainer = trainer_of(Baseline(), difficulty=difficulty)
    trainer.teacher = teacher_for(trainer)
    trainer.views = {"train": view or View(policy="randaugment", magnitude=9)}
    return trainer


def test_of_several_versions_an_image_is_seen_as_one_that_is_not_too_hard():
    trainer = judged("keep", candidates=3, quantile=0.5)
    batch = batch_of(trainer)
    x, y = Step(trainer, *batch).view("train")
    assert trainer.macs == 3 * 1000 * 16 and y.weight is None
    generator = torch.Generator().manual_seed(Random("0/0/train").getrandbits(62))
    look = {"mean": trainer.data.mean, "std": trainer.data.std}
    several = [make_view(trainer.views["train"], batch[0], generator, **look) for _ in range(3)]
    px = trainer.plan.resolution
    losses = torch.stack([F.cross_entropy(trainer.teacher(resize(s, px)), batch[1], reduction="none") for s in several])
    bound = losses.flatten().quantile(0.5)
    for i in range(16):
        fits = [k for k in range(3) if losses[k, i] <= bound]
        expected = fits[0] if fits else int(losses[:, i].argmin())
        assert torch.equal(x[i], several[expected][i])


def test_easy_images_count_for_more():
    trainer = judged("weight")
    step = Step(trainer, *batch_of(trainer))
    x, y = step.view("train")
    hard = F.cross_entropy(trainer.teacher(resize(x, trainer.plan.resolution)), y.labels, reduction="none")
    assert y.weight.mean().item() == pytest.approx(1.0, rel=1e-5)
    assert torch.equal(y.weight.argsort(), hard.argsort(descending=True))
    out = step.run(x, trainer.base)
    each = F.cross_entropy(out, y.labels, label_smoothing=0.1, reduction="none")
    assert step.loss(out, y).item() == pytest.approx((each * y.weight).mean().item(), rel=1e-5)
    soft = torch.randn_like(out).softmax(1)
    task = Classify(out.shape[1], temperature=2.0, hard=0.5, soft_weight=0.3)
    apart = [task.loss(out[i : i + 1], Target(y.labels[i : i + 1], soft[i : i + 1])) for i in range(len(out))]
    whole = task.loss(out, Target(y.labels, soft, y.weight))
    assert whole.item() == pytest.approx((torch.stack(apart) * y.weight).mean().item(), rel=1e-4)


@pytest.mark.parametrize(("policy", "judges"), [("keep", 3), ("weight", 1), ("drive", 1)])
def test_a_teacher_judges_images_and_gives_their_soft_targets_in_one_pass_unless_they_are_mixed(policy, judges):
    for mixup in (0.0, 0.4) if policy != "weight" else (0.0,):  # which excludes mixing
        trainer = judged(policy, View(policy="randaugment", mixup=mixup), candidates=3)
        trainer.task = Classify(4, temperature=2.0, soft_weight=1.0)
        x, y = Step(trainer, *batch_of(trainer)).view("train")
        expected = (trainer.teacher(resize(x, trainer.plan.resolution)) / 2).softmax(1)
        assert torch.allclose(y.soft, expected, atol=1e-5)
        assert trainer.macs == 1000 * 16 * (judges + (mixup > 0))
        recipe = Recipe(views=trainer.views, teacher=TeacherConfig("t"), difficulty=trainer.difficulty)
        assert recipe.teacher_passes({"train"}) == judges + (mixup > 0)


@pytest.mark.parametrize("policy", ["keep", "weight", "drive"])
def test_a_teacher_that_gives_no_numbers_is_a_fault(policy):
    trainer = judged(policy)
    with torch.no_grad():
        next(trainer.teacher.net.parameters()).fill_(float("nan"))
    magnitude = trainer.magnitude
    with pytest.raises(Diverged, match="mean difficulty is nan at step 0; .*give another teacher.source"):
        trainer.train_step(*batch_of(trainer))
    assert trainer.magnitude == magnitude


def test_images_are_augmented_at_the_magnitude_that_the_difficulty_drives():
    trainer = judged("drive", target=5.0, rate=1.0)
    batch, look = batch_of(trainer), {"mean": trainer.data.mean, "std": trainer.data.std}

    def at(magnitude):
        generator = torch.Generator().manual_seed(Random("0/0/train").getrandbits(62))
        return make_view(replace(trainer.views["train"], magnitude=Constant(magnitude)), batch[0], generator, **look)

    for _ in range(3):
        magnitude = trainer.magnitude
        x, _ = Step(trainer, *batch).view("train")
        assert torch.equal(x, at(magnitude))
    assert not torch.equal(x, at(9.0))  # the view's own


def test_the_magnitude_is_driven_by_what_the_difficulty_lacks_and_comes_to_rest_at_its_target():
    difficulty = Difficulty("drive", target=1.2, rate=0.5)
    assert difficulty.driven(9.0, 0.4) == pytest.approx(9.4) and difficulty.driven(9.0, 2.2) == pytest.approx(8.5)
    assert difficulty.driven(29.9, 0.2) == 30 and difficulty.driven(0.3, 2.2) == 0
    for magnitude in (0.0, 30.0):
        for _ in range(200):
            magnitude = difficulty.driven(magnitude, 0.2 + magnitude / 10)  # stronger is harder
        assert magnitude == pytest.approx(10.0, abs=0.01)


def test_the_history_tells_the_magnitude_and_its_mean_over_all_steps_also_of_a_resumed_training(tmp_path):
    def trained(trainer, steps):
        used = []
        for _ in range(steps):
            used.append(trainer.magnitude)
            trainer.train_step(*batch_of(trainer, trainer.step % 6))
        return used

    trainer = judged("drive", target=5.0)
    used = trained(trainer, 4)
    trainer.save(tmp_path / "c.safetensors")
    used += trained(trainer, 5)
    row = trainer.end_epoch()
    assert len(set(used)) == 9 and row["magnitude"] == trainer.magnitude
    assert row["mean_magnitude"] == pytest.approx(sum(used) / 9)
    again = judged("drive", target=5.0)
    again.teacher = trainer.teacher
    trained(again, 1)
    again.load(tmp_path / "c.safetensors")
    trained(again, 5)
    assert again.end_epoch()["mean_magnitude"] == row["mean_magnitude"]
    assert "magnitude" not in run_to_the_end(judged("weight")).history[0]


@pytest.mark.parametrize(("target", "rises"), [(100.0, True), (1e-3, False)])
def test_the_magnitude_goes_where_the_difficulty_is_the_target(target, rises, tmp_path):
    trainer = judged("drive", target=target, rate=0.05)
    start = trainer.magnitude
    for number in range(3):
        trainer.train_step(*batch_of(trainer, number))
    assert (trainer.magnitude > start) == rises and 0 <= trainer.magnitude <= 30
    trainer.save(tmp_path / "c.safetensors")
    again = judged("drive", target=target, rate=0.05)
    again.train_step(*batch_of(again))
    again.load(tmp_path / "c.safetensors")
    assert again.magnitude == trainer.magnitude


def test_confidence_is_what_the_teacher_gives_the_label():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    expected = 1 - logits.softmax(1).gather(1, labels[:, None])[:, 0]
    assert torch.allclose(Difficulty("keep", by="confidence").of(logits, labels), expected, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"candidates": 1}, {"quantile": 1.0}, {"target": 0.0}, {"rate": 0.0}])
def test_difficulties_out_of_range_are_refused(wrong):
    with pytest.raises(BadInput, match=f"difficulty.{next(iter(wrong))}"):
        Difficulty(**wrong)


def test_a_difficulty_needs_a_teacher_and_one_that_drives_a_randaugment():
    with pytest.raises(BadInput, match="teacher.source"):
        Recipe(difficulty=Difficulty("keep"))
    taught = {"teacher": TeacherConfig("supernet")}
    for view in (View(), View(policy="randaugment", magnitude=Linear(18.0, 0.0))):
        with pytest.raises(BadInput, match="views.train.policy.*a number"):
            Recipe(difficulty=Difficulty("drive"), views={"train": view}, **taught)
    with pytest.raises(BadInput, match="by = confidence.*below 1"):
        Difficulty("drive", by="confidence")
    assert Difficulty("drive", by="confidence", target=0.5)
    for mixed in ("mixup", "cutmix"):
        with pytest.raises(BadInput, match=f"weight.*{mixed}"):
            Recipe(difficulty=Difficulty("weight"), views={"train": View(**{mixed: 0.2})}, **taught)
    with pytest.raises(BadInput, match="keep.*all the same"):
        Recipe(difficulty=Difficulty("keep"), views={"train": View(flip=False, crop=0, mixup=0.2)}, **taught)
    recipe = Recipe(difficulty=Difficulty("keep", candidates=3), teacher=TeacherConfig("supernet", soft=0.0))
    assert recipe.teacher_passes({"train"}) == 3 and Recipe().teacher_passes({"train"}) == 1

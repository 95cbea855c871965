"""Teachers: their soft targets, what they cost, and where they come from."""

import copy
from dataclasses import replace
from random import Random
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F

from nasaug.arch import archfile
from nasaug.arch.cost import cost, cost_of, sample_near
from nasaug.arch.plan import plan
from nasaug.augment import View, resize
from nasaug.core.errors import BadInput
from nasaug.methods import Baseline, NetAug, drawn
from nasaug.nets.net import Net
from nasaug.nets.store import save_net
from nasaug.tasks import Classify
from nasaug.training.difficulty import Difficulty
from nasaug.training.recipe import Recipe
from nasaug.training.step import Step
from nasaug.training.teacher import TeacherConfig, larger_subnet, renormalised, resolve, torchvision_teacher
from support.nets import same
from support.plans import inverted, plan_of
from support.toys import CPU, toy_data
from support.trainers import base_of, batch_of, run_to_the_end, teacher_for, trainer_of


def test_a_teachers_soft_output_joins_every_loss_and_costs_one_pass_a_view():
    task = Classify(4, 0.1, temperature=2.0, hard=0.3, soft_weight=0.7)
    trainer = trainer_of(NetAug(ladder="factors"))
    plain = trainer.macs
    [loss for _, loss in trainer.method.losses(Step(trainer, *batch_of(trainer)))]
    without = trainer.macs - plain
    trainer.task, trainer.teacher, trainer.macs = task, teacher_for(trainer), 0.0
    step = Step(trainer, *batch_of(trainer))
    x, y = step.view("train")
    net = copy.deepcopy(trainer.teacher.net).eval()
    logits = net(resize(x, trainer.plan.resolution))  # the data have a higher resolution
    assert same(net.state_dict(), trainer.teacher.net.state_dict())  # its norm statistics do not change
    assert x.shape[-1] > trainer.plan.resolution
    assert torch.allclose(y.soft, (logits / 2).softmax(1)) and not y.soft.requires_grad
    out = step.run(x, trainer.base)
    soft = F.kl_div(F.log_softmax(out / 2, 1), (logits / 2).softmax(1), reduction="batchmean")
    hard = F.cross_entropy(out, y.labels, label_smoothing=0.1)
    assert step.loss(out, y).item() == pytest.approx((0.3 * hard + 0.7 * 4 * soft).item(), rel=1e-5)
    trainer.macs = 0.0
    assert len([loss for _, loss in trainer.method.losses(Step(trainer, *batch_of(trainer)))]) == 2
    assert trainer.macs == without + 1000 * len(x)


def test_a_teacher_of_other_normalisation_sees_what_it_was_trained_on():
    net = torch.nn.Identity()
    pixels = torch.rand(4, 3, 5, 5)
    ours, theirs = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.1)), ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))

    def normalised(pair):
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in pair)
        return (pixels - mean) / std

    teacher = renormalised(net, 0, torch.device("cpu"), ours, theirs)
    assert torch.allclose(teacher(normalised(ours)), normalised(theirs), atol=1e-5)


@pytest.mark.parametrize(
    ("method", "difficulty"),
    [
        (NetAug(ladder="factors"), Difficulty()), (NetAug(ladder="factors", wide_view="strong"), Difficulty()),
        (NetAug(ladder="factors", wide_view="strong", every=2, augmented=2), Difficulty("keep", candidates=3)),
        (NetAug(ladder="factors", wide_view="strong", shrink_until=0.5, augmented=0), Difficulty("weight")),
        (NetAug(ladder="factors"), Difficulty("drive")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mixes", [{}, {"mixup": 0.4}, {"cutmix": 1.0}], ids=str)
def test_as_many_passes_of_a_teacher_are_announced_as_are_made(method, difficulty, mixes):
    """For the recipe's 2 epochs of 6 steps."""
    if difficulty.policy == "weight" and mixes:
        difficulty = replace(difficulty, policy="drive")  # the two exclude each other
    views = {"train": View(policy="randaugment", **mixes), "strong": View()}
    recipe = Recipe(method="netaug", netaug=method, views=views, teacher=TeacherConfig("t"), difficulty=difficulty)
    trainer = trainer_of(method, difficulty=difficulty)
    trainer.views, trainer.task = views, Classify(4, soft_weight=1.0)
    trainer.teacher, calls = teacher_for(trainer), []
    trainer.teacher.net.register_forward_hook(lambda *given: calls.append(len(given[1][0])))
    run_to_the_end(trainer)
    images = trainer.step * trainer.length.batch
    of_steps = drawn(method, trainer.space, trainer.base, 4)
    passes = [recipe.teacher_passes({each.view for each in of_step}) for of_step in of_steps]
    assert sum(calls) == images * sum(passes) / len(passes) > 0


def test_a_teacher_without_statistics_is_calibrated_on_training_images(tmp_path):
    """So is a supernet whose averaged weights were kept."""
    trainer, path = trainer_of(Baseline(), data=toy_data(size=12)), tmp_path / "supernet.safetensors"
    net = Net(trainer.plan, 3)

    def teacher():
        save_net(path, net)
        found = archfile.ArchFile(trainer.plan, "mine")
        return resolve(found, TeacherConfig(str(path))).ready(trainer.data, CPU, trainer.scorer).net

    assert not net.has_statistics
    expected = trainer.scorer.calibrated(net, net.plan)
    assert same(teacher().state_dict(), expected.state_dict()) and not teacher().training
    net.calibrate([torch.randn(16, 3, 12, 12)])
    assert same(teacher().state_dict(), net.state_dict())  # unchanged if it has its own


def test_a_supernets_teacher_is_the_largest_net_that_was_drawn_within_its_macs(tmp_path):
    base, save = base_of(), tmp_path / "supernet.safetensors"
    save_net(save, Net(plan(base.space, base.space.largest, 4), 3))
    found = archfile.ArchFile(base.plan, "mine", base.space, base.arch, save)
    here = base.space.trimmed({"resolution": (base.plan.resolution,)})  # at its own of the space's two resolutions
    least, most = (cost_of(here, arch, 4).macs for arch in (here.smallest, here.largest))
    assert larger_subnet(found, 0) == plan(here, here.largest, 4)
    for bound in ((least * most) ** 0.5, most / 2, 1.1 * most):
        rng = Random("teacher")
        drawn = (cost_of(here, sample_near(here, rng, 0.8 * bound, bound, 4), 4).macs for _ in range(200))
        chosen, config = larger_subnet(found, bound), TeacherConfig("supernet", macs=bound)
        assert 0.8 * min(bound, most) < cost(chosen).macs <= bound and chosen.resolution == base.plan.resolution
        assert cost(chosen).macs == max(macs for macs in drawn if macs <= bound) == resolve(found, config).macs
    with pytest.raises(BadInput, match="teacher.macs = 10: no net of space squeeze at 12 px is that small; give more"):
        resolve(found, TeacherConfig("supernet", macs=10))


def test_a_torchvision_teacher_that_cannot_be_had_or_takes_other_images_is_told(monkeypatch):
    import torchvision

    data, plan = toy_data(), plan_of(inverted("a", 24, 96))
    plan = replace(plan, classes=1000)

    def get_model(name, weights):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    with pytest.raises(BadInput, match="torchvision:resnet18: its weights cannot be loaded .*put https.*resnet18"):
        torchvision_teacher("torchvision:resnet18", plan, data, CPU)
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: torch.nn.Conv2d(3, 8, 99))
    with pytest.raises(BadInput, match=f"resnet18 does not accept images of {plan.resolution} px .*give another"):
        torchvision_teacher("torchvision:resnet18", plan, data, CPU)


def test_only_a_supernet_as_teacher_has_a_bound_of_macs():
    assert TeacherConfig("supernet", macs=1e6)
    with pytest.raises(BadInput, match="teacher.macs = 1e[+]06 applies to teacher.source"):
        TeacherConfig("runs/train-1", macs=1e6)


def test_an_unfit_teacher_is_an_error_about_its_key():
    found = archfile.read("mobilenetv2-tiny")
    with pytest.raises(BadInput) as refused:
        resolve(found, TeacherConfig("supernet"))
    error = refused.value
    assert (error.field, error.value) == ("teacher.source", "supernet")
    assert error.rule == "mobilenetv2-tiny names no supernet" and error.remedy == "give a finished run's folder"
    assert str(error) == "teacher.source = supernet: mobilenetv2-tiny names no supernet; give a finished run's folder"


@pytest.mark.parametrize("failure", [MemoryError(), torch.OutOfMemoryError("CUDA"), KeyError("a mistake of ours")])
def test_only_a_wrong_size_is_taken_for_one(monkeypatch, failure):
    import torchvision

    class Fails(torch.nn.Module):
        def forward(self, x):
            raise failure

    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: Fails())
    plan = replace(plan_of(inverted("a", 24, 96)), classes=1000)
    with pytest.raises(type(failure)):
        torchvision_teacher("torchvision:resnet18", plan, toy_data(), CPU)


def test_too_little_memory_for_its_weights_is_no_fault_of_the_network(monkeypatch):
    import torchvision

    def get_model(name, weights):
        raise MemoryError

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    plan = replace(plan_of(inverted("a", 24, 96)), classes=1000)
    with pytest.raises(MemoryError):
        torchvision_teacher("torchvision:resnet18", plan, toy_data(), CPU)

"""What a recipe adds to a method: gradaug's thin nets, netaug's extensions, teachers, noise, averages, lengths."""

import copy
import random
from dataclasses import replace
from random import Random
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_methods import base_of, batch_of, gradients, run_to_the_end, same, trainer_of, weights
from test_plan import inverted, plan_of
from test_scoring import CPU, toy_data

from nasaug.arch import archfile
from nasaug.arch.channels import channel_groups
from nasaug.arch.cost import cost, cost_of, sample_near
from nasaug.arch.derived import Ladders, around, below
from nasaug.arch.plan import plan
from nasaug.augment import View, make_view, resize
from nasaug.augment.transform import Transform, transform
from nasaug.config.layers import load
from nasaug.config.schedule import Constant, Linear
from nasaug.core.errors import BadInput, Diverged
from nasaug.methods import Base, Baseline, Draw, GradAug, NetAug
from nasaug.nets.net import Net, _place
from nasaug.nets.regularisers import Noise
from nasaug.nets.store import save_net
from nasaug.tasks import Classify, Target
from nasaug.training.difficulty import Difficulty
from nasaug.training.length import Training, length_of
from nasaug.training.loop import Step
from nasaug.training.recipe import Recipe
from nasaug.training.teacher import TeacherConfig, renormalised
from nasaug.training.teaching import larger_subnet, teacher_macs, teacher_of, torchvision_teacher

NAMES = "mobilenetv2-tiny mcunet mobilenetv3-w0.35 proxylessnas-w0.35 resnet20-cifar resnet50 wideresnet-16-2".split()
EVERY_ARCH = {name: archfile.read(name, resolution=32, classes=10).plan for name in NAMES}

# --- spaces below and above a plan --------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(EVERY_ARCH))
def test_a_space_below_a_plan_ends_in_it_and_holds_but_slices(name):
    base = EVERY_ARCH[name]
    space, arch = below(base, (0.5, 0.75), (base.resolution // 2,), skip=True)
    assert plan(space, arch, base.classes) == base and arch == space.largest
    rng, seen = Random(0), set()
    for _ in range(20):
        thin = plan(space, space.sample(rng), base.classes)
        assert base.holds(thin) and cost(thin).macs <= cost(base).macs
        seen.add((thin.blocks[0].out, thin.resolution, len(thin.blocks)))
    assert len(seen) > 3


def test_thin_nets_have_one_width_factor_for_all_layers():
    base = plan_of(inverted("a", 24, 96), inverted("b", 24, 144, shortcut="identity"), stem=16)
    space, _ = below(base, (0.5,))
    thin = plan(space, space.smallest, base.classes)
    assert {n: layer.out for n, layer in thin.by_name.items() if n != "classifier"} == {
        n: layer.out // 2 for n, layer in base.by_name.items() if n != "classifier"
    }
    assert thin.by_name["classifier"].out == base.classes


def test_skipped_blocks_are_those_with_an_identity_shortcut():
    base = plan_of(inverted("a", 24, 96), inverted("b", 24, 144, shortcut="identity"))
    space, arch = below(base, (), skip=True)
    assert [axis.name for axis in space.axes if axis.kind == "skip"] == ["b.skip"]
    shorter = plan(space, space.smallest, base.classes)
    assert [b.name for b in shorter.blocks] == [b.name for b in base.blocks if b.name != "b"]


@pytest.mark.parametrize("name", list(EVERY_ARCH))
def test_kernels_and_depths_are_augmented_around_a_plan(name):
    base = EVERY_ARCH[name]
    space, arch = around(base, Ladders(kernel=(0, 2), depth=(0, 1)))
    assert plan(space, arch, base.classes) == base
    largest = plan(space, space.largest, base.classes)
    assert largest.holds(base) and len(largest.blocks) > len(base.blocks)
    kernels_of = [{layer.name: layer.kernel for layer in p.layers} for p in (base, largest)]
    assert any(kernels_of[1][n] == k + 2 for n, k in kernels_of[0].items())
    rng = Random(1)
    for _ in range(10):
        wide = plan(space, space.sample(rng, low=arch), base.classes)
        assert wide.holds(base) and largest.holds(wide)


# --- gradaug --------------------------------------------------------------------------------------------------


def test_gradaug_is_the_full_loss_and_thin_nets_that_match_its_output_on_other_images():
    method = GradAug(num_subnet=2, width=0.5, weight=Constant(0.5))
    trainer = trainer_of(method, transforms={"thin": Transform(rotate=20.0)})
    batch = batch_of(trainer)
    step, again = Step(trainer, *batch), Step(trainer, *batch)
    (x, y), (full, *thin) = step.view("train"), method.nets(again)
    assert full == trainer.base and len(thin) == 2
    twin = Net(trainer.net.plan, 0).train()
    out = twin(resize(x, trainer.plan.resolution))
    expected = [F.cross_entropy(out, y.labels, label_smoothing=0.1)]
    step._passes = 1
    for number, arch in enumerate(thin):
        small = plan(trainer.space, arch, 4)
        step._passes = number + 1
        seen = resize(step.transform("thin", x), small.resolution)
        thin_out = F.log_softmax(twin(seen, small), 1)
        expected.append(0.5 * F.kl_div(thin_out, out.detach().softmax(1), reduction="batchmean"))
    losses = [loss for _, loss in method.losses(Step(trainer, *batch))]
    assert [loss.item() for loss in losses] == pytest.approx([e.item() for e in expected], rel=1e-5, abs=1e-8)


def test_gradaugs_thin_nets_lie_between_the_thinnest_and_the_full_net():
    base, method = base_of(), GradAug(width=0.6, depth=0.5, num_subnet=4)
    space, arch = method.space(base)
    widths, blocks, sizes = set(), set(), set()
    for i in range(60):
        full, *thin = method.nets(Draw(space, arch, 4, i, 0.0, Random(i)))
        assert full == arch
        for values in (space.choices(t) for t in thin):
            assert 0.6 <= values["width"] <= 1.0
            widths.add(values["width"])
            sizes.add(values.get("resolution"))
            blocks.add(tuple(v for n, v in values.items() if n.endswith(".skip")))
    assert len(widths) > 10 and len(sizes) > 1 and len(blocks) > 1
    still = GradAug(width=0.6, depth=1.0).space(base)[0]
    assert not [axis for axis in still.axes if axis.kind == "skip"]


def test_the_full_net_is_never_drawn_as_a_thin_one():
    base, method = base_of(), GradAug(width=0.97, resolutions=(1.0,))
    space, arch = method.space(base)
    drawn = [method.nets(Draw(space, arch, 4, i, 0.0, Random(i)))[1:] for i in range(40)]
    # widths near the full one are rounded to it
    assert all(plan(space, thin, 4) != plan(space, arch, 4) for nets in drawn for thin in nets)
    assert any(method._thin(Draw(space, arch, 4, i, 0.0, Random(i))) != space.smallest for i in range(40))


@pytest.mark.parametrize("settings", [{"width": 1.0}, {"width": 0.999}, {"width": 1.0, "depth": 0.5}])
def test_where_nothing_is_thinner_it_is_refused(settings):
    base = Base(plan_of(inverted("a", 24, 96)))  # without a block that could be left out
    with pytest.raises(BadInput, match="nothing thinner"):
        GradAug(**settings, resolutions=(1.0,)).space(base)


@pytest.mark.parametrize(
    "settings", [{"width": 0.5}, {"width": 0.97, "resolutions": (1.0,)}, {"width": 0.5, "depth": 0.5}]
)
def test_only_the_full_pass_updates_the_statistics(settings):
    trainer = trainer_of(GradAug(num_subnet=2, **settings))
    for number in range(3):
        trainer.train_step(*batch_of(trainer, number))
    assert {int(n.num_batches_tracked) for n in trainer.net._norms} == {3}


def test_a_step_leaves_the_generators_of_others_alone():
    """Whoever seeds or draws from them meets neither other images nor other nets, and is not disturbed."""
    views = {"train": View(policy="randaugment", mixup=0.4, erase=0.5)}
    method = NetAug(ladder="factors")
    trainer = trainer_of(method, noise=Noise(dropout=0.2, stochastic_depth=0.2))
    trainer.views = views
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    trainer.train_step(*batch_of(trainer))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_thin_nets_see_the_mixed_images_and_no_labels():
    trainer = trainer_of(GradAug(num_subnet=1, width=0.5, resolutions=(1.0,)))
    trainer.views = {"train": View(cutmix=1.0)}
    seen, run = [], Step.run
    step = Step(trainer, *batch_of(trainer))
    step.run = lambda x, arch: seen.append(x) or run(step, x, arch)
    assert len(list(trainer.method.losses(step))) == 2
    x, y = Step(trainer, *batch_of(trainer)).view("train")
    assert all(torch.equal(images, x) for images in seen) and y.labels.shape == (16, 4)  # of mixed classes
    plain = trainer_of(GradAug())
    assert not torch.equal(Step(plain, *batch_of(plain)).view("train")[0], x)


def test_gradaug_of_weight_zero_is_plain_training():
    nothing, plain = trainer_of(GradAug(weight=Constant(0.0))), trainer_of(Baseline())
    for trainer in (nothing, plain):
        for number in range(2):
            trainer.train_step(*batch_of(trainer, number))
    assert same(weights(nothing.net), weights(plain.net))


@pytest.mark.parametrize(
    "wrong", [{"num_subnet": 0}, {"width": 0.0}, {"width": 1.5}, {"depth": 0.0}, {"resolutions": ()},
              {"resolutions": (1.0, 0.5)}, {"resolutions": (0.5, 1.5)}],
)  # fmt: skip
def test_gradaugs_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(BadInput, match=f"gradaug.{next(iter(wrong))}"):
        GradAug(**wrong)


# --- netaug's extensions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [0.1, 0.5, 1.0, 100.0])
def test_a_cap_on_the_augmented_passes_holds(cap):
    base, method = base_of(), NetAug(ladder="factors", aug_compute=cap)
    space, arch = method.space(base)
    capped = method.capped(space, arch, 4, 128)
    length = length_of(Training(), capped, space, arch, base.plan, 128, True)
    extra = length.macs_per_image / cost(base.plan).macs - 1
    whole = length_of(Training(), replace(capped, every=1, share=1.0), space, arch, base.plan, 128, True)
    most = min(cap, whole.macs_per_image / cost(base.plan).macs - 1)
    assert 0.9 * most <= extra <= most * (1 + 1e-9)
    assert capped.share * 128 >= 31 or capped.share == 1.0
    with pytest.raises(BadInput, match="aug_compute"):
        NetAug(aug_compute=cap, share=0.5)


def test_several_augmented_nets_share_one_weight():
    method = NetAug(ladder="factors", augmented=3)
    trainer = trainer_of(method)
    names = [name for name, _ in method.losses(Step(trainer, *batch_of(trainer)))]
    assert names == ["base", "wide", "wide", "wide"]
    one = trainer_of(NetAug(ladder="factors"))
    first = [loss.item() for _, loss in method.losses(Step(trainer, *batch_of(trainer)))][1]
    alone = [loss.item() for _, loss in one.method.losses(Step(one, *batch_of(one)))][1]
    assert first == pytest.approx(alone / 3)


def test_the_augmented_net_teaches_the_base_without_a_further_pass():
    method = NetAug(ladder="factors", teach=2.0)
    trainer, plain = trainer_of(method), trainer_of(NetAug(ladder="factors"))
    losses = dict(method.losses(Step(trainer, *batch_of(trainer))))
    told = dict(plain.method.losses(Step(plain, *batch_of(plain))))
    assert list(losses) == ["wide", "base"] and trainer.macs == plain.macs
    assert losses["wide"].item() == pytest.approx(told["wide"].item(), rel=1e-5)
    step = Step(trainer, *batch_of(trainer))
    (x, _), (base, wide) = step.view("train"), method.nets(Step(trainer, *batch_of(trainer)))
    match = step.match(step.run(x, base), step.soft(step.run(x, wide)))
    assert losses["base"].item() == pytest.approx(told["base"].item() + 2 * match.item(), rel=1e-5)


def test_the_wide_nets_can_see_a_view_of_their_own():
    """Strongly augmented images for them, weakly augmented ones for the base (Yu, Zhang, Ma 2023, claim B)."""
    method = NetAug(ladder="factors", wide_view="strong")
    trainer = trainer_of(method)
    trainer.views = {"train": View(), "strong": View(policy="randaugment", magnitude=20)}
    losses = [loss.item() for _, loss in method.losses(Step(trainer, *batch_of(trainer)))]
    step = Step(trainer, *batch_of(trainer))
    base, wide = method.nets(Step(trainer, *batch_of(trainer)))
    passes = (("train", base), ("strong", wide))
    expected = [step.loss(step.run(step.view(v)[0], net), step.view(v)[1]) for v, net in passes]
    assert losses == pytest.approx([e.item() for e in expected], rel=1e-5)
    with pytest.raises(BadInput, match="wide_view"):
        NetAug(wide_view="strong", teach=1.0)
    wide = ["method=netaug", "netaug.wide_view=strong"]
    with pytest.raises(BadInput, match=r"or have \[views.strong\] beside \[views.train\]"):
        load(None, Recipe, wide)
    load(None, Recipe, [*wide, "views.strong.flip=true", "views.train.flip=true"])


@pytest.mark.parametrize("augmented", [0, 1])
def test_a_wide_net_shrinks_to_the_base_before_netaug_begins(augmented):
    """Parameters added, then discarded, as a first phase (Yu, Zhang, Ma 2023, claim B)."""
    method = NetAug(ladder="factors", shrink_until=0.5, augmented=augmented, wide_view="strong")
    space, base = method.space(base_of())
    at = [cost_of(space, method.shrunk(space, p), 4).macs for p in (0, 0.1, 0.2, 0.3, 0.4, 0.5)]
    assert at == sorted(set(at), reverse=True) and method.shrunk(space, 0) == space.largest
    assert method.shrunk(space, 0.5) == base
    trainer = trainer_of(method)
    trainer.views = {"train": View(), "strong": View(policy="randaugment", magnitude=20)}
    step = Step(trainer, *batch_of(trainer))
    ((name, loss),) = method.losses(step)
    alone = Step(trainer, *batch_of(trainer))
    x, y = alone.view("strong")
    assert name == "wide" and loss.item() == alone.loss(alone.run(x, space.largest), y).item()
    assert trainer.macs == 2 * len(x) * cost_of(space, space.largest, 4).macs
    trainer.step = trainer.length.steps // 2
    assert [name for name, _ in method.losses(Step(trainer, *batch_of(trainer)))] == ["base", "wide"][: 1 + augmented]


def test_what_a_shrinking_net_has_left_behind_is_not_sorted_into_it_again():
    method = NetAug(ladder="factors", shrink_until=0.5, augmented=0)
    trainer = trainer_of(method)
    trainer.step = trainer.length.steps // 4
    small = channel_groups(plan(trainer.space, method.shrunk(trainer.space, trainer.progress), 4))
    groups = channel_groups(trainer.net.plan)
    name = next(n for n, g in groups.items() if "." in n and small[n].size < g.size)
    with torch.no_grad():  # what was left behind matters most
        for reader, dim in groups[name].readers:
            weight = trainer.net.get_parameter(reader)
            weight.narrow(dim, small[name].size, groups[name].size - small[name].size).mul_(100)
    before = trainer.net.importance(groups[name])
    method.on_epoch(trainer)
    after, kept = trainer.net.importance(groups[name]), small[name].size
    assert same({"": after[kept:]}, {"": before[kept:]})
    assert torch.equal(after[:kept], before[:kept].sort(descending=True).values)
    trainer.step = trainer.length.steps * 3 // 4
    unsorted = weights(trainer.net)
    method.on_epoch(trainer)
    assert same(weights(trainer.net), unsorted)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shrink_until": 1.1}, {"augmented": 0}, {"shrink_until": 0.5, "aug_compute": 0.2},
        *({"shrink_until": 0.5, "augmented": 0} | more for more in ({"teach": 1.0}, {"every": 2}, {"share": 0.5})),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_go_with_a_shrinking_net_is_refused(wrong):
    with pytest.raises(BadInput, match="netaug"):
        NetAug(**wrong)


def test_what_a_supernets_ladder_augments_is_told():
    base = base_of()
    assert {axis.kind for axis in NetAug().space(base)[0].axes if len(axis.choices) > 1} == {"width", "expand"}
    space, _ = NetAug(kinds=("kernel", "depth")).space(base)
    assert {axis.kind for axis in space.axes if len(axis.choices) > 1} == {"kernel", "depth"}


@pytest.mark.parametrize(
    "wrong", [{"kernel_more": (0, 1)}, {"depth_more": (1,)}, {"augmented": 0}, {"aug_compute": -1.0}, {"teach": -0.5},
              {"kinds": ()}],
)  # fmt: skip
def test_netaugs_extensions_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(BadInput, match=f"netaug.{next(iter(wrong))}"):
        NetAug(**wrong)


# --- teachers -------------------------------------------------------------------------------------------------


def teacher_for(trainer, seed=5):
    net = Net(trainer.plan, seed)
    net.train().calibrate([torch.randn(16, 3, trainer.plan.resolution, trainer.plan.resolution)])
    net.train()
    return renormalised(net, 1000, torch.device("cpu"), ((0.5,), (0.1,)), ((0.5,), (0.1,)))


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
    logits = net(resize(x, trainer.plan.resolution))  # the data are larger
    assert same(net.state_dict(), trainer.teacher.net.state_dict())  # its norms learn nothing
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


def test_targets_are_cut_together():
    target = Target(torch.arange(6), torch.rand(6, 3))
    assert target.first(2).labels.tolist() == [0, 1] and len(target.first(2).soft) == 2
    assert Target(torch.arange(6)).first(2).soft is None


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
    """Of the recipe's: 2 epochs of 6 steps."""
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
    assert sum(calls) == images * recipe.teacher_passes(method) > 0


def test_a_teacher_without_statistics_is_calibrated_on_training_images(tmp_path):
    """As is a supernet whose averaged weights were kept."""
    trainer, path = trainer_of(Baseline(), data=toy_data(size=12)), tmp_path / "supernet.safetensors"
    net, recipe = Net(trainer.plan, 3), Recipe(teacher=TeacherConfig(str(path)))

    def teacher():
        save_net(path, net)
        return teacher_of(archfile.ArchFile(trainer.plan, "mine"), recipe, trainer.data, CPU, trainer.scorer).net

    assert not net.has_statistics
    expected = trainer.scorer.calibrated(net, net.plan)
    assert same(teacher().state_dict(), expected.state_dict()) and not teacher().training
    net.calibrate([torch.randn(16, 3, 12, 12)])
    assert same(teacher().state_dict(), net.state_dict())  # as it was, where it has its own


def test_a_supernets_teacher_is_the_largest_net_that_was_drawn_within_its_macs(tmp_path):
    base, save = base_of(), tmp_path / "supernet.safetensors"
    save_net(save, Net(plan(base.space, base.space.largest, 4), 3))
    found = archfile.ArchFile(base.plan, "mine", base.space, base.arch, save)
    here = base.space.trimmed({"resolution": (base.plan.resolution,)})  # at its own, of the space's two
    least, most = (cost_of(here, arch, 4).macs for arch in (here.smallest, here.largest))
    assert larger_subnet(found, 0) == plan(here, here.largest, 4)
    for bound in ((least * most) ** 0.5, most / 2, 1.1 * most):
        rng = Random("teacher")
        drawn = (cost_of(here, sample_near(here, rng, 0.8 * bound, bound, 4), 4).macs for _ in range(200))
        chosen, config = larger_subnet(found, bound), TeacherConfig("supernet", macs=bound)
        assert 0.8 * min(bound, most) < cost(chosen).macs <= bound and chosen.resolution == base.plan.resolution
        assert cost(chosen).macs == max(macs for macs in drawn if macs <= bound) == teacher_macs(found, config)
    with pytest.raises(BadInput, match="teacher.macs = 10: no net of space squeeze at 12 px has as few; give more, or"):
        teacher_macs(found, TeacherConfig("supernet", macs=10))


def test_a_torchvision_teacher_that_cannot_be_had_or_takes_other_images_is_told(monkeypatch):
    import torchvision

    data, plan = toy_data(), plan_of(inverted("a", 24, 96))
    plan = replace(plan, classes=1000)

    def get_model(name, weights):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    with pytest.raises(BadInput, match="torchvision:resnet18: its weights cannot be had .*put https.*resnet18.* into"):
        torchvision_teacher("torchvision:resnet18", plan, data, CPU)
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: torch.nn.Conv2d(3, 8, 99))
    with pytest.raises(BadInput, match=f"resnet18 takes no images of {plan.resolution} px .*give another teacher"):
        torchvision_teacher("torchvision:resnet18", plan, data, CPU)


# --- noise ----------------------------------------------------------------------------------------------------

RESIDUAL = plan_of(inverted("a", 8, 16), inverted("b", 8, 16, shortcut="identity"))


@pytest.mark.parametrize(
    "noise", [Noise(dropout=0.5), Noise(spatial_dropout=0.5), Noise(dropblock=0.5), Noise(stochastic_depth=0.9)]
)
def test_noise_changes_training_passes_alone(noise):
    net, x = Net(RESIDUAL, 0).train(), torch.randn(8, 3, RESIDUAL.resolution, RESIDUAL.resolution)
    torch.manual_seed(0)
    assert not torch.equal(net(x, None, noise), net(x))
    assert torch.equal(net(x, None, Noise()), net(x))
    net.calibrate([x]).eval()
    assert torch.equal(net(x, None, noise), net(x))


def test_noise_is_drawn_from_the_seed_and_the_step_alone():
    def run(seed):
        torch.manual_seed(seed)
        trainer = trainer_of(NetAug(ladder="factors"), noise=Noise(dropout=0.3, stochastic_depth=0.3))
        before = torch.random.get_rng_state()
        trainer.train_step(*batch_of(trainer))
        assert torch.equal(torch.random.get_rng_state(), before)
        return gradients(trainer.net)

    assert same(run(0), run(1))


@pytest.mark.parametrize("compiled", [True, False])
def test_a_dropped_block_is_its_shortcut(compiled, monkeypatch):
    """In the compiled block too, whose sum with the shortcut is taken apart again."""
    if not compiled:
        monkeypatch.setattr("nasaug.nets.net.fused_block", lambda *given: None)
    net, block = Net(RESIDUAL, 0).train(), RESIDUAL.blocks[2]
    x = torch.randn(64, 8, *block.in_size).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    from nasaug.nets.layers import BatchStats

    plain = net._block(block, x, BatchStats())
    out = net._block(block, x, BatchStats(), Noise(stochastic_depth=0.5), 1.0)
    dropped = torch.tensor([torch.allclose(o, i, atol=1e-5) for o, i in zip(out, x, strict=True)])
    assert 10 < dropped.sum() < 54
    kept = x + (plain - x) / 0.5
    assert torch.allclose(out[~dropped], kept[~dropped], atol=1e-4)


def test_the_last_block_with_a_shortcut_has_the_whole_probability_and_dropblock_fits_the_map():
    net = Net(archfile.read("mobilenetv2-tiny", resolution=32, classes=10).plan, 0)
    branches = [b for b in net.plan.blocks if b.shortcut == "identity"]
    assert [_place(b, branches) for b in branches] == [(i + 1) / len(branches) for i in range(len(branches))]
    assert _place(net.plan.blocks[0], branches) == 0
    net.train()(torch.randn(4, 3, 32, 32), None, Noise(dropblock=0.3))  # maps of 2 and 1 px
    with pytest.raises(BadInput, match="odd"):
        Noise(dropblock=0.1, dropblock_size=2)


@pytest.mark.parametrize("field", ["dropout", "spatial_dropout", "dropblock", "stochastic_depth"])
def test_noise_out_of_range_is_refused(field):
    for wrong in (-0.1, 1.0):
        with pytest.raises(BadInput, match=f"noise.{field}"):
            Noise(**{field: wrong})


# --- transforms -----------------------------------------------------------------------------------------------


def test_a_transform_of_nothing_is_the_images_and_each_image_has_its_own():
    x, g = torch.randn(6, 3, 9, 9), torch.Generator()
    assert transform(Transform(), x, g) is x
    same_image = x[:1].expand(6, -1, -1, -1)
    turned = transform(Transform(rotate=30.0, crop=0.3), same_image, g.manual_seed(0))
    assert len({t.sum().item() for t in turned}) == 6
    assert torch.equal(turned, transform(Transform(rotate=30.0, crop=0.3), same_image, g.manual_seed(0)))


def test_a_quarter_turn_is_one():
    x = torch.randn(1, 1, 8, 8)
    for seed in range(50):
        turned = transform(Transform(rotate=180.0), x, torch.Generator().manual_seed(seed))
        assert turned.abs().max() <= x.abs().max() + 1e-5
    assert torch.allclose(transform(Transform(rotate=1e-9), x, torch.Generator()), x, atol=1e-5)


# --- the average of weights, and how long a training is -------------------------------------------------------


def test_averaged_weights_are_what_is_judged():
    training = Training(epochs=2, batch=16, lr=0.05, ema=0.5)
    trainer = trainer_of(Baseline(), training=training)
    expected = {name: p.detach().clone() for name, p in trainer.net.named_parameters()}
    for number in range(4):
        decay = min(0.5, (1 + trainer.step) / (10 + trainer.step))
        trainer.train_step(*batch_of(trainer, number))
        for name, p in trainer.net.named_parameters():
            expected[name] = torch.lerp(expected[name], p.detach(), 1 - decay)
    averaged = dict(trainer.average.named_parameters())
    assert all(torch.allclose(averaged[name], e, atol=1e-6) for name, e in expected.items())
    trainer.end_epoch()
    assert same({n: trainer.best[n] for n in expected}, {n: p.detach() for n, p in averaged.items()})


def test_averaged_weights_are_sorted_with_their_weights_and_saved(tmp_path):
    training = Training(epochs=2, batch=16, lr=0.05, ema=0.9)
    trainer, other = (trainer_of(NetAug(ladder="factors"), training=training) for _ in range(2))
    trainer.train_step(*batch_of(trainer))
    before = weights(trainer.average)
    trainer.method.on_epoch(trainer)
    after = weights(trainer.average)
    assert not same(before, after)
    assert all(sorted(before[n].flatten().tolist()) == sorted(after[n].flatten().tolist()) for n in before)
    trainer.save(tmp_path / "c.safetensors")
    other.load(tmp_path / "c.safetensors")
    assert same(weights(other.average), after)


def test_momentum_is_sorted_or_left_as_told():
    lying, sorted_ = (trainer_of(NetAug(ladder="factors", sort_momentum=flag)) for flag in (False, True))
    for trainer in (lying, sorted_):
        trainer.train_step(*batch_of(trainer))
        before = {name: t.clone() for name, t in trainer.momentum().items()}
        trainer.method.on_epoch(trainer)
        assert same(before, trainer.momentum()) == (trainer is lying)


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
    with_teacher = length_of(training, method, space, arch, base.plan, 96, True, teacher=cost(base.plan).macs)
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


def test_train_accuracy_is_read_on_clean_training_images():
    trainer = run_to_the_end(trainer_of(Baseline(), data=toy_data(train=128, val=60)))
    row = trainer.history[-1]
    small = trainer.scorer.calibrated(trainer.net, trainer.plan)
    assert row["train_top1"] == trainer.scorer.score(small, trainer.scorer.seen)
    assert len(trainer.scorer.seen) == 60


def test_views_mix_and_change_with_progress():
    trainer = trainer_of(Baseline())
    trainer.views = {"train": View(mixup=1.0)}
    _, y = Step(trainer, *batch_of(trainer)).view("train")
    assert y.labels.shape == (16, 4) and torch.allclose(y.labels.sum(1), torch.ones(16))
    trainer.views = {"train": View(policy="randaugment", magnitude=Linear(0.0, 30.0), crop=0.0, flip=False)}
    strong = []
    for step in (0, trainer.length.steps - 1):
        trainer.step = step
        x, _ = Step(trainer, *batch_of(trainer)).view("train")
        trainer.views["plain"] = View(crop=0.0, flip=False)
        plain, _ = Step(trainer, *batch_of(trainer)).view("plain")
        strong.append((x - plain).abs().mean().item())
    assert strong[1] > strong[0]


# --- difficulty ----------------------------------------------------------------------------------------------


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
        assert recipe.teacher_passes(Baseline()) == judges + (mixup > 0)


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
            magnitude = difficulty.driven(magnitude, 0.2 + magnitude / 10)  # harder the stronger
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


def test_only_a_supernet_as_teacher_has_a_bound_of_macs():
    assert TeacherConfig("supernet", macs=1e6)
    with pytest.raises(BadInput, match="teacher.macs = 1e[+]06 is of teacher.source"):
        TeacherConfig("runs/train-1", macs=1e6)


def test_a_difficulty_needs_a_teacher_and_one_that_drives_a_randaugment():
    with pytest.raises(BadInput, match="teacher.source"):
        Recipe(difficulty=Difficulty("keep"))
    taught = {"teacher": TeacherConfig("supernet")}
    for view in (View(), View(policy="randaugment", magnitude=Linear(18.0, 0.0))):
        with pytest.raises(BadInput, match="views.train.policy.*a number"):
            Recipe(difficulty=Difficulty("drive"), views={"train": view}, **taught)
    with pytest.raises(BadInput, match="by confidence.*below 1"):
        Difficulty("drive", by="confidence")
    assert Difficulty("drive", by="confidence", target=0.5)
    for mixed in ("mixup", "cutmix"):
        with pytest.raises(BadInput, match=f"weight.*{mixed}"):
            Recipe(difficulty=Difficulty("weight"), views={"train": View(**{mixed: 0.2})}, **taught)
    with pytest.raises(BadInput, match="keep.*all alike"):
        Recipe(difficulty=Difficulty("keep"), views={"train": View(flip=False, crop=0, mixup=0.2)}, **taught)
    recipe = Recipe(difficulty=Difficulty("keep", candidates=3), teacher=TeacherConfig("supernet", soft=0.0))
    assert recipe.teacher_passes(Baseline()) == 3 and Recipe().teacher_passes(Baseline()) == 1

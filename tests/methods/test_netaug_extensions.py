"""NetAug's extensions: capped compute, several augmented nets, views of their own, and shrinking."""

from dataclasses import replace

import pytest
import torch

from nasaug.arch.channels import channel_groups
from nasaug.arch.cost import cost, cost_of
from nasaug.arch.plan import plan
from nasaug.augment import View
from nasaug.config.layers import load
from nasaug.core.errors import BadInput
from nasaug.methods import NetAug
from nasaug.training.length import Training, length_of
from nasaug.training.recipe import Recipe
from nasaug.training.step import Step
from support.nets import same
from support.trainers import base_of, batch_of, nets_of, trainer_of, weights


@pytest.mark.parametrize("cap", [0.1, 0.5, 1.0, 100.0])
def test_a_cap_on_the_augmented_passes_holds(cap):
    base, method = base_of(), NetAug(ladder="factors", aug_compute=cap)
    space, arch = method.space(base)
    capped = method.prepare(space, arch, 4, 128)
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
    (x, _), (base, wide) = step.view("train"), nets_of(method, Step(trainer, *batch_of(trainer)))
    match = step.match(step.run(x, base), step.soft(step.run(x, wide)))
    assert losses["base"].item() == pytest.approx(told["base"].item() + 2 * match.item(), rel=1e-5)


def test_the_wide_nets_can_see_a_view_of_their_own():
    """Strongly augmented images for the wide nets, weakly augmented ones for the base (Yu, Zhang, Ma 2023, claim B)."""
    method = NetAug(ladder="factors", wide_view="strong")
    trainer = trainer_of(method)
    trainer.views = {"train": View(), "strong": View(policy="randaugment", magnitude=20)}
    losses = [loss.item() for _, loss in method.losses(Step(trainer, *batch_of(trainer)))]
    step = Step(trainer, *batch_of(trainer))
    base, wide = nets_of(method, Step(trainer, *batch_of(trainer)))
    passes = (("train", base), ("strong", wide))
    expected = [step.loss(step.run(step.view(v)[0], net), step.view(v)[1]) for v, net in passes]
    assert losses == pytest.approx([e.item() for e in expected], rel=1e-5)
    with pytest.raises(BadInput, match="wide_view"):
        NetAug(wide_view="strong", teach=1.0)
    wide = ["method=netaug", "netaug.wide_view=strong"]
    with pytest.raises(BadInput, match=r"or add \[views.strong\] beside \[views.train\]"):
        load(None, Recipe, wide)
    load(None, Recipe, [*wide, "views.strong.flip=true", "views.train.flip=true"])


@pytest.mark.parametrize("augmented", [0, 1])
def test_a_wide_net_shrinks_to_the_base_before_netaug_begins(augmented):
    """A first phase in which parameters are added and then discarded (Yu, Zhang, Ma 2023, claim B)."""
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
    with torch.no_grad():  # makes the discarded weights dominate
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
    ("wrong", "field"),
    [
        ({"shrink_until": 1.1}, "shrink_until"), ({"augmented": 0}, "augmented"),
        ({"shrink_until": 0.5, "aug_compute": 0.2}, "aug_compute"),
        *(({"shrink_until": 0.5, "augmented": 0} | more, "augmented")
          for more in ({"teach": 1.0}, {"every": 2}, {"share": 0.5})),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_go_with_a_shrinking_net_is_refused(wrong, field):
    with pytest.raises(BadInput) as refused:
        NetAug(**wrong)
    assert refused.value.field == f"netaug.{field}"


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

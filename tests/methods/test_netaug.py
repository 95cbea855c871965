"""NetAug: law 4, its ladders, and the wider nets that it draws."""

from random import Random

import pytest
import torch
import torch.nn.functional as F

from nasaug.arch.cost import cost, cost_of
from nasaug.arch.plan import plan
from nasaug.augment import resize
from nasaug.config.schedule import Constant, Linear, Steps
from nasaug.core.errors import BadInput
from nasaug.methods import Base, GradAug, NetAug
from nasaug.training.length import Training, length_of
from nasaug.training.step import Step
from support.nets import place, same
from support.plans import inverted, plan_of
from support.trainers import (
    SPACE,
    Only,
    at_12_px,
    base_of,
    batch_of,
    draw_of,
    gradients,
    nets_of,
    train,
    trainer_of,
    weights,
)

# --- law 4 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ladder", ["factors", "supernet"])
def test_netaug_of_weight_zero_is_the_base_slice_alone_bit_for_bit(ladder):
    nothing = NetAug(weight=Constant(0.0), ladder=ladder)
    alone, augmented, real = map(trainer_of, (Only(nothing), nothing, NetAug(ladder=ladder)))
    for number in range(3):
        for trainer in (alone, augmented, real):
            trainer.train_step(*batch_of(trainer, number))
        assert same(gradients(augmented.net), gradients(alone.net))
        assert same(weights(augmented.net), weights(alone.net))
        assert not same(gradients(real.net), gradients(alone.net))


def test_the_base_slices_gradients_are_those_of_the_plain_small_net():
    trainer = trainer_of(Only(NetAug()))
    small = trainer.net.narrow(trainer.plan)
    x, y = Step(trainer, *batch_of(trainer)).view("train")
    F.cross_entropy(small(at_12_px(x)), y.labels, label_smoothing=0.1).backward()
    train(trainer)
    for name, parameter in small.named_parameters():
        gradient = trainer.net.get_parameter(name).grad
        inside = gradient[place(gradient.shape, parameter.shape)]
        assert torch.allclose(inside, parameter.grad, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("method", [NetAug, GradAug])
@pytest.mark.parametrize("weight", [Constant(-1.0), Linear(1.0, -0.5), Steps((0.001, 0.005), (1.0, -1.0, 1.0))])
def test_a_weight_below_0_is_refused(method, weight):
    with pytest.raises(BadInput, match=r"weight = .* reaches -.*at least 0"):
        method(weight=weight)


def test_weight_scales_the_wide_loss_alone_and_follows_its_schedule():
    half = trainer_of(NetAug(weight=Linear(0.5, 0.0), ladder="factors"))
    half.step = half.length.steps // 2
    trainer = trainer_of(NetAug(ladder="factors"))
    trainer.step = half.step
    yielded = [dict(t.method.losses(Step(t, *batch_of(t)))) for t in (half, trainer)]
    assert list(yielded[0]) == ["base", "wide"]
    assert yielded[0]["base"].item() == yielded[1]["base"].item()
    assert yielded[0]["wide"].item() == pytest.approx(0.25 * yielded[1]["wide"].item())


# --- NetAug's ladders ---------------------------------------------------------------------------------------

TOP = {axis.name: axis.choices[-1] for axis in SPACE.axes if axis.kind in ("width", "expand")}


@pytest.mark.parametrize(
    ("ladder", "choices", "chosen"),
    [
        ("auto", {}, "supernet"),
        ("auto", TOP | {"s1.depth": 3}, "factors"),
        ("auto", TOP | {"s1.depth": 3, "s1.b2.expand": 2}, "supernet"),
        ("auto", TOP, "factors"),  # only blocks that it lacks could be wider
        ("supernet", {}, "supernet"),
        ("supernet", TOP | {"s1.depth": 3}, "factors"),
        ("factors", {}, "factors"),
    ],
)
def test_the_ladder_is_the_supernets_where_a_choice_lies_above_the_arch(ladder, choices, chosen):
    base = base_of(**choices)
    method = NetAug(ladder=ladder)
    assert method.chosen_ladder(base) == chosen
    space, arch = method.space(base)
    assert plan(space, space.largest, 4) != base.plan  # there is something to augment with
    assert plan(space, arch, 4) == base.plan and (space.name == "around") == (chosen == "factors")


def test_widths_are_cut_until_the_widest_net_is_within_a_multiple_of_the_base():
    base = base_of()
    whole, (cut, arch) = NetAug().space(base)[0], NetAug(widest=3.0).space(base)
    costs = [cost_of(space, space.largest, 4).macs / cost(base.plan).macs for space in (whole, cut)]
    assert costs[1] < 3 < costs[0] and arch == base.arch == cut.smallest
    for axis, all_of_it in zip(cut.axes, whole.axes, strict=True):
        assert axis.choices == all_of_it.choices[: len(axis.choices)]
        assert axis.kind == "width" or axis.choices == all_of_it.choices


def test_the_supernets_wider_nets_are_not_taken_where_they_hardly_differ_from_the_base():
    base = base_of(**TOP | {"s1.depth": 3, "s1.b2.expand": 2})
    space = NetAug().space(base)[0]
    over = cost_of(space, space.largest, 4).macs / cost(base.plan).macs
    assert 1 < over < 1.5
    assert NetAug(needed=over - 0.01).chosen_ladder(base) == "supernet"
    assert NetAug(needed=over + 0.01).chosen_ladder(base) == "factors"
    assert NetAug(needed=over + 0.01, ladder="supernet").chosen_ladder(base) == "supernet"


def test_a_plan_without_a_space_takes_factors():
    base = Base(base_of().plan)
    assert NetAug().chosen_ladder(base) == "factors"
    assert NetAug().space(base)[0].name == "around"
    with pytest.raises(BadInput, match="netaug.ladder=factors"):
        NetAug(ladder="supernet").space(base)


def test_the_supernets_ladder_holds_all_but_width_and_expand_fixed():
    base = base_of(**{"s1.depth": 2, "s2.kernel": 5, "s1.width": 24, "resolution": 16})
    space, arch = NetAug().space(base)
    assert arch == base.arch == space.smallest
    drawn = [SPACE.choices(space.sample(Random(seed), low=arch)) for seed in range(200)]
    for axis in SPACE.axes:
        values = {choices[axis.name] for choices in drawn}
        if axis.kind not in ("width", "expand") or axis.name.startswith("s1.b3"):
            assert values == {base.space.value(arch, axis.name)}, axis.name
        else:
            assert values == {c for c in axis.choices if c >= base.space.value(arch, axis.name)}, axis.name


def test_an_arch_off_the_ladder_is_the_lowest_of_its_ladder():
    base = base_of(**{"s1.width": 20})
    space, arch = NetAug().space(base)
    assert space.axes[space.index["s1.width"]].choices == (20, 24)
    assert plan(space, arch, 4) == base.plan


def test_factors_and_rounding_come_from_the_method():
    base = Base(plan_of(inverted("a", 24, 96)))
    space, _ = NetAug(width_factors=(1.0, 1.6, 2.2), expand_factors=(1.0, 2.0), round=8).space(base)
    assert space.axes[space.index["a.width"]].choices == (24, 40, 56)
    ratios = space.axes[space.index["a.expand"]].choices
    assert [round(ratio, 6) for ratio in ratios] == [6, 12]
    published = NetAug().space(base)[0]
    assert published.axes[published.index["a.width"]].choices == (24, 43, 62)
    assert len(published.axes[published.index["a.expand"]].choices) == 4


@pytest.mark.parametrize(
    "wrong",
    [{"width_factors": ()}, {"width_factors": (1.5, 2.0)}, {"expand_factors": (1.0, 3.0, 2.0)},
     {"expand_factors": (1.0, 1.0)}, {"width_until": 1.5}, {"round": 0}, {"every": 0}, {"share": 0.0},
     {"share": 1.5}],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(BadInput, match=f"netaug.{next(iter(wrong))}"):
        NetAug(**wrong)


def test_one_wider_net_a_step_in_width_only_for_the_first_share_of_training():
    method, base = NetAug(ladder="factors", width_until=0.5), base_of()
    widths = {0.49: set(), 0.5: set()}
    for progress, seen in widths.items():
        for seed in range(30):
            draw = draw_of(method, base, progress, seed)
            first, wide = nets_of(method, draw)
            assert first == draw.base and draw.space.leq(first, wide)
            width = [i for i, axis in enumerate(draw.space.axes) if axis.kind == "width"]
            seen.add(tuple(wide.values[i] for i in width))
            assert nets_of(method, draw_of(method, base, progress, seed)) == [first, wide]
    assert len(widths[0.49]) > 20 and len(widths[0.5]) == 1


def test_an_augmented_pass_in_every_kth_step_on_a_part_of_the_images_weighted_by_it():
    method = NetAug(ladder="factors", every=3, share=0.25)
    trainer = trainer_of(method)
    batch, names, macs = batch_of(trainer), [], []
    for number in range(6):
        trainer.step, trainer.macs = number, 0.0
        names.append([name for name, _ in method.losses(Step(trainer, *batch))])
        macs.append(trainer.macs)
    assert names == [["base", "wide"], ["base"], ["base"]] * 2
    assert macs[1] == macs[2] < macs[0] < 3 * macs[1]
    trainer.step = 0
    (_, _), (_, loss) = method.losses(Step(trainer, *batch))
    step = Step(trainer, *batch)
    (x, y), (_, wide) = step.view("train"), nets_of(method, step)
    small = plan(trainer.space, wide, 4)
    out = trainer.net(resize(x[:4], small.resolution), small)
    expected = F.cross_entropy(out, y.labels[:4], label_smoothing=0.1) / 4
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_the_augmented_passes_cost_is_known_before_the_start():
    base = base_of()
    lengths = {}
    for every, share in ((1, 1.0), (2, 1.0), (1, 0.5)):
        method = NetAug(ladder="factors", every=every, share=share)
        space, arch = method.space(base)
        lengths[every, share] = length_of(Training(), method, space, arch, base.plan, 64, True).macs_per_image
    least = cost(base.plan).macs
    wide = lengths[1, 1.0] - least
    assert lengths[2, 1.0] - least == pytest.approx(wide / 2, rel=0.1)
    assert lengths[1, 0.5] - least == pytest.approx(wide / 2, rel=1e-6)


def test_netaug_leaves_the_running_statistics_alone():
    trainer = train(trainer_of(NetAug(ladder="factors")), 3)
    assert int(trainer.net.stem.norm.num_batches_tracked) == 0
    assert not trainer.net.stem.norm.running_mean.any()

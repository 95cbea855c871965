"""Methods, and the engine that runs them: law 4, ladders, sorting, the step, its cost and its length."""

import math
import random
from dataclasses import replace
from functools import partial
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_net import place
from test_plan import inverted, plan_of
from test_scoring import CPU, scorer_of, toy_data
from test_space import SPACES

from nasaug.arch.channels import channel_groups
from nasaug.arch.cost import cost, cost_of
from nasaug.arch.plan import BLOCKS, plan
from nasaug.arch.spacefile import load
from nasaug.augment import View, resize
from nasaug.config.schedule import Constant, Linear, Steps
from nasaug.core.errors import BadInput, RunFault
from nasaug.core.signals import Pending
from nasaug.methods import Base, Baseline, Draw, GradAug, NetAug, Sandwich
from nasaug.methods.netaug import sort_channels
from nasaug.nets.net import Net
from nasaug.nets.store import save_net
from nasaug.tasks import Classify, Target
from nasaug.training.job import make_job, start_net
from nasaug.training.length import Length, Training, evaluate_every, length_of
from nasaug.training.loop import Step, Trainer, fit, time_steps
from nasaug.training.recipe import Recipe

SPACE = SPACES["squeeze"]


def base_of(**choices):
    """A network of the small squeeze-excite space, four classes, and its place there."""
    arch = SPACE.arch(SPACE.choices(SPACE.smallest) | choices)
    return Base(plan(SPACE, arch, 4), SPACE, arch)


def trainer_of(method, base=None, *, data=None, seed=0, training=None, net=None, **more):
    base, data = base or base_of(), data or toy_data()
    training = training or Training(epochs=2, batch=16, lr=0.05, weight_decay=0.01)
    space, arch = method.space(base)
    length = length_of(training, method, space, arch, base.plan, len(data.train), cpu=True)
    net = net or Net(plan(space, space.largest, 4), seed)
    return Trainer(
        net, method, space, arch, task=Classify(4, 0.1), data=data, views={"train": View()},
        training=training, length=length, runtime=CPU, scorer=scorer_of(data), seed=seed, **more,
    )  # fmt: skip


def batch_of(trainer, number=0):
    batches = list(trainer.data.train.batches(trainer.length.batch, seed=0, epoch=0))
    return batches[number][:2]


def train(trainer, steps=1):
    for number in range(steps):
        trainer.train_step(*batch_of(trainer, number))
    return trainer


def run_to_the_end(trainer):
    fit(trainer, Pending(), save=lambda: None, on_epoch=lambda row: None, tick=lambda trainer: None)
    return trainer


class Only:
    """One pass of the base in the space of another method: what NetAug adds nothing to."""

    share = 1.0

    def __init__(self, method, loss=lambda step, out, y: step.loss(out, y)):
        self.space, self.on_epoch, self._loss = method.space, lambda trainer: None, loss

    def nets(self, draw):
        return [draw.base]

    def losses(self, step):
        x, y = step.view("train")
        yield "base", self._loss(step, step.run(x, step.base), y)


def at_12_px(x):
    return F.interpolate(x, (12, 12), mode="bilinear", antialias=True)


def weights(net):
    return {name: t.detach().clone() for name, t in net.named_parameters()}


def gradients(net):
    return {name: t.grad.clone() for name, t in net.named_parameters()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


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
        ("auto", TOP, "factors"),  # only blocks that it does not have could be wider
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


def draw_of(method, base, progress=0.0, seed=0):
    space, arch = method.space(base)
    return Draw(space, arch, 4, 0, progress, Random(seed))


def test_one_wider_net_a_step_in_width_only_for_the_first_share_of_training():
    method, base = NetAug(ladder="factors", width_until=0.5), base_of()
    widths = {0.49: set(), 0.5: set()}
    for progress, seen in widths.items():
        for seed in range(30):
            draw = draw_of(method, base, progress, seed)
            first, wide = method.nets(draw)
            assert first == draw.base and draw.space.leq(first, wide)
            width = [i for i, axis in enumerate(draw.space.axes) if axis.kind == "width"]
            seen.add(tuple(wide.values[i] for i in width))
            assert method.nets(draw_of(method, base, progress, seed)) == [first, wide]
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
    (x, y), (_, wide) = step.view("train"), method.nets(step)
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


# --- sorting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_sorting_puts_the_most_important_inner_channels_first_and_changes_no_output(name):
    space = SPACES[name]
    net = Net(plan(space, space.largest, 10), seed=2).double().train()
    p = net.plan
    x = torch.linspace(-2, 2, 8 * 3 * p.resolution**2, dtype=torch.float64).sin()
    x = x.view(8, 3, p.resolution, p.resolution)
    before, streams, out = weights(net), {block.name for block in p.blocks}, net(x)
    momentum = weights(net)  # the same numbers: they must go the same way
    sort_channels(net, net.plan, momentum)
    assert torch.allclose(net(x), out, rtol=1e-9, atol=1e-12)
    assert same(momentum, weights(net)) and not same(momentum, before)
    inner = {name: group for name, group in channel_groups(p).items() if name not in streams}
    assert inner
    for group in inner.values():
        importance = net.importance(group)
        assert torch.equal(importance, importance.sort(descending=True).values)


def test_residual_streams_keep_their_order():
    net = Net(plan(SPACE, SPACE.largest, 4), seed=2)
    groups = channel_groups(net.plan)
    importance = {name: net.importance(groups[name]) for name in ("stem", "s1.b1", "s2", "final", "mix")}
    for values in importance.values():
        assert not torch.equal(values, values.sort(descending=True).values)  # not sorted already
    stem = net.stem.weight.clone()
    sort_channels(net, net.plan, {})
    assert torch.equal(net.stem.weight, stem)
    for name, before in importance.items():
        assert torch.allclose(net.importance(groups[name]), before)


@pytest.mark.parametrize(
    ("sort", "inherited", "progress", "sorts"),
    [
        ("auto", False, 0.0, True),
        ("auto", False, 0.5, False),
        ("auto", True, 0.0, False),
        (True, True, 0.0, True),
        (False, False, 0.0, False),
    ],
)
def test_channels_are_sorted_while_widths_vary_and_weights_are_fresh(sort, inherited, progress, sorts):
    trainer = train(trainer_of(NetAug(ladder="factors", sort=sort), inherited=inherited))
    trainer.step = round(progress * trainer.length.steps)
    before, order = weights(trainer.net), {name: t.clone() for name, t in trainer.momentum().items()}
    trainer.method.on_epoch(trainer)
    assert same(weights(trainer.net), before) != sorts
    assert same(trainer.momentum(), order) != sorts


def test_a_supernet_keeps_its_order():
    """Sorted anew each epoch, its subnets would hold other channels each time."""
    base = Base(plan(SPACE, SPACE.largest, 4), SPACE, SPACE.largest)
    trainer = trainer_of(Sandwich(samples=1, low=1e4, high=1e6), base)
    trainer.train_step(*batch_of(trainer))
    before, momentum = weights(trainer.net), {name: t.clone() for name, t in trainer.momentum().items()}
    trainer.method.on_epoch(trainer)
    assert same(weights(trainer.net), before) and same(trainer.momentum(), momentum)


# --- the other methods --------------------------------------------------------------------------------------


def test_the_baseline_trains_the_plan_alone_and_tracks_its_statistics():
    base = base_of(**{"s1.depth": 2})
    trainer = trainer_of(Baseline(), base)
    assert trainer.net.plan == base.plan and {len(axis.choices) for axis in trainer.space.axes} == {1}
    train(trainer)
    assert int(trainer.net.stem.norm.num_batches_tracked) == 1
    assert list(trainer.losses()) == ["base"]


def test_netaug_leaves_the_running_statistics_alone():
    trainer = train(trainer_of(NetAug(ladder="factors")), 3)
    assert int(trainer.net.stem.norm.num_batches_tracked) == 0
    assert not trainer.net.stem.norm.running_mean.any()


def test_the_sandwich_is_the_largest_the_smallest_and_samples_of_the_size_asked_for():
    method, base = Sandwich(samples=3, every=1, low=30_000, high=80_000), base_of()
    sizes, resolutions, px = [], set(), SPACE.index["resolution"]
    for seed in range(40):
        draw = draw_of(method, Base(base.plan, SPACE, SPACE.largest), seed=seed)
        largest, smallest, *samples = method.nets(draw)
        assert largest == SPACE.largest and len(samples) == 3
        assert differing(smallest, SPACE.smallest) <= {px}
        resolutions.add(smallest.values[px])
        sizes += [cost_of(SPACE, arch, 4).macs for arch in samples]
    assert resolutions == set(SPACE.axes[px].choices)  # at the lowest alone, narrow weights would fit only that
    assert min(sizes) > 20_000 and max(sizes) < 120_000 and len(set(sizes)) > 30


def test_the_largest_net_takes_part_in_every_kth_step_and_the_others_learn_the_labels_without_it():
    trainer = trainer_of(Sandwich(1, 3, 30_000, 80_000), Base(base_of().plan, SPACE, SPACE.largest))
    seen = []
    for number in range(6):
        trainer.step = number
        step = Step(trainer, *batch_of(trainer))
        names = [name for name, _ in trainer.method.losses(step)]
        seen.append((trainer.method.nets(step)[0] == SPACE.largest, names))
    with_largest = (True, ["largest", "smallest_soft", "sample_soft"])
    assert seen == [with_largest, (False, ["smallest", "sample"]), (False, ["smallest", "sample"])] * 2
    trainer.step = 1
    step = Step(trainer, *batch_of(trainer))
    (x, y), smallest = step.view("train"), trainer.method.nets(Step(trainer, *batch_of(trainer)))[0]
    p = plan(SPACE, smallest, 4)
    hard = F.cross_entropy(trainer.net(resize(x, p.resolution), p), y.labels, label_smoothing=0.1)
    assert next(trainer.method.losses(step))[1].item() == pytest.approx(hard.item() / 2, rel=1e-4)


@pytest.mark.parametrize("method", [Baseline(), NetAug(), Sandwich(1, 1, 1e5, 1e6)])
@pytest.mark.parametrize("asked, inherited", [(True, False), (False, False), (True, True)])
def test_fresh_residual_blocks_begin_as_identities_where_asked(tmp_path, method, asked, inherited):
    """Not those of a network whose weights are inherited: they stay as they were trained."""
    space = load("mobilenetv2-small", BLOCKS)
    top, supernet = plan(space, space.largest, 4), tmp_path / "supernet.safetensors"
    base = Base(top, space, space.largest)
    if inherited:
        save_net(supernet, Net(top))
    job = make_job(Recipe(zero_init_residual=asked), method, base, images=64, runtime=CPU)
    net = start_net(replace(job, inherit=supernet if inherited else None))
    blocks = [block for block in net.plan.blocks if block.shortcut == "identity"]
    last = [net.get_parameter(f"{block.layers[-1].name}.norm.weight") for block in blocks]
    assert len(last) > 5 and all(bool(scale.any()) != (asked and not inherited) for scale in last)


def differing(a, b):
    """The places of the axes on which two architectures differ."""
    return {i for i, (v, w) in enumerate(zip(a.values, b.values, strict=True)) if v != w}


def test_the_sandwichs_samples_are_over_the_whole_space_unless_told():
    draws = [draw_of(Sandwich(), Base(base_of().plan, SPACE, SPACE.largest), seed=seed) for seed in range(60)]
    sizes = sorted(cost_of(SPACE, arch, 4).macs for draw in draws for arch in Sandwich().nets(draw)[2:])
    least, most = (cost_of(SPACE, arch, 4).macs for arch in (SPACE.smallest, SPACE.largest))
    middle = math.log(sizes[len(sizes) // 2] / least) / math.log(most / least)
    assert sizes[0] < 2 * least and sizes[-1] > most / 2 and 0.35 < middle < 0.65


def test_smaller_nets_match_the_largests_output_and_teach_it_nothing():
    space, net = SPACE, Net(plan(SPACE, SPACE.largest, 4), seed=3)
    with torch.no_grad():
        net.get_parameter("classifier.weight").mul_(50)  # logits that differ by more than rounding
    trainer = trainer_of(Sandwich(1, 1, 30_000, 80_000), Base(base_of().plan, space, space.largest), net=net)
    step = Step(trainer, *batch_of(trainer))
    x, y = step.view("train")
    yielded = list(trainer.method.losses(step))
    assert [name for name, _ in yielded] == ["largest", "smallest_soft", "sample_soft"]
    drawn = trainer.method.nets(Step(trainer, *batch_of(trainer)))  # the same draws: (seed, step)
    largest, smallest = (plan(space, arch, 4) for arch in drawn[:2])
    teacher = net(x, largest).detach()
    hard = F.cross_entropy(teacher, y.labels, label_smoothing=0.1)
    assert yielded[0][1].item() == pytest.approx(hard.item() / 3, rel=1e-4)  # the mean over three passes
    small = net(resize(x, smallest.resolution), smallest)
    wanted = (teacher.softmax(1) * (teacher.log_softmax(1) - small.log_softmax(1))).sum(1).mean()  # per image
    assert yielded[1][1].item() == pytest.approx(wanted.item() / 3, rel=1e-3)
    yielded[1][1].backward()
    inside, beyond = net.get_parameter("classifier.weight").grad.split([24, 16], dim=1)
    assert inside.any() and not beyond.any()


def test_a_soft_target_is_never_smoothed_and_matches_itself():
    task = Classify(4, label_smoothing=0.3)
    out = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.arange(6) % 4
    soft = task.soft(out)
    assert not soft.requires_grad and torch.allclose(soft, out.softmax(1))
    assert task.match(out, soft).item() == pytest.approx(0, abs=1e-6)
    smooth = F.one_hot(labels, 4) * 0.7 + 0.3 / 4
    assert task.loss(out, Target(labels)).item() == pytest.approx(F.cross_entropy(out, smooth).item())
    assert Classify(4).loss(out, Target(smooth)).item() == pytest.approx(task.loss(out, Target(labels)).item())
    logits = torch.tensor([[0.1, 0.9], [0.7, 0.3]])
    assert task.judge(logits, torch.tensor([1, 1])).tolist() == [True, False]


# --- a step -------------------------------------------------------------------------------------------------


def test_views_come_from_the_seed_and_the_step_alone():
    trainer = trainer_of(Baseline())
    batch = batch_of(trainer)
    x, y = Step(trainer, *batch).view("train")
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    again, _ = Step(trainer, *batch).view("train")
    assert torch.equal(x, again) and torch.equal(y.labels, batch[1]) and x.shape == (16, 3, 16, 16)
    trainer.step = 1
    assert not torch.equal(Step(trainer, *batch).view("train")[0], x)
    assert not torch.equal(Step(trainer_of(Baseline(), seed=1), *batch).view("train")[0], x)
    with pytest.raises(BadInput, match="views.thin"):
        Step(trainer, *batch).view("thin")


def test_architectures_come_from_the_seed_and_the_step_alone():
    def drawn(seed, number):
        trainer = trainer_of(NetAug(), seed=seed)
        trainer.step = number
        return [Step(trainer, *batch_of(trainer)).sample(trainer.base) for _ in range(2)]

    assert drawn(0, 0) == drawn(0, 0)
    assert len({tuple(drawn(seed, number)) for seed in range(3) for number in range(3)}) == 9


def test_every_pass_is_resized_to_its_nets_resolution_and_counted():
    trainer = trainer_of(Sandwich(2, 1, 30_000, 80_000), Base(base_of().plan, SPACE, SPACE.largest))
    passes = []
    trainer.net.register_forward_hook(lambda net, given, out: passes.append((given[0].shape, given[1])))
    train(trainer, 3)
    assert len(passes) == 3 * 4
    assert all(shape == (16, 3, p.resolution, p.resolution) for shape, p in passes)
    assert {p.resolution for _, p in passes} == {12, 16}
    assert trainer.macs == sum(16 * cost(p).macs for _, p in passes)


def test_every_parameter_has_a_gradient_each_step_zero_where_unused():
    trainer = train(trainer_of(Only(NetAug(ladder="factors"))), 2)
    used = trainer.plan.by_name
    inside, beyond = trainer.net.stem.weight.grad.split([8, trainer.net.plan.by_name["stem"].out - 8])
    assert inside.any() and not beyond.any()
    assert all(p.grad is not None and p.grad.stride() == p.stride() for p in trainer.net.parameters())
    assert used["stem"].out == 8


def test_decay_shrinks_weights_even_where_unused_but_never_norms_and_biases():
    nothing = Only(NetAug(ladder="factors"), loss=lambda step, out, y: out.sum() * 0)
    trainer = trainer_of(nothing)
    before = weights(trainer.net)
    rate = trainer.learning_rate()
    train(trainer)
    for name, parameter in trainer.net.named_parameters():
        shrunk = before[name] * (1 - rate * 0.01 * 1.9)  # Nesterov: the gradient and 0.9 of the new momentum
        if parameter.dim() == 1:
            assert torch.equal(parameter, before[name]), name
        else:
            assert torch.allclose(parameter, shrunk, rtol=1e-5, atol=1e-9), name


def test_a_step_is_torchs_nesterov_step():
    trainer = trainer_of(Baseline())
    twin = Net(trainer.net.plan, 0).train()
    groups = [{"params": [p for p in twin.parameters() if p.dim() > 1], "weight_decay": 0.01},
              {"params": [p for p in twin.parameters() if p.dim() == 1], "weight_decay": 0.0}]  # fmt: skip
    plain = torch.optim.SGD(groups, 0.05, momentum=0.9, nesterov=True)
    for number in range(3):
        x, y = Step(trainer, *batch_of(trainer, number)).view("train")
        plain.zero_grad()
        F.cross_entropy(twin(at_12_px(x)), y.labels, label_smoothing=0.1).backward()
        for group in plain.param_groups:
            group["lr"] = trainer.learning_rate()
        plain.step()
        trainer.train_step(*batch_of(trainer, number))
    for one, two in zip(trainer.net.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(one, two, rtol=1e-3, atol=1e-5)


def test_the_learning_rate_warms_up_and_then_falls_as_a_cosine_to_nothing():
    trainer = trainer_of(Baseline(), training=Training(epochs=50, batch=16, lr=0.2, warmup=0.1))
    steps, rates = trainer.length.steps, []
    for trainer.step in range(steps):
        rates.append(trainer.learning_rate())
    warm = steps // 10
    assert rates[:warm] == pytest.approx([0.2 * (i + 1) / (warm + 1) for i in range(warm)])
    assert rates[warm] == max(rates) == pytest.approx(0.2)
    assert all(a > b for a, b in zip(rates[warm:], rates[warm + 1 :], strict=False))
    assert rates[warm + (steps - warm) // 2] == pytest.approx(0.1) and rates[-1] < 1e-3 * 0.2
    trainer.step = 7
    train(trainer)
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {rates[7]}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_a_number_is_a_fault_of_the_run_with_its_remedy(value):
    trainer = trainer_of(Only(Baseline(), loss=lambda step, out, y: out.sum() * value))
    with pytest.raises(RunFault, match="lr=0.025"):
        run_to_the_end(trainer)
    assert trainer.history == [] and trainer.best == {}


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
    """NetAug's are dearest at first: by those alone a training would seem longer than it is."""
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


# --- how long -----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("images", "steps"), [(45_000, 30 * 351), (8_600, 30 * 67), (8_500, 31 * 66), (540, 2000), (130, 2000), (20, 2000)]
)
@pytest.mark.parametrize("stop", ["epochs", "macs"])
def test_few_images_are_trained_on_for_two_thousand_steps_where_compute_allows(images, steps, stop):
    """max_epochs is meant for many images; with few it would leave a fiftieth of the compute that was given."""
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
    scores, kept, judge = iter([10.0, 30.0, 30.0]), [], trainer.scorer.score
    val = trainer.data.val
    monkeypatch.setattr(trainer.scorer, "score", lambda net, split: next(scores) if split is val else judge(net, split))

    def on_epoch(row):
        kept.append(trainer.scorer.calibrated(trainer.net, trainer.plan).state_dict())

    fit(trainer, Pending(), save=lambda: None, on_epoch=on_epoch, tick=lambda trainer: None)
    assert trainer.best_score == 30.0
    assert same(trainer.product().state_dict(), kept[1]) and not same(kept[1], kept[2])


def test_few_images_are_evaluated_seldom_and_the_last_epoch_always():
    trainer = trainer_of(Baseline(), training=Training(epochs=5, batch=16, evaluate_every=2))
    told = []
    fit(trainer, Pending(), save=lambda: None, on_epoch=told.append, tick=lambda trainer: None)
    assert [row["epoch"] for row in told] == [2, 4, 5] and told == trainer.history
    every = partial(evaluate_every, Training())
    assert every(epochs=8, images=45_000, judged=12_048) == 1
    assert every(epochs=150, images=1000, judged=7000) == 10  # 7,000 of the 750 that an epoch may have
    assert every(epochs=40, images=1000, judged=7000) == 4  # ten evaluations at least
    assert every(epochs=4, images=1000, judged=7000) == 1
    assert every(epochs=500, images=540, judged=100) == 13  # of 4 steps: 50 steps apart
    assert every(epochs=2000, images=20, judged=10) == 50
    assert every(epochs=60, images=4000, judged=100) == 2  # of 31 steps
    with pytest.raises(BadInput, match="evaluate_every = 0"):
        Training(evaluate_every=0)

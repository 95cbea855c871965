"""The sandwich rule: the largest net, the smallest, and samples between them."""

import math

import pytest
import torch
import torch.nn.functional as F

from nasaug.arch.cost import cost_of
from nasaug.arch.plan import plan
from nasaug.augment import resize
from nasaug.core.errors import BadInput
from nasaug.methods import Base, Sandwich
from nasaug.nets.net import Net
from nasaug.training.step import Step
from support.trainers import SPACE, base_of, batch_of, draw_of, nets_of, trainer_of


def test_the_sandwich_is_the_largest_the_smallest_and_samples_of_the_size_asked_for():
    method, base = Sandwich(samples=3, every=1, low=30_000, high=80_000), base_of()
    sizes, resolutions, px = [], set(), SPACE.index["resolution"]
    for seed in range(40):
        draw = draw_of(method, Base(base.plan, SPACE, SPACE.largest), seed=seed)
        largest, smallest, *samples = nets_of(method, draw)
        assert largest == SPACE.largest and len(samples) == 3
        assert differing(smallest, SPACE.smallest) <= {px}
        resolutions.add(smallest.values[px])
        sizes += [cost_of(SPACE, arch, 4).macs for arch in samples]
    assert resolutions == set(SPACE.axes[px].choices)  # at the lowest only, narrow weights would fit only that one
    assert min(sizes) > 20_000 and max(sizes) < 120_000 and len(set(sizes)) > 30


def test_the_largest_net_takes_part_in_every_kth_step_and_the_others_learn_the_labels_without_it():
    trainer = trainer_of(Sandwich(1, 3, 30_000, 80_000), Base(base_of().plan, SPACE, SPACE.largest))
    seen = []
    for number in range(6):
        trainer.step = number
        step = Step(trainer, *batch_of(trainer))
        names = [name for name, _ in trainer.method.losses(step)]
        seen.append((step.passes[0].arch == SPACE.largest, names))
    with_largest = (True, ["largest", "smallest_soft", "sample_soft"])
    assert seen == [with_largest, (False, ["smallest", "sample"]), (False, ["smallest", "sample"])] * 2
    trainer.step = 1
    step = Step(trainer, *batch_of(trainer))
    (x, y), smallest = step.view("train"), Step(trainer, *batch_of(trainer)).passes[0].arch
    p = plan(SPACE, smallest, 4)
    hard = F.cross_entropy(trainer.net(resize(x, p.resolution), p), y.labels, label_smoothing=0.1)
    assert next(trainer.method.losses(step))[1].item() == pytest.approx(hard.item() / 2, rel=1e-4)


def test_the_smallest_net_can_be_left_out_of_all_steps():
    method = Sandwich(2, 3, smallest=False, low=60_000, high=80_000)
    trainer = trainer_of(method, Base(base_of().plan, SPACE, SPACE.largest))
    seen = []
    for number in range(4):
        trainer.step = number
        seen.append([name for name, _ in trainer.method.losses(Step(trainer, *batch_of(trainer)))])
    without = ["sample", "sample"]
    assert seen == [["largest", "sample_soft", "sample_soft"], without, without] + seen[:1]
    with pytest.raises(BadInput, match="sandwich.samples = 0 leaves most steps without a network"):
        Sandwich(0, smallest=False)


def test_a_largest_net_above_the_limit_is_drawn_in_its_place():
    whole = cost_of(SPACE, SPACE.largest, 4).macs
    for most, own in ((whole, True), (0.0, True), (0.4 * whole, False)):
        base = Base(base_of().plan, SPACE, SPACE.largest)
        largest = {nets_of(Sandwich(1, 1, most=most), draw_of(Sandwich(), base, seed=seed))[0] for seed in range(12)}
        assert (largest == {SPACE.largest}) == own
        assert own or (len(largest) > 3 and all(cost_of(SPACE, a, 4).macs < 0.5 * whole for a in largest))


def differing(a, b):
    """The indices of the axes on which two architectures differ."""
    return {i for i, (v, w) in enumerate(zip(a.values, b.values, strict=True)) if v != w}


def test_the_sandwichs_samples_are_over_the_whole_space_unless_told():
    draws = [draw_of(Sandwich(), Base(base_of().plan, SPACE, SPACE.largest), seed=seed) for seed in range(60)]
    sizes = sorted(cost_of(SPACE, arch, 4).macs for draw in draws for arch in nets_of(Sandwich(), draw)[2:])
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
    drawn = nets_of(trainer.method, Step(trainer, *batch_of(trainer)))  # the same draws: (seed, step)
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

"""GradAug: the full net's loss, and thin nets that match its output on transformed images."""

from random import Random

import pytest
import torch
import torch.nn.functional as F

from nasaug.arch.plan import plan
from nasaug.augment import View, resize
from nasaug.augment.transform import Transform
from nasaug.config.schedule import Constant
from nasaug.core.errors import BadInput
from nasaug.methods import Base, Baseline, Draw, GradAug
from nasaug.nets.net import Net
from nasaug.training.step import Step
from support.nets import same
from support.plans import inverted, plan_of
from support.trainers import base_of, batch_of, nets_of, trainer_of, weights


def test_gradaug_is_the_full_loss_and_thin_nets_that_match_its_output_on_other_images():
    method = GradAug(num_subnet=2, width=0.5, weight=Constant(0.5))
    trainer = trainer_of(method, transforms={"thin": Transform(rotate=20.0)})
    batch = batch_of(trainer)
    step, again = Step(trainer, *batch), Step(trainer, *batch)
    (x, y), (full, *thin) = step.view("train"), nets_of(method, again)
    assert full == trainer.base and len(thin) == 2
    twin = Net(trainer.net.plan, 0).train()
    out = twin(resize(x, trainer.plan.resolution))
    expected = [F.cross_entropy(out, y.labels, label_smoothing=0.1)]
    step._runs = 1
    for number, arch in enumerate(thin):
        small = plan(trainer.space, arch, 4)
        step._runs = number + 1
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
        full, *thin = nets_of(method, Draw(space, arch, 4, i, 0.0, Random(i)))
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
    drawn = [nets_of(method, Draw(space, arch, 4, i, 0.0, Random(i)))[1:] for i in range(40)]
    # widths near the full one round to it
    assert all(plan(space, thin, 4) != plan(space, arch, 4) for nets in drawn for thin in nets)
    assert any(method._thin(Draw(space, arch, 4, i, 0.0, Random(i))) != space.smallest for i in range(40))


@pytest.mark.parametrize("settings", [{"width": 1.0}, {"width": 0.999}, {"width": 1.0, "depth": 0.5}])
def test_where_nothing_is_thinner_it_is_refused(settings):
    base = Base(plan_of(inverted("a", 24, 96)))  # no block that could be skipped
    with pytest.raises(BadInput, match="leave no thinner version"):
        GradAug(**settings, resolutions=(1.0,)).space(base)


@pytest.mark.parametrize(
    "settings", [{"width": 0.5}, {"width": 0.97, "resolutions": (1.0,)}, {"width": 0.5, "depth": 0.5}]
)
def test_only_the_full_pass_updates_the_statistics(settings):
    trainer = trainer_of(GradAug(num_subnet=2, **settings))
    for number in range(3):
        trainer.train_step(*batch_of(trainer, number))
    assert {int(n.num_batches_tracked) for n in trainer.net._norms} == {3}


def test_thin_nets_see_the_mixed_images_and_no_labels():
    trainer = trainer_of(GradAug(num_subnet=1, width=0.5, resolutions=(1.0,)))
    trainer.views = {"train": View(cutmix=1.0)}
    seen, run = [], Step.run
    step = Step(trainer, *batch_of(trainer))
    step.run = lambda x, arch: seen.append(x) or run(step, x, arch)
    assert len(list(trainer.method.losses(step))) == 2
    x, y = Step(trainer, *batch_of(trainer)).view("train")
    assert all(torch.equal(images, x) for images in seen) and y.labels.shape == (16, 4)  # images of mixed classes
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

"""Small trainers on synthetic data, and what tests compare of them."""

from random import Random

import torch
import torch.nn.functional as F

from nasaug.arch.plan import plan
from nasaug.augment import View
from nasaug.core.signals import Pending
from nasaug.methods import Base, Draw, Method, Pass
from nasaug.nets.net import Net
from nasaug.tasks import Classify
from nasaug.training.length import Training, length_of
from nasaug.training.loop import Trainer, fit
from nasaug.training.teacher import renormalised
from support.spaces import SPACES
from support.toys import CPU, scorer_of, toy_data

SPACE = SPACES["squeeze"]


def base_of(**choices):
    """A network of the small squeeze-excite space, with four classes, and its arch in that space."""
    arch = SPACE.arch(SPACE.choices(SPACE.smallest) | choices)
    return Base(plan(SPACE, arch, 4), SPACE, arch)


def trainer_of(method, base=None, *, data=None, seed=0, training=None, net=None, **more):
    """A trainer of `base` with `method`: two epochs of toy data, unless `training` says otherwise."""
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
    """(images, labels) of one batch of the first epoch."""
    batches = list(trainer.data.train.batches(trainer.length.batch, seed=0, epoch=0))
    return batches[number][:2]


def train(trainer, steps=1):
    """The trainer after that many steps."""
    for number in range(steps):
        trainer.train_step(*batch_of(trainer, number))
    return trainer


def run_to_the_end(trainer):
    """The trainer after its whole training, saving nothing."""
    fit(trainer, Pending(), save=lambda: None, on_epoch=lambda row: None, tick=lambda trainer: None)
    return trainer


class Only(Method):
    """One pass of the base in the space of another method: what NetAug adds nothing to."""

    def __init__(self, method, loss=lambda step, out, y: step.loss(out, y)):
        self._method, self._loss = method, loss

    def space(self, base):
        return self._method.space(base)

    def passes(self, draw):
        return [Pass(draw.base)]

    def losses(self, step):
        x, y = step.view("train")
        yield "base", self._loss(step, step.run(x, step.base), y)


def at_12_px(x):
    return F.interpolate(x, (12, 12), mode="bilinear", antialias=True)


def weights(net):
    """Copies of the parameters by name."""
    return {name: t.detach().clone() for name, t in net.named_parameters()}


def gradients(net):
    """Copies of the gradients by name."""
    return {name: t.grad.clone() for name, t in net.named_parameters()}


def nets_of(method, draw):
    """The architectures of the passes that a method draws for a step."""
    return [each.arch for each in method.passes(draw)]


def draw_of(method, base, progress=0.0, seed=0):
    """The input from which a method draws a step's architectures."""
    space, arch = method.space(base)
    return Draw(space, arch, 4, 0, progress, Random(seed))


def teacher_for(trainer, seed=5):
    """A teacher with the trainer's own plan and other weights, declared to cost 1,000 MACs per image."""
    net = Net(trainer.plan, seed)
    net.train().calibrate([torch.randn(16, 3, trainer.plan.resolution, trainer.plan.resolution)])
    net.train()
    return renormalised(net, 1000, torch.device("cpu"), ((0.5,), (0.1,)), ((0.5,), (0.1,)))

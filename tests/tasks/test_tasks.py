"""Tasks: the registry, the loss and the score of regression, and a custom head in every network."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from nasaug.arch import plan as plans
from nasaug.arch.blocks import Spec
from nasaug.arch.cost import cost
from nasaug.arch.derived import Ladders, around
from nasaug.arch.plan import Head, plan
from nasaug.augment import View
from nasaug.core.errors import BadInput
from nasaug.core.signals import Pending
from nasaug.data import Info
from nasaug.methods import Base, NetAug
from nasaug.nets.net import Net
from nasaug.nets.store import other_classes, save_net
from nasaug.tasks import TASKS, Classify, Metric, Regress, Settings, Target, chosen, of_facts, register
from nasaug.tasks import base as registry_of
from nasaug.training.job import make_job, make_trainer
from nasaug.training.loop import fit
from nasaug.training.recipe import Recipe
from nasaug.training.scoring import Scorer
from support.spaces import SPACES
from support.toys import CPU, toy_data

SPACE = SPACES["squeeze"]
HEAD = Head(6, (Spec("mid", "conv", 5, act="relu"), Spec("mean", "pool"), Spec("end", "linear", 6)), pooled=False)


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(registry_of, "TASKS", dict(TASKS))
    return registry_of.TASKS


def test_the_task_follows_from_the_data_or_is_named(registry):
    classes, numbers = Info("x", 4, 28, False), Info("y", 1, 28, False, "numbers")
    assert (chosen("auto", classes), chosen("auto", numbers)) == (Classify, Regress)
    assert chosen("regress", numbers) is Regress and Classify.outputs(classes) == 4 and Regress.outputs(numbers) == 1

    @register
    @dataclass(frozen=True)
    class Ordered(Classify):
        name: ClassVar[str] = "ordered"

    assert registry["ordered"] is Ordered and chosen("ordered", classes) is Ordered
    assert chosen("auto", classes) is Classify
    with pytest.raises(BadInput, match="task = ordered learns from classes, but y has numbers; choices: regress, auto"):
        chosen("ordered", numbers)
    with pytest.raises(BadInput, match="unknown task 'clasify'; did you mean classify"):
        chosen("clasify", classes)
    with pytest.raises(BadInput, match="a task named 'ordered' is registered already"):
        register(type("Other", (Classify,), {"name": "ordered"}))
    with pytest.raises(BadInput, match=r"register\(Bare\): the class lacks targets, metric, head, "):
        register(type("Bare", (), {"name": "bare"}))


def test_files_of_before_are_classifiers_and_numbers_come_back_in_their_unit():
    assert of_facts({"classes": ["a", "b"]}) == Classify(2)
    task = Regress(10.0, 4.0, hard=0.5)
    assert of_facts(task.facts) == Regress(10.0, 4.0)
    assert task.answer(torch.tensor([[0.0], [-0.5]])).tolist() == [10.0, 8.0]


def test_the_loss_of_numbers_is_of_standardised_ones():
    task, out = Regress(10.0, 4.0, hard=0.5, soft_weight=2.0), torch.tensor([[0.0], [3.0]])
    numbers = torch.tensor([12.0, 10.0])  # 0.5 and 0 when standardised
    alone = (0.5 * 0.5**2 + (3 - 0.5)) / 2
    assert task.loss(out, Target(numbers)).item() == pytest.approx(alone)
    soft = task.soft(torch.tensor([[0.0], [2.0]], requires_grad=True))
    assert not soft.requires_grad and task.match(out, soft).item() == pytest.approx(0.25)
    assert task.loss(out, Target(numbers, soft)).item() == pytest.approx(0.5 * alone + 2 * 0.25)
    weighted = task.loss(out, Target(numbers, None, torch.tensor([2.0, 0.0])))
    assert weighted.item() == pytest.approx(0.5 * 0.5**2)


def test_the_score_of_numbers_is_the_mean_size_of_their_errors():
    task = Regress(10.0, 4.0)
    judged = [task.judge(torch.tensor([[out]]), torch.tensor([13.0])) for out in (0.0, 1.0)]
    assert task.score(judged) == 2.0
    assert task.score([torch.tensor([1.0, float("nan")])]) == task.metric.worst
    errors = torch.randn(400, 200, generator=torch.Generator().manual_seed(0)).abs().mean(1)
    assert task.standard_error(errors.mean().item(), 200) == pytest.approx(errors.std().item(), rel=0.1)


def test_what_all_images_have_is_refused():
    class Data:
        name = "x"
        train = type("Split", (), {"labels": torch.full((3,), 2.5)})

    with pytest.raises(BadInput, match="all 3 training images of x have the number 2.5, so there is nothing to learn"):
        Regress.of_data(Data, Settings())


# --- a head of its own ---


def test_a_heads_blocks_have_names_of_their_own():
    name = plan(SPACE, SPACE.largest, 6).blocks[0].name
    with pytest.raises(ValueError, match=f"both have a block named {name}"):
        plan(SPACE, SPACE.largest, Head(6, (Spec(name, "linear", 6),)))


def test_a_head_takes_the_place_of_the_spaces_own_end():
    usual, own = plan(SPACE, SPACE.largest, 6), plan(SPACE, SPACE.largest, HEAD)
    assert [b.name for b in own.head] == ["mid", "mean", "end"] and [b.name for b in usual.head] == ["classifier"]
    body = [b.spec for b in own.blocks[:-3]]
    assert body == [b.spec for b in usual.blocks[: len(body)]] and usual.blocks[len(body)].spec.block == "pool"
    assert plans.from_dict(own.to_dict()) == own and plans.from_dict(usual.to_dict()) == usual
    assert "head" not in usual.to_dict() and own.to_dict()["classes"] == 6
    assert own.at(own.resolution // 2).head[-1].spec == HEAD.specs[-1]
    assert plan(SPACE, SPACE.largest, Head(6, (Spec("classifier", "linear", 6),))).blocks == usual.blocks


def test_a_net_changes_its_head_and_keeps_the_rest():
    usual = plan(SPACE, SPACE.largest, 6)
    other = usual.of_classes(HEAD)
    assert other == plan(SPACE, SPACE.largest, HEAD) and other.of_classes(4).of_classes(HEAD) == other
    net = Net(usual, 1)
    fresh = net.with_fresh_classifier(HEAD, 2)
    theirs = fresh.state_dict()
    kept = {name: t for name, t in net.state_dict().items() if not name.startswith(("classifier.", "mix."))}
    assert kept and all(torch.equal(t, theirs[name]) for name, t in kept.items())
    assert fresh.plan == other and fresh(torch.randn(2, 3, other.resolution, other.resolution)).shape == (2, 6)


@pytest.mark.parametrize("head", [{"blocks": 99, "pooled": True}, {"blocks": 1}, 3, {"blocks": 0, "pooled": False}])
def test_a_head_in_a_file_that_is_none_is_refused(head):
    data = plan(SPACE, SPACE.largest, HEAD).to_dict()
    with pytest.raises(BadInput, match="must say how many of the"):
        plans.from_dict(data | {"head": head})


def test_wider_nets_have_the_head_too_and_slices_of_it_run():
    base = plan(SPACE, SPACE.smallest, HEAD)
    space, arch = around(base, Ladders((1.0, 1.8), (1.0, 1.6)))
    big = plan(space, space.largest, HEAD)
    assert plan(space, arch, HEAD) == base and big.holds(base) and cost(big).macs > cost(base).macs
    net, x = Net(big).train(), torch.randn(4, 3, base.resolution, base.resolution)
    assert net(x, base).shape == net(x).shape == (4, 6)
    assert torch.allclose(net.narrow(base)(x), net(x, base), atol=1e-5)


@dataclass(frozen=True)
class Twice(Classify):
    """A classifier whose network ends in two linear layers and whose metric is the error rate."""

    name: ClassVar[str] = "twice"
    metric: ClassVar[Metric] = Metric("wrong", "%", higher_is_better=False)

    @property
    def head(self):
        return Head(self.classes, (Spec("wide", "linear", 8, act="relu"), Spec("last", "linear", self.classes)))

    def judge(self, out, labels):
        return out.argmax(1) != labels


@pytest.mark.parametrize("mixup", [0.0, 0.2])
def test_a_task_with_a_head_and_a_metric_of_its_own_is_trained(mixup):
    recipe = Recipe(epochs=8, batch=16, lr=0.1, views={"train": View(mixup=mixup)})
    data, task = toy_data(), Twice(4)
    base = Base(plan(SPACE, SPACE.smallest, task.head))
    job = make_job(recipe, NetAug(), base, images=len(data.train), runtime=CPU)
    trainer = make_trainer(job, data, CPU, Scorer(data, task, CPU, 64))
    assert [b.name for b in trainer.plan.head] == ["wide", "last"]
    assert trainer.net.plan.holds(trainer.plan) and trainer.net.plan != trainer.plan
    fit(trainer, Pending(), save=lambda: None, on_epoch=lambda row: None, tick=lambda trainer: None)
    assert trainer.best_score == min(row["val_wrong"] for row in trainer.history)
    assert trainer.best_row()["val_wrong"] == trainer.scorer.score(trainer.product(), trainer.data.val) < 75


def test_a_net_with_a_head_of_its_own_is_inherited_whole(tmp_path):
    path, head = tmp_path / "model.safetensors", Twice(4).head
    save_net(path, Net(plan(SPACE, SPACE.smallest, head)), classes=["a", "b", "c", "d"])
    assert other_classes(path, head, "it", ["a", "b", "c", "d"]) == other_classes(path, head, "it") == ""
    assert other_classes(path, 4, "it") == "it has a different head from the task's"
    assert other_classes(path, Twice(3).head, "it") == "it has 4 outputs and the data 3"
    told = "the classes of it are a, b, c, … and those of the data e, b, c, …"
    assert other_classes(path, head, "it", ["e", "b", "c", "d"]) == told


def test_the_last_layer_of_any_head_begins_small():
    weights = Net(plan(SPACE, SPACE.largest, Twice(64).head)).state_dict()
    assert weights["last.weight"].std() < 0.025 < weights["wide.weight"].std()


def test_a_damaged_file_of_numbers_is_told_of():
    with pytest.raises(BadInput, match="lacks the mean and std of its numbers"):
        of_facts({"task": "regress"})

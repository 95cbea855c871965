"""Law 8: every shipped recipe and space takes a training step; the published settings are as published."""

import math
import re
from dataclasses import replace

import pytest
import torch

from nasaug.arch import archfile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost, cost_of
from nasaug.arch.plan import plan
from nasaug.arch.spacefile import bundled_names, find_named
from nasaug.arch.spacefile import load as load_space
from nasaug.config.layers import load
from nasaug.config.schedule import Constant
from nasaug.core.files import bundled
from nasaug.data import Data
from nasaug.data.split import MemorySplit
from nasaug.methods import Base, Sandwich
from nasaug.training.device import open_runtime
from nasaug.training.job import make_job, make_scorer, make_trainer
from nasaug.training.recipe import Recipe, default_recipe

torch.set_num_threads(1)

RECIPES = sorted(path.stem for path in bundled("recipes").glob("*.toml"))
TRANSFER = {  # data set: learning rate and dropout published for MobileNetV2-Tiny
    "cars": (0.14, 0.2), "cub200": (0.04, 0.5), "flowers102": (0.08, 0.0), "food101": (0.06, 0.1), "pets": (0.06, 0.1),
}  # fmt: skip
ARCHS = {  # recipes whose name does not end in their network's
    "small": "mobilenetv2-small", "digits": "mobilenetv2-small", "fashion-mnist": "mobilenetv2-small",
    "imagenet": "mobilenetv2-tiny", "detect": "mobilenetv2-small",
    "segment": "mobilenetv2-small",
    **dict.fromkeys(["transfer", *TRANSFER, "imagenet21k-p"], "mobilenetv2-tiny"),
    "cifar": "wideresnet-16-2", "cifar-resnet": "resnet20-cifar",
}  # fmt: skip
every_recipe = pytest.mark.parametrize("name", RECIPES)


def arch_of(recipe):
    return ARCHS.get(recipe) or re.sub("^(imagenet|voc|coco)-", "", recipe)


def made_up_data():
    """48 random images of 32 px in four classes."""
    pixels = torch.randint(0, 256, (48, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    whole = MemorySplit(pixels.to(torch.uint8), torch.arange(48) % 4)
    train, val, test = (whole.subset(part) for part in torch.arange(48).split([32, 8, 8]))
    return Data("made-up", tuple("abcd"), flip=True, train=train, val=val, test=test)


def shrunk_plan(name):
    """The network at 32 px with four classes; of a large one, the smallest net of its space."""
    p = archfile.read(name, resolution=32, classes=4).plan
    space, _ = find_named(name, BLOCKS)
    return p if cost(p).params < 5e6 else plan(space, space.smallest, 4).at(32)


def make(recipe, base, method=None):
    recipe = replace(recipe, batch=8, task="auto")
    data, runtime = made_up_data(), open_runtime("cpu")
    method = method or recipe.chosen_method()
    job = make_job(recipe, method, base, images=len(data.train), runtime=runtime)
    return make_trainer(job, data, runtime, make_scorer(recipe, data, runtime))


def losses_of_one_step(trainer):
    """Losses by name, after checking that every parameter has a gradient and every weight has changed."""
    before = {key: p.detach().clone() for key, p in trainer.net.named_parameters()}
    images, labels, _ = next(trainer.data.train.batches(trainer.length.batch, seed=0, epoch=0))
    trainer.train_step(images, labels)
    for key, p in trainer.net.named_parameters():
        assert p.grad is not None and p.grad.shape == p.shape and bool(p.grad.isfinite().all()), key
        assert p.dim() == 1 or bool((p != before[key]).any()), key
    losses = trainer.losses()  # raises if one is not finite
    assert all(0 < loss < 10 for loss in losses.values())
    return losses


def of_recipe(name):
    return make(load(name, Recipe), Base(shrunk_plan(arch_of(name))))


@every_recipe
def test_a_recipe_takes_one_step_on_made_up_data(name):
    names = ["base"] if load(name, Recipe).method == "baseline" else ["base", "wide"]
    assert list(losses_of_one_step(of_recipe(name))) == names


@pytest.mark.parametrize("name", bundled_names())
def test_the_supernet_of_a_space_takes_one_step_on_made_up_data(name):
    space = load_space(name, BLOCKS)
    space = space.trimmed({axis.name: axis.choices[:2] for axis in space.axes} | {"resolution": (24, 32)})
    low, high = (cost_of(space, arch, 4).macs for arch in (space.smallest, space.largest))
    base = Base(plan(space, space.largest, 4), space, space.largest)
    trainer = make(load("small", Recipe), base, Sandwich(low=low, high=high))
    assert list(losses_of_one_step(trainer)) == ["largest", "smallest_soft", "sample_soft"]


@every_recipe
def test_a_netaug_recipe_has_wider_nets_and_a_baseline_none(name):
    trainer = of_recipe(name)
    wider = trainer.length.macs_per_image / cost(trainer.plan).macs
    assert wider == 1 if load(name, Recipe).method == "baseline" else wider > 2.5


V2 = (1.0, 1.8, 2.6)
PUBLISHED = {  # network: learning rate for how many images, weight decay, width factors
    "mobilenetv2-tiny": (0.025, 128, 4e-5, V2),
    "mobilenetv2-w0.35": (0.025, 128, 4e-5, V2),
    "mobilenetv2": (0.025, 128, 4e-5, V2),
    "proxylessnas-w0.35": (0.025, 128, 4e-5, V2),
    "mobilenetv3-w0.35": (0.1, 128, 3e-5, (1.0, 2.0, 3.0)),
    "mcunet": (0.0125, 64, 4e-5, (1.0, 1.6, 2.2)),
    "resnet50": (0.2, 256, 1e-4, (1.0, 1.6, 2.2)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_settings_of_a_reference_network_are_the_published_ones(name):
    rate, images, decay, widths = PUBLISHED[name]
    recipe = load(f"imagenet-{name}", Recipe)
    assert recipe.lr / recipe.batch == pytest.approx(rate / images)
    assert (recipe.weight_decay, recipe.netaug.width_factors) == (decay, widths)
    expands = (1.0, 1.6, 2.2) if name == "resnet50" else (1.0, 1.6, 2.2, 2.8)
    assert (recipe.netaug.expand_factors, recipe.netaug.ladder) == (expands, "factors")
    assert (recipe.netaug.round, recipe.netaug.weight(0.7)) == (1, 1)
    assert (recipe.epochs, recipe.momentum, recipe.label_smoothing) == (155, 0.9, 0.1)
    assert recipe.warmup * 155 == pytest.approx(5, abs=1e-6)
    assert recipe.calibration_images == 16_000
    view = recipe.views["train"]
    assert (view.flip, view.saturation, view.contrast) == (True, 0.5, 0)
    assert view.brightness == pytest.approx(32 / 255, abs=1e-5)


@pytest.mark.parametrize("name", TRANSFER)
def test_the_settings_of_transfer_are_the_published_ones(name):
    recipe = load(name, Recipe)
    assert (recipe.lr, recipe.noise.dropout) == TRANSFER[name] and recipe.data.name == default_recipe(name) == name
    assert (recipe.epochs, recipe.batch, recipe.method) == (50, 256, "baseline")


def test_imagenet_21k_is_trained_on_as_published():
    recipe, of_1k = load("imagenet21k-p", Recipe), load("imagenet-mobilenetv2-tiny", Recipe)
    assert (recipe.epochs, recipe.batch, recipe.data.name) == (20, 2048, "imagenet21k-p")
    assert recipe.lr / recipe.batch == pytest.approx(of_1k.lr / of_1k.batch) and recipe.netaug == of_1k.netaug


def test_width_augmentation_ends_before_the_81st_of_155_epochs():
    until, steps = load("imagenet", Recipe).netaug.width_until, 155 * 5004
    assert (80 * 5004 - 1) / steps < until <= 80 * 5004 / steps


@pytest.mark.parametrize(("name", "decay"), [("cifar", 5e-4), ("cifar-resnet", 1e-4)])
def test_the_cifar_baselines_are_trained_as_published(name, decay):
    recipe = load(name, Recipe)
    assert (recipe.epochs, recipe.batch, recipe.lr, recipe.weight_decay) == (200, 128, 0.1, decay)
    assert (recipe.method, recipe.label_smoothing, recipe.warmup) == ("baseline", 0, 0)
    view = recipe.views["train"]
    assert (view.flip, view.crop * 32, view.brightness, view.saturation) == (True, 4, 0, 0)


@pytest.mark.parametrize("arm", ["strong-wide", "shrink"])
def test_the_strong_view_of_an_arm_is_the_training_view_under_randaugment(arm):
    for recipe, sets in (("small", ()), ("small", ("views.train.crop=0", "views.train.flip=false")), ("imagenet", ())):
        views = load(recipe, Recipe, sets, [arm]).views
        assert views["strong"] == replace(views["train"], policy="randaugment", magnitude=9, num_ops=2)
        assert views["train"] == load(recipe, Recipe, sets).views["train"]
    assert load("small", Recipe, ("views.train.crop=0",), [arm]).views["strong"].crop == 0


def test_every_recipe_says_what_it_is_for_and_imagenet_has_its_own_default():
    for name in RECIPES:
        first = (bundled("recipes") / f"{name}.toml").read_text().splitlines()[0]
        assert first.startswith("#"), f"{name}: what is it for?"
        if name.startswith("imagenet-"):
            assert f"--arch {arch_of(name)}" in first
        find_named(arch_of(name), BLOCKS)
    assert default_recipe("imagenet") == "imagenet" and default_recipe("cifar10") == "small"
    assert default_recipe("cifar") == default_recipe("photos/imagenet") == "small"  # folders, whatever their names


def test_cudnn_does_not_tune_itself_for_shapes_that_are_drawn_anew_in_each_step(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    assert open_runtime("cuda").accelerated and not torch.backends.cudnn.benchmark


def test_a_magnitude_of_0_throughout_is_no_policy_in_a_training_whether_said_or_from_a_curve(tmp_path):
    (tmp_path / "curve.json").write_text(
        '{"format": "nasaug-curve/1", "intercept": -6, "slope": 1, "low": 0, "high": 9, "data": "", "data_key": ""}'
    )
    base = Base(shrunk_plan("mobilenetv2-tiny"))
    seen = {}
    for magnitude in ("0", "4", f"'{tmp_path}/curve.json'", "{kind = 'linear', start = 9, end = 0}"):
        recipe = load("small", Recipe, [f"views.train.magnitude={magnitude}"], ["randaugment"])
        seen[magnitude] = [make(recipe, Base(p)).views["train"] for p in (base.plan, base.plan.at(16))]
    (zero, _), (four, _), curve, (falling, _) = seen.values()
    assert zero.policy == "none" and (four.policy, four.magnitude) == ("randaugment", Constant(4.0))
    assert falling.policy == "randaugment"  # including its last operators
    sizes = [cost(p).macs for p in (base.plan, base.plan.at(16))]
    assert sizes[0] > 1e6 > sizes[1] and curve[1].policy == "none"
    assert curve[0].policy == "randaugment" and curve[0].magnitude(0) == pytest.approx(math.log10(sizes[0]) - 6)

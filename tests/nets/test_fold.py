"""Exported nets: `fold(net)` equals the evaluated net, in plain torch layers only; `nasaug.load`."""

import io
import re
from itertools import product
from pathlib import Path
from random import Random

import pytest
import torch
from torch import nn
from torch.export import Dim, export

import nasaug
from nasaug.arch import archfile
from nasaug.arch.blocks import BLOCKS, Spec
from nasaug.arch.cost import cost
from nasaug.arch.plan import from_specs, plan
from nasaug.arch.space import ACTS, ORDERS, SHORTCUTS
from nasaug.arch.spacefile import bundled_names, load
from nasaug.core.errors import BadInput
from nasaug.nets.fold import fold
from nasaug.nets.net import Net
from nasaug.nets.store import save_net
from nasaug.pruning import selection
from support.nets import far, images
from support.spaces import every_space

NAMED = [  # without wideresnet-28-10: ten seconds, and the same layers as the other two
    "mobilenetv2-tiny", "mobilenetv2-w0.35", "mobilenetv2", "mobilenetv3-w0.35", "proxylessnas-w0.35", "mcunet",
    "resnet50", "resnet20-cifar", "resnet110-cifar", "wideresnet-16-2", "wideresnet-16-4",
]  # fmt: skip


def scattered(net, seed=0):
    """The net in float32 with random norms and biases, roughly matching statistics, and outputs that vary by image."""
    generator = torch.Generator().manual_seed(seed)

    def draw(t, low, high):
        return low + (high - low) * torch.rand(t.shape, generator=generator)

    with torch.no_grad():
        for name, t in net.named_parameters():
            if t.dim() == 1:
                t.copy_(draw(t, 0.5, 1.5) if name.endswith("norm.weight") else draw(t, -0.5, 0.5))
        net.classifier.weight.mul_(20)
        net.calibrate([images(net.plan, dtype=torch.float32, seed=7)])
        for name, t in net.named_buffers():
            if name.endswith("var"):
                t.mul_(draw(t, 0.8, 1.25))
            elif name.endswith("mean"):
                t.add_(draw(t, -0.1, 0.1))
    return net.eval()


def in_double(net):
    twin = Net(net.plan, None).double()
    twin.load_state_dict(net.state_dict())
    return twin.eval()


def named(name, px=16):
    return archfile.read(name, resolution=px, classes=10).plan


@torch.no_grad()
def check_equal(net):
    """In double precision equal to 1e-10. In single precision, its error against that is at most three times the net's:
    the compiled kernels and torch round differently, and so do torch's memory layouts."""
    exact, x = in_double(net), images(net.plan, 4)
    wanted = exact(x)
    assert (wanted - wanted.mean(0)).abs().max() > 0.03 * wanted.abs().max()  # the outputs depend on the images
    assert far(fold(exact)(x), wanted) < 1e-10
    single = fold(net)(x.float())
    assert single.dtype == torch.float32
    assert far(single, wanted) < 1e-6 + 3 * far(net(x.float()), wanted)


@pytest.mark.parametrize("name", NAMED)
def test_a_named_architecture_folded_is_the_evaluated_net(name):
    check_equal(scattered(Net(named(name))))


@pytest.mark.parametrize("name", ["resnet20-cifar", "wideresnet-16-2"])
def test_in_single_precision_it_is_within_1e_6_where_the_net_is_not_itself_further_off(name):
    net = scattered(Net(named(name)))
    with torch.no_grad():
        x = images(net.plan, 4, torch.float32)
        assert far(fold(net)(x), net(x)) < 1e-6


@pytest.mark.parametrize("name", bundled_names())
def test_nets_of_a_shipped_space_folded_are_the_evaluated_nets(name):
    space = load(name, BLOCKS)
    drawn = [space.sample(Random(name))] if name.endswith("-small") else []  # the others' are large
    for arch in (space.smallest, *drawn):
        check_equal(scattered(Net(plan(space, arch, 10).at(16))))


@every_space
def test_random_subnets_folded_are_the_evaluated_nets(space):
    for seed in range(6):
        check_equal(scattered(Net(plan(space, space.sample(Random(seed)), 10))))


@pytest.mark.parametrize("name", ["mobilenetv3-w0.35", "resnet50", "wideresnet-16-2"])
def test_a_pruned_net_with_odd_widths_folded_is_the_evaluated_net(name):
    net = Net(named(name))
    scores = selection.importance(net)
    smaller = selection.smaller(net.plan, scores, cost(net.plan).macs / 2, selection.least_sizes(net.plan))
    assert any(layer.out % 2 for layer in smaller.layers)
    check_equal(scattered(selection.narrowed(net, smaller, scores)))


def kinds_of_blocks():
    """Every kind of block with every activation, order and shortcut that it supports, also with a change of size."""
    for block, kind in BLOCKS.items():
        acts = ACTS if "act" in kind.takes else [""]
        orders = ORDERS if "order" in kind.takes else ["post"]
        shortcuts = SHORTCUTS if "shortcut" in kind.takes else ["none"]
        for act, order, shortcut, se in product(acts, orders, shortcuts, [0, 2] if "se" in kind.takes else [0]):
            stride = 2 if "stride" in kind.takes and shortcut != "identity" else 1
            width = 0 if "width" not in kind.takes else 5 if shortcut != "identity" else 4
            hidden = 6 if "expand" in kind.takes else 0
            yield Spec("b", block, width, hidden, 3 if "kernel" in kind.takes else 1, stride, act, se, shortcut, order)


def net_around(*specs):
    pools = [] if specs[-1].block in ("pool", "linear") else [Spec("pool", "pool")]
    before = [Spec("shrink", "pool")] if specs[-1].block == "linear" else []
    stem = Spec("stem", "conv", 4, kernel=3, act="relu")
    return scattered(Net(from_specs([stem, *before, *specs, *pools, Spec("classifier", "linear", 3)], 8, 3)))


def test_every_kind_of_block_folded_is_the_evaluated_one():
    specs = list(kinds_of_blocks())
    assert {spec.block for spec in specs} == set(BLOCKS) and len(specs) > 80
    for spec in specs:
        net = in_double(net_around(spec))
        x = images(net.plan, 4)
        assert far(fold(net)(x), net(x)) < 1e-10, spec


# --- what it is made of ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mobilenetv3-w0.35", "resnet20-cifar", "resnet50", "wideresnet-16-2"])
def test_its_tensors_are_what_the_plan_costs(name):
    """Folding turns a norm's two parameters per channel into one bias and keeps the rest, as the flash cost assumes."""
    net = scattered(Net(named(name)))
    p, folded = net.plan, fold(net)
    gone = sum(layer.out for layer in p.layers if layer.op == "conv" and layer.norm and not layer.pre)
    assert sum(t.numel() for t in folded.parameters()) == cost(p).params - gone
    tensors = dict(folded.named_parameters())
    assert sum(t.numel() * (4 if key.endswith("bias") else 1) for key, t in tensors.items()) == cost(p).flash


@pytest.mark.parametrize("name", ["mobilenetv3-w0.35", "wideresnet-16-2"])
def test_no_norm_is_left_but_those_before_a_convolution_or_on_their_own(name):
    net = scattered(Net(named(name)))
    folded = fold(net)
    left = {key for key, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)}
    stay = {f"{x.name}_norm" for x in net.plan.layers if x.pre} | {x.name for x in net.plan.layers if x.op == "norm"}
    assert left == stay and bool(left) == name.startswith("wideresnet")


@every_space
def test_it_has_the_plans_names_and_nothing_of_nasaug(space):
    net = scattered(Net(plan(space, space.largest, 10)))
    folded, x = fold(net), images(net.plan, 4, torch.float32)
    assert not folded.training and {type(m).__module__.partition(".")[0] for m in folded.modules()} == {"torch"}
    for layer in net.plan.layers:
        if layer.op in ("conv", "linear"):
            assert folded.get_submodule(layer.name).weight.shape == net.get_submodule(layer.name).weight.shape
    file = io.BytesIO()
    torch.save(folded, file)
    assert b"nasaug" not in file.getvalue()
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), folded(x))


@every_space
def test_it_can_be_exported_and_traced_and_takes_any_number_of_images(space):
    net = scattered(Net(plan(space, space.largest, 10)))
    folded, x = fold(net), images(net.plan, 4, torch.float32)
    program = export(folded, (x,), dynamic_shapes={"x": {0: Dim("batch")}}).module()
    for inputs in (x, x[:1], images(net.plan, 7, torch.float32, seed=3)):
        assert far(program(inputs), folded(inputs)) < 1e-6
    assert torch.equal(torch.fx.symbolic_trace(folded)(x), folded(x))


def test_names_that_python_or_torch_keep_for_themselves_do_no_harm():
    names = ("global", "graph", "meta", "stem_act")
    net = net_around(*(Spec(name, "conv", 4, kernel=3, act="relu") for name in names))
    folded, x = fold(net), images(net.plan, 4, torch.float32)
    assert far(folded(x), net(x)) < 1e-6
    assert {"global_", "graph_", "meta_", "stem_act", "stem_act_"} <= dict(folded.named_children()).keys()


def test_the_net_is_left_as_it_was_and_shares_nothing():
    net = scattered(Net(named("wideresnet-16-2")))
    before, draws = {name: t.clone() for name, t in net.state_dict().items()}, torch.random.get_rng_state()
    folded = fold(net)
    with torch.no_grad():
        for t in folded.state_dict().values():
            t.add_(1)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), draws)


def test_a_net_without_statistics_is_refused():
    net = Net(named("resnet20-cifar"))
    with pytest.raises(BadInput, match="calibrate") as caught:
        fold(net.eval())
    assert "\n" not in str(caught.value)


# --- from a run -----------------------------------------------------------------------------------------------


def saved(folder, px):
    net = scattered(Net(named("resnet20-cifar", px)))
    folder.mkdir(parents=True)
    save_net(folder / "model.safetensors", net)
    return net


def test_load_gives_the_net_of_a_run_as_an_ordinary_module(tmp_path):
    net = saved(tmp_path / "run", 16)
    x = images(net.plan, 4, torch.float32)
    for source in (tmp_path / "run", str(tmp_path / "run" / "model.safetensors")):
        loaded = nasaug.load(source)
        assert isinstance(loaded, nn.Module) and not loaded.training
        assert torch.equal(loaded(x), net(x))
    loaded.train()(x).square().mean().backward()  # it can be trained further
    assert all(p.grad is not None and p.grad.any() for p in loaded.parameters())


@pytest.mark.parametrize("source", ["nowhere", "."])
def test_load_says_what_is_missing(empty_folder, source):
    with pytest.raises(BadInput, match=r"does not exist; give the folder of a finished run") as caught:
        nasaug.load(source)
    assert "\n" not in str(caught.value)


def test_the_pages_example_runs(empty_folder):
    page = (Path(__file__).resolve().parents[2] / "docs" / "howto" / "python.md").read_text("utf-8")
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "fold(" in code]
    net, found = saved(empty_folder / "runs" / "train-1", 28), {}
    exec(example, found)
    x = images(net.plan, 1, torch.float32)
    assert far(found["program"].module()(x), net(x)) < 1e-5

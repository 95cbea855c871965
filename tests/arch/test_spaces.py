"""The shipped search spaces, the published networks that they name, and errors in a user's own file."""

import copy
import itertools
import json
import re
import tomllib
import warnings
from collections import Counter
from dataclasses import replace
from functools import cache
from random import Random

import pytest
import tomli_w
import torch
import torch.nn.functional as F
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from nasaug.arch import archfile, spacefile
from nasaug.arch import plan as plans
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost
from nasaug.arch.plan import plan, whole
from nasaug.arch.space import Arch
from nasaug.arch.spacefile import bundled_names, from_dict, load
from nasaug.core import files
from nasaug.core.errors import BadInput
from nasaug.nets.layers import LAYERS, Norm
from nasaug.nets.net import Net

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # thop imports distutils
    import thop
    from thop.vision.basic_hooks import count_convNd, count_linear, zero_ops

torch.set_num_threads(1)

REFERENCE = {  # name: input px, classes, MACs, parameters
    "mobilenetv2-tiny": (144, 1000, 23_499_152, 750_280),
    "mobilenetv2-w0.35": (160, 1000, 30_874_800, 1_677_128),
    "mobilenetv3-w0.35": (160, 1000, 19_495_688, 2_109_840),
    "proxylessnas-w0.35": (160, 1000, 35_716_800, 1_781_344),
    "mcunet": (176, 1000, 81_785_520, 737_408),
    "mcunet-in4": (160, 1000, 125_874_400, 1_732_640),
    "mobilenetv2": (224, 1000, 300_774_272, 3_504_872),
    "mobilenetv3-large": (224, 1000, 216_589_760, 5_483_032),
    "resnet18": (224, 1000, 1_814_073_344, 11_689_512),
    "resnet34": (224, 1000, 3_663_761_408, 21_797_672),
    "resnet50": (224, 1000, 4_089_184_256, 25_557_032),
    "resnet20-cifar": (32, 10, 40_813_184, 272_474),
    "resnet110-cifar": (32, 100, 253_155_584, 1_736_564),
    "wideresnet-16-2": (32, 10, 101_106_944, 691_674),
    "wideresnet-16-4": (32, 10, 392_612_352, 2_748_890),
    "wideresnet-28-10": (32, 100, 5_243_386_368, 36_536_884),
}
SMALL = tuple(name for name in bundled_names() if name.endswith("-small"))
every_space = pytest.mark.parametrize("name", bundled_names())
open_space = cache(lambda name: load(name, BLOCKS))


def draws(space, count):
    return [space.sample(Random(f"{space.name}/{i}")) for i in range(count)]


def classes_of(name):
    return 10 if name in SMALL else 1000


# --- the published networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFERENCE)
def test_a_reference_architecture_has_exactly_the_published_figures(name):
    p = archfile.read(name).plan
    assert (p.resolution, p.classes, *cost(p)[:2]) == REFERENCE[name]


def test_every_name_is_unique_and_every_file_is_named_as_its_space():
    names = Counter(arch for name in bundled_names() for arch in open_space(name).archs)
    assert set(REFERENCE) <= set(names) and set(names.values()) == {1}
    assert [open_space(name).name for name in bundled_names()] == list(bundled_names())


@pytest.mark.parametrize(("name", "build"), [("mobilenetv2", "mobilenet_v2"), ("resnet50", "resnet50")])
def test_the_parameters_have_the_shapes_of_torchvisions(name, build):
    with torch.device("meta"):
        theirs = getattr(torchvision.models, build)()
    ours = Net(archfile.read(name).plan)
    assert Counter(p.shape for p in ours.parameters()) == Counter(p.shape for p in theirs.parameters())


@pytest.mark.parametrize("name", REFERENCE)
def test_only_mobilenetv3s_expand_ratios_and_mcunet_in4s_widths_lie_off_the_ladder(name):
    space = next(s for s in map(open_space, bundled_names()) if name in s.archs)
    values = zip(space.axes, space.named(name).values, strict=True)
    off = {axis.kind for axis, value in values if value not in axis.choices}
    assert off == ({"expand"} if name.startswith("mobilenetv3") else {"width"} if name == "mcunet-in4" else set())


# --- every space --------------------------------------------------------------------------------------------


@every_space
def test_the_smallest_the_largest_and_random_architectures_plan_and_cost_in_order(name):
    space, classes = open_space(name), classes_of(name)
    plans = [plan(space, arch, classes) for arch in (space.smallest, *draws(space, 30), space.largest)]
    net = whole(space, classes)
    assert all(space.contains(arch) for arch in (space.smallest, space.largest, *draws(space, 30)))
    assert all(net.holds(p) for p in plans) and cost(net) == cost(plans[-1])
    assert net != plans[-1] or all(p.holds(plans[0]) for p in plans)
    low, *between, high = (tuple(cost(p).known.values()) for p in plans)
    assert all(a <= b <= c for x in between for a, b, c in zip(low, x, high, strict=True))
    assert len(set(between)) == 30


@pytest.mark.parametrize("name", SMALL)
def test_the_smallest_net_for_small_images_is_far_below_a_million_macs(name):
    space = open_space(name)
    assert 50_000 <= cost(plan(space, space.smallest, 10)).macs <= 150_000


def test_there_is_a_space_for_small_images_and_one_for_imagenet_of_each_family():
    alone = {"nas-bench-macro", "tiny-images"}
    families = {name.removesuffix("-small") for name in bundled_names()} - alone
    assert families >= {"mobilenetv2", "mobilenetv3", "proxylessnas", "mcunet", "resnet"}
    for family in families:
        sizes = {name: open_space(name).source["resolution"] for name in (family, f"{family}-small")}
        assert sizes[family] == list(range(96, 225, 16)) and max(sizes[f"{family}-small"]) == 32


@every_space
def test_a_space_survives_json_and_toml_and_keeps_trimmed_ladders(name):
    space = open_space(name)
    trimmed = space.trimmed({a.name: a.choices[:-1] for a in space.axes if len(a.choices) > 1})
    for kept in (space, trimmed):
        for data in (json.loads(json.dumps(kept.to_dict())), tomllib.loads(tomli_w.dumps(kept.to_dict()))):
            again = from_dict(data, "again.toml", BLOCKS)
            assert again == kept and again.archs.keys() == kept.archs.keys()
    assert trimmed != space
    assert all(trimmed.named(arch).values == space.named(arch).values for arch in space.archs)


# --- the cost model against the network built ---------------------------------------------------------------


def count_squeeze_excite(module, x, out):
    module.total_ops += out.shape[0] * (module.reduce.weight.numel() + module.expand.weight.numel())


HOOKS = {LAYERS[op]: zero_ops for op in ("pool", "maxpool", "norm")} | {
    Norm: zero_ops, LAYERS["conv"]: count_convNd, LAYERS["linear"]: count_linear,
    LAYERS["se"]: count_squeeze_excite,
}  # fmt: skip


def built(p):
    """The Net of a plan, ready for evaluation with the initial norm statistics."""
    net = Net(p).eval()
    for norm in (m for m in net.modules() if isinstance(m, Norm)):
        norm.num_batches_tracked.fill_(1)
    return net


def assert_costs_what_it_counts(p):
    net, image = built(p), torch.zeros(1, 3, p.resolution, p.resolution)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(image)
    weights = sum(x.numel() for x in net.parameters())
    assert (counter.get_total_flops() / 2, weights) == cost(p)[:2]
    assert thop.profile(copy.deepcopy(net), (image,), HOOKS, verbose=False) == cost(p)[:2]


@pytest.mark.parametrize("which", ["smallest", "drawn", "drawn too", "largest"])
@every_space
def test_cost_equals_what_torch_and_thop_count_in_the_built_network(name, which):
    space = open_space(name)
    one, two = draws(space, 2)
    arch = {"smallest": space.smallest, "drawn": one, "drawn too": two, "largest": space.largest}[which]
    assert_costs_what_it_counts(plan(space, arch, classes_of(name)))


@pytest.mark.parametrize("name", [name for name in REFERENCE if REFERENCE[name][2] < 500e6])
def test_so_it_does_in_the_published_networks(name):
    assert_costs_what_it_counts(archfile.read(name).plan)


# --- shortcuts, by output -----------------------------------------------------------------------------------


def after(net, x, count):
    """The output of the first `count` blocks."""
    with torch.no_grad():
        return net(x, replace(net.plan, blocks=net.plan.blocks[:count]))


def with_silent_body(net, block):
    """A copy in which the block's body adds nothing: its last norm is zero, or its last layer."""
    silent = copy.deepcopy(net)
    last = silent.get_submodule(block.layers[-1].name)
    (last if block.layers[-1].pre else last.norm).weight.data.zero_()
    return silent


def projected(net, block, x):
    """The output of a block's projection shortcut alone, in plain torch."""
    tensors = {name.removeprefix(f"{block.name}."): p.data for name, p in net.named_parameters()}

    def normed(y, norm):
        return F.batch_norm(y, None, None, tensors[f"{norm}.norm.weight"], tensors[f"{norm}.norm.bias"], True)

    first = block.layers[0]
    x = normed(x, "conv1").relu() if first.pre else x
    y = F.conv2d(x, tensors["shortcut.weight"], stride=block.spec.stride)
    return y if first.pre else normed(y, "shortcut").relu()


def expected_shortcut(name, block, before, out):
    """ResNets: identity if the shape is kept, else a projection. Others: identity from the second block on."""
    if "resnet" in name:
        return "identity" if before.shape == out.shape else "projection"
    later = "." in block.name and not block.name.endswith(".b1")
    return "identity" if later or (name, block.name) == ("mobilenetv3-w0.35", "first") else "none"


NETS = "resnet20-cifar wideresnet-16-2 resnet50 mobilenetv2-tiny mobilenetv3-w0.35 proxylessnas-w0.35 mcunet"


@pytest.mark.parametrize("name", NETS.split())
def test_a_block_whose_body_is_silent_passes_on_what_its_shortcut_should(name):
    net = Net(archfile.read(name, resolution=64).plan).double().train()  # float32 rounds differently on each processor
    x, seen = torch.randn(2, 3, 64, 64).double(), Counter()
    for i, block in enumerate(net.plan.blocks):
        if block.spec.block not in ("separable", "inverted", "basic", "bottleneck"):
            continue
        before, out = after(net, x, i), after(with_silent_body(net, block), x, i + 1)
        kind = expected_shortcut(name, block, before, out)
        wanted = {"identity": before, "none": torch.zeros_like(out)}.get(kind)
        torch.testing.assert_close(out, projected(net, block, before) if wanted is None else wanted)
        assert float(after(net, x, i + 1).sub(out).abs().max()) > 1e-3  # its body does contribute
        seen[kind] += 1
    assert seen["identity"] >= 3 and seen["projection" if "resnet" in name else "none"] >= 2


# --- a user's own file --------------------------------------------------------------------------------------

MINE = """
format = "nasaug-space/1"
resolution = [16, 24]

[[stage]]
name = "stem"
block = "conv"
width = [8, 16]
kernel = 3
stride = [2, 1]
act = "relu"

[[stage]]
name = "body"
block = "inverted"
width = [8, 16]
depth = [1, 2, 3]
expand = [2, 4]
kernel = [3, 5]
act = "relu6"

[[stage]]
name = "pool"
block = "pool"

[arch.mine]
resolution = 20
classes = 7
stride = 2
width = 16
depth = 2
expand = { body = [4, 3] }
kernel = { body = 3 }
"""


def test_a_space_file_of_ones_own_is_opened_by_its_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    space = load(str(path), BLOCKS)
    p = plan(space, space.named("mine"), space.archs["mine"].classes)
    assert (space.name, p.resolution, p.classes) == ("mine", 20, 7)
    assert [block.spec.hidden for block in p.blocks if block.spec.block == "inverted"] == [64, 48]
    assert_costs_what_it_counts(p)


LINEAR = """name = "features"
block = "linear"
width = 8

[[stage]]
name = "pool"
"""
TWO = "expand = [2, 4]\nkernel = [3, 5]"
MALFORMED = {  # what is wrong: (what it replaces, by what, what the message must name)
    "an empty file": (MINE, "", "nasaug-space/1"),
    "no format": ('format = "nasaug-space/1"', "", "nasaug-space/1"),
    "another format": ("nasaug-space/1", "nasaug-space/2", "nasaug-space/2"),
    "no TOML": ("[[stage]]", "[[stage]", "not valid TOML"),
    "no stage": (MINE[MINE.index("[[") : MINE.index("[arch")], "", r"\[\[stage\]\]"),
    "a stage that is a table": (MINE[MINE.index("[[") :], "[stage]\nname = 'stem'", "stage"),
    "stages that are numbers": (MINE[MINE.index("[[") :], "stage = [1, 2]", "numbers|letters"),
    "a stage without a block": ('block = "conv"', "", "block in .*None"),
    "a block that is a list": ('block = "conv"', "block = [1]", "block in .*conv"),
    "a name that is a number": ('name = "body"', "name = 3", "name .*3"),
    "a name with a dot": ('name = "body"', 'name = "body.b1"', "body.b1"),
    "the classifier's name": ('name = "pool"', 'name = "classifier"', "classifier"),
    "a space's name that is a number": ("resolution = [16", "name = 3\nresolution = [16", "name = 3"),
    "no resolution": ("resolution = [16, 24]", "", "resolution"),
    "a resolution that is a word": ("resolution = [16, 24]", 'resolution = "16"', "resolution"),
    "a divisor below 1": ("resolution = [16", "divisor = -8\nresolution = [16", "divisor = -8"),
    "a key of another block": ("kernel = 3\nstride", "kernel = 3\nse = 0.5\nstride", "'se'.*order"),
    "an infinite expand ratio": ("expand = [2, 4]", "expand = inf", "body.b1.expand = inf"),
    "an enormous width": ("width = [8, 16]\ndepth", "width = 1000000\ndepth", "body.width = 1000000"),
    "a depth of none": ("depth = [1, 2, 3]", "depth = 0", "body.depth = 0"),
    "two squeeze-excites": ("expand = [2, 4]", "expand = 2\nse = 2", "se = 2"),
    "tied to a stage that has none": ("depth = [1, 2, 3]", 'depth = "stem"', "body.depth = 'stem'"),
    "an identity over a stride": ("depth = [1, 2, 3]", 'stride = 2\nshortcut = "identity"', "body has an id"),
    "first without depth": ("depth = [1, 2, 3]", 'first = "project"', "first"),
    "no pool": ('[[stage]]\nname = "pool"\nblock = "pool"', "", "pool"),
    "a linear layer before the pool": ('name = "pool"\n', LINEAR, "pool.*linear"),
    "an arch that is no table": ("[arch.mine]", "[arch]\nmine = 3\n[ladders]", "arch.mine"),
    "an arch with an unknown kind": ("kernel = { body = 3 }", "kernels = 3", "'kernels'.*mean kernel"),
    "an arch with an unknown stage": ("{ body = 3 }", "{ boddy = 3 }", "'boddy'.*mean body"),
    "an arch with a list too long": ("body = [4, 3]", "body = [4, 3, 2]", "lists 3 choices for 2 blocks"),
    "an arch with a list too short": ("body = [4, 3]", "body = [4]", "lists 1 choices for 2 blocks"),
    "an arch with a list of widths": ("width = 16", "width = { body = [8, 16] }", "body.width"),
    "an arch deeper than its stage": ("depth = 2", "depth = 4", "has 3 blocks"),
    "an arch with an even kernel": ("{ body = 3 }", "{ body = 4 }", "kernel = 4"),
    "an arch of a word": ("width = 16", 'width = "wide"', "'wide'"),
    "an arch of no class": ("classes = 7", "classes = 0", "classes = 0"),
    "ladders that are no list": ("[arch.mine]", "[ladders]\n'body.width' = 8\n[arch.mine]", "must be a list"),
    "ladders deeper than the stage": ("[arch.mine]", "[ladders]\n'body.depth' = [9]\n[arch.mine]", "has 3"),
    "a body that is never there": ("expand = [2, 4]", "expand = 0", "expand = 0 leaves block body.b1 without a body"),
    "two ways to leave a block out": ("expand = [2, 4]", "expand = [0, 4]", "depth of stage body is a list too"),
    "a tuple of three": (TWO, '"expand+kernel" = [[2, 3], [4, 3, 5]]', r"\[4, 3, 5\] must be 2 numbers"),
    "a tuple that is a number": (TWO, '"expand+kernel" = [2, [4, 5]]', "2 must be 2 numbers, expand and kernel"),
    "tuples that are no list": (TWO, '"expand+kernel" = 3', "must be a list of choices"),
    "tuples that fall in one part": (TWO, '"expand+kernel" = [[2, 5], [4, 3]]', "rise in some part and fall in none"),
    "two equal tuples": (TWO, '"expand+kernel" = [[2, 3], [2, 3]]', "rise in some part and fall in none"),
    "a tuple with an even kernel": (TWO, '"expand+kernel" = [[2, 3], [4, 4]]', "kernel = 4 must be odd"),
    "a tuple with a ratio below 0": (TWO, '"expand+kernel" = [[-1, 3], [4, 5]]', "expand = -1 must be 0, or a number"),
    "a property that two keys set": (TWO, '"expand+kernel" = [[2, 3]]\nexpand = 2', "sets expand too"),
    "tuples for a block without both": ("kernel = 3\nstride", '"expand+kernel" = [[2, 3]]\nstride', "key in .*stem"),
}


@pytest.mark.parametrize(("old", "new", "named"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_wrong_in_a_space_file_is_told_in_one_line(tmp_path, old, new, named):
    assert MINE.count(old) >= 1
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace(old, new, 1))
    with pytest.raises(BadInput, match=named) as refused:
        load(str(path), BLOCKS)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)


def test_a_space_that_is_not_there_is_told_with_the_choices(tmp_path):
    with pytest.raises(BadInput, match="mobilenetv3.*path of a .toml"):
        load("mobilenetv4", BLOCKS)
    with pytest.raises(BadInput, match="cannot read"):
        load(str(tmp_path / "none.toml"), BLOCKS)
    with pytest.raises(BadInput, match="mobilenetv2-tiny"):
        archfile.read("mobilenetv2-tinny")


def test_no_stage_is_called_as_the_network_calls_its_own():
    table = copy.deepcopy(tomllib.loads((files.bundled("search_spaces") / "mobilenetv2-small.toml").read_text()))
    space = spacefile.from_dict(table, "here", BLOCKS)
    net = Net(plan(space, space.smallest, 4))
    layers = {layer.name.partition(".")[0] for layer in net.plan.layers}
    own = {name for name in dir(net) if re.fullmatch("[a-z][a-z0-9_]*", name)} - layers
    assert own <= spacefile.TAKEN
    for name in ("plan", "train", "classifier"):
        table["stage"][0]["name"] = name
        with pytest.raises(BadInput, match=f"here: a stage cannot be called '{name}'.*call it s1"):
            spacefile.from_dict(table, "here", BLOCKS)


# --- blocks that may have no body ---------------------------------------------------------------------------

MACRO = {  # rows of NAS-Bench-Macro (Su et al., CVPR 2021; Apache-2.0): code, parameters, MACs
    "00000000": (387_882, 7_713_280), "00000001": (791_594, 14_115_328), "00000010": (791_594, 14_115_328),
    "00000002": (1_219_370, 20_910_592), "00000011": (1_195_306, 20_517_376),
}  # fmt: skip


def of_code(space, code):
    digits = iter(code)
    return space.canonical(Arch(space.name, tuple(axis.choices[int(next(digits))] for axis in space.axes)))


@pytest.mark.parametrize("code", MACRO)
def test_nas_bench_macros_networks_have_exactly_the_tables_figures(code):
    space = open_space("nas-bench-macro")
    assert cost(plan(space, of_code(space, code), 10))[:2] == MACRO[code][::-1]


def test_nas_bench_macros_codes_are_3969_networks():
    space = open_space("nas-bench-macro")
    codes = ["".join(digits) for digits in itertools.product("012", repeat=8)]
    nets = {of_code(space, code) for code in codes}
    assert len(nets) == 3969 == len({space.id(arch) for arch in nets})
    assert of_code(space, "11000201") == of_code(space, "11000210") != of_code(space, "11000120")
    assert of_code(space, "11102110") == of_code(space, "11120101") != of_code(space, "11210101")


def test_a_block_without_a_body_is_nothing_or_a_convolution_that_the_supernet_owns_as_a_spare():
    space = open_space("nas-bench-macro")
    net, small = whole(space, 10), plan(space, space.smallest, 10)
    assert [b.name for b in small.blocks] == [
        "stem", "s1.b1.shortcut", "s2.b1.shortcut", "s3.b1.shortcut", "final", "pool", "classifier",
    ]  # fmt: skip
    assert {b.spare.name for b in net.blocks if b.spare} == {f"s{i}.b1.shortcut" for i in (1, 2, 3)}
    assert {layer.name for layer in net.owned} - {layer.name for layer in net.layers} == {
        b.spare.name for b in net.blocks if b.spare
    }
    assert plan(space, space.largest, 10) != net and cost(net) == cost(plan(space, space.largest, 10))
    again = plans.from_dict(json.loads(json.dumps(net.to_dict())))
    assert again == net and set(Net(net).state_dict()) >= set(Net(small).state_dict())


def test_named_architectures_of_tuples_are_one_for_all_or_listed_by_block():
    table = open_space("nas-bench-macro").to_dict() | {"arch": {
        "all": {"expand+kernel": [3, 3]},
        "some": {"expand+kernel": {"s1": [6, 5], "s2": [[6, 5], [0, 3], [3, 3]], "s3": [[0, 3], [0, 3], [0, 3]]}},
    }}  # fmt: skip
    space = from_dict(table, "here", BLOCKS)
    assert set(space.named("all").values) == {(3, 3)}
    assert space.named("some") == of_code(space, "22210000")

"""Small search spaces with blocks of every kind, and strategies that draw architectures from them."""

import pytest
from hypothesis import strategies as st

from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import Budget, crop
from nasaug.arch.plan import whole
from nasaug.arch.space import Arch
from nasaug.arch.spacefile import from_dict as space_from_dict
from nasaug.arch.spacefile import load


def stage(name, block, **keys):
    """The table of one stage."""
    return {"name": name, "block": block, **keys}


RESIDUAL = {  # basic and bottleneck blocks, max pooling, tied widths, identity and projection
    "name": "residual",
    "divisor": 4,
    "resolution": [12, 16],
    "stage": [
        stage("stem", "conv", width=[4, 8], kernel=[3, 5], stride=[2, 1], act="relu"),
        stage("small", "maxpool", kernel=3, stride=2),
        stage(
            "s1", "basic", width="stem", depth=[1, 2], expand=[1, 2], kernel=[1, 3],
            act="relu", first="identity",
        ),
        stage(
            "s2", "bottleneck", width=[8, 16], depth=[1, 2, 3], stride=2, expand=[0.5, 1], kernel=[3, 5],
            act="relu", first="project",
        ),
        stage("pool", "pool"),
    ],
}  # fmt: skip
PREACTIVATION = {
    "name": "preactivation",
    "divisor": 4,
    "resolution": [8, 12],
    "stage": [
        stage("stem", "conv", width=[4, 8], kernel=3, order="pre"),
        stage(
            "s1", "basic", width=[8, 12], depth=[1, 2], expand=[1, 1.5], kernel=3,
            act="relu", first="project", order="pre",
        ),
        stage(
            "s2", "bottleneck", width=[16, 24], depth=[1, 2], stride=[2, 1], expand=[0.5, 1], kernel=[1, 3],
            act="relu", first="project", order="pre",
        ),
        stage("end", "norm", act="relu"),
        stage("pool", "pool"),
    ],
}  # fmt: skip
SQUEEZE = {  # squeeze-excite, hard swish, a tied first block, a linear layer before the classifier
    "name": "squeeze",
    "resolution": [12, 16],
    "stage": [
        stage("stem", "conv", width=[8, 16], kernel=3, stride=2, act="hswish"),
        stage("first", "separable", width="stem", kernel=3, act="relu", shortcut="identity"),
        stage(
            "s1", "inverted", width=[16, 24], depth=[1, 2, 3], stride=2, expand=[2, 6], kernel=[3, 5],
            act="hswish", se=0.25,
        ),
        stage("s2", "inverted", width=[24, 32], expand=[2, 3], kernel=[3, 5], act="relu6"),
        stage("final", "conv", width=[32, 48], act="hswish"),
        stage("pool", "pool"),
        stage("mix", "linear", width=[24, 40], act="hswish"),
    ],
}  # fmt: skip
BODIES = [[0, 3], [2, 3], [3, 5]]
BODILESS = {  # axes of tuples, blocks that may have no body: interchangeable ones, and one that changes the shape
    "name": "bodiless",
    "divisor": 4,
    "resolution": [8, 12],
    "stage": [
        stage("stem", "conv", **{"width+stride": [[4, 2], [8, 2], [8, 1]]}, kernel=3, act="relu"),
        stage("s1", "inverted", width=[8, 12], depth=4, stride=2, act="relu", **{"expand+kernel": BODIES}),
        stage("s2", "inverted", width=12, depth=1, expand=[0, 2, 3], kernel=[3, 5], act="relu"),
        stage("pool", "pool"),
    ],
}  # fmt: skip


def made(table):
    """The space described by a table."""
    return space_from_dict(table, "test.toml", BLOCKS)


def small_mobilenet():
    space = load("mobilenetv2-small", BLOCKS).trimmed({"resolution": (16, 20, 24, 28)})
    return crop(space, Budget(macs=200_000), 6, 10)


SPACES = {
    "mobilenetv2-small": small_mobilenet(),
    "residual": made(RESIDUAL),
    "preactivation": made(PREACTIVATION),
    "squeeze": made(SQUEEZE),
    "bodiless": made(BODILESS),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def values_of(space):
    """Any choice on every axis, canonical or not, uniform over the whole ladders of `space`."""
    return st.tuples(*(st.sampled_from(axis.choices) for axis in space.axes))


def archs_of(space):
    return values_of(space).map(lambda values: space.canonical(Arch(space.name, values)))


def between(space, low, high):
    """The plan of the net that holds every architecture from low to high, ten classes."""
    axes = zip(space.axes, low.values, high.values, strict=True)
    return whole(space.trimmed({axis.name: axis.between(a, b) for axis, a, b in axes}), 10)


def bounds_of(space):
    """(low, high): two architectures, low <= high."""

    def ordered(low, other):
        higher = zip(space.axes, low.values, other.values, strict=True)
        values = tuple(max(pair, key=axis.key) for axis, *pair in higher)
        return low, space.canonical(Arch(space.name, values))

    return st.builds(ordered, archs_of(space), archs_of(space))

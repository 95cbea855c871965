"""The cost of a Plan: MACs, parameters, peak activation memory and flash, computed without torch.

Conventions. MACs count convolutions and linear layers (the papers' convention). Parameters are the trainable ones.
Memory is int8 after batch-norm folding: peak SRAM is the largest sum, over layers, of input, output and a held residual
in bytes, including the image and with depthwise layers not in place; flash is 1 byte per weight and 4 per bias (each
norm leaves one bias per channel; a norm that cannot be folded also keeps 1 byte per channel for its scale).
docs/explanation/memory.md has all assumptions and what other devices do.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import chain, cycle
from random import Random
from typing import Any, NamedTuple, Protocol

from ..core.errors import BadInput, arg, with_value
from ..core.units import format_quantity, parse_quantity
from .blocks import Block, Layer
from .plan import Outputs, Plan, plan
from .space import KINDS, Arch, Axis, Space, Value


class Device(Protocol):
    """What predicts a network's latency: a table of nasaug.arch.latency."""

    def predict(self, p: Plan) -> float:
        """Milliseconds for one image."""
        ...


class Cost(NamedTuple):
    """macs and params are counts; peak (SRAM) and flash are bytes; latency is in milliseconds, as a device's table
    predicts it, or None without a table."""

    macs: int
    params: int
    peak: int
    flash: int
    latency: float | None = None

    @property
    def known(self) -> dict[str, int | float]:
        """The figures that there are, by name."""
        return {key: value for key, value in self._asdict().items() if value is not None}


LABELS = {"macs": "MACs", "params": "parameters", "peak": "peak SRAM", "flash": "flash", "latency": "latency"}
UNITS = {"macs": "macs", "params": "params", "peak": "bytes", "flash": "bytes", "latency": "milliseconds"}
ARGUMENTS = {
    "macs": "mac_budget", "params": "param_budget", "peak": "sram_budget", "flash": "flash_budget",
    "latency": "latency_budget",
}  # fmt: skip
NAMES = {("sram" if key == "peak" else key): key for key in Cost._fields}  # what users call them


def _counts(layer: Layer) -> tuple[int, int, int]:
    """MACs, parameters and flash bytes of one layer."""
    weights = biases = 0
    pixels = layer.height * layer.width
    if layer.op == "conv":
        weights = layer.out * (layer.cin // layer.groups) * layer.kernel**2
    elif layer.op == "linear":
        weights = layer.out * layer.cin
    elif layer.op == "se":
        weights, biases, pixels = 2 * layer.out * layer.mid, layer.out + layer.mid, 1
    normed = 0 if not layer.norm else layer.cin if layer.pre else layer.out
    biases += layer.out if layer.bias else 0
    scales = normed if layer.pre or layer.op == "norm" else 0  # cannot be folded into the preceding convolution
    return weights * pixels, weights + biases + 2 * normed, weights + 4 * (biases + normed) + scales


class Memory(NamedTuple):
    """The feature maps in memory while a layer runs, in bytes of int8.

    `held` is what the block keeps for its addition: its input, or, while that is projected, the output of the main
    path."""

    input: int
    output: int
    held: int


def layer_memory(
    block: Block, in_place: bool = False, kept: bool = False, beside: int = 0
) -> tuple[Memory, ...]:  # fmt: skip
    """The memory of `block.all_layers`, in that order.

    The block's input is held until the addition, or until its projection is computed, after the main path; and longer
    if it is `kept` for a later block. `beside` are the bytes of other maps that are held while the block runs.

    in_place: a depthwise layer writes over its input, a channel at a time, so that beside it only one channel of its
    output is in memory (Lin et al., NeurIPS 2020, section 3.2); not where the block's own input is still needed."""
    source = inputs = block.cin * block.in_size[0] * block.in_size[1]
    held = kept or block.shortcut != "none"
    found = []
    for i, layer in enumerate(block.layers):
        output = layer.out * layer.height * layer.width
        over = in_place and layer.depthwise and layer.groups == layer.out and (i or not held)
        one = layer.height * layer.width
        found.append(Memory(inputs, one if over else output, beside + (source if held and i else 0)))
        inputs = output
    if block.project is not None:
        found.append(Memory(source, inputs, inputs + beside))
    return tuple(found)


def memory_of(p: Plan, in_place: bool = False) -> list[tuple[Memory, ...]]:
    """The memory of every block's layers (`layer_memory`), in execution order.

    A map that a later block reads by name is held until then, and an output of the network until the end."""
    if not p.tapped:
        return [layer_memory(block, in_place) for block in p.blocks]
    last = {source: i for i, source in enumerate(p.sources)} | dict.fromkeys(p.ends, len(p.blocks))
    found = []
    for i, (block, source) in enumerate(zip(p.blocks, p.sources, strict=True)):
        others = (j for j in range(i) if j != source and last[j] > i)
        beside = sum(p.blocks[j].out * math.prod(p.blocks[j].out_size) for j in others)
        found.append(layer_memory(block, in_place, last[source] > i, beside))
    return found


def layer_costs(block: Block, memories: Sequence[Memory] | None = None) -> tuple[Cost, ...]:
    """The costs of `block.all_layers`, in that order; `memories` default to those of the block alone."""
    costs = []
    for layer, memory in zip(block.all_layers, memories or layer_memory(block), strict=True):
        macs, params, flash = _counts(layer)
        costs.append(Cost(macs, params, sum(memory), flash))
    return tuple(costs)


def costs_by_layer(p: Plan) -> list[tuple[Layer, Cost]]:
    """Every layer of a plan with its cost, in execution order."""
    blocks = zip(p.blocks, memory_of(p), strict=True)
    return [pair for block, memory in blocks for pair in zip(block.all_layers, layer_costs(block, memory), strict=True)]


@cache
def block_cost(block: Block) -> Cost:
    macs, params, peaks, flash = zip(*(c[:4] for c in layer_costs(block)), strict=True)
    return Cost(sum(macs), sum(params), max(peaks), sum(flash))


def cost(p: Plan, device: Device | None = None) -> Cost:
    """The whole network's cost, with its latency on `device` if that is given."""
    macs = params = peak = flash = 0
    for block in p.blocks:
        c = block_cost(block)
        macs += c.macs
        params += c.params
        flash += c.flash
        peak = max(peak, c.peak)
    if p.tapped:
        peak = max(sum(memory) for memories in memory_of(p) for memory in memories)
    return Cost(macs, params, peak, flash, None if device is None else device.predict(p))


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper limits; None means no limit. `parse` reads them with suffixes: 25M, 320KB, 3ms."""

    macs: int | None = None
    params: int | None = None
    peak: int | None = None
    flash: int | None = None
    latency: float | None = None  # milliseconds; only for costs of a space with a device

    @classmethod
    def parse(cls, **texts: str | None) -> Budget:
        """Budget.parse(macs="25M", peak="320KB"). Raises BadInput about `mac_budget` and so on for anything else."""
        given: dict[str, Any] = {key: text for key, text in texts.items() if text is not None}
        for key, text in given.items():
            given[key] = parse_quantity(text, UNITS[key], ARGUMENTS[key])
        return cls(**given)

    @property
    def limits(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in Cost._fields if getattr(self, key) is not None}

    @property
    def beside_macs(self) -> Budget:
        """The limits other than MACs."""
        return replace(self, macs=None)

    def excess(self, c: Cost) -> dict[str, float]:
        """The relative excess of `c` over each limit; <= 0 is within. Suitable as search constraints."""
        return {key: getattr(c, key) / limit - 1.0 for key, limit in self.limits.items()}

    def holds(self, c: Cost) -> bool:
        return all(getattr(c, key) <= limit for key, limit in self.limits.items())

    def __str__(self) -> str:
        parts = (f"{LABELS[k]} <= {format_quantity(v, UNITS[k])}" for k, v in self.limits.items())
        return ", ".join(parts) or "none"


UNLIMITED = Budget()


def describe(c: Cost) -> str:
    """One line for the user: 23.5M MACs, 750k parameters, 61 KB peak SRAM, 792 KB flash."""
    return ", ".join(f"{format_quantity(getattr(c, k), UNITS[k])} {LABELS[k]}" for k in c.known)


# --- spaces under a budget ----------------------------------------------------------------------------------


def cost_of(space: Space, arch: Arch, classes: Outputs) -> Cost:
    """The architecture's cost, with its latency if the space has a device."""
    return cost(plan(space, arch, classes), space.device)


def crop(space: Space, budget: Budget, headroom: float, classes: Outputs) -> Space:
    """Drop top rungs until the largest net costs at most `headroom` x the MAC budget.

    First one rung each of stem stride and kernel, then one rung of width, head, depth and resolution in turn until it
    fits. Expand is never cropped, and every axis keeps at least one rung. Without a MAC budget or with headroom 0 the
    space is unchanged."""
    if budget.macs is None or headroom == 0:
        return space
    limit = headroom * budget.macs
    for group in chain(("stride", "kernel"), cycle(_CYCLE)):
        stuck = group in _CYCLE and not any(_lower(space, g) for g in _CYCLE)
        if stuck or cost_of(space, space.largest, classes).macs <= limit:
            break
        space = space.trimmed(_lower(space, group))
    return space


def within_reach(space: Space, budget: Budget, headroom: float, classes: Outputs) -> Space:
    """Drop the choices that no architecture within `headroom` x the MAC budget can have: those with which even the
    otherwise smallest one costs more. Every axis keeps at least one.

    So a choice that only narrow nets can afford, like a stride of 1, stays. Without a MAC budget or with headroom 0 the
    space is unchanged."""
    if budget.macs is None or headroom == 0:
        return space
    limit = headroom * budget.macs
    least = [axis.choices[0] for axis in space.axes]
    ladders = {}
    for i, axis in enumerate(space.axes):
        present = list(least)
        for depth, place in space.depths_of(i):
            present[depth] = max(present[depth], place)
        costs = (
            cost_of(space, space.canonical(Arch(space.name, (*present[:i], c, *present[i + 1 :]))), classes).macs
            for c in axis.choices
        )
        fits = tuple(c for c, macs in zip(axis.choices, costs, strict=True) if macs <= limit)
        ladders[axis.name] = fits or axis.choices[:1]
    return space.trimmed(ladders)


def largest_within(space: Space, macs: float, classes: Outputs, limits: Budget = UNLIMITED) -> Arch:
    """The space's largest architecture if it costs at most `macs`; otherwise the one nearest to it of a few that are
    drawn by seed."""
    if cost_of(space, space.largest, classes).macs <= macs:
        return space.largest
    drawn = (sample_near(space, Random(f"largest/{i}"), macs, macs, classes, limits) for i in range(CLIMBS))
    return min(drawn, key=lambda arch: abs(cost_of(space, arch, classes).macs - macs))


_CYCLE = ("width", "head", "depth", "resolution")


def _lower(space: Space, group: str) -> dict[str, tuple]:
    """The ladders of one crop group, each without its top rung."""
    axes = (a for a in space.axes if len(a.choices) > 1 and _crop_group(space, a) == group)
    return {a.name: a.choices[:-1] for a in axes}


def _crop_group(space: Space, axis: Axis) -> str:
    """An axis's crop group: its kind, except that widths after the last stage with a depth belong to the head."""
    if axis.kind != "width":
        return axis.kind
    stages = [rule.stage for rule in space.rules]
    deep = [i for i, rule in enumerate(space.rules) if rule.depth is not None]
    return "head" if deep and stages.index(axis.name.split(".")[0]) > deep[-1] else "width"


FAR = 2.0  # a named architecture that costs more or less than its target by this factor may halve its images elsewhere


def sample_near(
    space: Space, rng: Random, low: float, high: float, classes: Outputs, limits: Budget = UNLIMITED, tries: int = 400
) -> Arch:  # fmt: skip
    """A random architecture within `limits` whose log MACs are roughly uniform in [log low, log high], as far as the
    limits allow: one over a limit is moved down until it fits, then up towards the target without crossing any limit.

    Uniformly drawn choices lie far below any large budget and far from known good designs. So the start is a uniform
    draw or, with probability 1/2, a variation of an architecture named in the space at a random resolution. From there
    it moves one rung up or down on random axes until its MACs cross a target drawn log-uniformly; at most twice `tries`
    moves. For a named one these are widths first, and strides too if its size is far from the target."""
    target = low * (high / low) ** rng.random()
    named = [found.arch for found in space.archs.values()]
    kinds: tuple[str, ...]
    if named and rng.random() < 0.5:
        arch = _varied(space, rng, _fitted(space, rng, rng.choice(named)))
        far = not target / FAR <= cost_of(space, arch, classes).macs <= target * FAR
        kinds = ("width", "stride") if far else ("width",)
    else:
        arch, kinds = space.sample(rng), KINDS
    macs = cache(lambda a: cost_of(space, a, classes).macs)
    rising = macs(arch) < target
    path, crossed = [arch], False  # costs are monotonic along the path, so the bisection below computes few of them
    while not crossed and len(path) <= tries:
        before = len(path)
        for _ in range(before):
            move = _move(space, rng, path[-1], 1 if rising else -1, kinds)
            if move is None:
                break
            path.append(move)
        crossed = len(path) == before or (macs(path[-1]) >= target) == rising
    first = bisect_left(path, True, key=lambda a: (macs(a) >= target) == rising)
    arch = min(path[max(first - 1, 0) : first + 1], key=lambda a: abs(macs(a) - target))
    if not limits.limits or limits.holds(cost_of(space, arch, classes)):
        return arch
    return _brought_within(space, rng, arch, target, limits, classes, kinds)


def _brought_within(
    space: Space, rng: Random, arch: Arch, target: float, limits: Budget, classes: Outputs, kinds: Iterable[str]
) -> Arch:  # fmt: skip
    """Random moves down until within the limits, then up to the target or as far as the limits allow."""
    costs = cache(lambda a: cost_of(space, a, classes))

    def holds(a: Arch) -> bool:
        return limits.holds(costs(a))

    path, before = [arch], 0  # costs fall along the path, so the bisection below computes few of them
    while not holds(path[-1]) and len(path) > before:
        before = len(path)
        for _ in range(before):
            move = _move(space, rng, path[-1], -1, kinds)
            if move is None:
                break
            path.append(move)
    arch = path[min(bisect_left(path, True, key=holds), len(path) - 1)]
    shut: set[int] = set()
    gap = target - costs(arch).macs
    while gap > 0:
        move = _move(space, rng, arch, 1, kinds, holds, shut)
        if move is None:
            break
        left = target - costs(move).macs
        if abs(left) > gap:
            break
        arch, gap = move, left
    return arch


def _fitted(space: Space, rng: Random, arch: Arch) -> Arch:
    """The choices of `arch`, each rounded down to this space's ladder; a random resolution."""
    def on(axis: Axis, value: Value) -> Value:
        below = [c for c in axis.choices if axis.key(c) <= axis.key(value)]
        return rng.choice(axis.choices) if axis.kind == "resolution" else below[-1] if below else axis.choices[0]

    values = (on(axis, value) for axis, value in zip(space.axes, arch.values, strict=True))
    return space.canonical(Arch(space.name, tuple(values)))


def _varied(space: Space, rng: Random, arch: Arch) -> Arch:
    """`arch` with some choices one rung up or down, so that less of one can pay for more of another: from none to half
    of them, and seldom where the image is halved, on which a good design depends most."""
    rate = rng.random() / 2
    for i, axis in enumerate(space.axes):
        if axis.kind != "resolution" and rng.random() < (rate / 4 if axis.kind == "stride" else rate):
            arch = _moved(space, arch, i, rng.choice((-1, 1))) or arch
    return arch


def _move(
    space: Space, rng: Random, arch: Arch, step: int, kinds: Iterable[str],
    holds: Callable[[Arch], bool] | None = None, shut: set[int] | None = None,
) -> Arch | None:  # fmt: skip
    """One rung up (+1) or down (-1) on a random axis, preferably of one of the kinds.

    A move for which `holds` is false is not made, and its axis is added to `shut`: no larger architecture would hold
    either."""
    shut = set() if shut is None else shut
    for wanted in (True, False):
        left = [i for i, axis in enumerate(space.axes) if (axis.kind in kinds) == wanted and i not in shut]
        while left:
            at = rng.randrange(len(left))
            left[at], left[-1] = left[-1], left[at]
            i = left.pop()
            moved = _moved(space, arch, i, step)
            if moved is None:
                continue
            if holds is None or holds(moved):
                return moved
            shut.add(i)
    return None


def _moved(space: Space, arch: Arch, i: int, step: int) -> Arch | None:
    """The architecture `step` rungs up on one axis; None if there is no such rung or its block is not present."""
    axis = space.axes[i]
    place = axis.choices.index(arch.values[i]) + step
    if not 0 <= place < len(axis.choices):
        return None
    moved = space.canonical(Arch(arch.space, (*arch.values[:i], axis.choices[place], *arch.values[i + 1 :])))
    return None if moved == arch else moved


def neighbours(space: Space, arch: Arch) -> list[Arch]:
    """The architectures that differ by one rung on one axis."""
    moved = (_moved(space, arch, i, step) for i in range(len(space.axes)) for step in (1, -1))
    return [each for each in moved if each is not None]


CLIMBS = 48  # random climbs to the largest architecture within the limits


@lru_cache(maxsize=256)
def most_macs(space: Space, budget: Budget, classes: Outputs) -> float:
    """The approximate maximum MACs of an architecture within all limits: the MAC budget, if the other limits allow
    reaching it."""
    largest, limits = cost_of(space, space.largest, classes), budget.beside_macs
    enough = min(largest.macs, budget.macs or largest.macs)
    if limits.holds(largest):
        return enough
    found = cost_of(space, space.smallest, classes).macs
    for i in range(CLIMBS):
        arch = sample_near(space, Random(f"most/{i}"), largest.macs, largest.macs, classes, limits)
        found = max(found, cost_of(space, arch, classes).macs)
        if found >= enough:
            return enough
    return found


@lru_cache(maxsize=8)
def all_within(space: Space, budget: Budget, classes: Outputs, most: int) -> dict[Plan, Arch] | None:
    """Every network within the budget; None if there are more than `most`.

    Costs rise along the axes, so each network is reachable from the smallest without crossing a limit."""
    nets: dict[Plan, Arch] = {}
    seen, left = {space.smallest}, [space.smallest]
    while left:
        arch = left.pop()
        p = plan(space, arch, classes)
        if not budget.holds(cost(p, space.device)):
            continue
        nets.setdefault(p, arch)
        if len(nets) > most or len(seen) > 20 * most:  # many choices may yield the same network
            return None
        ups = (_moved(space, arch, i, 1) for i in range(len(space.axes)))
        fresh = {up for up in ups if up is not None} - seen
        seen |= fresh
        left += sorted(fresh)
    return nets


class Reach(NamedTuple):
    """What a space offers under a budget."""

    smallest: Cost
    middle: Cost
    largest: Cost
    feasible: float  # share of uniform samples within the budget
    samples: int

    def to_dict(self) -> Mapping:
        named = {k: getattr(self, k).known for k in ("smallest", "middle", "largest")}
        return {**named, "feasible": self.feasible, "samples": self.samples}


def _at_least(value: float, key: str) -> str:
    """An argument's text that `value` is within."""
    return f"{math.ceil(1000 * value) / 1000:g}ms" if UNITS[key] == "milliseconds" else str(value)


@lru_cache(maxsize=64)
def reach(space: Space, budget: Budget, classes: Outputs, samples: int = 2000) -> Reach:
    """The smallest, middle (every axis at its central rung) and largest cost, and the share of feasible samples.

    Raises BadInput if even the smallest architecture is over the budget."""
    smallest = cost_of(space, space.smallest, classes)
    over = [key for key, share in budget.excess(smallest).items() if share > 0]
    if over:
        asked = [f"{with_value(ARGUMENTS[k])} {format_quantity(getattr(budget, k), UNITS[k])}" for k in over]
        has = ", ".join(f"{format_quantity(getattr(smallest, key), UNITS[key])} {LABELS[key]}" for key in over)
        named = (f"{with_value(ARGUMENTS[key])} " if len(over) > 1 else "" for key in over)
        texts = (_at_least(getattr(smallest, key), key) for key in over)
        least = " and ".join(name + text for name, text in zip(named, texts, strict=True))
        verb = "are" if len(over) > 1 else "is"
        rule = f"{verb} impossible in space {space.name}: its smallest architecture has {has}"
        remedy = f"ask for at least {least}, or take another {arg.space}"
        line = f"{', '.join(asked)} {rule}; {remedy}"
        raise BadInput(line, value=budget.limits[over[0]], rule=rule, remedy=remedy)
    middle = Arch(space.name, tuple(a.choices[len(a.choices) // 2] for a in space.axes))
    rng = Random("reach")
    within = sum(budget.holds(cost_of(space, space.sample(rng), classes)) for _ in range(samples))
    largest = cost_of(space, space.largest, classes)
    return Reach(smallest, cost_of(space, middle, classes), largest, within / samples, samples)

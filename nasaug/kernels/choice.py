"""Selects how a block, layer or gradient is computed. Every decision for or against a compiled kernel is made here.

A kernel is used if it is correct and not slower than torch's operations on this machine. A self-test of about a second
determines this at first use and stores it next to the compiled library: for each kind of work, it compares the results
with torch's and times both in alternating rounds. If rounds disagree, the kind remains undecided and is not stored.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache, partial
from math import prod
from random import Random
from statistics import median

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..arch.blocks import Block, Layer
from ..arch.plan import Plan
from ..core.errors import BadInput, RunFault
from ..core.files import read_json, write_json
from . import build, native

BLOCKS = ("inverted", "separable")
# The kinds of work to choose for. Blocks are divided by size: large maps are bound by memory, small ones by arithmetic.
KINDS = (
    *(f"block, {use}, {size} maps" for use in ("training", "evaluation") for size in ("large", "middle", "small")),
    "norm and activation", "depthwise gradient, 3 x 3", "depthwise gradient, larger", "augmentation",
)  # fmt: skip
ROUNDS, TURNS, TRIES = 3, 5, 3
AGREE = 1.2  # rounds disagree if their ratios differ by more than this factor
ENOUGH_S = 0.8  # seconds after which the self-test starts no further kind
TOLERANCE = 1e-3  # relative to the norm of all values: a wrong kernel deviates far more, a reordered sum far less
KEPT_TOGETHER = 2**19  # values that consecutive blocks as one node keep for backward at most, with several threads
MANY_PIXELS = 12 * 12  # on larger maps, oneDNN's gradient of a 3 x 3 depthwise convolution is hard to beat
CHOSEN = "NASAUG_CHOICES"  # environment variable with a table as JSON: a command's choices for its cells

# Synthetic workloads for the self-test, by kind; a call runs the work once and returns its results. Modules register
# their own here.
SAMPLES: dict[str, Callable[[torch.Generator], Callable[[], list[Tensor]]]] = {}

Table = dict[str, bool]  # kind -> whether the compiled kernel is used

_adopted: Table | None = None  # the table that the current run uses instead of this machine's


# --- entry points ---------------------------------------------------------------------------------------------


def select(blocks: tuple[Block, ...], x: Tensor) -> bool:
    """Whether whole blocks, of which the first reads x and each other the one before, are computed as one compiled
    node. Requires that x [N, C, H, W] has the planned size and that each norm sees more than one value per channel."""
    if not all(map(_planned, blocks)) or tuple(x.shape[2:]) != blocks[0].in_size or not _open_to_c(x):
        return False
    chosen, training = _table(), torch.is_grad_enabled()
    return all(len(x) * prod(block.out_size) > 1 and chosen[_kind_of(block, training)] for block in blocks)


def chains(plan: Plan, x: Tensor) -> Iterable[tuple[Block, ...]]:
    """A plan's blocks in order, for the images x, those together that may be one node in training: each but the first
    reads the one before, which no other reads. With several threads only as many as keep little, since more were not
    faster."""
    if not torch.is_grad_enabled() or not _open_to_c(x):
        return zip(plan.blocks)
    return _chains(plan, float("inf") if torch.get_num_threads() == 1 else KEPT_TOGETHER // max(len(x), 1))


@lru_cache(128)
def _chains(plan: Plan, most: float) -> tuple[tuple[Block, ...], ...]:
    """`most`: values that the blocks of a chain keep for backward, per image."""
    groups: list[list[Block]] = []
    kept = 0
    for i, block in enumerate(plan.blocks):
        before = plan.blocks[i - 1]
        follows = i > 0 and not block.spec.source and before.name not in plan.tapped and i - 1 not in plan.ends
        if follows and _planned(before) and _planned(block) and kept + _kept_by(block) <= most:
            groups[-1].append(block)
        else:
            groups.append([block])
            kept = 0
        kept += _kept_by(block)
    return tuple(map(tuple, groups))


@cache
def _kept_by(block: Block) -> int:
    """Values per image that a block as one node keeps for backward."""
    return sum(layer.out * layer.height * layer.width for layer in block.layers) + block.out * prod(block.out_size)


def select_node(x: Tensor, layer: Layer, *parameters: Tensor) -> bool:
    """Whether a convolution with its norm and activation is one graph node, `fused.conv_norm_act`: in training on the
    CPU if every parameter has a gradient buffer. Otherwise, torch's ordinary operations are used."""
    return (
        x.device.type == "cpu" and torch.is_grad_enabled() and not layer.bias
        and all(p.grad is not None for p in parameters)
    )  # fmt: skip


def select_norm(*tensors: Tensor) -> bool:
    """Whether to use the compiled norm with activation."""
    return _open_to_c(*tensors) and _table()["norm and activation"]


def select_gradient(x: Tensor, grad: Tensor, layer: Layer) -> str:
    """How to compute the gradients of a convolution of x: "torch", "compiled" (depthwise only), or "taps" where oneDNN
    is slow: `fused.depthwise_gradient` for the weights, torch for the input."""
    if not layer.depthwise:
        return "torch"
    small = layer.kernel <= 3
    pixels = x.shape[2] * x.shape[3]
    # the canvas for a larger kernel has to fit in a core's cache
    fits = layer.kernel <= native.MAX_KERNEL and pixels <= (MANY_PIXELS if small else native.MAX_PIXELS)
    if fits and _open_to_c(x, grad) and _table()[f"depthwise gradient, {'3 x 3' if small else 'larger'}"]:
        return "compiled"
    fast = min(x.shape[2:]) >= 3 if small else grad.shape[2] * grad.shape[3] > 64
    return "torch" if fast else "taps"


def select_operators(images: Tensor) -> bool:
    """Whether to use the compiled augmentation operators on uint8 images."""
    return images.device.type == "cpu" and build.library() is not None and _table()["augmentation"]


def _open_to_c(*tensors: Tensor) -> bool:
    """Whether these tensors may be passed to C: float32 on the CPU, with a library, and while torch's operations are
    neither intercepted nor traced."""
    return (
        all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
        and _get_current_dispatch_mode() is None and not torch.compiler.is_compiling()
        and build.library() is not None  # last, because it may have to compile
    )  # fmt: skip


@cache
def _planned(block: Block) -> bool:
    """Whether C supports the block: depthwise-separable with or without expansion, no squeeze-excite, and its canvas
    fits in a core's cache."""
    if block.spec.block not in BLOCKS or block.spec.se or block.spec.order != "post" or block.shortcut == "project":
        return False
    h, w = block.in_size
    return block.spec.kernel <= native.MAX_KERNEL and h * w <= native.MAX_PIXELS


@cache
def _kind_of(block: Block, training: bool) -> str:
    side = max(block.in_size)
    size = "large" if side >= 8 else "middle" if side > 2 else "small"
    return f"block, {'training' if training else 'evaluation'}, {size} maps"


# --- choices --------------------------------------------------------------------------------------------------


def _table() -> Table:
    return table(torch.get_num_threads()) if _adopted is None else _adopted


@cache
def table(threads: int) -> Table:
    """The choices for this number of threads: from the parent command, from the stored ones, or from a self-test."""
    if os.environ.get(CHOSEN):
        return _chosen_for_cells()
    library = build.library()
    if library is None:
        return dict.fromkeys(KINDS, False)
    kept = _kept(library, threads)
    if kept.keys() >= set(KINDS):
        return _complete(kept)
    found = kept | self_test(threads, [kind for kind in KINDS if kind not in kept])
    _keep(library, threads, found)
    return _complete(found)


def _chosen_for_cells() -> Table:
    text = os.environ[CHOSEN]
    try:
        return _complete(json.loads(text))
    except (ValueError, AttributeError) as error:
        rule = "is not a table; commands set it for the processes that they start"
        raise BadInput(f"{CHOSEN}={text!r:.60} {rule}: unset it") from error


def _complete(chosen: Table) -> Table:
    """The table with all kinds. Undecided ones use the compiled kernel, which is faster according to benchmarks."""
    return {kind: bool(chosen.get(kind, True)) for kind in KINDS}


def _kept(library: build.Library, threads: int) -> Table:
    with contextlib.suppress(BadInput, AttributeError):
        kept = read_json(library.notes, build.FORMAT)["choices"].get(str(threads), {})
        return {kind: bool(kept[kind]) for kind in KINDS if kind in kept}
    return {}


def _keep(library: build.Library, threads: int, found: Table) -> None:
    with contextlib.suppress(BadInput, RunFault, AttributeError):  # the folder may be read-only
        notes = read_json(library.notes, build.FORMAT)
        notes["choices"][str(threads)] = found
        write_json(library.notes, notes)


@contextlib.contextmanager
def forced(use: bool) -> Iterator[None]:
    """Use all kernels, or none, regardless of the choices: for tests, benchmarks and the self-test."""
    global _adopted
    before, _adopted = _adopted, dict.fromkeys(KINDS, use)
    try:
        yield
    finally:
        _adopted = before


# --- records in runs ------------------------------------------------------------------------------------------


def record() -> dict:
    """The choices in effect, for a run's env.json."""
    library, chosen = build.library(), _table()
    return {
        "threads": torch.get_num_threads(), "unit": library.unit if library else None, "why_not": build.why_not(),
        "compiled": sorted(kind for kind in KINDS if library and chosen[kind]),
    }  # fmt: skip


def adopt(recorded: dict) -> str:
    """Use the choices `recorded` by a run. Returns a line about differences of this machine that may change its
    result, or "".

    New runs, runs from machines with another vector unit and runs without a record use this machine's choices."""
    global _adopted
    _adopted, library = None, build.library()
    unit = library.unit if library else None
    if not recorded:
        return ""
    if unit == recorded.get("unit"):
        _adopted = {kind: kind in recorded.get("compiled", ()) for kind in KINDS}
    now = {"kernels for": ("unit", unit), "threads": ("threads", torch.get_num_threads())}
    differs = [f"{name} {recorded.get(k)} then, {v} now" for name, (k, v) in now.items() if recorded.get(k) != v]
    if not differs:
        return ""
    return f"the machine differs ({'; '.join(differs)}): the same seed may give slightly different figures"


def for_cells(threads: int) -> dict[str, str]:
    """Environment variables that make subprocesses use the choices for this number of threads."""
    return {CHOSEN: json.dumps(table(threads))}


def described() -> str:
    """The kernels in use, in a few words."""
    library = build.library()
    return f"kernels for {library.unit}" if library else f"without compiled kernels ({build.why_not()})"


def told() -> str:
    """The kernels in use in a line, with the threads and the kinds that torch computes."""
    left = [kind for kind in KINDS if build.library() and not _table()[kind]]
    return f"{described()}, {torch.get_num_threads()} threads" + (f"; by torch: {', '.join(left)}" if left else "")


# --- the self-test --------------------------------------------------------------------------------------------


def self_test(threads: int, kinds: list[str]) -> Table:
    """Whether each kind's compiled kernel is correct and not slower than torch.

    Takes about a second at most. Kinds are omitted if their rounds disagree or there was no time left."""
    before, found = torch.get_num_threads(), {}
    torch.set_num_threads(threads)
    until = time.perf_counter() + ENOUGH_S
    try:
        for kind in kinds:
            if kind in SAMPLES and time.perf_counter() < until:
                verdict = _tested(kind)
                found |= {} if verdict is None else {kind: verdict}
    finally:
        torch.set_num_threads(before)
    return found


def gains() -> dict[str, tuple[float, bool]]:
    """For each kind with a workload: how many times as fast as torch the compiled kernel is on it now, and whether it
    is used. Empty without compiled kernels. Takes a second or two."""
    if build.library() is None:
        return {}
    chosen, found = _table(), {}
    for kind in KINDS:
        if kind in SAMPLES:
            run = _sample(kind)
            run(True), run(False)
            found[kind] = median(_ratio(partial(run, False), partial(run, True)) for _ in range(ROUNDS)), chosen[kind]
    return found


def _sample(kind: str) -> Callable[[bool], list[Tensor]]:
    """Runs a kind's workload with the compiled kernels or without."""
    with torch.inference_mode(False):
        job = SAMPLES[kind](torch.Generator().manual_seed(Random(kind).getrandbits(32)))

    def run(use: bool) -> list[Tensor]:
        # the self-test may run at any point: in a forward pass, an evaluation, under autocast
        with forced(use), torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            return job()

    return run


def _tested(kind: str) -> bool | None:
    run = _sample(kind)
    if not _alike(run(True), run(False)):
        return False
    for _ in range(TRIES):
        ratios = [_ratio(partial(run, False), partial(run, True)) for _ in range(ROUNDS)]
        if max(ratios) <= AGREE * min(ratios):
            return median(ratios) >= 1
    return None


def _ratio(torchs: Callable[[], object], ours: Callable[[], object]) -> float:
    """Our speed-up over torch, from the minimum times of several turns: other load can only add time."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for run, seconds in zip((torchs, ours), times, strict=True):
            begun = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begun)
    return min(times[0]) / min(times[1])


def _alike(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    """Equal up to rounding in norm: single values may differ more, on opposite sides of an activation's kink."""
    return all(
        (a.double() - b.double()).norm() <= TOLERANCE * b.double().norm() + 1e-6
        for a, b in zip(ours, theirs, strict=True)
    )

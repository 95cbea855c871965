"""`select`: how a block, a layer or a gradient is computed here. All that speaks for or against a compiled kernel is in
this module.

A kernel is used where it is right and not slower than torch's operations on this machine. A self-test finds that out at
first use, in less than a second, and keeps it beside the compiled file: each kind of work is compared with torch's
result and timed against it in alternating rounds. Rounds that disagree decide nothing and are not kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from random import Random
from statistics import median

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..arch.plan import Block, Layer
from ..core.errors import BadInput, RunFault
from ..core.files import read_json, write_json
from . import build, native

BLOCKS = ("inverted", "separable")
# What is chosen for. A block's map decides what bounds it: memory on large ones, arithmetic on small ones.
KINDS = (
    *(f"block, {use}, {size} maps" for use in ("training", "evaluation") for size in ("large", "middle", "small")),
    "norm and activation", "depthwise gradient, 3 x 3", "depthwise gradient, larger", "augmentation",
)  # fmt: skip
ROUNDS, TURNS, TRIES = 3, 5, 3
AGREE = 1.2  # rounds that differ by more than a fifth decide nothing
ENOUGH_S = 0.8  # that a self-test may take, but for the kind that it is at then
TOLERANCE = 1e-3  # of the norm of all values: a wrong kernel is off by far more, another order of sums by far less
MANY_PIXELS = 12 * 12  # of a map from which on oneDNN's gradient of a 3 x 3 depthwise convolution is hard to beat
CHOSEN = "NASAUG_CHOICES"  # a table as JSON, by which a command has its cells choose alike

# Work of each kind for the self-test, from made-up numbers: a call does it once and gives its results. Who has such
# work adds it here.
SAMPLES: dict[str, Callable[[torch.Generator], Callable[[], list[Tensor]]]] = {}

Table = dict[str, bool]  # kind to whether the compiled kernel is used

_adopted: Table | None = None  # of the run that is carried out


# --- the front door -------------------------------------------------------------------------------------------


def select(block: Block, x: Tensor) -> bool:
    """Whether a whole block is computed as one compiled node: x [N, C, H, W] is as it was planned, and has more than
    one value per channel in each norm."""
    if not _planned(block) or tuple(x.shape[2:]) != block.in_size or not _open_to_c(x):
        return False
    h, w = block.out_size
    return len(x) * h * w > 1 and _table()[_kind_of(block, torch.is_grad_enabled())]


def select_node(x: Tensor, layer: Layer, *parameters: Tensor) -> bool:
    """Whether a convolution with its norm and activation is one node of the graph, `fused.conv_norm_act`: in training
    on the CPU, where every parameter has a gradient buffer. Elsewhere they are torch's ordinary operations."""
    return (
        x.device.type == "cpu" and torch.is_grad_enabled() and not layer.bias
        and all(p.grad is not None for p in parameters)
    )  # fmt: skip


def select_norm(*tensors: Tensor) -> bool:
    """Whether a norm with its activation is compiled."""
    return _open_to_c(*tensors) and _table()["norm and activation"]


def select_gradient(x: Tensor, grad: Tensor, layer: Layer) -> str:
    """What computes the gradient of a convolution of x: "torch", "compiled" (depthwise alone), or "taps", where oneDNN
    is slow: the weights' by `fused.depthwise_gradient`, the rest by torch."""
    if not layer.depthwise:
        return "torch"
    small = layer.kernel <= 3
    pixels = x.shape[2] * x.shape[3]
    # a larger kernel's canvas has to stay in a core's cache
    fits = layer.kernel <= native.MAX_KERNEL and pixels <= (MANY_PIXELS if small else native.MAX_PIXELS)
    if fits and _open_to_c(x, grad) and _table()[f"depthwise gradient, {'3 x 3' if small else 'larger'}"]:
        return "compiled"
    fast = min(x.shape[2:]) >= 3 if small else grad.shape[2] * grad.shape[3] > 64
    return "torch" if fast else "taps"


def select_operators(images: Tensor) -> bool:
    """Whether RandAugment's operators on uint8 images are compiled."""
    return images.device.type == "cpu" and build.library() is not None and _table()["augmentation"]


def _open_to_c(*tensors: Tensor) -> bool:
    """Whether C can take them: float32 on the CPU, and compiled, while nobody watches torch's operations or traces."""
    return (
        all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
        and _get_current_dispatch_mode() is None and not torch.compiler.is_compiling()
        and build.library() is not None  # last, since it compiles where that was not done before
    )  # fmt: skip


@cache
def _planned(block: Block) -> bool:
    """Depthwise-separable, with an expansion or without, no squeeze-excite; its canvas fits a core's cache."""
    if block.spec.block not in BLOCKS or block.spec.se or block.spec.order != "post" or block.shortcut == "project":
        return False
    h, w = block.in_size
    return block.spec.kernel <= native.MAX_KERNEL and h * w <= native.MAX_PIXELS


@cache
def _kind_of(block: Block, training: bool) -> str:
    side = max(block.in_size)
    size = "large" if side >= 8 else "middle" if side > 2 else "small"
    return f"block, {'training' if training else 'evaluation'}, {size} maps"


# --- what is chosen -------------------------------------------------------------------------------------------


def _table() -> Table:
    return table(torch.get_num_threads()) if _adopted is None else _adopted


@cache
def table(threads: int) -> Table:
    """What is chosen with so many threads: what a command chose for its cells, what was kept, or by a self-test."""
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
        raise BadInput(f"{CHOSEN}={text!r:.60} is no table; commands set it for what they run: unset it") from error


def _complete(chosen: Table) -> Table:
    """What nothing was decided of is compiled: that these kernels are the faster ones is what the benchmarks say."""
    return {kind: bool(chosen.get(kind, True)) for kind in KINDS}


def _kept(library: build.Library, threads: int) -> Table:
    with contextlib.suppress(BadInput, AttributeError):
        kept = read_json(library.notes, build.FORMAT)["choices"].get(str(threads), {})
        return {kind: bool(kept[kind]) for kind in KINDS if kind in kept}
    return {}


def _keep(library: build.Library, threads: int, found: Table) -> None:
    with contextlib.suppress(BadInput, RunFault, AttributeError):  # a folder that is only read serves as well
        notes = read_json(library.notes, build.FORMAT)
        notes["choices"][str(threads)] = found
        write_json(library.notes, notes)


@contextlib.contextmanager
def forced(use: bool) -> Iterator[None]:
    """All kernels, or none, whatever was chosen: for tests, benchmarks and the self-test."""
    global _adopted
    before, _adopted = _adopted, dict.fromkeys(KINDS, use)
    try:
        yield
    finally:
        _adopted = before


# --- what a run remembers -------------------------------------------------------------------------------------


def record() -> dict:
    """What is in force, for a run's record of its environment."""
    library, chosen = build.library(), _table()
    return {
        "threads": torch.get_num_threads(), "unit": library.unit if library else None, "why_not": build.why_not(),
        "compiled": sorted(kind for kind in KINDS if library and chosen[kind]),
    }  # fmt: skip


def adopt(recorded: dict) -> str:
    """Choose as the run did that `recorded` this; what differs, so that its result will too, in a line, or nothing.

    A new run, one of another machine, and one that began before runs recorded this choose anew."""
    global _adopted
    _adopted, library = None, build.library()
    unit = library.unit if library else None
    if not recorded:
        return ""
    if unit == recorded.get("unit"):
        _adopted = {kind: kind in recorded.get("compiled", ()) for kind in KINDS}
    now = {"kernels for": ("unit", unit), "threads": ("threads", torch.get_num_threads())}
    differs = [f"{name} {recorded.get(k)} then, {v} now" for name, (k, v) in now.items() if recorded.get(k) != v]
    return f"the machine differs ({'; '.join(differs)}): the same seed may end with other digits" if differs else ""


def for_cells(threads: int) -> dict[str, str]:
    """The environment by which processes with so many threads choose alike."""
    return {CHOSEN: json.dumps(table(threads))}


def described() -> str:
    """Which kernels are in use, in a few words."""
    library = build.library()
    return f"kernels for {library.unit}" if library else f"without compiled kernels ({build.why_not()})"


def told() -> str:
    """The same in a line, with what was found slower than torch."""
    left = [kind for kind in KINDS if build.library() and not _table()[kind]]
    return f"{described()}, {torch.get_num_threads()} threads" + (f"; by torch: {', '.join(left)}" if left else "")


# --- the self-test --------------------------------------------------------------------------------------------


def self_test(threads: int, kinds: list[str]) -> Table:
    """Whether each kind's compiled kernel is right and no slower than torch; a kind is left out where rounds disagree.

    Takes at most about a second; what there was no time for is left out too."""
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


def _tested(kind: str) -> bool | None:
    with torch.inference_mode(False):
        job = SAMPLES[kind](torch.Generator().manual_seed(Random(kind).getrandbits(32)))

    def run(use: bool) -> list[Tensor]:
        # it may be called for in the middle of anything: a forward pass, an evaluation, autocast
        with forced(use), torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            return job()

    if not _alike(run(True), run(False)):
        return False
    for _ in range(TRIES):
        ratios = [_ratio(partial(run, False), partial(run, True)) for _ in range(ROUNDS)]
        if max(ratios) <= AGREE * min(ratios):
            return median(ratios) >= 1
    return None


def _ratio(torchs: Callable[[], object], ours: Callable[[], object]) -> float:
    """How many times as fast ours is: the least times of some turns, since what else the machine does only adds."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for run, seconds in zip((torchs, ours), times, strict=True):
            begun = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begun)
    return min(times[0]) / min(times[1])


def _alike(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    """Equal but for rounding, as a whole: a single value may fall on the other side of an activation's kink."""
    return all(
        (a.double() - b.double()).norm() <= TOLERANCE * b.double().norm() + 1e-6
        for a, b in zip(ours, theirs, strict=True)
    )

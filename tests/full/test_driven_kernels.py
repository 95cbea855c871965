"""The kernels outside of Python: for ARM under an emulator, and on this machine under sanitizers.

They are compiled with kernel_driver.c, which runs them on inputs and expected outputs that are written here, by torch's
plain functions in double precision. NEON is cross-compiled and run under qemu, without an ARM machine,
so the speed on a real processor remains unknown. AddressSanitizer and UBSan cover AVX2 and the shared code.
"""

import itertools
import random
import shutil
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nasaug.kernels import build

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
LIBRARIES = "/usr/aarch64-linux-gnu"  # where Debian's cross compiler has ARM's
FLAGS = {
    "NEON": [COMPILER, "-O3", "-march=armv8-a", "-pthread"],
    "AVX2": ["gcc", "-O1", "-g", "-march=x86-64-v3", "-pthread", "-fsanitize=address,undefined",
             "-fno-sanitize-recover=undefined"],
}  # fmt: skip
RUN = {"NEON": [EMULATOR, "-L", LIBRARIES], "AVX2": []}
STRICT = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]
HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "nasaug" / "kernels" / "csrc"


def need(unit: str) -> None:
    """Skip if this machine cannot compile for the unit or run it."""
    missing = [name for name in {"NEON": (COMPILER, EMULATOR), "AVX2": ("gcc",)}[unit] if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not on this machine: {' and '.join(missing)} (Debian's gcc-aarch64-linux-gnu and qemu-user)")
    if unit == "AVX2" and not build.has(unit):
        pytest.skip("this processor has no AVX2")


EPS = 1e-5
KERNELS, STRIDES = (1, 3, 5, 7), (1, 2)
ACTS = {"": lambda z: z, "relu": F.relu, "relu6": F.relu6, "hswish": F.hardswish}
EDGES = {"": (), "relu": (0.0,), "relu6": (0.0, 6.0), "hswish": (-3.0, 3.0)}
CODES = {"": (0, 0.0), "relu": (1, float("inf")), "relu6": (1, 6.0), "hswish": (2, 0.0)}  # as the kernels expect them
TWO_THREADS = 32768  # values from which on the kernels take a second thread


class Case(NamedTuple):
    """A call of a function; `outputs` are pairs of what is expected and the largest difference allowed."""

    function: str
    name: str
    numbers: list
    inputs: list[Tensor]
    outputs: list[tuple[Tensor, float]]


def packed(case: Case) -> bytes:
    """The case in the format of kernel_driver.c."""
    counts = [len(part) for part in (case.numbers, case.inputs, case.outputs)]
    parts = [struct.pack("<16s112s3q", case.function.encode(), case.name.encode(), *counts)]
    parts.append(struct.pack(f"<{len(case.numbers)}d", *case.numbers))
    for given in case.inputs:
        parts.append(struct.pack("<q", given.numel()) + given.detach().float().numpy().tobytes())
    for expected, allowed in case.outputs:
        parts.append(struct.pack("<qd", expected.numel(), allowed) + expected.detach().double().numpy().tobytes())
    return b"".join(parts)


def channels_last(images: Tensor) -> Tensor:
    """Flattened as the kernels expect: a batch of images channels-last, other arrays unchanged."""
    return images.detach().permute(0, 2, 3, 1).reshape(-1)


NOTHING = torch.empty(0)  # becomes a null pointer


@pytest.fixture(scope="module", params=list(FLAGS))
def driver(request, tmp_path_factory):
    """Runs cases; returns whether all were right, and the output."""
    need(request.param)
    program = tmp_path_factory.mktemp("driven") / "driver"
    units = [HERE / "kernel_driver.c", *(path for path in SOURCES.glob("*.c") if path.name != "block.c")]
    compiled(request.param, [*map(str, units), f"-I{SOURCES}", "-o", str(program), "-lm"])

    def run(cases: list[Case]) -> tuple[bool, str]:
        file = program.with_name("cases")
        file.write_bytes(b"".join(map(packed, cases)))
        told = subprocess.run(
            [*RUN[request.param], str(program), str(file)], capture_output=True, text=True,
        )  # fmt: skip
        assert told.stdout.startswith(f"unit {request.param}\n"), told.stdout[:500] + told.stderr[:500]
        return told.returncode == 0, told.stdout + told.stderr

    return run


def compiled(unit: str, arguments: list[str]) -> None:
    told = subprocess.run([*FLAGS[unit], *arguments], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr[:5000]


def right(driver, cases: list[Case]) -> None:
    """Every case ran, and none failed."""
    fine, said = driver(cases)
    wrong = [line for line in said.splitlines() if not line.startswith("ok ")]
    assert fine and said.endswith(f"\n{len(cases)} cases, 0 failed\n"), "\n".join(wrong[:40])


def sized(t: Tensor, relative: float) -> tuple[Tensor, float]:
    """An expected output in single precision, with a tolerance of `relative` times its largest value."""
    return t, relative * max(1e-3, t.detach().nan_to_num().abs().amax().item() if len(t) else 0.0)


def generator(*parts) -> torch.Generator:
    return torch.Generator().manual_seed(random.Random(repr(parts)).getrandbits(40))


def named(act: str) -> str:
    return act or "no activation"


def near(z: Tensor, act: str) -> bool:
    """Whether a value is so near a kink of the activation that single precision may fall on its other side."""
    return any(bool(((z - edge).abs() < 1e-4).any()) for edge in EDGES[act])


# --- a norm with its activation ----------------------------------------------------------------------------------

# (rows, channels); the last two have work for two threads, and more than one block of rows
NORMS = [(2, 1), (3, 70), (9, 7), (50, 13), (81, 33), (162, 64), (5, 600), (700, 53), (41000, 1)]


def by_norm(rows: int, c: int, act: str, dtype, g: torch.Generator):
    """Torch's outputs and gradients in the precision of `dtype`, its inputs, and whether a value is near a kink."""
    y = torch.randn(rows, c, generator=g) + 3.0
    grad = torch.randn(rows, c, generator=g)
    scale, shift = torch.rand(c, generator=g) + 0.5, torch.randn(c, generator=g)
    running = [torch.randn(c, generator=g), torch.rand(c, generator=g)]
    given = [t.to(dtype, copy=True) for t in (y, grad, scale, shift, *running)]
    leaves = [given[i].requires_grad_() for i in (0, 2, 3)]
    z = F.batch_norm(leaves[0], *given[4:], *leaves[1:], True, 0.1, EPS)
    out = ACTS[act](z)
    out.backward(given[1])
    results = [out, *given[4:]], [leaves[0].grad, *(t.grad + 1 for t in leaves[1:])]
    return results, [y, grad, scale, shift, *running], near(z, act)


def norm_cases(back: bool) -> list[Case]:
    """Cases of norms; for gradients, inputs are redrawn until no value is near a kink."""
    cases = []
    for (rows, c), act in itertools.product(NORMS, ACTS):
        for draw in itertools.count():
            given = (rows, c, act, torch.float64, generator("norm", rows, c, act, draw))
            results, (y, grad, scale, shift, *running), kink = by_norm(*given)
            if not (back and kink):
                break
        theirs, _, _ = by_norm(rows, c, act, torch.float32, generator("norm", rows, c, act, draw))
        allowed = [  # three times the error of torch's own single precision
            (right, 3 * (other - right).abs().max().item() + 1e-5 * (1 + right.abs().max().item()))
            for right, other in zip(results[back], theirs[back], strict=True)
        ]
        mean, rstd = y.double().mean(0), (y.double().var(0, unbiased=False) + EPS).rsqrt()
        sizes, name = [rows, c, *CODES[act]], f"{rows}x{c} {named(act)}"
        if back:
            inputs = [grad, y, scale, shift, mean, rstd]
            cases.append(Case("norm_act_back", f"norm_act_back {name}", sizes, inputs, allowed))
        else:
            outputs = [allowed[0], sized(mean, 1e-5), sized(rstd, 1e-5), *allowed[1:]]
            inputs = [y, scale, shift, *running]
            cases.append(Case("norm_act", f"norm_act {name}", [*sizes, EPS, 0.1], inputs, outputs))
    return cases


def norm_case_without_a_number(act: str) -> Case:
    y = torch.randn(18, 21, generator=generator(act))
    y[7, 3] = float("nan")
    mean, rstd = y.double().mean(0), (y.double().var(0, unbiased=False) + EPS).rsqrt()
    out = ACTS[act]((y.double() - mean) * rstd)
    assert out[:, 3].isnan().all() and out.isnan().sum() == 18
    outputs = [(out, 1e-4), (mean, 1e-5), (rstd, 1e-4), (NOTHING, 0.0), (NOTHING, 0.0)]
    inputs = [y, torch.ones(21), torch.zeros(21), NOTHING, NOTHING]
    return Case("norm_act", f"norm_act with NaN {named(act)}", [18, 21, *CODES[act], EPS, 0.0], inputs, outputs)


# --- gradients of a depthwise convolution ------------------------------------------------------------------------


def padded(side: int, k: int, s: int) -> int:
    """Side length in pixels after a convolution."""
    return (side + 2 * (k // 2) - k) // s + 1


def slice_of(whole: Tensor, k: int) -> list[int]:
    """Where the middle k x k kernel of the first channel begins in a whole weight, and its three strides."""
    channel, _, row, column = whole.stride()
    return [(whole.shape[-1] - k) // 2 * (row + column), channel, row, column]


def middle(whole: Tensor, out: int, ins: int, k: int) -> Tensor:
    spare = (whole.shape[-1] - k) // 2
    return whole[:out, :ins, spare : spare + k, spare : spare + k]


def depthwise_cases() -> list[Case]:
    cases = []
    for index, (k, s, kind) in enumerate(itertools.product(KERNELS, STRIDES, ("small", "any", "any", "large"))):
        draw, g = random.Random(index), generator("depthwise", index)
        n, c, h, w = draw.randint(1, 18), draw.randint(1, 70), draw.randint(1, 9), draw.randint(1, 9)
        if kind == "small":
            h = w = 1 + s % 2
        elif kind == "large":
            c, h, w = draw.randint(1, 70), 17, 12
            n = TWO_THREADS // (c * h * w) + 1
        spare, for_spare, wanted = draw.randint(0, 1), draw.randint(0, 1), kind == "large" or draw.random() < 0.7
        x = torch.randn(n, c, h, w, generator=g)
        whole = torch.randn(c + spare, 1, k + 2 * spare, k + 2 * spare, generator=g)
        twins = [x.double().requires_grad_(), middle(whole, c, 1, k).double().requires_grad_()]
        out = F.conv2d(*twins, None, s, k // 2, 1, c)
        grad = torch.randn(out.shape, generator=g)
        out.backward(grad.double())
        # a gradient that is a slice of another size than the weight; ones around it have to stay
        into = torch.ones(c + for_spare, 1, k + 2 * for_spare, k + 2 * for_spare, dtype=torch.float64)
        middle(into, c, 1, k).add_(twins[1].grad)
        numbers = [n, h, w, c, k, s, *out.shape[2:], *slice_of(whole, k), *slice_of(into, k)]
        dx = channels_last(twins[0].grad) if wanted else NOTHING
        outputs = [sized(dx, 2e-5), sized(into, 2e-5)]
        name = f"depthwise_back {n}x{c}x{h}x{w} kernel {k} stride {s}"
        cases.append(Case("depthwise_back", name, numbers, [channels_last(grad), channels_last(x), whole], outputs))
    return cases


# --- a whole block -------------------------------------------------------------------------------------------------


class Shape(NamedTuple):
    kind: str
    n: int
    cin: int
    hidden: int
    out: int
    k: int
    s: int
    act: str
    h: int
    w: int
    residual: bool
    spare: int
    wanted: bool

    def convs(self) -> list[tuple]:
        """(input channels of each output, output channels, groups, kernel, stride, activation)."""
        grow = [(self.cin, self.hidden, 1, 1, 1, self.act)] if self.kind == "inverted" else []
        depthwise = (1, self.hidden, self.hidden, self.k, self.s, self.act)
        return [*grow, depthwise, (self.hidden, self.out, 1, 1, 1, "")]

    def after(self) -> tuple[int, int]:
        return padded(self.h, self.k, self.s), padded(self.w, self.k, self.s)

    def __str__(self):
        shortcut = " residual" if self.residual else ""
        sizes = f"{self.n}x{self.cin}x{self.h}x{self.w} hidden {self.hidden} out {self.out} kernel {self.k}"
        return f"{self.kind} {sizes} stride {self.s} {named(self.act)}{shortcut}"


def drawn(index: int, kind: str, k: int, s: int, act: str) -> Shape:
    draw = random.Random(index)
    while True:
        n, cin, hidden, out = draw.randint(1, 18), draw.randint(1, 20), draw.randint(1, 70), draw.randint(1, 35)
        h, w, residual = draw.randint(1, 9), draw.randint(1, 9), s == 1 and draw.random() < 0.6
        cin = cin if kind == "inverted" else hidden
        spare, wanted = draw.randint(0, 1), draw.random() < 0.7
        shape = Shape(kind, n, cin, hidden, cin if residual else out, k, s, act, h, w, residual, spare, wanted)
        if n * shape.after()[0] * shape.after()[1] > 3:  # with fewer values a norm is ill-conditioned
            return shape


def shapes() -> list[Shape]:
    kinds = itertools.cycle(("inverted", "inverted", "separable"))
    every = itertools.product(KERNELS, STRIDES, ACTS, range(3))
    found = [drawn(i, next(kinds), *given) for i, (*given, _) in enumerate(every)]
    for side, s, act in itertools.product((1, 2), STRIDES, ACTS):  # inverted ones of these sides have code of their own
        found.append(drawn(len(found), "inverted", 3, s, act)._replace(n=18, h=side, w=side))
    for kind, (s, act) in itertools.product(("inverted", "separable"), zip((1, 2, 1, 2), ACTS, strict=True)):
        big = drawn(len(found), kind, 3, s, act)  # work for two threads, few enough for a draw without kinks
        found.append(big._replace(n=TWO_THREADS // (13 * 14 * big.hidden) + 1, h=13, w=14))
    return found


class Block(NamedTuple):
    """A shape's values: its input, the gradient of its output, and (weight, scale, shift, mean, variance) of each
    convolution, whole parameters of which the block uses a part."""

    x: Tensor
    grad: Tensor
    whole: list[list[Tensor]]


def values_of(shape: Shape, g: torch.Generator) -> Block:
    whole = []
    for ins, out, groups, k, _, _ in shape.convs():
        ins, k = ins + (shape.spare if groups == 1 else 0), k + (2 * shape.spare if groups > 1 else 0)
        weight = torch.randn(out + shape.spare, ins, k, k, generator=g) / (ins * k)
        scale, shift = (make(out + shape.spare, generator=g) for make in (torch.rand, torch.randn))
        whole.append([weight, scale + 0.5, shift, torch.randn(out, generator=g), torch.rand(out, generator=g) + 0.1])
    x = torch.randn(shape.n, shape.cin, shape.h, shape.w, generator=g) + 0.5
    return Block(x, torch.randn(shape.n, shape.out, *shape.after(), generator=g), whole)


def by_layers(shape: Shape, x: Tensor, whole: list[list[Tensor]], training: bool, dead=0) -> tuple[Tensor, bool]:
    """The block by torch's plain functions, and whether a value came near a kink, the first `dead` channels left out;
    running statistics are updated."""
    source, kink = x, False
    for (ins, out, groups, k, s, act), (weight, scale, shift, mean, var) in zip(shape.convs(), whole, strict=True):
        y = F.conv2d(x, middle(weight, out, ins, k), None, s, k // 2, 1, groups)
        z = F.batch_norm(y, mean, var, scale[:out], shift[:out], training, 0.1, EPS)
        kink = kink or near(z[:, dead:], act)
        x = ACTS[act](z)
    return (x + source if shape.residual else x), kink


def doubled(block: Block) -> list[list[Tensor]]:
    return [[t.double() for t in conv] for conv in block.whole]


def numbers_of(shape: Shape, block: Block) -> list:
    sizes = [shape.n, shape.h, shape.w, *shape.after(), shape.cin, shape.hidden, shape.out, shape.k, shape.s]
    numbers = [*sizes, shape.kind == "inverted", shape.residual, *CODES[shape.act], EPS]
    for (_, _, _, k, _, _), (weight, *_) in zip(shape.convs(), block.whole, strict=True):
        numbers += [*slice_of(weight, k), 0.1]
    return numbers


def forward_case(shape: Shape, training: bool, nan: bool = False) -> Case:
    block = values_of(shape, generator("forward", shape))
    function = "inverted" if training else "inverted_eval"
    if nan:
        block.x[0, 0, 0, 0] = float("nan")
    whole = doubled(block)
    with torch.no_grad():
        out, _ = by_layers(shape, block.x.double(), whole, training)
    assert bool(out.isnan().any()) == nan
    outputs = [sized(channels_last(out), 2e-4 if training else 2e-5)]
    if training:
        outputs += [sized(t, 1e-4) for conv in whole for t in conv[3:]]
    inputs = [channels_last(block.x), *(t for conv in block.whole for t in conv)]
    name = f"{function} {'with NaN ' if nan else ''}{shape}"
    return Case(function, name, numbers_of(shape, block), inputs, outputs)


def back_case(shape: Shape, edge: tuple[int, float] | None = None) -> Case:
    """Of the first draw that brings no value near a kink. `edge`: a convolution, of whose first channel all values are
    set to that number."""
    for draw in itertools.count():
        block = values_of(shape, generator("back", shape, draw))
        if edge is not None:
            weight, _, shift, *_ = block.whole[edge[0]]
            weight[0], shift[0] = 0.0, edge[1]
        whole, x = doubled(block), block.x.double().requires_grad_(shape.wanted)
        leaves = [t.requires_grad_() for conv in whole for t in conv[:3]]
        out, kink = by_layers(shape, x, whole, True, dead=edge is not None)
        if not kink:
            break
    out.backward(block.grad.double())
    allowed = 3e-4 * max(1.0, *(t.grad.abs().max().item() for t in leaves))
    dx = channels_last(x.grad) if shape.wanted else NOTHING
    outputs = [sized(dx, 1e-3), *((t.grad + 1, allowed) for t in leaves)]  # added to ones
    inputs = [channels_last(block.x), channels_last(block.grad), *(t for conv in block.whole for t in conv[:3])]
    name = f"inverted_back {shape}" + ("" if edge is None else f" convolution {edge[0]} at {edge[1]:g}")
    return Case("inverted_back", name, numbers_of(shape, block), inputs, outputs)


# --- the tests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", sorted(SOURCES.glob("*.c")), ids=lambda path: path.name)
@pytest.mark.parametrize("unit", FLAGS)
def test_every_source_compiles_without_a_warning(unit, source, tmp_path):
    """All sources, because they are compiled together: if one fails, none is used."""
    need(unit)
    compiled(unit, [*STRICT, "-fPIC", "-c", str(source), "-o", str(tmp_path / "it.o")])


def test_norms_with_activations(driver):
    right(driver, norm_cases(back=False))


def test_gradients_of_norms_with_activations(driver):
    right(driver, norm_cases(back=True))


def test_gradients_of_depthwise_convolutions(driver):
    right(driver, depthwise_cases())


def test_blocks_in_training(driver):
    right(driver, [forward_case(shape, True) for shape in shapes()])


def test_gradients_of_blocks(driver):
    right(driver, [back_case(shape) for shape in shapes()])


def test_gradients_of_blocks_at_a_kink(driver):
    """If a weight is zero, all values of a channel equal its shift, which can be a kink."""
    cases = []
    for (act, edge), conv, side in itertools.product((("relu", 0.0), ("relu6", 0.0), ("relu6", 6.0)), (0, 1), (2, 5)):
        cases.append(back_case(Shape("inverted", 4, 5, 21, 5, 3, 1, act, side, side, True, 0, True), (conv, edge)))
    right(driver, cases)


def test_blocks_with_running_statistics(driver):
    right(driver, [forward_case(shape, False) for shape in shapes()])


def test_what_is_no_number_is_handed_on(driver):
    cases = [norm_case_without_a_number(act) for act in ACTS]
    for act, kind, side in itertools.product(ACTS, ("inverted", "separable"), (2, 5)):
        shape = Shape(kind, 2, 5, 21 if kind == "inverted" else 5, 5, 3, 1, act, side, side, True, 0, True)
        cases += [forward_case(shape, training, nan=True) for training in (True, False)]
    right(driver, cases)


@pytest.mark.parametrize("which", [0, 1])
def test_the_driver_notices_a_wrong_output(which, driver):
    """A value that is off by more than the tolerance, and a NaN."""
    case = depthwise_cases()[1]
    expected, allowed = case.outputs[1]
    expected.view(-1)[0] += (2 * allowed, float("nan"))[which]
    fine, said = driver([case, norm_case_without_a_number("relu")])
    assert not fine and f"FAIL {case.name}: output 2 differs" in said and "2 cases, 1 failed" in said

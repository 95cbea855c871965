"""The formats of `export`: each is a function that makes a file's content and compares it with the net."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..core import files
from ..core.errors import RunFault
from ..core.streams import nasaug_command
from ..core.units import counted
from ..int8.measure import Latency, Session
from . import built, csource, qdq
from .integer import IntegerNet
from .source import Source

FILES = {
    "onnx": ("{}.onnx",), "int8-onnx": ("{}-int8.onnx",), "torch-export": ("{}.pt2",), "c": ("{}.h", "{}.c"),
    "executorch": ("{}.pte",),
}  # fmt: skip

# What a file's outputs may differ by. Float formats only round otherwise: by this part of the largest output.
TOLERANCE = 1e-4
# int8: the differences' root mean square, as a part of that of the outputs around their mean. Above it the int8 net is
# broken; below it the test score says what it lost.
INT8_TOLERANCE = 0.5
# C: the share of images with the same class as by the int8 ONNX file, and that with all outputs within one step.
# ONNX Runtime has two ways to run the file, integer kernels and float arithmetic between the roundings, and where a
# value lies on the edge between two steps they differ too, by more than one step for some images
# (benchmarks/formats.py counts them). So to agree with either will do.
C_TOLERANCE = 0.995
C_MACS = 4e9  # of the images that the integers are compared on: numpy and the C source take some seconds for them
LEAST = 16  # images compared however large the net
CHUNK = 128  # images at a time: numpy computes in 64 bits
IN_FLOAT = "the net was trained in int8 (qat); this is its float form, and the run's own score is that of int8"
LOST = 0.5  # points of test accuracy that int8 may lose without a warning


@dataclass(frozen=True)
class Artefact:
    """One exported format.

    bytes: the file's size; for c that of its constants. difference: from the trained net's outputs in float formats the
    largest, as a part of the largest output; for int8-onnx the root mean square, as a part of the outputs' spread; for
    c the largest from int8-onnx's, in steps of the output. allowed: the most that is accepted, "" for c. agreement: the
    share of the compared images with the same class, None for numbers. score: on the run's test images, None if not
    measured. memory (c): bytes of `arena`, the static buffer, and of the plan's `flash` and `sram`; with a compiler for
    Cortex-M also of the object file's `text`, `rodata`, `data` and `bss`."""

    format: str
    files: tuple[str, ...]
    bytes: int
    difference: float
    unit: str
    allowed: str
    compared: str
    agreement: float | None = None
    score: float | None = None
    latency: Latency | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Artefact:
        """The inverse of `dataclasses.asdict` after JSON."""
        latency = table["latency"]
        lists = {key: tuple(table[key]) for key in ("files", "notes")}
        return cls(**{**table, **lists, "latency": None if latency is None else Latency(*latency)})

    @property
    def told(self) -> str:
        """How far its outputs are from those it was compared with."""
        if self.unit == "steps":
            return f"within {counted(self.difference, 'step')} of int8-onnx"
        return f"off by {self.difference:.1g} of the {self.unit} ({self.allowed} allowed)"


Made = tuple[list[bytes], Artefact]  # the content of each file, and what is known about them


def _onnx(source: Source, name: str) -> Made:
    content = source.onnx().SerializeToString()
    session = Session(content)
    return [content], _float(
        "onnx", source, name, session, len(content),
        score=source.test_score(session, "onnx"), latency=session.latency(source.px),
    )  # fmt: skip


def _float(format: str, source: Source, name: str, run: Callable[[Tensor], Tensor], size: int, **more: Any) -> Artefact:
    """The artefact of a float format. Raises RunFault beyond the tolerance."""
    wanted, got = source.eager, source.outputs(run)
    difference = ((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30)).item()
    if not difference <= TOLERANCE:
        rule = f"differ from the net's by {difference:.2g} of the largest, and {TOLERANCE:g} is allowed"
        raise _wrong(format, f"its outputs on {source.compared} {rule}")
    notes = () if source.scales is None else (IN_FLOAT,)
    return Artefact(
        format, names(format, name), size, difference, "largest output", f"{TOLERANCE:g}", source.compared,
        source.agreement(got, wanted), notes=notes, **more,
    )  # fmt: skip


def _int8(source: Source, name: str) -> Made:
    content = source.int8.SerializeToString()
    session = Session(content)
    wanted, got = source.eager.double(), source.outputs(session).double()
    spread = (wanted - wanted.mean()).square().mean().clamp_min(1e-30)
    noise = ((got - wanted).square().mean() / spread).sqrt().item()
    if source.scales is None and not noise <= INT8_TOLERANCE:  # trained in int8, it need not be like its float form
        rule = f"differ from the net's by {noise:.2g} of their spread, and {INT8_TOLERANCE:g} is allowed"
        raise _wrong("int8-onnx", f"its outputs on {source.compared} {rule}")
    score, metric = source.test_score(session, "int8-onnx"), source.task.metric
    notes: tuple[str, ...] = ()
    if score is not None and metric.in_percent and source.result.test_score - score > LOST:
        lost = f"it loses {source.result.test_score - score:.2f} points of test {metric.label}, over {LOST:g}"
        again = nasaug_command("train", "--method", "qat", "--arch", source.run.arch_file)
        notes = (lost if source.scales else f"{lost}; training in int8 may win them back: {again}",)
    return [content], Artefact(
        "int8-onnx", names("int8-onnx", name), len(content), noise, "outputs' spread", f"{INT8_TOLERANCE:g}",
        source.compared, source.agreement(got, wanted), score, session.latency(source.px), notes=notes,
    )  # fmt: skip


def _torch_export(source: Source, name: str) -> Made:
    example = torch.zeros(2, 3, source.px, source.px)  # with one image, torch would take its number for fixed
    dynamic = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(source.folded, (example,), dynamic_shapes=dynamic)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"nasaug.json": files.to_json(source.facts)})
    content = file.getvalue()
    net: Any = torch.export.load(io.BytesIO(content)).module()
    return [content], _float("torch-export", source, name, net, len(content))


def _executorch(source: Source, name: str) -> Made:
    content = built.executorch_program(source.folded, source.px)
    run = built.executorch_runner(content)

    def one_by_one(images: Tensor) -> Tensor:
        return torch.cat([run(image[None].contiguous()) for image in images])

    return [content], _float("executorch", source, name, one_by_one, len(content))


def _c(source: Source, name: str) -> Made:
    net = qdq.of_onnx(source.int8)
    images = torch.cat(source.images)[: int(max(C_MACS // source.cost.macs, LEAST))].contiguous().numpy()
    given = net.input.of(images.transpose(0, 2, 3, 1))
    got = np.concatenate([net.run(given[i : i + CHUNK]) for i in range(0, len(given), CHUNK)])
    content = source.int8.SerializeToString()
    theirs, plain = (
        net.output.of(Session(content, fused=fused).run(images)).reshape(len(images), -1) for fused in (True, False)
    )
    steps, plain_steps = (np.abs(got.astype(int) - other).max(1) for other in (theirs, plain))
    between = np.abs(theirs.astype(int) - plain).max(1)  # ONNX Runtime's own two ways, which differ in deep nets
    least = min(C_TOLERANCE, float((between <= 1).mean()))
    _accept(np.minimum(steps, plain_steps) <= 1, "within one step of int8-onnx's", least)
    agreement = None
    if source.task.targets == "classes":
        same, plain_same = (got.argmax(1) == other.argmax(1) for other in (theirs, plain))
        _accept(same | plain_same, "of the same class as int8-onnx's", C_TOLERANCE)
        agreement = float(same.mean())
    header, code = _c_text(source, net, name)
    notes = [
        f"{100 * (steps <= 1).mean():.2f} % of {len(given):,} images within one step of int8-onnx by ONNX Runtime's "
        f"integer kernels, {100 * (plain_steps <= 1).mean():.2f} % by its float arithmetic; these two agree with each "
        f"other for {100 * (between <= 1).mean():.2f} %"
    ]
    here = built.outputs_here(header, code, name, given, net.output.size)
    if here is None:
        notes.append("there is no C compiler here: the arithmetic was compared, but the source not built")
    elif not np.array_equal(here, got):
        raise _wrong("c", "the source, built here, does not compute what it should")
    else:
        notes.append(f"built here, the source gives exactly these outputs for all {len(here):,} images")
    memory = {"arena": net.arena, "flash": source.cost.flash, "sram": source.cost.peak}
    return [header.encode(), code.encode()], Artefact(
        "c", names("c", name), net.constants, float(steps.max()), "steps", "", f"{len(given):,} images",
        agreement, memory=memory | (built.cortex_m(header, code, name) or {}), notes=tuple(notes),
    )  # fmt: skip


def _accept(right: np.ndarray, what: str, least: float) -> None:
    """Raises RunFault unless the C's outputs are right for this share of the images at least, or for all but one of
    few."""
    wrong = int((~right).sum())
    if wrong > max(1, round((1 - least) * len(right))):
        rule = f"{what} for {right.mean():.1%} of {len(right)} images, not {least:.1%}"
        raise _wrong("c", f"its outputs are {rule}")


def _c_text(source: Source, net: IntegerNet, name: str) -> tuple[str, str]:
    facts = source.facts
    about = (
        f"{facts['arch']}: {source.cost.macs:,} MACs, int8, trained on {source.result.data}",
        f"pixels: (p / 255 - mean) / std with mean {facts['mean']}, std {facts['std']}",
        f"central crop of {facts['central']:g} of the shorter side, resized to {source.px} px; transparent parts on "
        f"{facts['background']}",
    )  # fmt: skip
    constants: dict[str, Any] = {"macs": source.cost.macs}
    if source.task.targets in ("classes", "boxes"):
        constants["classes"] = facts["classes"]
    elif "numbers" in facts:
        constants |= {f"number_{key}": float(value) for key, value in facts["numbers"].items()}
    title = f"{name}: a network of nasaug in integers"
    return csource.to_c(
        net, name, facts["mean"], facts["std"], version=__version__, title=title, about=about, constants=constants
    )


def names(format: str, name: str) -> tuple[str, ...]:
    """The files of a format."""
    return tuple(file.format(name) for file in FILES[format])


def _wrong(format: str, what: str) -> RunFault:
    return RunFault(f"{format}: {what}; it was not written; leave the format out, and please report this")


MAKE: dict[str, Callable[[Source, str], Made]] = {
    "onnx": _onnx, "int8-onnx": _int8, "torch-export": _torch_export, "c": _c, "executorch": _executorch,
}  # fmt: skip

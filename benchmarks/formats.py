"""A finished run's net in every format: size, test accuracy, latency and parity, measured on the exported files.

    python benchmarks/formats.py RUN [--out formats_mine] [--images 1000]

Writes docs/results/OUT.md and .json. Run it on an idle machine, with a C compiler; with Debian's gcc-arm-none-eabi the
C source is also built for a Cortex-M4, and where ExecuTorch is installed, its program is a row too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from bench import processor  # noqa: E402
from cells import data_name, write  # noqa: E402

import nasaug  # noqa: E402
from nasaug.core.progress import Event, Line, heard_by  # noqa: E402
from nasaug.core.units import format_quantity  # noqa: E402
from nasaug.deployment import built, qdq  # noqa: E402
from nasaug.deployment.formats import C_TOLERANCE  # noqa: E402
from nasaug.deployment.source import Source  # noqa: E402
from nasaug.int8 import onnxfile  # noqa: E402
from nasaug.int8.measure import Latency, Session, latency  # noqa: E402
from nasaug.rundirs.folder import RunDir  # noqa: E402

EXACT = 100  # images that the integer reference, which is slow, computes too
FORMATS = "onnx", "int8-onnx", "torch-export", "c"
Net = Callable[[Tensor], Tensor]


@dataclass
class Row:
    """One format. `far`: from the trained net's outputs, the largest difference as a part of the largest output."""

    format: str
    files: tuple[str, ...]
    bytes: int
    score: float
    latency: Latency
    same: float | None
    far: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", default="formats")
    parser.add_argument("--images", type=int, default=1000, help="test images on which outputs are compared")
    o = parser.parse_args()
    torch.set_num_threads(1)
    formats = [*FORMATS, "executorch"] if built.installed("executorch") else FORMATS
    with tempfile.TemporaryDirectory() as folder, heard_by(_told):
        exported = nasaug.export(o.run, format=formats, out=folder)
        source = Source.of(RunDir(o.run), None, True)
        folder = exported.path
        int8 = qdq.of_onnx(onnxfile.read(folder / exported["int8-onnx"].files[0]))
        header, code = ((folder / file).read_text() for file in exported["c"].files)
        with built.runner_here(header, code, "model", int8.output.size) as c:
            if c is None:
                raise SystemExit("there is no C compiler here; install one, or name it with CC=")

            def steps_by_c(x: Tensor) -> np.ndarray:
                return c(int8.input.of(x.permute(0, 2, 3, 1).numpy()))

            nets: dict[str, Net] = {
                "onnx": nasaug.load(folder / exported["onnx"].files[0]),
                "int8-onnx": nasaug.load(folder / exported["int8-onnx"].files[0]),
                "torch-export": torch.export.load(folder / exported["torch-export"].files[0]).module(),
                "c": lambda x: torch.from_numpy(int8.output.numbers(steps_by_c(x))),
            }
            if "executorch" in formats:
                one = built.executorch_runner((folder / exported["executorch"].files[0]).read_bytes())
                nets["executorch"] = lambda x: torch.cat([one(image[None].contiguous()) for image in x])
            with torch.inference_mode():
                test = source.data.test
                x = torch.cat([x for x, _ in source.scorer.batches(test.take(o.images, seed=0), source.px)])
                eager = source.model(x).float()
                rows = [_row(source, exported[name], net, x, eager) for name, net in nets.items()]
            parity = _parity(steps_by_c(x), int8, (folder / exported["int8-onnx"].files[0]).read_bytes(), x.numpy())
            memory = dict(exported["c"].memory) | {"constants": exported["c"].bytes}
    report(o.run.name, o.out, source, rows, parity, memory, len(x))


def _told(event: Event) -> None:
    """Progress on stderr: lines, and the end of each job."""
    if isinstance(event, Line) or event.over:
        print(event, file=sys.stderr, flush=True)


def _row(source: Source, made, net: Net, x: Tensor, eager: Tensor) -> Row:
    """The figures of one format, measured by running its file."""
    image, outputs = x[:1].contiguous(), net(x)
    far = ((outputs - eager).abs().max() / eager.abs().max()).item()
    score = source.test_score(net, made.format)
    timed = latency(lambda: net(image))
    return Row(made.format, made.files, made.bytes, score, timed, source.agreement(outputs, eager), far)


def _parity(mine: np.ndarray, int8, content: bytes, images: np.ndarray) -> dict[str, float]:
    """The built C's outputs against ONNX Runtime's two ways to run the int8 file: shares of the images."""
    mine, first = mine.astype(int), images[:EXACT]
    kernels, plain = (int8.output.of(Session(content, fused=fused).run(images)).astype(int) for fused in (True, False))
    steps = {"kernels": np.abs(mine - kernels).max(1), "float": np.abs(mine - plain).max(1)}
    return {
        "same_class": float((mine.argmax(1) == kernels.argmax(1)).mean()),
        "within_kernels": float((steps["kernels"] <= 1).mean()), "most_kernels": int(steps["kernels"].max()),
        "within_float": float((steps["float"] <= 1).mean()), "most_float": int(steps["float"].max()),
        "within_either": float((np.minimum(*steps.values()) <= 1).mean()),
        "runtime_itself": float((np.abs(kernels - plain).max(1) <= 1).mean()),
        "as_reference": float((mine[:EXACT] == int8.run(int8.input.of(first.transpose(0, 2, 3, 1)))).all(1).mean()),
    }  # fmt: skip


def report(run: str, name: str, source: Source, rows: list[Row], parity: dict, memory: dict, images: int) -> None:
    """Write the page."""
    metric, own, cost = source.task.metric, source.result.test_score, source.cost
    by = {row.format: row for row in rows}
    unit = "points" if metric.in_percent else metric.unit
    loss = (own - by["int8-onnx"].score) * (1 if metric.higher_is_better else -1)
    lines = [
        f"`python benchmarks/formats.py {run} --out {name}`", "",
        f"{source.result.arch} on {data_name(source.result.data)}: {cost.macs:,} MACs, {cost.params:,} parameters, "
        f"trained with {source.result.arm}; {processor()}, one thread, ONNX Runtime for both ONNX files.", "",
        f"**int8 loses {loss:.2f} {unit} of test {metric.label}** ({metric.show(own)} to "
        f"{metric.show(by['int8-onnx'].score)}).", "",
        f"| format | size | test {metric.label} | latency: median, p95 | same class as the trained net | "
        "largest difference |",
        "| --- " * 6 + "|", f"| trained net | | {metric.show(own)} | | | |",
    ]  # fmt: skip
    for row in rows:
        same = "" if row.same is None else f"{100 * row.same:.2f} %"
        size = format_quantity(row.bytes, "bytes") + (" of constants" if row.format == "c" else "")
        time = f"{row.latency.median_ms:.3f} ms, {row.latency.p95_ms:.3f} ms"
        lines.append(f"| {row.format} | {size} | {metric.show(row.score)} | {time} | {same} | {row.far:.1g} |")
    p = {key: f"{100 * value:.2f} %" if isinstance(value, float) else str(value) for key, value in parity.items()}
    lines += [
        "", f"Same class and difference (as a part of the largest output): {images:,} test images; the score: all of "
        f"{len(source.data.test):,}. Latency: one image, median and 95th percentile of up to 1,000 runs.", "",
        "## The C source against the int8 ONNX file", "",
        f"Built here, on {images:,} test images: the same class for {p['same_class']} ({100 * C_TOLERANCE:g} % "
        f"are asked); all logits within one step for {p['within_kernels']} of the images by ONNX Runtime's integer "
        f"kernels (at most {p['most_kernels']} steps), {p['within_float']} by its float arithmetic (at most "
        f"{p['most_float']}), {p['within_either']} by either. The two ways of ONNX Runtime agree within one step for "
        f"{p['runtime_itself']}. Bit-equal to the integer reference in numpy for {p['as_reference']} of the first "
        f"{min(EXACT, images)}.", "",
        "## Memory", "",
        "| | predicted by the plan | C source | built for a Cortex-M4 with -Os |", "| --- | --- | --- | --- |",
        f"| flash | {memory['flash']:,} B | {memory['constants']:,} B of constants | "
        f"{_built(memory, 'text', 'rodata')} |",
        f"| SRAM | {memory['sram']:,} B, image included | {memory['arena']:,} B beside the image | "
        f"{_built(memory, 'bss', 'data')} |",
    ]  # fmt: skip
    figures = {
        "arch": source.result.arch, "data": source.result.data, "processor": processor(), "cost": cost.known,
        "trained": own, "int8_loss": loss, "images": images, "parity": parity, "memory": memory,
        "formats": {row.format: vars(row) | {"latency": row.latency._asdict()} for row in rows},
    }  # fmt: skip
    write(name, f"A trained net in every format: {source.result.arch}", lines, figures)


def _built(memory: dict, *sections: str) -> str:
    if "text" not in memory:
        return "gcc-arm-none-eabi is not installed"
    return ", ".join(f".{section} {memory[section]:,} B" for section in sections)


if __name__ == "__main__":
    main()

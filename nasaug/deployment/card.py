"""model-card.md: what an exported net is, what it was trained on, what it costs, and how each file is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.metric import Metric
from ..core.units import format_quantity
from ..rundirs.result import TrainingResult
from ..tasks.detect import OVERLAP, PRIOR
from .formats import Artefact

SHOWN = 20  # class names listed
_LATENCY = """\
Latency is ONNX Runtime's on the machine that exported: the median and 95th percentile of many runs with one image. The
size of c is that of its constants."""
_ONNX = """\
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("{file}")
{output} = session.run(None, {{"image": images}})[0]  # images: float32 [n, 3, {px}, {px}], as above
"""
_HOW = {
    "onnx": ("python", _ONNX),
    "int8-onnx": ("python", _ONNX),
    "torch-export": ("python", """\
import torch
net = torch.export.load("{file}").module()
{output} = net(images)  # images: float32 [n, 3, {px}, {px}], as above
"""),
    "executorch": ("python", """\
from executorch.runtime import Runtime
method = Runtime.get().load_program("{file}").load_method("forward")
{output} = method.execute([image])[0]  # image: float32 [1, 3, {px}, {px}], as above
"""),
    "c": ("c", """\
#include "{file}"
static uint8_t rgb[{px} * {px} * 3]; /* rows of R, G, B, cropped and resized as above */
static int8_t input[{NAME}_INPUT], {output}[{NAME}_OUTPUTS];
{name}_image(rgb, input); /* the rest of the preprocessing */
{name}_run(input, {output}); /* steps of {NAME}_OUTPUT_SCALE above {NAME}_OUTPUT_ZERO */
"""),
}  # fmt: skip


def card(artefacts: Sequence[Artefact], facts: Mapping[str, Any], result: TrainingResult) -> str:
    """The text of the card, in Markdown."""
    metric, c = result.metric, facts["cost"]
    classes = list(map(str, facts["classes"]))
    named = ", ".join(classes[:SHOWN]) + (f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else "")
    learned = f"one number per image: {named}" if "numbers" in facts else f"{len(classes)} classes: {named}"
    lines = [
        f"# {facts['arch']}", "",
        f"A network of nasaug {facts['nasaug']}, trained with {result.arm} on {result.data} ({learned}).", "",
        f"- Test {metric.label}: {metric.show(result.test_score)} on {result.test_images:,} images "
        f"(validation {metric.show(result.val_score)}).",
        f"- Cost: {c['macs']:,} MACs, {c['params']:,} parameters; in int8 by the plan {c['flash']:,} bytes of flash "
        f"and {c['peak']:,} of peak SRAM, image included.",
        f"- Training: {result.epochs:.4g} epochs, seed {result.seed}.", "",
        "## Input and output", "",
        f"- `{facts['input']}`: float32 [n, 3, {facts['resolution']}, {facts['resolution']}], RGB. {_prepared(facts)}",
        f"- `{facts['output']}`: {_meaning(facts)}", "",
        "The files' metadata say the same, with the class names and the whole plan.", "",
        "## Files", "",
        f"| format | files | size | test {metric.label} | as the trained net (c: as int8-onnx) | latency, one thread |",
        "| --- " * 6 + "|",
        f"| trained net | | | {metric.show(result.test_score)} | | |",
    ]  # fmt: skip
    lines += [_row(made, metric) for made in artefacts]
    lines += ["", _LATENCY, ""]
    for made in artefacts:
        lines += [f"- {made.format}: {note}." for note in made.notes]
        if made.format == "c":
            lines.append(f"- {_memory(made)}")
    lines += ["", "## How to run them"]
    for made in artefacts:
        language, code = _HOW[made.format]
        file = made.files[0]
        name = file.rpartition(".")[0]
        filled = code.format(file=file, name=name, NAME=name.upper(), px=facts["resolution"], output=facts["output"])
        lines += ["", f"{made.format}:", "", f"```{language}", filled.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _prepared(facts: Mapping[str, Any]) -> str:
    """The preprocessing in words."""
    cut = "" if facts["central"] == 1 else f"covering {facts['central']:g} of its shorter side, "
    square = f"The central square of the image, {cut}resized"
    if facts.get("fit") == "whole":
        square = "The whole image, resized to that square whatever its aspect ratio,"
    mean, std = ([round(value, 6) for value in facts[key]] for key in ("mean", "std"))
    return (
        f"{square} with antialiasing; (pixel / 255 - mean) / std with mean {mean} "
        f"and std {std}. Transparent parts lie on {facts['background']}."
    )


def _meaning(facts: Mapping[str, Any]) -> str:
    if facts["task"] == "classify":
        return "logits [n, classes], in the order of the classes."
    if "numbers" in facts:
        numbers = facts["numbers"]
        return f"[n, 1]; the number is {numbers['std']:.9g} * output + {numbers['mean']:.9g}."
    if facts["task"] == "detect":
        return _points(len(facts["classes"]))
    return f"the output of the task {facts['task']}."


def _points(classes: int) -> str:
    """The outputs of a detection net in words, as `nasaug.tasks.detect` reads them."""
    return (
        f"[n, points, {classes + 5}]: the pixels of three maps, row by row, each map half as large as the one before. "
        f"Of a pixel: {classes} logits (add {PRIOR:.6g}, then the sigmoid), the logarithms of the distances from its "
        "centre to the left, top, right and bottom of the box in pixels of its map, and the centerness (a logit). A "
        "detection's score is the root of class probability times centerness; apply non-maximum suppression "
        f"(IoU {OVERLAP:g}) to each class."
    )


def _row(made: Artefact, metric: Metric) -> str:
    score = "" if made.score is None else metric.show(made.score)
    alike = f"{made.told} on {made.compared}"
    alike = alike if made.agreement is None else f"{100 * made.agreement:.2f} % the same class, {alike}"
    time = "" if made.latency is None else f"{made.latency.median_ms:.3g} ms (p95 {made.latency.p95_ms:.3g})"
    files = ", ".join(f"`{file}`" for file in made.files)
    return f"| {made.format} | {files} | {format_quantity(made.bytes, 'bytes')} | {score} | {alike} | {time} |"


def _memory(made: Artefact) -> str:
    """The C files' memory beside what the plan says."""
    m = made.memory
    planned = f"by the plan {m['flash']:,} of flash and {m['sram']:,} of SRAM, image included"
    own = f"c: {made.bytes:,} bytes of constants, a buffer of {m['arena']:,} beside the image"
    if "text" not in m:
        return f"{own}; {planned}."
    cortex = f"for a Cortex-M4 with -Os .text {m['text']:,}, .rodata {m['rodata']:,}, .bss {m['bss']:,} bytes"
    return f"{own}; {cortex}; {planned}."

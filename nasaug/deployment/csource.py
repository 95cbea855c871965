"""An integer net as C99: one header and one source with its int8 weights, plain loops, no library, no allocation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import PurePath
from typing import Any

import numpy as np

from ..core.files import escaped
from .integer import HIGH, LOW, IntegerNet, Op, Tensor

HEADER = """\
/* {title}
 *
 * Written by nasaug {version}; do not edit.
{about}
 *
 * Use:
 *   static uint8_t rgb[{NAME}_HEIGHT * {NAME}_WIDTH * 3];      rows of R, G, B, already cropped and resized
 *   static int8_t input[{NAME}_INPUT], logits[{NAME}_OUTPUTS];
 *   {name}_image(rgb, input);
 *   {name}_run(input, logits);
 *   logits[i] stands for {NAME}_OUTPUT_SCALE * (logits[i] - {NAME}_OUTPUT_ZERO).
 *
 * {name}_run works in one static buffer of {NAME}_ARENA bytes, so it must not run twice at the same time.
 */
#ifndef {NAME}_H
#define {NAME}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {NAME}_HEIGHT {height}
#define {NAME}_WIDTH {width}
#define {NAME}_INPUT {input}
#define {NAME}_INPUT_SCALE {input_scale}
#define {NAME}_INPUT_ZERO {input_zero}
#define {NAME}_OUTPUTS {outputs}
#define {NAME}_OUTPUT_SCALE {output_scale}
#define {NAME}_OUTPUT_ZERO {output_zero}
#define {NAME}_ARENA {arena}
{facts}

/* int8 [height][width][3] from pixels: normalised as in training, then in steps of {NAME}_INPUT_SCALE. */
void {name}_image(const uint8_t rgb[{NAME}_INPUT], int8_t input[{NAME}_INPUT]);

/* int8 outputs of an int8 image. */
void {name}_run(const int8_t input[{NAME}_INPUT], int8_t logits[{NAME}_OUTPUTS]);

#ifdef __cplusplus
}}
#endif
#endif
"""

SOURCE = """\
/* {title}; see {header}. Written by nasaug {version}; do not edit. */
#include "{header}"

static int8_t arena[{arena_size}];

/* sum * multiplier / 2^shift + zero, rounded once, halves away from zero, within int8. */
static int8_t scaled(int64_t sum, int32_t multiplier, int shift, int zero)
{{
    int64_t product = sum * multiplier, half = (int64_t)1 << (shift - 1);
    int64_t value = (product < 0 ? -((half - product) >> shift) : (product + half) >> shift) + zero;
    return (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
}}
"""

LOOPS = {
    "conv": """
typedef struct {
    int in_height, in_width, in, height, width, out, kernel, stride, padding, in_zero, out_zero;
    const int8_t *weight; /* [out][kernel][kernel][in], or depthwise [kernel][kernel][out] */
    const int32_t *bias, *multiplier;
    const uint8_t *shift;
} layer;

static void conv(const layer *l, const int8_t *x, int8_t *y)
{
    for (int row = 0; row < l->height; row++)
        for (int column = 0; column < l->width; column++) {
            const int8_t *w = l->weight;
            for (int out = 0; out < l->out; out++) {
                int32_t sum = l->bias[out];
                for (int i = 0; i < l->kernel; i++)
                    for (int j = 0; j < l->kernel; j++, w += l->in) {
                        int r = row * l->stride + i - l->padding, c = column * l->stride + j - l->padding;
                        if (r < 0 || r >= l->in_height || c < 0 || c >= l->in_width)
                            continue;
                        const int8_t *seen = x + (r * l->in_width + c) * l->in;
                        for (int in = 0; in < l->in; in++)
                            sum += (seen[in] - l->in_zero) * w[in];
                    }
                *y++ = scaled(sum, l->multiplier[out], l->shift[out], l->out_zero);
            }
        }
}
""",
    "depthwise": """
static void depthwise(const layer *l, const int8_t *x, int8_t *y)
{
    for (int row = 0; row < l->height; row++)
        for (int column = 0; column < l->width; column++)
            for (int out = 0; out < l->out; out++) {
                int32_t sum = l->bias[out];
                for (int i = 0; i < l->kernel; i++)
                    for (int j = 0; j < l->kernel; j++) {
                        int r = row * l->stride + i - l->padding, c = column * l->stride + j - l->padding;
                        if (r < 0 || r >= l->in_height || c < 0 || c >= l->in_width)
                            continue;
                        sum += (x[(r * l->in_width + c) * l->in + out] - l->in_zero)
                               * l->weight[(i * l->kernel + j) * l->out + out];
                    }
                *y++ = scaled(sum, l->multiplier[out], l->shift[out], l->out_zero);
            }
}
""",
    "add": """
/* a and b may be y. */
static void add(const int8_t *a, const int8_t *b, int8_t *y, int size, int a_zero, int b_zero, int32_t a_multiplier,
                int32_t b_multiplier, int shift, int zero)
{
    for (int i = 0; i < size; i++) {
        int64_t sum = (int64_t)(a[i] - a_zero) * a_multiplier + (int64_t)(b[i] - b_zero) * b_multiplier;
        y[i] = scaled(sum, 1, shift, zero);
    }
}
""",
    "mul": """
/* Each channel by its gate, or each value by its own. x may be y. */
static void mul(const int8_t *x, const int8_t *gate, int8_t *y, int size, int gates, int x_zero, int gate_zero,
                int32_t multiplier, int shift, int zero)
{
    for (int i = 0; i < size; i++)
        y[i] = scaled((x[i] - x_zero) * (gate[i % gates] - gate_zero), multiplier, shift, zero);
}
""",
    "map": """
/* x may be y. */
static void map(const int8_t *x, int8_t *y, int size, const int8_t table[256])
{
    for (int i = 0; i < size; i++)
        y[i] = table[x[i] + 128];
}
""",
    "average": """
static void average(const int8_t *x, int8_t *y, int pixels, int channels, int x_zero, int32_t multiplier, int shift,
                    int zero)
{
    for (int c = 0; c < channels; c++) {
        int32_t sum = 0;
        for (int i = 0; i < pixels; i++)
            sum += x[i * channels + c] - x_zero;
        y[c] = scaled(sum, multiplier, shift, zero);
    }
}
""",
    "maxpool": """
static void maxpool(const int8_t *x, int8_t *y, int in_height, int in_width, int height, int width, int channels,
                    int kernel, int stride, int padding)
{
    for (int row = 0; row < height; row++)
        for (int column = 0; column < width; column++)
            for (int channel = 0; channel < channels; channel++) {
                int8_t most = -128;
                for (int i = 0; i < kernel; i++)
                    for (int j = 0; j < kernel; j++) {
                        int r = row * stride + i - padding, c = column * stride + j - padding;
                        if (r < 0 || r >= in_height || c < 0 || c >= in_width)
                            continue;
                        int8_t value = x[(r * in_width + c) * channels + channel];
                        most = value > most ? value : most;
                    }
                *y++ = most;
            }
}
""",
}


def to_c(
    net: IntegerNet, name: str, mean: Iterable[float], std: Iterable[float], *, version: str, title: str,
    about: Iterable[str] = (), constants: Mapping[str, Any] | None = None,
) -> tuple[str, str]:  # fmt: skip
    """(header, source) of an integer net.

    Args:
        name: what the files and the functions are called, an identifier in lower case.
        mean, std: of the three channels, for pixels in [0, 1].
        about: lines for the header's comment.
        constants: further macros, NAME_KEY, numbers or lists of texts.
    """
    big = name.upper()
    height, width, _ = net.input.shape
    facts = "\n".join(f"#define {big}_{key.upper()} {_macro(value)}" for key, value in (constants or {}).items())
    said = "\n".join(f" * {line}" for text in about for line in _comment(text).splitlines())
    header = HEADER.format(
        name=name, NAME=big, title=_comment(title), version=version, about=said, height=height, width=width,
        input=net.input.size, input_scale=_number(net.input.scale), input_zero=net.input.zero,
        outputs=net.output.size, output_scale=_number(net.output.scale), output_zero=net.output.zero,
        arena=net.arena, facts=facts,
    )  # fmt: skip
    source = SOURCE.format(
        title=_comment(title), version=version, header=f"{PurePath(name).name}.h", arena_size=max(net.arena, 1)
    )
    kinds = {op.kind for op in net.ops}
    kinds |= {"conv"} if "depthwise" in kinds else set()  # which has the layer's struct
    kinds |= {"map"} if "join" in kinds else set()  # which joins by it
    source += "".join(LOOPS[kind] for kind in LOOPS if kind in kinds)
    source += "".join(_data(op, i) for i, op in enumerate(net.ops))
    source += _image(net.input, name, big, mean, std)
    calls = "".join(f"    {_call(net, op, i)};\n" for i, op in enumerate(net.ops))
    source += f"\nvoid {name}_run(const int8_t input[{big}_INPUT], int8_t logits[{big}_OUTPUTS])\n{{\n{calls}}}\n"
    return header, source


def _comment(text: str) -> str:
    return escaped(text).replace("*/", "* /").replace("/*", "/ *")


def _number(value: float) -> str:
    return f"{value:.9g}f" if "." in f"{value:.9g}" or "e" in f"{value:.9g}" else f"{value:.9g}.0f"


def _macro(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "{" + ", ".join(_text(str(item)) for item in value) + "}"
    return _number(value) if isinstance(value, float) else str(value)


def _text(text: str) -> str:
    """A C string of UTF-8 bytes, in octal escapes where a byte is not a printable ASCII character."""
    kept = (chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in escaped(text).encode())
    return '"' + "".join(kept) + '"'


def _array(kind: str, name: str, values: np.ndarray) -> str:
    numbers = [str(v) for v in values.reshape(-1).tolist()]
    rows = (", ".join(numbers[i : i + 20]) for i in range(0, len(numbers), 20))
    lines = ",\n".join(f"    {row}" for row in rows)
    return f"static const {kind} {name}[{len(numbers)}] = {{\n{lines}\n}};\n"


def _data(op: Op, i: int) -> str:
    """The constants of one operation."""
    said = f"\n/* {_comment(op.name)} */\n"
    if op.kind in ("map", "join"):
        return said + _array("int8_t", f"table{i}", op.table)
    if op.kind not in ("conv", "depthwise"):
        return ""
    (x,), out = op.inputs, op.output
    numbers = (*x.shape, *out.shape, op.kernel, op.stride, op.padding, x.zero, out.zero)
    arrays = (
        _array("int8_t", f"weight{i}", op.weight), _array("int32_t", f"bias{i}", op.bias),
        _array("int32_t", f"multiplier{i}", op.multipliers), _array("uint8_t", f"shift{i}", op.shifts),
    )  # fmt: skip
    fields = ", ".join([*map(str, numbers), *(f"{name}{i}" for name in ("weight", "bias", "multiplier", "shift"))])
    return f"{said}{''.join(arrays)}static const layer layer{i} = {{{fields}}};\n"


def _image(image: Tensor, name: str, big: str, mean: Iterable[float], std: Iterable[float]) -> str:
    pixels = np.arange(256, dtype=np.float32)[:, None]
    m, s = (np.array(list(values), np.float32) for values in (mean, std))
    table = image.of((pixels - 255 * m) / (255 * s))  # as nasaug.augment.evaluation normalises
    return (
        f"\n/* The input for each pixel, [256][3]. */\n{_array('int8_t', 'pixels', table)}\n"
        f"void {name}_image(const uint8_t rgb[{big}_INPUT], int8_t input[{big}_INPUT])\n{{\n"
        f"    for (int i = 0; i < {big}_INPUT; i++)\n        input[i] = pixels[rgb[i] * 3 + i % 3];\n}}\n"
    )


def _call(net: IntegerNet, op: Op, i: int) -> str:
    """The call that runs one operation."""

    def place(x: Tensor) -> str:
        return "input" if x is net.input else "logits" if x is net.output else f"arena + {net.places[id(x)]}"

    inputs, out = [place(x) for x in op.inputs], place(op.output)
    x, o = op.inputs[0], op.output
    if op.kind in ("conv", "depthwise"):
        return f"{op.kind}(&layer{i}, {inputs[0]}, {out})"
    one = [*op.multipliers.tolist(), *op.shifts.tolist()]
    if op.kind == "join":
        starts = accumulate((t.size for t in op.inputs), initial=0)
        lots = zip(op.inputs, inputs, starts, strict=False)  # the last start is the end
        maps = (f"map({y}, {out} + {at}, {t.size}, table{i} + {256 * k})" for k, (t, y, at) in enumerate(lots))
        return ";\n    ".join(maps)
    zeros = [t.zero for t in op.inputs]
    numbers: dict[str, list[Any]] = {
        "add": [o.size, *zeros, *one, o.zero],
        "mul": [o.size, op.inputs[-1].size, *zeros, *one, o.zero],
        "map": [o.size, f"table{i}"],
        "average": [x.size // x.shape[2], x.shape[2], *zeros, *one, o.zero],
        "maxpool": [*x.shape[:2], *o.shape, op.kernel, op.stride, op.padding],
    }
    return f"{op.kind}({', '.join([*inputs, out, *map(str, numbers[op.kind])])})"


assert (LOW, HIGH) == (-128, 127)  # as in `scaled` and `map`

"""A comparison as one page of HTML that asks for nothing else: no script, no font, no image from anywhere.

Plots are SVG inside the page. Their colours are the page's CSS variables, so that one drawing serves light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any
from zlib import crc32

from ..core.files import shown
from . import wording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..rundirs.result import Run

# Okabe and Ito's palette, which the colour-blind can tell apart; black left out, and lighter on dark.
_LIGHT = "#0072b2 #d55e00 #00845f #b8538f #8a6d00 #3d8fc4 #6b4fa3 #5f6b73".split()
_DARK = "#5ab4f0 #ff9d5c #3fd0a4 #eb9dc9 #e8cf4f #9ad4fa #b9a3ee #a9b5bd".split()
_MARKERS = "osD^vPX*"
_INK, _FAINT = "#010203", "#040506"  # stand in the drawing for the page's colours of text and of grid lines
_SERIES = [f"#0a0b{i:02x}" for i in range(len(_LIGHT))]
_SHORT = 26  # characters of an arm's name in a plot

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2329; --soft: #59636d; --faint: #d5dade;
  --raised: #f5f7f8; --good: #00684a; --bad: #a63c00; LIGHT }
@media (prefers-color-scheme: dark) { :root { --paper: #15191d; --ink: #e7eaed; --soft: #a3adb7; --faint: #39424a;
  --raised: #1e242a; --good: #5fd7ae; --bad: #ffa56b; DARK } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem 1rem 3rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0 .25rem; overflow-wrap: break-word; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p, li { max-width: 46rem; }
.soft { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1rem; margin: 1rem 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; }
.scroll { overflow-x: auto; border: 1px solid var(--faint); border-radius: .4rem; }
.scroll + .scroll, p + .scroll { margin-top: 1rem; }
.scroll:focus-visible { outline: 2px solid var(--c0); }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .5rem .6rem; color: var(--soft); }
caption span { display: inline-block; position: sticky; left: .6rem; max-width: calc(100vw - 4rem); }
th, td { padding: .4rem .6rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--faint); }
thead th { background: var(--raised); color: var(--soft); font-weight: 600; border-top: 0; }
th:first-child { text-align: left; }
tbody th { font-weight: 600; white-space: normal; min-width: 7rem; max-width: 16rem; overflow-wrap: break-word; }
th.text, td.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; }
td.text:last-child { min-width: 14rem; width: 100%; }
.better { color: var(--good); font-weight: 600; }
.worse { color: var(--bad); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; min-width: 0; }
figcaption { color: var(--soft); font-size: .9rem; margin-bottom: .3rem; }
figure svg { display: block; width: 100%; height: auto; max-width: 40rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: 0 0 1rem; padding: 0; list-style: none;
  font-size: .9rem; }
.legend li { overflow-wrap: anywhere; }
.legend span { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .4em; }
pre { overflow-x: auto; background: var(--raised); padding: .7rem; border-radius: .4rem; font-size: .85rem; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def page(summary: dict[str, Any], runs: Sequence[Run]) -> str:
    """The page for a summary of `runs` (comparison.report). The same input gives the same page, byte for byte."""
    arms = summary["arms"]
    title = f"{_listed(summary['archs'])} on {summary['data']}: {_listed([arm['arm'] for arm in arms])}"
    parts = [
        f"<h1>{_breakable(title)}</h1>", _compared(summary),
        _section("Result", _main_table(summary), _reading(summary), _more_table(summary)),
        _section("Plots", _legend(arms), f'<div class="plots">{"".join(_plots(summary, runs))}</div>'),
        _bootstrap_table(summary), _effect_table(summary), _ledger(summary), _failed(summary), _commands(summary),
        _section("How this was measured", _notes(summary)),
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_style()}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _style() -> str:
    style = _STYLE
    for word, colours in (("LIGHT", _LIGHT), ("DARK", _DARK)):
        style = style.replace(word, " ".join(f"--c{i}: {colour};" for i, colour in enumerate(colours)))
    return style


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"


def _section(heading: str, *content: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n" + "\n".join(content) + "\n</section>"


def _compared(summary: dict[str, Any]) -> str:
    seeds, count = ", ".join(map(str, summary["seeds"])), sum(arm["n"] for arm in summary["arms"])
    matched = _MATCHED.get(summary["match"], summary["match"]) or "not said: the arms may differ in epochs and compute"
    terms = [
        ("Network", ", ".join(summary["archs"])),
        ("Data", f"{summary['data']} ({summary['data_key']}), {summary['test_images']:,} test images"),
        ("Matched by", matched),
        ("Reference", summary["reference"]),
        ("Seeds", f"{seeds} ({count} run{'s' if count > 1 else ''})"),
        *((str(name).replace("_", " ").capitalize(), value) for name, value in summary["facts"].items()),
    ]
    return "<dl>\n" + "\n".join(f"<dt>{escape(a)}</dt><dd>{_told(b)}</dd>" for a, b in terms) + "\n</dl>"


_MATCHED = {
    "epochs": "epochs: each arm passes over the training images as often",
    "compute": "compute: each arm takes as many forward MACs in training",
    "seconds": "seconds: each arm trains for as long by the clock",
}


def _told(value: Any) -> str:
    """A fact, escaped; a long list of them folded away."""
    if not isinstance(value, list):
        return escape(str(value))
    text = escape(", ".join(map(str, value)))
    return text if len(value) <= 4 else f"<details><summary>{len(value)} of them</summary>{text}</details>"


def _table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: Callable[[str], str] = lambda cell: ""
) -> str:
    """A table in a container of its own that scrolls; the first cell of a row is its header. Cells are escaped.

    `kind` gives the class of a cell, by its text.
    """
    top = "".join(f'<th scope="col"{kind(cell)}>{escape(cell)}</th>' for cell in head)
    body = []
    for first, *rest in rows:
        cells = "".join(f"<td{kind(cell)}>{escape(cell)}</td>" for cell in rest)
        body.append(f'<tr><th scope="row">{_breakable(first)}</th>{cells}</tr>')
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">\n<table>\n'
        f"<caption><span>{escape(caption)}</span></caption>\n<thead><tr>{top}</tr></thead>\n<tbody>\n"
        + "\n".join(body)
        + "\n</tbody>\n</table>\n</div>"
    )


def _breakable(name: str) -> str:
    """A name, escaped, that may be broken after what joins its parts."""
    return re.sub(r"(?<=[+_,/=])(?=\w)", "<wbr>", escape(name))


def _minus(text: str) -> str:
    """With true minus signs, which are as wide as a plus."""
    return re.sub(r"-(?=\d)", "−", text)


def _main_table(summary: dict[str, Any]) -> str:
    marked = {word: f' class="{word}"' for word in (wording.BETTER, wording.WORSE)}
    head, *rows = wording.cells(summary)
    caption = f"Mean over seeds ± {100 * summary['level']:g} % interval"
    if len(rows) > 1:
        caption += f"; difference in points to {summary['reference']}"
    rows = [[arm, *map(_minus, rest)] for arm, *rest in rows]
    return _table(caption, head, rows, lambda cell: marked.get(cell, ""))


def _more_table(summary: dict[str, Any]) -> str:
    rows = [
        [arm["arm"], wording.percent(arm["val_top1"]), wording.percent(arm["train_top1"]), f"{arm['epochs']:g}",
         wording.quantity(arm["params"], "params"), ", ".join(map(str, arm["seeds"]))]
        for arm in summary["arms"]
    ]  # fmt: skip
    head = ["arm", "validation top-1", "training top-1", "epochs", "parameters", "seeds"]
    caption = "Accuracy on the images that the epoch was chosen by, and on those trained on"
    return _table(caption, head, rows)


def _reading(summary: dict[str, Any]) -> str:
    """What may be concluded, in a sentence or two."""
    compared = [arm for arm in summary["arms"] if arm["versus"]]
    said = {word: [arm["arm"] for arm in compared if arm["versus"]["verdict"] == word] for word in _SAID}
    lines = [template.format(", ".join(said[word])) for word, template in _SAID.items() if said[word]]
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


_SAID = {
    wording.BETTER: "Better than the reference: {}.",
    wording.WORSE: "Worse than the reference: {}.",
    wording.NOT_SHOWN: "No difference to the reference shown, which does not show that there is none: {}.",
    wording.NOT_ENOUGH: (
        f"Not enough seeds for a verdict ({wording.ENOUGH} in common with the reference are needed): {{}}."
    ),
}


def _bootstrap_table(summary: dict[str, Any]) -> str:
    found = {
        arm["arm"]: {seed["seed"]: _minus(wording.difference(seed)) for seed in arm["versus"]["bootstrap"]}
        for arm in summary["arms"] if arm["versus"] and arm["versus"]["bootstrap"]
    }  # fmt: skip
    if not found:
        return ""
    seeds = sorted({seed for by_seed in found.values() for seed in by_seed})
    rows = [[arm, *(by_seed.get(seed, "-") for seed in seeds)] for arm, by_seed in found.items()]
    caption = f"Points to {summary['reference']} on the same test images; {100 * summary['level']:g} % interval"
    note = (
        "The interval is over test images, for these two trained networks: it tells how much of a seed's difference "
        "is luck of the test images, not what another seed would give."
    )
    table = _table(caption, ["arm", *(f"seed {seed}" for seed in seeds)], rows)
    return _section("Each seed on the same test images (paired bootstrap)", table, f"<p>{note}</p>")


def _effect_table(summary: dict[str, Any]) -> str:
    rows = []
    for arm in summary["arms"]:
        versus = arm["versus"]
        if versus and versus["compute"] is not None:
            effect = "equal compute" if versus["per_percent"] is None else f"{wording.signed(versus['per_percent'], 4)}"
            compute = f"{wording.signed(100 * (versus['compute'] - 1), 1)} %"
            rows.append([arm["arm"], *map(_minus, (compute, wording.signed(versus["difference"]), effect))])
    if not rows:
        return ""
    head = ["arm", "training compute", "difference", "points per 1 %"]
    caption = f"Difference in points, and per 1 % more training MACs than {summary['reference']}"
    note = (
        "For an arm that took less compute than the reference, a positive figure means points lost for each 1 % saved."
    )
    return _section("Effect per 1 % of training compute", _table(caption, head, rows), f"<p>{note}</p>")


def _ledger(summary: dict[str, Any]) -> str:
    def row(name: str, cost: dict[str, Any]) -> list[str]:
        hours = (f"{cost[key]:.3g}" for key in ("cpu_hours", "gpu_hours", "hours"))
        return [name, str(cost["runs"]), *hours, wording.quantity(cost["train_macs"], "macs")]

    rows = [row(arm["arm"], arm["cost"]) for arm in summary["arms"]] + [row("total", summary["cost"])]
    devices = sorted({device for arm in summary["arms"] for device in arm["devices"]})
    head = ["arm", "runs", "CPU hours", "GPU hours", "hours in all", "training MACs"]
    caption = f"Training time by the clock, of finished runs; on {'; '.join(devices)}"
    return _section("What it cost", _table(caption, head, rows))


def _failed(summary: dict[str, Any]) -> str:
    if not summary["failed"]:
        return ""
    rows = [
        [str(cell.get("arm", "?")), str(cell.get("seed", "?")), str(cell.get("error", "no reason given"))]
        for cell in summary["failed"]
    ]
    head = ["arm", "seed", "error"]
    shown = _table("These runs failed and count nowhere above", head, rows, lambda _: ' class="text"')
    return _section("Failed runs", shown)


def _commands(summary: dict[str, Any]) -> str:
    if not summary["commands"]:
        return ""
    lines = escape("\n".join(summary["commands"]))
    return _section("Commands", f"<pre><code>{lines}</code></pre>")


def _notes(summary: dict[str, Any]) -> str:
    level, count = f"{100 * summary['level']:g} %", summary["comparisons"]
    family = f"{count} comparisons" if count > 1 else "one comparison"
    notes = [
        "The epoch that a run keeps is chosen on validation images held out of the training set. "
        "The test set is read once, at the end of a run.",
        f"± is the {level} t interval of the mean over seeds: what other seeds would change, not other test images.",
        f"Differences are paired by seed. Their intervals hold together at {level} for {family} (Bonferroni).",
        f"Verdicts are by the paired t test's p value, corrected by Holm for {family}, at 0.05. Holm is less strict "
        "than Bonferroni, so a verdict can stand beside an interval that just holds 0.",
        f"Under {wording.ENOUGH} seeds in common the verdict is always “{wording.NOT_ENOUGH}”.",
        "MACs are multiply-accumulates of forward passes: of one image for the net, of all passes of all steps for "
        "training. Evaluation is not counted.",
        "Peak memory is the largest of an arm's runs.",
    ]
    return "<ul>\n" + "\n".join(f"<li>{escape(note)}</li>" for note in notes) + "\n</ul>"


def _legend(arms: Sequence[dict[str, Any]]) -> str:
    items = (
        f'<li><span style="background: var(--c{i % len(_LIGHT)})"></span>{escape(arm["arm"])}</li>'
        for i, arm in enumerate(arms)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


# --- plots ---


def _plots(summary: dict[str, Any], runs: Sequence[Run]) -> Iterable[str]:
    arms = [(arm, [run for run in runs if run.arm == arm["arm"]]) for arm in summary["arms"]]
    level = f"{100 * summary['level']:g} %"
    yield _figure(
        f"Test top-1 of each arm: mean, {level} interval over seeds, and each seed as a dot",
        lambda axes: _accuracy(axes, arms), height=1.0 + 0.42 * len(arms),
    )  # fmt: skip
    if any("train_top1" in row for run in runs for row in run.history):
        curves = ("val_top1", "train_top1")
        caption = "Top-1 while training, mean over seeds: validation (solid) and training images (dashed)"
    else:
        curves, caption = ("val_top1",), "Top-1 on validation images while training, mean over seeds"
    if any("val_top1" in row for run in runs for row in run.history):
        yield _figure(caption, lambda axes: _curves(axes, arms, curves, "top-1 (%)"))
    if any("loss_base" in row for run in runs for row in run.history):
        caption = "Training loss of the network itself (augmented passes left out), mean over seeds"
        yield _figure(caption, lambda axes: _curves(axes, arms, ("loss_base",), "training loss"))
    yield _figure(
        f"Test top-1 against training compute (forward MACs of a run): mean and {level} interval over seeds",
        lambda axes: _against_compute(axes, arms),
    )  # fmt: skip


def _figure(caption: str, draw: Callable[[Axes], None], height: float = 3.4) -> str:
    """A figure with its caption, drawn in inches for a phone's width, so that its letters are legible there."""
    import matplotlib
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none", "svg.hashsalt": "nasaug", "text.parse_math": False, "font.family": "DejaVu Sans",
        "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
        "grid.color": _FAINT, "grid.linewidth": 0.7, "text.color": _INK, "axes.labelcolor": _INK,
        "axes.edgecolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
    }  # fmt: skip
    with matplotlib.rc_context(settings), io.BytesIO() as file:
        figure = Figure(figsize=(5.0, height), layout="constrained")
        axes = figure.subplots()
        axes.grid()
        draw(axes)
        unnamed = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=unnamed)
        drawing = file.getvalue().decode()
    return f"<figure>\n<figcaption>{escape(caption)}</figcaption>\n{_inline(drawing, caption)}\n</figure>"


def _inline(drawing: str, caption: str) -> str:
    """Matplotlib's SVG as part of a page: named, in the page's colours, and with ids that no other drawing has."""
    drawing = drawing[drawing.index("<svg") :].rstrip()
    inner = drawing[drawing.index(">") + 1 :]
    box = re.search(r'viewBox="([^"]*)"', drawing)[1]
    prefix = f"p{crc32(shown(caption).encode())}-"
    inner = re.sub(r"<metadata>.*?</metadata>", "", inner, flags=re.DOTALL)
    inner = inner.replace("xlink:href", "href")
    inner = re.sub(r'\bid="', f'id="{prefix}', inner)
    inner = re.sub(r'(href="|url\()#', rf"\1#{prefix}", inner)
    for i, colour in enumerate(_SERIES):
        inner = inner.replace(colour, f"var(--c{i})")
    inner = inner.replace(_INK, "var(--ink)").replace(_FAINT, "var(--faint)").replace("'DejaVu Sans'", "inherit")
    name = escape(caption)
    return f'<svg viewBox="{box}" role="img" aria-label="{name}">\n<title>{name}</title>{inner}'


def _look(i: int) -> dict[str, Any]:
    return {"color": _SERIES[i % len(_SERIES)], "marker": _MARKERS[(i + i // len(_SERIES)) % len(_MARKERS)]}


def _short(name: str) -> str:
    name = shown(" ".join(name.split()))
    return name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…"


def _accuracy(axes: Axes, arms: Sequence[tuple[dict[str, Any], list[Run]]]) -> None:
    for i, (arm, runs) in enumerate(arms):
        look, top1 = _look(i), arm["test_top1"]
        dots = [run.test_top1 for run in runs]
        axes.plot(dots, [i + 0.25] * len(dots), "o", color=look["color"], ms=5, alpha=0.6, mew=0)
        axes.errorbar(top1["mean"], i, xerr=top1["half"], fmt=look["marker"], color=look["color"], ms=7, capsize=4)
    axes.set_yticks(range(len(arms)), [_short(arm["arm"]) for arm, _ in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.set_xlabel("test top-1 (%)")


def _curves(
    axes: Axes, arms: Sequence[tuple[dict[str, Any], list[Run]]], fields: Sequence[str], label: str
) -> None:  # fmt: skip
    for i, (_, runs) in enumerate(arms):
        for field, dashes in zip(fields, ("-", "--"), strict=False):
            epochs = sorted({row["epoch"] for run in runs for row in run.history if field in row and "epoch" in row})
            means = [_mean_at(runs, field, epoch) for epoch in epochs]
            axes.plot(epochs, means, dashes, color=_SERIES[i % len(_SERIES)], marker="." if len(epochs) < 12 else "")
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _mean_at(runs: Sequence[Run], field: str, epoch: int) -> float:
    seen = [row[field] for run in runs for row in run.history if row.get("epoch") == epoch and field in row]
    return sum(seen) / len(seen)


def _against_compute(axes: Axes, arms: Sequence[tuple[dict[str, Any], list[Run]]]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for i, (arm, _) in enumerate(arms):
        top1 = arm["test_top1"]
        axes.errorbar(arm["train_macs"], top1["mean"], yerr=top1["half"], fmt=_look(i)["marker"],
                      color=_look(i)["color"], ms=7, capsize=4)  # fmt: skip
    spent = [arm["train_macs"] for arm, _ in arms]
    span = max(spent) / min(spent) if min(spent) > 0 else 1
    if span > 4:
        axes.set_xscale("log")
        axes.set_xlim(min(spent) / span**0.1, max(spent) * span**0.1)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if span < 50 else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0, right=1.1 * max(spent) or 1)
        axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: wording.quantity(x, "macs")))
    axes.set(xlabel="training MACs of a run", ylabel="test top-1 (%)")

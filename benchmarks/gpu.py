"""Measures nasaug on the available GPU in at most eight minutes; writes a JSON file and prints a table.

    python benchmarks/gpu.py --out gpu.json [--minutes 8] [--device cuda|cpu]

It needs the checkout (an archive without git is enough) and its dependencies, but no network and no data.
`--device cpu` runs everything in tiny sizes, to test the script itself. The file is rewritten after every figure, and
an error in one section is recorded there while the others continue: GPUs are rare here, so no error may waste a
session.
The measurements are in benchmarks/gpu_sections.py.
"""

from __future__ import annotations

import time

BEGUN = time.monotonic()  # the import of torch counts

import argparse  # noqa: E402
import contextlib  # noqa: E402
import math  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NamedTuple  # noqa: E402

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

os.environ.setdefault("NASAUG_KERNELS", "off")  # compiling for the CPU would use up GPU time

import gpu_sections as sections  # noqa: E402
import torch  # noqa: E402

from nasaug.core.errors import BadInput  # noqa: E402
from nasaug.core.files import write_json  # noqa: E402

FORMAT = "nasaug-gpu/1"
MARGIN = 5.0  # seconds reserved for finishing
LEAST = 3.0  # no section starts with fewer seconds left


class Section(NamedTuple):
    """`share`: part of the remaining time, relative to the shares of the later sections, which get what is unused."""

    measure: Callable[[sections.Bench, float], Iterator[tuple[str, object]]]
    share: float


# the most valuable first
SECTIONS = {
    "environment": Section(sections.environment, 10),
    "agreement": Section(sections.agreement, 10),
    "steps": Section(sections.steps, 36),
    "graphs": Section(sections.graphs, 20),
    "loader": Section(sections.loader, 12),
    "candidates": Section(sections.candidates, 8),
    "tests": Section(sections.tests, 14),
}


class OutOfTime(BaseException):
    """A section's time is up. Not an Exception, so that no section catches it as an error and continues."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in the block after that many seconds. It cannot interrupt a call into C that does not return."""

    def over(signum, frame):
        raise OutOfTime

    handler = signal.signal(signal.SIGALRM, over)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def carry_out(chosen: dict[str, Section], bench: sections.Bench, save: Callable[[dict], None], deadline: float) -> dict:
    """Run every section, as far as time allows; calls `save(report)` after every figure."""
    report: dict = {}
    for i, (name, section) in enumerate(chosen.items()):
        begun = time.monotonic()
        shares = sum(later.share for later in list(chosen.values())[i:])
        seconds = (deadline - begun) * section.share / shares
        entry = report[name] = {"status": "skipped", "figures": {}}
        if seconds < LEAST:
            entry["reason"] = "no time was left"
            save(report)
            continue
        entry["status"], entry["seconds_given"] = "begun", round(seconds, 1)
        try:
            with within(seconds):
                for key, value in section.measure(bench, begun + seconds):
                    entry["figures"][key] = plain(value)
                    save(report)
                sections.free()
            faulty = any(isinstance(row, dict) and "error" in row for row in entry["figures"].values())
            entry["status"] = "measured in part" if faulty else "measured"
        except sections.Skipped as reason:
            entry |= {"status": "skipped", "reason": str(reason)}
        except OutOfTime:
            entry |= {"status": "cut off", "reason": f"its {seconds:.0f} s were over"}
        except Exception as error:
            entry |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
            entry["traceback"] = traceback.format_exc().splitlines()[-30:]
        entry["seconds"] = round(time.monotonic() - begun, 1)
        save(report)
    return report


def plain(value):
    """Figures as JSON values. NaN and infinity, which JSON lacks, become strings."""
    if isinstance(value, dict):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


# --- the table ------------------------------------------------------------------------------------------------


def table(report: dict) -> str:
    """The main figures as a table; the file has all of them."""
    lines = []
    for name, entry in report.items():
        why = entry.get("error") or entry.get("reason") or ""
        seconds = f", {entry['seconds']:.0f} s" if "seconds" in entry else ""
        lines += ["", f"{name}: {entry['status']}{seconds}{': ' if why else ''}{why.splitlines()[0] if why else ''}"]
        lines += SHOWN.get(name, _pairs)(entry["figures"])
    return "\n".join(lines[1:])


def _pairs(figures: dict) -> list[str]:
    return [f"  {key}: {value}" for key, value in figures.items()]


def _agreement(figures: dict) -> list[str]:
    lines = [] if "tolerance" not in figures else [f"  tolerance: {figures['tolerance']:g}"]
    for name, row in figures.items():
        if isinstance(row, dict) and "error" in row:
            lines.append(f"  {name}: {row}")
        elif isinstance(row, dict):
            verdict = {True: "agrees", False: "DOES NOT AGREE", None: "finite"}[row.get("agrees")]
            change = f", the weights' change apart by {row['change_apart']}" if "change_apart" in row else ""
            lines.append(f"  {name}: losses apart by {row['largest_relative']}{change}: {verdict}")
    return lines


def _steps(figures: dict) -> list[str]:
    lines = []
    for name, row in figures.items():
        if not isinstance(row, dict) or "steps" not in row:
            lines.append(f"  {name}: {row}")
            continue
        lines += [f"    {job}: {error}" for job, error in row.get("error", {}).items()]
        lines.append(f"  {name} (batch {row['batch']}):{'ms a step':>22s}{'images/s':>12s}{'CPU asking':>12s}")
        for step, t in row["steps"].items():
            lines.append(f"    {step:30s}{t['ms']:>13.2f}{t['images_per_second']:>12,.0f}{t['asking']:>12.0%}")
        for key in ("netaug_over_plain_macs", "netaug_over_plain", "times_as_fast_as_published", "times_as_fast"):
            if key in row:
                lines.append(f"    {key.replace('_', ' ')}: {_short(row[key])}")
        if "gradients_apart" in row:
            verdict = "agree" if row["gradients_agree"] else "DO NOT AGREE"
            lines.append(f"    gradients of graphs and eager, largest difference {row['gradients_apart']}: {verdict}")
    return lines


def _loader(figures: dict) -> list[str]:
    return [f"  {name}: {_short(row)}" for name, row in figures.items()]


def _short(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(v)}" for key, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


SHOWN = {"agreement": _agreement, "steps": _steps, "graphs": _steps, "loader": _loader, "candidates": _loader}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="the JSON file to write")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: tiny sizes, to try the script")
    o = parser.parse_args()
    if o.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is visible to torch here; --device cpu tries the script in tiny sizes", file=sys.stderr)
        sys.exit(2)
    bench = sections.Bench(o.device, sections.Sizes() if o.device == "cuda" else sections.TRIAL)

    def save(report: dict) -> None:
        taken = round(time.monotonic() - BEGUN, 1)
        write_json(o.out, {"format": FORMAT, "device": o.device, "minutes": o.minutes, "seconds": taken,
                           "trial": o.device == "cpu", "sections": report})  # fmt: skip

    try:
        save({})
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    report = carry_out(SECTIONS, bench, save, BEGUN + 60 * o.minutes - MARGIN)
    print(table(report))
    print(f"\ntook {(time.monotonic() - BEGUN) / 60:.1f} minutes; all figures are in {o.out}")


if __name__ == "__main__":
    main()

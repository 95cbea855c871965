"""Samplers, supernets and whole searches against a published table: NAS-Bench-Macro (Su et al., CVPR 2021).

    python benchmarks/nas_bench_macro.py TABLE --only samplers [--seeds 20]
    python benchmarks/nas_bench_macro.py TABLE --only settings --folder FOLDER --root ROOT
    python benchmarks/nas_bench_macro.py TABLE --only ranks --folder FOLDER --root ROOT
    python benchmarks/nas_bench_macro.py TABLE --only search --folder FOLDER --root ROOT [--seeds 3]

TABLE is the published JSON, or the same compactly: code -> [three test accuracies, parameters, MACs]. FOLDER is
CIFAR-10 as JPEG files. The supernet is trained at 16 px, so budgets are scaled to the MACs that the nets have there.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import multiprocessing
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from statistics import mean
from types import SimpleNamespace

import numpy as np
from cells import Cell, interval, run, write
from ranking import tau, with_interval
from reopen import reopen
from scipy.stats import spearmanr

from nasaug.arch import archfile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import Budget, cost_of
from nasaug.arch.plan import plan
from nasaug.arch.space import Arch, Space
from nasaug.arch.spacefile import load
from nasaug.core.errors import BadInput
from nasaug.core.files import read_bytes, write_json
from nasaug.core.signals import Pending
from nasaug.core.units import format_quantity
from nasaug.nas.study import Search
from nasaug.rundirs.folder import RunDir
from nasaug.tasks import Classify
from nasaug.training.recipe import SearchConfig
from nasaug.training.scoring import Judged

NAME, CLASSES = "nas-bench-macro", 10
GZIP = b"\x1f\x8b"
NETWORKS = 3969  # in the whole table: several of its 6,561 codes are one network
BUDGETS = (35_000_000, 45_000_000, 65_000_000)
AT = (20, 50, 100)  # evaluations
PX = 16
NEAR = 0.9  # within 10 % below a budget
JUDGED, TUNED = 1000, 300  # networks of the final figure, and other ones to tune on
LED = 10  # networks that a supernet puts first
BELOW, TRIED, FIRST = 0.75, 200, 20  # settings are tried on so many networks of this part of a budget and more
LENGTH = ("train_macs=6e12", "search.least_epochs=0")  # of a supernet at PX under 45M: about 6 epochs
ALONE = ("search.supernet_share=1", "search.finalist_macs=0", "search.trials=8")  # little more than the supernet
# What supernets are trained on: the range of the samples' MACs, as multiples of the budget, and other keys.
SETTINGS = {
    "as by default": (0.0, 0.0, ()),
    "never the smallest net": (0.0, 0.0, ("sandwich.smallest=false",)),
    "samples of 0.5 to 1.2 budgets": (0.5, 1.2, ()),
    "samples of 0.5 to 2.4 budgets": (0.5, 2.4, ()),
    "samples of 0.5 to 2.4 budgets, never the smallest net": (0.5, 2.4, ("sandwich.smallest=false",)),
    "that, with blocks that do not start as identities": (
        0.5, 2.4, ("sandwich.smallest=false", "zero_init_residual=false")
    ),
}
ARMS = {"random": ("random", 0.0), "tpe": ("tpe", 0.0), "nsga2": ("nsga2", 0.0), "tpe + predictor": ("tpe", 0.5),
        "predictor": ("tpe", 1.0)}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """The published figures by canonical architecture: test accuracies of three trainings, parameters, MACs."""

    space: Space
    rows: dict[Arch, tuple[list[float], int, int]]

    @classmethod
    def read(cls, path: Path) -> Table:
        """Raises BadInput if the file is not a table of this space, or a figure differs from the cost model's."""
        space = load(NAME, BLOCKS)
        data, not_one = read_bytes(path), f"{path} is not NAS-Bench-Macro's table"
        try:
            table = json.loads(gzip.decompress(data) if data[:2] == GZIP else data)
        except (ValueError, OSError, EOFError, zlib.error, RecursionError) as error:
            raise BadInput(f"{not_one}: {error or 'it ends too soon'}; give its JSON, plain or by gzip") from error
        found: dict[Arch, tuple[list[float], int, int]] = {}
        table = table.get("archs", table) if isinstance(table, dict) else None
        digits = f"codes of {len(space.axes)} digits 0 to 2"
        if not isinstance(table, dict) or not table:
            raise BadInput(f"{not_one}: it must be an object with {digits}")
        for code, row in table.items():
            if len(code) != len(space.axes) or not set(code) <= set("012"):
                raise BadInput(f"{not_one}: {code!r} is none of its {digits}")
            try:
                accuracies, params, macs = _figures(row)
            except (ValueError, TypeError, LookupError, OverflowError) as error:
                form = "three accuracies from 0 to 100, parameters, MACs"
                raise BadInput(f"{not_one}: {code} has {row!r}; its rows are {form}") from error
            arch = arch_of(space, code)
            spent = cost_of(space, arch, CLASSES)
            if (spent.params, spent.macs) != (params, macs):
                told = f"has {params} parameters and {macs} MACs, the cost model {spent.params} and {spent.macs}"
                raise BadInput(f"{path}: {code} {told}")
            found.setdefault(arch, (accuracies, params, macs))
        return cls(space, found)

    def accuracy(self, arch: Arch) -> float:
        return mean(self.rows[arch][0])

    def best(self, budget: float) -> float:
        """The highest mean accuracy of a network within the budget."""
        return max(self.accuracy(arch) for arch, (_, _, macs) in self.rows.items() if macs <= budget)

    @cached_property
    def sets(self) -> dict[str, list[Arch]]:
        """JUDGED networks for the final figures; and for choices TUNED other ones, and TRIED close below 45M MACs."""
        order = sorted(self.rows)
        Random(0).shuffle(order)
        judged, tuned = order[:JUDGED], order[JUDGED : JUDGED + TUNED]
        below = [a for a in sorted(set(self.rows) - set(judged)) if BELOW <= self.rows[a][2] / BUDGETS[1] <= 1]
        Random(1).shuffle(below)
        return {"judged": judged, "tuned": tuned, "below": below[:TRIED]}


def _figures(row) -> tuple[list[float], int, int]:
    """Raises ValueError, TypeError, LookupError or OverflowError for what is no row of the table."""
    if isinstance(row, dict):  # the published form
        row = [row[key] for key in ("test_acc_1", "test_acc_2", "test_acc_3", "params", "flops")]
    accuracies = [float(row[i]) for i in range(3)]
    if not all(0 <= each <= 100 for each in accuracies):
        raise ValueError
    return accuracies, int(row[3]), int(row[4])


def whole_table(path: Path) -> Table:
    """Raises BadInput as Table.read does, and if networks are missing."""
    table = Table.read(path)
    if len(table.rows) < NETWORKS:
        raise BadInput(f"{path} has {len(table.rows):,} networks; give the whole table, of {NETWORKS:,}")
    return table


def arch_of(space: Space, code: str) -> Arch:
    values = (axis.choices[int(digit)] for axis, digit in zip(space.axes, code, strict=True))
    return space.canonical(Arch(space.name, tuple(values)))


# --- samplers on the table ----------------------------------------------------------------------------------


class OnTable(Search):
    """A search whose scores are those of one of the table's three trainings, drawn for each network."""

    table: Table

    def _judge(self, arch, split):
        return Judged(Random(f"{self.seed}/{arch.values}").choice(self.table.rows[arch][0]), 0.0)


def evaluations(table: Table, arm: str, budget: int, seed: int) -> list[float]:
    """The regret, in points of mean accuracy, of the net that scored best among the first n evaluations, by AT."""
    sampler, predicted = ARMS[arm]
    config = SearchConfig(trials=max(AT), sampler=sampler, predicted=predicted)
    net = SimpleNamespace(plan=plan(table.space, table.space.largest, CLASSES))
    scorer = SimpleNamespace(task=Classify(CLASSES))
    search = OnTable(table.space, Budget(macs=budget), config, scorer, range(10_000), "sqlite://", seed, net=net)
    search.table = table
    search.run(Pending(), lambda *_: None)
    judged = [(arch, each.score) for arch, each in search.scores.items()]
    chosen = (max(judged[:n], key=lambda pair: pair[1])[0] for n in AT)
    return [table.best(budget) - table.accuracy(arch) for arch in chosen]


def _evaluated(job: tuple[Path, str, int, int]) -> list[float]:
    path, arm, budget, seed = job
    return evaluations(Table.read(path), arm, budget, seed)


def samplers(path: Path, seeds: int, jobs: int) -> None:
    table = whole_table(path)
    wanted = [(path, arm, budget, seed) for arm in ARMS for budget in BUDGETS for seed in range(seeds)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        regrets = dict(zip(wanted, pool.map(_evaluated, wanted, chunksize=1), strict=True))
    lines = [
        "`python benchmarks/nas_bench_macro.py TABLE --only samplers`", "",
        "NAS-Bench-Macro's own table, no training: regret (points of test accuracy, mean of three trainings) of the "
        f"best-scored network after n evaluations to the best under the budget. A score is one of the three trainings, "
        f"drawn by seed; {seeds} seeds, mean and 95 % t interval.", "",
    ]  # fmt: skip
    figures: dict = {"seeds": seeds, "at": AT, "regret": {}}
    for budget in BUDGETS:
        shown = format_quantity(budget, "macs")
        lines += [f"Under {shown} MACs (best {table.best(budget):.2f} %):", "",
                  "| sampler | " + " | ".join(f"n = {n}" for n in AT) + " |",
                  "| --- |" + " --- |" * len(AT)]  # fmt: skip
        for arm in ARMS:
            rows = [regrets[path, arm, budget, seed] for seed in range(seeds)]
            figures["regret"].setdefault(arm, {})[shown] = rows
            by_n = zip(*rows, strict=True)
            lines.append(f"| {arm} | " + " | ".join(interval(list(column)) for column in by_n) + " |")
        lines.append("")
    lines.append("TPE + predictor: half of the sampler's candidates are proposed by a Gaussian process.")
    write("nas_bench_samplers", "Samplers on NAS-Bench-Macro", lines, figures)


# --- the supernet's ranking ---------------------------------------------------------------------------------


def scaled(table: Table, budget: float) -> int:
    """The budget in MACs at PX: that of the largest network within it at the table's 32 px."""
    small = small_space(table.space)
    within = (arch for arch, (_, _, macs) in table.rows.items() if macs <= budget)
    return max(cost_of(small, arch, CLASSES).macs for arch in within)


def small_space(space: Space) -> Space:
    return Space(space.name, space.divisor, space.axes, space.rules, PX, source={**space.source, "resolution": PX})


def supernet_cell(table: Table, folder: Path, root: Path, name: str, budget: int, *sets: str, seed: int = 0) -> Cell:
    """A search at PX px, with its space's file in `root`."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"{NAME}-{PX}.toml"
    if not path.is_file():
        text = Path(__file__).resolve().parent.parent / "search_spaces" / f"{NAME}.toml"
        path.write_text(text.read_text().replace("resolution = 32", f"resolution = {PX}"))
    given = [word for item in sets for word in ("--set", item)]
    options = ("--data", str(folder.resolve()), "--space", str(path.resolve()), "--mac-budget", str(budget), *given)
    options += ("--seed", str(seed)) if seed else ()
    return Cell(name, "search", options)


def ranks(table: Table, finished, which: str, images: int | None = None) -> dict:
    """What the supernet says of each network on so many validation images (None: all), its size, and the table's
    accuracy."""
    search, val = finished.search("sqlite://"), finished.data.val
    split = val if images is None else val.take(images, 0)
    archs = table.sets[which]
    judged = [search._judge(arch, split) for arch in archs]
    rows = {
        "scores": [each.score for each in judged], "losses": [-each.loss for each in judged],
        "accuracy": [table.accuracy(arch) for arch in archs],
        "macs": [table.rows[arch][2] for arch in archs], "params": [table.rows[arch][1] for arch in archs],
    }  # fmt: skip
    return rows


def kept(table: Table, root: Path, name: str, which: str, images: int | None = None) -> dict:
    """`ranks` of a finished run; kept beside it, as it takes minutes."""
    path = root / f"{name}-{which}.json"
    if not path.is_file():
        write_json(path, ranks(table, reopen(root / name), which, images))
    return json.loads(path.read_text(encoding="utf-8"))


def correlations(rows: dict) -> list[dict]:
    """Over all networks, and within 10 % below each budget."""
    macs, found = np.array(rows["macs"]), []
    groups = {"all": np.ones(len(macs), bool)} | {
        f"{NEAR:.0%} to 100 % of {format_quantity(b, 'macs')}": (macs > NEAR * b) & (macs <= b) for b in BUDGETS
    }
    for name, inside in groups.items():
        truth = np.array(rows["accuracy"])[inside]
        entry: dict = {"networks": name, "n": int(inside.sum())}
        for key in ("scores", "losses", "macs", "params"):
            values = np.array(rows[key])[inside]
            entry[key] = {"tau": tau(values, truth), "rho": with_interval(spearmanr, values, truth)}
        found.append(entry)
    return found


def rank_page(table: Table, found: list[dict], sets: dict) -> None:
    lines = [
        f"`python benchmarks/nas_bench_macro.py TABLE --only ranks --folder FOLDER --root ROOT{said(sets['set'])}`", "",
        f"A supernet of the whole space, trained on CIFAR-10 (JPEG) at {PX} px; {found[0]['n']} networks drawn by "
        "seed, judged on the whole validation split. Kendall's tau and Spearman's rho with the table's mean accuracy "
        "(95 % bootstrap intervals over networks); beside them those of size alone.", "",
        "| networks | n | loss: tau | loss: rho | top-1: tau | MACs: tau | MACs: rho | parameters: tau | rho |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in found:
        shown = [
            "{:.3f} [{:.3f}, {:.3f}]".format(*row[key][statistic])
            for key, statistic in (
                ("losses", "tau"), ("losses", "rho"), ("scores", "tau"), ("macs", "tau"), ("macs", "rho"),
                ("params", "tau"), ("params", "rho"),
            )
        ]  # fmt: skip
        lines.append(f"| {row['networks']} | {row['n']} | {' | '.join(shown)} |")
    write("nas_bench_ranks", "A supernet's ranking on NAS-Bench-Macro", lines, {"correlations": found, **sets})


def tuned_page(root: Path) -> None:
    """The supernets so far that were judged on the networks for choosing settings."""
    lines, figures = [
        "`python benchmarks/nas_bench_macro.py TABLE --only ranks --on tuned --folder FOLDER --root ROOT --name NAME`, "
        "with the settings of a row", "",
        f"Supernets trained in several ways, judged as for [the final figures](nas_bench_ranks.md), but on {TUNED} "
        "other networks: their settings were chosen here. Kendall's tau of the loss with the table's mean accuracy "
        "(95 % bootstrap interval over networks), over all of them and within 10 % below each budget.", "",
        "| supernet | settings | all | " + " | ".join(f"below {format_quantity(b, 'macs')}" for b in BUDGETS) + " |",
        "| --- | --- |" + " --- |" * (1 + len(BUDGETS)),
    ], {}  # fmt: skip
    for path in sorted(root.glob("*-tuned.json")):
        name = path.name.removesuffix("-tuned.json")
        options = (root / f"{name}.options").read_text(encoding="utf-8").splitlines()
        settings = " ".join(each for each in options if each.startswith("--set "))
        found = correlations(json.loads(path.read_text(encoding="utf-8")))
        taus = ("{:.2f} [{:.2f}, {:.2f}]".format(*row["losses"]["tau"]) + f" (n = {row['n']})" for row in found)
        lines.append(f"| {name} | `{settings}` | {' | '.join(taus)} |")
        figures[name] = {"settings": settings, "correlations": found}
    write("nas_bench_tuned", "Which settings make a supernet order NAS-Bench-Macro's networks?", lines, figures)


def settings_cells(table: Table, folder: Path, root: Path) -> dict[str, Cell]:
    """A supernet under 45M MACs for each of SETTINGS."""
    budget, cells = scaled(table, BUDGETS[1]), {}
    for i, (arm, (low, high, more)) in enumerate(SETTINGS.items()):
        ends = (f"sandwich.low={low * budget:g}", f"sandwich.high={high * budget:g}") if high else ()
        cells[arm] = supernet_cell(table, folder, root, f"settings-{i}", budget, *LENGTH, *ALONE, *ends, *more)
    return cells


def settings_page(judged: dict[str, dict]) -> None:
    """`judged`: what each supernet says of the networks that it is tried on, as of `ranks`."""
    lines = [
        "`python benchmarks/nas_bench_macro.py TABLE --only settings --folder FOLDER --root ROOT`", "",
        f"Supernets trained in several ways with as much compute ({LENGTH[0]}; one seed, CIFAR-10 (JPEG) at {PX} px) "
        f"under a budget of {format_quantity(BUDGETS[1], 'macs')} MACs (of the table's nets at 32 px). They judge "
        f"networks of {BELOW:.0%} to 100 % of it, none of those that `--only ranks` judges, by "
        "their loss on 1,000 validation images. Kendall's tau with the table's mean accuracy (95 % bootstrap interval "
        f"over networks); the same over the networks above {NEAR:.0%} of the budget; the mean accuracy, in the table, "
        f"of the {FIRST} networks that come first.", "",
        f"| a supernet's training | tau | tau above {NEAR:.0%} | the first {FIRST} |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    figures: dict = {}
    for arm, rows in judged.items():
        losses, truth, macs = (np.array(rows[key]) for key in ("losses", "accuracy", "macs"))
        near = macs > NEAR * BUDGETS[1]
        (middle, low, high), (close, *_) = tau(losses, truth), tau(losses[near], truth[near])
        first = float(truth[np.argsort(-losses)[:FIRST]].mean())
        figures[arm] = {"tau": [middle, low, high], "near": close, "first": first, "rows": rows}
        lines.append(f"| {arm} | {middle:.2f} [{low:.2f}, {high:.2f}] | {close:.2f} | {first:.2f} % |")
    best = np.sort(truth)[-FIRST:].mean()
    lines += ["", f"n = {len(truth)} networks, {near.sum()} of them above {NEAR:.0%}. Beside them: MACs alone, tau "
              f"{tau(macs, truth)[0]:.2f}; the mean accuracy of all is {truth.mean():.2f} %, of the best {FIRST} "
              f"{best:.2f} %."]  # fmt: skip
    write("nas_bench_settings", "What a supernet is trained on", lines, figures)


# --- whole searches -----------------------------------------------------------------------------------------


def searched(table: Table, arch: Arch, budget: int) -> dict:
    """What the table says of the net found: its code, accuracy, MACs, rank and regret among those within the budget."""
    arch = table.space.canonical(Arch(table.space.name, arch.values))  # the search's own space has other px
    within = [table.accuracy(other) for other, (_, _, macs) in table.rows.items() if macs <= budget]
    found = table.accuracy(arch)
    choices = (axis.choices.index(value) for axis, value in zip(table.space.axes, arch.values, strict=True))
    return {
        "code": "".join(map(str, choices)), "accuracy": found, "macs": table.rows[arch][2],
        "rank": 1 + sum(each > found for each in within), "of": len(within), "regret": max(within) - found,
    }  # fmt: skip


def filtered(table: Table, run: RunDir, budget: int) -> dict:
    """What the table says of a search's candidates within the budget, in the order of the supernet's loss: the first,
    the mean of the first LED, the best of all."""
    rows = json.loads(run.candidates_file.read_text(encoding="utf-8"))["candidates"]
    archs = [
        table.space.arch({axis.name: row["choices"][axis.name] for axis in table.space.axes})
        for row in sorted(rows, key=lambda row: row["val_loss"])
    ]
    told = [table.accuracy(arch) for arch in archs if table.rows[arch][2] <= budget]
    return {"first": told[0], "led": mean(told[:LED]), "best": max(told), "candidates": len(told)}


def said(options: Sequence[str]) -> str:
    """The options as they are given on the command line."""
    return "".join(f" --set {item}" for item in options)


def search_page(found: dict[int, dict], budget: int, options: Sequence[str]) -> None:
    asked, first = format_quantity(budget, "macs"), next(iter(found.values()))
    lines = [
        "`python benchmarks/nas_bench_macro.py TABLE --only search --folder FOLDER --root ROOT "
        f"--seeds {len(found)}{said(options)}`", "",
        f"Whole searches under {asked} MACs (of the table's nets at 32 px; trained at {PX} px on CIFAR-10 (JPEG), the "
        "budget scaled), and what the table says of the nets found: the mean of three trainings, its rank and its "
        f"distance to the best of the {first['of']:,} networks within the budget. Mean regret: "
        f"{interval([row['regret'] for row in found.values()])} points. Beside the net found, "
        "what the table says of the candidates in the order of the supernet's loss, before any was trained: the first, "
        f"the mean of the first {LED}, the best of all.", "",
        f"| seed | network | MACs | accuracy | rank | regret | candidates: first | mean of {LED} | best |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for seed, row in found.items():
        macs = format_quantity(row["macs"], "macs")
        figures = f"{row['accuracy']:.2f} % | {row['rank']} | {row['regret']:.2f}"
        by_supernet = " | ".join(f"{row[key]:.2f} %" for key in ("first", "led", "best"))
        lines.append(f"| {seed} | {row['code']} | {macs} | {figures} | {by_supernet} |")
    write("nas_bench_search", "Whole searches on NAS-Bench-Macro", lines, {"found": found, "set": options})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--only", choices=("samplers", "settings", "ranks", "search"), required=True)
    parser.add_argument("--seeds", type=int, help="default: 20 for samplers, 3 for search; ranks have one")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--set", action="append", default=[], help="a recipe key of the supernet's training")
    parser.add_argument("--name", help="the cell's name in ROOT; default: that of --only")
    on = "the networks of the final figures, or those to choose settings on"
    parser.add_argument("--on", choices=("judged", "tuned"), default="judged", help=on)
    o = parser.parse_args()
    for name in ("seeds", "jobs"):
        if (given := getattr(o, name)) is not None and given < 1:
            raise BadInput(f"--{name} {given}: must be at least 1")
    if o.only == "samplers":
        samplers(o.table, o.seeds or 20, o.jobs)
        return
    if o.folder is None or o.root is None:
        raise BadInput("give --folder, CIFAR-10 as JPEG files, and --root, a folder for the runs")
    table = whole_table(o.table)
    whole = cost_of(small_space(table.space), table.space.largest, CLASSES).macs
    folder, root = o.folder.resolve(), o.root.resolve()

    def train(cells: list[Cell], jobs: int) -> None:
        with contextlib.chdir(root):  # searches also write found.json to their working directory
            run(root, cells, jobs)

    if o.only == "settings":
        tried, judged = list(settings_cells(table, folder, root).items()), {}
        for start in range(0, len(tried), o.jobs):  # judged at once: keep.py keeps no weights
            some = tried[start : start + o.jobs]
            train([cell for _, cell in some], o.jobs)
            judged |= {arm: kept(table, root, cell.name, "below", 1000) for arm, cell in some}
        settings_page(judged)
        return
    if o.only == "search":
        budget, options = scaled(table, BUDGETS[1]), tuple(o.set)
        names = {seed: f"{o.name or 'search'}-s{seed}" for seed in range(o.seeds or 3)}
        cells = [supernet_cell(table, folder, root, names[s], budget, *options, seed=s) for s in names]
        train(cells, o.jobs)
        files = {seed: archfile.read(str(RunDir(root / name).found_file)) for seed, name in names.items()}
        told = {
            seed: searched(table, file.arch, BUDGETS[1]) | filtered(table, RunDir(root / names[seed]), BUDGETS[1])
            for seed, file in files.items()
        }
        search_page(told, BUDGETS[1], options)
        return
    name = o.name or "ranks"
    train([supernet_cell(table, folder, root, name, whole, *o.set)], 1)
    rows = kept(table, root, name, o.on)
    if o.on == "judged":
        rank_page(table, correlations(rows), {"rows": rows, "set": o.set})
    else:
        tuned_page(root)


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None

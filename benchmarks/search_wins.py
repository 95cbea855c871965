"""Does `search` find a better net than simple rivals of the same size and compute?

    python benchmarks/search_wins.py FOLDER ROOT --budget 1M [--space SPACE] [--seeds 5] [--ways search,uniform]
        [--name NAME] [--only PART] [--set KEY=VALUE]

FOLDER is CIFAR-10 as JPEG files, at 32 px, or the name of a data set of ten classes, such as fashion-mnist. Rivals
under the same budget of MACs: (a) `uniform`, the best MobileNetV2 with one width multiplier over resolutions and
strides, chosen once by validation; (b) `random`, the best of 24 random nets (one is the design, half of the others vary
it) that are each trained briefly, to the end of a short schedule; (c) `halving`, the search without its supernet; both
in all shapes, with the compute of the whole search; (d) `default`, the space's own design with one width multiplier. A
seed repeats everything: a search, and the `finals`, the same training from scratch of every net (for the net of
`search` also from its weights, and NetAug).

PART is one of these names, or `page`, which writes docs/results/search_wins_BUDGET (or NAME) at any stage of the
experiment. Without it everything runs. --ways leaves rows of the page out of the experiment, or adds the trainings from
a search's weights, which must run where the search did. Repeating a command continues where it stopped. Another data
set, another space, other settings or another length need another ROOT; several budgets may share one.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean

from cells import Cell, Failed, data_name, interval, run, train, write
from scipy.stats import kendalltau
from space_quality import described

from nasaug.arch import archfile
from nasaug.arch.archfile import ArchFile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost
from nasaug.arch.plan import Plan, make_divisible, plan
from nasaug.arch.space import Space, Value
from nasaug.arch.spacefile import from_dict, load
from nasaug.comparison import stats
from nasaug.core.files import DATA_SETS
from nasaug.core.units import format_quantity, parse_quantity
from nasaug.nas.finalists import begun_with
from nasaug.reporting.wording import signed
from nasaug.rundirs.folder import RunDir

CLASSES, NEAR = 10, 0.9  # a net with a multiplier has at least NEAR of the budget
STEPS, PER_ONE = 8000, 1000  # multipliers tried: 0.001 to 8

PUBLISHED, DIVISOR = "mobilenetv2-small", 4  # widths in multiples of 4, so that thin nets are possible
RESOLUTIONS, STEMS = (20, 24, 28, 32), (1, 2)
SIDES = {"fashion-mnist": 28}  # of a data set's images, if other than the largest of these
STRIDES = ((2, 2, 2, 1, 2), (1, 2, 2, 1, 2), (2, 1, 2, 1, 2), (1, 2, 2, 1, 1))  # of s1 to s5
SCREENS = ((3, None), (12, 6))  # epochs, and how many nets, the best so far, are trained for them (None: all)

SEARCHES = {
    "search": (),
    "halving": ("--strategy", "halving", "--set", "search.shapes=0"),
    "random": (
        "--strategy", "halving", "--set", "search.rounds=1", "--set", "search.shapes=0", "--set", "search.schedule=1",
        "--set", "search.finalists=24",
    ),
}
FRESH = ("--from-scratch",)
FINALS = {  # title, the part that gives the net, verb and further options
    "search": ("`search`", "search", "train", FRESH),
    "search-weights": ("`search`, from its weights", "search", "train", ()),
    "search-netaug": ("`search`, NetAug from its weights", "search", "netaug-train", ()),
    "uniform": ("(a) best uniform net", "uniform", "train", FRESH),
    "random": ("(b) best of random nets", "random", "train", FRESH),
    "halving": ("(c) successive halving", "halving", "train", FRESH),
    "default": ("(d) default design", "default", "train", FRESH),
}
WEIGHTED = ("search-weights", "search-netaug")  # only where asked for: they need the weights of the searches
WAYS = tuple(way for way in FINALS if way not in WEIGHTED)
PARTS = ("uniform", "default", *SEARCHES, "finals", "page")


@dataclass(frozen=True)
class Setting:
    """What is compared, and the cells of it in `root`. `data` is an image folder or the name of a data set."""

    data: str
    root: Path
    macs: int
    space: str
    seeds: int = 5
    epochs: int = 40
    sets: tuple[str, ...] = ()
    jobs: int = 2
    asked: tuple[str, ...] = WAYS
    name: str | None = None  # of the page, if not by budget and data set

    @property
    def ways(self) -> dict[str, tuple]:
        """Those of FINALS that the experiment has."""
        return {way: each for way, each in FINALS.items() if way in self.asked}

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that give their nets."""
        return tuple(dict.fromkeys(part for _, part, *_ in self.ways.values()))

    @property
    def searches(self) -> tuple[str, ...]:
        return tuple(part for part in SEARCHES if part in self.parts)

    @property
    def page(self) -> str:
        """The name of its page."""
        return self.name or f"search_wins_{self.label}" + (f"_{self.data}" if self.data in DATA_SETS else "")

    @property
    def resolutions(self) -> tuple[int, ...]:
        return tuple(px for px in RESOLUTIONS if px <= SIDES.get(self.data, max(RESOLUTIONS)))

    @property
    def label(self) -> str:
        """The budget in the names of cells, files and pages."""
        short = format_quantity(self.macs, "macs")
        return short if parse_quantity(short, "macs") == self.macs else str(self.macs)

    def run(self, cells: list[Cell]) -> dict[str, dict]:
        with contextlib.chdir(self.root):  # searches also write found.json to their working directory
            return run(self.root, cells, self.jobs)

    def result(self, cell: Cell) -> dict | None:
        """None if the cell is not finished."""
        found = RunDir(self.root / cell.name)
        return found.result() if found.finished else None

    def search(self, part: str, seed: int) -> Cell:
        given = [word for each in self.sets for word in ("--set", each)]
        options = ("--mac-budget", str(self.macs), "--space", self.space, "--seed", str(seed))
        options = (*options, "--data", self.data, *given, *SEARCHES[part])
        return Cell(f"{self.label}-{part}-s{seed}", "search", options)

    def net(self, part: str, seed: int) -> Path:
        """The arch file of a part's net; it does not exist before that part is finished."""
        if part in SEARCHES:
            return RunDir(self.root / self.search(part, seed).name).found_file
        return self.root / f"{part}-{self.label}.json"

    def has_net(self, part: str, seed: int) -> bool:
        done = part not in SEARCHES or self.result(self.search(part, seed)) is not None
        return done and self.net(part, seed).is_file()

    def twin(self, way: str, seed: int) -> str:
        """The first way whose final training from scratch is the same as this one's, because both have the same
        network; this way itself if there is none. Trainings repeat bit for bit, so one is enough."""
        _, part, verb, more = FINALS[way]
        if more == FRESH and self.has_net(part, seed):
            net = archfile.read(str(self.net(part, seed))).plan
            for other, (_, giver, *how) in self.ways.items():
                if how == [verb, FRESH] and self.has_net(giver, seed):
                    if archfile.read(str(self.net(giver, seed))).plan == net:
                        return other
        return way

    def final(self, way: str, seed: int) -> Cell:
        way = self.twin(way, seed)
        _, part, verb, more = FINALS[way]
        method = ("--method", "baseline") if verb == "train" else ()
        options = ("--arch", str(self.net(part, seed)), *method, "--seed", str(seed), "--data", self.data)
        return Cell(f"{self.label}-final-{way}-s{seed}", verb, (*options, *more, "--set", f"epochs={self.epochs}"))

    def screen(self, name: str, epochs: int) -> Cell:
        options = ("--from-scratch", "--data", self.data, "--set", f"epochs={epochs}")
        return train(f"{self.label}-{name}-{epochs}", self.root / f"{self.label}-{name}.json", *options)


# --- nets with one width multiplier ----------------------------------------------------------------------------


def widest(made: Callable[[float], Plan], macs: int) -> tuple[float, Plan] | None:
    """The largest multiplier whose net is within the budget, and that net; None if it has less than NEAR of it."""
    place = bisect_right(range(1, STEPS + 1), macs, key=lambda step: cost(made(step / PER_ONE)).macs)
    if place == 0:
        return None
    found = made(place / PER_ONE)
    return (place / PER_ONE, found) if cost(found).macs >= NEAR * macs else None


def scaled(space: Space, choices: Mapping[str, Value], multiplier: float) -> Plan:
    """The architecture with these choices and all widths multiplied, rounded to the space's divisor."""
    def times(kinds: Sequence[str], value: Value) -> Value:
        parts = zip(kinds, value if isinstance(value, tuple) else (value,), strict=True)
        out = tuple(make_divisible(v * multiplier, space.divisor) if kind == "width" else v for kind, v in parts)
        return out if isinstance(value, tuple) else out[0]

    wide = {axis.name: times(axis.kinds, choices[axis.name]) for axis in space.axes}
    return plan(space, space.arch(wide), CLASSES)


@cache
def strided(strides: tuple[int, ...]) -> Space:
    """MobileNetV2's space with these strides of s1, s2, …"""
    given, by = load(PUBLISHED, BLOCKS).to_dict(), {f"s{i}": stride for i, stride in enumerate(strides, 1)}
    stages = [stage | ({"stride": by[stage["name"]]} if stage["name"] in by else {}) for stage in given["stage"]]
    return from_dict(given | {"divisor": DIVISOR, "stage": stages}, PUBLISHED, BLOCKS)


def uniform_nets(macs: int, resolutions: Sequence[int]) -> dict[str, ArchFile]:
    """MobileNetV2's depths and expand ratio for each resolution and pattern of strides that has a multiplier."""
    nets = {}
    for px in resolutions:
        for stem in STEMS:
            for strides in STRIDES:
                space = strided(strides)
                choices = space.choices(space.named(PUBLISHED)) | {"resolution": px, "stem.stride": stem}
                if found := widest(partial(scaled, space, choices), macs):
                    told = f"x {found[0]:g}, {px} px, strides {stem}, {' '.join(map(str, strides))}"
                    nets[f"uniform-{px}-{stem}-{''.join(map(str, strides))}"] = ArchFile(found[1], told)
    return nets


def default_net(space: Space, macs: int) -> ArchFile:
    """The architecture that the space names like itself, else its first, with one width multiplier."""
    if not space.archs:
        raise SystemExit(f"space {space.name} names no default design; add [arch.{space.name}] to its file")
    name = space.name if space.name in space.archs else next(iter(space.archs))
    found = widest(partial(scaled, space, space.choices(space.named(name))), macs)
    if found is None:
        share = f"{NEAR:g} to 1 times {format_quantity(macs, 'macs')} MACs"
        raise SystemExit(f"no width multiplier gives [arch.{name}] of space {space.name} {share}; take another budget")
    return ArchFile(found[1], f"{name} x {found[0]:g}")


def leaders(results: Mapping[str, dict], count: int) -> list[str]:
    """The names of the best results by validation, the best first."""
    return sorted(results, key=lambda name: -results[name]["val_top1"])[:count]


# --- the parts -------------------------------------------------------------------------------------------------


def choose_uniform(s: Setting) -> None:
    """Rival (a), chosen on validation images by trainings of seed 0, all nets briefly and the best for longer."""
    nets = uniform_nets(s.macs, s.resolutions)
    if not nets:
        raise SystemExit(f"no uniform net has {NEAR:g} to 1 times {s.macs:,} MACs")
    for name, net in nets.items():
        path = s.root / f"{s.label}-{name}.json"
        if not path.is_file():
            net.save(path)
    left = list(nets)
    for i, (epochs, _) in enumerate(SCREENS):
        done = s.run([s.screen(name, epochs) for name in left])
        keep = SCREENS[i + 1][1] if i + 1 < len(SCREENS) else 1
        left = leaders({name: done[s.screen(name, epochs).name] for name in left}, keep)
    if not s.net("uniform", 0).is_file():
        nets[left[0]].save(s.net("uniform", 0))


def make_default(s: Setting) -> None:
    net = default_net(load(s.space, BLOCKS), s.macs)
    if not s.net("default", 0).is_file():
        net.save(s.net("default", 0))


def finals(s: Setting, seed: int, parts: Sequence[str]) -> list[Cell]:
    """The final trainings of one seed of the nets that these parts have found by now."""
    ready = (way for way, (_, part, *_) in s.ways.items() if part in parts and s.has_net(part, seed))
    return list(dict.fromkeys(s.final(way, seed) for way in ready))


def carry_out(s: Setting, only: str | None) -> list[str]:
    """Run one part, or all; returns what failed, after everything else has been run."""
    faults: list[str] = []

    def attempt(cells: list[Cell]) -> None:
        try:
            s.run(cells)
        except Failed as fault:
            faults.append(str(fault))

    wanted = s.parts if only is None else (only,)
    if "default" in wanted:  # first, because it takes no time and may be refused
        make_default(s)
    if "uniform" in wanted:
        choose_uniform(s)
    if only in SEARCHES:
        attempt([s.search(only, seed) for seed in range(s.seeds)])
    if only == "finals":
        attempt([cell for seed in range(s.seeds) for cell in finals(s, seed, PARTS)])
    for seed in range(s.seeds if only is None else 0):
        # those that need no search of this seed fill the core that three searches leave idle
        attempt([*(s.search(part, seed) for part in s.searches), *finals(s, seed, ("uniform", "default"))])
        attempt(finals(s, seed, s.searches))
    return faults


# --- the page --------------------------------------------------------------------------------------------------


def spent(found: RunDir) -> dict[str, float]:
    """Forward MACs of all training in a finished search, and seconds; scoring counts as time only."""
    last = {event["stage"]: event for event in found.read_log() if event["event"] == "epoch"}
    judged = found.result()["search_seconds"]  # of the study and the finalists, without the supernet
    trained = sum(e["seconds"] for e in last.values())
    alone = sum(e["seconds"] for stage, e in last.items() if stage.startswith("finalist "))
    return {"train_macs": sum(e["train_macs"] for e in last.values()), "seconds": trained + max(0.0, judged - alone)}


def searched(s: Setting, part: str, seed: int) -> dict[str, float] | None:
    """The compute of finding a part's net; for the uniform net that of all its screening trainings."""
    if part in SEARCHES:
        cell = s.search(part, seed)
        return None if s.result(cell) is None else spent(RunDir(s.root / cell.name))
    screens = [row[str(epochs)] for row in screened(s) for epochs, _ in SCREENS] if part == "uniform" else []
    rows = [row for row in screens if row]
    return {key: sum(row[key] for row in rows) for key in ("train_macs", "seconds")}


def screened(s: Setting) -> list[dict]:
    """The uniform nets, and the results of their screening trainings by epochs, None if not run."""
    rows = []
    for name, net in uniform_nets(s.macs, s.resolutions).items() if "uniform" in s.parts else ():
        row: dict = {"net": net.name, **cost(net.plan).known}
        for epochs, _ in SCREENS:
            row[str(epochs)] = _kept(s.result(s.screen(name, epochs)))
        rows.append(row)
    return rows


KEPT = ("val_top1", "test_top1", "macs", "params", "epochs", "train_macs", "seconds")


def _kept(result: dict | None) -> dict | None:
    return result and {key: result[key] for key in KEPT}


def gathered(s: Setting) -> dict[str, list[dict]]:
    """What is finished, by way: a row for each seed."""
    ways: dict[str, list[dict]] = {}
    for way, (_, part, *_) in s.ways.items():
        ways[way] = []
        for seed in range(s.seeds):
            if not s.has_net(part, seed) or (final := _kept(s.result(s.final(way, seed)))) is None:
                continue
            if final["epochs"] != s.epochs:
                trained = f"{s.root / s.final(way, seed).name} was trained for {final['epochs']} epochs"
                raise SystemExit(f"{trained}, not {s.epochs}; give --epochs {final['epochs']}, or another ROOT")
            ways[way].append({"seed": seed, **final, "searched": searched(s, part, seed)})
    return ways


def differences(ways: Mapping[str, list[dict]]) -> dict[str, dict]:
    """Validation top-1 of `search` minus that of each rival, over the seeds that both have finished."""
    pairs = {}
    for rival in _rivals(ways):
        ours, theirs = ({row["seed"]: row["val_top1"] for row in ways.get(way, ())} for way in ("search", rival))
        if seeds := sorted(ours.keys() & theirs.keys()):
            pairs[rival] = [ours[i] for i in seeds], [theirs[i] for i in seeds]
    found = {rival: stats.paired(a, b, comparisons=len(pairs)) for rival, (a, b) in pairs.items()}
    tested = [rival for rival, each in found.items() if each.p is not None]
    holm = dict(zip(tested, stats.holm([found[rival].p for rival in tested]), strict=True))
    return {
        rival: {
            "n": each.n, "difference": each.difference, "low": each.low, "high": each.high, "p_holm": holm.get(rival),
            "verdict": stats.verdict(each.n, each.difference, holm.get(rival)),
        }
        for rival, each in found.items()
    }  # fmt: skip


def _rivals(ways: Mapping[str, list[dict]]) -> list[str]:
    return [way for way in ways if way != "search"]


def missing(s: Setting, ways: Mapping[str, list[dict]], screens: list[dict]) -> list[str]:
    """A line for each way that is not finished."""
    lines = []
    for way, (title, part, *_) in s.ways.items():
        done = {row["seed"] for row in ways[way]}
        left = [seed for seed in range(s.seeds) if seed not in done]
        if left:
            netless = [seed for seed in left if not s.has_net(part, seed)]
            no_net = f"; no net of {_seeds(netless)}" if netless else ""
            lines.append(f"- {title}: no final training of {_seeds(left)}{no_net}")
    first = sum(row[str(SCREENS[0][0])] is None for row in screens)
    if "uniform" in s.parts and (first or not s.has_net("uniform", 0)):
        lines.append(f"- the choice of the uniform net: {first} of {len(screens)} nets not yet trained")
    return lines


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def settings(s: Setting) -> list[str]:
    """The spaces and settings with which the searches in `root` were started, as recorded with them."""
    told = set()
    for part in s.searches:
        for seed in range(s.seeds):
            note = s.root / f"{s.search(part, seed).name}.options"
            if note.is_file():
                options = [shlex.split(line) for line in note.read_text().splitlines()]
                shown = [f"{key} {Path(value).stem if key == '--space' else value}"
                         for key, value in options if key in ("--space", "--set")]  # fmt: skip
                own = set(map(" ".join, zip(SEARCHES[part][::2], SEARCHES[part][1::2], strict=True)))  # make this part
                told.add(" ".join(each for each in shown if each not in own))
    return sorted(told)


def same(s: Setting) -> list[str]:
    """A line if (b) and (c) were one and the same search, because the settings give halving a single round."""
    for seed in range(s.seeds):
        recipes = [RunDir(s.root / s.search(part, seed).name).recipe_file for part in ("random", "halving")]
        if all(path.is_file() for path in recipes) and recipes[0].read_text() == recipes[1].read_text():
            return ["(b) and (c) are the same here: with these settings successive halving has one round.", ""]
    return []


def twins(s: Setting) -> list[str]:
    """A line if one final training stands for two ways."""
    pairs = [(way, other, seed) for way in s.ways for seed in range(s.seeds) if (other := s.twin(way, seed)) != way]
    told = "; ".join(f"{FINALS[way][0]} and {FINALS[other][0]}, seed {seed}" for way, other, seed in pairs)
    return [f"The same net, so one final training stands for both: {told}.", ""] if pairs else []


def page(s: Setting) -> None:
    ways, screens, told = gathered(s), screened(s), settings(s)
    versus, left = differences(ways), missing(s, ways, screens)
    named = s.data if s.data in DATA_SETS else "FOLDER"
    chosen = "" if tuple(s.ways) == WAYS else f" --ways {','.join(s.ways)}"
    weighted = ", except where its weights or NetAug are named" if {*WEIGHTED} & {*s.ways} else ""
    once = "; (a) is searched once for all seeds" if "uniform" in s.parts else ""
    chosen += f" --name {s.name}" if s.name else ""
    lines = [
        f"`python benchmarks/search_wins.py {named} ROOT --budget {s.label} --seeds {s.seeds}{chosen}`", "",
        f"{data_name(s.data)}, at most {s.label} MACs; every net trained plainly from scratch for {s.epochs} epochs"
        f"{weighted}; a seed repeats the search and this training. Mean and 95 % t interval over seeds. Compute is "
        f"that of one seed: forward MACs of training, and time with other trainings beside it{once}.", "",
        f"The searches were run with `{'`, and with `'.join(told)}`." if told else "No search has been run.", "",
    ]  # fmt: skip
    if left:
        lines += ["**Not finished, so the figures below are not the whole experiment:**", "", *left, ""]
    lines += [
        "| net | validation top-1 | test top-1 | MACs | parameters | search: MACs | time | final: MACs | time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(FINALS[way][0], rows) for way, rows in ways.items()), "",
        "`search` minus a rival, validation top-1 in percentage points, paired by seed, with t intervals that hold "
        "together at 95 % and Holm's correction of the verdict:", "",
        "| rival | n | difference | verdict |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for rival in _rivals(ways):
        if each := versus.get(rival):
            ends = "" if each["low"] is None else f" [{signed(each['low'])}, {signed(each['high'])}]"
            shown = f"{each['n']} | {signed(each['difference'])}{ends} | {each['verdict']}"
        else:
            shown = "0 | - | not run"
        lines.append(f"| {FINALS[rival][0]} | {shown} |")
    lines += ["", *same(s), *twins(s), *_ordered(s), *_found(s), *(_choice(screens, s) if screens else ())]
    figures = {"budget": s.macs, "epochs": s.epochs, "seeds": s.seeds, "settings": told, "ways": ways,
               "differences": versus, "uniform": screens, "missing": left}  # fmt: skip
    write(s.page, f"Does the search win at {s.label} MACs?", lines, figures)


def _row(title: str, rows: list[dict]) -> str:
    if not rows:
        return f"| {title} | not run |" + " - |" * 7
    scores = [interval([row[key] for row in rows]) for key in ("val_top1", "test_top1")]
    sizes = [_spread([row[key] for row in rows], key) for key in ("macs", "params")]
    used = [_spent([row["searched"] for row in rows]), _spent(rows)]
    return f"| {title} | {' | '.join([*scores, *sizes, *used])} |"


def _spread(values: Sequence[int], kind: str) -> str:
    ends = dict.fromkeys(format_quantity(end, kind) for end in (min(values), max(values)))
    return " to ".join(ends)


def _sizes(figures: Mapping[str, int]) -> str:
    return " | ".join(format_quantity(figures[key], key) for key in ("macs", "params"))


def _spent(rows: list[dict]) -> str:
    macs, seconds = (mean(row[key] for row in rows) for key in ("train_macs", "seconds"))
    return f"{format_quantity(macs, 'macs')} | {format_quantity(seconds, 'seconds')}" if macs else "- | -"


def _ordered(s: Setting) -> list[str]:
    """What the supernet knew of its finalists, in words."""
    found = [tau for seed in range(s.seeds)
             if s.result(cell := s.search("search", seed)) and (tau := _tau(RunDir(s.root / cell.name))) is not None]
    if not found:
        return []
    each = ", ".join(f"{tau:+.2f}" for tau in found)
    told = "Kendall's tau between the supernet's scores of the finalists and their losses after the first round"
    return [f"{told}: {mean(found):+.2f} on average of {len(found)} searches ({each}).", ""]


def _tau(run: RunDir) -> float | None:
    """Of one search; None if too few of its finalists have both figures."""
    rounds = (begun_with(run.finalists_file) or {"rounds": []})["rounds"]
    losses = {name: loss for name, (_, loss) in rounds[0].items()} if rounds else {}
    rows = [row for row in run.result().get("finalists", ()) if row["id"] in losses]
    known = [(row["full_val_top1"], -losses[row["id"]]) for row in rows if row["full_val_top1"] is not None]
    return float(kendalltau(*zip(*known, strict=True)).statistic) if len(known) > 2 else None


def _found(s: Setting) -> list[str]:
    """A table of the nets that the searches found."""
    rows = []
    for part in s.searches:
        for seed in range(s.seeds):
            if not s.has_net(part, seed):
                continue
            found = archfile.read(str(s.net(part, seed)))
            sizes = _sizes(cost(found.plan).known)
            rows.append(f"| {part} | {seed} | {sizes} | {described(found.space, found.arch)} |")
    if not rows:
        return []
    head = ["| search | seed | MACs | parameters | network |", "| --- | --- | --- | --- | --- |"]
    return ["The nets found: resolution, then stride, width and blocks of each stage.", "", *head, *rows, ""]


def _choice(screens: list[dict], s: Setting) -> list[str]:
    (first, _), (second, best) = SCREENS

    def shown(row: dict, epochs: int) -> str:
        return "-" if row[str(epochs)] is None else f"{row[str(epochs)]['val_top1']:.2f}"

    def rank(row: dict) -> tuple[float, ...]:
        return tuple(-row[str(e)]["val_top1"] if row[str(e)] else 0.0 for e in (second, first))

    tried = len(s.resolutions) * len(STEMS) * len(STRIDES)
    lines = [
        f"The choice of the uniform net: validation top-1 (%) after {first} epochs, and of the best {best} after "
        f"{second}, seed 0. MobileNetV2's depths and expand ratio; multiplier, resolution, strides of the stem and of "
        f"s1 to s5. {len(screens)} of {tried} combinations have a multiplier with {NEAR:g} to 1 times the budget.", "",
        f"| net | MACs | parameters | {first} epochs | {second} epochs |", "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in sorted(screens, key=rank):
        lines.append(f"| {row['net']} | {_sizes(row)} | {shown(row, first)} | {shown(row, second)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="FOLDER", help="an image folder, or the name of a data set")
    parser.add_argument("root", type=Path)
    parser.add_argument("--budget", required=True, help="MACs, like 1M")
    parser.add_argument("--space", default="tiny-images", help="a space's name or the path of its file")
    parser.add_argument("--seeds", type=int, default=5)
    shown = f"the rows of the page, of {', '.join(FINALS)}; default: all but {' and '.join(WEIGHTED)}"
    parser.add_argument("--ways", default=",".join(WAYS), help=shown)
    parser.add_argument("--name", help="of the page; default: search_wins_BUDGET, and the data set's name")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=40, help="of the final trainings")
    parser.add_argument("--set", action="append", default=[], help="a recipe key of the searches, like a.b=c")
    o = parser.parse_args()
    macs = parse_quantity(o.budget, "macs", "budget")
    space = str(Path(o.space).resolve()) if o.space.endswith(".toml") else o.space
    data = o.data if o.data in DATA_SETS else str(Path(o.data).resolve())
    ways = tuple(o.ways.split(","))
    if unknown := [way for way in ways if way not in FINALS]:
        raise SystemExit(f"--ways {o.ways}: no {unknown[0]!r}; give some of {', '.join(FINALS)}")
    s = Setting(data, o.root.resolve(), macs, space, o.seeds, o.epochs, tuple(o.set), o.jobs, ways, o.name)
    s.root.mkdir(parents=True, exist_ok=True)
    faults = [] if o.only == "page" else carry_out(s, o.only)
    if o.only in (None, "page"):
        page(s)
    if faults:
        raise SystemExit("\n".join(faults))


if __name__ == "__main__":
    main()

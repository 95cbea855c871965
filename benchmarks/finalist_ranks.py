"""How supernets rank networks whose own training is known: the finalists of finished searches.

    python benchmarks/finalist_ranks.py WINS ARM=RUN,RUN… [ARM=…]

WINS is a folder of `benchmarks/search_wins.py` with searches for 1M MACs of CIFAR-10. Each RUN is a finished search in
the same space, under the same budget and on the same images; for its supernet alone:

    python -m nasaug search --data FOLDER --mac-budget 1M --set search.finalist_macs=0 --set search.trials=8 --seed 0

with the settings to be tried. A supernet judges all finalists but those of its own search.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean

from cells import interval, write
from reopen import Finished, reopen
from scipy.stats import kendalltau

from nasaug.arch.space import Arch
from nasaug.config.layers import flatten, load, to_dict
from nasaug.nas.finalists import begun_with
from nasaug.rundirs.folder import RunDir
from nasaug.training.recipe import Recipe

IMAGES = 2000  # of the validation split
KEYS = ("zero_init_residual", *(f"sandwich.{key}" for key in ("samples", "every", "smallest", "low", "high")))


def finalists(run: Path) -> dict[tuple, float]:
    """The choices of a search's finalists, by axis, with the losses after their first round of training."""
    rounds = (begun_with(RunDir(run).finalists_file) or {"rounds": []})["rounds"]
    if not rounds:
        raise SystemExit(f"{run} has no finalists that were trained")
    known = json.loads((run / "result.json").read_text(encoding="utf-8"))["finalists"]
    choices = {each["id"]: each["choices"] for each in known}
    nets = ((tuple((axis, _whole(value)) for axis, value in sorted(choices[name].items())), loss)
            for name, (_, loss) in rounds[0].items())  # fmt: skip
    return dict(nets)


def _whole(value):
    return tuple(value) if isinstance(value, list) else value  # JSON has no tuples


def ranked(finished: Finished, own: str, searches: dict[str, dict[tuple, float]]) -> dict[str, float]:
    """Kendall's tau of a supernet's losses with those of the finalists: over all of them, and the mean of each
    search's; without those of its `own` search."""
    search, val = finished.search("sqlite://"), finished.data.val.take(IMAGES, 0)
    space = finished.found.space
    losses: dict[tuple, float] = {}
    others = {name: nets for name, nets in searches.items() if name != own}
    for net in {net for nets in others.values() for net in nets}:
        values, given = [], dict(net)
        for axis in space.axes:
            value = given.get(axis.name)
            if value not in axis.choices:
                raise SystemExit(f"{axis.name} = {value} of a finalist is not a choice of {finished.supernet.parent}")
            values.append(value)
        losses[net] = search._judge(Arch(space.name, tuple(values)), val).loss
    of_all: dict[tuple, list[float]] = {}
    for nets in others.values():
        for net, loss in nets.items():
            of_all.setdefault(net, []).append(loss)
    within = [kendalltau([losses[n] for n in nets], list(nets.values())).statistic for nets in others.values()]
    truth = {net: mean(each) for net, each in of_all.items()}
    tau = kendalltau([losses[net] for net in truth], list(truth.values())).statistic
    return {"networks": len(truth), "tau": float(tau), "within": float(mean(within))}


def settings(recipe: Recipe) -> str:
    """What differs from the recipe `small` as it is now."""
    own, usual = (flatten(to_dict(each)) for each in (recipe, load("small", Recipe)))
    differing = [f"{key}={json.dumps(own[key])}" for key in KEYS if own[key] != usual[key]]
    return f"`{' '.join(differing)}`" if differing else "the default"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wins", type=Path)
    parser.add_argument("arms", nargs="+", metavar="ARM=RUN,RUN…")
    o = parser.parse_args()
    searches = {str(p.parent.resolve()): finalists(p.parent) for p in sorted(o.wins.glob("1M-search-s?/result.json"))}
    if not searches:
        raise SystemExit(f"{o.wins} has no finished search for 1M MACs (1M-search-s0, …)")
    arms: dict[str, list[Path]] = {}
    for given in o.arms:
        arm, equals, runs = given.partition("=")
        if not (arm and equals and runs):
            raise SystemExit(f"{given}: must be ARM=RUN,RUN…")
        arms[arm] = [Path(run).resolve() for run in runs.split(",")]
    rows: dict[str, dict] = {}
    for arm, runs in arms.items():
        opened = [reopen(run) for run in runs]
        found = [ranked(each, str(run), searches) for each, run in zip(opened, runs, strict=True)]
        rows[arm] = {"settings": settings(opened[0].recipe), "supernets": found}
    page(rows, len(searches))


def page(rows: dict[str, dict], count: int) -> None:
    lines = [
        "`python benchmarks/finalist_ranks.py WINS ARM=RUN,RUN… …`, after", "",
        "`python -m nasaug search --data FOLDER --mac-budget 1M --set search.finalist_macs=0 --set search.trials=8 "
        "--seed SEED`, with the settings that differ, for each supernet that is not that of a whole search.", "",
        "Supernets of `tiny-images` under 1M MACs (CIFAR-10, JPEG, 32 px), trained in several ways with the compute of "
        f"a search, judge the finalists of {count} searches by their loss on {IMAGES:,} validation images. "
        "Kendall's tau with what decides among finalists, the mean of validation and training loss after their first "
        "round (some nine epochs from fresh weights): over all finalists, and within the eight of each search. Each "
        "supernet has a seed of its own; mean and 95 % t interval over supernets. The finalists were picked by "
        "supernets of the default kind, which makes them hard to tell apart for that kind: the "
        "other kinds are flattered ([why](../explanation/ranking.md)).", "",
        "| supernets | settings that differ | tau, all | tau within a search | each, all |",
        "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for arm, row in rows.items():
        found = row["supernets"]
        of_all, within = (interval([each[key] for each in found]) for key in ("tau", "within"))
        each = ", ".join(f"{one['tau']:.2f}" for one in found)
        lines.append(f"| {arm} | {row['settings']} | {of_all} | {within} | {each} |")
    write("finalist_ranks", "How supernets rank finalists", lines, {"searches": count, "arms": rows})


if __name__ == "__main__":
    main()

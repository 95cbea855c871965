"""The output of a finished search: found.json, candidates, Pareto front, a table for the terminal, and a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from ..arch.archfile import ArchFile
from ..arch.cost import LABELS, NAMES, UNITS, Budget
from ..arch.plan import plan
from ..arch.space import Space, resolve
from ..config import layers
from ..core import files
from ..core.metric import WORST
from ..core.progress import say
from ..core.streams import nasaug_command
from ..core.units import format_quantity
from ..reporting import drawing, pictures, tables
from ..reporting.search_page import search_page
from ..rundirs.folder import RunDir
from ..tasks import Metric
from ..training.recipe import ACCURACY, PICKS, Recipe
from .candidates import Candidate, pareto
from .finalists import front_weights
from .front import unbeaten
from .ranges import candidates_of
from .shapes import KINDS
from .study import Search

FOUND = "found.json"
SHOWN = 12  # finalists in the table
HEADS = {"macs": "MACs", "params": "params", "peak": "SRAM", "flash": "flash", "latency": "latency"}


def write_results(
    run: RunDir, recipe: Recipe, search: Search, budget: Budget, ranked: list[Candidate],
    finalists: list[Candidate], seconds: float, shapes: Sequence[Candidate] = (), over: str = "",
    onward: Sequence[str] = (),
) -> dict:  # fmt: skip
    """Write found.json, candidates.json, the Pareto fronts (PNG, JSON, and each of their nets as an arch file) and the
    page, and print the table; return the result.

    `budget` is the one asked for; the search's own may be lower, and `over` says why: nets above it "take longer than
    3 ms". `shapes` are those tried first, the best first, `onward` the options of the commands to go on with."""
    best, space, metric = finalists[0], search.space, search.metric
    found = _arch_file(run, recipe, search, budget, best, run.start_file)
    found.save(run.found_file)
    row = [_row(space, c, metric) for c in ranked]
    files.write_json(run.candidates_file, {"format": "nasaug-candidates/1", **metric.told, "candidates": row})
    scored, ended = [c for c in ranked if c.score is not None], search.front(finalists)
    front = scored_front(search, scored)
    files.write_json(run.pareto_file, {
        "format": "nasaug-pareto/1", **metric.told, "front": [_row(space, c, metric) for c in front],
        "objectives": list(recipe.search.objectives), "finalists": [_row(space, c, metric) for c in ended],
    })  # fmt: skip
    nets = {space.id(c.arch): c for c in (*front, *ended)}  # a finalist's figures replace the candidate's
    write_front(run, {
        name: _arch_file(run, recipe, search, budget, c, front_weights(run, name)) for name, c in nets.items()
    })  # fmt: skip
    plot_search(run.pareto_picture, panels_of(search, scored, finalists, budget))
    say(table(space, finalists, metric))
    if first := "" if search.config.pick != "best" else why_first(search, finalists):
        say(first)
    if search.several:
        say(front_table(search, finalists))
    if why := "" if search.config.pick != "best" else little_used(finalists, search.budget, budget, over):
        say(why)
    # with several objectives those of a later round are not the better ones
    comparable = [c for c in finalists if c.rounds == finalists[0].rounds] if search.several else finalists
    ranks = agreement(comparable, metric)
    agreed = "" if ranks is None else (
        f"Kendall's tau between the supernet's ranking of these {ranks['n']} and that after their own training: "
        f"{ranks['tau']:+.2f} (p = {ranks['p']:.2g})"
    )  # fmt: skip
    if agreed:
        say(agreed)
    page = _asked(run, recipe, search, budget) | _tried(run, search, budget, ranked, finalists, shapes)
    page |= {
        "name": found.name, "costs": _costs(best, budget), "little_used": why, "agreed": agreed,
        "drawing": drawing.network(found.plan, found.name),
        "commands": _next(run, recipe, search, len(ranked), onward),
    }  # fmt: skip
    files.write_whole(run.search_page, search_page(page))
    return {
        "found": found.name, metric.key("val"): best.full_score, **metric.told, **best.cost.known,
        "candidates": len(ranked), "little_used": why,
        "finalists": [_row(space, c, metric) for c in finalists], "ranks": ranks, "search_seconds": round(seconds, 1),
        "budget": budget.limits, "data": recipe.data.name, "seed": recipe.seed,
    }  # fmt: skip


def predicted(space: Space, found: Candidate) -> dict[str, Any]:
    """The latency of the net found, and whose it is; empty without a device's table."""
    return {} if space.device is None else {"latency": found.cost.latency, "latency_of": str(space.device)}


def _arch_file(
    run: RunDir, recipe: Recipe, search: Search, budget: Budget, c: Candidate, weights: Path
) -> ArchFile:  # fmt: skip
    """A net of the search with its scores; `weights` is the file that its training starts from, if that exists."""
    space, metric = search.space, search.metric
    facts = {
        "budget": budget.limits, metric.key("val"): c.full_score, metric.key("score"): c.score,
        metric.key("trained"): c.trained_score, **metric.told,
        "data": recipe.data.name, "recipe_space": recipe.space, **predicted(space, c),
    }  # fmt: skip
    supernet, start = (path.resolve() if path.is_file() else None for path in (run.supernet_file, weights))
    p = plan(space, c.arch, search.scorer.task.head)
    return ArchFile(p, f"{space.name}:{space.id(c.arch)}", space, c.arch, supernet, facts, start)


def write_front(run: RunDir, nets: dict[str, ArchFile]) -> None:
    """Write the nets of the fronts into the run's front folder, by id, in place of those of before."""
    run.front_folder.mkdir(exist_ok=True)
    for name, net in nets.items():
        net.save(run.front_folder / f"{name}.json")
    for path in run.front_folder.glob("*.json"):
        if path.stem not in nets:
            path.unlink()


def scored_front(search: Search, scored: list[Candidate]) -> list[Candidate]:
    """The candidates' front with the weights of the supernet: of score and MACs, or of the objectives if there are
    several."""
    return unbeaten(scored, search.point) if search.several else pareto(scored, search.metric)


def _rules(search: Search, finalists: list[Candidate], c: Candidate) -> list[str]:
    """The rules of search.pick that choose this net of the finalists' front."""
    front = search.front(finalists)
    best = min(front, key=lambda each: each.rank or 0.0)
    known = [rule for rule in PICKS if rule in ("best", "knee") or NAMES[rule[4:]] in search.costs]
    return [rule for rule in known if (best if rule == "best" else search.by_rule(rule, front)) is c]


def front_table(search: Search, finalists: list[Candidate]) -> str:
    """The finalists' front as a table, with the rules that choose each net; where the loss ranks, it is shown too."""
    front, metric, by_loss = search.front(finalists), search.metric, search.config.by == "loss"
    trained = any(c.rounds for c in front)
    score = "trained" if trained else f"val {metric.label}"
    head = ("the front", score, *(["loss"] * by_loss), *(LABELS[key] for key in search.costs), "pick")
    rows = [
        (search.space.id(c.arch), metric.show(c.trained_score if trained else c.full_score),
         *([f"{c.rank:.4g}"] * by_loss), *(format_quantity(getattr(c.cost, key), UNITS[key]) for key in search.costs),
         ", ".join(_rules(search, finalists, c)))
        for c in front
    ]  # fmt: skip
    return tables.text(head, rows, left=(0, -1))


def why_first(search: Search, finalists: list[Candidate]) -> str:
    """Why the net found is another than the one with the best score in the table; empty if it is that one."""
    metric, first = search.metric, finalists[0]
    trained = first.trained_score is not None
    best, *others = (c.trained_score if trained else c.full_score for c in finalists if c.rounds == first.rounds)
    if best is None or not any(score is not None and metric.better(score, best) for score in others):
        return ""
    if not trained:
        best_by = "with the least loss" if search.config.by == "loss" else "that is best"
        return f"the first is found: the largest of those within the error of {metric.label} from the net {best_by}"
    ranked = f"nets are ranked by their losses on validation and training images, not by {metric.label}"
    return f"the first is found: {ranked}" if search.config.by == "loss" else ""


LITTLE = 0.6  # a net that uses less of the MAC budget than this is explained


def little_used(finalists: list[Candidate], searched: Budget, asked: Budget, over: str = "") -> str:
    """Why the net found uses a small part of the MAC budget; empty if it does not, or if there is no MAC budget.

    `searched` is the budget that the search kept to, which may be below the one `asked` for; `over` is as in
    `write_results`."""
    found = finalists[0]
    if asked.macs is None or searched.macs is None or found.cost.macs >= LITTLE * asked.macs:
        return ""
    used, allowed = (format_quantity(macs, "macs") for macs in (found.cost.macs, asked.macs))
    reasons = []
    if searched.macs < asked.macs:
        limit = format_quantity(searched.macs, "macs")
        reasons.append(f"nets above {limit} {over}")
    larger = [c for c in finalists if c.cost.macs > found.cost.macs and c.trained_score is not None]
    if larger and found.cost.macs < LITTLE * searched.macs:
        most = format_quantity(max(c.cost.macs for c in larger), "macs")
        many = f"{len(larger)} larger finalists" if len(larger) > 1 else "a larger finalist"
        reasons.append(f"{many} of up to {most} did worse in training")
    if binding := [key for key in asked.beside_macs.limits if getattr(found.cost, key) > 0.9 * getattr(asked, key)]:
        reasons.append(f"it is at the limit of {' and '.join(LABELS[key] for key in binding)}")
    share = f"the net found uses {used} of the {allowed} MACs"
    return f"{share}: {'; '.join(reasons) or 'no larger net within the budgets scored better'}"


# the axes of plots: labels, and the factor of the unit that they are in
SCALES = {
    "macs": pictures.MACS, "params": pictures.Scale("parameters", "params", 1e3, "parameters (thousands)"),
    "peak": pictures.Scale("peak SRAM", "bytes", 1024, "peak SRAM (KB)"),
    "flash": pictures.Scale("flash", "bytes", 1024, "flash (KB)"),
    "latency": pictures.Scale("latency", "milliseconds", 1, "latency (ms)"),
}  # fmt: skip
Panels = dict[str, list[pictures.Scatter]]


def plot_search(path: Path, panels: Panels) -> None:
    """Plot what there is of `panels_of` as a PNG: side by side, or with several objectives in rows."""
    drawn = [row for row in panels.values() if row]
    if not drawn:
        return
    single = all(len(row) == 1 for row in drawn)
    pictures.scatters(path, [[row[0] for row in drawn]] if single else drawn)


def panels_of(search: Search, candidates: list[Candidate], finalists: list[Candidate], budget: Budget) -> Panels:
    """For each pair of objectives the finalists after their own training, by the round that they reached, and the
    candidates with the weights of the supernet; each with the front and the net found. By name; empty where there are
    none.

    With accuracy alone it is drawn against MACs, and the finalists without their front. With several objectives the
    loss is drawn in place of accuracy where it ranks, so that the front is one in the picture too."""
    metric, pairs = search.metric, list(combinations((ACCURACY, *search.costs), 2))
    front = search.front(finalists) if search.several else []
    trained = [c for c in finalists if c.rounds]
    told = {"trained": "after own training", "scored": "weights of the supernet"}
    by_loss = search.several and search.config.by == "loss"
    drawn = {
        "trained": (_by_round(trained), front, "rank" if by_loss else "trained_score"),
        "scored": ({"candidates": candidates}, scored_front(search, candidates), "loss" if by_loss else "score"),
    }
    accuracy = "loss" if by_loss else metric.axis

    def panel(name: str, one: str, key: str) -> pictures.Scatter:
        """Of an objective, accuracy or a cost (its y), against a cost (its x)."""
        series, front, field = drawn[name]
        x, y, limit = SCALES[key], SCALES.get(one), getattr(budget, key)

        def points(shown: Iterable[Candidate]) -> list[tuple[float, float]]:
            known = [c for c in shown if getattr(c, field) not in (None, WORST if by_loss else metric.worst)]
            return [(getattr(c.cost, key) / x.factor, getattr(c.cost, one) / y.factor if y else getattr(c, field))
                    for c in known]  # fmt: skip

        label = f"{y.plain}, {told[name]}" if y else f"validation {accuracy}, {told[name]}"
        return pictures.Scatter(
            label, {title: points(those) for title, those in series.items()}, points(front), points(finalists[:1]),
            x, y, limit and limit / x.factor, len(search.costs) == 1,
        )  # fmt: skip

    there = {"trained": trained, "scored": candidates}
    return {name: [panel(name, *pair) for pair in pairs] if there[name] else [] for name in drawn}


def _by_round(trained: list[Candidate]) -> dict[str, list[Candidate]]:
    """Trained finalists by the round that they reached, under what that is called in a legend."""
    last, series = max((c.rounds for c in trained), default=0), {}
    for number in range(1, last + 1):
        members = [c for c in trained if c.rounds == number]
        epochs = sorted(c.epochs for c in members)
        told = f"{epochs[0]:.2g}" if epochs[0] == epochs[-1] else f"{epochs[0]:.2g} to {epochs[-1]:.2g}"
        series[f"trained {told} epochs" + ("" if last == 1 else f" (round {number})")] = members
    return series


def agreement(finalists: list[Candidate], metric: Metric) -> dict | None:
    """Kendall's tau between the supernet's scores (whole validation split) and the finalists' order after their own
    training, with its p value: those of a later round are better. None if fewer than three finalists were trained, or
    if either is the same for all.

    With so few nets, all of them good, tau says little; docs/results/ranking.md has nets of all sizes."""
    judged = [c for c in finalists if c.trained_score not in (None, metric.worst)]  # the worst: training diverged
    orders = sorted({(c.rounds, -metric.rank(c.trained_score)) for c in judged})
    both = [
        (-metric.rank(c.full_score), orders.index((c.rounds, -metric.rank(c.trained_score))))
        for c in judged if c.full_score is not None
    ]  # fmt: skip
    if len(both) < 3 or any(len(set(column)) == 1 for column in zip(*both, strict=True)):
        return None
    from scipy.stats import kendalltau

    found = kendalltau(*zip(*both, strict=True))
    return {"n": len(both), "tau": float(found.statistic), "p": float(found.pvalue)}


def _row(space: Space, c: Candidate, metric: Metric) -> dict:
    trained = {"rounds": c.rounds, "epochs": round(c.epochs, 3)} if c.rounds else {}
    by_loss = {} if c.loss is None else {"val_loss": c.loss}
    return {
        "id": space.id(c.arch), metric.key("val"): c.score, **by_loss, metric.key("full_val"): c.full_score,
        metric.key("trained_val"): c.trained_score, **trained, **c.cost.known,
        "choices": space.choices(c.arch),
    }  # fmt: skip


def table(space: Space, finalists: list[Candidate], metric: Metric) -> str:
    """The best finalists as a table: validation score after their own training, by the whole split with the supernet's
    weights, and as scored in the search."""
    figures = [key for key in HEADS if finalists and key in finalists[0].cost.known]
    head = ("arch", "trained", f"val {metric.label}", "scored", *(HEADS[key] for key in figures), "px")
    rows = []
    for c in finalists[:SHOWN]:
        scores = ("-" if x is None else metric.show(x) for x in (c.trained_score, c.full_score, c.score))
        costs = (format_quantity(getattr(c.cost, key), UNITS[key]) for key in figures)
        px = resolve(space.resolution, c.arch.values)
        rows.append((space.id(c.arch), *scores, *costs, str(px)))
    left = len(finalists) - len(rows)
    return tables.text(head, rows) + (f"\nand {left} more finalists, in result.json" if left > 0 else "")


# --- the summary that the page is made of (nasaug.reporting.search_page has its keys) ---


def _asked(run: RunDir, recipe: Recipe, search: Search, budget: Budget) -> dict[str, Any]:
    """What was asked, and of what space."""
    environment, scorer = run.environment(), search.scorer
    versions = {name: environment.get("versions", {}).get(name) for name in ("nasaug", "torch", "optuna")}
    name, told = scorer.data.name, scorer.data.told()
    scored = len(search.images) if recipe.search.strategy == "supernet" else None
    return {
        "command": environment.get("command"), "budget": str(budget),
        "searched": "" if search.budget == budget else str(search.budget), "data": name,
        "images": told.removeprefix(f"data {name}: ").splitlines()[0],
        "objectives": recipe.search.objectives, "pick": recipe.search.pick,
        "strategy": recipe.search.strategy, "seed": recipe.seed, "recipe": layers.dump(recipe),
        "device": scorer.runtime.describe(), "versions": versions, "commit": environment.get("commit"),
        "space": search.space.name, "axes": [(axis.name, axis.kind, axis.choices) for axis in search.space.axes],
        "metric": search.metric.to_plain(), "by": recipe.search.by, "score_images": scored,
        "val_images": len(scorer.data.val),
        "latency_of": "" if search.space.device is None else str(search.space.device),
    }  # fmt: skip


def _tried(
    run: RunDir, search: Search, budget: Budget, ranked: list[Candidate], finalists: list[Candidate],
    shapes: Sequence[Candidate],
) -> dict[str, Any]:  # fmt: skip
    """Shapes, candidates and finalists with their scores, and what each stage took."""
    space, metric = search.space, search.metric

    def rows(shown: Sequence[Candidate]) -> list[dict[str, Any]]:
        """With scores under names that do not depend on the metric; None where a training diverged."""
        return [
            {"id": space.id(c.arch), "scored": c.score, "full": c.full_score, "rounds": c.rounds, "epochs": c.epochs,
             "trained": None if c.trained_score == metric.worst else c.trained_score, **c.cost.known,
             "resolution": resolve(space.resolution, c.arch.values)}
            for c in shown
        ]  # fmt: skip

    scored = [c for c in ranked if c.score is not None]
    panels, ended = panels_of(search, scored, finalists, budget), search.front(finalists)
    rules = [_rules(search, finalists, c) for c in ended]
    differing = [
        i for i, axis in enumerate(space.axes) if axis.kind in KINDS and len({c.arch.values[i] for c in shapes}) > 1
    ]
    shape = [{space.axes[i].name: c.arch.values[i] for i in differing} for c in shapes]
    return {
        "shapes": [row | {"shape": values} for row, values in zip(rows(shapes), shape, strict=True)],
        "candidates": len(scored), "front": rows(scored_front(search, scored)), "finalists": rows(finalists),
        "ended": [row | {"rules": those} for row, those in zip(rows(ended), rules, strict=True)],
        "panels": {name: [panel._asdict() for panel in row] for name, row in panels.items()},
        "stages": list(_stages(run, search, len(scored))),
    }  # fmt: skip


def _stages(run: RunDir, search: Search, scored: int) -> Iterator[dict[str, Any]]:
    """What each stage took: trainings with their forward MACs and seconds by the log, and the candidates."""
    last = {event["stage"]: event for event in run.read_log() if event["event"] == "epoch"}
    for stage in ("shape", "supernet", "candidate", "finalist"):
        ends = [event for title, event in last.items() if title.split()[0] == stage]
        if stage == "candidate" and scored:
            yield {"stage": stage, "nets": scored, "train_macs": None, "seconds": search.seconds}
        elif ends:
            macs, seconds = (sum(event[key] for event in ends) for key in ("train_macs", "seconds"))
            yield {"stage": stage, "nets": len(ends), "train_macs": macs, "seconds": seconds}


def _costs(found: Candidate, budget: Budget) -> list[dict[str, Any]]:
    return [
        {"what": label, "unit": UNITS[key], "used": getattr(found.cost, key), "budget": getattr(budget, key)}
        for key, label in LABELS.items() if key in found.cost.known
    ]


def _next(
    run: RunDir, recipe: Recipe, search: Search, judged: int, onward: Sequence[str]
) -> list[tuple[str, str]]:  # fmt: skip
    """Commands that go on from here, each after what it does."""
    found, more = str(run.found_file), 2 * recipe.search.trials
    commands = [
        ("Train the net found inside wider ones", ("netaug-train", "--arch", found, *onward)),
        ("Train it plainly", ("train", "--method", "baseline", "--arch", found, *onward)),
        ("Compare ways to train it", ("compare", "--arch", found, *onward)),
        ("Show its layers and draw it", ("profile", "--arch", found, "--svg", "net.svg")),
    ]
    if recipe.search.strategy == "supernet":
        if candidates_of(search.space, search.budget, search.scorer.task.head, more) > judged:
            resume = ("search", "--resume", "--run", str(run.path), "--trials", str(more))
            commands.append((f"Go on to {more} candidates", resume))
    if recipe.search.pick == "best" and search.several:
        resume = ("search", "--resume", "--run", str(run.path), "--pick", "knee")
        commands.append(("Choose another net of the front, without searching again", resume))
    return [(does, nasaug_command(*words)) for does, words in commands]

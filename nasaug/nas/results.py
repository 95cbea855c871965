"""The output of a finished search: found.json, candidates, Pareto front, a table for the terminal, and a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..arch.archfile import ArchFile
from ..arch.cost import LABELS, UNITS, Budget
from ..arch.plan import plan
from ..arch.space import Space, resolve
from ..config import layers
from ..core import files
from ..core.progress import say
from ..core.streams import command_line
from ..core.units import format_quantity
from ..reporting import drawing, pictures, tables
from ..reporting.search_page import search_page
from ..rundirs.folder import RunDir
from ..tasks import Metric
from ..training.recipe import Recipe
from .shapes import KINDS
from .study import Candidate, Search, candidates_of, pareto

FOUND = "found.json"
SHOWN = 12  # finalists in the table
HEADS = {"macs": "MACs", "params": "params", "peak": "SRAM", "flash": "flash", "latency": "latency"}


def write_results(
    run: RunDir, recipe: Recipe, search: Search, budget: Budget, ranked: list[Candidate],
    finalists: list[Candidate], seconds: float, shapes: Sequence[Candidate] = (),
) -> dict:  # fmt: skip
    """Write found.json, candidates.json, the Pareto front (PNG and JSON) and the page, and print the table; return the
    result.

    `budget` is the one asked for; the search's own may be lower. `shapes` are those tried first, the best first."""
    best, space, classes, metric = finalists[0], search.space, search.scorer.task.head, search.metric
    facts = {
        "budget": budget.limits, metric.key("val"): best.full_score, metric.key("score"): best.score,
        metric.key("trained"): best.trained_score, **metric.told,
        "data": recipe.data.name, "recipe_space": recipe.space, **predicted(space, best),
    }  # fmt: skip
    supernet, start = (
        path.resolve() if path.is_file() else None for path in (run.supernet_file, run.start_file)
    )
    found = ArchFile(
        plan(space, best.arch, classes), f"{space.name}:{space.id(best.arch)}", space, best.arch, supernet, facts, start
    )
    found.save(run.found_file)
    row = [_row(space, c, metric) for c in ranked]
    files.write_json(run.candidates_file, {"format": "nasaug-candidates/1", **metric.told, "candidates": row})
    scored = [c for c in ranked if c.score is not None]
    front = [_row(space, c, metric) for c in pareto(scored, metric)]
    files.write_json(run.pareto_file, {"format": "nasaug-pareto/1", **metric.told, "front": front})
    plot_search(run.pareto_picture, scored, finalists, budget, metric)
    say(table(space, finalists, metric))
    if why := little_used(finalists, search.budget, budget):
        say(why)
    ranks = agreement(finalists, metric)
    agreed = "" if ranks is None else (
        f"Kendall's tau between the supernet's ranking of these {ranks['n']} and that after their own training: "
        f"{ranks['tau']:+.2f} (p = {ranks['p']:.2g})"
    )  # fmt: skip
    if agreed:
        say(agreed)
    page = _asked(run, recipe, search, budget) | _tried(run, search, ranked, finalists, shapes)
    page |= {
        "name": found.name, "costs": _costs(best, budget), "little_used": why, "agreed": agreed,
        "drawing": drawing.network(found.plan, found.name), "commands": _next(run, recipe, search, len(ranked)),
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


LITTLE = 0.6  # a net that uses less of the MAC budget than this is explained


def little_used(finalists: list[Candidate], searched: Budget, asked: Budget) -> str:
    """Why the net found uses a small part of the MAC budget; empty if it does not, or if there is no MAC budget.

    `searched` is the budget that the search kept to, which may be below the one `asked` for."""
    found = finalists[0]
    if asked.macs is None or searched.macs is None or found.cost.macs >= LITTLE * asked.macs:
        return ""
    used, allowed = (format_quantity(macs, "macs") for macs in (found.cost.macs, asked.macs))
    reasons = []
    if searched.macs < asked.macs:
        limit = format_quantity(searched.macs, "macs")
        reasons.append(f"nets above {limit} would be trained for too few epochs (search.least_epochs)")
    larger = [c for c in finalists if c.cost.macs > found.cost.macs]
    if larger and found.trained_score is not None and found.cost.macs < LITTLE * searched.macs:
        most = format_quantity(max(c.cost.macs for c in larger), "macs")
        reasons.append(f"{len(larger)} larger finalists of up to {most} did worse in their own training")
    if binding := [key for key in asked.beside_macs.limits if getattr(found.cost, key) > 0.9 * getattr(asked, key)]:
        reasons.append(f"it is at the limit of {' and '.join(LABELS[key] for key in binding)}")
    share = f"the net found uses {used} of the {allowed} MACs"
    return f"{share}: {'; '.join(reasons) or 'no larger net within the budgets scored better'}"


def plot_search(
    path: Path, candidates: list[Candidate], finalists: list[Candidate], budget: Budget, metric: Metric
) -> None:  # fmt: skip
    """Plot validation score against MACs as a PNG: finalists after their own training by the round that they reached,
    the net found as a star; beside them all candidates with the supernet's weights and their front. No picture if there
    is neither."""
    limit = budget.macs / 1e6 if budget.macs else None
    panels = [_trained_panel(finalists, metric), _scored_panel(candidates, finalists[0], metric)]
    if drawn := [panel for panel in panels if panel]:
        pictures.scatters(path, drawn, limit, "MACs (millions)")


def _trained_panel(finalists: list[Candidate], metric: Metric) -> pictures.Scatter | None:
    """The finalists after their own training by the round that they reached; None if they were not trained."""
    trained = [c for c in finalists if c.rounds]
    if not trained:
        return None
    last, series = max(c.rounds for c in trained), {}
    for number in range(1, last + 1):
        members = [c for c in trained if c.rounds == number]
        epochs = sorted(c.epochs for c in members)
        told = f"{epochs[0]:.2g}" if epochs[0] == epochs[-1] else f"{epochs[0]:.2g} to {epochs[-1]:.2g}"
        name = f"trained {told} epochs" + ("" if last == 1 else f" (round {number})")
        series[name] = _points(members, "trained_score", metric)
    star = _points(finalists[:1], "trained_score", metric)
    return pictures.Scatter(f"validation {metric.axis}, after own training", series, (), star)


def _scored_panel(candidates: list[Candidate], found: Candidate, metric: Metric) -> pictures.Scatter | None:
    """The candidates with the supernet's weights and their front; None if there is no supernet."""
    if not candidates:
        return None
    shown = {"candidates": _points(candidates, "score", metric)}
    front, star = (_points(those, "score", metric) for those in (pareto(candidates, metric), [found]))
    return pictures.Scatter(f"validation {metric.axis}, weights of the supernet", shown, front, star)


def _points(shown: list[Candidate], field: str, metric: Metric) -> list[tuple[float, float]]:
    return [(c.cost.macs / 1e6, getattr(c, field)) for c in shown if getattr(c, field) not in (None, metric.worst)]


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
        "strategy": recipe.search.strategy, "seed": recipe.seed, "recipe": layers.dump(recipe),
        "device": scorer.runtime.describe(), "versions": versions, "commit": environment.get("commit"),
        "space": search.space.name, "axes": [(axis.name, axis.kind, axis.choices) for axis in search.space.axes],
        "metric": search.metric.to_plain(), "by": recipe.search.by, "score_images": scored,
        "val_images": len(scorer.data.val),
    }  # fmt: skip


def _tried(
    run: RunDir, search: Search, ranked: list[Candidate], finalists: list[Candidate], shapes: Sequence[Candidate]
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
    panels = {"trained": _trained_panel(finalists, metric), "scored": _scored_panel(scored, finalists[0], metric)}
    differing = [
        i for i, axis in enumerate(space.axes) if axis.kind in KINDS and len({c.arch.values[i] for c in shapes}) > 1
    ]
    shape = [{space.axes[i].name: c.arch.values[i] for i in differing} for c in shapes]
    return {
        "shapes": [row | {"shape": values} for row, values in zip(rows(shapes), shape, strict=True)],
        "candidates": len(scored), "front": rows(pareto(scored, metric)), "finalists": rows(finalists),
        "panels": {name: panel and panel._asdict() for name, panel in panels.items()},
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


def _next(run: RunDir, recipe: Recipe, search: Search, judged: int) -> list[tuple[str, str]]:
    """Commands that go on from here, each after what it does."""
    found, nasaug, more = str(run.found_file), ("python", "-m", "nasaug"), 2 * recipe.search.trials
    commands = [
        ("Train the net found inside wider ones", ("netaug-train", "--arch", found)),
        ("Train it plainly", ("train", "--method", "baseline", "--arch", found)),
        ("Compare ways to train it", ("compare", "--arch", found)),
        ("Show its layers and draw it", ("profile", "--arch", found, "--svg", "net.svg")),
    ]
    if recipe.search.strategy == "supernet":
        if candidates_of(search.space, search.budget, search.scorer.task.head, more) > judged:
            resume = ("search", "--resume", "--run", str(run.path), "--trials", str(more))
            commands.append((f"Go on to {more} candidates", resume))
    return [(does, command_line(*nasaug, *words)) for does, words in commands]

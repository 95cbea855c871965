"""The output of a finished search: found.json, the candidates, the Pareto front, and a table for the terminal."""

from __future__ import annotations

from pathlib import Path

from ..arch.archfile import ArchFile
from ..arch.cost import UNITS, Budget
from ..arch.plan import plan
from ..arch.space import Space, resolve
from ..core import files
from ..core.progress import say
from ..core.units import format_quantity
from ..reporting import pictures, tables
from ..rundirs.folder import RunDir
from ..tasks import Metric
from ..training.recipe import Recipe
from .study import Candidate, Search, pareto

FOUND = "found.json"


def write_results(
    run: RunDir, recipe: Recipe, search: Search, ranked: list[Candidate], finalists: list[Candidate],
    seconds: float,
) -> dict:  # fmt: skip
    """Write found.json, candidates.json, the Pareto front (PNG and JSON) and print the table; return the result."""
    best, space, classes, metric = finalists[0], search.space, search.net.plan.classes, search.metric
    facts = {
        "budget": search.budget.limits, metric.key("val"): best.full_score, metric.key("score"): best.score,
        metric.key("trained"): best.trained_score, **metric.told,
        "data": recipe.data.name, "recipe_space": recipe.space,
    }  # fmt: skip
    found = ArchFile(
        plan(space, best.arch, classes), f"{space.name}:{space.id(best.arch)}", space, best.arch,
        run.supernet_file.resolve(), facts,
    )  # fmt: skip
    found.save(run.found_file)
    row = [_row(space, c, metric) for c in ranked]
    files.write_json(run.candidates_file, {"format": "nasaug-candidates/1", **metric.told, "candidates": row})
    front = [_row(space, c, metric) for c in pareto(ranked, metric)]
    files.write_json(run.pareto_file, {"format": "nasaug-pareto/1", **metric.told, "front": front})
    plot_pareto(run.pareto_picture, ranked, search.budget, best, metric)
    say(table(space, finalists, metric))
    ranks = agreement(finalists, metric)
    if ranks:
        say(
            f"Kendall's tau between the supernet's ranking of these {ranks['n']} and that after their own training: "
            f"{ranks['tau']:+.2f} (p = {ranks['p']:.2g})"
        )
    return {
        "found": found.name, metric.key("val"): best.full_score, **metric.told, **best.cost._asdict(),
        "candidates": len(ranked),
        "finalists": [_row(space, c, metric) for c in finalists], "ranks": ranks, "search_seconds": round(seconds, 1),
        "budget": search.budget.limits, "data": recipe.data.name, "seed": recipe.seed,
    }  # fmt: skip


def plot_pareto(
    path: Path, candidates: list[Candidate], budget: Budget, found: Candidate, metric: Metric
) -> None:  # fmt: skip
    """Plot validation score against MACs as a PNG: all candidates, the front as a line, the net found as a star."""

    def points(shown: list[Candidate]) -> list[tuple[float, float]]:
        return [(c.cost.macs / 1e6, c.score) for c in shown]

    limit = budget.macs / 1e6 if budget.macs else None
    labels = "MACs (millions)", f"validation {metric.axis}, weights of the supernet"
    pictures.pareto(path, points(candidates), points(pareto(candidates, metric)), *points([found]), limit, *labels)


def agreement(finalists: list[Candidate], metric: Metric) -> dict | None:
    """Kendall's tau between the supernet's scores (whole validation split) and the scores after fine-tuning, with its
    p value. None if fewer than three finalists were fine-tuned, or if either score is the same for all.

    With so few nets, all of them good, tau says little; docs/results/ranking.md has nets of all sizes."""
    judged = [c for c in finalists if c.trained_score not in (None, metric.worst)]  # the worst: training diverged
    both = [(c.full_score, c.trained_score) for c in judged]
    if len(both) < 3 or any(len(set(column)) == 1 for column in zip(*both, strict=True)):
        return None
    from scipy.stats import kendalltau

    found = kendalltau(*zip(*both, strict=True))
    return {"n": len(both), "tau": float(found.statistic), "p": float(found.pvalue)}


def _row(space: Space, c: Candidate, metric: Metric) -> dict:
    return {
        "id": space.id(c.arch), metric.key("val"): c.score, metric.key("full_val"): c.full_score,
        metric.key("trained_val"): c.trained_score, **c.cost._asdict(),
        "choices": space.choices(c.arch),
    }  # fmt: skip


def table(space: Space, finalists: list[Candidate], metric: Metric) -> str:
    """The finalists as a table: validation score after fine-tuning, on the whole split, and as scored in the search."""
    head, rows = ("arch", "trained", f"val {metric.label}", "scored", "MACs", "params", "SRAM", "flash", "px"), []
    for c in finalists:
        scores = ("-" if x is None else metric.show(x) for x in (c.trained_score, c.full_score, c.score))
        figures = (format_quantity(getattr(c.cost, key), UNITS[key]) for key in c.cost._fields)
        px = resolve(space.resolution, c.arch.values)
        rows.append((space.id(c.arch), *scores, *figures, str(px)))
    return tables.text(head, rows)

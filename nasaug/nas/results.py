"""What a finished search leaves behind: found.json, candidates, the Pareto front, and a table for people."""

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
from ..training.recipe import Recipe
from .study import Candidate, Search, pareto

SUPERNET, FOUND = "supernet.safetensors", "found.json"


def write_results(
    run: RunDir, recipe: Recipe, search: Search, ranked: list[Candidate], finalists: list[Candidate],
    seconds: float,
) -> dict:  # fmt: skip
    """found.json, candidates.json, the Pareto front as PNG and JSON, and the table; returns the result."""
    best, space, classes = finalists[0], search.space, search.net.plan.classes
    facts = {
        "budget": search.budget.limits, "val_top1": best.full_top1, "score_top1": best.val_top1,
        "trained_top1": best.trained_top1,
        "data": recipe.data.name, "recipe_space": recipe.space,
    }  # fmt: skip
    found = ArchFile(
        plan(space, best.arch, classes), f"{space.name}:{space.id(best.arch)}", space, best.arch,
        (run.path / SUPERNET).resolve(), facts,
    )  # fmt: skip
    found.save(run.path / FOUND)
    row = [_row(space, c) for c in ranked]
    files.write_json(run.path / "candidates.json", {"format": "nasaug-candidates/1", "candidates": row})
    front = [_row(space, c) for c in pareto(ranked)]
    files.write_json(run.path / "pareto.json", {"format": "nasaug-pareto/1", "front": front})
    plot_pareto(run.path / "pareto.png", ranked, search.budget, best)
    say(table(space, finalists))
    ranks = agreement(finalists)
    if ranks:
        say(
            f"the supernet ranks these {ranks['n']} as their own training does with Kendall's tau "
            f"{ranks['tau']:+.2f} (p = {ranks['p']:.2g})"
        )
    return {
        "found": found.name, "val_top1": best.full_top1, **best.cost._asdict(), "candidates": len(ranked),
        "finalists": [_row(space, c) for c in finalists], "ranks": ranks, "search_seconds": round(seconds, 1),
        "budget": search.budget.limits, "data": recipe.data.name, "seed": recipe.seed,
    }  # fmt: skip


def plot_pareto(path: Path, candidates: list[Candidate], budget: Budget, found: Candidate) -> None:
    """Validation top-1 against MACs of every candidate, the front drawn through and the found one starred, as a PNG."""

    def points(shown: list[Candidate]) -> list[tuple[float, float]]:
        return [(c.cost.macs / 1e6, c.val_top1) for c in shown]

    limit = budget.macs / 1e6 if budget.macs else None
    labels = "MACs (millions)", "validation top-1 (%), weights of the supernet"
    pictures.pareto(path, points(candidates), points(pareto(candidates)), *points([found]), limit, *labels)


def agreement(finalists: list[Candidate]) -> dict | None:
    """Kendall's tau of the supernet's scores (whole validation split) and of the finalists' own short training, and
    its p value; None for fewer than three that were trained, or where one of both is the same for all.

    Of so few nets, and the best ones, it says little: docs/results/ranking.md has nets of all sizes."""
    both = [(c.full_top1, c.trained_top1) for c in finalists if c.trained_top1]  # 0: its training diverged
    if len(both) < 3 or any(len(set(column)) == 1 for column in zip(*both, strict=True)):
        return None
    from scipy.stats import kendalltau

    found = kendalltau(*zip(*both, strict=True))
    return {"n": len(both), "tau": float(found.statistic), "p": float(found.pvalue)}


def _row(space: Space, c: Candidate) -> dict:
    return {
        "id": space.id(c.arch), "val_top1": c.val_top1, "full_val_top1": c.full_top1,
        "trained_val_top1": c.trained_top1, **c.cost._asdict(),
        "choices": space.choices(c.arch),
    }  # fmt: skip


def table(space: Space, finalists: list[Candidate]) -> str:
    """The best few for people: validation top-1 after their own short training, on the whole split and as scored."""
    head, rows = ("arch", "trained", "val top-1", "scored", "MACs", "params", "SRAM", "flash", "px"), []
    for c in finalists:
        top1 = ("-" if x is None else f"{x:.2f} %" for x in (c.trained_top1, c.full_top1, c.val_top1))
        figures = (format_quantity(getattr(c.cost, key), UNITS[key]) for key in c.cost._fields)
        px = resolve(space.resolution, c.arch.values)
        rows.append((space.id(c.arch), *top1, *figures, str(px)))
    return tables.text(head, rows)

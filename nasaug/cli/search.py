"""`search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from .names import Objectives, Pick, Sampler, SpaceName, Strategy
from .options import USUAL, Common, Whole, carry_out

BUDGETS = Group("Budgets (upper limits)", sort_key=1)


def search(
    *,
    mac_budget: Annotated[str | None, Parameter(group=BUDGETS)] = None,
    param_budget: Annotated[str | None, Parameter(group=BUDGETS)] = None,
    sram_budget: Annotated[str | None, Parameter(group=BUDGETS)] = None,
    flash_budget: Annotated[str | None, Parameter(group=BUDGETS)] = None,
    latency_budget: Annotated[str | None, Parameter(group=BUDGETS)] = None,
    device_table: Annotated[Path | None, Parameter(group=BUDGETS)] = None,
    trust_table: Annotated[bool, Parameter(group=BUDGETS, negative="", show_default=False)] = False,
    space: SpaceName = None,
    strategy: Strategy = None,
    trials: Whole = None,
    sampler: Sampler = None,
    headroom: float | None = None,
    objectives: Objectives = None,
    pick: Pick = None,
    timeout: str | None = None,
    storage: str | None = None,
    common: Common = USUAL,
):
    """Train a supernet, search it under a budget, and write found.json.

    Examples:

      nasaug search --mac-budget 25M

      nasaug search --mac-budget 1M --sram-budget 64KB --data photos/ --trials 200

      nasaug search --latency-budget 3ms --device-table table.json

      nasaug search --mac-budget 1M --objectives accuracy,macs,sram --pick knee

      nasaug search --resume

      nasaug search --resume --run runs/search-1 --pick min-macs

      nasaug search --resume --trials 200

    :param mac_budget: Multiply-accumulates of one image, like 25M or 1.5G.
    :param param_budget: Parameters, like 500k.
    :param sram_budget: Peak activation memory in int8, like 320KB.
    :param flash_budget: Weights in int8, like 1MB.
    :param latency_budget: Time of one image on a device, like 3ms or 800us, as --device-table predicts it.
    :param device_table: The device's latency table, written by nasaug latency-table.
    :param trust_table: Use the table although it predicts badly, or was made for another space.
    :param space: A search space's name or the path of a TOML file; default: tiny-images up to 64 px, else mobilenetv2.
    :param strategy: supernet (default), or halving: train networks on their own, without a supernet.
    :param trials: Candidates to evaluate; default 100. With --resume, a larger number extends a finished search.
    :param sampler: tpe (default), nsga2 or random.
    :param headroom: The largest nets trained cost at most this many MAC budgets (0: no limit); default 6.
    :param objectives: accuracy (default), or with costs to keep low, like accuracy,macs: their Pareto front is sought.
    :param pick: Net of the front that is found: best (default), knee, min-macs, min-params, min-sram, min-flash or
      min-latency.
    :param timeout: Stop the search stage after this long, like 10m; with --resume, continue for this long.
    :param storage: Any Optuna storage URL; default: a file in the run's folder.
    """
    from ..arch.cost import Budget

    budget = Budget.parse(
        macs=mac_budget, params=param_budget, peak=sram_budget, flash=flash_budget, latency=latency_budget
    )
    from ..nas.search import SearchJob  # after parsing the budget, because this imports torch, which takes seconds

    carry_out(
        SearchJob(
            budget, space, trials, sampler, headroom, timeout, storage, common, strategy, objectives, pick,
            device_table, trust_table,
        ),
        common,
    )  # fmt: skip

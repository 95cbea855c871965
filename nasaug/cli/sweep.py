"""`sweep`."""

from __future__ import annotations

from pathlib import Path

from .names import ArchName, MethodNames, Pruner
from .options import USUAL, Common, Whole, carry_out


def sweep(
    *,
    arch: ArchName = None,
    sizes: str | None = None,
    policies: str | None = None,
    methods: MethodNames = None,
    seeds: Whole = None,
    jobs: Whole = None,
    cells: Path | None = None,
    resolution: Whole = None,
    pruner: Pruner = None,
    storage: str | None = None,
    common: Common = USUAL,
):
    """Find the best augmentation magnitude by network size: a grid of trainings, a heat map, a fitted curve.

    Examples:

      nasaug sweep --data photos/

      nasaug sweep --sizes 0.1M,1M --policies 0,4,9,14,0:9,9:0 --seeds 3

      nasaug sweep --methods baseline,netaug --set data.train_images=4000

      nasaug sweep --policies 0,2,4,6,9,12,15 --pruner median

      nasaug sweep --resume

    :param arch: The network whose widths are scaled to the sizes; default mobilenetv2.
    :param sizes: MACs, or arch files; default 0.1M,0.25M,0.6M,1.5M,3M.
    :param policies: Magnitudes (0 to 30), from:to over training, or a curve's file; default 0,4,9,14.
    :param methods: Arms as in compare; default baseline.
    :param seeds: Number of seeds per cell; default 3.
    :param jobs: Number of concurrent trainings; default: one per core, each with one thread.
    :param cells: Folder for the trainings; finished ones are reused. Default: in the run.
    :param resolution: Image size in px; default: the data's.
    :param pruner: Stop unpromising policies early: median, wilcoxon or halving; they might recover. Default none.
    :param storage: Any Optuna storage URL: further processes, nasaug cell-worker, then train cells too.
    """
    from ..comparison.sweep import SweepJob

    job = SweepJob(arch, sizes, policies, methods, seeds, jobs, cells, resolution, pruner, common, storage)
    carry_out(job, common)

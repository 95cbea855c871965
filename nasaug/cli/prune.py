"""`prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .names import Criterion, MethodName
from .options import USUAL, Common, Flag, Whole, carry_out


def prune(
    *,
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    target_macs: str | None = None,
    steps: Whole = None,
    magnitude: str | None = None,
    criterion: Criterion = None,
    unstructured: Flag = False,
    target_sparsity: float | None = None,
    lr_scale: float | None = None,
    method: MethodName = None,
    round: Whole = None,
    common: Common = USUAL,
):
    """Prune a trained network in steps, each followed by fine-tuning under an augmentation of its own strength.

    Examples:

      nasaug prune --from runs/train-1 --target-macs 1M

      nasaug prune --from runs/train-1 --target-macs 1M --steps 5 --magnitude 9:2 --round 8

      nasaug prune --from runs/train-1 --unstructured --target-sparsity 0.9

      nasaug prune --resume

    The recipe is the run's, with its length divided among the steps. The method is plain training unless --method is
    given, but the run's teacher, regularisers and mixing are kept.

    :param source: A finished run of train or netaug-train.
    :param target_macs: MACs of the result, like 1M; those of the steps form a geometric progression.
    :param steps: Number of pruning and fine-tuning steps; default 5.
    :param magnitude: RandAugment's in each step: 9 (constant), 9:2 (falling), 2:9 (rising), at 0 none; default:
      the recipe's view.
    :param criterion: What ranks channels: l1 (default: the weights that read them) or bn (their norms' scales); what
      ranks weights: lamp (default: magnitudes within their layer) or l1 (over the whole net, which can empty layers).
    :param unstructured: Zero single weights, those of least magnitude, instead of removing channels.
    :param target_sparsity: Share of zeros among the weights of convolutions (not depthwise) and linear layers.
    :param lr_scale: Factor on the recipe's learning rate; default 0.5.
    :param method: Fine-tune by any arm (nasaug compare); default: baseline.
    :param round: Keep channel counts at multiples of this, like 8, for fast hardware kernels; default 1.
    """
    from ..pruning.prune import PruneJob

    carry_out(
        PruneJob(
            source, target_macs, target_sparsity, unstructured, steps, magnitude, criterion, lr_scale, method, round,
            common,
        ),
        common,
    )

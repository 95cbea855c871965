"""`compare`."""

from __future__ import annotations

from pathlib import Path

from .names import ArchName, Match, MethodNames
from .options import USUAL, Common, Flag, Whole, carry_out


def compare(
    *,
    arch: ArchName = None,
    methods: MethodNames = None,
    seeds: Whole = None,
    match: Match = None,
    lengths: str | None = None,
    data_fraction: str | None = None,
    shots: str | None = None,
    jobs: Whole = None,
    cells: Path | None = None,
    from_scratch: Flag = False,
    resolution: Whole = None,
    storage: str | None = None,
    common: Common = USUAL,
):
    """Train one network in several ways with the same seeds, and report which of them helps: table, figures, a page.

    Examples:

      nasaug compare --arch found.json

      nasaug compare --arch mcunet --methods baseline,netaug:aug_compute=0.17

      nasaug compare --arch found.json --methods netaug+mixup,longer --seeds 3

      nasaug compare --arch found.json --match compute --set train_macs=1e12

      nasaug compare --arch found.json --methods baseline,netaug --lengths 10,30,90

      nasaug compare --arch found.json --data-fraction 0.05,0.1,0.25,1

      nasaug compare --resume

    Arms: baseline, netaug, gradaug, distill, dropout, spatial-dropout, dropblock, stochastic-depth, label-smoothing,
    mixup, cutmix, random-erasing, autoaugment, randaugment, trivialaugment, augmix, ema, longer, scratch, aug-constant,
    aug-rising, aug-falling, strong-wide, shrink, difficulty-keep, difficulty-weight, difficulty-drive, qat (int8,
    after training: netaug+qat), or a TOML file of recipe keys; with values (netaug:sort=false), joined by +.

    :param arch: An arch file (found.json) or a named architecture (mcunet; in a space of your own: mine.toml:NAME).
    :param methods: The arms, separated by commas; default: baseline,netaug,gradaug,aug-constant,aug-rising,aug-falling.
    :param seeds: Number of seeds per arm; default 5, the minimum for a verdict.
    :param match: epochs (default), compute (forward MACs, train_macs each) or seconds (max_seconds each).
    :param lengths: Train each arm at each of these lengths and tell from which on it pays: epochs (10,30,90), or with
        --match compute MACs (1T,2T), with seconds times (60s,5m). Default: one length, the recipe's.
    :param data_fraction: Train each arm on each of these shares of the training images, and draw learning curves; above
        0, to 1.
    :param shots: The same, with so many images of each class: 1,5,20.
    :param jobs: Number of concurrent trainings; default: one per core, each with one thread.
    :param cells: Folder for the trainings; finished ones with the same settings are reused. Default: in the run.
    :param from_scratch: Start from fresh weights instead of those named in the arch file.
    :param resolution: Image size in px; default: the arch file's, or the data's for a named architecture.
    :param storage: Any Optuna storage URL: further processes, nasaug cell-worker, then train cells too.
    """
    from ..comparison.compare import CompareJob

    carry_out(
        CompareJob(
            arch, methods, seeds, match, lengths, data_fraction, shots, jobs, cells, resolution, from_scratch, common,
            storage,
        ),  # fmt: skip
        common,
    )

"""`transfer`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .names import MethodName
from .options import USUAL, Common, Whole, carry_out


def transfer(
    *,
    source: Annotated[str | None, Parameter(name="--from")] = None,
    method: MethodName = None,
    resolution: Whole = None,
    data_fraction: float | None = None,
    shots: Whole = None,
    common: Common = USUAL,
):
    """Train a trained network further on other data: its trunk is the start, its head is fresh.

    Examples:

      nasaug transfer --from runs/netaug-train-1 --data pets

      nasaug transfer --from runs/train-1 --data photos/ --method netaug

      nasaug transfer --from torchvision:resnet18 --data photos/ --set trunk=frozen

      nasaug transfer --resume

    The head is kept if it is for the same classes. The recipe is the published one of food101, flowers102, cars, cub200
    or pets, else `transfer`. `trunk=norms` trains the norms and the head alone, `trunk=frozen` the head alone.

    :param source: A finished run, or torchvision's weights: torchvision:NAME.
    :param method: baseline, netaug, gradaug or any arm (nasaug compare), joined by +; default: the recipe's, baseline.
    :param resolution: Image size in px; default: the run's.
    :param data_fraction: Train on this share of the training images, drawn by class; above 0, to 1.
    :param shots: Train on so many images of each class.
    """
    from ..training.transfer import TransferJob

    carry_out(
        TransferJob(
            method=method, resolution=resolution, data_fraction=data_fraction, shots=shots, options=common,
            source=source,
        ),
        common,
    )

"""`train` and `netaug-train`."""

from __future__ import annotations

from .names import ArchName, MethodName
from .options import USUAL, Common, Flag, Whole, carry_out


def netaug_train(
    *,
    arch: ArchName = None,
    from_scratch: Flag = False,
    resolution: Whole = None,
    aug_compute: float | None = None,
    data_fraction: float | None = None,
    shots: Whole = None,
    common: Common = USUAL,
):
    """Train a found, named or pruned network with NetAug: inside wider nets that share its weights.

    Examples:

      nasaug netaug-train --arch found.json

      nasaug netaug-train --arch mobilenetv2-tiny --data cifar10 --set epochs=30

      nasaug netaug-train --arch found.json --aug-compute 0.17

      nasaug netaug-train --resume

    :param arch: An arch file (found.json) or a named architecture (mcunet; in a space of your own: mine.toml:NAME).
    :param from_scratch: Start from fresh weights instead of those named in the arch file.
    :param resolution: Image size in px; default: the arch file's, or the data's for a named architecture.
    :param aug_compute: Cap on the augmented passes: at most this many times the base's own MACs; 0 (default): no cap.
    :param data_fraction: Train on this share of the training images, drawn by class; above 0, to 1.
    :param shots: Train on so many images of each class.
    """
    _train("netaug-train", arch, "netaug", from_scratch, resolution, aug_compute, data_fraction, shots, common)


def train(
    *,
    arch: ArchName = None,
    method: MethodName = None,
    from_scratch: Flag = False,
    resolution: Whole = None,
    aug_compute: float | None = None,
    data_fraction: float | None = None,
    shots: Whole = None,
    common: Common = USUAL,
):
    """Train a network with any method: the general form of netaug-train.

    Examples:

      nasaug train --method baseline --arch found.json

      nasaug train --method netaug:aug_compute=0.17+mixup --arch mobilenetv2-tiny --data cifar10

      nasaug train --arch mcunet --data photos/ --recipe imagenet-mcunet

      nasaug train --arch mobilenetv2-tiny --data VOCdevkit/ --resolution 160

      nasaug train --method qat --arch runs/netaug-train-1/arch.json

      nasaug train --method netaug+qat --arch found.json

      nasaug train --arch resnet18 --data photos/ --set init=torchvision:resnet18

    qat fine-tunes a trained net in int8; netaug+qat does so after NetAug, in the same run.

    :param arch: An arch file (found.json) or a named architecture (mcunet; in a space of your own: mine.toml:NAME).
    :param method: baseline, netaug, gradaug, qat or any arm (nasaug compare), joined by +; default: the recipe's.
    :param from_scratch: Start from fresh weights instead of those named in the arch file.
    :param resolution: Image size in px; default: the arch file's, or the data's for a named architecture.
    :param aug_compute: Cap on NetAug's augmented passes: so many times the base's own MACs; 0 (default): no cap.
    :param data_fraction: Train on this share of the training images, drawn by class; above 0, to 1.
    :param shots: Train on so many images of each class.
    """
    _train("train", arch, method, from_scratch, resolution, aug_compute, data_fraction, shots, common)


def _train(*asked) -> None:
    from ..training.train import TrainJob

    carry_out(TrainJob(*asked), asked[-1])

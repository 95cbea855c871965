"""Quantisation-aware training: the last phase of a training, in int8."""

from __future__ import annotations

from ..core.checked import Auto, Count, Positive, checked
from .baseline import Baseline


@checked("qat")
class QAT(Baseline):
    """Plain training of a trained net whose forward pass imitates its int8 model (`nasaug.int8.imitation`; Jacob et
    al., CVPR 2018, and LSQ, Esser et al., ICLR 2020). Norms are folded, with the statistics that they have."""

    on: bool = False
    """Train in int8 after `method`, or, with method = "qat", the weights that the arch file names."""
    epochs: Count | Auto = "auto"
    """Length of that phase; auto: a tenth of what the recipe says."""
    lr: Positive | Auto = "auto"
    """Its learning rate; auto: a tenth of the recipe's."""

    @property
    def in_int8(self) -> bool:
        return True

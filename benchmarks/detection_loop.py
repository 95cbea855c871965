"""The training loop of detection_probe.py and detection_peer.py: SGD for so many seconds of CPU time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from nasaug.augment import View, make_view
from nasaug.augment.boxes import moved
from nasaug.data import Data

RAW = {"mean": [0.0] * 3, "std": [1.0] * 3}  # of pixels in [0, 1]


def trained(
    net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], data: Data, view: View, *, seconds: float, batch: int,
    lr: float, weight_decay: float, warmup: float, seed: int = 0,
) -> float:  # fmt: skip
    """Trains for so many seconds of the process's CPU time, with linear warm-up and cosine decay; returns the epochs.

    `loss` takes images, float32 [n, 3, h, w] with pixels in [0, 1], and their boxes [n, most, 6]."""
    decayed, rest = ([p for p in net.parameters() if (p.dim() > 1) is many] for many in (True, False))
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, fused=True)
    generator, still = torch.Generator().manual_seed(seed), replace(view, flip=False, crop=0.0)
    begun, images, epoch = time.process_time(), 0, 0
    net.train()
    while True:
        for raw, labels, _ in data.train.batches(batch, seed=seed, epoch=epoch):
            done = (time.process_time() - begun) / seconds
            if done >= 1:
                return images / len(data.train)
            rate = done / warmup if done < warmup else 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
            for group in optimiser.param_groups:
                group["lr"] = lr * max(rate, 1e-3)
            seen, boxes = moved(view, raw, labels, generator, data.flip)
            optimiser.zero_grad()
            loss(make_view(still, seen, generator, flip=False, **RAW), boxes).backward()
            optimiser.step()
            images += len(raw)
        epoch += 1

"""Trains in as many processes as torchrun, or the environment, says there are; prints what this one saw as JSON.

Run as a script: tests/training/test_ranks.py starts several at once."""

import json
import sys
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import distributed as dist

from nasaug.core.signals import Pending, Stopped
from nasaug.methods import NetAug
from nasaug.training import scoring
from nasaug.training.device import open_runtime
from nasaug.training.length import Training
from nasaug.training.loop import fit
from nasaug.training.ranks import joined
from nasaug.training.scoring import Scorer
from nasaug.training.timing import time_steps
from support.toys import toy_data
from support.trainers import trainer_of

BATCH = 15  # an odd number, so that shares differ
scoring.SMALL_BATCH = 8  # so that each process has several batches of a split, and one of them more


def digest(tensors):
    return sha256(b"".join(tensors[name].contiguous().numpy().tobytes() for name in sorted(tensors))).hexdigest()


def trainer_in(runtime):
    data = toy_data()
    training = Training(epochs=2, batch=BATCH, lr=0.05, ema=0.9)
    trainer = trainer_of(NetAug(ladder="factors"), data=data, training=training)
    trainer.runtime, trainer.scorer = runtime, Scorer(data, trainer.task, runtime, 50)
    return trainer


def main():
    torch.set_num_threads(1)
    joined()
    runtime = open_runtime("cpu")
    ranks = runtime.ranks
    trainer = trainer_in(runtime)
    fresh = trainer.scorer.calibrated(trainer.net, trainer.plan)
    seen = {"rank": ranks.rank, "count": ranks.count, "judged": trainer.scorer.measured(fresh, trainer.data.val)}
    seen["statistics"] = {name: float(b.double().sum()) for name, b in fresh.named_buffers() if "running" in name}
    seen["images"] = [float(x) for x in torch.cat(trainer.scorer.judged(fresh, trainer.data.val)).tolist()]
    seen["seconds"] = time_steps(trainer)
    fit(trainer, Pending(), save=lambda: None, on_epoch=lambda row: None, tick=lambda t: None)
    seen |= {"weights": digest(trainer.weights.tensors()), "macs": trainer.macs, "steps": trainer.step}
    seen["history"] = [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.history]

    pending, asked = Pending(), ranks.rank == ranks.count - 1  # a signal that reaches one process alone

    def ask(t):
        if asked and t.step == 3:
            pending.signum = 15

    stopped = trainer_in(runtime)
    try:
        fit(stopped, pending, save=lambda: None, on_epoch=lambda row: None, tick=ask)
    except Stopped as stop:
        seen["stopped"] = [stopped.step, stop.signum]
    from torch.distributed.nn import functional  # late, as an optimizer imports it

    seen["held"] = any(isinstance(each, dist.ProcessGroup) for each in functional.broadcast.__defaults__ or ())
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()

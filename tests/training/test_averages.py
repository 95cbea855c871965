"""The averaged weights are evaluated, sorted and saved together with the weights."""

import torch

from nasaug.methods import Baseline, NetAug
from nasaug.training.length import Training
from support.nets import same
from support.trainers import batch_of, trainer_of, weights


def test_averaged_weights_are_what_is_judged():
    training = Training(epochs=2, batch=16, lr=0.05, ema=0.5)
    trainer = trainer_of(Baseline(), training=training)
    expected = {name: p.detach().clone() for name, p in trainer.net.named_parameters()}
    for number in range(4):
        decay = min(0.5, (1 + trainer.step) / (10 + trainer.step))
        trainer.train_step(*batch_of(trainer, number))
        for name, p in trainer.net.named_parameters():
            expected[name] = torch.lerp(expected[name], p.detach(), 1 - decay)
    averaged = dict(trainer.average.named_parameters())
    assert all(torch.allclose(averaged[name], e, atol=1e-6) for name, e in expected.items())
    trainer.end_epoch()
    assert same({n: trainer.best[n] for n in expected}, {n: p.detach() for n, p in averaged.items()})


def test_averaged_weights_are_sorted_with_their_weights_and_saved(tmp_path):
    training = Training(epochs=2, batch=16, lr=0.05, ema=0.9)
    trainer, other = (trainer_of(NetAug(ladder="factors"), training=training) for _ in range(2))
    trainer.train_step(*batch_of(trainer))
    before = weights(trainer.average)
    trainer.method.on_epoch(trainer)
    after = weights(trainer.average)
    assert not same(before, after)
    assert all(sorted(before[n].flatten().tolist()) == sorted(after[n].flatten().tolist()) for n in before)
    trainer.save(tmp_path / "c.safetensors")
    other.load(tmp_path / "c.safetensors")
    assert same(weights(other.average), after)

"""Noise in training passes: dropout, DropBlock and stochastic depth."""

import pytest
import torch

from nasaug.arch import archfile
from nasaug.core.errors import BadInput
from nasaug.methods import NetAug
from nasaug.nets.net import Net, _place
from nasaug.nets.regularisers import Noise
from support.nets import same
from support.plans import inverted, plan_of
from support.trainers import batch_of, gradients, trainer_of

RESIDUAL = plan_of(inverted("a", 8, 16), inverted("b", 8, 16, shortcut="identity"))


@pytest.mark.parametrize(
    "noise", [Noise(dropout=0.5), Noise(spatial_dropout=0.5), Noise(dropblock=0.5), Noise(stochastic_depth=0.9)]
)
def test_noise_changes_training_passes_alone(noise):
    net, x = Net(RESIDUAL, 0).train(), torch.randn(8, 3, RESIDUAL.resolution, RESIDUAL.resolution)
    torch.manual_seed(0)
    assert not torch.equal(net(x, None, noise), net(x))
    assert torch.equal(net(x, None, Noise()), net(x))
    net.calibrate([x]).eval()
    assert torch.equal(net(x, None, noise), net(x))


def test_noise_is_drawn_from_the_seed_and_the_step_alone():
    def run(seed):
        torch.manual_seed(seed)
        trainer = trainer_of(NetAug(ladder="factors"), noise=Noise(dropout=0.3, stochastic_depth=0.3))
        before = torch.random.get_rng_state()
        trainer.train_step(*batch_of(trainer))
        assert torch.equal(torch.random.get_rng_state(), before)
        return gradients(trainer.net)

    assert same(run(0), run(1))


@pytest.mark.parametrize("compiled", [True, False])
def test_a_dropped_block_is_its_shortcut(compiled, monkeypatch):
    """In the compiled block too, where the fused addition of the shortcut has to be undone."""
    if not compiled:
        monkeypatch.setattr("nasaug.nets.net.fused_blocks", lambda *given: None)
    net, block = Net(RESIDUAL, 0).train(), RESIDUAL.blocks[2]
    x = torch.randn(64, 8, *block.in_size).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    from nasaug.nets.layers import BatchStats

    plain = net._block(block, x, BatchStats())
    out = net._block(block, x, BatchStats(), Noise(stochastic_depth=0.5), 1.0)
    dropped = torch.tensor([torch.allclose(o, i, atol=1e-5) for o, i in zip(out, x, strict=True)])
    assert 10 < dropped.sum() < 54
    kept = x + (plain - x) / 0.5
    assert torch.allclose(out[~dropped], kept[~dropped], atol=1e-4)


def test_the_last_block_with_a_shortcut_has_the_whole_probability_and_dropblock_fits_the_map():
    net = Net(archfile.read("mobilenetv2-tiny", resolution=32, classes=10).plan, 0)
    branches = [b for b in net.plan.blocks if b.shortcut == "identity"]
    assert [_place(b, branches) for b in branches] == [(i + 1) / len(branches) for i in range(len(branches))]
    assert _place(net.plan.blocks[0], branches) == 0
    net.train()(torch.randn(4, 3, 32, 32), None, Noise(dropblock=0.3))  # maps of 2 and 1 px
    with pytest.raises(BadInput, match="odd"):
        Noise(dropblock=0.1, dropblock_size=2)


@pytest.mark.parametrize("field", ["dropout", "spatial_dropout", "dropblock", "stochastic_depth"])
def test_noise_out_of_range_is_refused(field):
    for wrong in (-0.1, 1.0):
        with pytest.raises(BadInput, match=f"noise.{field}"):
            Noise(**{field: wrong})

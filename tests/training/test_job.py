"""The net that a training starts from."""

from dataclasses import replace

import pytest

from nasaug.arch.blocks import BLOCKS
from nasaug.arch.plan import plan
from nasaug.arch.spacefile import load
from nasaug.methods import Base, Baseline, NetAug, Sandwich
from nasaug.nets.net import Net
from nasaug.nets.store import save_net
from nasaug.training.job import make_job, start_net
from nasaug.training.recipe import Recipe
from support.toys import CPU


@pytest.mark.parametrize("method", [Baseline(), NetAug(), Sandwich(1, 1, 1e5, 1e6)])
@pytest.mark.parametrize("asked, inherited", [(True, False), (False, False), (True, True)])
def test_fresh_residual_blocks_begin_as_identities_where_asked(tmp_path, method, asked, inherited):
    """Not in a network with inherited weights: these stay as trained."""
    space = load("mobilenetv2-small", BLOCKS)
    top, supernet = plan(space, space.largest, 4), tmp_path / "supernet.safetensors"
    base = Base(top, space, space.largest)
    if inherited:
        save_net(supernet, Net(top))
    job = make_job(Recipe(zero_init_residual=asked), method, base, images=64, runtime=CPU)
    net = start_net(replace(job, inherit=supernet if inherited else None))
    blocks = [block for block in net.plan.blocks if block.shortcut == "identity"]
    last = [net.get_parameter(f"{block.layers[-1].name}.norm.weight") for block in blocks]
    assert len(last) > 5 and all(bool(scale.any()) != (asked and not inherited) for scale in last)

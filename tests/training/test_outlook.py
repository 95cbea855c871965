"""What NetAug prints about a training before it starts, and the cost of the alternative ladder."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost
from nasaug.arch.plan import plan
from nasaug.arch.spacefile import load
from nasaug.core.errors import arg
from nasaug.core.units import format_duration
from nasaug.methods import Base, Baseline, NetAug
from nasaug.methods.measured import forecast
from nasaug.training.device import open_runtime
from nasaug.training.job import make_job, outlook_of
from nasaug.training.recipe import Recipe

SPACE = load(str(Path(__file__).parents[1] / "support" / "tiny_space.toml"), BLOCKS)
CPU, PER_MAC = open_runtime("cpu"), 1e-7


def job_of(method, **choices):
    """A job for a net with little room above it in its space, most of which `choices` remove."""
    arch = SPACE.canonical(SPACE.arch(SPACE.choices(SPACE.smallest) | choices))
    recipe = Recipe(method="netaug", netaug=method if isinstance(method, NetAug) else NetAug(), batch=128, epochs=4)
    return make_job(recipe, method, Base(plan(SPACE, arch, 10), SPACE, arch), images=1280, runtime=CPU)


WIDEST = {"stem.width": 16, "s1.width": 16}


@pytest.mark.parametrize("cap", [0.0, 0.02, 0.2])
def test_the_alternative_ladder_is_priced_as_it_would_run(cap):
    """With its own cap. It used to be priced with the `every` and `share` that this ladder's cap had produced."""
    method = NetAug(aug_compute=cap)
    job = job_of(method, **WIDEST)
    told = job.method.describe(outlook_of(job, PER_MAC, 1280, CPU))
    begun = make_job(job.recipe, replace(method, ladder="factors"), job.base, images=1280, runtime=CPU)
    assert told.facts["ladder"] == "supernet" and told.facts["augmented_over_base"] < 1.5
    assert (begun.method.every, begun.method.share) != (job.method.every, job.method.share) or not cap
    base, part = cost(job.base.plan).macs, begun.method.share / begun.method.every
    over = (begun.length.macs_per_image / base - 1) / part
    assert told.lines[1] == (
        f"  that is little augmentation: started with {arg.set} netaug.ladder=factors it would be {over:.2f} x "
        f"and would take about {format_duration(PER_MAC * begun.length.macs)}"
    )


def test_a_teacher_is_no_part_of_what_the_augmented_nets_cost():
    job = job_of(NetAug(ladder="factors"))
    told = job.method.describe(outlook_of(job, PER_MAC, 1280, CPU))
    length = replace(job.length, macs_per_image=job.length.macs_per_image + 1e6, teacher_macs=1e6)
    taught = job.method.describe(outlook_of(replace(job, length=length), PER_MAC, 1280, CPU))
    assert taught.facts["augmented_macs"] == pytest.approx(told.facts["augmented_macs"])
    assert told.facts.keys() == {"ladder", "augmented_macs", "augmented_over_base"} and len(told.lines) == 2
    base = cost(job.base.plan).macs
    assert re.fullmatch(r"  augmented nets \(ladder factors\): \d\.\d\d x the base's MACs on average", told.lines[0])
    assert told.lines[1] == f"  {forecast(base, job.length.epochs, 1280, job.length.macs_per_image / base)}"


def test_a_net_that_shrinks_tells_of_its_beginning_and_plain_training_of_nothing():
    job = job_of(NetAug(ladder="factors", shrink_until=0.25, augmented=0))
    told = job.method.describe(outlook_of(job, PER_MAC, 1280, CPU))
    widest = cost(plan(job.space, job.space.largest, 10)).macs
    assert told.facts == {"ladder": "factors", "shrunk_from_macs": widest}
    assert "for 25% of training one net of" in told.lines[0]
    plain = job_of(Baseline())
    assert plain.method.describe(outlook_of(plain, PER_MAC, 1280, CPU)) == ((), {})

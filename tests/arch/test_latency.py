"""Latency predicted from a table, and what a budget of it does to a space."""

import json
from dataclasses import replace
from random import Random

import pytest

from nasaug.arch import latency
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import Budget, cost, cost_of, most_macs, reach, sample_near
from nasaug.arch.plan import plan
from nasaug.arch.spacefile import from_dict, load
from nasaug.core.errors import BadInput
from support.searches import SPACE
from support.spaces import SPACES, made, stage
from support.tables import content_of, table_of

TIMED = replace(SPACE, device=table_of(SPACE))
PLAN = plan(SPACE, SPACE.smallest, 10).to_dict()


def test_parts_are_the_layers_and_additions_that_a_device_runs():
    stages = [
        stage("stem", "conv", width=4, kernel=3, stride=2, act="relu"),
        stage("s1", "inverted", width=4, depth=1, expand=2, kernel=5, act="relu6", first="identity"),
        stage("pool", "pool"),
    ]
    space = made({"resolution": 8, "stage": stages})
    p = plan(space, space.largest, 3)
    assert [str(part) for block in p.blocks for part in latency.parts(block)] == [
        "conv 3x3/2 relu 3->4 at 4x4", "conv 1x1/1 relu6 4->8 at 4x4", "depthwise 5x5/1 relu6 8->8 at 4x4",
        "conv 1x1/1 8->4 at 4x4", "add 4->4 at 4x4", "pool 4->4 at 4x4", "linear 4->3 at 1x1",
    ]  # fmt: skip
    # by hand, channels as multiples of 8: 7 parts, reads, writes and products of the convolutions
    reads = 8 * 64 + 8 * 16 * 5 + 8
    writes = 8 * 16 * 5 + 8 + 8
    products = 64 * 16 * 3
    made_up = table_of(space).predict(p)
    assert made_up == pytest.approx(0.01 + 7e-3 + 2e-6 * (reads + writes) + 1e-6 * products)


def test_a_larger_kernel_adds_to_a_smaller_one():
    table, small = table_of(SPACE), latency.Part("conv", 3, 2, "relu", 3, 8, 4, 4)
    assert table._of_part(small._replace(kernel=5)) == pytest.approx(2 * table._of_part(small))


@pytest.mark.parametrize("name", SPACES)
def test_every_network_of_a_space_is_predicted_and_a_larger_one_takes_longer(name):
    space = SPACES[name]
    table, rng = table_of(space), Random(0)
    for _ in range(30):
        small = space.sample(rng)
        large = space.sample(rng, low=small)
        times = [table.predict(plan(space, arch, 10)) for arch in (small, large)]
        if not any("stride" in axis.kinds for axis in space.axes):
            assert times[0] <= times[1] * (1 + 1e-9)


def test_a_cost_has_a_latency_where_the_space_has_a_device():
    rng = Random(1)
    for _ in range(20):
        arch = SPACE.sample(rng)
        plain, timed = cost_of(SPACE, arch, 10), cost_of(TIMED, arch, 10)
        assert plain.latency is None and "latency" not in plain.known and timed[:4] == plain[:4]
        assert timed.latency == TIMED.device.predict(plan(SPACE, arch, 10)) == timed.known["latency"]
    trimmed = TIMED.trimmed({"resolution": (8,)})
    assert cost_of(trimmed, trimmed.smallest, 10).latency and "device" not in TIMED.to_dict()
    assert cost(plan(SPACE, SPACE.smallest, 10)).latency is None


def test_a_latency_budget_limits_what_is_drawn():
    most = cost_of(TIMED, TIMED.largest, 10)
    budget = Budget(latency=most.latency / 4)
    allowed = most_macs(TIMED, budget, 10)
    assert cost_of(TIMED, TIMED.smallest, 10).macs < allowed < most.macs
    drawn = [sample_near(TIMED, Random(i), allowed / 2, allowed, 10, budget) for i in range(20)]
    times = [cost_of(TIMED, arch, 10).latency for arch in drawn]
    assert max(times) <= budget.latency and sorted(times)[10] > 0.6 * budget.latency


def test_an_impossible_latency_budget_is_refused_with_the_fastest_which_is_possible():
    said = r"latency_budget = .* us is impossible.*has .* us latency; ask for at least"
    with pytest.raises(BadInput, match=said) as e:
        reach(TIMED, Budget(latency=0.001), 10)
    asked = Budget.parse(latency=e.value.remedy.split()[4].rstrip(","))
    assert reach(TIMED, asked, 10, samples=10).smallest.latency <= asked.latency


def test_a_table_survives_its_file(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(content_of(SPACE)))
    p = plan(SPACE, SPACE.largest, 10)
    assert latency.read(path).predict(p) == TIMED.device.predict(p)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference": {"milliseconds": 1}}, "KeyError: 'plan'"),
        ({"reference": {"milliseconds": 0, "plan": PLAN}}, "ValueError: the time of its reference"),
        ({"model": {}}, "KeyError: 'constant'"), ({"threads": "two"}, "ValueError"), ({"space": 3}, "TypeError"),
        ({"model": {"constant": -1, "multiple": 8, "rows": []}}, "ValueError: a number in its model"),
        ({"model": {"constant": 1, "multiple": 10**400, "rows": []}}, "ValueError: a number in its model"),
        ({"checked": {"of": 1}}, "TypeError"), ({"device": 3}, "ValueError: a name is no text"),
        ({"model": {"constant": float("nan"), "multiple": 8, "rows": []}}, "ValueError: a number in its model"),
    ],
)  # fmt: skip
def test_an_incomplete_table_is_refused(changes, said):
    with pytest.raises(BadInput, match=f"the table is no complete latency table .{said}.*make it again"):
        latency.Table(content_of(SPACE) | changes)


def test_missing_layers_are_named():
    content = content_of(SPACE)
    content["model"]["rows"] = [row for row in content["model"]["rows"] if row["layer"] != "depthwise"]
    table = latency.Table(content, "t.json")
    with pytest.raises(BadInput, match=r"t.json has no layers like depthwise 3x3/1.* at "):
        table.predict(plan(SPACE, SPACE.largest, 10))
    with pytest.raises(BadInput, match=r"t.json has no layers like depthwise"):
        table.check_space(SPACE, 10)


def test_a_table_of_another_space_or_version_is_refused():
    other = load("tiny-images", BLOCKS)
    with pytest.raises(BadInput, match="is of space seven axes, not of the one searched; make one with .*tiny-images"):
        TIMED.device.check_space(other, 10)
    changed = from_dict({**other.to_dict(), "divisor": 8}, "mine.toml", BLOCKS)
    with pytest.raises(BadInput, match="is of another version of space tiny-images"):
        table_of(changed).check_space(other, 10)
    cropped = other.trimmed({"resolution": (24,)})
    table_of(other).check_space(cropped, 10)  # whose file is the same


@pytest.mark.parametrize(
    ("figures", "doubt"),
    [
        ({}, ""), ({"mean_error": 0.12}, "12.0 %, of 10 % allowed"), ({"mean_error": 0.12, "noise": 0.09}, ""),
        ({"spearman": 0.9}, "correlation is 0.90"), ({"number": 29}, "29 networks, of 30"),
        ({"mean_error": float("nan")}, "mean error"),
    ],
)  # fmt: skip
def test_a_table_that_predicts_badly_says_so(figures, doubt):
    checked = content_of(SPACE)["checked"] | figures
    found = table_of(SPACE, checked=checked).checked.doubt
    assert doubt in found and bool(doubt) == bool(found)

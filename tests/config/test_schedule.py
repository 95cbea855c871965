import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasaug.config.schedule import Constant, Cosine, Linear, Schedule, Steps
from nasaug.core.errors import BadInput
from nasaug.methods import GradAug, NetAug

numbers = st.floats(-1e6, 1e6)
steps = st.dictionaries(st.floats(0.01, 0.99), numbers, max_size=4).map(
    lambda later: Steps(sorted(later), [1.0, *later.values()])
)
lines = st.builds(Linear, numbers, numbers) | st.builds(Cosine, numbers, numbers)


@given(lines | steps | st.builds(Constant, numbers))
def test_parse_gives_back_what_is_written(schedule):
    assert Schedule.parse(schedule.to_plain()) == schedule


@given(numbers, numbers)
def test_lines_and_cosines_go_from_start_to_end_through_the_middle(start, end):
    for kind in (Linear, Cosine):
        schedule = kind(start, end)
        assert schedule(0) == pytest.approx(start, abs=1e-6)
        assert schedule(1) == pytest.approx(end, abs=1e-6)
        assert schedule(0.5) == pytest.approx((start + end) / 2, abs=1e-6)


def test_a_cosine_is_slow_at_first():
    assert Cosine(9, 0)(0.1) > Linear(9, 0)(0.1) > Linear(9, 0)(0.2)


def test_a_number_is_a_constant():
    assert Schedule.parse(3) == Constant(3.0)
    assert Constant(3)(0) == Constant(3)(0.7) == 3.0


def test_steps_change_where_they_say():
    schedule = Schedule.parse({"kind": "steps", "at": [0.5, 0.75], "values": [1, 0.1, 0.01]})
    assert [schedule(p) for p in (0, 0.49, 0.5, 0.74, 0.75, 1)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("fast", "a number, a table"),
        ("9:0", "the path of a curve, ending in .json"),
        ({"kind": ["linear"], "start": 9, "end": 0}, "kind of schedule"),
        ({"kind": "curve", "intercept": 0, "slope": 1, "low": 0, "high": 9, "data": "", "data_key": [1]}, "data_key"),
        (True, "a number, a table"),
        (float("nan"), "a number, a table"),
        ({"kind": "linaer", "start": 1, "end": 0}, "did you mean linear"),
        ({"start": 1, "end": 0}, "choices: constant, cosine, curve, linear, pruned, steps"),
        ({"kind": "linear", "start": 1}, "takes start, end; given: start"),
        ({"kind": "linear", "start": 1, "end": "0"}, "end must be a finite number"),
        ({"kind": "steps", "at": [0.7, 0.5], "values": [1, 2, 3]}, "ascend"),
        ({"kind": "steps", "at": [0.0], "values": [1, 2]}, "ascend"),
        ({"kind": "steps", "at": [0.5], "values": [1]}, "(2), not 1"),
        ({"kind": "steps", "at": 0.5, "values": [1]}, "array"),
    ],
)
def test_what_is_no_schedule_is_refused(value, told):
    with pytest.raises(BadInput, match=".*") as refused:
        Schedule.parse(value)
    assert told in str(refused.value)


# --- curves ---------------------------------------------------------------------------------------------------


def curve_file(tmp_path, **more):
    table = {"format": "nasaug-curve/1", "intercept": -20.0, "slope": 5.0, "low": 2.0, "high": 12.0, "data": "photos",
             "data_key": "abc"}  # fmt: skip
    path = tmp_path / "curve.json"
    path.write_text(json.dumps(table | more))
    return str(path)


def test_a_curve_is_read_from_its_file_and_gives_a_value_by_size(tmp_path):
    curve = Schedule.parse(curve_file(tmp_path))
    assert [curve.of_net(macs)(0.3) for macs in (1e3, 1e5, 1e6, 1e9)] == [2.0, 5.0, 10.0, 12.0]
    assert curve(0.9) == 7.0 and Constant(3.0).of_net(1e6) == Constant(3.0)
    assert Schedule.parse(curve.to_plain()) == curve  # a recipe keeps the curve, not the path


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"format": "x"}, "nasaug-curve/1"), ({"low": 13.0}, "above its high"), ({"slope": "x"}, "slope")],
)
def test_a_broken_curve_is_refused(wrong, said, tmp_path):
    with pytest.raises(BadInput, match=said):
        Schedule.parse(curve_file(tmp_path, **wrong))
    with pytest.raises(BadInput, match="cannot read"):
        Schedule.parse("nowhere.json")


# --- what was pruned -------------------------------------------------------------------------------------------


def test_a_magnitude_follows_from_how_much_was_pruned():
    schedule = Schedule.parse({"kind": "pruned", "start": 9, "end": 2})
    assert [schedule.of_net(1e6, pruned)(0.7) for pruned in (0.0, 0.5, 1.0)] == [9.0, 5.5, 2.0]
    assert schedule(0.7) == 9.0 and Schedule.parse(schedule.to_plain()) == schedule
    assert Linear(9, 2).of_net(1e6, 0.5) == Linear(9, 2)
    for method in (NetAug, GradAug):
        with pytest.raises(BadInput, match="weight cannot depend on the network"):
            method(weight=schedule)

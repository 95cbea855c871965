"""Arms at several lengths against the reference at equal compute, and reports of them."""

import json
import math

import pytest

from nasaug.comparison import curves, report
from nasaug.comparison.curves import Point
from nasaug.core.errors import BadInput
from nasaug.reporting import page, wording
from nasaug.rundirs.result import Length
from support.reports import make_run

BASE = [Point({seed: (macs, score + seed) for seed in range(5)}) for macs, score in ((10, 50.0), (100, 60.0))]


def test_the_reference_is_interpolated_in_the_logarithm_of_compute_and_not_beyond():
    assert curves.interpolated((10, 50), (1000, 60), 100) == pytest.approx(55)
    assert curves.interpolated((10, 50), (1000, 60), 1001) == 60 and curves.interpolated((10, 50), (1000, 60), 9) == 50
    low, high = curves.neighbours(BASE[::-1], 31)
    assert (low, high) == (BASE[0], BASE[1])
    assert curves.neighbours(BASE, 100.4) == curves.neighbours(BASE, 99.6) == (BASE[1], BASE[1])
    assert (curves.neighbours(BASE, 101), curves.neighbours(BASE, 9)) == (curves.MORE, curves.LESS)


def arm(*figures, seeds=range(5)):
    """Points of an arm that is better than the reference at these computes by these differences, about the same by
    seed."""
    return [
        Point({s: (macs, 50 + 10 * math.log10(macs / 10) + s + better + 0.01 * (s % 2)) for s in seeds})
        for macs, better in figures
    ]


def test_differences_are_paired_by_seed_and_corrected_for_all_lengths():
    found = curves.compare({"a": arm((20, -1), (50, 2)), "b": arm((50, 0.5), (200, 9))}, BASE)
    first, second = found["a"]
    assert first.found.difference == pytest.approx(-0.996) and second.found.difference == pytest.approx(2.004)
    assert first.score - first.reference == pytest.approx(-0.996) and first.seeds == (0, 1, 2, 3, 4)
    assert (first.verdict, second.verdict, found["b"][0].verdict) == ("worse", "better", "better")
    assert found["b"][1] == curves.Compared(200, curves.MORE)
    assert second.found.p < second.p_holm
    alone = curves.compare({"a": arm((50, 2))}, BASE)["a"][0].found
    assert alone.p == pytest.approx(second.found.p) and alone.high < second.found.high
    (mae,) = curves.compare({"a": arm((50, 2))}, BASE, higher_is_better=False)["a"]
    assert mae.verdict == "worse" and not curves.gains(mae, higher_is_better=False)


def test_only_seeds_that_the_reference_has_on_both_sides_count():
    fewer = [BASE[0], Point({seed: BASE[1].runs[seed] for seed in (1, 2)})]
    (between, at), = [curves.compare({"a": arm((50, 1), (10, 1))}, fewer)["a"]]
    assert between.seeds == (1, 2) and between.verdict == "not enough seeds" and at.seeds == (0, 1, 2, 3, 4)
    (none,) = curves.compare({"a": arm((50, 1), seeds=(7, 8))}, BASE)["a"]
    assert none.why == curves.NO_SEEDS and none.found is None


@pytest.mark.parametrize(
    "figures, first",
    [
        (((20, 1), (40, 1), (80, 1)), 0), (((20, -1), (40, 1), (80, 1)), 1), (((20, 1), (40, -1), (80, 1)), 2),
        (((20, 1), (40, 1), (80, -1)), None), (((20, -1), (40, 1), (200, 1)), 1), (((200, 1),), None),
        (((20, 0), (40, 0)), None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("seeds", [5, 2])
def test_from_what_length_on_an_arm_gains(figures, first, seeds):
    exact = [Point({s: (macs, 50 + 10 * math.log10(macs / 10) + s + better) for s in range(seeds)})
             for macs, better in figures]  # fmt: skip
    assert curves.gains_from(curves.compare({"a": exact}, BASE)["a"]) == first


def test_with_enough_seeds_a_gain_has_to_be_shown():
    noisy = [Point({s: (50, BASE[0].runs[s][1] + 7 + 9 * (s - 1.9)) for s in range(5)})]
    (found,) = curves.compare({"a": noisy}, BASE)["a"]
    assert found.found.difference > 0 and found.verdict == "no difference shown" and not curves.gains(found)


# --- reports of runs of several lengths -----------------------------------------------------------------------------


def make_curves(folder, seeds=2, **arms):
    """Runs of each arm: {epochs: top-1}, for some compute an epoch."""
    dear = {"baseline": 1, "netaug": 4}
    return [
        make_run(folder / f"{name}-{epochs}-{seed}", top1 + seed, seed=seed, arm=name, epochs=epochs,
                 train_macs=dear[name] * epochs * 1e9)
        for name, points in arms.items() for epochs, top1 in points.items() for seed in range(seeds)
    ]  # fmt: skip


PLAIN = {10: 50, 30: 60, 90: 66, 270: 67}


@pytest.mark.parametrize(
    "points, seeds, words",
    [
        ({10: 52, 30: 66.5, 90: 68}, 2,
         "from 30 epochs on netaug gives more than plain training of the same compute (30 epochs: +0.24"
         ", not enough seeds for a verdict); it cannot be said at 90 epochs, where it took 360G MACs, baseline at most "
         "270G"),
        ({10: 52, 30: 60}, 2,
         "netaug gives no more than plain training of the same compute, up to the longest tried, 30 epochs: "
         "-6.26, not enough seeds for a verdict"),
        ({10: 64, 30: 60}, 1,
         "at 10 epochs netaug gives more than plain training of the same compute, but not at the longest tried, "
         "30 epochs: -6.26, not enough seeds for a verdict"),
        ({10: 64, 30: 69}, 6,
         "from 10 epochs on netaug gives more than plain training of the same compute (10 epochs: +2.43 [+2.43, +2.43]"
         ", better)"),
        ({90: 70, 270: 71}, 2,
         "whether netaug gives more than plain training of the same compute cannot be said at 90 and 270 epochs, where "
         "it took 360G MACs or more, baseline at most 270G"),
    ],
)  # fmt: skip
def test_where_curves_cross_in_words(tmp_path, points, seeds, words):
    summary = report.summarise(report.read_runs(make_curves(tmp_path, seeds, baseline=PLAIN, netaug=points)))
    (crossing,) = summary["crossings"]
    assert crossing["words"] == words and wording.table(summary).splitlines()[-1] == words


def test_a_lower_error_in_words():
    length, paired = {"unit": "macs", "value": 1e12}, {"difference": -0.5, "low": None, "high": None}
    point = {"length": length, "why": None, "gains": True, "verdict": "better", "train_macs": 1e12, **paired}
    told = {"arm": "a", "reference": "b", "reference_macs": [1, 2], "points": [point], "from": length}
    mae = wording.Metric("mae", "kg", False)
    assert wording.crossing(told, mae) == (
        "from 1T MACs on a gives a lower mae than b of the same compute (1T MACs: -0.5, better)"
    )


def test_a_report_of_several_lengths_compares_at_equal_length_too(tmp_path):
    runs = report.read_runs(make_curves(tmp_path, baseline=PLAIN, netaug={30: 65, 90: 68, 500: 70})[::-1])
    summary = report.summarise(runs)
    shown = [(a["arm"], a["length"]["value"], a["versus"] and a["versus"]["verdict"]) for a in summary["arms"]]
    few = "not enough seeds"
    assert shown[:3] == [("netaug", 30, few), ("netaug", 90, few), ("netaug", 500, "no reference of this length")]
    assert shown[3:] == [("baseline", epochs, None) for epochs in (10, 30, 90, 270)]
    assert [a["versus"]["difference"] for a in summary["arms"][:2]] == pytest.approx([5, 2])
    head, *rows, last = wording.table(summary).splitlines()
    assert head.split()[:3] == ["arm", "epochs", "n"] and rows[0].split()[:3] == ["netaug", "30", "2"]
    shown = page.page(summary, runs)
    assert shown.count("<figure>") == 4 and "a point for each length" in shown and "At equal training compute" in shown
    assert "netaug at 30 and 90 epochs." in shown and "10, 30, 90, 270 and 500 epochs" in shown
    report.write(tmp_path, summary, runs)
    assert json.loads((tmp_path / "comparison.json").read_text()) == summary


def test_arms_of_one_length_each_are_compared_as_ever(tmp_path):
    """Whatever the lengths are: as `longer`, which trains four times as long."""
    runs = report.read_runs(make_curves(tmp_path, baseline={10: 50}, netaug={40: 52}))
    summary = report.summarise(runs)
    assert "crossings" not in summary and not any("length" in arm for arm in summary["arms"])
    assert [arm["arm"] for arm in summary["arms"]] == ["baseline", "netaug"]
    twice = make_curves(tmp_path / "a", 1, baseline={10: 50, 30: 60}) + make_curves(tmp_path / "b", 1, baseline={10: 1})
    with pytest.raises(BadInput, match="baseline-10-0 and .*baseline-10-0 are both baseline with seed 0"):
        report.summarise(report.read_runs(twice))


@pytest.mark.parametrize(
    "recipe, length",
    [
        ("epochs = 3\ntimes = 1.0", Length("epochs", 3)), ('stop = "macs"\ntrain_macs = 2e9', Length("macs", 2e9)),
        ('stop = "seconds"\nmax_seconds = 9.0\ntimes = 2.0', Length("seconds", 18.0)),
        ('stop = "macs"\ntrain_macs = "auto"', Length("macs", None)), (None, Length("epochs", 3)),
    ],
)  # fmt: skip
def test_the_length_of_a_run_is_what_its_recipe_says(tmp_path, recipe, length):
    """Not the compute that it took, which differs by seed."""
    folder = make_run(tmp_path / "a", train_macs=2.01e9, seconds=18.3)
    if recipe is not None:
        (folder / "recipe.toml").write_text(recipe)
    (run,) = report.read_runs([folder])
    assert run.length() == length


def test_lengths_as_text():
    assert [wording.length(*each) for each in (("epochs", 1), ("macs", 2e12), ("seconds", 300.0), ("macs", None))] == [
        "1 epoch", "2T MACs", "5 m", "length auto"
    ]  # fmt: skip
    several = [{"unit": "macs", "value": 1e9}, {"unit": "macs", "value": 2e9}]
    assert wording.lengths(several) == "1G MACs and 2G MACs" and wording.lengths(several[:1]) == "1G MACs"

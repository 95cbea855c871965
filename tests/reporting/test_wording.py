"""The table of a report, and how figures are written in it."""

import re

import pytest

from nasaug.comparison import report
from nasaug.reporting import page, wording
from support.reports import make_run, summary_of


@pytest.mark.parametrize("value, text", [(0.518, "+0.52"), (-0.104, "-0.10"), (-0.004, "+0.00"), (None, "-")])
def test_signed(value, text):
    assert wording.signed(value) == text


def test_lengths_of_which_one_is_not_known_are_a_list_too():
    epochs = [{"unit": "epochs", "value": value} for value in (None, 10, 30)]
    assert wording.lengths(epochs[1:]) == "10 and 30 epochs"
    assert wording.lengths(epochs) == "length auto, 10 epochs and 30 epochs"


def test_the_table(tmp_path):
    summary = summary_of(tmp_path, baseline=70, up=73)
    head, first, second = wording.table(summary).splitlines()
    assert len({len(head), len(first), len(second)}) == 1 and "reference" in first
    points = r"\+\d\.\d\d"
    figures = rf"up +5 +\d\d\.\d\d ± \d\.\d\d % +{points} \[{points}, {points}\] +(< )?0\.\d{{3}} +better"
    assert re.search(figures, second)
    assert "23.5M" in second and "3T" in second and "30 m" in second and "300 MB" in second
    summary["failed"] = [{"arm": "up", "seed": 7, "error": "out of memory"}]
    assert wording.table(summary).splitlines()[3:] == ["failed: up, seed 7: out of memory"]


@pytest.mark.parametrize(
    "seeds, shown", [(1, "71.00 %"), (2, "71.00, 71.50 %"), (3, "71.50 ± 1.24 %"), (5, "72.00 ± 0.98 %")]
)
def test_too_few_seeds_for_an_interval_are_shown_themselves(tmp_path, seeds, shown):
    runs = [make_run(tmp_path / str(seed), 71 + seed / 2, seed=seed) for seed in reversed(range(seeds))]
    summary = report.summarise(report.read_runs(runs))
    assert wording.score(summary["arms"][0]["test_top1"], wording.PERCENT) == shown
    assert ("wide: there are 3" in page.page(summary, report.read_runs(runs))) == (seeds == 3)


def test_what_no_run_recorded_has_no_column(tmp_path):
    runs = report.read_runs([make_run(tmp_path / "a", peak_memory=...)])
    summary = report.summarise(runs)
    assert wording.cells(summary)[0] == ["arm", "n", "test top-1", "verdict", "net MACs", "training MACs", "time a run"]
    assert "peak memory" not in wording.table(summary) and "peak memory" not in page.page(summary, runs)

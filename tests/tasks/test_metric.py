"""A metric decides what is better, and is recovered from stored results."""

import re
from pathlib import Path

import pytest

import nasaug
from nasaug.comparison import stats
from nasaug.core.metric import WORST, Metric, of_keys
from nasaug.nas.candidates import Candidate, pareto, worst_tied
from nasaug.tasks import Classify, Regress

TOP1, MAE = Classify.metric, Regress.metric


def test_the_better_score_is_the_higher_or_the_lower_one():
    assert TOP1.better(71.0, 70.0) and not TOP1.better(70.0, 70.0) and TOP1.better(0.0, None)
    assert MAE.better(0.5, 0.7) and not MAE.better(0.7, 0.7) and MAE.better(9.0, None)
    assert TOP1.best([3.0, 9.0, 1.0]) == 9.0 and MAE.best([3.0, 9.0, 1.0]) == 1.0
    assert (TOP1.worst, MAE.worst) == (0.0, WORST) and (TOP1.direction, MAE.direction) == ("maximize", "minimize")


def test_how_scores_are_written():
    assert (TOP1.label, TOP1.axis, TOP1.show(71.234), TOP1.key("val")) == ("top-1", "top-1 (%)", "71.23 %", "val_top1")
    assert (MAE.label, MAE.axis, MAE.show(0.123456), MAE.key("test")) == ("mae", "mae", "0.1235", "test_mae")
    assert Metric("mae", "kg", False).show(12.0) == "12 kg" and Metric("map50", "%").label == "map-50"
    assert (TOP1.signed(-0.001), TOP1.signed(1.5), MAE.signed(-0.001)) == ("+0.00", "+1.50", "-0.001")


@pytest.mark.parametrize("metric", [TOP1, MAE, Metric("top5", "%"), Metric("iou"), Metric("mae", "kg", False)])
def test_a_metric_is_found_in_the_result_that_it_wrote(metric):
    table = {metric.key("val"): 1.0, metric.key("test"): 2.0, "test_images": 3, **metric.told}
    assert of_keys(table) == metric
    assert of_keys({**table, "metric": {"name": "x"}}) is None and of_keys({"val_x": 1.0, "test_images": 3}) is None


def test_files_of_a_share_in_percent_say_no_metric():
    assert TOP1.told == {} and MAE.told == {"metric": {"name": "mae", "unit": "", "higher_is_better": False}}


def test_the_front_and_ties_of_a_metric_that_is_better_when_lower():
    from nasaug.arch.cost import Cost

    rows = [(1, 0.9), (2, 0.5), (2, 0.4), (3, 0.6), (4, 0.1)]
    shown = [Candidate(None, Cost(macs, 1, 1, 1), score) for macs, score in rows]
    assert [(c.cost.macs, c.score) for c in pareto(shown, MAE)] == [(1, 0.9), (2, 0.4), (4, 0.1)]
    task = Regress(10.0, 3.0)
    tied = worst_tied(task, 0.4, range(100))
    assert 0.4 < tied < 0.5 and tied == 0.4 + task.standard_error(0.4, 100)
    assert worst_tied(Classify(4), 80.0, range(100)) == pytest.approx(-76.0)


def test_a_verdict_is_by_the_metrics_direction():
    assert stats.verdict(5, -0.2, 0.01) == "worse" and stats.verdict(5, 0.2, 0.01) == "better"
    assert stats.verdict(5, -0.2, 0.01, higher_is_better=False) == "better"
    assert stats.verdict(5, 0.2, 0.01, higher_is_better=False) == "worse"


def test_the_bootstrap_of_means_holds_the_difference_and_narrows_with_more_images():
    import numpy as np

    rng = np.random.default_rng(1)
    a, b = rng.exponential(1.0, 2000), rng.exponential(1.2, 2000)
    few, many = stats.bootstrap_of_means(a[:100], b[:100]), stats.bootstrap_of_means(a, b)
    assert many.difference == pytest.approx((a - b).mean()) and many.low < many.difference < many.high
    half = 1.96 * (a - b).std() / 2000**0.5
    assert (many.high - many.low) / 2 == pytest.approx(half, rel=0.1) and few.high - few.low > many.high - many.low
    with pytest.raises(ValueError, match="same images"):
        stats.bootstrap_of_means([], [])


def test_top1_is_named_by_the_classification_task_and_what_shows_it_alone():
    package = Path(nasaug.__file__).parent
    named = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*") if path.suffix in (".py", ".j2") and re.search(r"top-?1", path.read_text(), re.I)
    }  # fmt: skip
    assert named == {"tasks/classify.py"}

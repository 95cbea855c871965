"""Statistics against published tables, scipy's own tests, and counts by hand."""

import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from nasaug.comparison import stats

rng = np.random.default_rng(0)
A, B = rng.normal(72, 1, 6), rng.normal(71, 1, 6)


def test_the_interval_of_a_known_sample():
    mean, half = stats.interval([1, 2, 3, 4, 5])
    assert mean == 3
    assert half == pytest.approx(2.776445 * 2.5**0.5 / 5**0.5, rel=1e-6)  # t table: 4 degrees of freedom, 95 %


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_the_interval_agrees_with_scipy(level):
    mean, half = stats.interval(A, level)
    low, high = scipy.stats.t.interval(level, len(A) - 1, loc=A.mean(), scale=scipy.stats.sem(A))
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(1).normal(50, 2, (2000, 5))
    inside = [abs(mean - 50) <= half for mean, half in map(stats.interval, draws)]
    assert 0.935 < np.mean(inside) < 0.965


def test_one_value_or_two_have_no_interval():
    assert stats.interval([70.5]) == (70.5, None) and stats.interval([70.5, 71.5]) == (71, None)
    assert stats.paired([70.5], [70]) == stats.Paired(1, 0.5, None, None, None)
    assert stats.paired([70.5, 71.5], [70, 70]) == stats.Paired(2, 1, None, None, None)
    assert stats.interval([70, 71, 72])[1] == pytest.approx(2.484, abs=1e-3)


@pytest.mark.parametrize("values", [[], [1, float("nan")], [[1, 2], [3, 4]]])
def test_an_interval_of_nothing_or_of_no_number_is_refused(values):
    with pytest.raises(ValueError, match="finite values are needed"):
        stats.interval(values)


@pytest.mark.parametrize("comparisons", [1, 4])
def test_paired_agrees_with_scipy(comparisons):
    found, known = stats.paired(A, B, comparisons), scipy.stats.ttest_rel(A, B)
    assert found.p == pytest.approx(known.pvalue)  # uncorrected, whatever the comparisons
    ends = known.confidence_interval(1 - 0.05 / comparisons)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.difference == pytest.approx(A.mean() - B.mean()) and found.n == 6


def test_pairing_takes_out_what_the_seeds_share():
    shared = np.array([0, 10, 20, 30, 40])
    found = stats.paired(shared + [1, 1.1, 0.9, 1, 1], shared)
    assert found.p < 1e-4 and 0.9 < found.low < found.high < 1.1
    assert scipy.stats.ttest_ind(shared + 1, shared).pvalue > 0.9  # the result of an unpaired test


def test_equal_pairs():
    assert stats.paired(A, A) == stats.Paired(6, 0, 0, 0, 1)
    assert stats.paired([2, 3, 4], [1, 2, 3]) == stats.Paired(3, 1, 1, 1, 0)
    with warnings.catch_warnings(action="error"):  # scipy's warnings, which a user cannot act on
        nearly = stats.paired([70.3, 71.4, 72.3], [70.1, 71.2, 72.1])
    assert (nearly.low, nearly.difference, nearly.high) == pytest.approx((0.2, 0.2, 0.2)) and nearly.p < 1e-20


def test_pairs_that_are_none_are_refused():
    with pytest.raises(ValueError, match="not 2 and 3 values"):
        stats.paired([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="comparisons must be 1 or more"):
        stats.paired([1, 2], [2, 4], comparisons=0)


def test_holm_of_a_known_family():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.7, 0.6]) == [1, 1]
    assert stats.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_the_raw_values_and_bonferroni(p):
    adjusted = stats.holm(p)
    assert all(raw <= new <= min(1, len(p) * raw) + 1e-15 for raw, new in zip(p, adjusted, strict=True))
    assert min(adjusted) == min(1, len(p) * min(p))
    order = sorted(range(len(p)), key=p.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_bootstrap_agrees_with_resampling_image_by_image():
    rng = np.random.default_rng(2)
    a, b = rng.random(1000) < 0.75, rng.random(1000) < 0.7
    found = stats.bootstrap(a, b, draws=20_000)
    d = 100 * (a.astype(float) - b)
    known = scipy.stats.bootstrap((d,), np.mean, n_resamples=5000, method="percentile", rng=3).confidence_interval
    assert found.difference == pytest.approx(d.mean())
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.15)
    wide = stats.bootstrap(a, b, draws=20_000, level=0.99)
    assert wide.low < found.low < found.high < wide.high


def test_bootstrap_is_paired_and_repeatable():
    right = np.random.default_rng(4).random(10_000) < 0.5
    other = right.copy()
    other[:20] = False
    lost = right[:20].sum()
    found = stats.bootstrap(right.astype(np.uint8), other.astype(np.uint8))
    assert found.difference == pytest.approx(lost / 100)
    assert 0 < found.low < found.high < 0.25  # unpaired, the accuracies' own spread would be a point each way
    assert stats.bootstrap(right, other) == found != stats.bootstrap(right, other, seed=1)
    assert stats.bootstrap(right, right) == stats.Bootstrap(0, 0, 0)


@pytest.mark.parametrize("a, b", [([1, 0], [1]), ([], []), ([[1]], [[0]])])
def test_bootstrap_of_other_images_is_refused(a, b):
    with pytest.raises(ValueError, match="the same images"):
        stats.bootstrap(a, b)


def test_the_verdict():
    for seeds in range(5):
        assert stats.verdict(seeds, 3.0, 1e-9) == "not enough seeds"
    assert stats.verdict(5, 3.0, None) == "not enough seeds"
    assert stats.verdict(5, 3.0, 0.049) == "better"
    assert stats.verdict(5, -3.0, 0.049) == "worse"
    assert stats.verdict(5, 3.0, 0.05) == "no difference shown"


def test_bootstrap_of_means_agrees_with_resampling_by_hand():
    rng = np.random.default_rng(5)
    a, b = rng.normal(3, 1, 200), rng.normal(2.9, 1, 200)
    found = stats.bootstrap_of_means(a, b)
    drawn = np.random.default_rng(6).integers(200, size=(5000, 200))
    low, high = np.percentile((a - b)[drawn].mean(axis=1), [2.5, 97.5])
    assert found.difference == pytest.approx((a - b).mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    assert found == stats.bootstrap_of_means(a, b) != stats.bootstrap_of_means(a, b, seed=1)
    wide = stats.bootstrap_of_means(a, b, level=0.99)
    assert wide.low < found.low < found.high < wide.high


def test_bootstrap_of_the_mean_of_a_single_image_has_no_width():
    assert stats.bootstrap_of_means([1.5], [1.0]) == stats.Bootstrap(0.5, 0.5, 0.5)
    assert stats.bootstrap_of_means([1.5, 2.5], [1.0, 2.0]) == stats.Bootstrap(0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="the same images"):
        stats.bootstrap_of_means([], [])

"""The predictor: what it learns from scores, and what it proposes."""

from random import Random
from unittest import mock

import numpy as np

from nasaug.arch.cost import cost_of
from nasaug.nas.predictor import Predictor, features, propose
from nasaug.nas.study import STARTUP
from support.searches import SPACE, run, search_of


def score_of(arch):
    """Larger choices are better, smaller resolutions too."""
    rungs = {a.kind: a.choices.index(v) for a, v in zip(SPACE.axes, arch.values, strict=True)}
    return 50 + sum(-3 * n if kind == "resolution" else n for kind, n in rungs.items())


def known_of(count, seed=0):
    drawn = dict.fromkeys(SPACE.sample(Random(f"{seed}/{i}")) for i in range(4 * count))
    return list(drawn)[:count]


def features_of(archs):
    return [features(SPACE, arch, cost_of(SPACE, arch, 10)) for arch in archs]


def test_it_predicts_nets_that_it_has_not_seen():
    archs = known_of(90)
    seen, new = archs[:60], archs[60:]
    noise = np.random.default_rng(0).normal(0, 0.2, len(seen))
    predictor = Predictor.fit(features_of(seen), [score_of(a) + e for a, e in zip(seen, noise, strict=True)])
    mean, deviation = predictor.predict(features_of(new))
    truth = np.array([score_of(arch) for arch in new])
    assert np.corrcoef(mean, truth)[0, 1] > 0.95
    assert (deviation > 0).all()


def test_it_is_surer_of_what_it_has_seen():
    archs = known_of(40)
    seen, new = archs[:20], archs[20:]
    predictor = Predictor.fit(features_of(seen), [score_of(arch) for arch in seen])
    assert predictor.predict(features_of(seen))[1].mean() < predictor.predict(features_of(new))[1].mean()


def test_equal_scores_and_a_single_one_are_no_fault():
    archs = known_of(3)
    for count in (1, 3):
        mean, deviation = Predictor.fit(features_of(archs[:count]), [7.0] * count).predict(features_of(archs))
        assert np.allclose(mean, 7.0) and np.isfinite(deviation).all()


def test_the_proposal_is_among_the_best_of_the_pool():
    archs = known_of(120)
    cost = {arch: cost_of(SPACE, arch, 10) for arch in archs}
    judged = {arch: (cost[arch], score_of(arch)) for arch in archs[:60]}
    pool = archs[60:]
    found = propose(SPACE, judged, ((arch, cost[arch]) for arch in pool))
    assert sorted(map(score_of, pool), reverse=True).index(score_of(found)) < 5
    assert found == propose(SPACE, judged, ((arch, cost[arch]) for arch in reversed(pool)))
    assert propose(SPACE, judged, []) is None


def test_a_search_with_it_finds_better_nets_than_its_random_start(tmp_path):
    search = search_of(tmp_path / "study", sampler="tpe", predicted=1.0, trials=STARTUP + 30)
    run(search)
    scores = [judged.score for judged in search.scores.values()]
    assert max(scores[STARTUP:]) >= max(scores[:STARTUP])
    assert sum(scores[STARTUP:]) / 30 > sum(scores[:STARTUP]) / STARTUP + 1
    assert all(search.budget.holds(cost_of(SPACE, arch, 10)) for arch in search.scores)


def test_the_share_of_its_proposals_is_as_asked(tmp_path):
    counts = {}
    for share in (0.0, 0.5, 1.0):
        search = search_of(tmp_path / f"study-{share}", sampler="tpe", predicted=share, trials=STARTUP + 24)
        with mock.patch.object(search, "_predicted", wraps=search._predicted) as asked:
            run(search)
        counts[share] = asked.call_count
    assert counts[0.0] == 0 < counts[0.5] < counts[1.0]

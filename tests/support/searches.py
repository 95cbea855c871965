"""Searches with synthetic scores, so that no network is trained."""

from types import SimpleNamespace

import optuna
import pytest

from nasaug.arch.cost import Budget
from nasaug.arch.plan import plan
from nasaug.core.signals import Pending
from nasaug.nas.study import Search
from nasaug.pool.storage import open_storage
from nasaug.tasks import Classify
from nasaug.training.recipe import SearchConfig
from nasaug.training.scoring import Judged
from support.spaces import made, stage

SPACE = made({
    "name": "seven axes",
    "resolution": [8, 12, 16],
    "stage": [
        stage("stem", "conv", width=[8, 16, 24], kernel=[3, 5], stride=2, act="relu"),
        stage("s1", "inverted", width=[8, 16, 24, 32], depth=[1, 2], expand=[2, 3, 4, 6], kernel=3),
        stage("pool", "pool"),
    ],
})
MEDIUM = Budget(macs=150_000)
RESOLUTION = SPACE.index["resolution"]
IMAGES = 10**6  # number of scoring images: so many that different scores never tie
SAMPLERS = ("tpe", "nsga2", "random", "tpe+predictor")
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


class MadeUp(Search):
    """Scores follow from the choices: larger choices and smaller resolutions are better; many scores are equal."""

    def _judge(self, arch, split):
        self.judged.append(arch)
        rungs = {a: a.choices.index(v) for a, v in zip(self.space.axes, arch.values, strict=True)}
        score = 60.0 + sum(-2 * n if axis.kind == "resolution" else n for axis, n in rungs.items())
        return Judged(score, (100 - score) / 20)


def search_of(storage, *, sampler="tpe", predicted=0.0, trials=30, budget=MEDIUM, space=SPACE, seed=0, timeout=None):
    """`storage`: a journal (fast) if it has no suffix, else an SQLite file (the default). The sampler "tpe+predictor"
    leaves half of the candidates to the predictor."""
    sampler, _, beside = sampler.partition("+")
    predicted = 0.5 if beside else predicted
    net = SimpleNamespace(plan=plan(space, space.largest, 10))
    config = SearchConfig(trials=trials, sampler=sampler, predicted=predicted, finalists=4)
    url = f"sqlite:///{storage}" if storage.suffix else f"journal:{storage}"
    scorer = SimpleNamespace(task=Classify(10))
    search = MadeUp(space, budget, config, scorer, range(IMAGES), url, seed=seed, timeout=timeout, net=net)
    search.judged = []
    return search


def run(search, pending=None):
    """The search's ranked candidates."""
    return search.run(pending or Pending(), lambda *_: None)


def recorded(search):
    """(state, choices, value, constraints) of each trial in the storage, in order."""
    study = optuna.load_study(storage=open_storage(search.storage), study_name="nasaug")
    return [(t.state.name, t.params, t.value, t.constraints) for t in study.trials]

"""Which epoch's weights a training keeps."""

import pytest
from torch.nn import Linear

from nasaug.tasks import Classify, Regress
from nasaug.training.best import Best


@pytest.mark.parametrize("metric, scores", [(Classify.metric, (90, 97, 95, 97, 96)), (Regress.metric, (3, 1, 2, 1, 4))])
def test_the_best_epoch_is_kept_and_of_equal_ones_the_last(metric, scores):
    best, nets = Best(metric), [Linear(1, 1) for _ in scores]
    for net, score in zip(nets, scores, strict=True):
        best.offer(net, score)
    assert best.score == scores[3]
    assert best.tensors["weight"].equal(nets[3].weight) and not best.tensors["weight"].equal(nets[1].weight)

"""Classification: its targets and its losses."""

import pytest
import torch
import torch.nn.functional as F

from nasaug.tasks import Classify, Target


def test_a_soft_target_is_never_smoothed_and_matches_itself():
    task = Classify(4, label_smoothing=0.3)
    out = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.arange(6) % 4
    soft = task.soft(out)
    assert not soft.requires_grad and torch.allclose(soft, out.softmax(1))
    assert task.match(out, soft).item() == pytest.approx(0, abs=1e-6)
    smooth = F.one_hot(labels, 4) * 0.7 + 0.3 / 4
    assert task.loss(out, Target(labels)).item() == pytest.approx(F.cross_entropy(out, smooth).item())
    assert Classify(4).loss(out, Target(smooth)).item() == pytest.approx(task.loss(out, Target(labels)).item())
    logits = torch.tensor([[0.1, 0.9], [0.7, 0.3]])
    assert task.judge(logits, torch.tensor([1, 1])).tolist() == [True, False]


def test_targets_are_cut_together():
    target = Target(torch.arange(6), torch.rand(6, 3))
    assert target.first(2).labels.tolist() == [0, 1] and len(target.first(2).soft) == 2
    assert Target(torch.arange(6)).first(2).soft is None
